"""The programs for the device: values of f, derivatives by autodiff, and claimed derivatives.

Each program is an `Objective`: hashable, so that a check compiles it once. Value, Forward and ClaimedJvp are functions
of (shared, point). The other programs are functions of (traced, (v, w)). Inner products are Re Σ wᵢuᵢ, without a
conjugate. With this product, ⟨w, J u⟩ by forward mode equals ⟨Jᵀw, u⟩ by reverse mode, also for complex numbers.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgd.gradcheck.problem import Numbers, Opaque, Problem
from jaxgd.typed import jvp, tree_leaves, vjp

# The differentiated leaves v and the cotangents w.
LeavesAndCotangents = tuple[Sequence[Numbers], Sequence[Numbers]]


class Point(NamedTuple):
    """The point x + t·u. The direction u belongs to one leaf.

    Attributes:
        leaf: The index of the leaf.
        direction: The index of the direction in that leaf.
        cotangent: The index of the cotangent.
        start: The flat index of the first element that u moves. u is 0 outside start ≤ index < stop.
        stop: The flat index after the last element that u moves.
        t: The step, which may be negative.
        phase: A factor of u, such as 1j.
    """

    leaf: Numbers
    direction: Numbers
    cotangent: Numbers
    start: Numbers
    stop: Numbers
    t: Numbers
    phase: Numbers


class Shared(NamedTuple):
    """The data that all points share.

    Attributes:
        v: The differentiated leaves at the point.
        traced: The fixed arrays.
        directions: The directions u of each leaf, stacked.
        cotangents: The cotangents w of each output, stacked.
    """

    v: list[Array]
    traced: list[Array]
    directions: Sequence[Numbers]
    cotangents: Sequence[Numbers]


def bilinear(u: Sequence[Numbers], v: Sequence[Numbers]) -> Numbers:
    """Return Re Σ uᵢvᵢ over all leaves."""
    return _sum(jnp.sum(jnp.real(x * y)) for x, y in zip(u, v, strict=True))


def _sum(terms: Iterable[Array]) -> Array:
    return jnp.asarray(sum(terms))


def _tangent(shared: Shared, point: Point) -> list[Array]:
    tangent = []
    for i, (x, directions) in enumerate(zip(shared.v, shared.directions, strict=True)):
        place = jnp.arange(x.size).reshape(x.shape)
        chosen = (point.leaf == i) & (point.start <= place) & (place < point.stop)
        u = directions[point.direction]
        u = u * point.phase if jnp.iscomplexobj(u) else u * jnp.real(point.phase)
        tangent.append(jnp.where(chosen, u, 0).astype(x.dtype))
    return tangent


@dataclasses.dataclass(frozen=True)
class Value:
    """F(t) = ⟨w, f(x + t u)⟩ and Σ |wᵢfᵢ|, the scale of the rounding in F."""

    problem: Problem

    def __call__(self, shared: Shared, point: Point) -> tuple[Numbers, Numbers]:
        """Return F(t) and the scale of its rounding."""
        u = _tangent(shared, point)
        v = [x + jnp.asarray(point.t, jnp.real(x).dtype) * du for x, du in zip(shared.v, u, strict=True)]
        out = self.problem(v, shared.traced)
        terms = [jnp.real(w[point.cotangent] * y) for w, y in zip(shared.cotangents, out, strict=True)]
        return _sum(jnp.sum(x) for x in terms), _sum(jnp.sum(jnp.abs(x)) for x in terms)


@dataclasses.dataclass(frozen=True)
class Forward:
    """⟨w, J u⟩ by forward mode."""

    problem: Problem

    def __call__(self, shared: Shared, point: Point) -> Numbers:
        """Return ⟨w, J u⟩."""
        u = _tangent(shared, point)
        _, out = jvp(lambda v: self.problem(v, shared.traced), (shared.v,), (u,))
        return bilinear([w[point.cotangent] for w in shared.cotangents], out)


@dataclasses.dataclass(frozen=True)
class Reverse:
    """f(v) and Jᵀw by reverse mode."""

    problem: Problem

    def __call__(
        self, traced: list[Array], element: LeavesAndCotangents
    ) -> tuple[Sequence[Numbers], Sequence[Numbers]]:
        """Return f(v) and Jᵀw."""
        v, w = element
        out, pullback = vjp(lambda v: self.problem(v, traced), v)
        return out, pullback([jnp.asarray(ct, y.dtype) for ct, y in zip(w, out, strict=True)])[0]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """f(v), without a derivative."""

    problem: Problem

    def __call__(
        self, traced: list[Array], element: LeavesAndCotangents
    ) -> tuple[Sequence[Numbers], Sequence[Numbers]]:
        """Return f(v), and an empty list in place of a gradient."""
        return self.problem(element[0], traced), []


@dataclasses.dataclass(frozen=True)
class ClaimedGradient:
    """The result of the function passed as `gradient`, times the cotangent of the only output of f.

    Leaf `places[i]` of the result is the gradient of differentiated leaf i. `places[i]` is None if no leaf of the
    result fits.
    """

    problem: Problem
    gradient: Opaque[Callable[..., object]]
    places: tuple[int | None, ...]

    def __call__(
        self, traced: list[Array], element: LeavesAndCotangents
    ) -> tuple[Sequence[Numbers], Sequence[Numbers]]:
        """Return an empty list in place of f(v), and the claimed gradient times w."""
        v, (w,) = element
        leaves = tree_leaves(self.gradient.value(*self.problem.args(v, traced)))
        return [], [
            jnp.zeros(x.shape) if i is None else _times(w, jnp.asarray(leaves[i])) for i, x in _placed(self.places, v)
        ]


@dataclasses.dataclass(frozen=True)
class ClaimedVjp:
    """The result of the pullback of the function passed as `vjp`. `places` is the same as in ClaimedGradient."""

    problem: Problem
    vjp: Opaque[Callable[..., Any]]
    places: tuple[int | None, ...]

    def __call__(
        self, traced: list[Array], element: LeavesAndCotangents
    ) -> tuple[Sequence[Numbers], Sequence[Numbers]]:
        """Return an empty list in place of f(v), and the claimed Jᵀw."""
        v, w = element
        out, pullback = self.vjp.value(*self.problem.args(v, traced))
        leaves = tree_leaves(pullback(whole_cotangent(self.problem, out, w)))
        return [], [jnp.zeros(x.shape) if i is None else jnp.asarray(leaves[i]) for i, x in _placed(self.places, v)]


@dataclasses.dataclass(frozen=True)
class ClaimedJvp:
    """⟨w, J u⟩, where the function passed as `jvp` computes J u."""

    problem: Problem
    jvp: Opaque[Callable[..., Any]]

    def __call__(self, shared: Shared, point: Point) -> Numbers:
        """Return the claimed ⟨w, J u⟩."""
        u = _tangent(shared, point)
        tangents = self.problem.tangents(shared.v, shared.traced, u)
        _, out = self.jvp.value(self.problem.args(shared.v, shared.traced), tangents)
        leaves = tree_leaves(out)
        w = [w[point.cotangent] for w in shared.cotangents]
        return bilinear(w, [leaves[i] for i in self.problem.outputs])


def whole_cotangent(problem: Problem, out: object, w: Sequence[Numbers]) -> object:
    """Return a cotangent for the whole result of f: w for the floating-point leaves, zeros or float0 for the others."""
    leaves, structure = jax.tree.flatten(out)
    whole = [
        jnp.zeros_like(y) if jnp.issubdtype(jnp.result_type(y), jnp.inexact) else np.zeros(y.shape, jax.dtypes.float0)
        for y in map(jnp.asarray, leaves)
    ]
    for place, ct in zip(problem.outputs, w, strict=True):
        whole[place] = jnp.asarray(ct, jnp.result_type(leaves[place]))
    cotangent: object = jax.tree.unflatten(structure, whole)
    return cotangent


def _times(w: Numbers, g: Array) -> Array:
    """Return w·g. A real w is cast to the precision of g."""
    return jnp.asarray(w) * g if jnp.iscomplexobj(w) else jnp.asarray(w, jnp.real(g).dtype) * g


def _placed(places: tuple[int | None, ...], v: Sequence[Numbers]) -> list[tuple[int | None, Numbers]]:
    return list(zip(places, v, strict=True))
