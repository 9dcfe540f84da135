"""Random directions, cotangents and points of a check, and the sizes that scale them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from jaxgd.gradcheck.problem import Numbers
from jaxgd.gradcheck.quotients import Floats
from jaxgd.gradcheck.run import eps_of
from jaxgd.mesh.processes import on_host
from jaxgd.typed import finfo

# `cotangents` assumes that each element changes by at least this fraction of the output's largest element or change.
_SMALL = 1e-5


def directions(x: NDArray[Any], n: int, rng: np.random.Generator) -> NDArray[Any]:
    """Return n random directions for a leaf and one fixed direction, (n + 1, *x.shape).

    In directions 0, 2, … all elements have the size of the leaf's root mean square. In directions 1, 3, … each element
    has the size of the same element of x, or of the root mean square if that element is 0. Directions 1, 3, … suit
    leaves that mix large and small elements. Signs are random, and sizes vary by up to a half, so that no two elements
    cancel. The fixed direction, which is the last one, holds the sizes of the elements of x, rounded to powers of two.
    With it, the check moves one element at a time.
    """
    scale = scale_of(x)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where((x != 0) & np.isfinite(x), _power_of_two(np.abs(x).astype(float)), scale)
    sizes = np.stack([np.full(x.shape, scale) if i % 2 == 0 else own for i in range(n)])
    chance = _chance((n, *x.shape), np.iscomplexobj(x), rng) * sizes
    return np.concatenate([chance, own[None].astype(chance.dtype)])


def evenly(g: NDArray[Any], u: NDArray[Any]) -> NDArray[Any] | None:
    """Return a direction that moves only elements whose contribution to the slope is small.

    A contribution is small if it is below a thousandth of the largest one. Along the directions `u`, the large
    contributions hide it. The new direction takes the steps of these elements from `u[1]`. A step with a contribution
    above their median is shortened, so that it contributes about the median. Return None if no contribution is small.
    `g` is the gradient.
    """
    own: NDArray[Any] = u[1]
    share: Floats = np.nan_to_num(np.abs(g) * np.abs(u[-1]), posinf=0)
    minor: NDArray[np.bool_] = share < 1e-3 * np.max(share, initial=0.0)
    if not minor.any():
        return None
    limit = np.median(share[minor & (share > 0)]) if share[minor].any() else np.inf
    with np.errstate(divide="ignore"):
        shrink = np.where(share > limit, _power_of_two(limit / share), 1.0)
    return np.asarray(np.where(minor, own * shrink, 0))


def cotangents(y: NDArray[Any], moved: NDArray[Any], eps: float, n: int, rng: np.random.Generator) -> NDArray[Any]:
    """Return n random cotangents for an output y, (n, *y.shape).

    `moved` is the output at another point, and `eps` is the relative rounding of y.

    Cotangents 0, 2, … divide random numbers by the size of the whole output. Cotangents 1, 3, … divide them by the
    change of each element, so that the slope of a large element does not hide the slope of a small one. Each change
    counts as at least one rounding of the element, and as at least _SMALL times the largest element or change. Rounding
    is then not amplified. All divisors are large enough that the dtype can hold the cotangent.
    """
    least = 100 / float(finfo(y.dtype).max)
    y, moved = (np.where(np.isfinite(x), x, 0).astype(complex if np.iscomplexobj(x) else float) for x in (y, moved))
    change: Floats = np.maximum(np.abs(moved - y), eps * np.abs(y))
    own = np.maximum(change, np.maximum(_SMALL * np.max([change, np.abs(y)], initial=0.0), least))
    whole = max(scale_of(y), least)
    sizes = [np.full(y.shape, whole) if i % 2 == 0 else np.where(y.any() or change.any(), own, 1.0) for i in range(n)]
    return np.asarray(_chance((n, *y.shape), np.iscomplexobj(y), rng) / np.stack(sizes))


def _chance(shape: tuple[int, ...], is_complex: bool, rng: np.random.Generator) -> NDArray[Any]:
    chance = rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape)
    return np.asarray(chance * np.exp(2j * np.pi * rng.uniform(size=shape)) if is_complex else chance)


def jittered(v: Sequence[Numbers], rng: np.random.Generator, eps: float = 0.0) -> list[list[NDArray[Any]]]:
    """Return the point, then two points moved by one rounding: x(1 + ε) or x(1 − ε) at random for each element.

    ε is the rounding of the dtype of x, or `eps` if that is larger.
    """
    points = [[on_host(x) for x in v]]
    for _ in range(2):
        moved = []
        for x in points[0]:
            factor = 1 + max(eps, eps_of(x.dtype)) * rng.choice([-1.0, 1.0], x.shape)
            with np.errstate(over="ignore", invalid="ignore"):
                moved.append(np.asarray(x * factor.astype(np.real(x).dtype), x.dtype))
        points.append(moved)
    return points


def stacked(points: Sequence[Sequence[NDArray[Any]]]) -> list[NDArray[Any]]:
    """Return the points as one list of stacked leaves."""
    return [np.stack(xs) for xs in zip(*points, strict=True)]


def scale_of(x: NDArray[Any]) -> float:
    """Return the root mean square of the finite elements, rounded to a power of two so that steps are exact.

    Return 1 if all finite elements are 0, or if no element is finite.
    """
    size: Floats = np.abs(x[np.isfinite(x)]).astype(float)
    return float(_power_of_two(norm(size) / math.sqrt(size.size))) if size.any() else 1.0


def _power_of_two(x: NDArray[Any] | float) -> Floats:
    return np.asarray(2.0 ** np.round(np.log2(x)))


def norm(x: ArrayLike) -> float:
    """Return the Euclidean norm of x without overflow of squares, or infinity if an element is infinite or NaN."""
    # Do not use the norm of jaxgd.pytree, because it would compile a program for each shape.
    size: Floats = np.abs(np.asarray(x))
    largest = float(np.max(size, initial=0.0))
    if not 0 < largest < math.inf:
        return 0.0 if largest == 0 else math.inf
    return largest * float(np.sqrt(np.sum((size / largest) ** 2)))


def rms(x: Floats) -> float:
    """Return the root mean square of the finite numbers, or 0 if no number is finite."""
    finite: Floats = x[np.isfinite(x)]
    return norm(finite) / math.sqrt(len(finite)) if len(finite) else 0.0
