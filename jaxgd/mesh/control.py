"""Loops and branches of `jax.lax` that also run inside `jax.shard_map`.

JAX requires that a loop returns its carry with the type that it got, and that all branches return one type. Inside
`jax.shard_map`, the type says over which axes of the mesh a value varies. A carry that starts as a constant does not
vary, but its next value may. These functions cast such values first. Elsewhere they are the functions of `jax.lax`.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from jaxgd.mesh.axes import varying_axes


def while_loop(condition: Callable[[Any], Any], body: Callable[[Any], Any], carry: Any) -> Any:
    """Run `jax.lax.while_loop`."""
    if _in_shard_map():
        carry = _settled(body, carry)
        return lax.while_loop(condition, lambda c: _cast_like(carry, body(c)), carry)
    return lax.while_loop(condition, body, carry)


def fori_loop(lower: Any, upper: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
    """Run `jax.lax.fori_loop`."""
    if _in_shard_map():
        carry = _settled(lambda c: body(lower, c), carry)
        return lax.fori_loop(lower, upper, lambda i, c: _cast_like(carry, body(i, c)), carry)
    return lax.fori_loop(lower, upper, body, carry)


def scan(body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any, length: int | None = None) -> Any:
    """Run `jax.lax.scan`."""
    if not _in_shard_map():
        return lax.scan(body, carry, xs, length)
    first = jax.tree.map(lambda x: x[0], xs)
    carry = _settled(lambda c: body(c, first)[0], carry)

    def step(c: Any, x: Any) -> tuple[Any, Any]:
        c, y = body(c, x)
        return _cast_like(carry, c), y

    return lax.scan(step, carry, xs, length)


def cond(condition: Any, true: Callable[..., Any], false: Callable[..., Any], *operands: Any) -> Any:
    """Run `jax.lax.cond`."""
    if _in_shard_map():
        results = [jax.eval_shape(branch, *operands) for branch in (true, false)]
        axes = jax.tree.map(lambda x, y: varying_axes(x) | varying_axes(y), *results)
        true, false = _cast_result(true, axes), _cast_result(false, axes)
    return lax.cond(condition, true, false, *operands)


def _cast_result(branch: Callable[..., Any], axes: Any) -> Callable[..., Any]:
    return lambda *operands: jax.tree.map(_cast, branch(*operands), axes)


def _settled(step: Callable[[Any], Any], carry: Any) -> Any:
    """Return the carry, cast to vary over all axes over which it varies after any number of steps."""
    while True:
        after = jax.eval_shape(step, carry)
        axes = jax.tree.map(lambda x, y: varying_axes(x) | varying_axes(y), carry, after)
        if all(a <= varying_axes(x) for a, x in zip(jax.tree.leaves(axes), jax.tree.leaves(carry), strict=True)):
            return carry
        carry = jax.tree.map(_cast, carry, axes)


def _cast(x: Any, axes: frozenset[Any]) -> Any:
    missing = axes - varying_axes(x)
    return lax.pcast(x, tuple(missing), to="varying") if missing else x


def _in_shard_map() -> bool:
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def _cast_like(carry: Any, after: Any) -> Any:
    return jax.tree.map(lambda x, y: _cast(y, varying_axes(x)), carry, after)
