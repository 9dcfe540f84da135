"""Networks and examples for tests of the CUDA kernel, and reference results by NumPy."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support import trained_by_hand

from jaxgd import Layer


def drawn(shape, n, labels, networks, seed):
    """Return networks, inputs in bytes, labels or targets, and orders.

    The networks are w1, b1, w2 and b2. They and the orders have a leading axis of networks.
    """
    rng = np.random.default_rng(seed)

    def normal(*size):
        return rng.normal(size=(networks, *size)).astype(np.float32)

    network = [
        normal(shape.hidden, shape.inputs) / np.float32(np.sqrt(shape.inputs)), normal(shape.hidden),
        normal(shape.outputs, shape.hidden), normal(shape.outputs),
    ]  # fmt: skip
    x = np.where(rng.random((n, shape.inputs)) < 0.2, rng.integers(1, 256, (n, shape.inputs)), 0).astype(np.uint8)
    y = rng.integers(0, shape.outputs, n) if labels else rng.random((n, shape.outputs)).astype(np.float32)
    return network, x, y, np.stack([rng.permutation(n) for _ in range(networks)])


def layers(network, i=0):
    """Return network i of a batch w1, b1, w2, b2 as two layers."""
    w1, b1, w2, b2 = (v[i] for v in network)
    return Layer(w1, b1), Layer(w2, b2)


def by_book(network, x, y, order, eta, batch_size, dtype=np.float64):
    y = np.eye(len(network[-1].b))[y] if y.ndim == 1 else y
    return trained_by_hand(network, np.asarray(x, dtype) / dtype(255), y, order, eta, batch_size, dtype)


def relative_errors(actual, exact, start):
    """Return ‖actual − exact‖ / ‖exact − start‖ for each leaf, the error relative to the distance moved."""
    leaves = [[v for layer in network for v in layer] for network in (actual, exact, start)]
    return np.array([np.linalg.norm(g - e) / np.linalg.norm(e - s) for g, e, s in zip(*leaves, strict=True)])


def epochs(shape):
    """Draw the number of examples, the batch size, labels or targets, η, the number of networks, and a seed."""
    return given(
        n=st.integers(1, 50),
        batch_size=st.integers(1, shape.batch_size),
        labels=st.booleans(),
        eta=st.sampled_from([0.01, 1.0, 3.0]),
        networks=st.integers(1, 3),
        seed=st.integers(0, 1000),
    )
