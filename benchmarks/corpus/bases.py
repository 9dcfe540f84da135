"""Functions with right derivatives, and the kinds of mistakes that the corpus makes in each derivative."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array, nn
from jax.typing import DTypeLike

from .draws import Args, Draw, array, away, complex_normal, matrix, normal, scaled, together, uniform
from .flows import runge_kutta
from .networks import attention, draw_network, layer_norm, network_cost, rnn


def saturated(*sizes: int) -> Draw:
    """Draw a saturated network: its outputs are almost 1, and the targets are 0.

    The cost is about 1. The gradient is about 1e-6; in the first layer, it is about 1e-8.
    """
    plain = draw_network(*sizes)

    def draw(rng: np.random.Generator, dtype: DTypeLike) -> Args:
        network, x, y = plain(rng, dtype)
        last = network[-1]._replace(b=array(rng.uniform(13.0, 15.0, sizes[-1]), dtype))
        return (*network[:-1], last._replace(w=0.3 * last.w)), x, jnp.zeros_like(y)

    return draw


def one_hot_cross_entropy(z: Array) -> Array:
    """Return the mean cross-entropy of the rows of z with the labels 0, 1, 2, …"""
    return -jnp.mean(jnp.diagonal(nn.log_softmax(z)))


def rosenbrock(v: Array) -> Array:
    """Return Rosenbrock's function, a curved valley."""
    return jnp.sum(100 * (v[1:] - v[:-1] ** 2) ** 2 + (1 - v[:-1]) ** 2)


def unequal(small: Array, large: Array) -> Array:
    """Return a cost that hardly depends on its first argument."""
    return 1e-6 * jnp.sum(jnp.sin(small)) + jnp.sum(large**2)


def regression(w: Array, x: Array, y: Array) -> Array:
    """Return the mean square of the residuals of a linear model."""
    return jnp.mean((x @ w - y) ** 2)


BASES: tuple[tuple[str, Callable[..., object], Draw, tuple[str, ...]], ...] = (
    ("sine", jnp.sin, away(), (
        "zero", "×1.0005", "one element zero", "cotangent forgotten", "cotangent squared", "at another point",
        "one element NaN", "reversed", "offset")),
    ("product", jnp.multiply, away((5,), (5,)), (
        "first leaf zero", "last leaf ×0.9", "first two leaves exchanged", "cotangent's sign only", "sign flipped")),
    ("quotient", jnp.divide, away((5,), (5,)), (
        "last leaf zero", "first leaf negated", "second leaf ×1.001", "absolute value", "rounded to bfloat16")),
    ("matrix product", jnp.matmul, normal((3, 3), (3, 3)), (
        "transposed", "first two leaves exchanged", "one row zero", "rolled by one", "cotangent forgotten")),
    ("mean of squares", lambda x: jnp.mean(x**2), normal((6, 4)), (
        "sum instead of mean", "mean instead of sum", "×1.0005", "one element ×1.2", "clipped", "one row zero")),
    ("sum of squares", lambda x: jnp.sum(x**2), away((6,)), (
        "mean instead of sum", "×2", "unit length", "offset", "one element negated", "two elements swapped")),
    ("softmax", nn.softmax, normal((2, 4)), (
        "zero", "×1.05", "one element zero", "cotangent squared", "reversed", "offset")),
    ("logsumexp", nn.logsumexp, normal((5,)), (
        "×1.0005", "reversed", "one element ×1.2", "rolled by one", "mean instead of sum")),
    ("layer norm", layer_norm, normal((3, 5), (5,), (5,)), (
        "first leaf zero", "last leaf ×0.9", "second leaf ×1.001", "one row zero", "sign flipped")),
    ("attention", attention, normal((3, 4), (5, 4), (5, 2)), (
        "first leaf zero", "first leaf negated", "last leaf zero", "×1.0005", "one element zero")),
    ("network cost", network_cost, draw_network(5, 4, 3), (
        "zero", "first leaf zero", "second leaf ×1.001", "one row zero", "one element zero", "sum instead of mean",
        "two elements swapped", "clipped")),
    ("saturated network", network_cost, saturated(4, 3, 2), (
        "zero", "sign flipped", "×2", "×1.05", "first leaf zero", "second leaf ×1.001", "one element zero",
        "one row zero")),
    ("convolution", jnp.convolve, normal((6,), (3,)), (
        "reversed", "last leaf zero", "rolled by one", "×1.05")),
    ("recurrent network", rnn, normal((4, 4), (4, 3), (6, 3), scale=0.7), (
        "transposed", "first leaf zero", "last leaf ×0.9", "×1.0005")),
    ("length", lambda x: jnp.sqrt(jnp.sum(x**2)), away((5,)), (
        "zero", "×2", "one element zero", "offset")),
    ("inverse", jnp.linalg.inv, matrix(), (
        "transposed", "sign flipped", "×1.05", "one element ×1.2")),
    ("log-determinant", lambda a: jnp.linalg.slogdet(a)[1], matrix(4), (
        "transposed", "×1.0005", "one row zero")),
    ("solve", jnp.linalg.solve, together(matrix(), normal((3,))), (
        "transposed", "first leaf negated", "last leaf ×0.9")),
    ("regression", regression, normal((3,), (7, 3), (7,)), (
        "sum instead of mean", "×2", "first leaf zero", "last leaf zero", "one element infinite")),
    ("cross entropy", one_hot_cross_entropy, normal((3, 4)), (
        "sum instead of mean", "sign flipped", "one row zero", "rolled by one")),
    ("Fourier transform", jnp.fft.fft, complex_normal((6,)), (
        "conjugated", "mean instead of sum", "real part only", "reversed", "one element zero")),
    ("absolute square", lambda z: jnp.sum(jnp.abs(z) ** 2), complex_normal((4,)), (
        "conjugated", "×2", "real part only", "one element NaN")),
    ("complex sine", jnp.sin, complex_normal((4,)), (
        "conjugated", "cotangent forgotten", "×1.0005")),
    ("running product", jnp.cumprod, away((6,)), (
        "reversed", "one element zero", "×1.05")),
    ("Rosenbrock", rosenbrock, normal((4,)), (
        "×1.0005", "one element zero", "at another point", "two elements swapped")),
    ("Runge–Kutta", runge_kutta, together(normal((2,)), uniform(0.5, 2.0, ())), (
        "last leaf zero", "first leaf negated", "×1.0005")),
    ("a leaf that hardly matters", unequal, normal((4,), (4,)), (
        "first leaf zero", "first leaf negated", "one element zero", "one element ×1.2")),
    ("squares of 1e6", lambda x: jnp.sum(x**2), scaled(away(), 1e6), (
        "zero", "×1.0005", "one element zero")),
    ("logs of 1e-6", lambda x: jnp.sum(jnp.log(x)), uniform(0.5e-6, 2e-6), (
        "zero", "×1.0005", "reversed")),
    ("squares next to a large constant", lambda x: 1e6 + 1e9 * jnp.sum(x**2), scaled(away(), 1e-3), (
        "zero", "×1.05", "one element negated")),
    ("scalar", lambda x: jnp.exp(x), normal(()), (
        "zero", "×1.0005", "one element NaN")),
)  # fmt: skip
