"""A peer in a process of its own, which runs a unit when told to: `python -m benchmarks.worker CASE PEER DATA_DIR`."""

import json
import resource
import sys
import time
from pathlib import Path

from benchmarks.cases import CASES, cost, shared
from benchmarks.peers import PEERS


def main(case_name: str, peer: str, data_dir: str) -> None:
    """Answer each line of input with one line of JSON."""
    case = next(case for case in CASES if case.name == case_name)
    data = shared(case, Path(data_dir))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    units = PEERS[peer](case, data)
    weights = data.weights
    for line in sys.stdin:
        if line.strip() == "unit":
            began = time.perf_counter()
            weights = next(units)
            answer = {"seconds": time.perf_counter() - began}
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            answer = {"cost": cost(weights, data), "megabytes": (peak - before) / 1024}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
