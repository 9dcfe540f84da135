"""Difference quotients of f along directions in one leaf, and what a claim says they should be."""

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
    """The leaf's root mean square, as a power of two, so that steps are exact; 1 for zeros."""
    size = np.abs(x[np.isfinite(x) & (x != 0)]).astype(float)
    if not size.size:
        return 1.0
    largest = float(size.max())
    return float(_power_of_two(largest * np.sqrt(np.sum((size / largest) ** 2) / x.size)))


def _power_of_two(x: Any) -> Any:
    return 2.0 ** np.round(np.log2(x))


def directions(x: NDArray[Any], n: int, rng: np.random.Generator) -> NDArray[Any]:
    """N random directions for a leaf, and one without chance.

    The even ones have elements of one size, that of the leaf; the odd ones elements as large as those of x, for leaves
    that hold large and small. Signs are random and sizes vary by up to a half, so that no two elements cancel. The last
    is x's own sizes, to move one element at a time.

    Shapes: the result is (n + 1, *x.shape).
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
    """N random cotangents for an output, by which its size cancels: as a whole for the even, each element for the odd.

    Elements below a millionth of the largest count as that: what is 0 but for rounding must not be blown up. So do
    those below `least`, whose reciprocal the dtype of y may not hold.

    Shapes: the result is (n, *y.shape).
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
    """Jᵀw, for each leaf stacked over the cotangents w.

    `moved` is what each element of the first moves by when the point moves by a rounding, `noise` the length of that
    for each leaf; `eps` is the relative rounding of the numbers that it was computed with. `linear` is whether Jᵀ(cw)
    is cJᵀw for factors c far from 1.
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
        """⟨Jᵀw, u⟩ for every leaf and every random direction u in it, (leaves, directions)."""
        n = len(self.shared.directions[0]) - 1
        return np.array(
            [
                [np.sum(np.real(g[_index(d, self.shared)] * np.asarray(u[d]))) for d in range(n)]
                for g, u in zip(self.cotangents, self.shared.directions, strict=True)
            ]
        )

    def along(self, leaf: int, direction: int, starts: Ints, stops: Ints, phase: float | complex = 1.0) -> Floats:
        """⟨Jᵀw, u⟩ for u cut down to the elements from each start to its stop."""
        g = self.cotangents[leaf][_index(direction, self.shared)]
        u = np.asarray(self.shared.directions[leaf][direction])
        product = np.real(g * u * phase).reshape(-1)
        if np.all(stops - starts == 1):
            return np.asarray(product[starts], float)
        return np.array([np.sum(product[a:b]) for a, b in zip(starts, stops, strict=True)])

    def sizes_along(self, leaf: int) -> tuple[Floats, Floats]:
        """For each random direction u: how large ⟨Jᵀw, u⟩ would be if no terms cancelled, and what noise is in it.

        The first is √Σ(gᵢuᵢ)², from which by chance ⟨g, u⟩ may be far.
        """
        u = np.asarray(self.shared.directions[leaf][:-1])
        n = len(u)
        g = np.stack([np.abs(self.cotangents[leaf][_index(d, self.shared)]) for d in range(n)])
        u, g = np.abs(u).reshape(n, -1), g.reshape(n, -1)
        # An element's own noise was seen at two points only, and may have been small there by luck: it is taken to be
        # no less than what is usual among the others, relative to each.
        moved, first = self.moved[leaf].reshape(-1), np.abs(self.cotangents[leaf][0]).reshape(-1)
        usual = float(np.median(moved[first > 0] / first[first > 0])) if np.any(first > 0) else 0.0
        sizes = _lengths(g * u)
        noise = _lengths(np.maximum(moved[None], usual * g) * u)
        return sizes, 2 * noise + 10 * self.eps * sizes

    def elements(self, leaf: int) -> NDArray[Any]:
        """The gradient's elements for the first cotangent, flat."""
        return np.asarray(self.cotangents[leaf][0].reshape(-1))


@dataclasses.dataclass
class ForwardValues:
    """J, to be applied."""

    name: str
    fn: Callable[..., Any]
    shared: Shared
    lanes: Lanes
    floor: float = FLOOR

    def along_all(self) -> Floats:
        """⟨w, J u⟩ for every leaf and every random direction u in it, (leaves, directions)."""
        leaves, n = len(self.shared.v), len(self.shared.directions[0]) - 1
        leaf, direction = (x.reshape(-1) for x in np.indices((leaves, n)))
        cotangent = np.array([_index(int(d), self.shared) for d in direction])
        sizes = np.array([np.size(x) for x in self.shared.v], int)
        points = _points(leaf, direction, cotangent, 0, sizes[leaf], 0.0, 1.0)
        return np.asarray(self.lanes(self.fn, self.shared, points), float).reshape(leaves, n)

    def along(self, leaf: int, direction: int, starts: Ints, stops: Ints, phase: float | complex = 1.0) -> Floats:
        """⟨w, J u⟩ for u cut down to the elements from each start to its stop."""
        points = _points(leaf, direction, _index(direction, self.shared), starts, stops, 0.0, phase)
        return np.asarray(self.lanes(self.fn, self.shared, points), float)


def _lengths(rows: Floats) -> Floats:
    """The Euclidean length of each row, with squares kept in range."""
    largest = np.max(rows, axis=1, initial=0.0)
    scale = np.where(largest > 0, largest, 1.0)
    return np.asarray(scale * np.sqrt(np.sum((rows / scale[:, None]) ** 2, axis=1)))


Values = ReverseValues | ForwardValues
"""A claim's values at the point: what it says that the derivative along a direction is."""


def _index(direction: int, shared: Shared) -> int:
    """The cotangent that goes with a direction; the last direction, for single elements, has the first."""
    n = len(shared.cotangents[0])
    return direction % n if direction < len(shared.directions[0]) - 1 else 0


def _points(leaf: Any, direction: Any, cotangent: Any, start: Any, stop: Any, t: Any, phase: Any) -> Point:
    fields = np.broadcast_arrays(leaf, direction, cotangent, start, stop, t, np.asarray(phase, complex))
    return Point(*(np.ascontiguousarray(x).reshape(-1) for x in fields))


@dataclasses.dataclass
class Sample:
    """F along one direction at the steps h: F(h), F(−h), F(0), and what it may be off by through rounding.

    `size` is how large F becomes around the point in any direction.
    """

    h: Floats
    plus: Floats
    minus: Floats
    zero: float
    rounding: float
    size: float = 0.0

    def analyse(self) -> quotient.Quotient:
        """The quotient, with its error and what F looks like."""
        return quotient.analyse(self.h, self.plus, self.minus, self.zero, self.rounding, self.size)

    def slope(self, claimed: float, noise: float) -> float:
        """The power of h that the Taylor remainder follows."""
        return quotient.taylor_slope(self.h, self.plus, self.zero, claimed, noise)

    @property
    def variation(self) -> float:
        """The largest finite |F(h) − F(0)| for steps of at most the point's own size."""
        near = self.h <= 1
        with np.errstate(invalid="ignore"):
            change = np.abs(np.concatenate([self.plus[near], self.minus[near]]) - self.zero)
        return float(np.max(change[np.isfinite(change)], initial=0.0))

    @property
    def flat(self) -> bool:
        """Whether F is constant around the point, to the bit."""
        return quotient.flat(self.h, self.plus, self.minus, self.zero, self.rounding)


@dataclasses.dataclass
class Measure:
    """Evaluates f around the point. `eps` is the relative rounding of the narrowest dtype that f computes with."""

    problem: Problem
    shared: Shared
    lanes: Lanes
    eps: float
    zeros: dict[int, tuple[float, float]] = dataclasses.field(default_factory=dict)

    def affordable(self, seconds: float) -> int:
        """How many evaluations of f fit into so many seconds."""
        return self.lanes.affordable(Value(self.problem), seconds)

    def samples(self, which: Sequence[tuple[int, int]], h: Floats) -> list[Sample]:
        """F along whole directions, (leaf, direction) each: one call for all."""
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
        """Quotients for a direction cut down to many ranges of elements: value and error, gap and its error."""
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
