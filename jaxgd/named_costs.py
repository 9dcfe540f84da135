"""Test costs from the literature, each with its usual start and its known minima.

A cost takes one array (n,) and returns a scalar. Sums of squares have no factor ½ and no mean.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

Cost = Callable[[Float[Array, " n"]], Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class NamedCost:
    """A test cost with its usual start, its known minima and its source.

    Attributes:
        cost: The function of one array (n,).
        start: The usual start of a descent, n numbers.
        minima: The known minima, each as (v, C).
        source: The book or paper that defines the cost.
    """

    cost: Cost
    start: tuple[float, ...]
    minima: tuple[tuple[tuple[float, ...], float], ...]
    source: str


def valley(v: Float[Array, "2"]) -> Float[Array, ""]:
    """Return the book's valley: v₁² + v₂².

    >>> print(valley(jnp.array([1.0, 1.0])))
    2.0
    """
    return v[0] ** 2 + v[1] ** 2


def rosenbrock(v: Float[Array, "2"]) -> Float[Array, ""]:
    """Return Rosenbrock's narrow, bent valley: 100 (v₂ − v₁²)² + (1 − v₁)².

    >>> print(f"{rosenbrock(jnp.array([-1.2, 1.0])):.4f}")
    24.2000
    """
    return 100 * (v[1] - v[0] ** 2) ** 2 + (1 - v[0]) ** 2


def beale(v: Float[Array, "2"]) -> Float[Array, ""]:
    """Return Beale's function, which has a flat region between steep walls.

    Σᵢ (yᵢ − v₁(1 − v₂ⁱ))² for i from 1 to 3, with y = 1.5, 2.25, 2.625.

    >>> print(beale(jnp.array([1.0, 1.0])))
    14.203125
    """
    y = jnp.array([1.5, 2.25, 2.625], v.dtype)
    powers = jnp.stack([v[1], v[1] ** 2, v[1] ** 3])
    return jnp.sum((y - v[0] * (1 - powers)) ** 2)


def freudenstein_roth(v: Float[Array, "2"]) -> Float[Array, ""]:
    """Return the function of Freudenstein and Roth. Descents from its usual start often end at the higher minimum.

    (−13 + v₁ + ((5 − v₂) v₂ − 2) v₂)² + (−29 + v₁ + ((v₂ + 1) v₂ − 14) v₂)².

    >>> print(freudenstein_roth(jnp.array([0.5, -2.0])))
    400.5
    """
    x, y = v[0], v[1]
    return (-13 + x + ((5 - y) * y - 2) * y) ** 2 + (-29 + x + ((y + 1) * y - 14) * y) ** 2


def powell_singular(v: Float[Array, "4"]) -> Float[Array, ""]:
    """Return Powell's function, which is flat at its minimum: the Hessian is singular there.

    (v₁ + 10v₂)² + 5 (v₃ − v₄)² + (v₂ − 2v₃)⁴ + 10 (v₁ − v₄)⁴.

    >>> print(powell_singular(jnp.array([3.0, -1.0, 0.0, 1.0])))
    215.0
    """
    a, b, c, d = v[0], v[1], v[2], v[3]
    return (a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4


def himmelblau(v: Float[Array, "2"]) -> Float[Array, ""]:
    """Return Himmelblau's function, with four minima of equal depth: (v₁² + v₂ − 11)² + (v₁ + v₂² − 7)².

    >>> print(himmelblau(jnp.array([3.0, 2.0])))
    0.0
    """
    return (v[0] ** 2 + v[1] - 11) ** 2 + (v[0] + v[1] ** 2 - 7) ** 2


_MORE = "Moré, Garbow and Hillstrom, ACM Trans. Math. Softw. 7 (1981) 17–41"

NAMED_COSTS = {
    "valley": NamedCost(valley, (1.0, 1.0), (((0.0, 0.0), 0.0),), "Nielsen, chapter 1"),
    "rosenbrock": NamedCost(rosenbrock, (-1.2, 1.0), (((1.0, 1.0), 0.0),), _MORE),
    "beale": NamedCost(beale, (1.0, 1.0), (((3.0, 0.5), 0.0),), _MORE),
    "freudenstein-roth": NamedCost(
        freudenstein_roth, (0.5, -2.0), (((5.0, 4.0), 0.0), ((11.4128, -0.89681), 48.98425)), _MORE
    ),
    "powell-singular": NamedCost(powell_singular, (3.0, -1.0, 0.0, 1.0), (((0.0,) * 4, 0.0),), _MORE),
    "himmelblau": NamedCost(
        himmelblau,
        (0.0, 0.0),
        tuple((v, 0.0) for v in ((3.0, 2.0), (-2.805118, 3.131313), (-3.77931, -3.283186), (3.584428, -1.848127))),
        "Himmelblau, Applied Nonlinear Programming (1972)",
    ),
}
