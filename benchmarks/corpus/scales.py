"""Outputs and elements of very different sizes, details on small scales, and solvers that stop at a tolerance."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from .case import CANNOT_TELL, NOT_RIGHT, NOT_WRONG, Case, wrong
from .draws import fixed
from .handwritten import X64, in_float64
from .inputs import V, sines, square
from .kinds import with_vjp
from .narrow import in_dtype
from .second import ORDER_2
from .typed import conjugate_gradients, odeint

GRAM, WAVES = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 2.0]]), np.arange(1.0, 9.0) / 4
CENTERED = np.random.default_rng(1).normal(size=(1000, 4)).astype(np.float32)
CENTERED[:, 1:] -= CENTERED[:, 1:].mean(0)
CENTERED[:, 0] = 1
ORIGIN, PAIR = fixed([0.0, 0.0, 0.0]), fixed([1e6, 1e-6])


def next_to(constant: float) -> Callable[..., Array]:
    """Return a function of x with the outputs Σ x² and constant + 1e-3 Σ x. Its rule forgets the second output."""
    return with_vjp(lambda x: jnp.stack([square(x), constant + 1e-3 * jnp.sum(x)]), lambda x, g: (2 * x * g[0],))


def rippled(size: float) -> Callable[..., Array]:
    """Return Σ x plus ripples with this amplitude and a slope of up to 1. The rule forgets the ripples."""
    return with_vjp(lambda x: jnp.sum(x) + size * sines(x / size), lambda x, g: (g * jnp.ones_like(x),))


def constant_in(dtype: DTypeLike, constant: float) -> Callable[..., Array]:
    """Return a constant plus Σ x, computed in a dtype. The rule returns the gradient 0."""
    return with_vjp(
        lambda x: (jnp.sum(x.astype(dtype)) + jnp.asarray(constant, dtype)).astype(x.dtype), lambda x, g: (0 * x,)
    )


def modulus_of_cotangent(x: Array, g: Array) -> tuple[Array]:
    return (2 * x * jnp.abs(g),)


def decay(y: Array, t: Array, rate: Array) -> Array:
    return -rate * y


def solved(a: Array) -> Array:
    """Return the solution x of (a + aᵀ) x = V by conjugate gradients."""
    return conjugate_gradients(lambda x: (a + a.T) @ x, jnp.asarray(V, a.dtype))[0]


SCALES = (
    wrong("an output of 1e4 without its derivative", next_to(1e4), fixed(V)),
    wrong("an output of 1e6 without its derivative", next_to(1e6), fixed(V)),
    Case("ripples of 1e-7", rippled(1e-7), ORIGIN, NOT_RIGHT),
    Case("ripples of 5e-7", rippled(5e-7), ORIGIN, NOT_RIGHT),
    Case("gradient 0 for an element that varies on a scale of 1e-8", with_vjp(
        lambda x: x[0] + 1e-8 * jnp.tanh(x[1] / 1e-8), lambda x, g: (g * jnp.array([1, 0], x.dtype),)),
        fixed([1.0, 3e-9]), NOT_RIGHT),
    Case("elements of 1e6 and 1e-6", lambda x: 1e-6 * x[0] + x[1] ** 2 / (x[1] + 1e-6), PAIR,
         NOT_WRONG),
    Case("elements of 1e6 and 1e-6, sine of the second × 1e6", lambda x: x[0] + x[1] + 1e-6 * jnp.sin(1e6 * x[1]), PAIR,
         NOT_WRONG),
    Case("mean of centered data", lambda w: jnp.mean(CENTERED @ w), in_dtype("float32", np.arange(1.0, 5)), NOT_WRONG,
         gradient=lambda w: jnp.mean(jnp.asarray(CENTERED), 0)),
    Case("x²/3, rule with 1/3 in float32", with_vjp(lambda x: x**2 / 3, lambda x, g: (2 * x * g * jnp.float32(1 / 3),)),
         in_dtype("float32", V)),
    *(Case(f"{constant:g} + Σ x in {np.dtype(dtype).name}, gradient 0", constant_in(dtype, constant), fixed(V),
           NOT_RIGHT)
      for dtype, constant in ((jnp.float16, 1e3), (jnp.bfloat16, 20.0), (np.float32, 1e7))),
    Case("1e16 + Σ x, gradient 0", with_vjp(lambda x: 1e16 + jnp.sum(x), lambda x, g: (0 * x,)), fixed(V), NOT_RIGHT),
    Case("mean of 4096 squares in float16", lambda x: jnp.mean(x.astype(jnp.float16) ** 2).astype(x.dtype),
         lambda rng, dtype: (jnp.asarray(rng.normal(size=4096), dtype),), NOT_WRONG),
    wrong("absolute value of the cotangent, one direction", with_vjp(square, modulus_of_cotangent), fixed(V),
          options={"directions": 1}),
    wrong("absolute value of the cotangent", with_vjp(square, modulus_of_cotangent), fixed(V)),
    Case("linear system by conjugate gradients", solved, fixed(GRAM), NOT_WRONG),
    Case("decay by an adaptive solver", lambda y, rate: odeint(decay, y, jnp.array([0.0, 1.0], y.dtype), rate),
         fixed(V, 0.7), NOT_WRONG),
    Case("second order: waves in float32",
         lambda x: jnp.sum(jnp.sin(x.astype(jnp.float32)) * jnp.roll(x, 1).astype(jnp.float32) ** 2).astype(x.dtype),
         fixed(WAVES), NOT_WRONG, **ORDER_2),
    Case("second order: log-sum-exp in bfloat16",
         lambda x: jax.nn.logsumexp(x.astype(jnp.bfloat16)).astype(x.dtype), fixed(V), NOT_WRONG, **ORDER_2),
    Case("second order: mean of tanh² in float32",
         lambda w: jnp.mean(jnp.tanh(w.astype(jnp.float32) @ jnp.ones((4, 3), jnp.float32)) ** 2).astype(w.dtype),
         fixed(np.random.default_rng(0).normal(size=(5, 4))), NOT_WRONG, **ORDER_2),
    Case("saturated sigmoid", lambda x: jnp.sum(jax.nn.sigmoid(100 + x)), fixed([2.0, 3.0])),
    Case("kink that changes the slope 3 by 1e-7", lambda x: jnp.sum(3 * x + 1e-7 * jax.nn.relu(x)),
         in_float64(fixed([0.0, 0.5])), (CANNOT_TELL,), "kink", settings=X64),
    # The loop computes √(1 + x²), so it ends at negative x too. A loop for √x would not end at negative x.
    Case("loop that stops at a tolerance", lambda x: lax.while_loop(
        lambda s: jnp.any(jnp.abs(s[1] - s[0]) > 1e-6), lambda s: (s[1], 0.5 * (s[1] + (1 + x**2) / s[1])),
        (x, 1 + x**2 / 2))[1], fixed([2.0, 3.0]), NOT_WRONG),
)  # fmt: skip
