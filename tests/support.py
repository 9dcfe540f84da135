"""Helpers for several tests: example networks, training in NumPy, comparison by leaf, and wrong gradients."""

import decimal
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd.cost import network_cost
from jaxgd.network import Layer
from jaxgd.rules import update


def often(values, few):
    """Return the values as parameters of a test, and mark all of them slow except a few."""
    values = list(values)
    assert all(value in values for value in few), f"unknown: {[value for value in few if value not in values]}"
    return [value if value in few else pytest.param(value, marks=pytest.mark.slow) for value in values]


def example(sizes, seed, batch=(7,), dtype=None):
    """Draw a network, inputs from N(0, 1) and targets of 0 and 1. NumPy draws them, which compiles nothing."""
    rng, dtype = np.random.default_rng(seed), jnp.result_type(float) if dtype is None else dtype

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape).astype(dtype))

    network = tuple(Layer(normal(n_out, n_in), normal(n_out)) for n_in, n_out in itertools.pairwise(sizes))
    y = rng.integers(0, 2, (*batch, sizes[-1])).astype(dtype)
    return network, normal(*batch, sizes[0]), jnp.asarray(y)


def scaled(tree, factor):
    """Return the tree times a number, without compiling for its shapes."""
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x) * np.asarray(factor, x.dtype)), tree)


by_autodiff = jax.jit(jax.grad(network_cost))
_updated = jax.jit(update)


def trained(network, x, y, eta, steps):
    """Return the network after some steps of descent by autodiff. Other tests share both compiled programs."""
    for _ in range(steps):
        network = _updated(network, by_autodiff(network, x, y), eta)
    return network


def by_hand(network, x, y, dtype=np.float64, entropy=False):
    """Return C, the outputs and ∇C in NumPy, by the book's equations (BP1) to (BP4). Nothing is compiled.

    With `entropy`, C is the cross-entropy, whose error of the outputs is a − y.
    """
    layers = [(np.asarray(w, dtype), np.asarray(b, dtype)) for w, b in network]
    activations, slopes = [np.asarray(x, dtype)], []
    for w, b in layers:
        z = activations[-1] @ w.T + b
        activations.append(1 / (1 + np.exp(-z)))
        slopes.append(activations[-1] / (1 + np.exp(z)))
    outputs, gradient = activations[-1], []
    error = (outputs - y) / len(x)
    costs = np.logaddexp(0, z) - y * z if entropy else (outputs - y) ** 2 / 2
    if entropy:
        slopes[-1] = np.ones_like(z)
    for (w, _), a, slope in zip(reversed(layers), reversed(activations[:-1]), reversed(slopes), strict=True):
        delta = error * slope
        gradient.append(Layer(delta.T @ a, delta.sum(0)))
        error = delta @ w
    return np.sum(costs) / len(x), outputs, tuple(reversed(gradient))


def trained_by_hand(network, x, y, order, eta, batch_size, dtype=np.float64, entropy=False, decay=0.0):
    """Return the network after one epoch of the book's loop, in NumPy. The decay is λ/n."""
    network, x, y = jax.tree.map(lambda v: np.asarray(v, dtype), (network, x, y))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        gradient = by_hand(network, x[rows], y[rows], dtype, entropy)[2]
        keep, rate = dtype(1 - eta * decay), dtype(eta)
        pairs = zip(network, gradient, strict=True)
        network = tuple(Layer(keep * v.w - rate * g.w, v.b - rate * g.b) for v, g in pairs)
    return network


def leaves(tree):
    """Return the leaves as NumPy arrays, keyed by JAX's name of their path, such as "[0].b"."""
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def assert_leaves_close(actual, expected, rtol, atol=0.0):
    """Require ‖actual − expected‖ ≤ rtol ‖expected‖ + atol for each leaf of two trees, and name a leaf that fails.

    Each leaf is first scaled by its largest element. Otherwise squares of gradients near 1e-200 would underflow to 0,
    and every comparison would pass. A NaN on either side fails.
    """
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    actual, expected = leaves(actual), leaves(expected)
    for name, want in expected.items():
        got = actual[name]
        assert (got.shape, got.dtype) == (want.shape, want.dtype), f"leaf {name}: {got.dtype}{got.shape}"
        got, want = got.astype(np.float64), want.astype(np.float64)
        scale = np.max(np.abs(want), initial=0.0)
        scale = scale if 0 < scale < np.inf else 1.0
        error, length = np.linalg.norm((got - want) / scale), np.linalg.norm(want / scale)
        assert error <= rtol * length + atol / scale, (
            f"leaf {name} is off by {error / length if length else error:.3g} relative, {rtol:.3g} allowed"
        )


def spoil(tree, leaf, factor):
    """Return the tree with one leaf, named as in `leaves`, multiplied by a factor."""
    assert leaf in leaves(tree), f"no leaf {leaf}"
    return jax.tree_util.tree_map_with_path(
        lambda path, x: scaled(x, factor) if jax.tree_util.keystr(path) == leaf else x, tree
    )


def exact_sigmoid(z):
    """Return σ(z), σ′(z), σ″(z), σ‴(z), computed to sixty digits and rounded to float64.

    With s = σ(z) and t = σ(−z): σ′ = st, σ″ = st(t − s), σ‴ = st(1 − 6st). Nothing cancels where the neuron saturates,
    and t − s = 0 at z = 0 exactly.
    """
    with decimal.localcontext(prec=60):
        e = (-abs(decimal.Decimal(float(z)))).exp()
        s, t = 1 / (1 + e), e / (1 + e)
        if z < 0:
            s, t = t, s
        return float(s), float(s * t), float(s * t * (t - s)), float(s * t * (1 - 6 * s * t))
