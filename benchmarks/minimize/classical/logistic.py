"""Logistic regression on the breast-cancer data of scikit-learn: raw, and with standardized features."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from benchmarks.case import Case, Options
from benchmarks.minimize.classical.minimizers import quick_compilation, runs
from benchmarks.minimize.classical.table import end_rows
from benchmarks.minimize.problems import is_installed
from benchmarks.rows import Row

NAME = "minimize-logistic"


class Logistic(NamedTuple):
    """A logistic regression as a problem of minimization.

    Attributes:
        cost: C(v) = 1/n (Σ log(1 + exp(−yᵢzᵢ)) + ½‖w‖²), with zᵢ = w·xᵢ + b, v = (w, b) and yᵢ = ±1. This is the
            default cost of scikit-learn's LogisticRegression, divided by the number n of examples.
        start: All zeros.
        minima: The lowest value of C, which is its only minimum.
    """

    cost: Callable[[Array], Array]
    start: NDArray[Any]
    minima: tuple[float, ...]


def lowest(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return the minimum of C by Newton's method in NumPy, with the exact Hessian."""
    n, features = x.shape
    x1, penalty = np.hstack([x, np.ones((n, 1))]), np.append(np.ones(features), 0)

    def value(v: NDArray[Any]) -> float:
        return float((np.logaddexp(0, -y * (x1 @ v)).sum() + penalty @ v**2 / 2) / n)

    v = np.zeros(features + 1)
    for _ in range(100):
        share = 1 / (1 + np.exp(np.clip(y * (x1 @ v), -700, 700)))
        gradient = -x1.T @ (y * share) + penalty * v
        hessian = (x1.T * (share * (1 - share))) @ x1 + np.diag(penalty)
        step = -np.linalg.solve(hessian, gradient)
        while value(v + step) > value(v) + 1e-15 and abs(step).max() > 1e-14 * abs(v).max():
            step = step / 2
        v = v + step
    return value(v)


def regression(x: NDArray[Any], y: NDArray[Any]) -> Logistic:
    """Return the regression on examples x (n, features) with classes y (n,) of ±1."""

    def cost(v: Array) -> Array:
        z = jnp.asarray(x, v.dtype) @ v[:-1] + v[-1]
        return (jnp.sum(jnp.logaddexp(0, -jnp.asarray(y, v.dtype) * z)) + jnp.sum(v[:-1] ** 2) / 2) / len(y)

    return Logistic(cost, np.zeros(x.shape[1] + 1), (lowest(x, y),))


def breast_cancer(standardized: bool) -> Logistic:
    """Return the regression on the 569 examples. The maxima of the 30 raw features range from 0.03 to 4,254."""
    import sklearn.datasets

    x, classes = sklearn.datasets.load_breast_cancer(return_X_y=True)
    if standardized:
        x = (x - x.mean(0)) / x.std(0)
    return regression(x, 2.0 * classes - 1)


def measure(options: Options) -> Iterator[Row]:
    """Yield the evaluations of each minimizer on raw and on standardized features."""
    for name in ("raw", "standardized") if is_installed("sklearn") else ():
        problem = breast_cancer(name == "standardized")
        with quick_compilation():
            ends = runs(problem)
        yield from end_rows(f"{NAME}/{name}", problem, ends)


CASES = (
    Case(NAME, "minimize", "logistic regression, breast-cancer data, until C is within 1e-8 of the minimum", measure),
)
