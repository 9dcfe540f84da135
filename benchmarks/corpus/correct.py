"""Functions with right derivatives, at points where they are smooth. A checker must call none of them wrong."""

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
from jax import lax, nn

import jaxgd

from .draws import (
    Args,
    Draw,
    array,
    away,
    complex_normal,
    definite,
    distinct,
    fixed,
    matrix,
    normal,
    pieces,
    scaled,
    separated,
    singular,
    together,
    tree,
    uniform,
    whole,
)
from .elementwise import ROWS


@dataclasses.dataclass(frozen=True)
class Correct:
    """A function with `draw(rng, dtype)`, which draws a point where the function is smooth."""

    name: str
    f: Callable[..., Any]
    draw: Draw


# Neural networks.


def network_cost(network: Any, x: Any, y: Any) -> Any:
    """jaxgd's own."""
    return jaxgd.network_cost(network, x, y)


def draw_network(*sizes: int, examples: int = 4) -> Draw:
    """Draw a network from N(0, 1), with inputs and targets."""

    def draw(rng: Any, dtype: Any) -> Args:
        pairs = itertools.pairwise(sizes)
        network = tuple(
            jaxgd.Layer(array(rng.normal(size=(m, n)), dtype), array(rng.normal(size=m), dtype)) for n, m in pairs
        )
        x, y = rng.normal(size=(examples, sizes[0])), rng.integers(0, 2, (examples, sizes[-1]))
        return network, array(x, dtype), array(y, dtype)

    return draw


def layer_norm(x: Any, gain: Any, bias: Any) -> Any:
    """Return (x − mean)/σ · gain + bias over the last axis."""
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.var(x, axis=-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * gain[None] + bias[None]


def batch_norm(x: Any, gain: Any, bias: Any) -> Any:
    """Return (x − mean)/σ · gain + bias over the examples."""
    return (x - jnp.mean(x, axis=0)[None]) / jnp.sqrt(jnp.var(x, axis=0)[None] + 1e-5) * gain[None] + bias[None]


def attention(q: Any, k: Any, v: Any, mask: Any = None) -> Any:
    """Return softmax(q kᵀ/√d) v."""
    z = q @ k.T / jnp.sqrt(jnp.asarray(q.shape[-1], q.dtype))
    if mask is not None:
        z = jnp.where(mask, z, -jnp.inf)
    return nn.softmax(z, axis=-1) @ v


def causal_attention(q: Any, k: Any, v: Any) -> Any:
    """Return attention in which a query uses no later key."""
    return attention(q, k, v, jnp.tril(jnp.ones((q.shape[0], k.shape[0]), bool)))


def cross_entropy(labels: Any, z: Any) -> Any:
    """Return the mean of −log softmax at the labels."""
    return -jnp.mean(jnp.take_along_axis(nn.log_softmax(z), labels[:, None], axis=1))


def conv(x: Any, kernel: Any) -> Any:
    """Return a convolution of images with strides."""
    return lax.conv_general_dilated(x, kernel, (2, 1), "SAME")


def average_pool(x: Any) -> Any:
    """Return the means of blocks of 2 × 2."""
    return lax.reduce_window(x, 0.0, lax.add, (2, 2), (2, 2), "VALID") / 4


def max_pool(x: Any) -> Any:
    """Return the maxima of blocks of 2 × 2."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 2), "VALID")


def rnn(w: Any, u: Any, x: Any) -> Any:
    """Return all states h of the recurrence h ← tanh(w h + u x)."""

    def step(h: Any, x: Any) -> Any:
        h = jnp.tanh(w @ h + u @ x)
        return h, h

    return lax.scan(step, jnp.zeros(w.shape[0], w.dtype), x)[1]


def lstm(w: Any, x: Any) -> Any:
    """Return the last output of a long short-term memory without biases."""

    def step(state: Any, x: Any) -> Any:
        h, c = state
        i, f, o, g = jnp.split(w @ jnp.concatenate([h, x]), 4)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
        return (nn.sigmoid(o) * jnp.tanh(c), c), None

    zero = jnp.zeros(w.shape[0] // 4, w.dtype)
    return lax.scan(step, (zero, zero), x)[0][0]


def dropout(x: Any) -> Any:
    """Keep about half of the elements, chosen by a fixed key."""
    return jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, x.shape), x**2, 0.0)


def sampled(mean: Any, log_scale: Any) -> Any:
    """Draw from N(mean, scale²) with a fixed key."""
    return mean + jnp.exp(log_scale) * jax.random.normal(jax.random.key(0), mean.shape, mean.dtype)


def gaussian_process(x: Any, y: Any, length: Any) -> Any:
    """Return the negative log likelihood of y at x."""
    k = jnp.exp(-(((x[:, None] - x[None, :]) / length) ** 2) / 2) + 0.1 * jnp.eye(x.size, dtype=x.dtype)
    root = jnp.linalg.cholesky(k)
    z = linalg.solve_triangular(root, y, lower=True)
    return z @ z / 2 + jnp.sum(jnp.log(jnp.diag(root)))


# Sequences, solvers and control flow.


def runge_kutta(v: Any, rate: Any) -> Any:
    """Return the pendulum v″ = −rate sin v after ten steps of the classical Runge–Kutta method."""

    def slope(v: Any) -> Any:
        return jnp.stack([v[1], -rate * jnp.sin(v[0])])

    def step(v: Any, _: Any) -> Any:
        h = 0.1
        a = slope(v)
        b = slope(v + h / 2 * a)
        c = slope(v + h / 2 * b)
        d = slope(v + h * c)
        return v + h / 6 * (a + 2 * b + 2 * c + d), None

    return lax.scan(step, v, None, length=10)[0]


def symmetric(a: Any) -> Any:
    """Return the symmetric part. Derivatives that hold only for symmetric matrices need it first."""
    return (a + a.T) / 2


def cho_solve(a: Any, b: Any) -> Any:
    """Return a⁻¹b by the Cholesky factor. SciPy's function reads only one triangle."""
    return linalg.cho_solve(linalg.cho_factor(symmetric(a)), b)


def newton_root(a: Any) -> Any:
    """Return √a by Newton's method, differentiated as a root."""

    def solve(g: Any, x: Any) -> Any:
        return lax.fori_loop(0, 30, lambda _, x: x - g(x) / jax.jvp(g, (x,), (jnp.ones_like(x),))[1], x)

    return lax.custom_root(lambda x: x**2 - a, jnp.ones_like(a), solve, lambda g, y: y / g(jnp.ones_like(y)))


def linear_solve(a: Any, b: Any) -> Any:
    """Return a⁻¹b for symmetric a with a custom linear solver, which autodiff does not trace."""
    a = symmetric(a)
    solve = partial(lax.custom_linear_solve, lambda x: a @ x, symmetric=True)
    return solve(b, lambda _, b: cho_solve(a, b))


def chosen_branch(x: Any) -> Any:
    """Choose a branch by the values."""
    return lax.cond(x[0] > 0, jnp.sin, lambda x: x**2, x) + lax.switch(1, [jnp.cos, jnp.tanh], x)


def looped(x: Any) -> Any:
    """Run a loop of known length, which reverse mode supports."""
    return lax.fori_loop(0, 5, lambda i, y: jnp.sin(y) + x * i, x)


def logistic_map(x: Any) -> Any:
    """Iterate x ← 3.7 x (1 − x) twelve times, which separates nearby points."""
    return lax.fori_loop(0, 12, lambda _, x: 3.7 * x * (1 - x), x)


def hessian_product(x: Any, u: Any) -> Any:
    """Return ∇²C(x) u for C = Σ sin(x) + (Σx)³."""
    return jax.jvp(jax.grad(lambda x: jnp.sum(jnp.sin(x)) + jnp.sum(x) ** 3), (x,), (u,))[1]


# Correct custom rules.


@jax.custom_jvp
def log1pexp(x: Any) -> Any:
    """Return log(1 + eˣ)."""
    return jnp.log1p(jnp.exp(x))


@log1pexp.defjvp
def _log1pexp_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    return log1pexp(x), nn.sigmoid(x) * dx


def polar_factor(a: Any) -> Any:
    u, _, v = jnp.linalg.svd(a, full_matrices=False)
    return jnp.asarray(u) @ jnp.asarray(v)


@jax.custom_vjp
def sine_times(x: Any, y: Any) -> Any:
    """Return y sin x."""
    return y * jnp.sin(x)


sine_times.defvjp(lambda x, y: (y * jnp.sin(x), (x, y)), lambda xy, g: (g * xy[1] * jnp.cos(xy[0]), g * jnp.sin(xy[0])))


# Trees.


class Pair(NamedTuple):
    """A tree of the user's own."""

    left: Any
    right: Any


def of_trees(tree: Any, pair: Pair) -> Any:
    """Map trees to trees."""
    return {"sum": tree["a"] + pair.left, "rest": (jnp.exp(tree["b"][0]), pair.right * jnp.sum(tree["a"]))}


def with_whole_numbers(tree: Any) -> Any:
    """Take integer arguments: n and the indices of elements."""
    return tree["x"][tree["place"]] ** tree["n"]


def with_argmax(x: Any) -> Any:
    """Return an integer among the results."""
    return {"place": jnp.argmax(x), "value": jnp.max(x) ** 2}


def mixed_sizes(tree: Any) -> Any:
    """Return a sum in which leaves of 1e-6 and 1e6 contribute equally."""
    return jnp.sum(jnp.sin(1e6 * tree["small"])) + jnp.sum(jnp.log(tree["large"]))


NEURAL = (
    Correct("network cost", network_cost, draw_network(5, 4, 3)),
    Correct("network cost, three layers", network_cost, draw_network(4, 6, 5, 2)),
    Correct("network cost by backprop", lambda *args: jaxgd.backprop(*args), draw_network(3, 4, 2)),
    Correct("sigmoid of jaxgd", jaxgd.sigmoid, normal((6,), scale=3.0)),
    Correct("sigmoid of jaxgd, saturated", jaxgd.sigmoid, away((6,), least=18.0, most=30.0)),
    Correct("layer norm", layer_norm, normal((3, 5), (5,), (5,))),
    Correct("batch norm", batch_norm, normal((6, 3), (3,), (3,))),
    Correct("attention", attention, normal((3, 4), (5, 4), (5, 2))),
    Correct("causal attention", causal_attention, normal((4, 3), (4, 3), (4, 2))),
    Correct("nn.dot_product_attention", nn.dot_product_attention, normal((3, 2, 4), (5, 2, 4), (5, 2, 4))),
    Correct("nn.dot_product_attention, causal", partial(nn.dot_product_attention, is_causal=True),
            normal((3, 2, 4), (3, 2, 4), (3, 2, 4))),
    Correct("cross entropy", cross_entropy, together(whole([0, 2, 1]), normal((3, 4)))),
    Correct("convolution", conv, normal((2, 3, 5, 5), (4, 3, 3, 3))),
    Correct("average pool", lambda x: average_pool(x**2), normal((4, 6))),
    Correct("max pool", max_pool, distinct((4, 6))),
    Correct("recurrent network", rnn, normal((4, 4), (4, 3), (6, 3), scale=0.7)),
    Correct("long short-term memory", lstm, normal((8, 5), (6, 3))),
    Correct("dropout by a fixed key", dropout, normal((12,))),
    Correct("a draw by a fixed key", sampled, normal((4,), (4,))),
    Correct("Huber loss", lambda x: jnp.where(jnp.abs(x) < 1, x**2 / 2, jnp.abs(x) - 0.5),
            pieces((-3, -1.2), (-0.8, 0.8), (1.2, 3))),
    Correct("hinge loss", lambda x: jnp.sum(jnp.maximum(0, 1 - x)), pieces((-2, 0.8), (1.2, 3))),
    Correct("logistic loss", lambda w, x: jnp.mean(jnp.log1p(jnp.exp(-x @ w))), normal((3,), (6, 3))),
    Correct("Gaussian process", gaussian_process, together(distinct((4,)), normal((4,)), uniform(0.5, 1.5, ()))),
)  # fmt: skip

ARRAYS = (
    Correct("sum", jnp.sum, normal((3, 4))),
    Correct("mean", lambda x: jnp.mean(x, axis=1), normal((3, 4))),
    Correct("prod", lambda x: jnp.prod(x, axis=0), away((3, 4))),
    Correct("var", jnp.var, normal((7,))),
    Correct("std", lambda x: jnp.std(x, axis=1), normal((3, 4))),
    Correct("average", lambda x, w: jnp.average(x, weights=w), together(normal(), uniform(0.5, 2.0))),
    Correct("cov", jnp.cov, normal((3, 6))),
    Correct("corrcoef", jnp.corrcoef, normal((3, 6))),
    Correct("median", jnp.median, distinct((7,))),
    Correct("quantile", lambda x: jnp.quantile(x, 0.3), distinct((8,))),
    Correct("max", jnp.max, distinct((7,))),
    Correct("min", lambda x: jnp.min(x, axis=1), distinct((3, 4))),
    Correct("ptp", jnp.ptp, distinct((7,))),
    Correct("sort", jnp.sort, distinct((7,))),
    Correct("top_k", lambda x: lax.top_k(x, 3)[0] ** 2, distinct((7,))),
    Correct("cumsum", jnp.cumsum, normal((6,))),
    Correct("cumprod", jnp.cumprod, away((6,))),
    Correct("cummax", lambda x: lax.cummax(x), distinct((6,))),
    Correct("cumlogsumexp", lambda x: lax.cumlogsumexp(x), normal((6,))),
    Correct("associative scan", lambda x: lax.associative_scan(lambda a, b: a * b + a, x), normal((6,))),
    Correct("diff", lambda x: jnp.diff(x) ** 2, normal((6,))),
    Correct("gradient", lambda x: jnp.gradient(jnp.sin(x)), normal((6,))),
    Correct("trapezoid", lambda y, x: jnp.trapezoid(y, x), normal((6,), (6,))),
    Correct("take, some twice", lambda x: jnp.take(x, jnp.array([0, 2, 2, 4])) ** 2, normal((5,))),
    Correct("gather of rows", lambda x, i: jnp.sin(x[i]), together(normal((5, 2)), whole([3, 0, 3]))),
    Correct("dynamic slice", lambda x, i: lax.dynamic_slice(x**2, (i,), (3,)), together(normal((6,)), whole(2))),
    Correct("scatter add", lambda x, y: (x**2).at[jnp.array([0, 2, 0])].add(jnp.exp(y)), normal((5,), (3,))),
    Correct("scatter set", lambda x, y: (x**2).at[jnp.array([3, 1])].set(jnp.exp(y)), normal((5,), (2,))),
    Correct("scatter multiply", lambda x, y: x.at[jnp.array([3, 1])].multiply(y, unique_indices=True),
            away((5,), (2,))),
    Correct("segment sum", lambda x: jax.ops.segment_sum(x**2, jnp.array([0, 1, 0, 2, 1]), 3), normal((5,))),
    Correct("roll, pad, flip", lambda x: jnp.pad(jnp.roll(jnp.flip(x), 2), 2, mode="reflect") ** 2, normal((6,))),
    Correct("concatenate", lambda x, y: jnp.concatenate([x, x * y, jnp.repeat(y, 2)]), normal((3,), (3,))),
    Correct("einsum", lambda a, b, c: jnp.einsum("ij,jk,k->ik", a, b, c), normal((2, 3), (3, 4), (4,))),
    Correct("tensordot", lambda a, b: jnp.tensordot(a, b, 2), normal((2, 3, 4), (3, 4, 2))),
    Correct("outer, kron", lambda a, b: (jnp.outer(a, b), jnp.kron(a, b)), normal((3,), (2,))),
    Correct("cross", jnp.cross, normal((3,), (3,))),
    Correct("convolve", jnp.convolve, normal((6,), (3,))),
    Correct("tril of a product", lambda a, b: jnp.tril(a @ b), normal((3, 4), (4, 3))),
    Correct("norm", jnp.linalg.norm, away((5,))),
    Correct("cosine similarity", lambda x, y: x @ y / jnp.sqrt(x @ x * (y @ y)), away((5,), (5,))),
    Correct("polynomial in coefficients", lambda c, x: jnp.polyval(c, x), normal((4,), (5,))),
    Correct("broadcasting", lambda x, y: x[:, None] * jnp.sin(y)[None, :], normal((3,), (4,))),
    Correct("scalar arguments", lambda x, y: jnp.sin(x) * y, away((), ())),
    Correct("no dependence on the second", lambda x, y: jnp.sin(x), normal((3,), (2,))),
    Correct("linear", lambda x: 3 * x[::-1], normal((5,))),
    Correct("constant", lambda x: jnp.ones(3, x.dtype) + 0 * jnp.sum(lax.stop_gradient(x)), normal((5,))),
)  # fmt: skip

LINEAR_ALGEBRA = (
    Correct("cholesky", jnp.linalg.cholesky, definite()),
    Correct("cho_solve", cho_solve, together(definite(), normal((3,)))),
    Correct("solve", jnp.linalg.solve, together(matrix(), normal((3,)))),
    Correct("solve_triangular", lambda a, b: linalg.solve_triangular(a, b, lower=True),
            together(matrix(), normal((3, 2)))),
    Correct("inv", jnp.linalg.inv, matrix()),
    Correct("det", jnp.linalg.det, matrix(4)),
    Correct("slogdet", lambda a: jnp.linalg.slogdet(a)[1], matrix(4)),
    Correct("eigenvalues", jnp.linalg.eigvalsh, separated(4)),
    Correct("eigenvectors, squared", lambda a: [x**2 for x in jnp.linalg.eigh(a)], separated()),
    Correct("projector on an eigenvector",
            lambda a: jnp.outer(jnp.linalg.eigh(a)[1][:, 0], jnp.linalg.eigh(a)[1][:, 0]), separated()),
    Correct("qr", lambda a: jnp.linalg.qr(a), singular()),
    Correct("singular values", lambda a: jnp.linalg.svd(a, compute_uv=False), singular()),
    Correct("polar factor by svd", polar_factor, singular()),
    Correct("nuclear norm", lambda a: jnp.linalg.norm(a, "nuc"), singular()),
    Correct("spectral norm", lambda a: jnp.linalg.norm(a, 2), singular()),
    Correct("pinv", jnp.linalg.pinv, singular()),
    Correct("lstsq", lambda a, b: jnp.linalg.lstsq(a, b)[0], together(singular(), normal((4,)))),
    Correct("lu", lambda a: linalg.lu(a)[1:], matrix()),
    Correct("expm", linalg.expm, normal((3, 3))),
    Correct("matrix power", lambda a: jnp.linalg.matrix_power(a, 5), normal((3, 3))),
    Correct("exponentials that do not commute", lambda a, b: linalg.expm(a) @ b - b @ linalg.expm(-a),
            normal((2, 2), (2, 2))),
    Correct("toeplitz", lambda c: linalg.toeplitz(c) @ jnp.sin(c), normal((4,))),
    Correct("custom linear solve", linear_solve, together(definite(), normal((3,)))),
    Correct("Mahalanobis, log-determinant", lambda a, x: x @ jnp.linalg.solve(a, x) + jnp.linalg.slogdet(a)[1],
            together(definite(), normal((3,)))),
)  # fmt: skip

FLOWS = (
    Correct("Runge–Kutta", runge_kutta, together(normal((2,)), uniform(0.5, 2.0, ()))),
    Correct("root by Newton", newton_root, uniform(0.5, 3.0)),
    Correct("cond and switch", chosen_branch, away()),
    Correct("fori_loop", looped, normal()),
    Correct("logistic map", logistic_map, uniform(0.2, 0.8)),
    Correct("Hessian product inside", hessian_product, normal((4,), (4,))),
    Correct("gradient penalty", lambda w, x: jnp.sum(jax.grad(lambda x: jnp.sum(jnp.tanh(w @ x)))(x) ** 2),
            normal((3, 4), (4,))),
    Correct("vmap inside", jax.vmap(lambda x, y: jnp.sin(x) @ y), normal((3, 4), (3, 4))),
    Correct("jit inside", jax.jit(lambda x: jnp.sin(x) * x), normal()),
    Correct("checkpoint", jax.checkpoint(lambda x: jnp.sin(jnp.sin(x))), normal()),
    Correct("lax.map", lambda x: lax.map(lambda row: nn.softmax(row) * row, x), normal((3, 4))),
    Correct("custom_jvp", log1pexp, normal()),
    Correct("custom_vjp", sine_times, normal((5,), (5,))),
    Correct("custom_vjp inside", lambda x, y: jnp.exp(sine_times(x**2, y)), normal((5,), (5,))),
    Correct("trees", of_trees, together(
        tree(lambda a, b: {"a": a, "b": [b, None]}, normal((3,), (2,))), tree(Pair, normal((3,), ())))),
    Correct("whole numbers among the arguments", with_whole_numbers,
            tree(lambda x, i, n: {"x": x, "place": i, "n": n}, away((5,)), whole([1, 4, 1], 3))),
    Correct("whole numbers among the results", with_argmax, distinct((6,))),
    Correct("an empty leaf", lambda x, y: jnp.sum(x) + y**2, normal((0,), (3,))),
)  # fmt: skip

COMPLEX = (
    Correct("holomorphic", lambda z: z**2 * jnp.exp(z), complex_normal((4,))),
    Correct("log of complex", jnp.log, complex_normal((4,))),
    Correct("not holomorphic", lambda z: jnp.conj(z) * jnp.sin(z), complex_normal((4,))),
    Correct("absolute square", lambda z: jnp.sum(jnp.abs(z) ** 2), complex_normal((4,))),
    Correct("angle and modulus", lambda z: (jnp.angle(z), jnp.abs(z)), fixed([1 + 2j, -0.5 + 1j, 2 - 0.3j, -1 - 1j])),
    Correct("real and imaginary part", lambda z: jnp.real(z) * jnp.imag(z) ** 2, complex_normal((4,))),
    Correct("complex from reals", lambda x, y: jnp.exp(lax.complex(x, y)), normal((4,), (4,))),
    Correct("complex product", lambda a, b: a @ b, complex_normal((2, 3), (3, 2))),
    Correct("complex and real leaves", lambda z, x: jnp.sum(jnp.abs(z * x) ** 2), together(
        complex_normal((4,)), normal((4,)))),
    Correct("fft", jnp.fft.fft, complex_normal((6,))),
    Correct("ifft", jnp.fft.ifft, complex_normal((6,))),
    Correct("rfft", jnp.fft.rfft, normal((6,))),
    Correct("irfft", jnp.fft.irfft, complex_normal((4,))),
    Correct("fft in two dimensions", jnp.fft.fft2, complex_normal((3, 4))),
    Correct("power spectrum", lambda x: jnp.abs(jnp.fft.rfft(x)) ** 2, normal((8,))),
    Correct("complex inverse", jnp.linalg.inv, tree(lambda a, b: a + 0.3j * b, matrix(), normal((3, 3)))),
)  # fmt: skip


# Separate from the scales, so that each function compiles once for all scales.
FUNCTIONS_AT_SCALES = (
    ("sum of logs", lambda x: jnp.sum(jnp.log(x))),
    ("sum of squares", lambda x: jnp.sum(x**2)),
    ("x/(1 + x)", lambda x: x / (1 + x)),
    ("mean of roots", lambda x: jnp.mean(jnp.sqrt(x))),
    ("1 + sum of squares", lambda x: 1 + jnp.sum(x**2)),
)


def tanh_at(scale: float) -> Callable[..., Any]:
    """Return tanh(x/scale)."""
    return lambda x: jnp.tanh(x / scale)


SCALES = (
    *(
        Correct(f"{name} × {scale:g}", f, uniform(0.5 * scale, 2 * scale))
        for name, f in FUNCTIONS_AT_SCALES
        for scale in (1e-6, 1e-3, 1e3, 1e6)
    ),
    *(
        Correct(f"tanh of x/scale × {scale:g}", tanh_at(scale), normal(scale=scale))
        for scale in (1e-6, 1e-3, 1e3, 1e6)
    ),
    Correct("leaves of 1e-6 and 1e6", mixed_sizes, tree(
        lambda a, b: {"small": a, "large": b}, normal((4,), scale=1e-6), uniform(0.5e6, 2e6, (4,)))),
    Correct("elements of 1e-6 and 1e6", jnp.log, fixed([1e-6, 2e-3, 1.0, 3e3, 1e6])),
    Correct("results of 1e-6 and 1e6", lambda x: (1e-6 * jnp.sin(x), 1e6 * jnp.cos(x)), normal()),
    Correct("cost of 1e12", lambda x: 1e12 * jnp.sum(jnp.cos(x)), normal()),
    Correct("cost of 1e-12", lambda x: 1e-12 * jnp.sum(jnp.cos(x)), normal()),
)  # fmt: skip

# Smooth, but hard: a nearby kink, fast oscillations, steep slopes, cancellation.
HARD = (
    Correct("relu a thousandth from its kink", nn.relu, away((6,), least=1e-3, most=2e-3)),
    Correct("relu, some close to the kink", nn.relu, fixed([1e-4, -2e-4, 1.0, -1.5, 0.7])),
    Correct("log close to 0", jnp.log, fixed([1e-5, 0.3, 1.0])),
    Correct("sqrt close to 0", jnp.sqrt, fixed([1e-5, 0.3, 1.0])),
    Correct("maximum, nearly tied", jnp.maximum, fixed([1.0, 2.0, 3.0], [1.001, 1.999, 5.0])),
    Correct("a thousand waves", lambda x: jnp.sin(1000 * x), normal()),
    Correct("steep sigmoid", lambda x: nn.sigmoid(200 * x), uniform(-0.01, 0.01)),
    Correct("narrow bump", lambda x: jnp.exp(-((x - 1) ** 2) / 2e-6), uniform(0.999, 1.001)),
    Correct("cancellation", lambda x: (1 - jnp.cos(x)) / x**2, uniform(0.01, 0.02)),
    Correct("difference of large numbers", lambda x: (1e4 + x) ** 2 - (1e4 - x) ** 2, normal()),
    Correct("gradient of 1e-9 beside a value of 1", lambda x: 1 + 1e-9 * jnp.sum(jnp.sin(x)), normal()),
    Correct("stationary in one leaf", lambda x, y: jnp.sum(jnp.cos(x)) + jnp.sum(jnp.sin(y)), together(
        fixed([0.0, 0.0, 0.0]), normal((3,)))),
    Correct("x², at 0 among others", jnp.square, fixed([0.0, 1.0, -2.0])),
    Correct("x³ at 0", lambda x: x**3, fixed([0.0, 0.0])),
    Correct("Runge's function", lambda x: 1 / (1 + 25 * x**2), uniform(-1.0, 1.0)),
    Correct("nearly singular", jnp.linalg.inv, fixed([[1.0, 1.0], [1.0, 1.0001]])),
    Correct("nearly equal eigenvalues", jnp.linalg.eigvalsh, fixed([[1.0, 1e-3], [1e-3, 1.001]])),
    Correct("twenty layers of tanh", lambda x: lax.fori_loop(0, 20, lambda _, x: jnp.tanh(1.5 * x), x), normal()),
)  # fmt: skip


def _elementwise() -> list[Correct]:
    found = []
    for name, f, draw, scales in ROWS:
        found.append(Correct(name, f, draw))
        found += [Correct(f"{name} × {scale:g}", f, scaled(draw, scale)) for scale in scales]
    return found


CORRECT = (*_elementwise(), *NEURAL, *ARRAYS, *LINEAR_ALGEBRA, *FLOWS, *COMPLEX, *SCALES, *HARD)
