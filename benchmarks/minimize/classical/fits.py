"""Classical problems that fit a model. Measured data are from MGH, which problem.py defines."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.minimize.classical.problem import MGH, Problem, constant

# The values yᵢ of the problems with data, as integers times a power of ten. KOWALIK_U has the values uᵢ.
BARD = np.array([14, 18, 22, 25, 29, 32, 35, 39, 37, 58, 73, 96, 134, 210, 439]) / 100
GAUSSIAN = np.array([9, 44, 175, 540, 1295, 2420, 3521, 3989, 3521, 2420, 1295, 540, 175, 44, 9]) / 1e4
MEYER = np.array(
    [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]
)
KOWALIK = np.array([1957, 1947, 1735, 1600, 844, 627, 456, 342, 323, 235, 246]) / 1e4
KOWALIK_U = np.array([4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625])
OSBORNE_1 = np.array(
    [844, 908, 932, 936, 925, 908, 881, 850, 818, 784, 751, 718, 685, 658, 628, 603, 580, 558, 538, 522, 506, 490, 478,
     467, 457, 448, 438, 431, 424, 420, 414, 411, 406]
) / 1e3  # fmt: skip
OSBORNE_2 = np.array(
    [1366, 1191, 1112, 1013, 991, 885, 831, 847, 786, 725, 746, 679, 608, 655, 616, 606, 602, 626, 651, 724, 649, 649,
     694, 644, 624, 661, 612, 558, 533, 495, 500, 423, 395, 375, 372, 391, 396, 405, 428, 429, 523, 562, 607, 653, 672,
     708, 633, 668, 645, 632, 591, 559, 597, 625, 739, 710, 729, 720, 636, 581, 428, 292, 162, 98, 54]
) / 1e3  # fmt: skip


def bard(v: Array) -> Array:
    """Return rᵢ = yᵢ − (v₁ + i/((16 − i)v₂ + min(i, 16 − i)v₃)) for i from 1 to 15. Bard (1970)."""
    i = np.arange(1, 16)
    u, w, least = (constant(x, v) for x in (i, 16 - i, np.minimum(i, 16 - i)))
    return constant(BARD, v) - (v[0] + u / (w * v[1] + least * v[2]))


def gaussian(v: Array) -> Array:
    """Return rᵢ = v₁ exp(−v₂(tᵢ − v₃)²/2) − yᵢ, with tᵢ = (8 − i)/2, i from 1 to 15. Defined in MGH."""
    t = constant((8 - np.arange(1, 16)) / 2, v)
    return v[0] * jnp.exp(-v[1] * (t - v[2]) ** 2 / 2) - constant(GAUSSIAN, v)


def meyer(v: Array) -> Array:
    """Return rᵢ = v₁ exp(v₂/(tᵢ + v₃)) − yᵢ, with tᵢ = 45 + 5i, i from 1 to 16. Meyer (1970)."""
    t = constant(45 + 5 * np.arange(1, 17), v)
    return v[0] * jnp.exp(v[1] / (t + v[2])) - constant(MEYER, v)


def kowalik_osborne(v: Array) -> Array:
    """Return rᵢ = yᵢ − v₁(uᵢ² + uᵢv₂)/(uᵢ² + uᵢv₃ + v₄) for i from 1 to 11. Kowalik and Osborne (1968)."""
    u = constant(KOWALIK_U, v)
    return constant(KOWALIK, v) - v[0] * (u**2 + u * v[1]) / (u**2 + u * v[2] + v[3])


def osborne_1(v: Array) -> Array:
    """Return rᵢ = yᵢ − (v₁ + v₂ exp(−tᵢv₄) + v₃ exp(−tᵢv₅)), with tᵢ = 10 (i − 1), i from 1 to 33. Osborne (1972)."""
    t = constant(10 * np.arange(33), v)
    return constant(OSBORNE_1, v) - (v[0] + v[1] * jnp.exp(-t * v[3]) + v[2] * jnp.exp(-t * v[4]))


def biggs_exp6(v: Array) -> Array:
    """Return rᵢ = v₃ exp(−tᵢv₁) − v₄ exp(−tᵢv₂) + v₆ exp(−tᵢv₅) − yᵢ, with tᵢ = i/10, i from 1 to 13. Biggs (1971).

    yᵢ = exp(−tᵢ) − 5 exp(−10tᵢ) + 3 exp(−4tᵢ).
    """
    s = np.arange(1, 14) / 10
    t, y = constant(s, v), constant(np.exp(-s) - 5 * np.exp(-10 * s) + 3 * np.exp(-4 * s), v)
    return v[2] * jnp.exp(-t * v[0]) - v[3] * jnp.exp(-t * v[1]) + v[5] * jnp.exp(-t * v[4]) - y


def osborne_2(v: Array) -> Array:
    """Return rᵢ = yᵢ − v₁ exp(−tᵢv₅) − Σₖ vₖ exp(−(tᵢ − vₖ₊₇)² vₖ₊₄), k = 2, 3, 4. Osborne (1972).

    tᵢ = (i − 1)/10, and i is from 1 to 65.
    """
    t = constant(np.arange(65) / 10, v)
    peaks = sum(v[k] * jnp.exp(-((t - v[k + 7]) ** 2) * v[k + 4]) for k in (1, 2, 3))
    return constant(OSBORNE_2, v) - v[0] * jnp.exp(-t * v[4]) - peaks


def watson(v: Array) -> Array:
    """Return rᵢ = Σ (j − 1)vⱼtᵢʲ⁻² − (Σ vⱼtᵢʲ⁻¹)² − 1, with tᵢ = i/29, i from 1 to 29. Kowalik and Osborne (1968).

    The last two residuals are r₃₀ = v₁ and r₃₁ = v₂ − v₁² − 1.
    """
    t, j = np.arange(1, 30)[:, None] / 29, np.arange(v.size)
    powers, slopes = t**j, j[1:] * t ** (j[1:] - 1)
    fitted = constant(slopes, v) @ v[1:] - (constant(powers, v) @ v) ** 2 - 1
    return jnp.concatenate([fitted, jnp.stack([v[0], v[1] - v[0] ** 2 - 1])])


FITS = (
    Problem("bard", bard, (1, 1, 1), (8.21487e-3,), (8.214877306579e-3,), (), f"{MGH} 8"),
    Problem("gaussian", gaussian, (0.4, 1, 0), (1.12793e-8,), (1.127932769619e-8,), (), f"{MGH} 9"),
    Problem("meyer", meyer, (0.02, 4000, 250), (87.9458,), (87.945855170674,), (), f"{MGH} 10"),
    Problem(
        "kowalik-osborne", kowalik_osborne, (0.25, 0.39, 0.415, 0.39), (3.07505e-4,), (3.0750560384924e-4,), (),
        f"{MGH} 15",
    ),
    Problem("osborne-1", osborne_1, (0.5, 1.5, -1, 0.01, 0.02), (5.46489e-5,), (5.4648946974826e-5,), (), f"{MGH} 17"),
    Problem(
        # MGH also lists C = 5.65565e-3, at a saddle point: C falls in the direction e₁ − e₅.
        "biggs-exp6", biggs_exp6, (1, 2, 1, 1, 1, 1), (0.0,), (0.0,), ((1, 10, 1, 5, 4, 3),), f"{MGH} 18",
    ),
    Problem(
        "osborne-2", osborne_2, (1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5), (4.01377e-2,),
        (4.0137736293548e-2,), (), f"{MGH} 19",
    ),
    Problem("watson-6", watson, (0,) * 6, (2.28767e-3,), (2.2876700535523e-3,), (), f"{MGH} 20"),
    Problem("watson-9", watson, (0,) * 9, (1.39976e-6,), (1.3997601380943e-6,), (), f"{MGH} 20"),
    Problem("watson-12", watson, (0,) * 12, (4.72238e-10,), (4.7223811040787e-10,), (), f"{MGH} 20"),
)  # fmt: skip
