"""The peak memory of wide networks: `python -m benchmarks.training.memory WIDTH MODE` measures one width in one mode.

Each measurement has a process of its own, because the operating system records only the peak of a whole process.
The memory that JAX takes before the first network is subtracted from the peak. The unit is W, the bytes of the weights
and biases.
"""

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.case import Case, Options
from benchmarks.hardware import stamp
from benchmarks.rows import Row, significant
from benchmarks.training.worker import peak_memory
from jaxgd.files import free_memory

if TYPE_CHECKING:
    from jaxgd import Network

Inputs = NDArray[np.float32]
Labels = NDArray[np.int64]
WIDTHS = (3_000, 12_000, 30_000)
_EXAMPLES = 1_000
# The number of updates per epoch with mini-batches of 10, for each width. All 1,000 images make 100 updates, which
# would take 20 minutes for the widest network.
_UPDATES = {3_000: 100, 12_000: 10, 30_000: 2}
# A width is left out if less memory than this is free, in units of W.
_MOST = 5.5


def sizes_of(width: int) -> tuple[int, ...]:
    """Return the sizes of the network for MNIST with two hidden layers of this width."""
    return 784, width, width, 10


def weights_bytes(width: int) -> int:
    """Return W, the bytes of the weights and biases in float32."""
    return 4 * sum((a + 1) * b for a, b in pairwise(sizes_of(width)))


def _train(network: "Network", x: Inputs, y: Labels, batch_size: int | None, **settings: Any) -> "Network":
    import jax

    from jaxgd import train

    options: dict[str, Any] = {"epochs": 2, "batch_size": batch_size, "eta": 0.1, "key": jax.random.key(1), **settings}
    return train(network, (x, y), **options).network


def _minimize(network: "Network", x: Inputs, y: Labels) -> "Network":
    import jax

    from jaxgd import gradient_descent, minimize, network_cost

    options: dict[str, Any] = {"max_steps": 2, "stop": None, "record": None}
    end: Network = minimize(network_cost, network, gradient_descent(0.1), args=(x, jax.nn.one_hot(y, 10)), **options).v
    return end


_LEAN: dict[str, Any] = {"donate": True, "evaluate": False, "gradient_norm": False}
MODES: dict[str, Callable[["Network", Inputs, Labels], "Network"]] = {
    "init": lambda network, x, y: network,
    "full": functools.partial(_train, batch_size=None),
    "full-donate": functools.partial(_train, batch_size=None, donate=True),
    "mini": functools.partial(_train, batch_size=10),
    "mini-donate": functools.partial(_train, batch_size=10, **_LEAN),
    "minimize": _minimize,
}


def measure(width: int, options: Options) -> Iterator[Row]:
    """Yield the peak of each mode in units of W. A mode makes two epochs or steps on up to 1,000 images.

    The mode "init" only draws the weights.
    """
    free = free_memory()
    if free is not None and free < _MOST * weights_bytes(width):
        print(f"memory-{width}: left out, it may need {_MOST * weights_bytes(width) / 1e9:.0f} GB", file=sys.stderr)
        return
    about = stamp()
    for mode in MODES:
        words = [sys.executable, "-W", "ignore", "-m", "benchmarks.training.memory", str(width), mode]
        done = subprocess.run(words, check=True, capture_output=True, text=True, env=os.environ)
        point = json.loads(done.stdout.splitlines()[-1])
        yield Row(
            case=f"memory-{width}/{mode}", variant="jaxgd", quantity="memory", unit="W", value=point["peak"],
            details={name: point[name] for name in ("gigabytes", "seconds")}, **about,
        )  # fmt: skip


def main(width: int, mode: str) -> None:
    """Measure one width in one mode, and print the result as JSON."""
    import jax

    from jaxgd import init_network
    from jaxgd.typed import block_until_ready

    block_until_ready(jax.random.normal(jax.random.key(0), (8, 8)))
    before, most = peak_memory(reset=True), weights_bytes(width) / 2**20
    n = _EXAMPLES if mode.startswith(("full", "minimize")) else 10 * _UPDATES[width]
    rng = np.random.default_rng(0)
    x, y = rng.random((n, 784), np.float32), rng.integers(0, 10, n)
    began = time.perf_counter()
    network = init_network(jax.random.key(0), sizes_of(width), "scaled")
    end = MODES[mode](network, x, y)
    block_until_ready(end)
    point = {
        "peak": significant((peak_memory() - before) / most, 3),
        "gigabytes": significant((peak_memory() - before) * 2**20 / 1e9, 3),
        "seconds": significant(time.perf_counter() - began, 3),
    }
    print(json.dumps(point))


CASES = tuple(
    Case(
        name=f"memory-{width}",
        family="memory",
        title=f"peak memory of [784, {width}, {width}, 10] in units of W = {weights_bytes(width) / 1e9:.2f} GB",
        measure=functools.partial(measure, width),
    )
    for width in WIDTHS
)

if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
