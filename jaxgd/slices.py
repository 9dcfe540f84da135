"""Slices through the landscape of a cost: the values of the cost on a grid in a plane."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgd.curvature import eigenpairs
from jaxgd.errors import (
    RangeError,
    ShapeError,
    describe,
    is_traced,
    require_args,
    require_count,
    require_key,
    require_like,
    require_real,
    require_scalar,
    require_variables,
)
from jaxgd.mesh.axes import automatic_axes
from jaxgd.pytree import axpy, dot, norm, size, subtract, unit_vector, wide_dtype
from jaxgd.seen import seen
from jaxgd.typed import Generic, Real, Tree, V, finfo, grad, jit, map_rows, ravel_pytree, tree_map, vmap

Cost = Callable[..., Array]


class CostSlice(NamedTuple, Generic[V]):
    """A cost on a grid in a plane: cost[i, j] = C(origin + a[i] u + b[j] w), with orthonormal u and w.

    Attributes:
        a: Coordinates along u, (m,).
        b: Coordinates along w, (n,).
        cost: The cost at each point of the grid, (m, n).
        origin: The point with coordinates (0, 0), a tree like v.
        u: The first direction, of length 1, a tree like v.
        w: The second direction, of length 1 and orthogonal to u, a tree like v.
    """

    a: Float[Array, " m"]
    b: Float[Array, " n"]
    cost: Float[Array, "m n"]
    origin: V
    u: V
    w: V

    def project(self, v: V) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the coordinates of the plane's point that is nearest to v.

        Args:
            v: Any point, a tree like `origin`.

        Returns:
            The coordinates (a, b), two scalars.
        """
        off = subtract(v, self.origin)
        return dot(off, self.u), dot(off, self.w)


Directions = Literal["random", "gradient", "eigenvectors"]


@automatic_axes
def cost_slice(
    cost: Cost,
    v: V,
    directions: Directions | tuple[Tree, Tree] = "random",
    *,
    through: tuple[Tree, Tree] | None = None,
    args: tuple[Any, ...] = (),
    span: Real | None = None,
    resolution: int = 51,
    key: PRNGKeyArray | None = None,
) -> CostSlice[V]:
    """Evaluate a cost on a grid in a plane through v, to draw it as a landscape.

    The values are C(v + a u + b w). Without `through`, a and b run from −span to span. The grid takes resolution²
    evaluations of C. Passing a new function object as the cost triggers recompilation.

    Args:
        cost: The function; `cost(v, *args)` returns one real scalar.
        v: The point at the origin of the plane: any pytree of real floating-point arrays, with at least two variables.
        directions: The directions u and w, which `cost_slice` makes orthonormal. "random" (default) draws both.
            "gradient" takes u = ∇C and a random w. "eigenvectors" takes the eigenvectors of the Hessian's two largest
            eigenvalues. A pair of trees like v gives u and w directly.
        through: Two more points, trees like v. The plane then passes through v and both points. The axes a and b cover
            the three points, plus 25% of their range on each side. `directions` and `span` are then ignored. Default:
            None.
        args: Further arguments of the cost; by default none.
        span: Half the side of the grid, any real number, in the units of v; by default ‖v‖, or 1 if v = 0.
        resolution: The number of points along each axis, at least 2; by default 51.
        key: The random key for random directions and for the eigenvectors; by default `jax.random.key(0)`.

    Returns:
        The grid, the cost on it and the plane, as `CostSlice`.

    Raises:
        ShapeError: If the cost is not one real scalar, `directions` or `through` is not two trees like v, or v has no
            variable. Also if v has one variable and `directions` is a name.
        DtypeError: If v, a direction or a point is not real floating point, resolution is not a whole number, or cost,
            args, span or key has the wrong type.
        RangeError: If `directions` is an unknown name, or resolution is below 2. Also if the plane is not defined: a
            direction is 0, the directions are parallel, or v and the points of `through` are on one line. Under jit and
            vmap, an undefined plane is not detected.

    Source: Goodfellow, Vinyals and Saxe, ICLR 2015; Li et al., NeurIPS 2018.

    Example:
        >>> plane = cost_slice(lambda v: jnp.sum(v**2), jnp.zeros(3), resolution=3)
        >>> print(plane.cost[0, 1], plane.cost[1, 1])
        1.0 0.0
    """
    require_variables("cost_slice", "v", v)
    v = tree_map(jnp.asarray, v)
    require_count("cost_slice", "resolution", resolution, least=2)
    require_args("cost_slice", args)
    require_scalar("cost_slice", cost, v, *args)
    if span is not None:
        require_real("cost_slice", "span", span)
    if key is not None:
        require_key("cost_slice", key)
    key = jax.random.key(0) if key is None else key
    if through is not None:
        u, w = (subtract(p, v) for p in _two_trees("through", "a point of through", v, through))
    elif isinstance(directions, str):
        u, w = _named_directions(cost, v, directions, args, key)
    else:
        u, w = _two_trees("directions", "each direction", v, directions)
    u, w = _orthonormal(u, w, through is not None)
    if span is None:
        length = norm(v)
        span = jnp.where(length > 0, length, 1)
    a = b = jnp.linspace(-span, span, resolution)
    if through is not None:
        points = [(0.0, 0.0), *((dot(d, u), dot(d, w)) for d in (subtract(p, v) for p in through))]
        a, b = (_around(jnp.array(axis), resolution) for axis in zip(*points, strict=True))

    return CostSlice(a, b, _heights(seen(cost), v, u, w, a, b, args), v, u, w)


@jit(static_argnames="cost")
def _heights(cost: Cost, v: V, u: V, w: V, a: Array, b: Array, args: tuple[Any, ...]) -> Array:
    def row(a: Array) -> Array:
        def height(b: Array) -> Array:
            return cost(axpy(b, w, axpy(a, u, v)), *args)

        return vmap(height)(b)

    # Map over the rows one by one: memory then holds one copy of v per point of a row, not per point of the grid.
    return map_rows(row, a)


def _two_trees(name: str, one: str, v: V, trees: tuple[Any, Any]) -> tuple[V, V]:
    """Return the two trees. Raise unless both are like v."""
    if not isinstance(trees, tuple | list) or len(trees) != 2:
        raise ShapeError(f"cost_slice: {name} must be two trees like v, got {describe(trees)}.")
    for tree in trees:
        require_variables("cost_slice", one, tree)
        require_like("cost_slice", one, tree, "v", v)
    return trees[0], trees[1]


def _around(x: Array, resolution: int) -> Array:
    margin = 0.25 * jnp.ptp(x)
    return jnp.linspace(jnp.min(x) - margin, jnp.max(x) + margin, resolution)


def _named_directions(cost: Cost, v: V, name: str, args: tuple[Any, ...], key: PRNGKeyArray) -> tuple[V, V]:
    flat, unravel = ravel_pytree(v)
    if name not in ("random", "gradient", "eigenvectors"):
        raise RangeError(f"cost_slice: directions must be random, gradient, eigenvectors or two trees, got {name!r}.")
    if size(v) < 2:
        raise ShapeError("cost_slice: a plane needs at least two variables, got one.")
    drawn = jax.random.normal(key, (2, flat.size), flat.dtype)
    if name == "eigenvectors":
        vectors = eigenpairs(cost, v, 2, args=args, key=key).vectors
        return tree_map(lambda x: x[0], vectors), tree_map(lambda x: x[1], vectors)
    u = unravel(drawn[0]) if name == "random" else grad(cost)(v, *args)
    return u, unravel(drawn[1])


def _orthonormal(u: V, w: V, are_differences: bool) -> tuple[V, V]:
    u, w = _unit(u), _unit(w)
    w = axpy(-dot(u, w), u, w)
    left = norm(w)
    w = _unit(w)
    # Orthogonalize again: one pass is inaccurate for nearly parallel directions.
    w = _unit(axpy(-dot(u, w), u, w))
    rounding = 100 * finfo(left.dtype).eps
    if not is_traced(left) and not (left > rounding and norm(u) > 0):
        if are_differences:
            raise RangeError("cost_slice: v and the two points of through must not be on one line.\nPass other points.")
        raise RangeError(
            "cost_slice: the directions must span a plane, got parallel directions or a direction of 0.\n"
            "Pass other directions, or another key for random ones."
        )
    return u, w


def _unit(u: V) -> V:
    return unit_vector(u, wide_dtype(u))[0]
