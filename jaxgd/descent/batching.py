"""Operations on the batch that vmap adds to a loop.

Under vmap, the elements of a batch end at different times. JAX's own batching would rewrite the whole carry in every
step, to keep the values of elements that have ended. This would copy all recorded paths in every step. The functions
here do two things instead: they run the loop while any element runs, and they keep the state of an element that has
ended.

Without vmap each function is trivial, because the loop ends when its only element ends.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import PyTree

from jaxgd.descent.record import written
from jaxgd.mesh import control


@custom_vmap
def any_element(x: Any) -> Any:
    """Return True if x is true for any batch element: one value for the whole batch."""
    return x


@any_element.def_vmap
def _any_element(axis_size: int, in_batched: Any, x: Any) -> Any:
    (batched,) = in_batched
    return (any_element(jnp.any(x, axis=0)) if batched else any_element(x)), False


@custom_vmap
def no_element(x: Any) -> Any:
    """Return True if x is false for every batch element. Without vmap, return True, because another test covers x."""
    return jnp.array(True)


@no_element.def_vmap
def _no_element(axis_size: int, in_batched: Any, x: Any) -> Any:
    (batched,) = in_batched
    return ~any_element(jnp.any(x, axis=0) if batched else x), False


@custom_vmap
def least_element(x: Any) -> Any:
    """Return the smallest x in the batch."""
    return x


@least_element.def_vmap
def _least_element(axis_size: int, in_batched: Any, x: Any) -> Any:
    (batched,) = in_batched
    return (least_element(jnp.min(x, axis=0)) if batched else least_element(x)), False


@custom_vmap
def select_alive(alive: Any, new: PyTree[Any], old: PyTree[Any]) -> PyTree[Any]:
    """Return `new` for batch elements that are alive and `old` for the others. Without vmap, return `new`."""
    return new


@select_alive.def_vmap
def _select_alive(axis_size: int, in_batched: Any, alive: Any, new: Any, old: Any) -> Any:
    axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)

    def chosen(alive: Any, new: Any, old: Any) -> Any:
        return jax.tree.map(lambda x, y: jnp.where(alive, x, y), new, old)

    out = jax.vmap(chosen, in_axes=tuple(axes), axis_size=axis_size)(alive, new, old)
    return out, jax.tree.map(lambda _: True, out)


@custom_vmap
def count_alive(alive: Any, count: Any) -> Any:
    """Add 1 to the count of each batch element that is alive. Without vmap, the loop's own counter suffices."""
    return count


@count_alive.def_vmap
def _count_alive(axis_size: int, in_batched: Any, alive: Any, count: Any) -> Any:
    return jnp.broadcast_to(count + jnp.where(alive, 1, 0), (axis_size,)), True


@custom_vmap
def count_after(passed: Any, count: Any, before: Any) -> Any:
    """Return each batch element's count after the loop. Without vmap, it is `before + passed`."""
    return before + passed


@count_after.def_vmap
def _count_after(axis_size: int, in_batched: Any, passed: Any, count: Any, before: Any) -> Any:
    return jnp.broadcast_to(count, (axis_size,)), True


@custom_vmap
def updates_made(count: Any, own: Any) -> Any:
    """Return each batch element's own number of updates. Without vmap, it is the loop's count."""
    return count


@updates_made.def_vmap
def _updates_made(axis_size: int, in_batched: Any, count: Any, own: Any) -> Any:
    return own, in_batched[1]


@custom_vmap
def any_due(i: Any, own: Any, every: Any, even: Any) -> Any:
    """Return True if any batch element records the update that it makes now.

    `own` is the number of this update for each element, and i the number for the whole batch if it is `even`.
    """
    return i % every == 0


@any_due.def_vmap
def _any_due(axis_size: int, in_batched: Any, i: Any, own: Any, every: Any, even: Any) -> Any:
    # The remainders of all elements would take as long as the updates themselves.
    return control.cond(even, lambda: i % every == 0, lambda: any_element(jnp.any(own % every == 0))), False


@custom_vmap
def write_row(buffers: Any, i: Any, own: Any, every: Any, alive: Any, even: Any, entry: Any) -> PyTree[Any]:
    """Write the entry of an update to its row of the buffers, or to the last row if the update is not recorded."""
    return written(buffers, _row(len(buffers.table) - 1, i, every), entry)


@write_row.def_vmap
def _write_row(
    axis_size: int,
    in_batched: Any,
    buffers: Any,
    i: Any,
    own: Any,
    every: Any,
    alive: Any,
    even: Any,
    entry: Any,
) -> tuple[PyTree[Any], PyTree[Any]]:
    axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)
    last = len(buffers.table[0] if in_batched[0].table else buffers.table) - 1
    shared = jnp.where(even, _row(last, i, every), last)
    # One row for all is much faster than a row for each.
    filled = jax.vmap(written, in_axes=(axes[0], None, axes[-1]), axis_size=axis_size)(buffers, shared, entry)

    def each(buffers: Any, own: Any, alive: Any, entry: Any) -> Any:
        return written(buffers, jnp.where(alive, _row(last, own, every), last), entry)

    def apart(c: Any) -> Any:
        after = jax.vmap(each, in_axes=(0, axes[2], axes[4], axes[-1]), axis_size=axis_size)(c[0], own, alive, entry)
        return after, jnp.array(False)

    # A loop that runs once or never. Unlike `cond`, it never copies the buffers.
    out, _ = control.while_loop(lambda c: c[1], apart, (filled, ~even))
    return out, jax.tree.map(lambda _: True, out)


def _row(last: int, count: Any, every: Any) -> Any:
    return jnp.where(count % every == 0, count // every, last)
