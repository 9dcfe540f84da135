"""Classical problems of two to six variables that are given by a formula without measured data."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.minimize.classical.problem import MGH, Problem, constant


def rosenbrock(v: Array) -> Array:
    """Return r = (10 (v₂ − v₁²), 1 − v₁): a narrow, bent valley. Rosenbrock (1960)."""
    return jnp.stack([10 * (v[1] - v[0] ** 2), 1 - v[0]])


def freudenstein_roth(v: Array) -> Array:
    """Return r = (−13 + v₁ + ((5 − v₂)v₂ − 2)v₂, −29 + v₁ + ((v₂ + 1)v₂ − 14)v₂). Freudenstein and Roth (1963)."""
    x, y = v[0], v[1]
    return jnp.stack([-13 + x + ((5 - y) * y - 2) * y, -29 + x + ((y + 1) * y - 14) * y])


def powell_badly_scaled(v: Array) -> Array:
    """Return r = (10⁴v₁v₂ − 1, exp(−v₁) + exp(−v₂) − 1.0001). Powell (1970)."""
    return jnp.stack([1e4 * v[0] * v[1] - 1, jnp.exp(-v[0]) + jnp.exp(-v[1]) - 1.0001])


def brown_badly_scaled(v: Array) -> Array:
    """Return r = (v₁ − 10⁶, v₂ − 2·10⁻⁶, v₁v₂ − 2). Brown, unpublished, in MGH."""
    return jnp.stack([v[0] - 1e6, v[1] - 2e-6, v[0] * v[1] - 2])


def beale(v: Array) -> Array:
    """Return rᵢ = yᵢ − v₁(1 − v₂ⁱ) for i from 1 to 3, with y = (1.5, 2.25, 2.625). Beale (1958)."""
    return constant([1.5, 2.25, 2.625], v) - v[0] * (1 - jnp.stack([v[1], v[1] ** 2, v[1] ** 3]))


def jennrich_sampson(v: Array) -> Array:
    """Return rᵢ = 2 + 2i − (exp(iv₁) + exp(iv₂)) for i from 1 to 10. Jennrich and Sampson (1968)."""
    i = constant(np.arange(1, 11), v)
    return 2 + 2 * i - (jnp.exp(i * v[0]) + jnp.exp(i * v[1]))


def helical_valley(v: Array) -> Array:
    """Return r = (10 (v₃ − 10θ), 10 (√(v₁² + v₂²) − 1), v₃), with 2πθ the angle of (v₁, v₂). Fletcher, Powell (1963).

    θ is between −¼ and ¾. Its jump is at v₁ = 0, v₂ < 0, so that C is smooth around the start.
    """
    theta = 0.25 + jnp.arctan2(-v[0], v[1]) / (2 * np.pi)
    return jnp.stack([10 * (v[2] - 10 * theta), 10 * (jnp.hypot(v[0], v[1]) - 1), v[2]])


def gulf(v: Array) -> Array:
    """Return rᵢ = exp(−|yᵢ − v₂|^v₃ / v₁) − tᵢ, with tᵢ = i/100 and yᵢ = 25 + (−50 log tᵢ)^⅔. Cox (1969).

    i is from 1 to 99: for i = 100, yᵢ = v₂ at the minimum, and the power has no second derivative there.
    """
    t = np.arange(1, 100) / 100
    y = constant(25 + (-50 * np.log(t)) ** (2 / 3), v)
    return jnp.exp(-(jnp.abs(y - v[1]) ** v[2]) / v[0]) - constant(t, v)


def box(v: Array) -> Array:
    """Return rᵢ = exp(−tᵢv₁) − exp(−tᵢv₂) − v₃(exp(−tᵢ) − exp(−10tᵢ)), with tᵢ = i/10, i from 1 to 10. Box (1966)."""
    t = np.arange(1, 11) / 10
    s, fixed = constant(t, v), constant(np.exp(-t) - np.exp(-10 * t), v)
    return jnp.exp(-s * v[0]) - jnp.exp(-s * v[1]) - v[2] * fixed


def brown_dennis(v: Array) -> Array:
    """Return rᵢ = (v₁ + tᵢv₂ − exp tᵢ)² + (v₃ + v₄ sin tᵢ − cos tᵢ)², with tᵢ = i/5, i from 1 to 20.

    Brown and Dennis (1971).
    """
    t = np.arange(1, 21) / 5
    s, e, sine, cosine = (constant(x, v) for x in (t, np.exp(t), np.sin(t), np.cos(t)))
    return (v[0] + s * v[1] - e) ** 2 + (v[2] + v[3] * sine - cosine) ** 2


def zakharov(v: Array) -> Array:
    """Return r = (v, s, s²), with s = Σ i vᵢ/2, so C = ‖v‖² + s² + s⁴. Jamil and Yang (2013), function 173."""
    s = jnp.sum(constant(np.arange(1, v.size + 1) / 2, v) * v)
    return jnp.concatenate([v, jnp.stack([s, s**2])])


FEW = (
    Problem("rosenbrock", rosenbrock, (-1.2, 1), (0.0,), (0.0,), ((1, 1),), f"{MGH} 1"),
    Problem(
        "freudenstein-roth", freudenstein_roth, (0.5, -2), (0.0, 48.9842), (0.0, 48.98425367924), ((5, 4),), f"{MGH} 2"
    ),
    Problem(
        "powell-badly-scaled", powell_badly_scaled, (0, 1), (0.0,), (0.0,),
        ((1.0981593296997e-5, 9.1061467398664),), f"{MGH} 3",
    ),
    Problem("brown-badly-scaled", brown_badly_scaled, (1, 1), (0.0,), (0.0,), ((1e6, 2e-6),), f"{MGH} 4"),
    Problem("beale", beale, (1, 1), (0.0,), (0.0,), ((3, 0.5),), f"{MGH} 5"),
    Problem(
        "jennrich-sampson", jennrich_sampson, (0.3, 0.4), (124.362,), (124.36218235561,), ((0.2578, 0.2578),),
        f"{MGH} 6",
    ),
    Problem("helical-valley", helical_valley, (-1, 0, 0), (0.0,), (0.0,), ((1, 0, 0),), f"{MGH} 7"),
    Problem("gulf", gulf, (5, 2.5, 0.15), (0.0,), (0.0,), ((50, 25, 1.5),), f"{MGH} 11"),
    Problem("box", box, (0, 10, 20), (0.0,), (0.0,), ((1, 10, 1), (10, 1, -1), (3, 3, 0)), f"{MGH} 12"),
    Problem("brown-dennis", brown_dennis, (25, 5, -5, -1), (85822.2,), (85822.201626357,), (), f"{MGH} 16"),
    Problem(
        "zakharov-6", zakharov, (600, 700, 200, 100, 90, 1e4), (0.0,), (0.0,), ((0,) * 6,),
        "Jamil and Yang, Int. J. Math. Model. Numer. Optim. 4 (2013) 150–194, function 173; a start far away",
    ),
)  # fmt: skip
