"""A cost along a line or over a plane, with the path of a descent, as numbers to draw."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxgd.errors import (
    DtypeError,
    RangeError,
    ShapeError,
    as_array,
    describe,
    is_traced,
    require_args,
    require_callable,
    require_scalar,
)
from jaxgd.report.scale import Floats, Scale
from jaxgd.slices import CostSlice
from jaxgd.typed import jit, map_rows, ravel_pytree, tree_leaves, tree_map, vmap

_POINTS = (1001, 301)  # points of a curve, and points per axis of a surface
_ROWS = 1000  # at most this many points of the path determine the principal components
_DRAPED = 2000  # least number of points of a line on a surface
_WIDTH = 256  # number of points that are evaluated at once


@dataclasses.dataclass(frozen=True)
class Landscape:
    """A cost along a line or over a plane, and the path of a descent.

    Attributes:
        axes: The coordinates of the grid along its one or two axes.
        cost: C on the grid, (m,) or (m, n). Values that are not finite leave a gap.
        names: The label of each axis.
        path: The path projected onto the line or the plane, (k, 2) or (k, 3) with k ≥ 0. A row has the coordinates of
            a point, then C at this point.
        costs: C at the points before the projection, (k,). It differs from the C in `path` if the path leaves the
            plane.
        minima: Known minima inside the grid, with columns as in `path`.
        end: The label of the last point of the path.
        note: A second line for the title, or "".
    """

    axes: tuple[Floats, ...]
    cost: Floats
    names: tuple[str, ...]
    path: Floats
    costs: Floats
    minima: Floats
    end: str = "end"
    note: str = ""

    @functools.cached_property
    def scale(self) -> Scale:
        """The vertical scale of a surface."""
        return Scale.of(self.cost, np.concatenate([self.path[:, -1], self.minima[:, -1]]))

    @property
    def curve_is_logarithmic(self) -> bool:
        """True if a logarithmic axis suits the curve.

        C must be positive and span two decades. Its minimum must not look like a cusp on a logarithmic axis.
        """
        costs = np.concatenate([self.cost, self.path[:, -1], self.minima[:, -1]])
        costs, bends = costs[np.isfinite(costs)], np.abs(np.diff(self.cost, 2))
        at = np.clip(np.argmin(np.where(np.isfinite(self.cost), self.cost, np.inf)) - 1, 0, len(bends) - 1)
        return bool(costs.min() > 0 and costs.max() >= 100 * costs.min() and bends[at] < costs.min())

    @property
    def draped(self) -> tuple[Floats, Floats, Floats]:
        """The path as a line on the surface: its two coordinates and its drawn height."""
        if not len(self.path):
            return self.costs, self.costs, self.costs
        at = np.linspace(0, len(self.path) - 1, max(_DRAPED, len(self.path)))
        rows = np.arange(len(self.path))
        x, y = np.interp(at, rows, self.path[:, 0]), np.interp(at, rows, self.path[:, 1])
        (i, s), (j, t) = _cell(self.axes[0], x), _cell(self.axes[1], y)
        z = self.scale(self.cost)

        def along_x(k: NDArray[np.int_]) -> Floats:
            return z[i, k] * (1 - s) + z[i + 1, k] * s

        return x, y, along_x(j) * (1 - t) + along_x(j + 1) * t


def _cell(axis: Floats, x: Floats) -> tuple[NDArray[np.int_], Floats]:
    """Return the index of the grid interval that holds each point, and the point's position in it from 0 to 1."""
    at = (x - axis[0]) / (axis[1] - axis[0])
    i = np.clip(at.astype(int), 0, len(axis) - 2)
    return i, at - i


def of_slice(plane: CostSlice) -> Landscape:
    """Return the landscape of a slice, without a path."""
    nothing = np.zeros((0, 3))
    a, b, cost = (np.asarray(x, float) for x in (plane.a, plane.b, plane.cost))
    return Landscape((a, b), cost, ("a", "b"), nothing, nothing[:, 0], nothing)


def of_path(
    v: object,
    costs: Floats,
    cost: Callable[..., object],
    args: tuple[object, ...],
    minima: Sequence[object],
    through: tuple[object, object] | None,
) -> Landscape:
    """Evaluate a cost around a path.

    Args:
        v: The points of the path: a tree like the variables, whose arrays have one more axis in front.
        costs: C at these points, (k,).
        cost: The cost.
        args: Further arguments of the cost.
        minima: Known minima, trees like the variables.
        through: Two points that span the plane together with the end of the path. If None, the path's first two
            principal components span the plane.

    Returns:
        The numbers to draw.

    Raises:
        ShapeError: If the cost is not one real scalar, through is not two points, minima is not a list of points, or a
            point does not have as many numbers as the variables.
        DtypeError: If the cost is not a function, args is not a tuple of arrays, or a given point is traced.
        RangeError: If no point of the path is finite and has a finite cost, the three points of the plane are on one
            line, or `through` is given for fewer than three variables.
    """
    first = tree_map(lambda x: jnp.asarray(x[0]), v)
    require_args("plot", args)
    require_callable("plot", "cost", cost)
    scalar = _without_aux(cost)
    require_scalar("plot", scalar, first, *args)
    flat, unravel = ravel_pytree(first)
    path = np.concatenate([np.asarray(x, float).reshape(len(costs), -1) for x in tree_leaves(v)], axis=1)
    finite = np.isfinite(path).all(axis=1) & np.isfinite(costs)
    path, costs, end = path[finite], costs[finite], "end"
    if not len(path):
        raise RangeError("plot: no point of the path is finite and has a finite cost.\nCheck the start of the descent.")
    if len(far := np.flatnonzero(_far(costs))):
        # If a path leaves the valley, draw it only up to its first far point, so that the valley stays visible.
        path, costs, end = path[: far[0] + 1], costs[: far[0] + 1], "first point far from the start"
    n = path.shape[1]
    if through is not None and n < 3:
        raise RangeError(f"plot: through needs more than two variables, got {n}.\nLeave it out.")
    known = _numbers("minima", minima, n)
    origin, basis, names, corners = _plane(path, through) if n > 2 else _all_variables(path, first)
    stars, corners, shadow = ((x - origin) @ basis.T for x in (known, corners, path))
    nearest = stars[np.argsort(np.linalg.norm(stars - shadow[-1], axis=1))[:1]]
    axes = _grid(shadow, np.concatenate([shadow, corners, nearest]), float(np.linalg.norm(path[-1])))
    stars = stars[np.all([(x[0] <= s) & (s <= x[-1]) for x, s in zip(axes, stars.T, strict=True)], axis=0)]
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    places = np.concatenate([mesh.reshape(-1, len(axes)), shadow, stars])
    values = _values(scalar, unravel, jnp.asarray(origin, flat.dtype), jnp.asarray(basis, flat.dtype), args, places)
    grid, path, stars = np.split(np.column_stack([places, values]), [-len(path) - len(stars), len(places) - len(stars)])
    plane = "the first two principal components of the path" if through is None else "a plane through three points"
    note = f"{n:,} variables, projected onto {plane}" if n > 2 else ""
    return Landscape(axes, grid[:, -1].reshape(mesh.shape[:-1]), names, path, costs, stars, end, note)


def _without_aux(cost: Callable[..., object]) -> Callable[..., object]:
    """Wrap a cost that may return (C, aux) in a function that returns only C."""

    def scalar(*args: object) -> object:
        out = cost(*args)
        return out[0] if isinstance(out, tuple | list) and len(out) == 2 else out

    return scalar


def _far(costs: Floats) -> NDArray[np.bool_]:
    """Mark each cost far above the first cost. If C falls without bound, also mark each cost far below it."""
    with np.errstate(over="ignore"):
        above, below = costs - costs.min(), costs[0] - costs
        far = above > 1e3 * max(abs(costs[0]), above[0])
        # If C falls without bound, its last decrease is the largest. A path to a minimum ends with small decreases.
        steps = np.diff(below)[np.diff(below) != 0]
        falls = len(steps) > 1 and bool(steps[-1] == steps.max())
        return np.asarray(far | (falls & (below > 1e3 * max(abs(costs[0]), steps[0] if falls else 0.0))))


def _numbers(name: str, trees: Sequence[object], n: int) -> Floats:
    """Return the numbers of each tree as a row. Raise unless each tree has n numbers that are not traced."""
    if any(is_traced(x) for x in tree_leaves(trees)):
        raise DtypeError(f"plot: {name} must be known numbers, got traced ones.\nCall plot outside jit, grad and vmap.")
    given: object = trees
    is_array = isinstance(given, np.ndarray | jax.Array) and given.ndim > 0
    if not (is_array or isinstance(given, list | tuple)):
        raise ShapeError(f"plot: {name} must be a list of points, got {describe(trees)}.")
    leaves = [[np.ravel(as_array("plot", name, x)).astype(float) for x in tree_leaves(tree)] for tree in trees]
    rows = [np.concatenate([np.zeros(0), *arrays]) for arrays in leaves]
    if any(len(row) != n for row in rows):
        raise ShapeError(f"plot: each point of {name} must have {n} variables, got {[len(row) for row in rows]}.")
    return np.array(rows).reshape(-1, n)


def _all_variables(path: Floats, first: object) -> tuple[Floats, Floats, tuple[str, ...], Floats]:
    """Return the origin, directions and axis names for one or two variables, and no points to cover."""
    n = path.shape[1]
    names = ["v₁", "v₂"][:n]
    if not isinstance(first, jax.Array):
        paths = [(jax.tree_util.keystr(place), x) for place, x in jax.tree_util.tree_leaves_with_path(first)]
        names = [f"v{place}" + (f"[{i}]" if x.size > 1 else "") for place, x in paths for i in range(x.size)]
    return np.zeros(n), np.eye(n), tuple(names), path[:0]


def _plane(path: Floats, through: tuple[object, object] | None) -> tuple[Floats, Floats, tuple[str, ...], Floats]:
    """Return the origin, directions and axis names of a plane through the path's end, and the points to cover."""
    # The picture must be exact at the end of the path, so the plane passes through the end, not through the mean.
    end = path[-1]
    corners = path if through is None else _numbers("through", through, path.shape[1])
    if through is not None and len(corners) != 2:
        raise ShapeError(f"plot: through must be two points, got {len(corners)}.")
    rows = (corners - end)[:: -(-len(corners) // _ROWS)]
    lengths, basis = np.linalg.svd(rows, full_matrices=False)[1:]
    share = lengths**2 / max(float(lengths @ lengths), np.finfo(float).tiny)
    rank = int((share[:2] > 1e-12).sum())
    if through is not None and rank < 2:
        raise RangeError("plot: the end of the path and the points of through must not be on one line.")
    # A straight path has only one principal component, and a single point has none. Random directions complete the
    # plane.
    drawn = np.random.default_rng(0).normal(size=(2, path.shape[1]))
    basis = np.linalg.qr(np.concatenate([basis[:rank], drawn])[:2].T)[0].T
    # Choose the signs so that, in the contours, the path starts to the left of its end and below it.
    basis = basis * np.where(basis @ (path[0] - end) > 0, -1, 1)[:, None]
    names = [f"component {i + 1} ({part:.0%})" for i, part in enumerate([*share, 0, 0][:2])]
    return end, basis, tuple(names) if through is None else ("direction 1", "direction 2"), corners


def _grid(path: Floats, cover: Floats, size: float) -> tuple[Floats, ...]:
    """Return the axes of a grid that covers all points of `cover` with a margin."""
    widest = float(np.ptp(cover, axis=0).max()) or size or 1.0
    axes = []
    for last, points in zip(path[-1], cover.T, strict=True):
        low, high = float(points.min()), float(points.max())
        width = high - low if high - low > 1e-6 * widest else widest
        # If the path ends near an edge, a wider margin there shows the other side of the valley.
        below, above = (0.6 if abs(last - edge) < 0.1 * width else 0.25 for edge in (low, high))
        axes.append(np.linspace(low - below * width, high + above * width, _POINTS[path.shape[1] - 1]))
    return tuple(axes)


def _values(
    cost: Callable[..., object],
    unravel: Callable[[Array], object],
    origin: Array,
    basis: Array,
    args: tuple[object, ...],
    places: Floats,
) -> Floats:
    """Return C at points of the plane. Each row of `places` has the coordinates of a point."""

    def value(place: Array, args: tuple[object, ...]) -> Array:
        # A matrix product would round the coordinates on some devices.
        point = origin + sum(place[i] * basis[i] for i in range(len(basis)))
        return jnp.asarray(cost(unravel(point), *args))

    @jit
    def rows(rows: Array, args: tuple[object, ...]) -> Array:
        # Map over blocks of _WIDTH points one by one, so that memory holds copies of v for only one block.
        return map_rows(vmap(lambda place: value(place, args)), rows)

    padded = np.resize(places, (-(-len(places) // _WIDTH), _WIDTH, places.shape[1]))
    return np.asarray(rows(jnp.asarray(padded, origin.dtype), args), float).reshape(-1)[: len(places)]
