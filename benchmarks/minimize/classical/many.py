"""Classical problems whose number n of variables can be chosen. The problems in EXTENDED have n = 100 and n = 1,000."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.minimize.classical.problem import MGH, Numbers, Problem, constant


def numbers(v: Array) -> Array:
    """Return 1, …, n in the dtype of v."""
    return constant(np.arange(1, v.size + 1), v)


def padded(v: Array, before: int, after: int) -> Array:
    """Return v with `before` zeros before it and `after` zeros after it."""
    return jnp.concatenate([jnp.zeros(before, v.dtype), v, jnp.zeros(after, v.dtype)])


def extended_rosenbrock(v: Array) -> Array:
    """Return, for each pair (a, b) of variables, 10 (b − a²) and 1 − a. Spedicato (1975)."""
    a, b = v.reshape(-1, 2).T
    return jnp.concatenate([10 * (b - a**2), 1 - a])


def powell_singular(v: Array) -> Array:
    """Return, for each group (a, b, c, d) of variables, a + 10b, √5 (c − d), (b − 2c)² and √10 (a − d)².

    The Hessian is singular at the minimum. Spedicato (1975).
    """
    a, b, c, d = v.reshape(-1, 4).T
    return jnp.concatenate([a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2])


def wood(v: Array) -> Array:
    """Return, for each group (a, b, c, d) of variables, the residuals of Wood's function. Colville (1968).

    The residuals are 10 (b − a²), 1 − a, √90 (d − c²), 1 − c, √10 (b + d − 2) and (b − d)/√10.
    """
    a, b, c, d = v.reshape(-1, 4).T
    bent = [10 * (b - a**2), 1 - a, 90**0.5 * (d - c**2), 1 - c]
    return jnp.concatenate([*bent, 10**0.5 * (b + d - 2), 10**-0.5 * (b - d)])


def penalty_1(v: Array) -> Array:
    """Return r = (√10⁻⁵ (v − 1), ‖v‖² − ¼). Gill, Murray and Pitfield (1972)."""
    return padded(1e-5**0.5 * (v - 1), 0, 1).at[-1].set(jnp.sum(v**2) - 0.25)


def penalty_2(v: Array) -> Array:
    """Return the 2n residuals of the second penalty function. Gill, Murray and Pitfield (1972).

    The residuals are v₁ − 0.2; √10⁻⁵ (exp(vᵢ/10) + exp(vᵢ₋₁/10) − exp(i/10) − exp((i − 1)/10)) for i from 2 to n;
    √10⁻⁵ (exp(vᵢ/10) − exp(−1/10)) for i from 2 to n; and Σ (n − i + 1)vᵢ² − 1.
    """
    e, i = jnp.exp(v / 10), np.arange(2, v.size + 1)
    y = constant(np.exp(i / 10) + np.exp((i - 1) / 10), v)
    last = jnp.sum(numbers(v)[::-1] * v**2) - 1
    small = jnp.concatenate([e[1:] + e[:-1] - y, e[1:] - np.exp(-0.1)])
    return jnp.concatenate([v[:1] - 0.2, 1e-5**0.5 * small, last[None]])


def variably_dimensioned(v: Array) -> Array:
    """Return r = (v − 1, s, s²), with s = Σ i (vᵢ − 1). Defined in MGH."""
    s = jnp.sum(numbers(v) * (v - 1))
    return jnp.concatenate([v - 1, jnp.stack([s, s**2])])


def trigonometric(v: Array) -> Array:
    """Return rᵢ = n − Σ cos vⱼ + i (1 − cos vᵢ) − sin vᵢ. Spedicato (1975)."""
    return v.size - jnp.sum(jnp.cos(v)) + numbers(v) * (1 - jnp.cos(v)) - jnp.sin(v)


def brown_almost_linear(v: Array) -> Array:
    """Return rᵢ = vᵢ + Σ vⱼ − (n + 1) for i below n, and rₙ = Π vⱼ − 1. Brown (1969)."""
    return jnp.concatenate([v[:-1] + jnp.sum(v) - (v.size + 1), jnp.prod(v)[None] - 1])


def boundary_value(v: Array) -> Array:
    """Return rᵢ = 2vᵢ − vᵢ₋₁ − vᵢ₊₁ + h²(vᵢ + tᵢ + 1)³/2, with h = 1/(n + 1), tᵢ = ih. Moré and Cosnard (1979).

    v₀ = vₙ₊₁ = 0. The equations are a difference scheme for a boundary value problem.
    """
    h, z = 1 / (v.size + 1), padded(v, 1, 1)
    return 2 * v - z[:-2] - z[2:] + h**2 / 2 * (v + h * numbers(v) + 1) ** 3


def integral_equation(v: Array) -> Array:
    """Return the residuals of a discrete integral equation. Moré and Cosnard (1979).

    rᵢ = vᵢ + h/2 ((1 − tᵢ) Σ tⱼcⱼ + tᵢ Σ (1 − tⱼ)cⱼ), with cⱼ = (vⱼ + tⱼ + 1)³, h = 1/(n + 1) and tⱼ = jh. The first
    sum is over j ≤ i, and the second over j > i.
    """
    h = 1 / (v.size + 1)
    t = h * numbers(v)
    c = (v + t + 1) ** 3
    upper = jnp.cumsum(((1 - t) * c)[::-1])[::-1] - (1 - t) * c
    return v + h / 2 * ((1 - t) * jnp.cumsum(t * c) + t * upper)


def broyden_tridiagonal(v: Array) -> Array:
    """Return rᵢ = (3 − 2vᵢ)vᵢ − vᵢ₋₁ − 2vᵢ₊₁ + 1, with v₀ = vₙ₊₁ = 0. Broyden (1965)."""
    z = padded(v, 1, 1)
    return (3 - 2 * v) * v - z[:-2] - 2 * z[2:] + 1


def broyden_banded(v: Array) -> Array:
    """Return rᵢ = vᵢ(2 + 5vᵢ²) + 1 − Σ vⱼ(1 + vⱼ), over j ≠ i from i − 5 to i + 1. Broyden (1971)."""
    u = padded(v * (1 + v), 5, 1)
    return v * (2 + 5 * v**2) + 1 - sum(u[k : k + v.size] for k in range(7) if k != 5)


def linear_full_rank(v: Array) -> Array:
    """Return rᵢ = vᵢ − 2/m Σ vⱼ − 1 for i ≤ n, and rᵢ = −2/m Σ vⱼ − 1 for i from n + 1 to m = 2n. Defined in MGH."""
    return padded(v, 0, v.size) - jnp.sum(v) / v.size - 1


def linear_rank_1(v: Array) -> Array:
    """Return rᵢ = i Σ j vⱼ − 1, with i from 1 to m = 2n. Defined in MGH. The minima fill a hyperplane."""
    return constant(np.arange(1, 2 * v.size + 1), v) * jnp.sum(numbers(v) * v) - 1


def linear_rank_1_zeros(v: Array) -> Array:
    """Return rᵢ = (i − 1) Σ j vⱼ − 1 for i below m = 2n, and rₘ = −1. Defined in MGH.

    The sum is over j from 2 to n − 1.
    """
    i = np.arange(2 * v.size)
    return constant(np.where(i < i[-1], i, 0), v) * jnp.sum(numbers(v)[1:-1] * v[1:-1]) - 1


def chebyquad(v: Array) -> Array:
    """Return rᵢ = mean of Tᵢ(2vⱼ − 1) over j, minus the integral of Tᵢ(2t − 1) from 0 to 1. Fletcher (1965).

    Tᵢ is Chebyshev's polynomial, and i is from 1 to n. The integral is −1/(i² − 1) for even i, and 0 for odd i.
    """
    x = 2 * v - 1
    before, now, means = jnp.ones_like(x), x, []
    for i in range(1, v.size + 1):
        means.append(jnp.mean(now) + (0 if i % 2 else 1 / (i**2 - 1)))
        before, now = now, 2 * x * now - before
    return jnp.stack(means)


def lowest_penalty_1(n: int) -> tuple[float, list[float]]:
    """Return the lowest value of the first penalty function, and the point at which C has this value.

    At ∇C = 0, all variables have one value t, with a(t − 1) + 2t(nt² − ¼) = 0 and a = 10⁻⁵. The lowest value
    is at the largest root t.
    """
    t = max(float(x.real) for x in np.roots([2 * n, 0, 1e-5 - 0.5, -1e-5]) if abs(x.imag) < 1e-9)
    return 1e-5 * n * (t - 1) ** 2 + (n * t**2 - 0.25) ** 2, [t] * n


def _grid(n: int) -> Numbers:
    t = np.arange(1, n + 1) / (n + 1)
    return t * (t - 1)


def _repeated(*values: float) -> Callable[[int], Numbers]:
    return lambda n: np.resize(values, n)


def _brown(n: int) -> list[float]:
    """Return the point (α, …, α, α¹⁻ⁿ) with nαⁿ − (n + 1)αⁿ⁻¹ + 1 = 0 and α < 1."""
    roots = np.roots([n, -(n + 1), *[0] * (n - 2), 1])
    alpha = max(float(x.real) for x in roots if abs(x.imag) < 1e-9 and x.real < 1 - 1e-9)
    return [alpha] * (n - 1) + [alpha ** (1 - n)]


# For each problem: its residuals, its start for n variables, a point with C = 0 (None if unknown), its number in MGH.
_ZERO: dict[str, tuple[Callable[[Array], Array], Callable[[int], Numbers], Callable[[int], Numbers] | None, int]] = {
    "rosenbrock": (extended_rosenbrock, _repeated(-1.2, 1), _repeated(1), 21),
    "powell-singular": (powell_singular, _repeated(3, -1, 0, 1), _repeated(0), 22),
    "wood": (wood, _repeated(-3, -1, -3, -1), _repeated(1), 14),
    "variably-dimensioned": (variably_dimensioned, lambda n: 1 - np.arange(1, n + 1) / n, _repeated(1), 25),
    "trigonometric": (trigonometric, lambda n: np.full(n, 1 / n), _repeated(0), 26),
    "brown-almost-linear": (brown_almost_linear, _repeated(0.5), _brown, 27),
    "boundary-value": (boundary_value, _grid, None, 28),
    "integral-equation": (integral_equation, _grid, None, 29),
    "broyden-tridiagonal": (broyden_tridiagonal, _repeated(-1), None, 30),
    "broyden-banded": (broyden_banded, _repeated(-1), None, 31),
    "chebyquad": (chebyquad, lambda n: np.arange(1, n + 1) / (n + 1), None, 35),
}


def zero(name: str, n: int, *others: float) -> Problem:
    """Return the problem `name` of _ZERO with n variables. C is 0 or one of `others` at its minima."""
    residuals, start, point, number = _ZERO[name]
    points = () if point is None else (point(n),)
    minima = (0.0, *others)
    return Problem(f"{name}-{n}", residuals, start(n), minima, minima, points, f"{MGH} {number}")


def penalty(n: int, published: float | None = None) -> Problem:
    """Return the first penalty function with n variables. MGH lists no minimum for n above 10."""
    value, point = lowest_penalty_1(n)
    known = value if published is None else published
    return Problem(f"penalty-1-{n}", penalty_1, np.arange(1.0, n + 1), (known,), (value,), (point,), f"{MGH} 23")


STANDARD = (
    zero("powell-singular", 4),
    zero("wood", 4),
    penalty(4, 2.24997e-5),
    penalty(10, 7.08765e-5),
    Problem("penalty-2-4", penalty_2, (0.5,) * 4, (9.37629e-6,), (9.3762930073554e-6,), (), f"{MGH} 24"),
    Problem("penalty-2-10", penalty_2, (0.5,) * 10, (2.93660e-4,), (2.9366053745675e-4,), (), f"{MGH} 24"),
    zero("variably-dimensioned", 10),
    # MGH does not list the second minimum, at which most minimizers end.
    zero("trigonometric", 10, 2.795056121879e-5),
    zero("brown-almost-linear", 10, 1.0),
    zero("boundary-value", 10),
    zero("integral-equation", 10),
    zero("broyden-tridiagonal", 10),
    zero("broyden-banded", 10),
    Problem("linear-full-rank-10", linear_full_rank, (1,) * 10, (10.0,), (10.0,), ((-1,) * 10,), f"{MGH} 32"),
    # The minimum of linear-rank-1 is m(m − 1)/(2(2m + 1)). The minimum of linear-rank-1-zeros is
    # (m² + 3m − 6)/(2(2m − 3)). In both, m = 20.
    Problem("linear-rank-1-10", linear_rank_1, (1,) * 10, (380 / 82,), (380 / 82,), (), f"{MGH} 33"),
    Problem("linear-rank-1-zeros-10", linear_rank_1_zeros, (1,) * 10, (454 / 74,), (454 / 74,), (), f"{MGH} 34"),
    Problem("chebyquad-8", chebyquad, np.arange(1, 9) / 9, (3.51687e-3,), (3.5168737256779e-3,), (), f"{MGH} 35"),
    zero("chebyquad", 9),
    Problem("chebyquad-10", chebyquad, np.arange(1, 11) / 11, (6.50395e-3,), (6.5039548008823e-3,), (), f"{MGH} 35"),
)
_EXTENDED = (
    "rosenbrock", "powell-singular", "wood", "variably-dimensioned", "trigonometric", "boundary-value",
    "integral-equation", "broyden-tridiagonal", "broyden-banded",
)  # fmt: skip
EXTENDED = (
    *(zero(name, n) for n in (100, 1_000) for name in _EXTENDED),
    penalty(100),
    penalty(1_000),
)
