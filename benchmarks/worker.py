"""A peer in a process of its own, which runs units when told to: `python -m benchmarks.worker CASE PEER DATA_DIR`."""

import contextlib
import json
import resource
import sys
import time
from pathlib import Path

from benchmarks.cases import CASES, GROWTH, accuracy, cost, shared
from benchmarks.peers import peers_of

# A turn takes so many seconds at least: one unit after a pause would be a cold one.
TURN = 0.1


def peak_memory(*, reset: bool = False) -> float:
    """The most memory that the process has had, in MB; since `reset`, where the system can forget what was before."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(case_name: str, peer: str, data_dir: str) -> None:
    """Answer each line of input with one line of JSON."""
    case = next(case for case in (*CASES, *GROWTH) if case.name == case_name)
    data = shared(case, Path(data_dir))
    before, most = peak_memory(reset=True), 0.0
    units = peers_of(case)[peer](case, data)
    weights = data.weights
    for line in sys.stdin:
        if line.strip() == "unit":
            began = time.perf_counter()
            weights = next(units)
            answer = {"seconds": time.perf_counter() - began}
        elif line.strip() == "turn":
            if not case.cold:
                # The first wakes the processor and its caches, and does not count.
                next(units)
            began, count = time.perf_counter(), 0
            while count == 0 or time.perf_counter() - began < TURN:
                weights = next(units)
                count += 1
            answer = {"seconds": (time.perf_counter() - began) / count}
        else:
            # To judge the weights takes memory too, which is not the peer's.
            most = max(most, peak_memory() - before)
            if case.cold:
                most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            answer = {"megabytes": most, "cost": cost(weights, data), "accuracy": accuracy(weights, data)}
            peak_memory(reset=True)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
