"""`jaxgd sweep`: its output, its folder, stopping with Ctrl-C, and wrong arguments."""

import os
import re
import signal
from pathlib import Path

import pytest

import jaxgd as library

# The sweeps of this file train networks of the same sizes, so that they share compiled programs.
SHORT = ("--sizes", 64, 8, 10, "--eta", 0.3, 3, "--seeds", 2, "--epochs", 2)
LINE = re.compile(
    r"64-8-10  eta (\S+) +networks 2  median ([\d.]+)%  quartiles ([\d.]+)% ([\d.]+)%  best ([\d.]+)%  "
    r"diverged 0\.0%  saturated 0\.0%  unchanged 0\.0%"
)


def test_a_sweep_prints_a_line_per_eta_and_prints_the_lines_again_when_repeated(jaxgd):
    answer = jaxgd("sweep", *SHORT, "--folder", "my sweep", "--keep", "best", 1, "--plot", "a.png")
    assert answer.status == 0
    found = [LINE.fullmatch(line).groups() for line in answer.out.splitlines()]
    assert [eta for eta, *_ in found] == ["0.3", "3"]
    for _, median, low, high, best in found:
        assert float(low) <= float(median) <= float(high) <= float(best)
    lines = answer.err.splitlines()
    assert lines[0] == "sweep folder: my sweep"
    assert "accuracy: validation accuracy after the last epoch" in lines
    assert "table: my sweep/table.parquet" in lines
    assert lines[-1] == "drawn: a.png"
    (kept,) = [line.removeprefix("saved: ") for line in lines if line.startswith("saved: ")]
    assert library.load_network(kept)[0].w.shape == (8, 64)
    # The library reads the table from the folder and does not train.
    sweep = library.sweep(
        library.load_dataset("digits"), sizes=(64, 8, 10), eta=[0.3, 3.0], seeds=2, epochs=2, scheme="scaled", keep=1,
        folder="my sweep",
    )  # fmt: skip
    assert float(found[1][4]) == pytest.approx(100 * max(sweep.last()["validation_accuracy"].to_pylist()), abs=0.01)
    again = jaxgd("sweep", *SHORT, "--run-dir", "my sweep", "--keep", "best", 1)
    assert (again.status, again.out) == (0, answer.out)


def test_ctrl_c_saves_and_prints_the_command_that_continues(jaxgd, monkeypatch):
    """The default folder has the time in its name, so the printed command has --folder."""
    from jaxgd.sweeps import group

    real = group._step

    def interrupt(*args, **settings):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **settings)

    monkeypatch.setattr(group, "_step", interrupt)
    answer = jaxgd("sweep", *SHORT)
    assert (answer.status, answer.out) == (130, "")
    last = answer.err.splitlines()[-1]
    pattern = r"stopped by Ctrl-C, and saved; continue with: jaxgd (sweep .* --folder sweeps/digits-[\d-]+)"
    words = re.fullmatch(pattern, last)[1].split()
    assert Path(words[-1], "sweep.json").is_file()
    assert not Path(words[-1], "table.parquet").exists()
    monkeypatch.setattr(group, "_step", real)
    continued, whole = jaxgd(*words), jaxgd("sweep", *SHORT, "--folder", "whole")
    assert continued.status == 0
    assert continued.out == whole.out
    assert Path(words[-1], "table.parquet").read_bytes() == Path("whole/table.parquet").read_bytes()


def test_parts_are_merged(jaxgd):
    one = jaxgd("sweep", *SHORT, "--folder", "f", "--part", "1/2")
    assert one.err.splitlines()[-1] == "this part is done; after all parts: jaxgd sweep --merge f"
    early = jaxgd("sweep", "--merge", "f")
    assert early.status == 2
    assert early.err.count("\n") == 1
    assert "First run the missing parts: 2/2." in early.err
    assert jaxgd("sweep", *SHORT, "--folder", "f", "--part", "2/2").status == 0
    merged = jaxgd("sweep", "--merge", "f", "--plot", "a.svg")
    assert merged.status == 0
    assert merged.out == jaxgd("sweep", *SHORT, "--folder", "whole").out
    assert Path("a.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--eta 1 0", "eta must be a finite number above 0, got 0.0."),
        ("--eta 1 1", "eta must hold different values in float32, got 1.0 more than once."),
        ("--eta", "must hold at least one value, got none."),
        ("--sizes 64 8 10 --sizes 64 8 10", "sizes must hold different values"),
        ("--sizes 64 8 10 --sizes 63 8 10", "--sizes 63 8 10 does not fit digits"),
        ("--sizes", "sizes must hold the number of inputs"),
        ("--sizes 64 x", "--sizes must be whole numbers, got 64 x"),
        ("--seeds 0", "seeds must be"),
        ("--epochs 0", "epochs must be"),
        ("--batch-size 1198", "batch_size must be"),
        ("--keep 5", "--keep must be best and a whole number, got 5. Write --keep best 5."),
        ("--keep best best", "--keep must be best and a whole number, got best best."),
        ("--keep best 0", "--keep best must be"),
        ("--part 3/2 --folder f", "must be"),
        ("--part 2 --folder f", "--part must be two whole numbers, such as 2/8, got 2."),
        ("--part 1/2", "--part must have a --folder that all parts share, got none."),
        ("--memory 3X", "--memory must be a number of bytes, such as 500000000 or 2GB, got 3X."),
        ("--memory 0", "memory must be"),
        ("--merge f --eta 3 --keep=best", "--merge trains no network: leave out --eta, --keep."),
        ("--merge nothing", "nothing"),
        ("--folder a.png --plot a.png", "--plot must differ from --folder, got a.png for both."),
        ("--plot a.jpg", "--plot must be a file whose name ends in"),
        ("--data nist", "--data must be digits"),
    ],
)
def test_bad_input_gets_one_line_and_nothing_is_written(jaxgd, tmp_path, words, message):
    answer = jaxgd("sweep", *words.split())
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith("jaxgd sweep: ")
    assert message in answer.err
    assert answer.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_folder_of_another_sweep_is_refused(jaxgd):
    assert jaxgd("sweep", *SHORT, "--folder", "f").status == 0
    answer = jaxgd("sweep", *SHORT, "--folder", "f", "--epochs", 3)
    assert answer.status == 2
    assert "epochs" in answer.err
    assert answer.err.count("\n") == 1
