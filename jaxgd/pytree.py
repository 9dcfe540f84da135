"""Arithmetic on pytrees of arrays: what vectors of variables are to the book, pytrees are here."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree


def dot(u: PyTree[Array], v: PyTree[Array]) -> Float[Array, ""]:
    """Inner product of two pytrees of real arrays.

    ⟨u, v⟩ = Σ uᵢvᵢ over all elements of all leaves.

    Shapes: `u` and `v` alike; the result is a scalar of at least float32.
    Source: the book's ∇C · Δv, chapter 1, equation (9).

    >>> float(dot({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([3.0, 4.0])}))
    11.0
    """
    return _sum(jax.tree.map(lambda x, y: _wide(x) * _wide(y), u, v))


def norm(v: PyTree[Array]) -> Float[Array, ""]:
    """Euclidean length of a pytree.

    ‖v‖ = √Σ vᵢ², scaled by the largest element so that neither squares nor their sum leave the dtype's range.

    Shapes: any tree of real arrays; the result is a scalar of at least float32.
    Range: 0 for an empty tree and for zeros; not meant to be differentiated at 0.

    >>> print(f"{norm([jnp.array(3e30), jnp.array([4e30])]):.3g}")  # 9e60 would overflow
    5e+30
    """
    leaves = [_wide(x) for x in jax.tree.leaves(v) if jnp.size(x)]
    if not leaves:
        return jnp.zeros(())
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in leaves]))
    # Kept where its reciprocal, by which XLA divides, is a normal number, and squares of what is left are too.
    limits = jnp.finfo(largest.dtype)  # type: ignore[no-untyped-call]
    scale = jnp.clip(jnp.where(jnp.isfinite(largest), largest, 1), limits.tiny**0.75, limits.max**0.75)
    return scale * jnp.sqrt(_sum([(x / scale) ** 2 for x in leaves]))


def subtract(u: PyTree[Array], v: PyTree[Array]) -> PyTree[Array]:
    """Difference u − v, leaf by leaf.

    >>> subtract((jnp.array(3.0),), (jnp.array(1.0),))
    (Array(2., dtype=float32, weak_type=True),)
    """
    return jax.tree.map(jnp.subtract, u, v)


def axpy(a: Any, x: PyTree[Array], y: PyTree[Array]) -> PyTree[Array]:
    """A step along x from y: a x + y, leaf by leaf, in y's dtypes.

    Shapes: `x` and `y` alike; `a` is a scalar.

    >>> print(axpy(2.0, jnp.array([1.0, 0.0]), jnp.array([1.0, 1.0])))
    [3. 1.]
    """
    return jax.tree.map(lambda x, y: jnp.asarray(a * x + y, jnp.result_type(y)), x, y)


def wide_dtype(v: PyTree[Array]) -> Any:
    """The dtype that costs and lengths of a pytree are kept in: that of its leaves, at least float32.

    >>> print(wide_dtype([jnp.ones(2, jnp.bfloat16)]))
    float32
    """
    dtype: Any = jnp.dtype(jnp.float32)
    for x in jax.tree.leaves(v):
        dtype = jnp.promote_types(dtype, x.dtype)
    return dtype


def size(v: PyTree[Array]) -> int:
    """How many variables a pytree holds: the elements of all its leaves.

    >>> size({"w": jnp.zeros((2, 3)), "b": jnp.zeros(2)})
    8
    """
    return sum(jnp.size(x) for x in jax.tree.leaves(v))


def all_finite(v: PyTree[Array]) -> Bool[Array, ""]:
    """Whether no element of any leaf is infinite or NaN.

    >>> bool(all_finite([jnp.array([1.0, jnp.inf])]))
    False
    """
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(v)], dtype=bool))


def any_nonzero(v: PyTree[Array]) -> Bool[Array, ""]:
    """Whether any element of any leaf is not 0.

    >>> bool(any_nonzero([jnp.zeros(2), jnp.array(0.0)]))
    False
    """
    return jnp.any(jnp.array([jnp.any(x != 0) for x in jax.tree.leaves(v)], dtype=bool))


def select(condition: Bool[Array, ""], u: PyTree[Array], v: PyTree[Array]) -> PyTree[Array]:
    """Choose u where the condition holds, else v: one choice for the whole tree.

    >>> int(select(jnp.array(True), jnp.array(1), jnp.array(2)))
    1
    """
    return jax.tree.map(lambda x, y: jax.lax.select(condition, x, y), u, v)


def _wide(x: Any) -> Array:
    # Sums over many elements are kept in float32 or wider: bfloat16 stops growing at 256 ones.
    return jnp.asarray(x).astype(jnp.promote_types(jnp.result_type(x), jnp.float32))


def _sum(tree: PyTree[Array]) -> Float[Array, ""]:
    return sum((jnp.sum(x) for x in jax.tree.leaves(tree)), start=jnp.zeros(()))
