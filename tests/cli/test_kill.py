"""A run that is killed at random times and resumed equals an uninterrupted run bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-c", "import sys; from jaxgd.cli import main; sys.exit(main())", "train")


def start(*argv):
    return subprocess.Popen([*COMMAND, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process):
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    assert b"Traceback" not in err, err.decode()


def kill_and_resume(tmp_path, *, epochs, kills, seed):
    """Kill a run at random times, resume it after each kill, and compare it with a run without kills.

    Return the number of epochs recorded at each kill, or None if metrics.jsonl did not exist yet.
    """
    every = ("--checkpoint-every", "1")
    new = (*every, "--epochs", str(epochs), "--seed", "3", "--run-dir")
    began = time.monotonic()
    finish(start(*new, str(tmp_path / "whole")))
    duration = time.monotonic() - began
    rng = random.Random(seed)
    run, recorded = tmp_path / "killed", []
    for _ in range(kills):
        process = start(*every, "--resume", str(run)) if run.exists() else start(*new, str(run))
        try:
            process.wait(timeout=rng.uniform(0.3 * duration, 0.8 * duration))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        metrics = run / "metrics.jsonl"
        recorded.append(len(metrics.read_bytes().splitlines()) - 1 if metrics.exists() else None)
    finish(start(*every, "--resume", str(run)) if run.exists() else start(*new, str(run)))
    for name in ("network.safetensors", "metrics.jsonl"):
        assert Path(run, name).read_bytes() == Path(tmp_path, "whole", name).read_bytes(), (name, recorded)
    return recorded


@pytest.mark.slow
def test_a_run_killed_ten_times_resumes_bit_for_bit(tmp_path):
    recorded = kill_and_resume(tmp_path, epochs=60, kills=10, seed=2)
    print(f"epochs recorded at each kill: {recorded}")
