"""Mistakes for `fresh_wrong`: a term, a factor or a path is missing, or a rule fits a slightly different function."""

from collections.abc import Callable
from typing import TypeVar

import jax.numpy as jnp
import jax.scipy.stats as stats
import numpy as np
from jax import Array, lax, nn
from jax.typing import DTypeLike

from jaxgd.typed import fori_loop, grad, jvp, vmap

from . import fresh_models as models
from . import fresh_rules as rules
from . import fresh_science as science
from .draws import Args, normal
from .kinds import pulled, with_jvp, with_vjp
from .typed import eigh, linear_solve, segment_sum, solve

R = TypeVar("R")
Pair = tuple[Array, Array]
stop = lax.stop_gradient


def as_if(f: Callable[..., R], other: Callable[..., object], *places: int) -> Callable[..., R]:
    """Return f, with the cotangents of another function for the arguments at `places`. By default, replace all."""

    def backward(*args: object) -> tuple[Array, ...]:
        found, mistaken = pulled(f, args[:-1], args[-1]), pulled(other, args[:-1], args[-1])
        chosen = places or range(len(found))
        return tuple(mistaken[i] if i in chosen else found[i] for i in range(len(found)))

    return with_vjp(f, backward)


def changed(f: Callable[..., R], place: int, change: Callable[..., object]) -> Callable[..., R]:
    """Return f with one cotangent replaced by change(cotangent, *args)."""

    def backward(*args: object) -> tuple[object, ...]:
        found = pulled(f, args[:-1], args[-1])
        return (*found[:place], change(found[place], *args[:-1]), *found[place + 1 :])

    return with_vjp(f, backward)


# Losses.


def focal_fixed(z: Array, y: Array) -> Array:
    p = nn.sigmoid(jnp.where(y > 0.5, z, -z))
    return -jnp.mean(stop((1 - p) ** 2) * jnp.log(p))


def untagged_end(move: Array, emit: Array, tags: Array) -> Array:
    """Return the loss of a conditional random field without the last tag's own score."""
    return models.crf(move, emit, tags) + emit[-1, tags[-1]]


def student(r: Array, nu: Array) -> Array:
    return -jnp.sum(stats.t.logpdf(r, nu))


def barlow_half(a: Array, b: Array) -> Array:
    a, b = ((x - x.mean(0)) / x.std(0) for x in (a, b))
    c = a.T @ b / len(a)
    return jnp.sum((jnp.diag(c) - 1) ** 2) + 0.005 * jnp.sum((c * (1 - jnp.eye(len(c), dtype=c.dtype))) ** 2)


# Layers.

turned_again = with_vjp(models.rotate, lambda x, g: (models.rotate(g),))
repeated = with_vjp(lambda k: jnp.repeat(k, 2, axis=0), lambda k, g: (g[::2],))
collected = with_vjp(lambda m: segment_sum(m, models.RECEIVERS, 5), lambda m, g: (g[models.SENDERS],))
IDS = np.array([3, 0, 7, 0, 2, 3], np.int32)
unmasked = with_vjp(lambda t: jnp.where(IDS[:, None] == 0, 0, t[IDS]), lambda t, g: (jnp.zeros_like(t).at[IDS].add(g),))


def grouped(q: Array, k: Array, v: Array) -> Array:
    return nn.softmax(jnp.einsum("hqd,hkd->hqk", q, repeated(k))) @ repeated(v)


def linear_fixed(q: Array, k: Array, v: Array) -> Array:
    """Return linear attention, with its normalizer held fixed in the derivative."""
    q, k = nn.elu(q) + 1, nn.elu(k) + 1
    total = jnp.cumsum(k[:, :, None] * v[:, None, :], 0)
    return jnp.einsum("nd,nde->ne", q, total) / stop(jnp.sum(q * jnp.cumsum(k, 0), -1, keepdims=True))


def block_transposed(g: Array, *_: object) -> Array:
    """Return the gradient of a recurrent weight with its last square block transposed."""
    h = g.shape[1]
    return g.at[2 * h :].set(g[2 * h :].T)


def recurrence(a: Array, b: Array) -> Array:
    return lax.scan(lambda h, ab: (ab[0] * h + ab[1],) * 2, jnp.zeros_like(b[0]), (a, b))[1]


def recurrence_late(a: Array, b: Array, g: Array) -> Pair:
    """Return cotangents. They use the state after each step in place of the state before the step."""
    h = recurrence(a, b)
    later = jnp.concatenate([a[1:], jnp.zeros_like(a[:1])])
    adjoint = lax.scan(lambda s, ag: (ag[0] * s + ag[1],) * 2, jnp.zeros_like(g[0]), (later, g), reverse=True)[1]
    return adjoint * h, adjoint


def max_pool(x: Array) -> Array:
    return jnp.max(x.reshape(-1, 3), 1)


# Physics, filters and linear algebra.


def heat_free(u: Array, k: Array) -> Array:
    """Return the temperature on a ring in place of a rod with fixed ends."""
    return fori_loop(0, 6, lambda _, u: u + k * (jnp.roll(u, -1) - 2 * u + jnp.roll(u, 1)), u)


def kepler_backward(mean: Array, e: Array, g: Array) -> Pair:
    x = science.kepler(mean, e)
    return g / (1 + e * jnp.cos(x)), g * jnp.sin(x) / (1 + e * jnp.cos(x))


def shifted_circuit(theta: Array, g: Array) -> tuple[Array]:
    """Return the gradient by shifts of π/4, with the factor for shifts of π/2."""
    shifts = np.pi / 4 * jnp.eye(theta.size, dtype=theta.dtype).reshape(-1, *theta.shape)
    plus, minus = (vmap(lambda s: science.circuit(theta + s))(sign * shifts) for sign in (1, -1))
    return (g * (plus - minus).reshape(theta.shape) / 2,)


PHASE = np.exp(-0.4j * np.arange(-4, 4) ** 2)
dispersed = with_vjp(
    lambda z: jnp.fft.ifft(jnp.asarray(PHASE, z.dtype) * jnp.fft.fft(z)),
    lambda z, g: (jnp.fft.fft(jnp.asarray(PHASE.conj(), z.dtype) * jnp.fft.ifft(g)),),
)
framed = with_vjp(
    lambda x: jnp.stack([x[i : i + 16] * jnp.hanning(16) for i in (0, 8, 16)]),
    lambda x, g: (jnp.zeros_like(x).at[np.arange(16) + 8 * np.arange(3)[:, None]].add(g),),
)


def feedback_once(b: Array, a: Array, x: Array, g: Array) -> tuple[Array, ...]:
    """Return the cotangents of the filter. The derivative in the feedback coefficients `a` lacks the recursion."""
    y = science.biquad(b, a, x)
    late = jnp.stack([jnp.pad(y, (k, 0))[: y.size] for k in (1, 2)])
    found = pulled(science.biquad, (b, a, x), g)
    return found[0], -late @ g, found[2]


def kalman_fixed(log_q: Array, log_r: Array, y: Array) -> Array:
    """Return a local-level model's loss. Its derivative holds the gain fixed in the update of the mean."""
    q, r = jnp.exp(log_q), jnp.exp(log_r)

    def step(s: Pair, y: Array) -> tuple[Pair, Array]:
        m, p = s[0], s[1] + q
        f = p + r
        return (m + stop(p / f) * (y - m), p * r / f), (jnp.log(f) + (y - m) ** 2 / f) / 2

    return jnp.sum(lax.scan(step, (jnp.zeros_like(q), jnp.ones_like(q)), y)[1])


def smooth(mode: str) -> Callable[..., Array]:
    """Return a function that takes the moving mean of five elements. The mode says how it pads both ends."""
    return lambda x: jnp.convolve(jnp.pad(x, 2, mode=mode), jnp.full(5, 0.2, x.dtype), "valid")


def reflections_fixed(v: Array, x: Array) -> Array:
    for row in v:
        x = x - 2 * row * (row @ x) / stop(row @ row)
    return x


def lyapunov_half(a: Array, q: Array, g: Array) -> Pair:
    adjoint = science.lyapunov(a.T, g)
    return -adjoint @ science.lyapunov(a, q).T, adjoint


def untransposed(a: Array, b: Array) -> Array:
    """Return a⁻¹b. The rule for the transpose wrongly solves with a itself."""
    return linear_solve(lambda x: a @ x, b, lambda _, b: solve(a, b), lambda _, b: solve(a, b))


# Probability, geometry and rules.


def mixture_prior(g: Array, logits: Array, mean: Array, log_scale: Array, x: Array) -> Array:
    """Return the means' cotangents with prior weights in place of posterior weights, for a cotangent of 1."""
    return jnp.mean(nn.softmax(logits) * (x[:, None] - mean) * jnp.exp(-2 * log_scale), 0)


def hazards_reversed(w: Array, x: Array, event: Array) -> Array:
    z = x @ w
    return -jnp.sum(event * (z - lax.cumlogsumexp(z, reverse=True))) / len(z)


def quaternion_fixed(q: Array, v: Array) -> Array:
    q = q / stop(jnp.sqrt(q @ q))
    t = 2 * jnp.cross(q[1:], v)
    return v + q[0] * t + jnp.cross(q[1:], t)


def chebyshev_first_kind(g: Array, c: Array, x: Array) -> Array:
    """Return the derivative Σ k cₖ Tₖ₋₁ in place of Σ k cₖ Uₖ₋₁, for a cotangent of 1."""
    return science.chebyshev(c[1:] * jnp.arange(1, c.size), x)


def integrand_only(a: Array, b: Array) -> Array:
    x = b * (jnp.asarray(science.NODES, b.dtype) + 1) / 2
    return stop(b) / 2 * jnp.sum(jnp.asarray(science.WEIGHTS, b.dtype) * jnp.exp(-a * x**2))


def over_queries(q: Array, k: Array, v: Array, g: Array) -> tuple[Array, Array, Array]:
    """Return the cotangents of attention with weights that are normalized over the queries."""
    p = nn.softmax(q @ k.T, axis=0)
    dz = p * (g @ v.T - jnp.sum(g * (p @ v), 1, keepdims=True))
    return dz @ k, dz.T @ q, p.T @ g


def equilibrium_untransposed(w: Array, x: Array, g: Array) -> Pair:
    z = rules.equilibrium(w, x)
    slope = 1 - z**2
    u = slope * solve(jnp.eye(len(z), dtype=z.dtype) - slope[:, None] * w, g)
    return jnp.outer(u, z), u


def ode_late(a: Array, x: Array, g: Array) -> Pair:
    """Return the cotangents of Euler's steps, with the state after each step in place of the state before the step."""
    states = lax.scan(lambda x, _: (x + 0.1 * a @ x,) * 2, x, None, 10)[1]
    g, da = lax.scan(lambda g, x: (g + 0.1 * a.T @ g, 0.1 * jnp.outer(g, x)), g, states, reverse=True)
    return jnp.sum(da, 0), g


def eigenvector_by_largest(a: Array, g: Array) -> tuple[Array]:
    """Return the eigenvalue's gradient, with an eigenvector of largest absolute value 1 in place of norm 1."""
    x = eigh(a)[1][:, -1]
    return (g * jnp.outer(x, x) / jnp.max(jnp.abs(x)) ** 2,)


def circular_unconjugated(x: Array, k: Array, g: Array) -> tuple[Array, ...]:
    return tuple(rules.circular(g, y) for y in (k, x))


half_step = with_jvp(lambda x: x * jnp.exp(-0.1 * x), lambda x, dx: jnp.exp(-0.1 * x) * dx)
bent_sine = with_vjp(jnp.sin, lambda x, g: (g * jnp.cos(x) * 0.97,))
sinhc = with_vjp(lambda x: jnp.sinh(x) / x, lambda x, g: (
    g * jnp.where(jnp.abs(x) < 0.5, x / 3, (x * jnp.cosh(x) - jnp.sinh(x)) / x**2),))  # fmt: skip


def half_while(x: Array) -> Array:
    return lax.while_loop(lambda s: s[0] < 7, lambda s: (s[0] + 1, half_step(s[1])), (0, x))[1]


def narrow_product(x: Array, w: Array, g: Array) -> Pair:
    """Return the cotangents of a product, with the factors and the results rounded to bfloat16."""
    x16, w16, g16 = (a.astype(jnp.bfloat16) for a in (x, w, g))
    return (g16 @ w16.T).astype(x.dtype), (x16.T @ g16).astype(w.dtype)


def bounded_cotangent(x: Array, w: Array, g: Array) -> tuple[Array, ...]:
    return pulled(jnp.matmul, (x, w), g / jnp.maximum(1, jnp.linalg.norm(g)))


def layer_norm(x: Array, gain: Array) -> Array:
    return nn.standardize(x) * gain


def table_left(table: Array, x: Array) -> Array:
    """Interpolate linearly in a table. Only the left one of two entries gets a gradient."""
    i = jnp.floor(x).astype(jnp.int32)
    return (1 - (x - i)) * table[i] + (x - i) * stop(table)[i + 1]


def singular_vectors_exchanged(a: Array, g: Array) -> tuple[Array]:
    u, _, v = jnp.linalg.svd(a)
    return (g * jnp.outer(v[0], u[:, 0]),)


def keys_and_values(p: dict[str, Array]) -> Array:
    return jnp.sum((nn.softmax(p["q"] @ p["k"].T) @ p["v"]) ** 2)


def exchanged(p: dict[str, Array]) -> dict[str, Array]:
    g = grad(keys_and_values)(p)
    return {"q": g["q"], "k": g["v"], "v": g["k"]}


def final_state(h: Array, x: Array) -> Array:
    return lax.scan(lambda h, x: (jnp.tanh(0.9 * h + x), None), h, x)[0]


def without_start(primals: Pair, tangents: Pair) -> Pair:
    return jvp(final_state, primals, (jnp.zeros_like(tangents[0]), tangents[1]))


def forty_loss(p: rules.Blocks, x: Array) -> Array:
    return jnp.sum(rules.many_blocks(p, x) ** 2)


def one_bias(p: rules.Blocks, x: Array) -> rules.Blocks:
    g = grad(forty_loss)(p, x)
    g["block7"]["norm"]["bias"] = 1.1 * g["block7"]["norm"]["bias"]
    return g


def draw_heads(rng: np.random.Generator, dtype: DTypeLike) -> Args:
    q, k, v = normal((3, 4), (4, 4), (4, 4))(rng, dtype)
    return ({"q": q, "k": k, "v": v},)
