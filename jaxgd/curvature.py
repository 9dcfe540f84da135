"""The curvature of a cost: products with the Hessian of the cost, and its largest eigenvalues.

The Hessian H is never formed. The methods need only products Hu, each at the cost of about two gradients.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from jaxgd.errors import (
    RangeError,
    ShapeError,
    describe,
    is_traced,
    largest_int,
    require_args,
    require_callable,
    require_count,
    require_key,
    require_real,
    require_scalar,
    require_variables,
    same_shapes,
    shown,
)
from jaxgd.pytree import size, wide_dtype

Cost = Callable[..., Array]


def hessian_vector_product(cost: Cost, v: PyTree[Array], u: PyTree[Array], args: tuple[Any, ...] = ()) -> PyTree[Array]:
    """Return the product of a cost's Hessian with a direction.

    Hu = ∇²C(v) u, by forward-mode over reverse-mode differentiation. It costs about two gradients.

    Args:
        cost: The function; `cost(v, *args)` returns one real scalar.
        v: The point: any pytree of real floating-point arrays.
        u: The direction, a tree like v with the same shapes.
        args: Further arguments of the cost; by default none.

    Returns:
        The product Hu, a tree like v.

    Raises:
        ShapeError: If u is not a tree like v with the same shapes, or holds no variable.
        DtypeError: If v or u is not real floating point, cost is not a function, or args is not a tuple of arrays.

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
    if not same_shapes(v, u):
        ours, theirs = (shown(jax.tree.map(describe, tree), str) for tree in (v, u))
        raise ShapeError(f"{who}: u must be a tree like v, {ours}, with its shapes, got {theirs}.")
    u = jax.tree.map(lambda x, y: jnp.asarray(y, jnp.result_type(x)), v, u)
    return jax.jvp(jax.grad(lambda v: cost(v, *args)), (v,), (u,))[1]


class Eigenpairs(NamedTuple):
    """The largest eigenvalues of a Hessian with their eigenvectors, largest first.

    Under vmap, the batch axes come first.

    Attributes:
        values: The eigenvalues λ, (k,).
        vectors: The eigenvectors u, each of length 1: a tree like v with an axis of length k in front of every leaf.
        residuals: ‖Hu − λu‖, (k,). An eigenvalue of H lies within this distance of λ.
        products: The number of Hessian-vector products made.
        converged: True if all k residuals are within the tolerance.
    """

    values: Float[Array, "*batch k"]
    vectors: PyTree[Array]
    residuals: Float[Array, "*batch k"]
    products: Int[Array, "*batch"]
    converged: Bool[Array, "*batch"]


def eigenpairs(
    cost: Cost,
    v: PyTree[Array],
    k: int = 1,
    *,
    args: tuple[Any, ...] = (),
    rtol: Any = None,
    max_products: int = 1000,
    start: PyTree[Array] | None = None,
    key: PRNGKeyArray | None = None,
) -> Eigenpairs:
    """Find the k largest eigenvalues of a cost's Hessian, with their eigenvectors.

    Hu = λu, by Lanczos' method with full orthogonalization. It restarts with the best vectors found so far until
    ‖Hu − λu‖ ≤ rtol · max|λ| for all k pairs. Largest means towards +∞: λ_max limits η, because gradient descent
    is stable below 2/λ_max.

    Args:
        cost: The function; `cost(v, *args)` returns one real scalar.
        v: The point: any pytree of real floating-point arrays.
        k: The number of eigenvalues, from 1 (default) to the number of variables.
        args: Further arguments of the cost; by default none.
        rtol: The tolerance of the residuals, relative to the largest |λ| found; by default √eps of v's dtype. The error
            of a well-separated eigenvalue is then about eps, because it is about the square of the error of the vector.
        max_products: The search stops at the first restart after this number of Hessian-vector products; at least 1, by
            default 1000.
        start: The first direction of the search, a tree like v, such as the eigenvector at a nearby point. By default
            it is random.
        key: The random key for directions that the search draws; by default `jax.random.key(0)`.

    Returns:
        The eigenvalues, vectors, residuals, count of products and convergence, as `Eigenpairs`.

    Raises:
        ShapeError: If the cost is not one real scalar, v holds no variable, or start differs from v in size.
        DtypeError: If v or start is not real floating point, k or max_products is not a whole number, or cost, args,
            rtol or key has the wrong type.
        RangeError: If k, rtol or max_products is out of range.

    Source: Wu and Simon, SIAM J. Matrix Anal. 22 (2000) 602–616, for the restarts.

    Example:
        >>> pairs = eigenpairs(lambda v: v[0] ** 2 + 3 * v[1] ** 2, jnp.zeros(2), 2)
        >>> print(pairs.values.round(4))
        [6. 2.]
    """
    require_variables("eigenpairs", "v", v)
    v = jax.tree.map(jnp.asarray, v)
    require_count("eigenpairs", "k", k, most=size(v))
    require_count("eigenpairs", "max_products", max_products, most=largest_int())
    require_args("eigenpairs", args)
    require_scalar("eigenpairs", cost, v, *args)
    if rtol is not None:
        require_real("eigenpairs", "rtol", rtol)
        if not is_traced(rtol) and not float(rtol) >= 0:
            raise RangeError(f"eigenpairs: rtol must be at least 0, got {shown(rtol, str)}.")
    if key is not None:
        require_key("eigenpairs", key)
    if start is not None:
        require_variables("eigenpairs", "start", start)
    kind = wide_dtype(v)
    first = None if start is None else _flat(start, kind)
    if first is not None and first.size != size(v):
        raise ShapeError(f"eigenpairs: start must be a direction like v, with {size(v)} elements, got {first.size}.")
    rtol = jnp.sqrt(jnp.finfo(kind).eps) if rtol is None else jnp.asarray(rtol, kind)  # type: ignore[no-untyped-call]
    key = jax.random.key(0) if key is None else key
    pairs: Eigenpairs = _eigenpairs(cost, v, args, first, key, rtol, max_products, k)
    return pairs


def _flat(v: PyTree[Array], kind: Any) -> Array:
    flat: Array = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, kind), v))[0]
    return flat


@functools.partial(jax.jit, static_argnames=("cost", "k"))
def _eigenpairs(
    cost: Cost, v: Any, args: Any, first: Array | None, key: PRNGKeyArray, rtol: Array, most: Any, k: int
) -> Eigenpairs:
    kind = rtol.dtype
    flat, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, kind), v))

    def product(u: Array) -> Array:
        hu = hessian_vector_product(cost, v, jax.tree.map(lambda x, y: jnp.asarray(y, x.dtype), v, unravel(u)), args)
        return _flat(hu, kind)

    noise = jax.random.normal(key, (2, flat.size), kind)
    begin = noise[0] if first is None else _unit(first) + 1e-3 * _unit(noise[0])
    values, vectors, residuals, products = _lanczos(product, begin, noise[1], k, rtol, most)
    largest = jnp.max(jnp.abs(values))
    converged = jnp.all(residuals <= rtol * largest) & jnp.all(jnp.isfinite(values) & jnp.isfinite(residuals))
    return Eigenpairs(values, jax.vmap(unravel)(vectors), residuals, products, converged)


class _Basis(NamedTuple):
    """The orthonormal rows `q`, the projection `t` of H on these rows, and the Ritz pairs: the eigenpairs of `t`."""

    q: Array
    t: Array
    values: Array
    vectors: Array
    residuals: Array
    products: Array


def _lanczos(
    product: Callable[[Array], Array], start: Array, spare: Array, k: int, rtol: Array, most: Any
) -> tuple[Array, Array, Array, Array]:
    n, kind = start.size, start.dtype
    m = min(n, max(2 * k + 6, 16))
    kept = min(k + (m - k) // 2, m - 1)

    def grow(j: Array, q_t: tuple[Array, Array]) -> tuple[Array, Array]:
        q, t = q_t
        w = product(q[j])
        h = _dot(q, w)
        w = w - _dot(h, q)
        # Orthogonalize twice. One pass leaves parts of the other rows, which would return as copies of eigenvalues.
        again = _dot(q, w)
        w, h = w - _dot(again, q), h + again
        rest = _length(w)
        lost = rest <= 100 * jnp.finfo(kind).eps * _length(h)  # type: ignore[no-untyped-call]
        # H maps the present rows into themselves. Continue with a new direction, if one is left.
        other = jnp.roll(spare, j)
        for _ in range(2):
            other = other - _dot(_dot(q, other), q)
        w = jnp.where(lost, jnp.where(j + 1 < n, other / _length(other), 0), w / jnp.where(rest > 0, rest, 1))
        t = t.at[:, j].set(h).at[j + 1, j].set(jnp.where(lost, 0, rest))
        return q.at[j + 1].set(w), t

    def sweep(s: _Basis) -> _Basis:
        first = jnp.where(s.products == 0, 0, kept)
        q, t = lax.fori_loop(first, m, grow, (s.q, s.t))
        # Use each column of t down to its diagonal: the entries below it are older.
        upper = jnp.triu(t[:m])
        values, y = jnp.linalg.eigh(upper + upper.T - jnp.diag(jnp.diag(upper)))
        values, y = values[::-1], y[:, ::-1]
        # Rounding in H limits the accuracy of a residual, even if the last row suggests a smaller one.
        rounding = 4 * jnp.finfo(kind).eps * jnp.max(jnp.abs(values))  # type: ignore[no-untyped-call]
        residuals = jnp.maximum(jnp.abs(t[m, m - 1] * y[m - 1, :k]), rounding)
        best = _dot(y[:, : max(k, kept)].T, q[:m])
        q = jnp.zeros_like(q).at[:kept].set(best[:kept]).at[kept].set(q[m])
        t = jnp.zeros_like(t).at[jnp.arange(kept), jnp.arange(kept)].set(values[:kept])
        return _Basis(q, t, values[:k], best[:k], residuals, s.products + m - first)

    def more(s: _Basis) -> Any:
        done = jnp.all(s.residuals <= rtol * jnp.max(jnp.abs(s.values)))
        return ~done & (s.products < most) & jnp.all(jnp.isfinite(s.values))

    q = jnp.zeros((m + 1, n), kind).at[0].set(_unit(start))
    nothing = jnp.zeros(k, kind), jnp.zeros((k, n), kind), jnp.full(k, jnp.inf, kind), jnp.array(0)
    s = lax.while_loop(more, sweep, _Basis(q, jnp.zeros((m + 1, m), kind), *nothing))
    return s.values, s.vectors, s.residuals, s.products


# TF32 products would not keep the vectors orthogonal to rounding.
_dot = functools.partial(jnp.matmul, precision="highest")


def _length(x: Array) -> Any:
    # The scale keeps the squares in range.
    largest = jnp.max(jnp.abs(x))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return scale * jnp.sqrt(jnp.sum((x / scale) ** 2))


def _unit(x: Array) -> Array:
    length = _length(x)
    return x / jnp.where(length > 0, length, 1)


class Sharpness(NamedTuple):
    """The largest eigenvalue λ_max of a Hessian. Gradient descent with η is stable at this point while λ_max < 2/η.

    Attributes:
        value: The eigenvalue λ_max, a scalar, with the batch axes in front under vmap.
        vector: Its eigenvector u, of length 1: a tree like v.
        residual: ‖Hu − λu‖. An eigenvalue of H lies within this distance of λ_max.
        products: The number of Hessian-vector products made.
        converged: True if the residual is within the tolerance.
    """

    value: Float[Array, "*batch"]
    vector: PyTree[Array]
    residual: Float[Array, "*batch"]
    products: Int[Array, "*batch"]
    converged: Bool[Array, "*batch"]


def sharpness(
    cost: Cost,
    v: PyTree[Array],
    *,
    args: tuple[Any, ...] = (),
    rtol: Any = None,
    max_products: int = 1000,
    start: PyTree[Array] | None = None,
    key: PRNGKeyArray | None = None,
) -> Sharpness:
    """Find the largest eigenvalue λ_max of a cost's Hessian.

    λ_max = max ⟨u, Hu⟩ over all u of length 1. This is the first pair of `eigenpairs`.

    Args:
        cost: The function; `cost(v, *args)` returns one real scalar.
        v: The point: any pytree of real floating-point arrays.
        args: Further arguments of the cost; by default none.
        rtol: The tolerance of the residual, relative to |λ_max|; by default √eps of v's dtype.
        max_products: The search stops at the first restart after this number of Hessian-vector products; at least 1, by
            default 1000.
        start: The first direction of the search, a tree like v. To follow a descent, pass the last `vector`. By default
            it is random.
        key: The random key for directions that the search draws; by default `jax.random.key(0)`.

    Returns:
        The eigenvalue, its vector, residual, count of products and convergence, as `Sharpness`.

    Raises:
        ShapeError: If the cost is not one real scalar, v holds no variable, or start differs from v in size.
        DtypeError: If v or start is not real floating point, max_products is not a whole number, or cost, args, rtol or
            key has the wrong type.
        RangeError: If rtol or max_products is out of range.

    Source: Cohen et al., ICLR 2021, for the link to gradient descent.

    Example:
        >>> print(f"{sharpness(lambda v: v[0] ** 2 + 3 * v[1] ** 2, jnp.zeros(2)).value:.4f}")
        6.0000
    """
    pairs = eigenpairs(cost, v, args=args, rtol=rtol, max_products=max_products, start=start, key=key)
    vector = jax.tree.map(lambda x: x[0], pairs.vectors)
    return Sharpness(pairs.values[0], vector, pairs.residuals[0], pairs.products, pairs.converged)
