"""Mini-batch descent by NumPy in any precision, as a reference for the kernel."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def sigmoid(z: Floats) -> Floats:
    """Return σ(z). If exp(−z) overflows, the result is 0, which is the limit of σ for z → −∞."""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-z)))


def descend(
    network: Sequence[Floats], x: NDArray[np.uint8], y: NDArray[np.int32], order: NDArray[np.int32], eta: float,
    batch_size: int, dtype: type[np.floating] = np.float64,
) -> Sequence[Floats]:  # fmt: skip
    """Return w¹, b¹, w², b² after one update per mini-batch. σ′ is σ(z)σ(−z), as in jaxgd."""
    w1, b1, w2, b2 = (v.astype(dtype) for v in network)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        inputs, targets = x[rows].astype(dtype) / dtype(255), np.eye(len(b2), dtype=dtype)[y[rows]]
        z1 = inputs @ w1.T + b1
        a1 = sigmoid(z1)
        z2 = a1 @ w2.T + b2
        a2 = sigmoid(z2)
        delta2 = (a2 - targets) * a2 * sigmoid(-z2)
        delta1 = (delta2 @ w2) * a1 * sigmoid(-z1)
        rate = dtype(eta / len(rows))
        w2, b2 = w2 - rate * delta2.T @ a1, b2 - rate * delta2.sum(0)
        w1, b1 = w1 - rate * delta1.T @ inputs, b1 - rate * delta1.sum(0)
    return [w1, b1, w2, b2]


def gradient(network: Sequence[Floats], x: NDArray[np.uint8], y: NDArray[np.int32]) -> Sequence[Floats]:
    """Return ∇C over all examples in float64. Compute it in blocks that fit into memory."""
    before = [v.astype(np.float64) for v in network]
    total = [np.zeros_like(v) for v in before]
    for start in range(0, len(y), 5_000):
        rows = np.arange(start, min(start + 5_000, len(y)), dtype=np.int32)
        # One step at η = 1 over the block subtracts the block's mean gradient from the network.
        after = descend(before, x, y, rows, 1.0, len(rows))
        for sum_, old, new in zip(total, before, after, strict=True):
            sum_ += (old - new) * len(rows) / len(y)
    return total


def error(actual: Sequence[Floats], exact: Sequence[Floats], start: Sequence[Floats]) -> float:
    """Return ‖actual − exact‖ / ‖exact − start‖ over all arrays: the error relative to the distance moved."""
    missed = sum(float(np.sum((a - b) ** 2)) for a, b in zip(_wide(actual), exact, strict=True))
    moved = sum(float(np.sum((b - s) ** 2)) for b, s in zip(exact, _wide(start), strict=True))
    return float((missed / moved) ** 0.5)


def _wide(arrays: Sequence[Floats]) -> Sequence[Floats]:
    return [np.asarray(v, np.float64) for v in arrays]
