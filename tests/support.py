"""What several tests share: an example to work on, a comparison that names the leaf, a way to spoil a gradient."""

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
    """The values as parameters of a test, all but a few of them for the slow run."""
    return [value if value in few else pytest.param(value, marks=pytest.mark.slow) for value in values]


def example(sizes, seed, batch=(7,), dtype=None):
    """A random network with inputs from N(0, 1) and targets of 0 and 1. Drawn by NumPy, which compiles nothing."""
    rng, dtype = np.random.default_rng(seed), jnp.result_type(float) if dtype is None else dtype

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape).astype(dtype))

    network = tuple(Layer(normal(n_out, n_in), normal(n_out)) for n_in, n_out in itertools.pairwise(sizes))
    y = rng.integers(0, 2, (*batch, sizes[-1])).astype(dtype)
    return network, normal(*batch, sizes[0]), jnp.asarray(y)


def scaled(tree, factor):
    """The tree times a number, without compiling for its shapes."""
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x) * np.asarray(factor, x.dtype)), tree)


by_autodiff = jax.jit(jax.grad(network_cost))
_updated = jax.jit(update)


def trained(network, x, y, eta, steps):
    """The network after some steps of descent by autodiff: two compilations that other tests need as well."""
    for _ in range(steps):
        network = _updated(network, by_autodiff(network, x, y), eta)
    return network


def by_hand(network, x, y):
    """Return C, the outputs and ∇C in NumPy's float64, by the book's equations (BP1) to (BP4). Nothing is compiled."""
    layers = [(np.asarray(w, np.float64), np.asarray(b, np.float64)) for w, b in network]
    activations = [x]
    for w, b in layers:
        activations.append(1 / (1 + np.exp(-(activations[-1] @ w.T + b))))
    outputs, gradient = activations[-1], []
    delta = (outputs - y) / len(x) * outputs * (1 - outputs)
    for (w, _), a in zip(reversed(layers), reversed(activations[:-1]), strict=True):
        gradient.append(Layer(delta.T @ a, delta.sum(0)))
        delta = delta @ w * a * (1 - a)
    return np.sum((outputs - y) ** 2) / (2 * len(x)), outputs, tuple(reversed(gradient))


def taught_by_hand(network, x, y, order, eta, batch_size):
    """Return the network after one epoch of the book's loop, in NumPy's float64."""
    network = jax.tree.map(lambda v: np.asarray(v, np.float64), network)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        gradient = by_hand(network, x[rows], y[rows])[2]
        network = jax.tree.map(lambda v, g: v - eta * g, network, gradient)
    return network


def leaves(tree):
    """The leaves as NumPy arrays, by the name JAX gives their place: "[0].b"."""
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def assert_leaves_close(actual, expected, rtol, atol=0.0):
    """Hold two trees together leaf by leaf: ‖actual − expected‖ ≤ rtol ‖expected‖ + atol; say which leaf fails.

    The leaf is scaled by its largest element first, so that squares of gradients as small as 1e-200 do not vanish and
    let everything pass. A NaN on either side fails.
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
    """The tree with one leaf, named as in `leaves`, multiplied by a factor."""
    assert leaf in leaves(tree), f"no leaf {leaf}"
    return jax.tree_util.tree_map_with_path(
        lambda path, x: scaled(x, factor) if jax.tree_util.keystr(path) == leaf else x, tree
    )


def exact_sigmoid(z):
    """σ(z), σ′(z), σ″(z), σ‴(z) to sixty digits, rounded to float64 at the end.

    With s = σ(z) and t = σ(−z): σ′ = st, σ″ = st(t − s), σ‴ = st(1 − 6st). Nothing cancels where the neuron saturates,
    and t − s = 0 at z = 0 exactly.
    """
    with decimal.localcontext(prec=60):
        e = (-abs(decimal.Decimal(float(z)))).exp()
        s, t = 1 / (1 + e), e / (1 + e)
        if z < 0:
            s, t = t, s
        return float(s), float(s * t), float(s * t * (t - s)), float(s * t * (1 - 6 * s * t))
