"""Timing of asynchronous work, and the rows that store the times."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.device import data
from benchmarks.device.context import Context
from benchmarks.rows import Row
from benchmarks.training.work import Shared, accuracy, cost

if TYPE_CHECKING:
    import jax

    Epoch = Callable[[list[jax.Array], jax.Array, jax.Array, jax.Array, jax.Array], list[jax.Array]]

T = TypeVar("T")

# Number of timings of a program that takes about a second per call. It is above 1, because a loop in a command buffer
# once crashed at its second run.
SLOW_REPEATS = 3
# Number of images for the cost and the accuracy. Equal costs show that programs did the same work.
JUDGED = 10_000
# The precisions of a float32 product on a GPU, and the argument `precision` of `jaxgd.network_cost` for each.
FLOAT32, TF32 = "float32, highest", "TF32 allowed"
PRECISIONS = {FLOAT32: "highest", TF32: None}


def times(run: Callable[[int], T], wait: Callable[[T], object], repeats: int) -> tuple[float, list[float]]:
    """Return the time of the first call, and the times of the calls after the second. The second is a warm-up.

    Args:
        run: A function of k = 0, 1, 2, … that starts the work of call k, and returns its result.
        wait: A function that waits for a result.
        repeats: Number of calls after the second.
    """
    seconds = list(_each(run, wait, repeats + 2))
    return seconds[0], seconds[2:]


def _each(run: Callable[[int], T], wait: Callable[[T], object], count: int) -> Iterator[float]:
    for k in range(count):
        began = time.perf_counter()
        wait(run(k))
        yield time.perf_counter() - began


def outcome(images: data.Images, network: Sequence[NDArray[np.float32]]) -> dict[str, object]:
    """Return the details of a row: a network's cost, the origin of the images and, with genuine MNIST, the accuracy.

    The cost and the accuracy use the first JUDGED training images, so that they take less time than the training.
    """
    arrays = list(zip(network[::2], network[1::2], strict=True))
    examples = Shared(images.x[:JUDGED], images.y[:JUDGED], arrays)
    details = {"cost": cost(arrays, examples), **images.details}
    return details | ({"accuracy": accuracy(arrays, examples)} if images.genuine else {})


def store(
    context: Context, part: str, variant: str, unit: str, first: float, samples: list[float], precision: str,
    details: Mapping[str, object], per_call: int = 1,
) -> Row:  # fmt: skip
    """Store a row with the times, and a row with the compile time: `first` minus the median, but at least 0.

    `first` and `samples` are the times of calls. The row of times holds them divided by the number of units per call.
    """
    excess = max(first - statistics.median(samples), 0.0)
    context.row(part, variant, "compile time", "s", [excess], precision=precision)
    each = [t / per_call for t in samples]
    return context.row(part, variant, "time", unit, each, precision=precision, details=dict(details))


def time_epochs(
    context: Context, variant: str, precision: str, epoch: "Epoch", images: data.Images, networks: int, repeats: int,
    count: int = 1,
) -> None:  # fmt: skip
    """Time a compiled epoch of JAX, and store its time and compile time.

    Args:
        context: The settings of the task.
        variant: Name of the program.
        precision: Precision of the program.
        epoch: A function of the network, the order, η, x and y. It returns the network.
        images: The training images.
        networks: Number of networks that are trained at once. If above 1, the arrays have a leading axis for them.
        repeats: Number of timings.
        count: Epochs per call.
    """
    import jax
    import jax.numpy as jnp

    context.require_gpu(jax.default_backend())
    n = len(images.y)
    arrays, orders, etas = data.weights(networks), data.orders(networks, n), np.full(networks, data.ETA, np.float32)
    given = [jnp.asarray(v if networks > 1 else v[0]) for v in (*arrays, orders, etas)]
    *network, order, eta = given
    x, y = jnp.asarray(images.x), jnp.asarray(images.y)
    held = [network]

    def run(k: int) -> "list[jax.Array]":
        held.append(epoch(held[-1], order, eta, x, y))
        return held[-1]

    first, samples = times(run, jax.block_until_ready, repeats)
    after = [np.asarray(v[0] if networks > 1 else v) for v in held[1]]
    # Equal costs after the first epoch show that programs did the same work. A call of several epochs does not return
    # the network after the first epoch, so its row has no cost.
    details = outcome(images, after) if count == 1 else {"epochs": count, **images.details}
    if networks > 1:
        details |= {"networks": networks, "network_epochs_per_s": count * networks / statistics.median(samples)}
    details["xla_flags"] = os.environ.get("XLA_FLAGS", "")
    store(context, "", variant, "s/epoch", first, samples, precision, {"n": n, **details}, count)
