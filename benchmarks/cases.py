"""What is timed: the cases, and the data, first weights and orders that all peers share."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Weights = list[tuple[NDArray[np.float32], NDArray[np.float32]]]
Peer = Callable[["Case", "Shared"], Iterator[Weights]]


@dataclasses.dataclass(frozen=True)
class Case:
    """A unit of work: an epoch of mini-batches of n examples, or one step on the full batch of them."""

    name: str
    sizes: tuple[int, ...]
    n: int
    batch_size: int | None
    eta: float
    networks: int = 1
    # What grows from case to case, and how far it has got here.
    growing: str | None = None
    size: int = 0
    # Of a process that is timed from its start to its end, on digits.
    epochs: int | None = None

    @property
    def cold(self) -> bool:
        """Whether what is timed is a whole process."""
        return self.epochs is not None

    @property
    def unit(self) -> str:
        """What one time is of."""
        if self.cold:
            return "process"
        return "step" if self.batch_size is None else "epoch"

    @property
    def flop(self) -> float:
        """Floating-point operations of a unit by the dense formula: 2 each for forward, ∇w and, past layer 1, back.

        Who leaves out what is zero does fewer, and can come past the peak.
        """
        weights = [a * b for a, b in itertools.pairwise(self.sizes)]
        return 2.0 * (self.epochs or 1) * self.networks * self.n * (2 * sum(weights) + sum(weights[1:]))


# As `jaxgd train` goes without arguments.
START = Case("start-up", (64, 30, 10), 1_197, 10, 3.0, epochs=60)

CASES = (
    Case("epoch-30", (784, 30, 10), 50_000, 10, 3.0),
    Case("epoch-100", (784, 100, 10), 50_000, 10, 3.0),
    Case("epoch-512-512", (784, 512, 512, 10), 50_000, 128, 1.0),
    Case("step-1000", (784, 30, 10), 1_000, None, 1.0),
    Case("step-10000", (784, 30, 10), 10_000, None, 1.0),
    Case("step-50000", (784, 30, 10), 50_000, None, 1.0),
    Case("networks-64", (784, 30, 10), 50_000, 10, 3.0, networks=64),
    START,
)

# One thing grows, from case to case, and the rest is as in the book's run with a fifth of its examples; η is small, so
# that rounding is not carried far.
GROWTH = (
    *(Case(f"batch-{m}", (784, 30, 10), 10_000, m, 0.1, 1, "batch size", m) for m in (1, 10, 100, 1000)),
    *(Case(f"width-{m}", (784, m, 10), 10_000, 10, 0.1, 1, "hidden neurons", m) for m in (10, 30, 100, 300, 1000)),
    *(Case(f"depth-{m}", (784, *[30] * m, 10), 10_000, 10, 0.1, 1, "hidden layers", m) for m in (1, 2, 4, 8)),
    *(
        Case(f"n-{m}", (784, 30, 10), m, None, 0.1, 1, "examples of a full batch", m)
        for m in (100, 1000, 10_000, 50_000)
    ),
    *(Case(f"networks-{m}-of-10000", (784, 30, 10), 10_000, 10, 0.1, m, "networks", m) for m in (1, 4, 16, 64)),
)


class Shared(NamedTuple):
    """What every peer begins with: bytes and labels, the first weights, and an order for each unit."""

    x: NDArray[np.uint8]
    y: NDArray[np.int32]
    weights: Weights

    def order(self, k: int) -> NDArray[np.int32]:
        """The order of the k-th epoch's examples, as jaxgd's `train` draws it from key(0)."""
        return np.asarray(_drawn(len(self.y))(k))


@functools.cache
def _drawn(n: int) -> Any:
    """An order as a compiled function of the epoch: drawn as quickly as jaxgd itself draws it."""
    import jax

    from jaxgd.kernels import random_order

    return jax.jit(lambda k: random_order(jax.random.fold_in(jax.random.key(0), k), n))


def shared(case: Case, data_dir: Path) -> Shared:
    """The first n images of MNIST, and weights from N(0, 1/fan-in)."""
    import jaxgd

    part = jaxgd.load_dataset("digits" if case.cold else "mnist", data_dir).train
    rng = np.random.default_rng(0)
    weights = [
        ((rng.normal(size=(b, a)) / np.sqrt(a)).astype(np.float32), rng.normal(size=b).astype(np.float32))
        for a, b in itertools.pairwise(case.sizes)
    ]
    x = np.ascontiguousarray(part.images[: case.n].reshape(case.n, -1))
    return Shared(x, part.labels[: case.n].astype(np.int32), weights)


def cost(weights: Weights, data: Shared) -> float:
    """C over all examples, in float64 and in parts: what parity is judged by."""
    total, answers = 0.0, np.eye(len(weights[-1][1]))
    for start in range(0, len(data.y), 5_000):
        a: NDArray[Any] = data.x[start : start + 5_000] / 255
        for w, b in weights:
            a = 1 / (1 + np.exp(-(a @ w.T.astype(float) + b)))
        total += float(np.sum((a - answers[data.y[start : start + 5_000]]) ** 2)) / 2
    return total / len(data.y)


def accuracy(weights: Weights, data: Shared) -> float:
    """The share of all examples that are told right."""
    a: NDArray[Any] = data.x / np.float32(255)
    for w, b in weights[:-1]:
        a = 1 / (1 + np.exp(-(a @ w.T + b)))
    return float(np.mean(np.argmax(a @ weights[-1][0].T + weights[-1][1], axis=1) == data.y))


def batches(case: Case, data: Shared, k: int) -> Iterator[Any]:
    """The rows of each mini-batch of the k-th unit; all of them for the full batch."""
    if case.batch_size is None:
        yield slice(None)
        return
    order = data.order(k)
    for start in range(0, case.n, case.batch_size):
        yield order[start : start + case.batch_size]
