"""Loops and branches of `jax.lax` that also run inside `jax.shard_map`.

In JAX, the body of a loop must not change the type of the carry, and all branches must return the same type. Inside
`jax.shard_map`, the type says over which axes of the mesh a value varies. A carry that starts as a constant does not
vary, but its next value may vary. Therefore, the functions of this module first cast the carry and the results of
branches. Outside `jax.shard_map`, they only call the functions of `jax.lax`.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxgd.mesh.axes import cast_to_vary, varying_axes
from jaxgd.typed import eval_shape, tree_leaves, tree_map
from jaxgd.typed import fori_loop as fori_loop_of_jax

T = TypeVar("T")
X = TypeVar("X")
Y = TypeVar("Y")


def while_loop(condition: Callable[[T], ArrayLike], body: Callable[[T], T], carry: T) -> T:
    """Run `jax.lax.while_loop`, also inside `jax.shard_map`."""
    if _in_shard_map():
        carry = _settled(body, carry)
        return lax.while_loop(condition, lambda c: _cast_like(carry, body(c)), carry)
    return lax.while_loop(condition, body, carry)


def fori_loop(lower: ArrayLike, upper: ArrayLike, body: Callable[[Array, T], T], carry: T) -> T:
    """Run `jax.lax.fori_loop`, also inside `jax.shard_map`."""
    if _in_shard_map():
        carry = _settled(lambda c: body(jnp.asarray(lower), c), carry)
        return fori_loop_of_jax(lower, upper, lambda i, c: _cast_like(carry, body(i, c)), carry)
    return fori_loop_of_jax(lower, upper, body, carry)


def scan(body: Callable[[T, X], tuple[T, Y]], carry: T, xs: X, length: int | None = None) -> tuple[T, Y]:
    """Run `jax.lax.scan`, also inside `jax.shard_map`."""
    if not _in_shard_map():
        return lax.scan(body, carry, xs, length)
    first = tree_map(lambda x: x[0], xs)
    carry = _settled(lambda c: body(c, first)[0], carry)

    def step(c: T, x: X) -> tuple[T, Y]:
        c, y = body(c, x)
        return _cast_like(carry, c), y

    return lax.scan(step, carry, xs, length)


def cond(condition: ArrayLike, true: Callable[..., T], false: Callable[..., T], *operands: object) -> T:
    """Run `jax.lax.cond`, also inside `jax.shard_map`."""
    if _in_shard_map():
        results = [eval_shape(branch, *operands) for branch in (true, false)]
        true, false = _varying_like(true, results), _varying_like(false, results)
    out: T = lax.cond(condition, true, false, *operands)
    return out


def _varying_like(branch: Callable[..., T], results: list[T]) -> Callable[..., T]:
    """Return the branch with its result cast, so that the results of all branches have the same type."""
    return lambda *operands: tree_map(
        lambda out, x, y: cast_to_vary(out, varying_axes(x) | varying_axes(y)), branch(*operands), *results
    )


def _settled(step: Callable[[T], T], carry: T) -> T:
    """Return the carry, cast so that a step does not change its type."""
    while True:
        after = eval_shape(step, carry)
        pairs = zip(tree_leaves(after), tree_leaves(carry), strict=True)
        if all(varying_axes(y) <= varying_axes(x) for y, x in pairs):
            return carry
        carry = tree_map(lambda x, y: cast_to_vary(x, varying_axes(y)), carry, after)


def _in_shard_map() -> bool:
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def _cast_like(carry: T, after: T) -> T:
    return tree_map(lambda y, x: cast_to_vary(y, varying_axes(x)), after, carry)
