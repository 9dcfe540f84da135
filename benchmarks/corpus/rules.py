"""Rules with mistakes that people make."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
import numpy as np
from jax import Array, lax, nn

from jaxgd.typed import vjp

from .draws import Draw, away, complex_normal, definite, distinct, fixed, fractions, matrix, normal, together, uniform
from .flows import runge_kutta
from .kinds import pulled
from .networks import attention, causal_attention, layer_norm, rnn


def softmax_without_sum(x: Array, g: Array) -> tuple[Array]:
    """Return p g in place of softmax's cotangent p (g − Σ p g)."""
    return (nn.softmax(x) * g,)


def softmax_off_by_one(x: Array, g: Array) -> tuple[Array]:
    """Return softmax's cotangent p (g − Σ p g), with the sum Σ p g of the neighboring row."""
    p = nn.softmax(x)
    return (p * (g - jnp.roll(jnp.sum(p * g, axis=-1, keepdims=True), 1, axis=0)),)


def layer_norm_parts(x: Array, gain: Array, g: Array, mean: bool, variance: bool) -> Array:
    """Return layer norm's cotangent for x. Leave out the term of the mean or of the variance if its flag is False."""
    scale = lax.rsqrt(jnp.var(x, axis=-1, keepdims=True) + 1e-5)
    y, g = (x - jnp.mean(x, axis=-1, keepdims=True)) * scale, g * gain[None]
    dx = g
    if mean:
        dx = dx - jnp.mean(g, axis=-1, keepdims=True)
    if variance:
        dx = dx - y * jnp.mean(g * y, axis=-1, keepdims=True)
    return dx * scale


def layer_norm_lacking(mean: bool, variance: bool) -> Callable[..., tuple[Array, ...]]:
    """Return layer norm's backward pass. Leave out the term of the mean or of the variance if its flag is False."""

    def backward(x: Array, gain: Array, bias: Array, g: Array) -> tuple[Array, ...]:
        right = pulled(layer_norm, (x, gain, bias), g)
        return layer_norm_parts(x, gain, g, mean, variance), *right[1:]

    return backward


def attention_backward(
    q: Array, k: Array, v: Array, g: Array, scale: float = 1.0, causal: bool = False
) -> tuple[Array, Array, Array]:
    """Return the cotangents of attention, masked if `causal`. Multiply the gradient of the scores by `scale`."""
    root = float(np.sqrt(q.shape[-1]))
    z = q @ k.T / root
    if causal:
        z = jnp.where(jnp.tril(jnp.ones(z.shape, bool)), z, -jnp.inf)
    p = nn.softmax(z)
    dp = g @ v.T
    dz = p * (dp - jnp.sum(dp * p, axis=-1, keepdims=True)) * scale
    return dz @ k / root, dz.T @ q / root, p.T @ g


def cholesky_without_half(a: Array, g: Array) -> tuple[Array]:
    """Return the cotangent of the Cholesky decomposition, without the factor ½ on the diagonal."""
    root = jnp.linalg.cholesky(a)
    middle = jnp.tril(root.T @ g)
    s = linalg.solve_triangular(
        root, linalg.solve_triangular(root, middle.T, lower=True, trans=1).T, lower=True, trans=1
    )
    return ((s + s.T) / 2,)


MASK = np.array([1, 1, 0, 1, 0, 1])
LABELS = np.array([0, 2, 1])
# In JAX 0.10 and 0.12, an int64 index that is used both with and without x64 raises an error.
PLACES = np.array([0, 2, 2, 4], np.int32)


def masked_mean(x: Array) -> Array:
    """Return the mean square of the elements that a mask selects."""
    mask = jnp.asarray(MASK, x.dtype)
    return jnp.sum(mask * x**2) / jnp.sum(mask)


def gelu(x: Array) -> Array:
    """Return x Φ(x), where Φ is the normal distribution function."""
    return nn.gelu(x, approximate=False)


def labeled_cross_entropy(z: Array) -> Array:
    """Return the mean of −log softmax at the labels."""
    return -jnp.mean(jnp.take_along_axis(nn.log_softmax(z), LABELS[:, None], axis=1))


# Each row holds the name, the function, backward(*args, ct), the draw and the kind.
RULES: tuple[tuple[str, Callable[..., object], Callable[..., tuple[object, ...]], Draw, str], ...] = (
    ("sin 3x", lambda x: jnp.sin(3 * x), lambda x, g: (g * jnp.cos(3 * x),), normal(), "chain factor missing"),
    ("sin", jnp.sin, lambda x, g: (g * jnp.sin(x),), normal(), "sin instead of cos"),
    ("cos", jnp.cos, lambda x, g: (g * jnp.sin(x),), normal(), "wrong sign"),
    ("tan", jnp.tan, lambda x, g: (g / jnp.cos(x),), uniform(-1.2, 1.2), "square missing"),
    ("tanh", jnp.tanh, lambda x, g: (g * (1 - jnp.tanh(x)),), normal(), "square missing"),
    ("sigmoid", nn.sigmoid, lambda x, g: (g * nn.sigmoid(x),), normal(), "factor 1 − a missing"),
    ("sigmoid, saturated", nn.sigmoid, lambda x, g: (jnp.zeros_like(g),), away(least=14.0, most=18.0), "zero"),
    ("log", jnp.log, lambda x, g: (g / (x + 1e-3),), uniform(0.3, 3.0), "ε in the denominator"),
    ("sqrt", jnp.sqrt, lambda x, g: (g / jnp.sqrt(x),), uniform(0.3, 3.0), "factor ½ missing"),
    ("x/y", jnp.divide, lambda x, y, g: (g / y, g * x / y**2), away((5,), (5,)), "wrong sign in the quotient rule"),
    ("1/x", jnp.reciprocal, lambda x, g: (-g / x,), away(), "square missing"),
    ("x^y", jnp.power, lambda x, y, g: (g * y * x**y, g * jnp.log(x) * x**y),
     together(uniform(0.3, 3.0), normal()), "exponent not lowered"),
    ("x sin x", lambda x: x * jnp.sin(x), lambda x, g: (g * x * jnp.cos(x),), normal(),
     "product rule's first term missing"),
    ("x eˣ", lambda x: x * jnp.exp(x), lambda x, g: (g * jnp.exp(x),), normal(), "product rule's second term missing"),
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
    ("causal attention, scores", causal_attention,
     lambda q, k, v, g: attention_backward(q, k, v, g, scale=1.01, causal=True), normal((4, 3), (4, 3), (4, 2)),
     "scores ×1.01"),
    ("masked mean", masked_mean, lambda x, g: (g * 2 * x / 4,), normal((6,)), "mask forgotten"),
    ("masked mean, n", masked_mean, lambda x, g: (g * 2 * x * jnp.asarray(MASK, x.dtype) / x.size,), normal((6,)),
     "divided by the number of all elements"),
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
     normal((5,), (5,)), "wrong sign in one leaf"),
    ("cross entropy, labels", labeled_cross_entropy,
     lambda z, g: (g * (nn.softmax(z) - nn.one_hot(np.roll(LABELS, 1), 4, dtype=z.dtype)) / 3,), normal((3, 4)),
     "labels off by one"),
    ("cross entropy, target", labeled_cross_entropy, lambda z, g: (g * nn.softmax(z) / 3,), normal((3, 4)),
     "target's term missing"),
    ("relu", nn.relu, lambda x, g: (g,), fixed([0.7, -0.4, 1.3, -2.0]), "cotangent passed through on both sides"),
    ("leaky relu", nn.leaky_relu, lambda x, g: (g * jnp.where(x > 0, 1.0, 0.1).astype(x.dtype),),
     fixed([0.7, -0.4, 1.3, -2.0]), "slope 0.1, not 0.01"),
    ("leaky relu, slightly", nn.leaky_relu, lambda x, g: (g * jnp.where(x > 0, 1.0, 0.011).astype(x.dtype),),
     fixed([0.7, -0.4, 1.3, -2.0]), "slope 0.011, not 0.01"),
    ("abs", jnp.abs, lambda x, g: (g,), fixed([0.7, -0.4, 1.3, -2.0]), "sign missing"),
    ("maximum", jnp.maximum, lambda x, y, g: (g * (x < y), g * (x > y)), fixed([1.0, 2.0, 3.0], [2.0, 1.0, 4.0]),
     "branches exchanged"),
    ("max", jnp.max, lambda x, g: (g * jnp.full_like(x, 1 / x.size),), distinct((5,)),
     "gradient shared by all elements"),
    ("clip", lambda x: jnp.clip(x, -1, 1), lambda x, g: (g,), fixed([0.7, -0.4, 1.3, -2.0]),
     "cotangent passed through outside the bounds"),
    ("elu", nn.elu, lambda x, g: (g * jnp.where(x > 0, 1.0, nn.elu(x)),), fixed([0.7, -0.4, 1.3, -2.0]),
     "+ 1 missing in one branch"),
    ("gelu", gelu, lambda x, g: vjp(nn.gelu, x)[1](g), away((5,)), "derivative of the approximation"),
    ("silu", nn.silu, lambda x, g: (g * nn.sigmoid(x),), normal(), "product rule's second term missing"),
    ("softplus", nn.softplus, lambda x, g: (g * nn.sigmoid(-x),), normal(), "wrong sign inside the sigmoid"),
    ("square, rounded", jnp.square, lambda x, g: (g * 2 * jnp.round(x, 2),), away(), "slope at a rounded point"),
    ("cumsum", jnp.cumsum, lambda x, g: (jnp.cumsum(g),), normal((6,)), "not reversed"),
    ("cumsum, exclusive", jnp.cumsum, lambda x, g: (jnp.flip(jnp.cumsum(jnp.flip(g))) - g,), normal((6,)),
     "own element missing in each sum"),
    ("sort", jnp.sort, lambda x, g: (g,), fixed([0.3, -1.2, 2.0, 0.9]), "not sorted back"),
    ("take, some elements twice", lambda x: x[PLACES], lambda x, g: (jnp.zeros_like(x).at[PLACES].set(g),),
     normal((5,)), "second use's cotangent overwrites the first"),
    ("flip", jnp.flip, lambda x, g: (g,), normal((5,)), "not flipped back"),
    ("transpose", jnp.transpose, lambda x, g: (g,), normal((3, 3)), "not transposed back"),
    ("reshape", lambda x: x.T.reshape(-1), lambda x, g: (g.reshape(x.shape),), normal((3, 4)),
     "elements in the wrong order"),
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
    ("complex exp", jnp.exp, lambda z, g: (g * jnp.conj(jnp.exp(z)),), complex_normal((4,)), "one conjugate too many"),
    ("gradient reversal", lambda x: x, lambda x, g: (-g,), normal(), "sign reversed for adversarial training"),
    ("round, straight through", jnp.round, lambda x, g: (g,), fractions(), "nonzero gradient where the slope is 0"),
    ("sign, straight through", jnp.sign, lambda x, g: (g * (1 - jnp.tanh(x) ** 2),), away(),
     "nonzero gradient where the slope is 0"),
    ("length, squared", lambda x: jnp.sqrt(jnp.sum(x**2)), lambda x, g: (g * x,), away((5,)), "division missing"),
    ("rnn, last step", rnn, lambda w, u, x, g: jax.vjp(rnn, w, u, x)[1](g.at[-1].set(0)),
     normal((4, 4), (4, 3), (6, 3), scale=0.7), "last step's cotangent lost"),
    ("Runge–Kutta, rate", runge_kutta, lambda v, rate, g: (vjp(runge_kutta, v, rate)[1](g)[0], 0.1 * rate),
     together(normal((2,)), uniform(0.5, 2.0, ())), "0.1 × rate as the rate's cotangent"),
)  # fmt: skip


# Wrong rules in forward mode, which JAX transposes for reverse mode. Each row holds the name, the function,
# forward(*args, *tangents), the draw and the kind.
FORWARD_RULES: tuple[tuple[str, Callable[..., object], Callable[..., object], Draw, str], ...] = (
    ("cube", lambda x: x**3, lambda x, dx: 3 * x * dx, away(), "power lowered by two"),
    ("exp 2x", lambda x: jnp.exp(2 * x), lambda x, dx: jnp.exp(2 * x) * dx, normal(), "chain factor missing"),
    ("hypot", jnp.hypot, lambda x, y, dx, dy: x * dx / jnp.hypot(x, y), away((5,), (5,)), "second term missing"),
    ("arctan2", jnp.arctan2, lambda y, x, dy, dx: (x * dy + y * dx) / (x**2 + y**2), away((5,), (5,)),
     "wrong sign of one term"),
    ("logaddexp", jnp.logaddexp, lambda x, y, dx, dy: nn.sigmoid(y - x) * dx + nn.sigmoid(x - y) * dy,
     normal((5,), (5,)), "weights exchanged"),
    ("product, forward", jnp.multiply, lambda x, y, dx, dy: y * dx, away((5,), (5,)), "second term missing"),
    ("arcsin", jnp.arcsin, lambda x, dx: dx / (1 - x**2), away(least=0.1, most=0.9), "root missing"),
    ("log1p", jnp.log1p, lambda x, dx: dx / x, uniform(0.3, 3.0), "1 missing in the denominator"),
    ("matrix product, forward", jnp.matmul, lambda a, b, da, db: da @ b + db @ a, normal((3, 3), (3, 3)),
     "factors in the wrong order"),
    ("mean, forward", jnp.mean, lambda x, dx: jnp.sum(dx), normal((6,)), "sum instead of mean"),
    ("sine ×1.0005, forward", jnp.sin, lambda x, dx: 1.0005 * jnp.cos(x) * dx, normal(), "×1.0005"),
    ("solve, forward", jnp.linalg.solve, lambda a, b, da, db: jnp.linalg.solve(a, db + da @ jnp.linalg.solve(a, b)),
     together(matrix(), normal((3,))), "wrong sign of one term"),
    ("sigmoid, forward", nn.sigmoid, lambda z, dz: nn.sigmoid(z) * (1 + nn.sigmoid(z)) * dz, normal(),
     "wrong sign of one term"),
)  # fmt: skip
