"""Difference quotients of f along directions in one leaf, and the directional derivatives that a claim gives.

A direction u changes one leaf of the arguments. A cotangent w has the shapes of the result of f. They give a function
of one variable, F(t) = ⟨w, f(x + t u)⟩.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxgd.gradcheck import quotient
from jaxgd.gradcheck.judge import FLOOR
from jaxgd.gradcheck.lanes import Lanes
from jaxgd.gradcheck.problem import Problem
from jaxgd.gradcheck.programs import Point, Shared, Value

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def scale_of(x: NDArray[Any]) -> float:
    """Return the leaf's root mean square, rounded to a power of two so that steps are exact; 1 for a leaf of zeros."""
    size = np.abs(x[np.isfinite(x) & (x != 0)]).astype(float)
    if not size.size:
        return 1.0
    largest = float(size.max())
    return float(_power_of_two(largest * np.sqrt(np.sum((size / largest) ** 2) / x.size)))


def _power_of_two(x: Any) -> Any:
    return 2.0 ** np.round(np.log2(x))


def directions(x: NDArray[Any], n: int, rng: np.random.Generator) -> NDArray[Any]:
    """Return n random directions for a leaf and one fixed direction, (n + 1, *x.shape).

    In directions 0, 2, … all elements have the size of the leaf. In directions 1, 3, … each element has the size of the
    same element of x, for leaves that mix large and small elements. Signs are random and sizes vary by up to a half, so
    that no two elements cancel. The last direction holds the sizes of the elements of x, to move one element at a time.
    """
    scale = scale_of(x)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where((x != 0) & np.isfinite(x), _power_of_two(np.abs(x).astype(float)), scale)
    chance = rng.choice([-1.0, 1.0], (n, *x.shape)) * rng.uniform(0.5, 1.5, (n, *x.shape))
    if np.iscomplexobj(x):
        chance = chance * np.exp(2j * np.pi * rng.uniform(size=chance.shape))
    sizes = np.stack([np.full(x.shape, scale) if i % 2 == 0 else own for i in range(n)])
    return np.concatenate([chance * sizes, own[None].astype(chance.dtype)])


def cotangents(y: NDArray[Any], n: int, rng: np.random.Generator, least: float) -> NDArray[Any]:
    """Return n random cotangents for an output y, (n, *y.shape), in inverse proportion to the size of y.

    Cotangents 0, 2, … divide by the size of the whole output, cotangents 1, 3, … by the size of each element. A size is
    at least a millionth of the largest size, so that rounding around 0 is not amplified. It is also at least `least`,
    because the dtype of y may not hold the reciprocal of a smaller size.
    """
    y = np.where(np.isfinite(y), y, 0)
    size = np.abs(y).astype(float)
    own = np.maximum(size, np.maximum(1e-6 * np.max(size, initial=0.0), least))
    whole = max(scale_of(y), least)
    sizes = [np.full(y.shape, whole) if i % 2 == 0 else np.where(size.any(), own, 1.0) for i in range(n)]
    chance = rng.choice([-1.0, 1.0], (n, *y.shape)) * rng.uniform(0.5, 1.5, (n, *y.shape))
    if np.iscomplexobj(y):
        chance = chance * np.exp(2j * np.pi * rng.uniform(size=chance.shape))
    return np.asarray(chance / np.stack(sizes))


@dataclasses.dataclass
class ReverseValues:
    """Jᵀw of one claim, with J the Jacobian of f.

    Attributes:
        name: The name of the claim.
        cotangents: Jᵀw for each leaf, stacked over the cotangents w.
        shared: The point, directions and cotangents.
        floor: A relative difference up to this counts as none.
        moved: For each leaf, the change of each element of Jᵀw, for the first w, when the point moves by one rounding.
        noise: For each leaf, the length of `moved`, plus 10 eps times the length of Jᵀw.
        eps: The largest eps of the dtypes in the computation.
        linear: For each leaf, True if Jᵀ(cw) = cJᵀw for factors c far from 1.
    """

    name: str
    cotangents: list[NDArray[Any]]
    shared: Shared
    floor: float
    moved: list[Floats]
    noise: list[float]
    eps: float
    linear: list[bool] = dataclasses.field(default_factory=list)

    def along_all(self) -> Floats:
        """Return ⟨Jᵀw, u⟩ for every leaf and every random direction u in it, (leaves, directions)."""
        n = len(self.shared.directions[0]) - 1
        return np.array(
            [
                [np.sum(np.real(g[_index(d, self.shared)] * np.asarray(u[d]))) for d in range(n)]
                for g, u in zip(self.cotangents, self.shared.directions, strict=True)
            ]
        )

    def along(self, leaf: int, direction: int, starts: Ints, stops: Ints, phase: float | complex = 1.0) -> Floats:
        """Return ⟨Jᵀw, u⟩ with u restricted to the elements from each start to its stop."""
        g = self.cotangents[leaf][_index(direction, self.shared)]
        u = np.asarray(self.shared.directions[leaf][direction])
        product = np.real(g * u * phase).reshape(-1)
        if np.all(stops - starts == 1):
            return np.asarray(product[starts], float)
        return np.array([np.sum(product[a:b]) for a, b in zip(starts, stops, strict=True)])

    def sizes_along(self, leaf: int) -> tuple[Floats, Floats]:
        """Return the expected size and the noise of ⟨Jᵀw, u⟩ for each random direction u.

        The expected size is √Σ(gᵢuᵢ)², with g = Jᵀw. By chance, ⟨g, u⟩ may be far smaller or larger.
        """
        u = np.asarray(self.shared.directions[leaf][:-1])
        n = len(u)
        g = np.stack([np.abs(self.cotangents[leaf][_index(d, self.shared)]) for d in range(n)])
        u, g = np.abs(u).reshape(n, -1), g.reshape(n, -1)
        # By luck, an element may hardly change at both moved points. Assume at least the median relative noise.
        moved, first = self.moved[leaf].reshape(-1), np.abs(self.cotangents[leaf][0]).reshape(-1)
        usual = float(np.median(moved[first > 0] / first[first > 0])) if np.any(first > 0) else 0.0
        sizes = _lengths(g * u)
        noise = _lengths(np.maximum(moved[None], usual * g) * u)
        return sizes, 2 * noise + 10 * self.eps * sizes

    def elements(self, leaf: int) -> NDArray[Any]:
        """Return the gradient's elements for the first cotangent, flat."""
        return np.asarray(self.cotangents[leaf][0].reshape(-1))


@dataclasses.dataclass
class ForwardValues:
    """The program that applies J of one claim to a direction."""

    name: str
    fn: Callable[..., Any]
    shared: Shared
    lanes: Lanes
    floor: float = FLOOR

    def along_all(self) -> Floats:
        """Return ⟨w, J u⟩ for every leaf and every random direction u in it, (leaves, directions)."""
        leaves, n = len(self.shared.v), len(self.shared.directions[0]) - 1
        leaf, direction = (x.reshape(-1) for x in np.indices((leaves, n)))
        cotangent = np.array([_index(int(d), self.shared) for d in direction])
        sizes = np.array([np.size(x) for x in self.shared.v], int)
        points = _points(leaf, direction, cotangent, 0, sizes[leaf], 0.0, 1.0)
        return np.asarray(self.lanes(self.fn, self.shared, points), float).reshape(leaves, n)

    def along(self, leaf: int, direction: int, starts: Ints, stops: Ints, phase: float | complex = 1.0) -> Floats:
        """Return ⟨w, J u⟩ with u restricted to the elements from each start to its stop."""
        points = _points(leaf, direction, _index(direction, self.shared), starts, stops, 0.0, phase)
        return np.asarray(self.lanes(self.fn, self.shared, points), float)


def _lengths(rows: Floats) -> Floats:
    """Return the Euclidean length of each row, with squares kept in range."""
    largest = np.max(rows, axis=1, initial=0.0)
    scale = np.where(largest > 0, largest, 1.0)
    return np.asarray(scale * np.sqrt(np.sum((rows / scale[:, None]) ** 2, axis=1)))


Values = ReverseValues | ForwardValues
"""One claim's directional derivatives at the point, along any direction."""


def _index(direction: int, shared: Shared) -> int:
    """Return the index of the cotangent for a direction. The last direction, for single elements, has cotangent 0."""
    n = len(shared.cotangents[0])
    return direction % n if direction < len(shared.directions[0]) - 1 else 0


def _points(leaf: Any, direction: Any, cotangent: Any, start: Any, stop: Any, t: Any, phase: Any) -> Point:
    fields = np.broadcast_arrays(leaf, direction, cotangent, start, stop, t, np.asarray(phase, complex))
    return Point(*(np.ascontiguousarray(x).reshape(-1) for x in fields))


@dataclasses.dataclass
class Sample:
    """F along one direction.

    Attributes:
        h: The steps.
        plus: F(h).
        minus: F(−h).
        zero: F(0).
        rounding: The rounding error of one value of F.
        size: The largest |F(h) − F(0)| along any direction in the leaf, for steps h ≤ 1.
    """

    h: Floats
    plus: Floats
    minus: Floats
    zero: float
    rounding: float
    size: float = 0.0

    def analyse(self) -> quotient.Quotient:
        """Return the quotient, its estimated error and the shape of F (smooth, kink, jump and so on)."""
        return quotient.analyse(self.h, self.plus, self.minus, self.zero, self.rounding, self.size)

    def slope(self, claimed: float, noise: float) -> float:
        """Return the power p for which the Taylor remainder shrinks like hᵖ."""
        return quotient.taylor_slope(self.h, self.plus, self.zero, claimed, noise)

    @property
    def variation(self) -> float:
        """The largest finite |F(h) − F(0)| for steps h ≤ 1. A step of 1 moves x by about the size of x."""
        near = self.h <= 1
        with np.errstate(invalid="ignore"):
            change = np.abs(np.concatenate([self.plus[near], self.minus[near]]) - self.zero)
        return float(np.max(change[np.isfinite(change)], initial=0.0))

    @property
    def flat(self) -> bool:
        """True if F is constant around the point, bit for bit."""
        return quotient.flat(self.h, self.plus, self.minus, self.zero, self.rounding)


@dataclasses.dataclass
class Measure:
    """The evaluation of f around the point. `eps` is the largest eps of the dtypes in the computation of f."""

    problem: Problem
    shared: Shared
    lanes: Lanes
    eps: float
    zeros: dict[int, tuple[float, float]] = dataclasses.field(default_factory=dict)

    def affordable(self, seconds: float) -> int:
        """Return the number of evaluations of f that fit into this time."""
        return self.lanes.affordable(Value(self.problem), seconds)

    def samples(self, which: Sequence[tuple[int, int]], h: Floats) -> list[Sample]:
        """Evaluate F along whole directions, given as (leaf, direction) pairs, in one call."""
        wanted = sorted({_index(d, self.shared) for _, d in which} - self.zeros.keys())
        leaf, direction = np.array(which, int).reshape(-1, 2).T
        cotangent = np.array([_index(int(d), self.shared) for d in direction], int)
        t = np.concatenate([h, -h])
        sizes = np.array([np.size(x) for x in self.shared.v], int)
        each = leaf[:, None], direction[:, None], cotangent[:, None]
        points = _points(*each, 0, sizes[leaf][:, None], t, 1.0)
        origin = _points(0, 0, np.array(wanted, int), 0, 0, 0.0, 1.0)
        both = Point(*(np.concatenate([x, y]) for x, y in zip(origin, points, strict=True)))
        value, size = self.lanes(Value(self.problem), self.shared, both)
        for i, w in enumerate(wanted):
            self.zeros[w] = float(value[i]), float(size[i])
        value = np.asarray(value[len(wanted) :], float).reshape(len(which), 2, len(h))
        out = []
        for i, w in enumerate(cotangent):
            zero, magnitude = self.zeros[int(w)]
            out.append(Sample(h, value[i, 0], value[i, 1], zero, 2 * self.eps * magnitude))
        return out

    def parts(
        self, leaf: int, direction: int, starts: Ints, stops: Ints, h: Floats, phase: float | complex, noise: float
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Return quotients along parts of a direction, one per range of elements.

        The results are the value, its estimated error, the gap between the one-sided derivatives, and its estimated
        error.
        """
        w = _index(direction, self.shared)
        t = np.concatenate([h, -h])
        points = _points(leaf, direction, w, starts[:, None], stops[:, None], t, phase)
        value, _ = self.lanes(Value(self.problem), self.shared, points)
        value = np.asarray(value, float).reshape(len(starts), 2, len(h))
        zero, magnitude = self.zeros[w]
        rounding = np.full(len(starts), max(noise, 2 * self.eps * magnitude))
        plus, minus = value[:, 0].T, value[:, 1].T
        best, error, level, _ = quotient.central(h, plus, minus, rounding)
        gap, gap_error = quotient.gap(h, plus, minus, np.full(len(starts), zero), level)
        return best, error, gap, gap_error
