"""`jaxgd evaluate`, `predict` and `info`; help, error messages and exit statuses of the command."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import cli, feedforward, load_dataset, load_network
from jaxgd.data.idx import write_idx
from jaxgd.kernels import native


def metrics(row=-1):
    return json.loads(Path("run/metrics.jsonl").read_text().splitlines()[row])


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_evaluate_agrees_with_the_history(jaxgd, run_folder, part):
    answer = jaxgd("evaluate", "run", "--part", part)
    right, of, cost = re.fullmatch(rf"digits {part}: (\d+) / (\d+) \(.*%\), cost (.*)\n", answer.out).groups()
    prefix = "" if part == "train" else f"{part}_"
    assert int(right) / int(of) == pytest.approx(metrics()[f"{prefix}accuracy"])
    assert float(cost) == pytest.approx(metrics()[f"{prefix}cost"], rel=1e-4)


@pytest.mark.bad_input
def test_evaluate_on_images_of_another_size_names_the_run_and_the_images(jaxgd, run_folder):
    """The command has no option --sizes, so its message must not name one."""
    Path("mine").mkdir()
    for part in ("train", "test"):
        write_idx(f"mine/{part}-images", np.ones((9, 5, 4), np.uint8))
        write_idx(f"mine/{part}-labels", np.arange(9, dtype=np.uint8) % 3)
    answer = jaxgd("evaluate", "run", "--data", "mine")
    assert (answer.status, answer.out) == (2, "")
    assert "the network of run has sizes [64, 30, 10] and does not fit mine: its images are 5×4" in answer.err
    assert "64 pixels per image and 10 classes" in answer.err
    assert "--sizes" not in answer.err


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["evaluate", "nowhere"], "not a run folder"),
        (["evaluate", "run", "--part", "all"], "--part"),
        (["evaluate", "run", "--data", "cifar"], "digits, mnist"),
        (["predict", "run"], "expected at least one image, got none"),
        (["predict", "run", "absent.png"], "absent.png"),
        (["predict", "run", "run/config.json"], "config.json"),
        (["predict", "run", "labels-idx1-ubyte"], "expected images"),
        (["predict", "nowhere", "x.png"], "not a run folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_misuse_prints_one_line(jaxgd, run_folder, argv, match):
    write_idx("labels-idx1-ubyte", np.zeros(3, np.uint8))
    answer = jaxgd(*argv)
    assert (answer.status, answer.out) == (2, "")
    assert match in answer.err
    assert len(answer.err.splitlines()) == 1


def test_a_damaged_run_folder_is_named(jaxgd, run_folder):
    network = Path("run/network.safetensors")
    network.write_bytes(network.read_bytes()[:100])
    assert "network.safetensors is damaged" in jaxgd("evaluate", "run").err
    config = Path("run/config.json")
    for content, match in (
        (b"{", "damaged"),
        (b"{}", "not the configuration"),
        (b'{"format": "jaxgd.run/1"}', "data is missing"),
        (b"[]", "not the configuration"),
    ):
        config.write_bytes(content)
        answer = jaxgd("evaluate", "run")
        assert (answer.status, len(answer.err.splitlines())) == (2, 1)
        assert match in answer.err


def lines(answer):
    assert answer.status == 0, answer.err
    return [line.split("\t") for line in answer.out.splitlines()]


def test_predict_reads_idx_images_as_they_are(jaxgd, run_folder):
    images = load_dataset("digits").test.images[:20]
    write_idx("some-idx3-ubyte", images)
    network = load_network("run/network.safetensors")
    a = np.asarray(feedforward(network, jnp.asarray(images.reshape(20, -1) / 255, jnp.float32)))
    answer = lines(jaxgd("predict", "run", "some-idx3-ubyte"))
    assert [name for name, *_ in answer] == [f"some-idx3-ubyte[{i}]" for i in range(20)]
    assert [int(digit) for _, digit, *_ in answer] == a.argmax(-1).tolist()
    np.testing.assert_allclose([list(map(float, row[2:])) for row in answer], a, atol=6e-5)  # four decimals


def test_predict_reads_pictures_of_any_size(jaxgd, run_folder):
    """Enlarged digits in a corner of a white page: most get the same answer as the small originals."""
    pillow = pytest.importorskip("PIL.Image")
    images = load_dataset("digits").test.images[:20]
    write_idx("small-idx3-ubyte", images)
    for i, image in enumerate(images):
        page = np.zeros((120, 150), np.uint8)
        page[15:79, 20:84] = np.kron(image, np.ones((8, 8), np.uint8))
        pillow.fromarray(255 - page).save(f"{i}.png")
    small = lines(jaxgd("predict", "run", "small-idx3-ubyte"))
    large = lines(jaxgd("predict", "run", *(f"{i}.png" for i in range(20))))
    assert sum(a[1] == b[1] for a, b in zip(small, large, strict=True)) >= 16


def test_info_prints_versions_devices_and_folders(jaxgd):
    answer = jaxgd("info")
    assert answer.status == 0
    assert re.search(r"^jax  +\d+\.", answer.out, re.M)
    assert re.search(r"^device  +0: ", answer.out, re.M)
    assert re.search(r"^float  +float32", answer.out, re.M)
    assert re.search(r"^mnist  +not found; `jaxgd train --data mnist` downloads it", answer.out, re.M)
    assert re.search(r"^compiled programs  +\S", answer.out, re.M)


def test_an_error_names_the_command_once(jaxgd, monkeypatch):
    monkeypatch.setattr(native, "library", lambda: "it was not built")
    answer = jaxgd("train", "--kernel", "native", "--epochs", 1)
    assert answer.status == 2
    assert answer.err.startswith("jaxgd train: kernel=")


COMMANDS = ["", "train", "evaluate", "predict", "minimize", "check", "info"]


HELP = """
import contextlib, io, sys, time
from jaxgd.cli import main
before = 0.0
for command in sys.argv[1:]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([*command.split(), "--help"]) == 0, command
    text, now = out.getvalue(), time.process_time()
    assert "usage: jaxgd" in text and command in text and len(text.splitlines()) > 5, (command, text)
    assert not {"jax", "numpy", "orbax", "matplotlib"} & set(sys.modules), f"{command} imports too early"
    assert now - before < 1, (command, now - before)
    before = now
"""


def test_help_takes_less_than_a_second_without_jax():
    """The limit of one second is processor time, which does not depend on other processes.

    The first command's second includes the start of Python.
    """
    done = subprocess.run([sys.executable, "-c", HELP, *COMMANDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("error", "status", "match"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "run/metrics.jsonl"), 1, "run/metrics.jsonl: No space left"),
        (PermissionError(13, "Permission denied", "run"), 2, "run: Permission denied"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_operating_system_errors_print_one_line(jaxgd, monkeypatch, error, status, match):
    def fail(self, argv):
        raise error

    monkeypatch.setattr(cli.Info, "run", fail)
    answer = jaxgd("info")
    assert answer.status == status
    assert match in answer.err
    assert len(answer.err.splitlines()) == 1


def test_a_closed_pipe_is_not_an_error():
    code = "import sys; from jaxgd.cli import main; sys.exit(main(['info']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), err) == (0, b"")


def test_a_full_disk_keeps_the_saved_run(jaxgd, monkeypatch):
    """A write without disk space prints one line and returns status 1. The run resumes from its last save."""
    from jaxgd import run_folder as module

    real, writes = module.RunFolder.append_metrics, []

    def full(self, entry):
        writes.append(1)
        if len(writes) > 2:
            raise OSError(28, "No space left on device", str(self.metrics))
        real(self, entry)

    monkeypatch.setattr(module.RunFolder, "append_metrics", full)
    answer = jaxgd("train", "--epochs", 3, "--run-dir", "run")
    assert answer.status == 1
    assert "No space left" in answer.err
    assert "jaxgd train --resume run" in answer.err
    monkeypatch.setattr(module.RunFolder, "append_metrics", real)
    assert jaxgd("train", "--resume", "run").status == 0
    jaxgd("train", "--epochs", 3, "--run-dir", "whole")
    assert Path("run/network.safetensors").read_bytes() == Path("whole/network.safetensors").read_bytes()
