"""`jaxgd predict` and `info`; help, error messages and exit statuses of the command."""

import contextlib
import io
import re
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgd as package
from jaxgd import feedforward, load_dataset, load_network
from jaxgd.cli import compiled, main
from jaxgd.cli.info import Info
from jaxgd.data.idx import write_idx
from jaxgd.kernels import native
from jaxgd.kernels.registry import kernel_names

NAMES = kernel_names()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["evaluate", "nowhere"], "not a run folder"),
        (["evaluate"], "jaxgd evaluate: expected RUN|NETWORK, got none. See jaxgd evaluate --help."),
        (["predict", ""], "jaxgd predict: RUN must be a path, got ''."),
        (["predict", "run"], "expected at least one image, got none"),
        (["predict", "nowhere", "x.png"], "not a run folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_misuse_prints_one_line(jaxgd, run_folder, argv, match):
    answer = jaxgd(*argv)
    assert (answer.status, answer.out) == (2, "")
    assert match in answer.err
    assert len(answer.err.splitlines()) == 1


@pytest.mark.bad_input
def test_a_bad_picture_does_not_cancel_the_others(jaxgd, run_folder):
    """The content of a file, not its name, decides how it is read."""
    images = load_dataset("digits").test.images[:2]
    write_idx("idx_labels", np.zeros(3, np.uint8))
    write_idx("pictures.png", images)
    write_idx("one", images[0])
    answer = jaxgd("predict", "run", "absent.png", "pictures.png", "run/config.json", "idx_labels", "one")
    assert answer.status == 1
    names, digits = zip(*(line.split("\t")[:2] for line in answer.out.splitlines()), strict=True)
    assert names == ("pictures.png[0]", "pictures.png[1]", "one[0]")
    assert digits[0] == digits[2]
    assert len(answer.err.splitlines()) == 3
    for line, word in zip(answer.err.splitlines(), ("absent.png", "config.json", "expected images"), strict=True):
        assert line.startswith("jaxgd predict: ")
        assert word in line
        assert "read_picture" not in line
    assert jaxgd("predict", "run", "absent.png")[:2] == (1, "")


def test_a_damaged_file_of_a_run_folder_is_reported(jaxgd, run_folder):
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


@pytest.mark.parametrize("size", [8, 12])
def test_a_blank_image_of_an_idx_file_does_not_cancel_the_others(jaxgd, run_folder, size):
    images = np.zeros((2, size, size), np.uint8)
    images[1, 2:-2, 3:5] = 255
    write_idx("two", images)
    answer = jaxgd("predict", "run", "two")
    assert answer.status == 1
    assert re.fullmatch(r"two\[1\]\t.*\n", answer.out)
    assert "two[0]" in answer.err
    assert "blank" in answer.err


def test_predict_reads_pictures_of_any_size(jaxgd, run_folder):
    """Most digits enlarged in a corner of a white page get the same answer as the small originals."""
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
    assert re.search(rf"^native kernels  +{re.escape(native.about())}$", answer.out, re.M)
    assert re.search(rf"^xla kernels  +on {jax.default_backend()}, XLA_FLAGS ", answer.out, re.M)
    assert re.search(rf"^kernel, 784 30 10  +({'|'.join(NAMES[1:])}): \S", answer.out, re.M)
    assert re.search(r"^mnist  +not found; `jaxgd train --data mnist` downloads it", answer.out, re.M)
    assert re.search(r"^compiled programs  +\S", answer.out, re.M)


def test_an_error_names_the_command_once(jaxgd, monkeypatch):
    monkeypatch.setattr(native, "library", lambda: "it was not built")
    answer = jaxgd("train", "--kernel", "native", "--epochs", 1)
    assert answer.status == 2
    assert answer.err.startswith("jaxgd train: kernel=")


COMMANDS = ["", "train", "sweep", "evaluate", "predict", "report", "minimize", "check", "info"]


HELP = """
import contextlib, io, sys, time
from jaxgd.cli import main
from jaxgd.data.registry import DATASETS
before = 0.0
for command in sys.argv[1:]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([*command.split(), "--help"]) == 0, command
    text, now = out.getvalue(), time.process_time()
    assert "usage: jaxgd" in text and command in text and len(text.splitlines()) > 5, (command, text)
    assert command not in ("train", "sweep") or all(name in text for name in DATASETS)
    assert not {"jax", "numpy", "orbax", "matplotlib"} & set(sys.modules), f"{command} imports too early"
    assert now - before < 1, (command, now - before)
    before = now
"""


def test_help_takes_less_than_a_second_without_jax():
    """The limit of one second is processor time, which does not depend on other processes.

    The time of the first command includes the start of Python.
    """
    done = subprocess.run([sys.executable, "-c", HELP, *COMMANDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("error", "status", "match"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "run/metrics.jsonl"), 1, "run/metrics.jsonl: No space left"),
        (PermissionError(13, "Permission denied", "run"), 2, "run: Permission denied"),
        (OSError(28, "No space left on device"), 1, "jaxgd info: writing: No space left on device"),
        (MemoryError(), 1, "jaxgd info: out of memory: an allocation failed"),
        (RuntimeError("RESOURCE_EXHAUSTED: 4 TB\nat 0x0"), 1, "jaxgd info: out of memory: RESOURCE_EXHAUSTED: 4 TB"),
        (RecursionError("too deep"), 1, "jaxgd info: internal error: RecursionError: too deep"),
        (ValueError("1\n2\n3"), 1, "internal error: ValueError: 1 First try without JAX_"),
        (AssertionError(), 1, "internal error: AssertionError: "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_failure_prints_one_line(jaxgd, monkeypatch, error, status, match):
    def fail(self, argv):
        raise error

    monkeypatch.setattr(Info, "run", fail)
    answer = jaxgd("info")
    assert answer.status == status
    assert match in answer.err
    assert len(answer.err.splitlines()) == 1
    monkeypatch.setenv("JAXGD_TRACEBACK", "1")
    again = jaxgd("info")
    assert again.status == status
    assert again.err.startswith("Traceback (most recent call last):\n")
    assert again.err.endswith(answer.err)


def test_a_librarys_warning_is_one_line(jaxgd, monkeypatch):
    """A warning that points to the user's own file keeps the file's name and the line."""

    def warn(self, argv):
        warnings.warn_explicit("info: take\ncare", UserWarning, compiled.__file__, 7)
        warnings.warn_explicit("look", UserWarning, "/home/model.py", 3)
        return 0

    monkeypatch.setattr(Info, "run", warn)
    answer = jaxgd("info")
    assert answer.status == 0
    assert answer.err == "jaxgd info: warning: take care\njaxgd info: warning: look (/home/model.py:3)\n"


USAGE = {
    ("train", "--eta=abc"): "jaxgd train: --eta must be a number, got abc.",
    ("train", "--epochs=None"): "jaxgd train: --epochs must be a whole number, got None.",
    ("train", "--seed", "1e3"): "jaxgd train: --seed must be a whole number, got 1e3.",
    ("train", "--seed", "9" * 5000): f"jaxgd train: --seed must be a whole number, got {'9' * 100}….",
    ("train", "--sizes", "64", "x", "10"): "jaxgd train: --sizes must be whole numbers, got 64 x 10.",
    ("train", "--batch-size", "all"): "jaxgd train: --batch-size must be a whole number or full, got all.",
    ("train", "--kernel", "gpu"): f"jaxgd train: --kernel must be {', '.join(NAMES[:-1])} or {NAMES[-1]}, got 'gpu'.",
    ("train", "--plot="): "jaxgd train: --plot must be a path, got ''.",
    ("train", "--eta"): "jaxgd train: --eta must have a value, got none.",
    ("train", "--etta", "3"): "jaxgd train: --etta 3 is not an argument of this command. Did you mean --eta?",
    ("train", "more"): "jaxgd train: more is not an argument of this command.",
    ("minimize",): "jaxgd minimize: expected NAME|FILE::COST, got none.",
    ("trian",): f"jaxgd: expected a command ({', '.join(COMMANDS[1:-1])} or info), got trian.",
    ("--eta", "3"): f"jaxgd: expected a command ({', '.join(COMMANDS[1:-1])} or info), got --eta 3.",
    ("--version", "x"): "jaxgd: expected --version alone, got x after it. Leave out the rest.",
}


@pytest.mark.parametrize("argv", USAGE, ids=lambda argv: " ".join(argv)[:30])
def test_a_usage_error_is_one_clear_line(jaxgd, argv):
    answer = jaxgd(*argv)
    command = argv[0] if argv[0] in COMMANDS else ""
    advice = "" if argv[0] == "--version" else f" See {f'jaxgd {command}'.strip()} --help."
    assert answer == (2, "", f"{USAGE[argv]}{advice}\n")


def test_the_version_is_one_line(jaxgd):
    answer = jaxgd("--version")
    assert answer.status == 0
    assert answer.out == (
        f"jaxgd {package.__version__}, jax {jax.__version__}, {jax.default_backend()}, native kernels: {native.isa()}\n"
    )


def test_without_arguments_the_command_prints_its_help_and_returns_status_2(jaxgd):
    answer = jaxgd()
    assert (answer.status, answer.out) == (2, "")
    assert "usage: jaxgd" in answer.err
    assert all(command in answer.err for command in COMMANDS)


ENCODINGS = {
    "utf-8": "λ_max  2/η",
    "ascii": "lambda_max  2/eta",
    "cp1252": "lambda_max  2/eta",
    "iso8859-7": "λ_max  2/η",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_output_is_readable_in_every_encoding(jaxgd, monkeypatch, encoding):
    """`print` keeps the bytes of a file name that is not UTF-8. An error message shows them as escapes."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")

    def run(*argv):
        out.seek(0)
        out.truncate()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            status = main(list(argv))
        out.flush()
        return status, out.buffer.getvalue()

    monkeypatch.setattr(Info, "run", lambda self, argv: print("λ_max  2/η") or 0)
    assert run("info") == (0, f"{ENCODINGS[encoding]}\n".encode(encoding))
    assert run("train", "--help")[0] == 0
    status, raw = run("evaluate", "\udcff")
    assert status == 2
    assert b"jaxgd evaluate: \\udcff is not a run folder" in raw
    monkeypatch.setattr(Info, "run", lambda self, argv: print("\udcff.png ł") or 0)
    status, raw = run("info")
    assert status == 0
    assert raw == b"\xff.png " + ("ł".encode() if encoding == "utf-8" else b"\\u0142") + b"\n"
    assert out.errors == "strict"


def test_a_missing_home_folder_is_reported_in_one_line(jaxgd, monkeypatch):
    def expanduser(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("JAXGD_DATA_DIR")
    monkeypatch.setattr(Path, "expanduser", expanduser)
    answer = jaxgd("train", "--data", "mnist")
    assert (answer.status, answer.out) == (2, "")
    assert "got no home folder. Set JAXGD_DATA_DIR." in answer.err
    assert len(answer.err.splitlines()) == 1


def test_missing_standard_streams_are_no_error(jaxgd, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["info"]) == 0
    assert main(["evaluate", "nowhere"]) == 2
    assert sys.stdout is None


@pytest.mark.parametrize(
    ("limit", "match"),
    [
        ("RLIMIT_AS", "address space must be at least 2.0 GiB, got 1.0"),
        ("RLIMIT_NOFILE", "open files: must be at least"),
    ],
)
def test_low_limits_are_reported_before_the_work(jaxgd, monkeypatch, limit, match):
    resource = pytest.importorskip("resource")
    real, low = resource.getrlimit, {"RLIMIT_AS": 2**30, "RLIMIT_NOFILE": 10}[limit]
    monkeypatch.setattr(
        resource, "getrlimit", lambda which: (low, low) if which == getattr(resource, limit) else real(which)
    )
    answer = jaxgd("info")
    assert (answer.status, answer.out) == (1, "")
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
    """`train` ends with status 1 and prints the command that resumes the run.

    The resumed run gives the network of an uninterrupted run.
    """
    from jaxgd import run_folder as module

    real, writes = module.RunFolder.append_metrics, []

    def full(self, *entry):
        writes.append(1)
        if len(writes) > 2:
            raise OSError(28, "No space left on device", str(self.metrics))
        real(self, *entry)

    monkeypatch.setattr(module.RunFolder, "append_metrics", full)
    answer = jaxgd("train", "--epochs", 3, "--run-dir", "run")
    assert answer.status == 1
    assert "No space left" in answer.err
    assert "jaxgd train --resume run" in answer.err
    monkeypatch.setattr(module.RunFolder, "append_metrics", real)
    assert jaxgd("train", "--resume", "run").status == 0
    jaxgd("train", "--epochs", 3, "--run-dir", "whole")
    assert Path("run/network.safetensors").read_bytes() == Path("whole/network.safetensors").read_bytes()
