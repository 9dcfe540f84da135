"""A program for NVIDIA's tools: run STEPS steps of the kernel in each precision, without starting JAX.

`python -m benchmarks.device.launch STEPS NETWORKS LOGS [--rehearse]`
"""

import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.device import data
from benchmarks.device.context import Context, TaskError
from benchmarks.device.launcher import PARTS, etas, launcher, shape
from benchmarks.device.process import die_with_parent


def main(steps: str, networks: str, logs: str, *flags: str) -> None:
    """Train networks for `steps` steps. The last mini-batch is short."""
    die_with_parent()
    n, count = data.BATCH * int(steps) - data.BATCH // 2, int(networks)
    images = data.generated(n, 0)
    context = Context("launch", "--rehearse" in flags, Path(logs), -1)
    with launcher(context) as launches:
        for parts in PARTS:
            start, order = data.weights(count), data.orders(count, n)
            work = launches.training(shape(parts), start, images.x, images.y, order, etas(count))
            work.launch()
            network, finite = work.result()
            moved = float(np.abs(network[0] - start[0]).max())
            if not (finite == 1).all() or not 0 < moved < np.inf:
                actual = f"{finite.tolist()} and a change of {moved:g}"
                raise TaskError(f"{PARTS[parts]}: expected `finite` = 1 and a finite change of w¹ > 0, got {actual}")
            print(f"{PARTS[parts]}: {steps} steps, w¹ moved by at most {moved:.3g}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)
