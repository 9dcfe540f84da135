"""Cases with right derivatives from neural networks: layers, losses and recurrent networks."""

import itertools
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
import numpy as np
from jax import Array, lax, nn
from jax.typing import DTypeLike

import jaxgd

from .case import Case
from .draws import array, away, distinct, normal, pieces, together, uniform, whole


def network_cost(network: jaxgd.Network, x: Array, y: Array) -> Array:
    """Return jaxgd's network cost, with its default options."""
    return jaxgd.network_cost(network, x, y)


Point = tuple[jaxgd.Network, Array, Array]


def draw_network(*sizes: int, examples: int = 4) -> Callable[[np.random.Generator, DTypeLike], Point]:
    """Draw a network of these sizes from N(0, 1), with inputs and targets."""

    def draw(rng: np.random.Generator, dtype: DTypeLike) -> Point:
        pairs = itertools.pairwise(sizes)
        network = tuple(
            jaxgd.Layer(array(rng.normal(size=(m, n)), dtype), array(rng.normal(size=m), dtype)) for n, m in pairs
        )
        x, y = rng.normal(size=(examples, sizes[0])), rng.integers(0, 2, (examples, sizes[-1]))
        return network, array(x, dtype), array(y, dtype)

    return draw


def layer_norm(x: Array, gain: Array, bias: Array) -> Array:
    """Return (x − mean)/σ · gain + bias, with the mean and σ over the last axis."""
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.var(x, axis=-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * gain[None] + bias[None]


def batch_norm(x: Array, gain: Array, bias: Array) -> Array:
    """Return (x − mean)/σ · gain + bias, with the mean and σ over the examples."""
    return (x - jnp.mean(x, axis=0)[None]) / jnp.sqrt(jnp.var(x, axis=0)[None] + 1e-5) * gain[None] + bias[None]


def attention(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
    """Return softmax(q kᵀ/√d) v. Where the mask is False, −∞ replaces the element of q kᵀ/√d."""
    z = q @ k.T / jnp.sqrt(jnp.asarray(q.shape[-1], q.dtype))
    if mask is not None:
        z = jnp.where(mask, z, -jnp.inf)
    return nn.softmax(z, axis=-1) @ v


def causal_attention(q: Array, k: Array, v: Array) -> Array:
    """Return attention with a mask, so that no query uses a later key."""
    return attention(q, k, v, jnp.tril(jnp.ones((q.shape[0], k.shape[0]), bool)))


def cross_entropy(labels: Array, z: Array) -> Array:
    """Return the mean of −log softmax at the labels."""
    return -jnp.mean(jnp.take_along_axis(nn.log_softmax(z), labels[:, None], axis=1))


def conv(x: Array, kernel: Array) -> Array:
    """Return a convolution of images, with the strides 2 and 1."""
    return lax.conv_general_dilated(x, kernel, (2, 1), "SAME")


def average_pool(x: Array) -> Array:
    """Return the mean of each 2 × 2 window."""
    sums: Array = lax.reduce_window(x, 0.0, lax.add, (2, 2), (2, 2), "VALID")
    return sums / 4


def max_pool(x: Array) -> Array:
    """Return the largest element of each 2 × 2 window."""
    largest: Array = lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 2), "VALID")
    return largest


def rnn(w: Array, u: Array, x: Array) -> Array:
    """Return all states h of a recurrent network, h ← tanh(w h + u x)."""

    def step(h: Array, x: Array) -> tuple[Array, Array]:
        h = jnp.tanh(w @ h + u @ x)
        return h, h

    return lax.scan(step, jnp.zeros(w.shape[0], w.dtype), x)[1]


def lstm(w: Array, x: Array) -> Array:
    """Return the last output of a long short-term memory without biases."""

    def step(state: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], None]:
        h, c = state
        i, f, o, g = jnp.split(w @ jnp.concatenate([h, x]), 4)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
        return (nn.sigmoid(o) * jnp.tanh(c), c), None

    zero = jnp.zeros(w.shape[0] // 4, w.dtype)
    return lax.scan(step, (zero, zero), x)[0][0]


def dropout(x: Array) -> Array:
    """Return the squares of about half of the elements, chosen by a fixed key, and 0 for the others."""
    return jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, x.shape), x**2, 0.0)


def sampled(mean: Array, log_scale: Array) -> Array:
    """Return a draw from N(mean, scale²) with a fixed key."""
    return mean + jnp.exp(log_scale) * jax.random.normal(jax.random.key(0), mean.shape, mean.dtype)


def gaussian_process(x: Array, y: Array, length: Array) -> Array:
    """Return the negative log likelihood of y at x under a Gaussian process, up to a constant."""
    k = jnp.exp(-(((x[:, None] - x[None, :]) / length) ** 2) / 2) + 0.1 * jnp.eye(x.size, dtype=x.dtype)
    root = jnp.linalg.cholesky(k)
    z = linalg.solve_triangular(root, y, lower=True)
    return z @ z / 2 + jnp.sum(jnp.log(jnp.diag(root)))


NEURAL = (
    Case("network cost", network_cost, draw_network(5, 4, 3)),
    Case("network cost, three layers", network_cost, draw_network(4, 6, 5, 2)),
    Case("network cost by backprop", lambda *args: jaxgd.backprop(*args), draw_network(3, 4, 2)),
    Case("sigmoid of jaxgd", jaxgd.sigmoid, normal((6,), scale=3.0)),
    Case("sigmoid of jaxgd, saturated", jaxgd.sigmoid, away((6,), least=18.0, most=30.0)),
    Case("layer norm", layer_norm, normal((3, 5), (5,), (5,))),
    Case("batch norm", batch_norm, normal((6, 3), (3,), (3,))),
    Case("attention", attention, normal((3, 4), (5, 4), (5, 2))),
    Case("causal attention", causal_attention, normal((4, 3), (4, 3), (4, 2))),
    Case("nn.dot_product_attention", nn.dot_product_attention, normal((3, 2, 4), (5, 2, 4), (5, 2, 4))),
    Case("nn.dot_product_attention, causal", partial(nn.dot_product_attention, is_causal=True),
            normal((3, 2, 4), (3, 2, 4), (3, 2, 4))),
    Case("cross entropy", cross_entropy, together(whole([0, 2, 1]), normal((3, 4)))),
    Case("convolution", conv, normal((2, 3, 5, 5), (4, 3, 3, 3))),
    Case("average pool", lambda x: average_pool(x**2), normal((4, 6))),
    Case("max pool", max_pool, distinct((4, 6))),
    Case("recurrent network", rnn, normal((4, 4), (4, 3), (6, 3), scale=0.7)),
    Case("long short-term memory", lstm, normal((8, 5), (6, 3))),
    Case("dropout with a fixed key", dropout, normal((12,))),
    Case("a random draw with a fixed key", sampled, normal((4,), (4,))),
    Case("Huber loss", lambda x: jnp.where(jnp.abs(x) < 1, x**2 / 2, jnp.abs(x) - 0.5),
            pieces((-3, -1.2), (-0.8, 0.8), (1.2, 3))),
    Case("hinge loss", lambda x: jnp.sum(jnp.maximum(0, 1 - x)), pieces((-2, 0.8), (1.2, 3))),
    Case("logistic loss", lambda w, x: jnp.mean(jnp.log1p(jnp.exp(-x @ w))), normal((3,), (6, 3))),
    Case("Gaussian process", gaussian_process, together(distinct((4,)), normal((4,)), uniform(0.5, 1.5, ()))),
)  # fmt: skip
