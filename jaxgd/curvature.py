"""The curvature of a cost: products with its Hessian, and the Hessian's extreme eigenvalues.

The Hessian H is never formed. The methods need only products Hu. Each product takes about as long as two gradients.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxgd.errors import (
    RangeError,
    ShapeError,
    is_traced,
    largest_int,
    require_args,
    require_callable,
    require_choice,
    require_count,
    require_key,
    require_like,
    require_real,
    require_scalar,
    require_variables,
    shown,
)
from jaxgd.mesh import control
from jaxgd.mesh.axes import automatic_axes, require_checked_axes, require_equal_cost, varying
from jaxgd.pytree import norm, size, unit_vector, wide_dtype
from jaxgd.seen import seen
from jaxgd.typed import Generic, Real, Tree, V, finfo, grad, jit, jvp, ravel_pytree, tree_map, vmap

Cost = Callable[..., Array]


@automatic_axes
def hessian_vector_product(cost: Cost, v: V, u: Tree, args: tuple[Any, ...] = ()) -> V:
    """Return the product of a cost's Hessian with a direction.

    Hu = ∇²C(v) u, by forward-mode over reverse-mode differentiation. The product takes about as long as two gradients.

    Args:
        cost: The function; `cost(v, *args)` returns one real scalar.
        v: The point: any pytree of real floating-point arrays.
        u: The direction, a tree like v with the same shapes.
        args: Further arguments of the cost; by default none.

    Returns:
        The product Hu, a tree like v.

    Raises:
        ShapeError: If u is not a tree like v with the same shapes, or v holds no variable.
        DtypeError: If v or u is not real floating point, cost is not a function, or args is not a tuple of arrays.
        RangeError: Inside `jax.shard_map`, if the cost differs between devices with the same v, or communicates between
            devices with `check_vma=False`.

    Source: Pearlmutter, Neural Computation 6 (1994) 147–160.

    Example:
        >>> print(hessian_vector_product(lambda v: v[0] ** 2 * v[1], jnp.array([1.0, 3.0]), jnp.array([1.0, 0.0])))
        [6. 2.]
    """
    who = "hessian_vector_product"
    require_callable(who, "cost", cost)
    for name, tree in (("v", v), ("u", u)):
        require_variables(who, name, tree)
    require_args(who, args)
    require_like(who, "u", u, "v", v)
    # Inside jax.shard_map, JAX differentiates some loops in a cost only if u and v vary over the same axes.
    u = varying(tree_map(lambda x, y: jnp.asarray(y, jnp.result_type(x)), v, u), v)

    def equal_cost(x: V) -> Array:
        c = cost(x, *args)
        require_equal_cost(who, c, v)
        return c

    require_checked_axes(who, equal_cost, v)
    return jvp(grad(equal_cost), (v,), (u,))[1]


class Eigenpairs(NamedTuple, Generic[V]):
    """The largest or smallest eigenvalues of a Hessian with their eigenvectors, the most extreme first.

    Under vmap, the batch axes come first.

    Attributes:
        values: The eigenvalues λ, (k,).
        vectors: The eigenvectors u, each of length 1: a tree like v with an axis of length k in front of every leaf.
        residuals: ‖Hu − λu‖, but at least 4 eps · ‖H‖, (k,). An eigenvalue of H lies within this distance of λ.
        products: The number of Hessian-vector products computed.
        converged: True if all k residuals are within the tolerance, and a search orthogonal to the k vectors found
            no other eigenvalue that belongs among the k.
    """

    values: Float[Array, "*batch k"]
    vectors: V
    residuals: Float[Array, "*batch k"]
    products: Int[Array, "*batch"]
    converged: Bool[Array, "*batch"]


@automatic_axes
def eigenpairs(
    cost: Cost,
    v: V,
    k: int = 1,
    *,
    which: Literal["LA", "SA"] = "LA",
    args: tuple[Any, ...] = (),
    rtol: Real | None = None,
    max_products: int = 1000,
    start: Tree | None = None,
    key: PRNGKeyArray | None = None,
) -> Eigenpairs[V]:
    """Find the k largest or smallest eigenvalues of a cost's Hessian, with their eigenvectors.

    Hu = λu, by Lanczos' method with full orthogonalization. The search restarts with the best vectors so far until
    ‖Hu − λu‖ ≤ rtol · max|λ| for all k pairs. It then continues in a new direction, orthogonal to these vectors, until
    the k eigenvalues stay the same. One direction d is not enough: the products Hd, H²d, … show only one eigenvector of
    a repeated eigenvalue. They show almost nothing of an eigenvector that is nearly orthogonal to d. For at most
    max(16, 2k + 6) variables, the search covers all directions at once and does not continue.

    λ_max limits η: gradient descent is stable below 2/λ_max. At a minimum λ_min ≥ 0. If ∇C = 0 and λ_min < 0, the point
    is a saddle or a maximum.

    Rounding leaves residuals of a few eps · ‖H‖. The search therefore accepts a residual of at most 16 eps · ‖H‖ even
    above the tolerance, but `converged` is then False. If |λ| ≤ 4 eps · ‖H‖ for all k pairs, the eigenvalues are 0
    within rounding, and the tolerance is 16 eps · ‖H‖.

    Args:
        cost: The function; `cost(v, *args)` returns one real scalar.
        v: The point: any pytree of real floating-point arrays.
        k: The number of eigenvalues, from 1 (default) to the number of variables.
        which: The end of the spectrum, as in SciPy's `eigsh`: "LA" for the largest eigenvalues, towards +∞ (default),
            or "SA" for the smallest, towards −∞.
        args: Further arguments of the cost; by default none.
        rtol: The tolerance of the residuals, relative to the largest |λ| of the k pairs. The default is √eps of v's
            dtype, or of float32 if that is wider. A well-separated eigenvalue then has a relative error of about eps.
        max_products: The search stops at the first restart after this number of Hessian-vector products; at least 1, by
            default 1000.
        start: The first direction of the search, a tree like v, such as the eigenvector at a nearby point. The search
            adds a random part of 0.1% to it. By default the first direction is random.
        key: The random key for directions that the search draws; by default `jax.random.key(0)`.

    Returns:
        The eigenvalues, vectors, residuals, count of products and convergence, as `Eigenpairs`.

    Raises:
        ShapeError: If the cost is not one real scalar, v holds no variable, start differs from v in size, or key is an
            array of keys.
        DtypeError: If v or start is not real floating point, k or max_products is not a whole number, or cost, args,
            rtol or key has the wrong type.
        RangeError: If k, which, rtol or max_products is out of range. Also as for `hessian_vector_product`.

    Source: Wu and Simon, SIAM J. Matrix Anal. 22 (2000) 602–616, for the restarts.

    Example:
        >>> pairs = eigenpairs(lambda v: v[0] ** 2 + 3 * v[1] ** 2, jnp.zeros(2), 2)
        >>> print(pairs.values.round(4))
        [6. 2.]
        >>> saddle = eigenpairs(lambda v: v[0] ** 2 - 3 * v[1] ** 2, jnp.zeros(2), which="SA")
        >>> print(saddle.values.round(4))
        [-6.]
    """
    return _checked("eigenpairs", cost, v, k, which, args, rtol, max_products, start, key)


def _checked(
    who: str,
    cost: Cost,
    v: V,
    k: int,
    which: Literal["LA", "SA"],
    args: tuple[Any, ...],
    rtol: Real | None,
    max_products: int,
    start: Tree | None,
    key: PRNGKeyArray | None,
) -> Eigenpairs[V]:
    """Check the arguments, and find the eigenpairs. Errors name the function `who`."""
    require_variables(who, "v", v)
    v = tree_map(jnp.asarray, v)
    require_count(who, "k", k, most=size(v))
    require_choice(who, "which", which, ("LA", "SA"))
    require_count(who, "max_products", max_products, most=largest_int())
    require_args(who, args)
    require_scalar(who, cost, v, *args)
    if rtol is not None:
        require_real(who, "rtol", rtol)
        if not is_traced(rtol) and not float(rtol) >= 0:
            raise RangeError(f"{who}: rtol must be at least 0, got {shown(rtol, str)}.")
    if key is not None:
        require_key(who, key)
    if start is not None:
        require_variables(who, "start", start)
    kind = wide_dtype(v)
    first = None if start is None else _flat(start, kind)
    if first is not None and first.size != size(v):
        raise ShapeError(f"{who}: start must be a direction like v, with {size(v)} elements, got {first.size}.")
    limit = jnp.sqrt(finfo(kind).eps) if rtol is None else jnp.asarray(rtol, kind)
    key = jax.random.key(0) if key is None else key
    return _eigenpairs(seen(cost), v, args, first, key, limit, max_products, which == "SA", k)


def _flat(v: Tree, kind: np.dtype[Any]) -> Array:
    return ravel_pytree(tree_map(lambda x: jnp.asarray(x, kind), v))[0]


@jit(static_argnames=("cost", "k"))
def _eigenpairs(
    cost: Cost,
    v: V,
    args: tuple[Any, ...],
    first: Array | None,
    key: PRNGKeyArray,
    rtol: Array,
    most: ArrayLike,
    smallest: ArrayLike,
    k: int,
) -> Eigenpairs[V]:
    kind = rtol.dtype
    flat, unravel = ravel_pytree(tree_map(lambda x: jnp.asarray(x, kind), v))

    def product(u: Array) -> Array:
        hu = hessian_vector_product(cost, v, tree_map(lambda x, y: jnp.asarray(y, x.dtype), v, unravel(u)), args)
        return _flat(hu, kind)

    noise = jax.random.normal(key, (2, flat.size), kind)
    begin = noise[0] if first is None else _unit(first) + 1e-3 * _unit(noise[0])
    s = _lanczos(product, begin, noise[1], k, smallest, rtol, most)
    return Eigenpairs(s.values, vmap(unravel)(s.vectors), s.residuals, s.products, s.converged)


class _Search(NamedTuple):
    q: Array  # orthonormal rows; rows from `first` on are 0
    hq: Array  # their products with H
    first: Array  # the number of rows that the next sweep keeps
    next: Array  # the direction of the next row
    values: Array
    vectors: Array
    residuals: Array
    products: Array
    settled: Array  # the values at the latest restart in a new direction
    copies: Array  # the number of restarts in a new direction, which find copies of repeated eigenvalues
    scale: Array  # the largest |λ| so far, an estimate of ‖H‖
    done: Array
    converged: Array


def _lanczos(
    product: Callable[[Array], Array],
    start: Array,
    spare: Array,
    k: int,
    smallest: ArrayLike,
    rtol: Array,
    most: ArrayLike,
) -> _Search:
    n, kind = start.size, start.dtype
    eps = finfo(kind).eps
    m = min(n, max(2 * k + 6, 16))
    kept = min(k + (m - k) // 2, m - 1)
    # Once all k pairs are found, the search continues in new directions; `eigenpairs` states the reason. For k > 1, it
    # also computes pair k + 1, whose residual must be small compared with the gap between the values k and k + 1.
    checked = m < n
    wanted = k + (checked and k > 1)

    def outside(q: Array, x: Array) -> Array:
        # Orthogonalize twice. After one pass, rounding leaves components along the rows, which would give copies of
        # eigenvalues.
        for _ in range(2):
            x = x - _dot(_dot(q, x), q)
        return x

    def grow(j: Array, rows: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        q, hq, direction = rows
        x = outside(q, direction)
        # If the span of the rows is invariant under H, continue in a new direction.
        lost = norm(x) <= 100 * eps * norm(direction)
        x = _unit(jnp.where(lost, outside(q, jnp.roll(spare, j)), x))
        hx = product(x)
        return q.at[j].set(x), hq.at[j].set(hx), hx

    def sweep(s: _Search) -> _Search:
        q, hq, _ = control.fori_loop(s.first, m, grow, (s.q, s.hq, s.next))
        t = _dot(q, hq.T)
        values, y = jnp.linalg.eigh((t + t.T) / 2)
        scale = jnp.maximum(s.scale, jnp.max(jnp.abs(values)))
        values, y = (jnp.where(smallest, x, x[..., ::-1]) for x in (values, y))
        best, products = (_dot(y[:, : max(wanted, kept)].T, rows) for rows in (q, hq))
        errors = vmap(norm)(products[:wanted] - values[:wanted, None] * best[:wanted])
        # Rounding in the products with H makes a smaller residual meaningless.
        residuals = jnp.maximum(errors, 4 * eps * scale)
        rounding = 16 * eps * scale
        largest = jnp.max(jnp.abs(values[:k]))
        # Eigenvalues that are 0 within rounding have no relative accuracy.
        tolerance = jnp.where(largest <= rounding / 4, rounding, rtol * largest)
        limit = jnp.maximum(tolerance, rounding)
        complete = jnp.all(residuals[:k] <= limit) | (m == n)
        done, again = complete, jnp.array(False)
        if checked:
            again = complete & ~jnp.all(jnp.abs(values[:k] - s.settled) <= limit)
            done = complete & ~again
        if wanted > k:
            done &= residuals[k] <= jnp.maximum(jnp.abs(values[k] - values[k - 1]) / 100, limit)
        # Before a new direction, keep only the k vectors.
        first = jnp.where(again, k, kept)
        stays = jnp.arange(kept)[:, None] < first
        worst = jnp.argmax(residuals)
        rest = products[worst] - values[worst] * best[worst]
        return _Search(
            jnp.zeros_like(q).at[:kept].set(jnp.where(stays, best[:kept], 0)),
            jnp.zeros_like(q).at[:kept].set(jnp.where(stays, products[:kept], 0)),
            first,
            jnp.where(again, jnp.roll(spare, m + s.copies), rest),
            values[:k],
            best[:k],
            residuals[:k],
            s.products + m - s.first,
            jnp.where(again, values[:k], s.settled),
            s.copies + again,
            scale,
            done,
            done & jnp.all(residuals[:k] <= tolerance) & jnp.all(jnp.isfinite(residuals)),
        )

    def more(s: _Search) -> Array:
        return ~s.done & (s.products < most) & jnp.all(jnp.isfinite(s.values))

    rows, none, no = jnp.zeros((m, n), kind), jnp.array(0), jnp.array(False)
    unknown, zero = jnp.full(k, jnp.inf, kind), jnp.zeros((), kind)
    search = _Search(
        rows, rows, none, _unit(start), jnp.zeros(k, kind), rows[:k], unknown, none, unknown, none, zero, no, no
    )
    end: _Search = control.while_loop(more, sweep, search)
    return end


# With TF32 products, the vectors would not stay orthogonal within rounding.
def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _unit(x: Array) -> Array:
    return unit_vector(x, x.dtype)[0]


class Sharpness(NamedTuple, Generic[V]):
    """The largest eigenvalue λ_max of a Hessian at a point v. Gradient descent with η is stable at v if λ_max < 2/η.

    Attributes:
        value: The eigenvalue λ_max, a scalar, with the batch axes in front under vmap.
        vector: Its eigenvector u, of length 1: a tree like v.
        residual: ‖Hu − λu‖, but at least 4 eps · ‖H‖. An eigenvalue of H lies within this distance of `value`.
        products: The number of Hessian-vector products computed.
        converged: True if the residual is within the tolerance, and a search in a new direction found no larger
            eigenvalue.
    """

    value: Float[Array, "*batch"]
    vector: V
    residual: Float[Array, "*batch"]
    products: Int[Array, "*batch"]
    converged: Bool[Array, "*batch"]


@automatic_axes
def sharpness(
    cost: Cost,
    v: V,
    *,
    args: tuple[Any, ...] = (),
    rtol: Real | None = None,
    max_products: int = 1000,
    start: Tree | None = None,
    key: PRNGKeyArray | None = None,
) -> Sharpness[V]:
    """Find the largest eigenvalue λ_max of a cost's Hessian.

    λ_max = max ⟨u, Hu⟩ over all u of length 1. This is the pair of `eigenpairs` with k = 1. If the first direction is
    almost orthogonal to the eigenvector, one search may find only the second largest eigenvalue. The search is
    therefore repeated in a new direction, orthogonal to the vector found, until the value stays the same.

    Args:
        cost: The function; `cost(v, *args)` returns one real scalar.
        v: The point: any pytree of real floating-point arrays.
        args: Further arguments of the cost; by default none.
        rtol: The tolerance of the residual, relative to |λ_max|; by default √eps of v's dtype, or of float32 if
            that is wider.
        max_products: The search stops at the first restart after this number of Hessian-vector products; at least 1, by
            default 1000.
        start: The first direction of the search, a tree like v. To follow a descent, pass the `vector` found at the
            point before. The search adds a random part of 0.1% to it. By default the first direction is random.
        key: The random key for directions that the search draws; by default `jax.random.key(0)`.

    Returns:
        The eigenvalue, its vector, residual, count of products and convergence, as `Sharpness`.

    Raises:
        ShapeError: If the cost is not one real scalar, v holds no variable, start differs from v in size, or key is an
            array of keys.
        DtypeError: If v or start is not real floating point, max_products is not a whole number, or cost, args, rtol or
            key has the wrong type.
        RangeError: If rtol or max_products is out of range. Also as for `hessian_vector_product`.

    Source: Cohen et al., ICLR 2021, for the link to gradient descent.

    Example:
        >>> print(f"{sharpness(lambda v: v[0] ** 2 + 3 * v[1] ** 2, jnp.zeros(2)).value:.4f}")
        6.0000
    """
    pairs = _checked("sharpness", cost, v, 1, "LA", args, rtol, max_products, start, key)
    vector = tree_map(lambda x: x[0], pairs.vectors)
    return Sharpness(pairs.values[0], vector, pairs.residuals[0], pairs.products, pairs.converged)
