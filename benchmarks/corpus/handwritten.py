"""Right and wrong hand-written rules, functions without a rule, and estimators other than the gradient."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxgd.typed import fori_loop, grad, vjp, vmap

from .case import NOT_RIGHT, NOT_WRONG, Case, wrong
from .draws import Draw, complex_normal, fixed, normal
from .inputs import A, V, Z, square
from .kinds import Change, with_jvp, with_vjp
from .typed import custom_root

Pair = tuple[Array, Array]
X = np.array([0.3, 1.2, 2.5])
POINT = fixed([0.3, 1.2, -2.4])
SMALL = np.array([1e-4, 1.0, 1.0])


def first_only(f: Callable[..., Array]) -> Callable[..., Array]:
    """Return f with a forward mode that uses only the first element of the gradient."""
    return with_jvp(f, lambda x, dx: grad(f)(x)[0] * dx[0])


def scaled_cotangent(change: Change) -> Callable[..., Array]:
    """Return Σ x² with a reverse mode that first applies `change` to the cotangent."""
    return with_vjp(square, lambda x, g: (2 * x * change(g),))


def power_times(power: int, factor: float) -> Callable[..., Array]:
    """Return Σ xᵖ with its gradient times a factor."""
    return with_vjp(lambda x: jnp.sum(x**power), lambda x, g: (g * power * x ** (power - 1) * factor,))


def other_value(off: float) -> Callable[..., Array]:
    """Return Σ x² with a rule whose forward pass returns (1 + off) Σ x²."""
    rule = jax.custom_vjp(lambda x: square(x))
    rule.defvjp(lambda x: ((1 + off) * square(x), x), lambda x, g: (2 * x * g,))
    return rule


def above(least: float) -> Callable[..., Array]:
    """Return Σ x⁴. Its rule multiplies by ones in float32, and returns the gradient 0 for x up to `least`."""

    def backward(x: Array, g: Array) -> tuple[Array]:
        return (g * 4 * jnp.where(x > least, x**3, 0) * jnp.ones(3, jnp.float32),)

    return with_vjp(lambda x: jnp.sum(x**4), backward)


clipped = with_vjp(lambda x: x * 1.0, lambda x, g: (jnp.clip(g, -10, 10),))
clipped_at_1 = with_vjp(lambda x: x * 1.0, lambda x, g: (jnp.clip(g, -1, 1),))
always_3 = with_vjp(lambda x: 2.0 * x, lambda x, g: (jnp.full_like(g, 3.0),))
times = with_vjp(lambda x, c: x * c, lambda x, c, g: (g * c, jnp.sum(x * g)))
reversal = with_vjp(lambda x: x, lambda x, g: (-0.1 * g,))
without_factor = with_vjp(lambda x, s: x * s, lambda x, s, g: (g * s, None))
stale_sine = with_vjp(jnp.sin, lambda x, g: (g * jnp.cos(jnp.sin(x)),))
without_sequence = with_vjp(lambda xs, a: jnp.cumsum(a * xs), lambda xs, a, g: (0 * xs, jnp.sum(g * jnp.cumsum(xs))))


def scan_of_products(x: Array, c: Array) -> Array:
    """Return the last states of a batch of scans whose steps have a hand-written rule."""

    def last(x: Array) -> Array:
        return lax.scan(lambda y, t: (times(y, c) + t, None), x, jnp.arange(3, dtype=x.dtype))[0]

    return vmap(last)(x)


def fixed_point(a: Array, b: Array) -> Array:
    """Return the fixed point z = tanh(a z + b)."""
    return fori_loop(0, 100, lambda _, z: jnp.tanh(a @ z + b), jnp.zeros_like(b))


def one_step(a: Array, b: Array, g: Array) -> Pair:
    """Return the cotangents of one step at the fixed point, as if the state before the step were constant."""
    z = fixed_point(a, b)
    return vjp(lambda a, b: jnp.tanh(a @ z + b), a, b)[1](g)


def bisection(y: Array, a: Array) -> Array:
    """Return the root of x³ + a x = y."""

    def halve(ends: Pair, _: None) -> tuple[Pair, None]:
        low, high = ends
        middle = (low + high) / 2
        below = middle**3 + a * middle < y
        return (jnp.where(below, middle, low), jnp.where(below, high, middle)), None

    low, high = lax.scan(halve, (jnp.zeros_like(y), jnp.full_like(y, 4)), None, 60)[0]
    return (low + high) / 2


def implicit(y: Array, a: Array, g: Array) -> Pair:
    """Return the cotangents of the root by the implicit function theorem."""
    x = bisection(y, a)
    return g / (3 * x**2 + a), -g * x / (3 * x**2 + a)


def by_newton(y: Array, a: Array) -> Array:
    """Return the root of x³ + a x = y by Newton's method, with implicit differentiation."""

    def solve(f: Change, x: Array) -> Array:
        return fori_loop(0, 30, lambda _, x: x - f(x) / grad(f)(x), x)

    return custom_root(lambda x: x**3 + a * x - y, jnp.ones_like(y), solve, lambda f, y: y / f(jnp.ones_like(y)))


def jacobi(tolerance: float) -> Callable[..., Array]:
    """Return a Jacobi solver that stops if a step changes x by at most `tolerance`, or after 1,000 steps."""

    def solve(m: Array, b: Array) -> Array:
        d = jnp.diag(m)

        def step(x: Array) -> Array:
            return (b - (m @ x - d * x)) / d

        def moves(s: tuple[Array, Array, int]) -> Array:
            return (jnp.max(jnp.abs(s[0] - s[1])) > tolerance) & (s[2] < 1000)

        start = jnp.ones_like(b), jnp.zeros_like(b), 0
        return lax.while_loop(moves, lambda s: (step(s[0]), s[0], s[2] + 1), start)[0]

    return solve


def by_adjoint(tolerance: float, factor: float = 1.0) -> Callable[..., Array]:
    """Return the Jacobi solver with a rule by the adjoint method. The factor multiplies the rule's cotangents."""
    solve = jacobi(tolerance)

    def backward(m: Array, b: Array, g: Array) -> Pair:
        adjoint = factor * solve(m.T, g)
        return -jnp.outer(adjoint, solve(m, b)), adjoint

    return with_vjp(solve, backward)


def halved_by_iteration(x: Array, g: Array) -> tuple[Array]:
    """Return g/2 by an iteration with a tolerance of 1e-9."""

    def moves(s: tuple[Array, Array, int]) -> Array:
        return (jnp.max(jnp.abs(s[0] - s[1])) > 1e-9) & (s[2] < 1000)

    start = jnp.zeros_like(g), jnp.ones_like(g), 0
    return (1.5 * lax.while_loop(moves, lambda s: ((g - s[0]) * 0.5, s[0], s[2] + 1), start)[0],)


def slightly_bent(x: Array, g: Array) -> tuple[Array]:
    """Return a cotangent that deviates from linearity by up to 1e-5 of its size."""
    return (jnp.cos(x) * g * (1 + 1e-5 * jnp.tanh(g)),)


def checkpointed_waves(m: Array) -> Array:
    """Return Σ u² after four circular convolutions under checkpoint."""

    @jax.checkpoint
    def step(u: Array, m: Array) -> Array:
        return jnp.real(jnp.fft.ifft(jnp.fft.fft(u) * jnp.fft.fft(m)))

    return square(lax.scan(lambda u, _: (step(u, m) / 3 + u, None), jnp.ones(8, m.dtype), None, 4)[0])


def q_loss(w: Array) -> Array:
    """Return a loss with a target that is held fixed, as in Q-learning."""
    target = 1.0 + 0.9 * lax.stop_gradient(jnp.tanh(w @ jnp.array([1, 2], w.dtype)))
    return (target - jnp.tanh(w[0])) ** 2


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def bounded(x: Array, most: float) -> Array:
    """Return x, clipped to ±`most`."""
    return jnp.clip(x, -most, most)


bounded.defjvp(lambda most, x, dx: (bounded(x[0], most), dx[0] * (jnp.abs(x[0]) < most)))

SYSTEM = fixed([[4.0, 1.0, 0.5], [1.0, 5.0, 1.0], [0.3, 1.0, 3.0]], [1.0, 2.0, 3.0])
NETWORK = fixed([[0.3, 0.2], [-0.1, 0.4]], [0.5, -0.2])


def in_float64(draw: Draw) -> Draw:
    """Draw in float64, for cases with the setting X64."""
    return lambda rng, dtype: draw(rng, np.float64)


X64 = {"enable_x64": True}
NOT_LINEAR: dict[str, Change] = {
    "max(g, 0)": lambda g: jnp.maximum(g, 0),
    "min(g, 1)": lambda g: jnp.minimum(g, 1),
    "|g|": jnp.abs,
    "g³": lambda g: g**3,
    "sign(g)": jnp.sign,
    "1": jnp.ones_like,
}

HANDWRITTEN = (
    wrong("sum of squares, gradient × ½", with_vjp(square, lambda x, g: (g * x,)), fixed(A)),
    wrong("sum of squares, cotangent not used", with_vjp(square, lambda x, g: (2 * x,)), fixed(A)),
    wrong("slope 5 at the kink of abs", with_vjp(jnp.abs, lambda x, g: (5 * g,)), fixed(0.0)),
    *(
        wrong(f"cotangent g replaced by {name}", scaled_cotangent(change), fixed(X))
        for name, change in NOT_LINEAR.items()
    ),
    Case("cotangent g unchanged", scaled_cotangent(lambda g: g), fixed(X)),
    wrong("cotangent clipped to ±10", clipped, fixed(X)),
    wrong("cotangent × 100, then clipped to ±10", lambda x: 100 * clipped(x), fixed(X)),
    wrong("sum of cubes, inner cotangent clipped to ±1", lambda x: jnp.sum(clipped_at_1(x) ** 3), POINT),
    *(
        Case(f"1/x at 1e-4 and at {n} ones", lambda x, y: jnp.sum(1 / x) + jnp.sum(1 / y),
             fixed(np.append(1e-4, np.ones(n)), np.append(1e-4, np.ones(n))))
        for n in (2, 50)
    ),
    *(
        wrong(f"1/x at 1e-4 and at {n} ones, rule for the first element only", lambda x, y: jnp.sum(1 / x) + first_only(
            lambda y: jnp.sum(1 / y))(y), fixed(np.append(1e-4, np.ones(n)), np.append(1e-4, np.ones(n))))
        for n in (2, 50)
    ),
    Case("terms of 1e12, 1 and 1e-3", lambda r: jnp.sum(r**-12.0 - r**-6.0), fixed([0.1, 1.0, 3.0])),
    Case("a float32 array in the rule", above(0), fixed([100.0, 1.0, 2.0])),
    wrong("a float32 array in the rule, gradient 0 for small elements", above(50), fixed([100.0, 1.0, 2.0])),
    *(Case(f"sum of x^{p}", power_times(p, 1.0), fixed(X)) for p in (3, 4)),
    *(
        wrong(f"sum of x^{p}, gradient × {factor}", power_times(p, factor), fixed(X))
        for p in (3, 4)
        for factor in (1.00001, 1.001)
    ),
    *(wrong(f"the rule's value is {1 + off:g} times f", other_value(off), fixed(X)) for off in (1.0, 5e-5)),
    Case("the rule's value is f", other_value(0.0), fixed(X)),
    Case("the rule's value is off by 1e-5, rtol 1e-3", other_value(1e-5), fixed(X), options={"rtol": 1e-3}),
    wrong("a rule that always returns 3", always_3, fixed(1.0)),
    wrong("a rule that always returns 3, under vmap", lambda x: vmap(always_3)(x).sum(), fixed(np.arange(1.0, 5.0))),
    Case("a rule in a scan under vmap", scan_of_products, fixed(np.arange(6.0).reshape(3, 2), 0.9)),
    wrong("zero gradient for a sequence", without_sequence, fixed(np.arange(1.0, 6.0), 1.5)),
    wrong("gradient None for a factor", without_factor, fixed([1.0, 2.0], 3.0)),
    wrong("sine, slope at sin x, not at x", stale_sine, POINT),
    wrong("gradient reversal inside a layer", lambda w, x: jnp.sum(jnp.tanh(w @ reversal(x))),
          fixed(np.full((2, 3), 1 / 3), np.arange(3.0))),
    wrong("straight-through rounding inside a sum of squares",
          lambda x: jnp.sum((x - lax.stop_gradient(x - jnp.round(x))) ** 2), POINT),
    wrong("semi-gradient of a Q-learning loss", q_loss, fixed([0.3, -0.2])),
    Case("clip with a bound that is not reached", lambda x: bounded(x, 3.0), POINT),
    Case("fixed point, autodiff through the iteration", lambda a, b: lax.scan(lambda z, _: (jnp.tanh(a @ z + b), None),
         jnp.zeros_like(b), None, 60)[0], NETWORK),
    wrong("fixed point, gradient of the last step only", with_vjp(fixed_point, one_step), NETWORK),
    Case("root by bisection, implicit differentiation", with_vjp(bisection, implicit), fixed(2.0, 0.7)),
    Case("root by Newton's method, custom_root", by_newton, fixed(2.0, 0.7)),
    Case("solver with a tolerance of 1e-9", by_adjoint(1e-9), in_float64(SYSTEM),
         NOT_WRONG, settings=X64),
    Case("solver with a tolerance of 1e-9, rtol 1e-6", by_adjoint(1e-9), in_float64(SYSTEM), settings=X64,
         options={"rtol": 1e-6}),
    Case("solver with a tolerance of 1e-4", by_adjoint(1e-4), SYSTEM, NOT_RIGHT),
    wrong("solver with a tolerance of 1e-7, gradient × 1.03", by_adjoint(1e-7, 1.03), SYSTEM),
    Case("iteration in the rule, rtol 1e-3", with_vjp(lambda x: 0.5 * x, halved_by_iteration),
         in_float64(fixed([1.0, 2.0])), settings=X64, options={"rtol": 1e-3}),
    wrong("a rule that deviates from linearity by 1e-5", with_vjp(jnp.sin, slightly_bent), in_float64(POINT),
          settings=X64),
    Case("a rule that deviates from linearity by 1e-5, rtol 1e-3", with_vjp(jnp.sin, slightly_bent), in_float64(POINT),
         settings=X64, options={"rtol": 1e-3}),
    Case("modes that differ by 1e-5, rtol 1e-3", square, in_float64(fixed(V)), settings=X64, options={"rtol": 1e-3},
         vjp=lambda x: (square(x), lambda g: (2 * (1 - 5e-6) * x * g,)),
         jvp=lambda p, t: (square(p[0]), 2 * (1 + 5e-6) * p[0] @ t[0])),
    Case("circular convolutions under checkpoint", checkpointed_waves, normal((8,))),
    Case("holomorphic product", lambda z: jnp.exp(z) * z, fixed(Z)),
    Case("cube of a modulus plus a real part", lambda z: jnp.abs(z) ** 3 + jnp.real(z), fixed(Z)),
    Case("complex result of a real number", lambda x: x**2 + 1j * jnp.sin(x), fixed(0.7)),
    Case("irfft of length 4", lambda z: jnp.fft.irfft(z, 4), fixed([1 + 0.5j, -0.3 + 2j, 0.7 - 1j])),
    Case("squared modulus by rule", with_vjp(lambda z: jnp.sum(jnp.abs(z) ** 2), lambda z, g: (2 * g * jnp.conj(z),)),
         complex_normal((3,))),
    wrong("squared modulus by rule, conjugate missing", with_vjp(
        lambda z: jnp.sum(jnp.abs(z) ** 2), lambda z, g: (2 * g * z,)), complex_normal((3,))),
    Case("logaddexp of shapes (2,) and ()", lambda y, z: jnp.sum(vmap(lambda y: jnp.logaddexp(
        z, jnp.sum(y) + z))(y)), fixed(np.ones((3, 2)), 0.1)),
)  # fmt: skip
