"""The tests that need a GPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.device.context import Context, TaskError

MARK = re.compile(r"\bmark\.gpu\b")
FOLDER = Path(__file__).resolve().parents[2] / "tests/gpu"


def run(context: Context) -> None:
    """Run the marked tests in one process, and store the number that failed. A rehearsal only collects them."""
    files = sorted(str(path) for path in FOLDER.rglob("test_*.py") if MARK.search(path.read_text(encoding="utf-8")))
    if not files:
        if not context.rehearse:
            raise TaskError("no test has the mark gpu")
        context.note("tests: no test has the mark gpu")
        return
    flags = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "--import-mode", "importlib"]
    flags.append("--collect-only" if context.rehearse else "--durations=5")
    words = [sys.executable, "-m", "pytest", "-m", "gpu", *flags, *files]
    # pytest starts no test after this time, so its summary appears before the limit of this task.
    environment = {"JAXGD_GPU_SECONDS": "40"} | os.environ
    done = subprocess.run(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(done.stdout)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if re.search(r"\d", line)), lines[-1] if lines else "no output")
    context.note(f"tests: {last.strip('= ')}")
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", last)}
    if done.returncode != 0:
        raise TaskError(f"pytest ended with status {done.returncode}: {last.strip('= ')}")
    if not context.rehearse:
        context.count("", "jaxgd", "faults", "failed tests", counts.get("failed", 0), precision="any", details=counts)
