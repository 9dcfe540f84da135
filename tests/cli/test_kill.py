"""SIGKILL at any moment: the resumed run ends, bit for bit, where the uninterrupted one ends."""

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
    """Let one run live for random times, kill it each time, then let it end; the epochs on record at each kill."""
    every = ("--checkpoint-every", "1")
    new = (*every, "--epochs", str(epochs), "--seed", "3", "--run-dir")
    began = time.monotonic()
    finish(start(*new, str(tmp_path / "whole")))
    life = time.monotonic() - began
    moments = random.Random(seed)
    run, on_record = tmp_path / "killed", []
    for _ in range(kills):
        process = start(*every, "--resume", str(run)) if run.exists() else start(*new, str(run))
        try:
            process.wait(timeout=moments.uniform(0.3 * life, 0.8 * life))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        metrics = run / "metrics.jsonl"
        on_record.append(len(metrics.read_bytes().splitlines()) - 1 if metrics.exists() else None)
    finish(start(*every, "--resume", str(run)) if run.exists() else start(*new, str(run)))
    for name in ("network.safetensors", "metrics.jsonl"):
        assert Path(run, name).read_bytes() == Path(tmp_path, "whole", name).read_bytes(), (name, on_record)
    return on_record


@pytest.mark.slow
def test_ten_kills(tmp_path):
    on_record = kill_and_resume(tmp_path, epochs=60, kills=10, seed=2)
    print(f"epochs on record at each kill: {on_record}")
