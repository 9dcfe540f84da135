"""Draws, right rules and further functions for the cases of `fresh_right` and `fresh_wrong`."""

import functools
from typing import TypedDict

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from jaxgd.typed import fori_loop, tree_map

from . import fresh_models as models
from . import typed
from .draws import Args, Draw, array
from .typed import segment_sum, solve

Pair = tuple[Array, Array]


class Block(TypedDict):
    """The leaves of one block."""

    w: Array
    norm: dict[str, Array]
    scale: Array


Blocks = dict[str, Block]


def in_dtype(name: str, draw: Draw) -> Draw:
    """Draw in this dtype, instead of the dtype of the check."""
    return lambda rng, dtype: draw(rng, np.dtype(jnp.dtype(name)))


def labels(n: int, size: int) -> Draw:
    """Draw labels below n."""
    return lambda rng, dtype: (jnp.asarray(rng.integers(0, n, size), jnp.int32),)


def bits(*shape: int) -> Draw:
    """Draw zeros and ones."""
    return lambda rng, dtype: (array(rng.integers(0, 2, shape), dtype),)


def above_diagonal(low: float, high: float, n: int) -> Draw:
    """Draw a lower triangular matrix with a diagonal between these bounds."""

    def draw(rng: np.random.Generator, dtype: DTypeLike) -> Args:
        return (array(np.tril(rng.normal(size=(n, n)), -1) + np.diag(rng.uniform(low, high, n)), dtype),)

    return draw


def many_leaves(rng: np.random.Generator, dtype: DTypeLike) -> Args:
    """Draw nested dicts with forty leaves of different shapes, and an input."""
    return (
        {
            f"block{i}": {
                "w": array(rng.normal(size=(3, 3)) / 2, dtype),
                "norm": {"gain": array(rng.uniform(0.5, 2, 3), dtype), "bias": array(rng.normal(size=3), dtype)},
                "scale": array(rng.uniform(0.5, 1), dtype),
            }
            for i in range(10)
        },
        array(rng.normal(size=3), dtype),
    )


def many_blocks(p: Blocks, x: Array) -> Array:
    for block in p.values():
        h = models.rms_norm(x, block["norm"]["gain"]) + block["norm"]["bias"]
        x = x + block["scale"] * jnp.tanh(block["w"] @ h)
    return x


# Hand-written rules with right derivatives.


def flash_backward(q: Array, k: Array, v: Array, g: Array) -> tuple[Array, Array, Array]:
    """Return the cotangents of attention from the recomputed weights, as fused kernels do."""
    p = jnp.exp(q @ k.T - special.logsumexp(q @ k.T, axis=1, keepdims=True))
    dz = p * (g @ v.T - jnp.sum(g * (p @ v), 1, keepdims=True))
    return dz @ k, dz.T @ q, p.T @ g


def equilibrium(w: Array, x: Array) -> Array:
    return fori_loop(0, 60, lambda _, z: jnp.tanh(w @ z + x), jnp.zeros_like(x))


def equilibrium_backward(w: Array, x: Array, g: Array) -> Pair:
    """Return the cotangents of the fixed point by a linear solve."""
    z = equilibrium(w, x)
    slope = 1 - z**2
    u = slope * solve(jnp.eye(len(z), dtype=z.dtype) - (slope[:, None] * w).T, g)
    return jnp.outer(u, z), u


def linear_ode(a: Array, x: Array) -> Array:
    return fori_loop(0, 10, lambda _, x: x + 0.1 * a @ x, x)


def linear_ode_backward(a: Array, x: Array, g: Array) -> Pair:
    """Return the cotangents of Euler's steps by their exact adjoint, from the state before each step."""
    states = lax.scan(lambda x, _: (x + 0.1 * a @ x, x), x, None, 10)[1]
    g, da = lax.scan(lambda g, x: (g + 0.1 * a.T @ g, 0.1 * jnp.outer(g, x)), g, states, reverse=True)
    return jnp.sum(da, 0), g


def reversible(f: Array, g: Array, x: Array) -> Array:
    """Return a reversible residual layer."""
    a, b = jnp.split(x, 2)
    a = a + jnp.tanh(f @ b)
    return jnp.concatenate([a, b + jnp.tanh(g @ a)])


def reversible_backward(f: Array, g: Array, x: Array, ct: Array) -> tuple[Array, Array, Array]:
    """Return the cotangents. The intermediate values are recomputed from the results."""
    a, b = jnp.split(reversible(f, g, x), 2)
    da, db = jnp.split(ct, 2)
    dg = db * (1 - jnp.tanh(g @ a) ** 2)
    b, da = b - jnp.tanh(g @ a), da + g.T @ dg
    df = da * (1 - jnp.tanh(f @ b) ** 2)
    return jnp.outer(df, b), jnp.outer(dg, a), jnp.concatenate([da, db + f.T @ df])


def top_eigenvalue(a: Array) -> Array:
    """Return the largest eigenvalue of a symmetric positive definite matrix by 200 steps of the power method."""
    x = fori_loop(0, 200, lambda _, x: a @ x / jnp.linalg.norm(a @ x), jnp.ones(len(a), a.dtype))
    return x @ a @ x / (x @ x)


def top_eigenvalue_tangent(a: Array, da: Array) -> Array:
    x = fori_loop(0, 200, lambda _, x: a @ x / jnp.linalg.norm(a @ x), jnp.ones(len(a), a.dtype))
    return x @ da @ x / (x @ x)


PLACES = np.array([0, 3, 1, 3, 2, 0, 3], np.int32)


def sparse_product(values: Array, x: Array) -> Array:
    return segment_sum(values * x[PLACES], PLACES[::-1], 4)


def sparse_backward(values: Array, x: Array, g: Array) -> Pair:
    y = g[PLACES[::-1]]
    return y * x[PLACES], segment_sum(y * values, PLACES, x.size)


def circular(x: Array, k: Array) -> Array:
    return jnp.fft.irfft(jnp.fft.rfft(x) * jnp.fft.rfft(k), x.size)


def circular_backward(x: Array, k: Array, g: Array) -> tuple[Array, ...]:
    back = jnp.fft.rfft(g)
    return tuple(jnp.fft.irfft(back * jnp.conj(jnp.fft.rfft(y)), x.size) for y in (k, x))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def robust(x: Array, alpha: float) -> Array:
    """Return Barron's robust loss."""
    return abs(alpha - 2) / alpha * ((x**2 / abs(alpha - 2) + 1) ** (alpha / 2) - 1)


robust.defvjp(
    lambda x, alpha: (robust(x, alpha), x),
    lambda alpha, x, g: (g * x * (x**2 / abs(alpha - 2) + 1) ** (alpha / 2 - 1),),
)


def solved(a: Array, b: Array) -> Array:
    """Return a⁻¹b. The matrix a is not symmetric, so its transpose has its own solver."""
    return typed.linear_solve(lambda x: a @ x, b, lambda _, b: solve(a, b), lambda _, b: solve(a.T, b))


def conjugate_gradients(a: Array, b: Array) -> Array:
    """Return s⁻¹b for the symmetric part s of a, by conjugate gradients."""
    return typed.conjugate_gradients(lambda x: (a + a.T) @ x / 2, b, tol=1e-12, maxiter=60)[0]


def spline(y: Array) -> Array:
    """Return a quadratic form of the second derivatives of the natural cubic spline through y."""
    n = y.size - 2
    one = jnp.ones(n, y.dtype)
    low, up = one.at[0].set(0), one.at[-1].set(0)
    m = lax.linalg.tridiagonal_solve(low, 4 * one, up, 6 * jnp.diff(y, n=2)[:, None])[:, 0]
    return jnp.sum(m**2) + jnp.sum(m[1:] * m[:-1])


def fourier_filter(x: Array) -> Array:
    """Return the square of a signal after Wiener's filter with a fixed spectrum."""
    s = jnp.fft.rfft(x)
    return jnp.fft.irfft(s / (1 + jnp.arange(s.size) ** 2 / 20), x.size) ** 2


def envelope(x: Array) -> Array:
    """Return the modulus of the analytic signal. It counts the Nyquist frequency of an even size twice."""
    half = jnp.arange(x.size) < x.size // 2 + 1
    return jnp.abs(jnp.fft.ifft(jnp.where(half, 2, 0).at[0].set(1) * jnp.fft.fft(x)))


def spectrogram(x: Array) -> Array:
    """Return the log power spectra of windows of 16 samples that overlap by half."""
    frames = jnp.stack([x[i : i + 16] for i in range(0, x.size - 15, 8)])
    return jnp.log(jnp.abs(jnp.fft.rfft(frames * jnp.hanning(16))) ** 2 + 1e-2)


def orthonormal(a: Array) -> Array:
    """Return the columns of a after the Gram–Schmidt process."""
    q: list[Array] = []
    for i in range(a.shape[1]):
        v = a[:, i] - sum((u * (u @ a[:, i]) for u in q), jnp.zeros_like(a[:, i]))
        q.append(v / jnp.sqrt(v @ v))
    return jnp.stack(q, 1)


def predators(v: Array, rates: Array) -> Array:
    """Return Lotka–Volterra populations by Heun's method, in a loop with checkpoints."""

    def slope(v: Array) -> Array:
        return jnp.stack([v[0] * (rates[0] - rates[1] * v[1]), v[1] * (rates[2] * v[0] - rates[3])])

    @jax.checkpoint
    def step(v: Array, _: None) -> tuple[Array, None]:
        a = slope(v)
        return v + 0.05 * (a + slope(v + 0.1 * a)) / 1, None

    return lax.scan(step, v, None, 15)[0]


def bessel_by_recurrence(x: Array) -> Array:
    """Return J₀(x) by Miller's backward recurrence."""

    def step(s: tuple[Array, Array, Array], k: Array) -> tuple[tuple[Array, Array, Array], None]:
        high, low, total = s
        new = 2 * k / x * low - high
        return (low, new, total + jnp.where(k % 2 == 1, 2 * new, 0)), None

    start = jnp.zeros_like(x), jnp.full_like(x, 1e-8), jnp.zeros_like(x)
    _, j0, total = lax.scan(step, start, jnp.arange(20, 0, -1, dtype=x.dtype))[0]
    return j0 / (total - j0)


def fraction(x: Array) -> Array:
    """Return tan x by its continued fraction."""
    return x / functools.reduce(lambda tail, k: k - x**2 / tail, range(19, 0, -2), jnp.full_like(x, 21.0))


def decayed(x: Array) -> Array:
    """Return x after a while loop with a fixed number of steps. JAX has only a forward mode for it."""
    return lax.while_loop(lambda s: s[0] < 7, lambda s: (s[0] + 1, s[1] * jnp.exp(-0.1 * s[1])), (0, x))[1]


def branches(x: Array) -> Array:
    """Apply one of three functions to each element, chosen by its index."""
    functions = [jnp.sin, lambda x: x**3, jnp.exp]
    y: Array = jax.vmap(lambda i, x: lax.switch(i % 3, functions, x))(jnp.arange(x.size), x)
    return y


def mixed_loss(p: dict[str, Array]) -> Array:
    """Return a loss of leaves in three dtypes. It is computed in the widest dtype."""
    wide = tree_map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), p)
    return jnp.sum(jnp.tanh(wide["w"] @ wide["x"]) * wide["b"])


def draw_mixed(rng: np.random.Generator, dtype: DTypeLike) -> Args:
    w, x, b = rng.normal(size=(3, 4)) / 2, rng.normal(size=4), rng.normal(size=3)
    return ({"w": jnp.asarray(w, jnp.bfloat16), "x": array(x, dtype), "b": jnp.asarray(b, jnp.float16)},)


TAGS = np.array([0, 2, 1, 1, 0], np.int32)
