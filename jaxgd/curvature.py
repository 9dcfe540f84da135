"""How a cost curves: products with its Hessian, and the largest eigenvalues.

No Hessian is ever formed: all that is needed of it are products Hu, each for about the price of two gradients.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from jaxgd.errors import ShapeError, require_count, require_scalar, require_variables
from jaxgd.pytree import size, wide_dtype

Cost = Callable[..., Array]


def hessian_vector_product(cost: Cost, v: PyTree[Array], u: PyTree[Array], args: tuple[Any, ...] = ()) -> PyTree[Array]:
    """The Hessian of a cost times a direction.

    Hu = ∇²C(v) u, by forward mode over reverse mode.

    Shapes: `v` and `u` alike, and so is the result. `cost(v, *args)` returns one real scalar.
    Raises: ShapeError unless u is a tree like v and the cost a scalar.
    Source: Pearlmutter, Neural Computation 6 (1994) 147–160.

    >>> print(hessian_vector_product(lambda v: v[0] ** 2 * v[1], jnp.array([1.0, 3.0]), jnp.array([1.0, 0.0])))
    [6. 2.]
    """
    ours, theirs = str(jax.tree.structure(v)), str(jax.tree.structure(u))
    if ours != theirs or any(jnp.shape(x) != jnp.shape(y) for x, y in zip(*map(jax.tree.leaves, (v, u)), strict=True)):
        raise ShapeError(f"hessian_vector_product: u must be a tree like v, {ours}, with its shapes, got {theirs}.")
    u = jax.tree.map(lambda x, y: jnp.asarray(y, jnp.result_type(x)), v, u)
    return jax.jvp(jax.grad(lambda v: cost(v, *args)), (v,), (u,))[1]


class Eigenpairs(NamedTuple):
    """The largest eigenvalues of a Hessian and their directions, the largest first.

    Shapes: `values` and `residuals` are (k,); `vectors` is a tree like v with k in front of every leaf, each vector of
    length 1. `residuals` are ‖Hu − λu‖, by which an eigenvalue is known at least; `products` were made. `converged` is
    whether all residuals are within the tolerance.
    """

    values: Float[Array, "*lanes k"]
    vectors: PyTree[Array]
    residuals: Float[Array, "*lanes k"]
    products: Int[Array, "*lanes"]
    converged: Bool[Array, "*lanes"]


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
    """The k largest eigenvalues of a cost's Hessian, with their eigenvectors.

    Hu = λu by Lanczos' method with full orthogonalization, restarted with the best vectors found so far until
    ‖Hu − λu‖ ≤ rtol · max|λ| for all k. Largest means towards +∞: what limits η is λ_max < 2/η.

    Shapes: any pytree v of floats; `cost(v, *args)` returns one real scalar.
    Range: `k` from 1 to the number of variables; `rtol` by default √eps of v's dtype: then an eigenvalue that is well
    apart from the next is off by about eps, since its error is the square of its vector's. `start` is a direction like
    v from which the search begins, as the eigenvector found at a point nearby; `key` draws it otherwise.
    Raises: ShapeError, DtypeError or RangeError for a cost, variables or counts that cannot serve.
    Source: Wu and Simon, SIAM J. Matrix Anal. 22 (2000) 602–616, for the restarts.

    >>> pairs = eigenpairs(lambda v: v[0] ** 2 + 3 * v[1] ** 2, jnp.zeros(2), 2)
    >>> print(pairs.values.round(4))
    [6. 2.]
    """
    require_variables("eigenpairs", "v", v)
    v = jax.tree.map(jnp.asarray, v)
    require_count("eigenpairs", "k", k, most=size(v))
    require_count("eigenpairs", "max_products", max_products)
    require_scalar("eigenpairs", cost, v, *args)
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
    converged = jnp.all(residuals <= rtol * largest) & jnp.all(jnp.isfinite(values))
    return Eigenpairs(values, jax.vmap(unravel)(vectors), residuals, products, converged)


class _Basis(NamedTuple):
    """Orthonormal rows `q`, with H projected on them in `t`, and what that tells of H."""

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
        # Once is not enough: what is left of the other rows would come back as copies of eigenvalues.
        again = _dot(q, w)
        w, h = w - _dot(again, q), h + again
        rest = _length(w)
        lost = rest <= 100 * jnp.finfo(kind).eps * _length(h)  # type: ignore[no-untyped-call]
        # H maps the rows so far into themselves: on with another direction, if there is one.
        other = jnp.roll(spare, j)
        for _ in range(2):
            other = other - _dot(_dot(q, other), q)
        w = jnp.where(lost, jnp.where(j + 1 < n, other / _length(other), 0), w / jnp.where(rest > 0, rest, 1))
        t = t.at[:, j].set(h).at[j + 1, j].set(jnp.where(lost, 0, rest))
        return q.at[j + 1].set(w), t

    def sweep(s: _Basis) -> _Basis:
        first = jnp.where(s.products == 0, 0, kept)
        q, t = lax.fori_loop(first, m, grow, (s.q, s.t))
        # Of each column, what is at and above the diagonal: below it stands what was known before.
        upper = jnp.triu(t[:m])
        values, y = jnp.linalg.eigh(upper + upper.T - jnp.diag(jnp.diag(upper)))
        values, y = values[::-1], y[:, ::-1]
        # Closer than rounding in H no residual is known, however small the last row makes it.
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


# Vectors that are to be orthogonal to rounding cannot be multiplied in TF32.
_dot = functools.partial(jnp.matmul, precision="highest")


def _length(x: Array) -> Any:
    # With squares kept in range.
    largest = jnp.max(jnp.abs(x))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return scale * jnp.sqrt(jnp.sum((x / scale) ** 2))


def _unit(x: Array) -> Array:
    length = _length(x)
    return x / jnp.where(length > 0, length, 1)


class Sharpness(NamedTuple):
    """The largest eigenvalue of a Hessian. Gradient descent with η is stable there while it is below 2/η.

    `vector` is its direction, of length 1; `residual` is ‖Hu − λu‖; `products` were made; `converged` is whether the
    residual is within the tolerance.
    """

    value: Float[Array, "*lanes"]
    vector: PyTree[Array]
    residual: Float[Array, "*lanes"]
    products: Int[Array, "*lanes"]
    converged: Bool[Array, "*lanes"]


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
    """The largest eigenvalue λ_max of a cost's Hessian: the first of `eigenpairs`, with the same arguments.

    max ⟨u, Hu⟩ over all u of length 1.

    Shapes: any pytree v of floats; `cost(v, *args)` returns one real scalar.
    Range: `rtol` and the others as for `eigenpairs`; to follow a descent, pass the last `vector` as `start`.
    Raises: ShapeError, DtypeError or RangeError for a cost, variables or counts that cannot serve.
    Source: Cohen et al., ICLR 2021, for what it says of gradient descent.

    >>> print(f"{sharpness(lambda v: v[0] ** 2 + 3 * v[1] ** 2, jnp.zeros(2)).value:.4f}")
    6.0000
    """
    pairs = eigenpairs(cost, v, args=args, rtol=rtol, max_products=max_products, start=start, key=key)
    vector = jax.tree.map(lambda x: x[0], pairs.vectors)
    return Sharpness(pairs.values[0], vector, pairs.residuals[0], pairs.products, pairs.converged)
