"""Second derivatives: rules whose first derivative is right, and points where the second derivative is lost."""

from collections.abc import Callable
from typing import TypedDict

import jax.numpy as jnp
import numpy as np
from jax import Array, lax, nn

from .case import CANNOT_TELL, IS_WRONG, NOT_WRONG, RIGHT, Case, wrong
from .draws import fixed
from .edges import norm_by_convention
from .handwritten import X64, X, bisection, by_newton, implicit
from .inputs import A
from .kinds import with_jvp, with_vjp


class Order(TypedDict):
    """The keyword argument `options` of `Case`, with the order of the derivative to check."""

    options: dict[str, int]


ORDER_2: Order = {"options": {"order": 2}}
ATOMS = fixed([[0.0, 0.0], [1.1, 0.1], [0.3, 1.2]])
hide = lax.stop_gradient


def sine_with(second: Callable[[Array], Array]) -> Callable[..., Array]:
    """Return Σ sin x with a right first derivative and this second derivative."""
    derivative = with_jvp(lambda x: jnp.cos(x), lambda x, dx: second(x) * dx)
    sine = with_jvp(lambda x: jnp.sin(x), lambda x, dx: derivative(x) * dx)
    return lambda x: jnp.sum(sine(x))


def swirl(x: Array) -> Array:
    """Return a field that is 0 at (1, 2) and has no potential."""
    away = x - jnp.array([1, 2], x.dtype)
    return jnp.array([away[1], -away[0]])


def bowl(slope: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """Return Σ x²/2 with the reverse mode slope(x, cotangent)."""
    return with_vjp(lambda x: jnp.sum(x**2) / 2, lambda x, g: (slope(x, g),))


def lennard_jones(x: Array, safe: bool) -> Array:
    """Return the energy of all pairs. Without `safe`, the distance of an atom from itself is the square root of 0."""
    r2 = jnp.sum((x[:, None] - x[None, :]) ** 2, -1)
    r = jnp.sqrt(jnp.where(r2 > 0, r2, 1.0)) if safe else jnp.sqrt(r2)
    return jnp.sum(jnp.where(r2 > 0, (1 / r) ** 12 - (1 / r) ** 6, 0))


def saturated(scale: float) -> Callable[..., Array]:
    """Return tanh(−s v)(s v)², which is −(s v)² for large s v."""
    return lambda v: jnp.tanh(-scale * v) * (scale * v) ** 2


def exprel(x: Array) -> Array:
    """Return (eˣ − 1)/x, by a series near 0."""
    small = jnp.abs(x) < 1e-3
    safe = jnp.where(small, 1.0, x)
    return jnp.where(small, 1 + x / 2 + x**2 / 6 + x**3 / 24 + x**4 / 120, jnp.expm1(safe) / safe)


def exprel_tangent(x: Array, dx: Array) -> Array:
    """Return a tangent of exprel. The branch that `where` does not select makes its derivative NaN at 0."""
    series = 0.5 + x / 3 + x**2 / 8 + x**3 / 30
    return jnp.where(jnp.abs(x) < 1e-3, series, ((x - 1) * jnp.exp(x) + 1) / x**2) * dx


without_second = with_vjp(jnp.sin, lambda x, g: (jnp.cos(x) * hide(g),))
PLACE = fixed([1.0, 2.0])

SECOND = (
    Case("second order: sin x · y", lambda x, y: jnp.sum(jnp.sin(x) * y), fixed(A, A), **ORDER_2),
    Case("second order: sine", jnp.sin, fixed(X), **ORDER_2),
    Case("second order: holomorphic function", lambda z: jnp.exp(z) / (1 + z**2),
         fixed([1 + 0.5j, -0.3 + 2j, 0.7 - 1j]), **ORDER_2),
    # JAX's derivative of sinc at 1e-4 is a difference of nearly equal numbers. In float32, the second derivative has no
    # right digit there.
    Case("second order: sinc, one element at 0", jnp.sinc, fixed([0.0, 1e-4, 0.3]), NOT_WRONG, **ORDER_2),
    Case("second order: norm by convention", norm_by_convention, fixed([1.0, -2.0, 0.5]), **ORDER_2),
    Case("second order: Lennard-Jones", lambda x: lennard_jones(x, True), ATOMS, **ORDER_2),
    wrong("second order: Lennard-Jones, square roots of 0", lambda x: lennard_jones(x, False), ATOMS, **ORDER_2),
    Case("second order: root by Newton's method", by_newton, fixed(2.0, 0.7), **ORDER_2),
    # At second order, autodiff differentiates the bisection inside the rule and gets the slope 0. The second derivative
    # then lacks the terms with the slope of the root.
    wrong("second order: root by bisection", with_vjp(bisection, implicit), fixed(2.0, 0.7), **ORDER_2),
    Case("sine with a wrong second derivative, first order", sine_with(jnp.sin), fixed(A)),
    wrong("second order: sine with a wrong second derivative", sine_with(jnp.sin), fixed(A), **ORDER_2),
    Case("second order: sine with rules for both derivatives", sine_with(lambda x: -jnp.sin(x)), fixed(A), **ORDER_2),
    Case("second order: bowl", bowl(lambda x, g: g * x), PLACE, **ORDER_2),
    wrong("second order: bowl, sign flipped", bowl(lambda x, g: g * (2 * hide(x) - x)), PLACE, **ORDER_2),
    wrong("second order: bowl, cotangent stopped", bowl(lambda x, g: hide(g) * x), PLACE, **ORDER_2),
    Case("bowl with a swirl, first order", bowl(lambda x, g: g * (x + swirl(x))), PLACE),
    wrong("second order: bowl with a swirl", bowl(lambda x, g: g * (x + swirl(x))), PLACE, **ORDER_2),
    Case("sine with its cotangent stopped, first order", without_second, fixed(X)),
    wrong("second order: sine with its cotangent stopped", without_second, fixed(X), **ORDER_2),
    Case("exprel at 0, first order", with_jvp(exprel, exprel_tangent), fixed(0.0), (RIGHT, IS_WRONG)),
    wrong("second order: exprel at 0", with_jvp(exprel, exprel_tangent), fixed(0.0), **ORDER_2),
    Case("second order: softplus at 37", nn.softplus, lambda rng, dtype: fixed(37.42994775023705)(rng, np.float64),
         (CANNOT_TELL,), settings=X64, **ORDER_2),
    # A compiler may round tanh′ to 1e-16 in place of 0. The relative error is then about 1e-8 at the scale 1e4, and
    # about 1 at the scale 1e8.
    Case("second order: tanh at 1e4", saturated(1e4), lambda rng, dtype: fixed(1.0)(rng, np.float64), NOT_WRONG,
         settings=X64, **ORDER_2),
    Case("second order: tanh at 1e8", saturated(1e8), lambda rng, dtype: fixed(1.0)(rng, np.float64),
         (RIGHT, IS_WRONG, CANNOT_TELL), settings=X64, **ORDER_2),
    Case("second order: an argument that f ignores", lambda x, y: jnp.sum(jnp.sin(x)), fixed(A, A), **ORDER_2),
    Case("second order: an empty leaf", lambda x, y: jnp.sum(jnp.sin(x)) + jnp.sum(y), fixed(X, np.zeros((0, 2))),
         **ORDER_2),
)  # fmt: skip
