"""The work that is timed, and the data that all peers share.

Work is timed in units. A unit is an epoch, a full-batch step or a whole process.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from jax import Array

Weights = list[tuple[NDArray[np.float32], NDArray[np.float32]]]
Peer = Callable[["Work", "Shared"], Iterator[Weights]]


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of one case. Its unit is an epoch of n examples, a step on all n examples, or a whole process.

    Attributes:
        name: Name of the case.
        family: Name of its family.
        sizes: Neurons of each layer.
        n: Number of examples.
        batch_size: Examples of a mini-batch; None for the full batch.
        eta: Learning rate.
        networks: Number of networks that are trained in a unit.
        growing: In a family of cases that differ in one size, the name of this size; otherwise None.
        size: The value of this size in this case.
        epochs: Epochs of a process, if a unit is a whole process; otherwise None.
        l2: λ of L2 regularization. A number selects the cross-entropy, and None the quadratic cost without L2.
    """

    name: str
    family: str
    sizes: tuple[int, ...]
    n: int
    batch_size: int | None
    eta: float
    networks: int = 1
    growing: str | None = None
    size: int = 0
    epochs: int | None = None
    l2: float | None = None

    @property
    def cold(self) -> bool:
        """True if a unit is a whole process."""
        return self.epochs is not None

    @property
    def unit(self) -> str:
        """The name of the unit: process, step or epoch."""
        if self.cold:
            return "process"
        return "step" if self.batch_size is None else "epoch"

    @property
    def title(self) -> str:
        """A description of the work in one line."""
        if self.cold:
            return f"one process, {self.epochs} epochs of digits, as `jaxgd train` runs by default"
        batch = "full batch" if self.batch_size is None else f"batch {self.batch_size}"
        many = f"{self.networks} networks, " if self.networks > 1 else ""
        cost = "" if self.l2 is None else f", cross-entropy, l2 = {self.l2:g}"
        return f"{many}{list(self.sizes)}, one {self.unit} of {self.n:,} images, {batch}{cost}"

    @property
    def flop(self) -> float:
        """Floating-point operations of the matrix products in a unit.

        The products are the forward pass, ∇w and, except for the first layer of weights, the backward pass. Each takes
        2 operations per weight and example. A program that skips pixels of value 0 does fewer operations, so its
        computed FLOP/s may exceed the measured peak.
        """
        weights = [a * b for a, b in itertools.pairwise(self.sizes)]
        return 2.0 * (self.epochs or 1) * self.networks * self.n * (2 * sum(weights) + sum(weights[1:]))


# The work of `jaxgd train` without arguments.
START = Work("start-up", "start-up", (64, 30, 10), 1_197, 10, 3.0, epochs=60)


def _growth(name: str, growing: str, size: int, **work: Any) -> Work:
    """Return the work of the book's network on a fifth of the examples, with one size changed.

    η is small, so that rounding errors stay small and the costs of the peers agree.
    """
    usual: dict[str, Any] = {"sizes": (784, 30, 10), "n": 10_000, "batch_size": 10, "eta": 0.1}
    return Work(name, "growth", growing=growing, size=size, **(usual | work))


WORKS = (
    Work("epoch-30", "epochs", (784, 30, 10), 50_000, 10, 3.0),
    Work("epoch-100", "epochs", (784, 100, 10), 50_000, 10, 3.0),
    Work("entropy-30", "epochs", (784, 30, 10), 50_000, 10, 0.5, l2=5.0),
    Work("entropy-100", "epochs", (784, 100, 10), 50_000, 10, 0.5, l2=5.0),
    Work("epoch-512-512", "epochs", (784, 512, 512, 10), 50_000, 128, 1.0),
    Work("step-1000", "steps", (784, 30, 10), 1_000, None, 1.0),
    Work("step-10000", "steps", (784, 30, 10), 10_000, None, 1.0),
    Work("step-50000", "steps", (784, 30, 10), 50_000, None, 1.0),
    Work("networks-64", "networks", (784, 30, 10), 50_000, 10, 3.0, networks=64),
    START,
    *(_growth(f"batch-{m}", "batch size", m, batch_size=m) for m in (1, 10, 100, 1000)),
    *(_growth(f"width-{m}", "hidden neurons", m, sizes=(784, m, 10)) for m in (10, 30, 100, 300, 1000)),
    *(_growth(f"depth-{m}", "hidden layers", m, sizes=(784, *[30] * m, 10)) for m in (1, 2, 4, 8)),
    *(_growth(f"n-{m}", "examples of a full batch", m, n=m, batch_size=None) for m in (100, 1000, 10_000, 50_000)),
    *(_growth(f"networks-{m}-of-10000", "networks", m, networks=m) for m in (1, 4, 16, 64)),
)


class Shared(NamedTuple):
    """The data, the first weights and the order of the examples, which all peers share.

    Attributes:
        x: Pixels, (n, inputs).
        y: Labels, (n,).
        weights: w and b of each layer.
    """

    x: NDArray[np.uint8]
    y: NDArray[np.int32]
    weights: Weights

    def order(self, k: int) -> NDArray[np.int32]:
        """Return the order of the examples in epoch k, as jaxgd's `train` draws it from key(0)."""
        return np.asarray(_random_order(len(self.y))(k))


@functools.cache
def _random_order(n: int) -> "Callable[[int], Array]":
    """Return a function from k to the order of epoch k. It is compiled, to be as fast as inside jaxgd."""
    import jax

    from jaxgd.kernels import random_order
    from jaxgd.typed import jit

    return jit(lambda k: random_order(jax.random.fold_in(jax.random.key(0), k), n))


def shared(work: Work, data_dir: Path | None) -> Shared:
    """Return the first n images and labels of the data set, weights from N(0, 1/fan-in), and biases from N(0, 1)."""
    import jaxgd

    part = jaxgd.load_dataset("digits" if work.cold else "mnist", data_dir).train
    rng = np.random.default_rng(0)
    weights = [
        ((rng.normal(size=(b, a)) / np.sqrt(a)).astype(np.float32), rng.normal(size=b).astype(np.float32))
        for a, b in itertools.pairwise(work.sizes)
    ]
    x = np.ascontiguousarray(part.images[: work.n].reshape(work.n, -1))
    return Shared(x, part.labels[: work.n].astype(np.int32), weights)


def cost(weights: Weights, data: Shared) -> float:
    """Return the quadratic cost over all examples, in float64.

    The benchmark also compares peers that minimize the cross-entropy by this cost.
    """
    total, answers = 0.0, np.eye(len(weights[-1][1]))
    for start in range(0, len(data.y), 5_000):
        a: NDArray[Any] = data.x[start : start + 5_000] / 255
        for w, b in weights:
            a = 1 / (1 + np.exp(-(a @ w.T.astype(float) + b)))
        total += float(np.sum((a - answers[data.y[start : start + 5_000]]) ** 2)) / 2
    return total / len(data.y)


def accuracy(weights: Weights, data: Shared) -> float:
    """Return the fraction of all examples that are classified correctly."""
    a: NDArray[Any] = data.x / np.float32(255)
    for w, b in weights[:-1]:
        a = 1 / (1 + np.exp(-(a @ w.T + b)))
    return float(np.mean(np.argmax(a @ weights[-1][0].T + weights[-1][1], axis=1) == data.y))


def batches(work: Work, data: Shared, k: int) -> Iterator[slice | NDArray[np.int32]]:
    """Yield the indices of the examples in each mini-batch of unit k, or a slice of all examples for the full batch."""
    if work.batch_size is None:
        yield slice(None)
        return
    order = data.order(k)
    for start in range(0, work.n, work.batch_size):
        yield order[start : start + work.batch_size]
