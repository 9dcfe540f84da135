"""Arithmetic on pytrees of real arrays. Each pytree stands for one vector of variables, as in the book."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float

from jaxgd.typed import Tree, V, finfo, optimization_barrier, tree_leaves, tree_map


def dot(u: Tree, v: Tree) -> Float[Array, ""]:
    """Return the inner product of two pytrees of real arrays.

    ⟨u, v⟩ = Σ uᵢvᵢ over all elements of all leaves.

    Args:
        u: Any tree of real arrays.
        v: A tree like u, with the same shapes.

    Returns:
        A scalar, in float32 or wider.

    Source: Nielsen, chapter 1, equation (9): ∇C · Δv.

    Example:
        >>> float(dot({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([3.0, 4.0])}))
        11.0
    """
    return _sum(tree_map(lambda x, y: _wide(x) * _wide(y), u, v))


def norm(v: Tree) -> Float[Array, ""]:
    """Return the Euclidean length of a pytree.

    ‖v‖ = √Σ vᵢ². The elements are first divided by the largest absolute value, so that the sum of the squares neither
    overflows nor underflows. The derivative at 0 is undefined.

    Args:
        v: Any tree of real arrays.

    Returns:
        A scalar, in float32 or wider; 0 for an empty tree.

    Example:
        >>> print(f"{norm([jnp.array(3e30), jnp.array([4e30])]):.3g}")  # 9e60 would overflow
        5e+30
    """
    leaves = [_wide(x) for x in tree_leaves(v) if jnp.size(x)]
    if not leaves:
        return jnp.zeros(())
    scale = _scale(leaves)
    return scale * jnp.sqrt(_sum([(x / scale) ** 2 for x in leaves]))


def distance(u: V, v: V) -> Float[Array, ""]:
    """Return ‖u − v‖ for trees with at least one element, without storing u − v.

    >>> float(distance([jnp.array(4.0), jnp.array(3.0)], [jnp.array(1.0), jnp.array(-1.0)]))
    5.0
    """

    def differences(u: V, v: V) -> list[Array]:
        return [_wide(x) for x in tree_leaves(subtract(u, v))]

    # Without the barrier, XLA would keep u − v for the second pass instead of computing it again.
    u, v, scale = optimization_barrier((u, v, _scale(differences(u, v))))
    return jnp.asarray(scale * jnp.sqrt(_sum([(x / scale) ** 2 for x in differences(u, v)])))


def subtract(u: V, v: V) -> V:
    """Return the difference u − v, leaf by leaf.

    >>> subtract((jnp.array(3.0),), (jnp.array(1.0),))
    (Array(2., dtype=float32, weak_type=True),)
    """
    return tree_map(jnp.subtract, u, v)


def axpy(a: ArrayLike, x: V, y: V) -> V:
    """Return a x + y, leaf by leaf, in y's dtypes.

    Args:
        a: A scalar.
        x: Any tree of real arrays.
        y: A tree like x, with the same shapes.

    Returns:
        A tree like y.

    Example:
        >>> print(axpy(2.0, jnp.array([1.0, 0.0]), jnp.array([1.0, 1.0])))
        [3. 1.]
    """
    return tree_map(lambda x, y: jnp.asarray(a * x + y, jnp.result_type(y)), x, y)


def scaled(a: ArrayLike, x: V) -> V:
    """Return a x, leaf by leaf, in x's dtypes.

    >>> print(scaled(2.0, jnp.array([1.0, 0.5])))
    [2. 1.]
    """
    return tree_map(lambda x: jnp.asarray(a * x, x.dtype), x)


def unit_vector(v: V, dtype: DTypeLike) -> tuple[V, Float[Array, ""]]:
    """Return v/‖v‖, and ‖v‖ in the given dtype. For v = 0, return 0 in place of v/‖v‖.

    >>> print(unit_vector(jnp.array([3.0, 4.0]), jnp.float32)[0])
    [0.6 0.8]
    """
    length = norm(v).astype(dtype)
    return tree_map(lambda x: jnp.asarray(x / jnp.where(length > 0, length, 1), x.dtype), v), length


def wide_dtype(v: Tree) -> np.dtype[Any]:
    """Return the dtype for costs and lengths of a pytree: the widest dtype of its leaves, and at least float32.

    >>> print(wide_dtype([jnp.ones(2, jnp.bfloat16)]))
    float32
    """
    dtype = np.dtype(np.float32)
    for x in tree_leaves(v):
        dtype = jnp.promote_types(dtype, x.dtype)
    return dtype


def size(v: object) -> int:
    """Return the number of variables in a pytree: the elements of all its leaves.

    >>> size({"w": jnp.zeros((2, 3)), "b": jnp.zeros(2)})
    8
    """
    return sum(math.prod(jnp.shape(x)) for x in tree_leaves(v))


# A wide tree has at least this number of variables, 64 MiB in float32. Copies of smaller trees take little memory.
WIDE = 2**24


def is_wide(v: object) -> bool:
    """Return True if a pytree has at least 2²⁴ variables, so that each copy of it takes much memory.

    >>> is_wide({"w": jnp.zeros((2, 3))})
    False
    """
    return size(v) >= WIDE


def all_finite(v: Tree) -> Bool[Array, ""]:
    """Return True if every element of every leaf is finite.

    >>> bool(all_finite([jnp.array([1.0, jnp.inf])]))
    False
    """
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in tree_leaves(v)], dtype=bool))


def any_nonzero(v: Tree) -> Bool[Array, ""]:
    """Return True if any element of any leaf is not 0.

    >>> bool(any_nonzero([jnp.zeros(2), jnp.array(0.0)]))
    False
    """
    return jnp.any(jnp.array([jnp.any(x != 0) for x in tree_leaves(v)], dtype=bool))


def select(condition: Bool[Array, ""], u: V, v: V) -> V:
    """Return u if the condition holds and v otherwise: one choice for the whole tree.

    >>> int(select(jnp.array(True), jnp.array(1), jnp.array(2)))
    1
    """
    return tree_map(lambda x, y: jax.lax.select(condition, x, y), u, v)


def _wide(x: ArrayLike) -> Array:
    # Sums need float32 or wider: in bfloat16, a sum of ones stops growing at 256.
    return jnp.asarray(x).astype(jnp.promote_types(jnp.result_type(x), np.float32))


def _scale(leaves: list[Array]) -> Array:
    """Return a safe divisor: the largest absolute value, clipped to a safe range, or 1 if it is not finite."""
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in leaves if jnp.size(x)]))
    # XLA multiplies by 1/scale. The clip keeps 1/scale, and (x/scale)² for the largest x, within the normal range.
    limits = finfo(largest.dtype)
    return jnp.clip(jnp.where(jnp.isfinite(largest), largest, 1), limits.tiny**0.75, limits.max**0.75)


def _sum(tree: Tree) -> Float[Array, ""]:
    return sum((jnp.sum(x) for x in tree_leaves(tree)), start=jnp.zeros(()))
