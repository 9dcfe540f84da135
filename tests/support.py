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
    """Return the values as parameters of a test. Mark all values as slow except those in `few`."""
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
    """Return the tree times a number. NumPy multiplies, so nothing is compiled."""
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x) * np.asarray(factor, x.dtype)), tree)


by_autodiff = jax.jit(jax.grad(network_cost))
_updated = jax.jit(update)


def trained(network, x, y, eta, steps):
    """Return the network after `steps` steps of descent by autodiff."""
    for _ in range(steps):
        network = _updated(network, by_autodiff(network, x, y), eta)
    return network


def swish(z):
    """Return z σ(z), an example of a user's own activation. NumPy computes it for NumPy arrays."""
    np_or_jnp = np if isinstance(z, np.ndarray) else jnp
    return z / (1 + np_or_jnp.exp(-z))


def _slope(activation, z):
    """Return the outputs, and the Jacobian ∂a/∂z of each example, (n, out, out)."""
    if activation == "softmax":
        a = np.exp(z) / np.sum(np.exp(z), axis=1, keepdims=True)
        return a, a[:, :, None] * (np.eye(z.shape[1], dtype=z.dtype)[None] - a[:, None, :])
    s = 1 / (1 + np.exp(-z))
    a, slope = {
        "sigmoid": lambda: (s, s / (1 + np.exp(z))),
        "tanh": lambda: (np.tanh(z), 1 / np.cosh(z) ** 2),
        "relu": lambda: (np.maximum(z, 0), np.where(z > 0, 1.0, 0.0)),
        swish: lambda: (z * s, s + z * s / (1 + np.exp(z))),
    }[activation]()
    return a, slope[:, :, None] * np.eye(z.shape[1], dtype=z.dtype)[None]


def by_hand(network, x, y, dtype=np.float64, *, entropy=False):
    """Return C, the outputs and ∇C in NumPy, by the book's equations (BP1) to (BP4). Nothing is compiled.

    The cost is the quadratic cost or, with `entropy`, the cross-entropy of sigmoid or softmax outputs.
    """
    layers = [layer._replace(w=np.asarray(layer.w, dtype), b=np.asarray(layer.b, dtype)) for layer in network]
    activations, slopes = [np.asarray(x, dtype)], []
    for layer in layers:
        z = activations[-1] @ layer.w.T + layer.b
        a, slope = _slope(layer.activation, z)
        activations.append(a)
        slopes.append(slope)
    a, gradient = activations[-1], []
    c = np.sum((a - y) ** 2) / (2 * len(x))
    error = (a - y) / len(x)
    if entropy:
        is_softmax = layers[-1].activation == "softmax"
        # ln(1 − a) is infinite for saturated outputs, so the cost of sigmoids is computed from z.
        c = np.sum(-y * np.log(a) if is_softmax else np.logaddexp(0, z) - y * z) / len(x)
        error = (a * np.sum(y, axis=1, keepdims=True) - y) / len(x) if is_softmax else error
    for i, layer in reversed(list(enumerate(layers))):
        # For the cross-entropy, `error` is already ∂C/∂z: the Jacobian of the outputs cancels.
        at_output = entropy and i == len(layers) - 1
        delta = error if at_output else np.einsum("nji,nj->ni", slopes[i], error)
        gradient.append(layer._replace(w=delta.T @ activations[i], b=delta.sum(0)))
        error = delta @ layer.w
    return c, a, tuple(reversed(gradient))


def trained_by_hand(network, x, y, order, eta, batch_size, dtype=np.float64, *, entropy=False, decay=0.0, done=0):
    """Return the network after one epoch of the book's loop, in NumPy.

    `decay` is λ/n: w → (1 − ηλ/n) w − η∂C/∂w. η may be a function of the number of updates made so far,
    which is `done` at the start.
    """
    network, x, y = jax.tree.map(lambda v: np.asarray(v, dtype), (network, x, y))
    for k, start in enumerate(range(0, len(order), batch_size)):
        rows, rate = order[start : start + batch_size], dtype(eta(done + k) if callable(eta) else eta)
        gradient = by_hand(network, x[rows], y[rows], dtype, entropy=entropy)[2]
        shrunk = tuple(layer._replace(w=layer.w - rate * decay * layer.w) for layer in network)
        network = jax.tree.map(lambda v, g, rate=rate: v - rate * g, shrunk, gradient)
    return network


def leaves(tree):
    """Return the leaves as NumPy arrays, keyed by JAX's name of their path, such as "[0].b"."""
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def assert_leaves_close(actual, expected, rtol, atol=0.0):
    """Require ‖actual − expected‖ ≤ rtol ‖expected‖ + atol for each leaf of two trees, and name a leaf that fails.

    Both leaves are first divided by the largest |element| of the expected leaf. Otherwise squares of gradients near
    1e-200 would underflow to 0, and every comparison would pass. A NaN on either side fails.
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
