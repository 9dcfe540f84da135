"""A process that runs one peer on command: `python -m benchmarks.training.worker CASE PEER [DATA_DIR]`.

Each line of input is a command, and each line of output is the answer in JSON:

- "unit" runs one unit of work and returns its time.
- "turn" runs units for at least 0.1 s and returns their mean time. It runs one untimed unit first, unless a unit is
  a whole process.
- "cost" returns the cost and the accuracy of the current weights, and the peak memory of the peer.
"""

import contextlib
import json
import resource
import sys
import time
from pathlib import Path

from benchmarks.training.peers import peers_of
from benchmarks.training.work import WORKS, accuracy, cost, shared

# The shortest turn, in seconds. A shorter turn would mostly measure cold caches and a low clock rate after the pause.
TURN = 0.1
# macOS counts `ru_maxrss` in bytes, Linux in KiB.
_MAXRSS_PER_MIB = 2**20 if sys.platform == "darwin" else 2**10


def peak_memory(*, reset: bool = False) -> float:
    """Return the peak memory of the process in MiB since its start, or on Linux since the last reset."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MAXRSS_PER_MIB


def main(name: str, peer: str, data_dir: str = "") -> None:
    """Run the command on each line of input, and print the answer."""
    work = next(work for work in WORKS if work.name == name)
    data = shared(work, Path(data_dir) if data_dir else None)
    before, most = peak_memory(reset=True), 0.0
    units = peers_of(work)[peer](work, data)
    weights = data.weights
    for line in sys.stdin:
        if line.strip() == "unit":
            began = time.perf_counter()
            weights = next(units)
            answer = {"seconds": time.perf_counter() - began}
        elif line.strip() == "turn":
            if not work.cold:
                # The untimed unit warms the caches and raises the clock rate.
                next(units)
            began, count = time.perf_counter(), 0
            while count == 0 or time.perf_counter() - began < TURN:
                weights = next(units)
                count += 1
            answer = {"seconds": (time.perf_counter() - began) / count}
        else:
            # Read the peak before the evaluation of the cost, whose memory is not the peer's.
            most = max(most, peak_memory() - before)
            if work.cold:
                most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / _MAXRSS_PER_MIB
            answer = {"mebibytes": most, "cost": cost(weights, data), "accuracy": accuracy(weights, data)}
            peak_memory(reset=True)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
