"""Functions whose derivatives are wrong in a known way, at points where they are smooth. A checker must find all.

And kinks: points at which a function has no derivative, so that nothing can be said of one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
import numpy as np
from jax import lax, nn

from .correct import attention, causal_attention, draw_network, layer_norm, network_cost, rnn, runge_kutta
from .draws import (
    Args,
    Draw,
    array,
    away,
    complex_normal,
    definite,
    distinct,
    fixed,
    fractions,
    matrix,
    normal,
    scaled,
    together,
    tree,
    uniform,
)
from .kinds import KINDS, of_kind, with_jvp, with_vjp


@dataclasses.dataclass(frozen=True)
class Wrong:
    """A function with `draw(rng, dtype)`, which draws a point where its derivative is wrong; `kind` names the fault."""

    name: str
    f: Callable[..., Any]
    draw: Draw
    kind: str


@dataclasses.dataclass(frozen=True)
class Kink:
    """A function with `draw(rng, dtype)`, which draws a point where it has no derivative."""

    name: str
    f: Callable[..., Any]
    draw: Draw


# Functions with right derivatives, each with the kinds of faults to apply.


def saturated(*sizes: int) -> Draw:
    """Draw a network with outputs near 1 and targets 0: C ≈ 1, ∇C ≈ 1e-6, and 1e-8 in the first layer."""
    plain = draw_network(*sizes)

    def draw(rng: np.random.Generator, dtype: Any) -> Args:
        network, x, y = plain(rng, dtype)
        last = network[-1]._replace(b=array(rng.uniform(13.0, 15.0, sizes[-1]), dtype))
        return (*network[:-1], last._replace(w=0.3 * last.w)), x, jnp.zeros_like(y)

    return draw


def one_hot_cross_entropy(z: Any) -> Any:
    """Return the mean of −log softmax at the labels 0, 1, 2, …"""
    return -jnp.mean(jnp.diagonal(nn.log_softmax(z)))


def rosenbrock(v: Any) -> Any:
    """Return Rosenbrock's function in any dimension."""
    return jnp.sum(100 * (v[1:] - v[:-1] ** 2) ** 2 + (1 - v[:-1]) ** 2)


def unequal(small: Any, large: Any) -> Any:
    """Return a cost in which the first argument contributes only 1e-6."""
    return 1e-6 * jnp.sum(jnp.sin(small)) + jnp.sum(large**2)


def regression(w: Any, x: Any, y: Any) -> Any:
    """Return the mean squared residual of a linear model."""
    return jnp.mean((x @ w - y) ** 2)


BASES: tuple[tuple[str, Callable[..., Any], Draw, tuple[str, ...]], ...] = (
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
    ("squares beside a large constant", lambda x: 1e6 + 1e9 * jnp.sum(x**2), scaled(away(), 1e-3), (
        "zero", "×1.05", "one element negated")),
    ("scalar", lambda x: jnp.exp(x), normal(()), (
        "zero", "×1.0005", "one element NaN")),
)  # fmt: skip


# Typical mistakes in custom rules: name, function, backward(*args, ct), draw, kind.


def softmax_without_sum(x: Any, g: Any) -> Any:
    """Use only the term p δ of the Jacobian p(δ − p)."""
    return (nn.softmax(x) * g,)


def softmax_off_by_one(x: Any, g: Any) -> Any:
    """Use the inner sum of the neighboring row."""
    p = nn.softmax(x)
    return (p * (g - jnp.roll(jnp.sum(p * g, axis=-1, keepdims=True), 1, axis=0)),)


def layer_norm_parts(x: Any, gain: Any, g: Any, mean: bool, variance: bool) -> Any:
    """Return the gradient of layer norm by x with only some of its three terms."""
    scale = lax.rsqrt(jnp.var(x, axis=-1, keepdims=True) + 1e-5)
    y, g = (x - jnp.mean(x, axis=-1, keepdims=True)) * scale, g * gain[None]
    dx = g
    if mean:
        dx = dx - jnp.mean(g, axis=-1, keepdims=True)
    if variance:
        dx = dx - y * jnp.mean(g * y, axis=-1, keepdims=True)
    return dx * scale, None, None


def layer_norm_lacking(mean: bool, variance: bool) -> Callable[..., Any]:
    """Return layer norm's backward pass without the terms that are False."""

    def backward(x: Any, gain: Any, bias: Any, g: Any) -> Any:
        right = jax.vjp(layer_norm, x, gain, bias)[1](g)
        return layer_norm_parts(x, gain, g, mean, variance)[0], *right[1:]

    return backward


def attention_backward(q: Any, k: Any, v: Any, g: Any, scale: float = 1.0, causal: bool = False) -> Any:
    """Return attention's gradient, with the scores' gradient off by a factor and without a mask unless causal."""
    root = float(np.sqrt(q.shape[-1]))
    z = q @ k.T / root
    if causal:
        z = jnp.where(jnp.tril(jnp.ones(z.shape, bool)), z, -jnp.inf)
    p = nn.softmax(z)
    dp = g @ v.T
    dz = p * (dp - jnp.sum(dp * p, axis=-1, keepdims=True)) * scale
    return dz @ k / root, dz.T @ q / root, p.T @ g


def cholesky_without_half(a: Any, g: Any) -> Any:
    """Return Cholesky's cotangent without the halved diagonal."""
    root = jnp.linalg.cholesky(a)
    middle = jnp.tril(root.T @ g)
    s = linalg.solve_triangular(
        root, linalg.solve_triangular(root, middle.T, lower=True, trans=1).T, lower=True, trans=1
    )
    return ((s + s.T) / 2,)


MASK = np.array([1, 1, 0, 1, 0, 1])
LABELS = np.array([0, 2, 1])
# JAX 0.10 and 0.12 fail with a 64-bit NumPy index that is used in both precisions.
PLACES = np.array([0, 2, 2, 4], np.int32)


def masked_mean(x: Any) -> Any:
    """Return the mean square of the elements that a mask keeps."""
    mask = jnp.asarray(MASK, x.dtype)
    return jnp.sum(mask * x**2) / jnp.sum(mask)


def gelu(x: Any) -> Any:
    """Return x Φ(x)."""
    return nn.gelu(x, approximate=False)


def labeled_cross_entropy(z: Any) -> Any:
    """Return the mean of −log softmax at the labels."""
    return -jnp.mean(jnp.take_along_axis(nn.log_softmax(z), LABELS[:, None], axis=1))


RULES: tuple[tuple[str, Callable[..., Any], Callable[..., Any], Draw, str], ...] = (
    ("sin 3x", lambda x: jnp.sin(3 * x), lambda x, g: (g * jnp.cos(3 * x),), normal(), "chain factor missing"),
    ("sin", jnp.sin, lambda x, g: (g * jnp.sin(x),), normal(), "sin instead of cos"),
    ("cos", jnp.cos, lambda x, g: (g * jnp.sin(x),), normal(), "sign of sin"),
    ("tan", jnp.tan, lambda x, g: (g / jnp.cos(x),), uniform(-1.2, 1.2), "square missing"),
    ("tanh", jnp.tanh, lambda x, g: (g * (1 - jnp.tanh(x)),), normal(), "square missing"),
    ("sigmoid", nn.sigmoid, lambda x, g: (g * nn.sigmoid(x),), normal(), "factor 1 − a missing"),
    ("sigmoid, saturated", nn.sigmoid, lambda x, g: (jnp.zeros_like(g),), away(least=14.0, most=18.0), "zero"),
    ("log", jnp.log, lambda x, g: (g / (x + 1e-3),), uniform(0.3, 3.0), "ε in the denominator"),
    ("sqrt", jnp.sqrt, lambda x, g: (g / jnp.sqrt(x),), uniform(0.3, 3.0), "factor ½ missing"),
    ("x/y", jnp.divide, lambda x, y, g: (g / y, g * x / y**2), away((5,), (5,)), "sign of the quotient rule"),
    ("1/x", jnp.reciprocal, lambda x, g: (-g / x,), away(), "square missing"),
    ("x^y", jnp.power, lambda x, y, g: (g * y * x**y, g * jnp.log(x) * x**y),
     together(uniform(0.3, 3.0), normal()), "exponent not lowered"),
    ("x sin x", lambda x: x * jnp.sin(x), lambda x, g: (g * x * jnp.cos(x),), normal(), "product rule's first term"),
    ("x eˣ", lambda x: x * jnp.exp(x), lambda x, g: (g * jnp.exp(x),), normal(), "product rule's second term"),
    ("softmax, diagonal", nn.softmax, softmax_without_sum, normal((2, 4)), "off-diagonal of the Jacobian missing"),
    ("softmax, neighbor", nn.softmax, softmax_off_by_one, normal((2, 4)), "off by one in the Jacobian"),
    ("log_softmax", nn.log_softmax, lambda x, g: (g - nn.softmax(x),), normal((2, 4)), "sum of the cotangent missing"),
    ("logsumexp, unshifted", nn.logsumexp, lambda x, g: (g * jnp.exp(x - jnp.max(x)),), normal((5,)),
     "not normalized after the shift"),
    ("logsumexp, maximum", nn.logsumexp, lambda x, g: (g * (nn.softmax(x) - (x == jnp.max(x))),), normal((5,)),
     "derivative of the shift subtracted"),
    ("layer norm, mean", layer_norm, layer_norm_lacking(False, True), normal((3, 5), (5,), (5,)), "mean term missing"),
    ("layer norm, variance", layer_norm, layer_norm_lacking(True, False), normal((3, 5), (5,), (5,)),
     "variance term missing"),
    ("attention, scale", attention, lambda q, k, v, g: attention_backward(q, k, v, g, scale=float(q.shape[-1]) ** 0.5),
     normal((3, 4), (5, 4), (5, 2)), "scale missing"),
    ("attention, mask", causal_attention, attention_backward, normal((4, 3), (4, 3), (4, 2)), "mask forgotten"),
    ("attention, causal scale", causal_attention,
     lambda q, k, v, g: attention_backward(q, k, v, g, scale=1.01, causal=True), normal((4, 3), (4, 3), (4, 2)),
     "scores ×1.01"),
    ("masked mean", masked_mean, lambda x, g: (g * 2 * x / 4,), normal((6,)), "mask forgotten"),
    ("masked mean, n", masked_mean, lambda x, g: (g * 2 * x * jnp.asarray(MASK, x.dtype) / x.size,), normal((6,)),
     "n with the masked"),
    ("matmul, cotangent", jnp.matmul, lambda a, b, g: (g.T @ b.T, a.T @ g), normal((3, 3), (3, 3)),
     "transposed cotangent"),
    ("matmul, factor", jnp.matmul, lambda a, b, g: (g @ b, a.T @ g), normal((3, 3), (3, 3)), "factor not transposed"),
    ("dense layer", lambda x, b: x + b[None], lambda x, b, g: (g, jnp.mean(g, axis=0)), normal((4, 3), (3,)),
     "mean instead of sum over the broadcast axis"),
    ("outer sum", lambda x, y: x[:, None] + y[None, :], lambda x, y, g: (jnp.sum(g, axis=1), jnp.sum(g, axis=1)),
     normal((4,), (4,)), "sum over the wrong axis"),
    ("mean square", lambda a, y: jnp.mean((a - y) ** 2), lambda a, y, g: (g * (a - y), -g * (a - y)),
     normal((5,), (5,)), "factor 2/n missing"),
    ("half square", lambda a, y: jnp.sum((a - y) ** 2) / 2, lambda a, y, g: (g * (a - y), g * (a - y)),
     normal((5,), (5,)), "sign in one leaf"),
    ("cross entropy, labels", labeled_cross_entropy,
     lambda z, g: (g * (nn.softmax(z) - nn.one_hot(np.roll(LABELS, 1), 4, dtype=z.dtype)) / 3,), normal((3, 4)),
     "labels off by one"),
    ("cross entropy, target", labeled_cross_entropy, lambda z, g: (g * nn.softmax(z) / 3,), normal((3, 4)),
     "target's term missing"),
    ("relu", nn.relu, lambda x, g: (g,), fixed([0.7, -0.4, 1.3, -2.0]), "the wrong branch: passed through"),
    ("leaky relu", nn.leaky_relu, lambda x, g: (g * jnp.where(x > 0, 1.0, 0.1).astype(x.dtype),),
     fixed([0.7, -0.4, 1.3, -2.0]), "slope of the wrong branch"),
    ("leaky relu, slightly", nn.leaky_relu, lambda x, g: (g * jnp.where(x > 0, 1.0, 0.011).astype(x.dtype),),
     fixed([0.7, -0.4, 1.3, -2.0]), "slope 0.011 for 0.01"),
    ("abs", jnp.abs, lambda x, g: (g,), fixed([0.7, -0.4, 1.3, -2.0]), "sign missing"),
    ("maximum", jnp.maximum, lambda x, y, g: (g * (x < y), g * (x > y)), fixed([1.0, 2.0, 3.0], [2.0, 1.0, 4.0]),
     "branches exchanged"),
    ("max", jnp.max, lambda x, g: (g * jnp.full_like(x, 1 / x.size),), distinct((5,)), "shared by all"),
    ("clip", lambda x: jnp.clip(x, -1, 1), lambda x, g: (g,), fixed([0.7, -0.4, 1.3, -2.0]), "passed through"),
    ("elu", nn.elu, lambda x, g: (g * jnp.where(x > 0, 1.0, nn.elu(x)),), fixed([0.7, -0.4, 1.3, -2.0]),
     "+ 1 missing in one branch"),
    ("gelu", gelu, lambda x, g: jax.vjp(nn.gelu, x)[1](g), away((5,)), "derivative of the approximation"),
    ("silu", nn.silu, lambda x, g: (g * nn.sigmoid(x),), normal(), "product rule's second term"),
    ("softplus", nn.softplus, lambda x, g: (g * nn.sigmoid(-x),), normal(), "sign inside"),
    ("square, rounded", jnp.square, lambda x, g: (g * 2 * jnp.round(x, 2),), away(), "at a rounded point"),
    ("cumsum", jnp.cumsum, lambda x, g: (jnp.cumsum(g),), normal((6,)), "not reversed"),
    ("cumsum, exclusive", jnp.cumsum, lambda x, g: (jnp.flip(jnp.cumsum(jnp.flip(g))) - g,), normal((6,)),
     "off by one"),
    ("sort", jnp.sort, lambda x, g: (g,), fixed([0.3, -1.2, 2.0, 0.9]), "not sorted back"),
    ("take, some twice", lambda x: x[PLACES], lambda x, g: (jnp.zeros_like(x).at[PLACES].set(g),), normal((5,)),
     "the second use overwrites the first"),
    ("flip", jnp.flip, lambda x, g: (g,), normal((5,)), "not flipped back"),
    ("transpose", jnp.transpose, lambda x, g: (g,), normal((3, 3)), "not transposed back"),
    ("reshape", lambda x: x.T.reshape(-1), lambda x, g: (g.reshape(x.shape),), normal((3, 4)), "order of elements"),
    ("convolution, kernel", lambda x, k: jnp.convolve(x, k, "valid"),
     lambda x, k, g: (jnp.convolve(g, k, "full"), jnp.correlate(x, g, "valid")), normal((6,), (3,)),
     "kernel not flipped"),
    ("inverse, order", jnp.linalg.inv, lambda a, g: ((lambda b: -b @ g @ b)(jnp.linalg.inv(a)),), matrix(),
     "transposes missing"),
    ("log-determinant, plain", lambda a: jnp.linalg.slogdet(a)[1], lambda a, g: (g * jnp.linalg.inv(a),), matrix(),
     "transpose missing"),
    ("determinant", jnp.linalg.det, lambda a, g: (g * jnp.linalg.inv(a).T,), matrix(), "factor det missing"),
    ("trace of a square", lambda a: jnp.trace(a @ a), lambda a, g: (2 * g * a,), matrix(), "transpose missing"),
    ("quadratic form", lambda a, x: x @ a @ x, lambda a, x, g: (g * jnp.outer(x, x), 2 * g * (a @ x)),
     together(matrix(), normal((3,))), "right for symmetric matrices only"),
    ("cholesky", jnp.linalg.cholesky, cholesky_without_half, definite(), "diagonal not halved"),
    ("fft, inverse", jnp.fft.fft, lambda z, g: (jnp.fft.ifft(g),), complex_normal((6,)),
     "ifft instead of the transpose"),
    ("absolute square, z", lambda z: jnp.sum(jnp.abs(z) ** 2), lambda z, g: (2 * g * z,), complex_normal((4,)),
     "conjugate missing"),
    ("complex exp", jnp.exp, lambda z, g: (g * jnp.conj(jnp.exp(z)),), complex_normal((4,)), "conjugate too many"),
    ("gradient reversal", lambda x: x, lambda x, g: (-g,), normal(), "meant for adversarial training"),
    ("round, straight through", jnp.round, lambda x, g: (g,), fractions(), "estimator where the slope is 0"),
    ("sign, straight through", jnp.sign, lambda x, g: (g * (1 - jnp.tanh(x) ** 2),), away(),
     "estimator where the slope is 0"),
    ("length, squared", lambda x: jnp.sqrt(jnp.sum(x**2)), lambda x, g: (g * x,), away((5,)), "division missing"),
    ("rnn, last step", rnn, lambda w, u, x, g: jax.vjp(rnn, w, u, x)[1](g.at[-1].set(0)),
     normal((4, 4), (4, 3), (6, 3), scale=0.7), "last step's cotangent lost"),
    ("Runge–Kutta, rate", runge_kutta, lambda v, rate, g: (jax.vjp(runge_kutta, v, rate)[1](g)[0], 0.1 * rate),
     together(normal((2,)), uniform(0.5, 2.0, ())), "adjoint of a parameter made up"),
)  # fmt: skip

# The same for forward mode, whose transpose is the reverse mode: name, function, forward(*args, *tangents), draw, kind.
FORWARD_RULES: tuple[tuple[str, Callable[..., Any], Callable[..., Any], Draw, str], ...] = (
    ("cube", lambda x: x**3, lambda x, dx: 3 * x * dx, away(), "power not lowered by one only"),
    ("exp 2x", lambda x: jnp.exp(2 * x), lambda x, dx: jnp.exp(2 * x) * dx, normal(), "chain factor missing"),
    ("hypot", jnp.hypot, lambda x, y, dx, dy: x * dx / jnp.hypot(x, y), away((5,), (5,)), "second term missing"),
    ("arctan2", jnp.arctan2, lambda y, x, dy, dx: (x * dy + y * dx) / (x**2 + y**2), away((5,), (5,)), "sign"),
    ("logaddexp", jnp.logaddexp, lambda x, y, dx, dy: nn.sigmoid(y - x) * dx + nn.sigmoid(x - y) * dy,
     normal((5,), (5,)), "weights exchanged"),
    ("product, forward", jnp.multiply, lambda x, y, dx, dy: y * dx, away((5,), (5,)), "second term missing"),
    ("arcsin", jnp.arcsin, lambda x, dx: dx / (1 - x**2), away(least=0.1, most=0.9), "root missing"),
    ("log1p", jnp.log1p, lambda x, dx: dx / x, uniform(0.3, 3.0), "1 + missing"),
    ("matrix product, forward", jnp.matmul, lambda a, b, da, db: da @ b + db @ a, normal((3, 3), (3, 3)), "order"),
    ("mean, forward", jnp.mean, lambda x, dx: jnp.sum(dx), normal((6,)), "sum instead of mean"),
    ("sine ×1.0005, forward", jnp.sin, lambda x, dx: 1.0005 * jnp.cos(x) * dx, normal(), "×1.0005"),
    ("solve, forward", jnp.linalg.solve, lambda a, b, da, db: jnp.linalg.solve(a, db + da @ jnp.linalg.solve(a, b)),
     together(matrix(), normal((3,))), "sign"),
    ("sigmoid, forward", nn.sigmoid, lambda z, dz: nn.sigmoid(z) * (1 + nn.sigmoid(z)) * dz, normal(), "sign"),
)  # fmt: skip


# Autodiff without a custom rule is wrong here: because of stop_gradient, or NaN from a branch that is not taken.

wrong_sine = with_vjp(jnp.sin, lambda x, g: (0.999 * g * jnp.cos(x),))


def batch_norm_detached(x: Any, gain: Any, bias: Any) -> Any:
    """Return batch norm with its statistics held constant."""
    mean, variance = lax.stop_gradient((jnp.mean(x, axis=0), jnp.var(x, axis=0)))
    return (x - mean[None]) / jnp.sqrt(variance[None] + 1e-5) * gain[None] + bias[None]


def truncated_rnn(w: Any, u: Any, x: Any) -> Any:
    """Return the states of a recurrent network whose gradient reaches back only one step."""

    def step(h: Any, x: Any) -> Any:
        h = jnp.tanh(w @ lax.stop_gradient(h) + u @ x)
        return h, h

    return lax.scan(step, jnp.zeros(w.shape[0], w.dtype), x)[1]


PLAIN: tuple[tuple[str, Callable[..., Any], Draw, str], ...] = (
    ("x·stop(x)", lambda x: x * lax.stop_gradient(x), away(), "stop_gradient in one path"),
    ("stop(sin x)", lambda x, y: lax.stop_gradient(jnp.sin(x)) + y, normal((5,), (5,)), "stop_gradient"),
    ("logsumexp, stop beside the shift", lambda x: lax.stop_gradient(jnp.max(x)) + jnp.log(jnp.sum(jnp.exp(
        x - jnp.max(x)))), distinct((5,)), "stop_gradient on one of two"),
    ("softmax, denominator", lambda x: jnp.exp(x) / lax.stop_gradient(jnp.sum(jnp.exp(x))), normal((5,)),
     "stop_gradient on the denominator"),
    ("batch norm, statistics", batch_norm_detached, normal((6, 3), (3,), (3,)), "stop_gradient on the statistics"),
    ("attention, keys", lambda q, k, v: attention(q, lax.stop_gradient(k), v), normal((3, 4), (5, 4), (5, 2)),
     "stop_gradient on a leaf"),
    ("truncated recurrence", truncated_rnn, normal((4, 4), (4, 3), (6, 3), scale=0.7), "stop_gradient on the state"),
    ("target network", lambda w, x: jnp.mean((jnp.tanh(x @ w) - 0.9 * lax.stop_gradient(jnp.tanh(2 * x @ w))) ** 2),
     normal((3,), (5, 3)), "stop_gradient on the target"),
    ("quantized", lambda x: x + lax.stop_gradient(jnp.round(x) - x), fractions(), "estimator where the slope is 0"),
    ("weight decay left out", lambda w: jnp.sum(jnp.sin(w)) + 0.001 * lax.stop_gradient(jnp.sum(w**2)), away(),
     "stop_gradient on a small term"),
    ("wrong inside", lambda x: jnp.sum(jnp.exp(wrong_sine(x**2))), away(), "×0.999 in the middle"),
    ("wrong in a sum", lambda x: jnp.sum(jnp.cos(x)) + 0.5 * jnp.sum(wrong_sine(x)), away(), "×0.999 in a small term"),
    ("wrong in a scan", lambda x: lax.scan(lambda h, _: (wrong_sine(h) + x, None), x, None, length=4)[0], away(),
     "×0.999 in a loop"),
    ("wrong in a tree", lambda t: {"a": jnp.sin(t["a"]), "b": wrong_sine(t["b"])},
     tree(lambda a, b: {"a": a, "b": b}, away(), away()), "×0.999 in one of two leaves"),
    ("where over sqrt", lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0), fixed([0.5, -1.0, 2.0]),
     "NaN from the other branch"),
    ("where over log", lambda x: jnp.sum(jnp.where(x > 0, x * jnp.log(x), x)), fixed([0.5, -1.0, 2.0]),
     "NaN from the other branch"),
    ("length squared at 0", lambda x: jnp.linalg.norm(x) ** 2, fixed([0.0, 0.0, 0.0]), "NaN by way of the length"),
    ("exp overflows", lambda x: jnp.where(x < 50, jnp.log1p(jnp.exp(x)), x), fixed([1.0, 800.0, -2.0]),
     "NaN from the other branch"),
)  # fmt: skip

WRONG = (
    *(
        Wrong(f"{name}: {kind}", of_kind(f, KINDS[kind]), draw, kind)
        for name, f, draw, kinds in BASES
        for kind in kinds
    ),
    *(Wrong(f"{name}: {kind}", with_vjp(f, backward), draw, kind) for name, f, backward, draw, kind in RULES),
    *(Wrong(f"{name}: {kind}", with_jvp(f, forward), draw, kind) for name, f, forward, draw, kind in FORWARD_RULES),
    *(Wrong(f"{name}: {kind}", f, draw, kind) for name, f, draw, kind in PLAIN),
)


# Points without a derivative.


def relu_network(network: Any, x: Any) -> Any:
    """Return the mean square of the outputs of two layers with relu between them."""
    (w, b), (v, c) = network
    return jnp.mean((nn.relu(x @ w.T + b[None]) @ v.T + c[None]) ** 2)


def draw_unit_at_zero(rng: np.random.Generator, dtype: Any) -> Args:
    """Draw a network whose first unit has input exactly 0 for the first example."""
    w, x = rng.normal(size=(4, 2)), rng.normal(size=(3, 2))
    w[0], x[0] = [0.5, 0.5], [1.0, -1.0]
    b = rng.normal(size=4)
    b[0] = 0.0
    layers = (
        (array(w, dtype), array(b, dtype)),
        (array(rng.normal(size=(2, 4)), dtype), array(rng.normal(size=2), dtype)),
    )
    return layers, array(x, dtype)


KINKS = (
    Kink("relu at 0", nn.relu, fixed(0.0)),
    Kink("relu, one element at 0", nn.relu, fixed([0.7, 0.0, -1.2])),
    Kink("leaky relu at 0", nn.leaky_relu, fixed([0.7, 0.0, -1.2])),
    Kink("relu6 at 6", nn.relu6, fixed([0.7, 6.0, 2.0])),
    Kink("hard tanh at 1", nn.hard_tanh, fixed([0.5, 1.0, -0.3])),
    Kink("abs at 0", jnp.abs, fixed([0.0])),
    Kink("abs, one element at 0", jnp.abs, fixed([0.0, 1.0, -2.0])),
    Kink("root of a square at 0", lambda x: jnp.sqrt(x**2), fixed([0.0, 1.0, -2.0])),
    Kink("length at 0", jnp.linalg.norm, fixed([0.0, 0.0, 0.0])),
    Kink("hypot at 0", jnp.hypot, fixed([0.0, 1.0], [0.0, 2.0])),
    Kink("modulus at 0", jnp.abs, fixed([0.0 + 0j, 1 + 2j])),
    Kink("max of two ties", jnp.max, fixed([1.0, 3.0, 2.0, 3.0])),
    Kink("max of all ties", jnp.max, fixed([2.0, 2.0, 2.0])),
    Kink("max by rows", lambda x: jnp.max(x, axis=1), fixed([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]])),
    Kink("max pool of ties", lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (2,), "VALID"),
         fixed([1.0, 1.0, 0.0, 3.0])),
    Kink("cummax of ties", lambda x: lax.cummax(x), fixed([1.0, 2.0, 2.0, 0.5])),
    Kink("maximum of equals", jnp.maximum, fixed([1.0, 2.0, 3.0], [1.0, 0.5, 4.0])),
    Kink("minimum of equals", jnp.minimum, fixed([1.0, 2.0, 3.0], [1.0, 0.5, 4.0])),
    Kink("sort of ties", jnp.sort, fixed([2.0, 1.0, 2.0, 0.0])),
    Kink("top_k of ties", lambda x: lax.top_k(x, 2)[0], fixed([2.0, 1.0, 2.0, 0.0])),
    Kink("median of two ties", jnp.median, fixed([2.0, 1.0, 2.0, 3.0, 0.5])),
    # It has a slope along every line through this point, but no gradient has these slopes.
    Kink("median of three ties", jnp.median, fixed([2.0, 1.0, 2.0, 3.0, 2.0])),
    Kink("eigenvalues that are equal", jnp.linalg.eigvalsh, fixed([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 5.0]])),
    Kink("clip at the edge", lambda x: jnp.clip(x, -1, 1), fixed([0.3, 1.0, -0.5])),
    Kink("piecewise", lambda x: jnp.where(x < 1, x, 3 * x - 2), fixed([0.3, 1.0, 2.0])),
    Kink("hinge at the margin", lambda w, x: jnp.mean(jnp.maximum(0, 1 - x @ w)),
         fixed([1.0, -0.5], [[2.0, 2.0], [0.5, 1.0], [1.5, -1.0]])),
    Kink("distance of equals", lambda x, y: jnp.sum(jnp.abs(x - y)), fixed([1.0, 2.0, 3.0], [1.0, 2.5, 4.0])),
    Kink("soft threshold", lambda x: jnp.sign(x) * nn.relu(jnp.abs(x) - 0.5), fixed([0.5, 1.0, -2.0])),
    Kink("tent", lambda x: jnp.abs(x - 2 * jnp.floor(x / 2) - 1), fixed([1.0, 0.4, 2.7])),
    Kink("lasso", lambda w, x, y: jnp.mean((x @ w - y) ** 2) + 0.1 * jnp.sum(jnp.abs(w)),
         together(fixed([0.0, 1.0, -0.5]), normal((6, 3), (6,)))),
    Kink("relu network", relu_network, draw_unit_at_zero),
    Kink("kink beside large smooth terms", lambda x: 1e3 * jnp.sum(jnp.sin(x)) + jnp.abs(x[0]), fixed([0.0, 0.7, 1.9])),
    Kink("small kink in one leaf", lambda x, y: jnp.sum(jnp.exp(y)) + 1e-2 * jnp.sum(nn.relu(x)), together(
        fixed([0.0, 1.0]), normal((3,)))),
    Kink("kink times smooth", lambda x: jnp.sum(jnp.abs(x) * jnp.cos(x)), fixed([0.0, 0.7, 1.9])),
    Kink("jump", jnp.floor, fixed([2.0, 0.4])),
    Kink("jump beside a slope", lambda x: jnp.sin(x) + (x >= 0.5), fixed([0.5, 0.9])),
    Kink("root at 0", lambda x: jnp.sqrt(jnp.abs(x)), fixed([0.0, 1.0])),
    Kink("cube root at 0", jnp.cbrt, fixed([0.0, 1.0])),
)  # fmt: skip
