"""Slices through the landscape of a cost: what a plane through v shows of it."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jaxgd.curvature import eigenpairs
from jaxgd.errors import RangeError, ShapeError, is_traced, require_count, require_scalar, require_variables
from jaxgd.pytree import axpy, dot, norm, size

Cost = Callable[..., Array]


class CostSlice(NamedTuple):
    """A cost over a plane: cost[i, j] is C(origin + a[i] u + b[j] w), with u and w of length 1 and at right angles.

    Shapes: `a` is (m,), `b` is (n,), `cost` is (m, n); `origin`, `u` and `w` are trees like v.
    """

    a: Float[Array, " m"]
    b: Float[Array, " n"]
    cost: Float[Array, "m n"]
    origin: PyTree[Array]
    u: PyTree[Array]
    w: PyTree[Array]

    def project(self, v: PyTree[Array]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Where in the plane a point lies, or the foot of its perpendicular."""
        off = jax.tree.map(jnp.subtract, v, self.origin)
        return dot(off, self.u), dot(off, self.w)


Directions = Literal["random", "gradient", "eigenvectors"]


def cost_slice(
    cost: Cost,
    v: PyTree[Array],
    directions: Directions | tuple[PyTree[Array], PyTree[Array]] = "random",
    *,
    through: tuple[PyTree[Array], PyTree[Array]] | None = None,
    args: tuple[Any, ...] = (),
    span: Any = None,
    resolution: int = 51,
    key: PRNGKeyArray | None = None,
) -> CostSlice:
    """A cost on a grid in a plane through v, to be drawn as a landscape.

    C(v + a u + b w) for a and b from −span to span.

    Shapes: any pytree v of floats; `cost(v, *args)` returns one real scalar.
    Range: `directions` are "random"; "gradient", which is u = ∇C/‖∇C‖ with a random w; "eigenvectors", those of the two
    largest eigenvalues of the Hessian; or two trees like v. `through` two more points takes the plane of the three
    instead, and a grid around them all. u and w are made orthonormal. `span` is a length in v's units, by default ‖v‖,
    or 1 at 0. `resolution` is the points of each axis; `key` draws what is random.
    Raises: ShapeError, DtypeError or RangeError for arguments that cannot serve, or directions that span no plane.
    Source: Goodfellow, Vinyals and Saxe, ICLR 2015; Li et al., NeurIPS 2018.

    >>> found = cost_slice(lambda v: jnp.sum(v**2), jnp.zeros(3), resolution=3)
    >>> print(found.cost[0, 1], found.cost[1, 1])
    1.0 0.0
    """
    require_variables("cost_slice", "v", v)
    v = jax.tree.map(jnp.asarray, v)
    require_count("cost_slice", "resolution", resolution, least=2)
    require_scalar("cost_slice", cost, v, *args)
    key = jax.random.key(0) if key is None else key
    if through is not None:
        u, w = (jax.tree.map(jnp.subtract, p, v) for p in through)
    elif isinstance(directions, str):
        u, w = _named_directions(cost, v, directions, args, key)
    else:
        u, w = directions
    for direction in (u, w):
        if jax.tree.map(jnp.shape, direction) != jax.tree.map(jnp.shape, v):
            raise ShapeError("cost_slice: each direction must be a tree like v, with its shapes.")
    u, w = _orthonormal(u, w)
    if span is None:
        length = norm(v)
        span = jnp.where(length > 0, length, 1)
    a = b = jnp.linspace(-span, span, resolution)
    if through is not None:
        points = [(0.0, 0.0), *((dot(d, u), dot(d, w)) for d in (jax.tree.map(jnp.subtract, p, v) for p in through))]
        a, b = (_around(jnp.array(axis), resolution) for axis in zip(*points, strict=True))

    return CostSlice(a, b, _heights(cost, v, u, w, a, b, args), v, u, w)


@functools.partial(jax.jit, static_argnames="cost")
def _heights(cost: Cost, v: Any, u: Any, w: Any, a: Array, b: Array, args: Any) -> Array:
    def row(a: Array) -> Array:
        return jax.vmap(lambda b: cost(axpy(b, w, axpy(a, u, v)), *args))(b)

    # Row by row, so that memory holds as many copies of v as a row has points.
    heights: Array = lax.map(row, a)
    return heights


def _around(x: Array, resolution: int) -> Array:
    margin = 0.25 * jnp.ptp(x)
    return jnp.linspace(jnp.min(x) - margin, jnp.max(x) + margin, resolution)


def _named_directions(cost: Cost, v: Any, name: str, args: tuple[Any, ...], key: Any) -> tuple[Any, Any]:
    flat, unravel = ravel_pytree(v)
    if name not in ("random", "gradient", "eigenvectors"):
        raise RangeError(f"cost_slice: directions must be random, gradient, eigenvectors or two trees, got {name!r}.")
    if size(v) < 2:
        raise ShapeError("cost_slice: a plane needs two variables at least, got one.")
    drawn = jax.random.normal(key, (2, flat.size), flat.dtype)
    if name == "eigenvectors":
        vectors = eigenpairs(cost, v, 2, args=args, key=key).vectors
        return jax.tree.map(lambda x: x[0], vectors), jax.tree.map(lambda x: x[1], vectors)
    u = unravel(drawn[0]) if name == "random" else jax.grad(lambda v: cost(v, *args))(v)
    return u, unravel(drawn[1])


def _orthonormal(u: Any, w: Any) -> tuple[Any, Any]:
    u, w = _unit(u), _unit(w)
    w = axpy(-dot(u, w), u, w)
    left = norm(w)
    w = _unit(w)
    # Once more, for directions that are nearly parallel.
    w = _unit(axpy(-dot(u, w), u, w))
    rounding = 100 * jnp.finfo(left.dtype).eps  # type: ignore[no-untyped-call]
    if not is_traced(left) and not (left > rounding and norm(u) > 0):
        raise RangeError("cost_slice: the directions span no plane: they are parallel, or one is zero.")
    return u, w


def _unit(u: Any) -> Any:
    length = norm(u)
    return jax.tree.map(lambda x: jnp.asarray(x / jnp.where(length > 0, length, 1), x.dtype), u)
