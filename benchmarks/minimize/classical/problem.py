"""A problem of least squares with its standard start and its published minima."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

Numbers = Sequence[float] | NDArray[Any]

# MGH is the paper that collects and numbers most of the problems.
MGH = "Moré, Garbow and Hillstrom, ACM Trans. Math. Softw. 7 (1981) 17–41, problem"


class Task(Protocol):
    """A cost to minimize, its start and the values of C at its minima."""

    @property
    def cost(self) -> Callable[[Array], Array]: ...

    @property
    def start(self) -> Numbers: ...

    @property
    def minima(self) -> tuple[float, ...]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A cost C(v) = Σ rᵢ(v)² with its standard start and its minima.

    Attributes:
        name: Name of the problem, with the number of variables where it varies.
        residuals: The function r of one array (n,) that returns one array (m,).
        start: The standard start, n numbers.
        published: The values of C at its minima, with the digits of the source. If the source lists none, they are
            computed.
        minima: The same values, exact or with at least ten digits.
        points: Known points v with C ≈ minima[0]; empty if none is known.
        source: The paper that defines the problem, and the number of the problem in it.
    """

    name: str
    residuals: Callable[[Array], Array]
    start: Numbers
    published: tuple[float, ...]
    minima: tuple[float, ...]
    points: tuple[Numbers, ...]
    source: str

    @functools.cached_property
    def cost(self) -> Callable[[Array], Array]:
        """The function C of one array (n,). It is one object, so it compiles once."""
        return lambda v: jnp.sum(jnp.square(self.residuals(v)))


def constant(values: Numbers, v: Array) -> Array:
    """Return numbers as an array of the dtype of v."""
    return jnp.asarray(np.asarray(values, float), v.dtype)
