"""A signal is never lost and never gives a traceback, at any moment after the command has started."""

import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")]

# Wait for "ready" before a signal, because Python itself handles earlier signals.
START = "import sys; from jaxgd.cli import main; print('ready', flush=True); {}; sys.exit(main())"


def start(*argv, before="0", shell=(), **options):
    """Start the command, through the program `shell` if given, and return its process when `main` is about to run.

    The process runs the Python code `before` first.
    """
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    process = subprocess.Popen([*shell, sys.executable, "-c", START.format(before), *map(str, argv)], **options)
    assert process.stdout.readline() == "ready\n"
    return process


def wait_for(condition, process):
    limit = time.monotonic() + 60
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)


def has_rows(run, n=2):
    metrics = Path(run, "metrics.jsonl")
    return metrics.exists() and len(metrics.read_bytes().splitlines()) > n


def lines_of(process):
    """Return the exit status, and the lines that the process writes to standard error until it ends."""
    _, err = process.communicate(timeout=30)
    return process.returncode, err.splitlines()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_at_any_moment_ends_the_command_without_a_traceback(tmp_path, name):
    number, rng = getattr(signal, name), random.Random(name)
    word = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    ends = collections.Counter()
    for i in range(10):
        run = tmp_path / str(i)
        process = start("train", "--no-progress", "--epochs", 10**6, "--run-dir", run)
        time.sleep(0.4 * (i + rng.random()))
        if i == 9:  # on a busy machine, the first epochs may take more than four seconds
            wait_for(lambda run=run: has_rows(run), process)
        process.send_signal(number)
        status, lines = lines_of(process)
        assert status == 128 + number, lines
        assert not [line for line in lines if line.startswith(("Traceback", "Exception ignored"))], lines
        at_once = lines[-1].startswith((f"jaxgd: {word}", f"jaxgd train: {word}"))
        assert at_once or "epochs, and saved; continue with: jaxgd train --resume" in lines[-1], lines
        assert run.exists() or (at_once and len(lines) == 1)
        ends["at once" if at_once else "saved"] += 1
    assert len(ends) == 2, ends


def test_the_second_signal_does_not_wait_for_the_epoch(tmp_path):
    """The main thread runs C++ during the whole epoch, so another thread must handle both signals."""
    process = start(
        "train", "--kernel=xla", "--batch-size", 1, "--sizes", 64, 2000, 2000, 10, "--run-dir", tmp_path / "run"
    )
    wait_for(lambda: has_rows(tmp_path / "run", 0), process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("run folder: ")
    assert process.stderr.readline().startswith("kernel ")
    assert process.stderr.readline().startswith("finishing this epoch and saving; press Ctrl-C again")
    time.sleep(0.2)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    status, lines = lines_of(process)
    assert (status, len(lines)) == (130, 1)
    assert "interrupted; the run is saved up to its last checkpoint; continue with: jaxgd train --resume" in lines[0]
    assert time.monotonic() - began < 1


def test_a_signal_that_arrives_twice_saves_the_run(tmp_path):
    """`timeout` sends SIGTERM to the process and to its group, so the process receives it twice."""
    process = start("train", "--epochs", 10**6, "--run-dir", tmp_path / "run")
    wait_for(lambda: has_rows(tmp_path / "run"), process)
    process.send_signal(signal.SIGTERM)
    for line in process.stderr:
        if line.startswith("finishing this epoch"):
            process.send_signal(signal.SIGTERM)
            break
    status, lines = lines_of(process)
    assert status == 143
    assert "epochs, and saved; continue with: jaxgd train --resume" in lines[-1]


def test_a_signal_during_drawing_prints_the_command_that_draws_the_figure(tmp_path):
    pytest.importorskip("matplotlib")
    slow = (
        "import jaxgd.report.training as training, time; "
        "training.plot_history = lambda *_, **__: (print('drawing', flush=True), time.sleep(60))"
    )
    plot = tmp_path / "run.svg"
    process = start("train", "--epochs", 1, "--run-dir", tmp_path / "run", "--plot", plot, before=slow)
    assert process.stdout.readline() == "Epoch 0: 134 / 300\n"
    assert process.stdout.readline() == "drawing\n"
    process.send_signal(signal.SIGINT)
    status, lines = lines_of(process)
    assert status == 130
    again = f"jaxgd train --resume {tmp_path}/run --plot {plot}"
    assert lines[-1] == f"jaxgd train: interrupted; the run is saved; draw its figure with: {again}"
    done = start(*again.split()[1:])
    assert lines_of(done)[0] == 0
    assert plot.exists()


def test_a_signal_ends_a_command_whose_output_nobody_reads(tmp_path):
    """The pipe of standard error is full, as in `jaxgd train 2>&1 | less`, so every write to it waits."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b" " * 4096)
    os.set_blocking(writer, True)
    process = start("train", "--epochs", 10**6, "--run-dir", tmp_path / "run", stderr=writer)
    wait_for((tmp_path / "run").exists, process)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    process.stdout.close()
    os.close(reader)
    os.close(writer)


def test_ignored_signals_stay_ignored(tmp_path):
    run = tmp_path / "run"
    ignoring = ("sh", "-c", 'trap "" INT HUP; exec "$@"', "sh")
    process = start("train", "--epochs", 300, "--run-dir", run, shell=ignoring)
    wait_for(lambda: has_rows(run), process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGHUP)
    status, lines = lines_of(process)
    assert status == 0, lines


def test_closed_standard_streams_are_opened():
    code = (
        "import os, sys; os.closerange(0, 3); sys.stderr = None; from jaxgd.cli import signals; "
        "signals.leave_on_signals(); assert os.path.samestat(os.fstat(2), os.stat(os.devnull))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_python_m_jaxgd_runs_the_command():
    done = subprocess.run([sys.executable, "-m", "jaxgd"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: jaxgd ")
