"""The tests that need a GPU."""

import os
import re
import sys
from pathlib import Path

from benchmarks.device.context import Context, TaskError
from benchmarks.device.process import output_of

FOLDER = Path(__file__).resolve().parents[2] / "tests/gpu"
# tests/gpu_run.py adds these words to the header of pytest's report if the GPU is emulated.
EMULATED = "emulated on the CPU"


def run(context: Context) -> None:
    """Run the GPU tests in one process, and store the number that failed. A rehearsal only collects them."""
    if not FOLDER.is_dir():
        raise TaskError(f"expected the tests in {FOLDER}, got no such folder")
    flags = ["-p", "no:cacheprovider", "-o", "addopts=", "--import-mode", "importlib"]
    # The log names each test before it runs, so the log shows which test hangs.
    flags += ["-q", "--collect-only"] if context.rehearse else ["-v", "--durations=5"]
    words = [sys.executable, "-m", "pytest", "-m", "gpu", *flags, str(FOLDER)]
    # pytest starts no test after this time, so its summary appears before the limit of this task.
    status, output = output_of(words, {"JAXGD_GPU_SECONDS": os.environ.get("JAXGD_GPU_SECONDS", "40")})
    lines = [line for line in output.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if re.search(r"\d", line)), lines[-1] if lines else "no output")
    context.note(f"tests: {last.strip('= ')}")
    if not context.rehearse and EMULATED in output:
        # Fail the task even if the tests passed, because they ran in the emulation.
        raise TaskError("expected a GPU, and JAX saw none: the tests ran on the CPU")
    counts = {
        word.rstrip("s"): int(number) for number, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", last)
    }
    failed = counts.get("failed", 0) + counts.get("error", 0)
    if not context.rehearse:
        context.count("", "jaxgd", "faults", "failed tests", failed, precision="any", details=counts)
    if status != 0:
        raise TaskError(f"pytest ended with status {status}: {last.strip('= ')}")
    if not context.rehearse and not counts.get("passed"):
        raise TaskError(f"no test ran: {last.strip('= ')}")
