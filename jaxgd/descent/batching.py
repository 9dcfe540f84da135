"""Operations on the batch that vmap adds to a loop.

Under vmap, the elements of a batch end at different times. JAX's own batching would rewrite the whole carry in every
step, to keep the values of elements that have ended. This would copy all recorded paths in every step. With the
functions here, the loop runs while any element runs. It keeps the old state of an element that has ended, and writes
only one or two rows of each recorded path in every step.

Without vmap, the functions keep no old state, because the loop ends when its only element ends.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxgd.descent.record import Buffers, written
from jaxgd.mesh import control
from jaxgd.typed import V, custom_vmap, tree_map, vmap

# For each argument, a tree of the same structure, with True for batched arrays and False for other arrays.
Flags = list[Any]


@custom_vmap
def any_element(x: Array) -> Array:
    """Return one value for the whole batch: True if x is true for any element."""
    return x


@any_element.def_vmap
def _any_element(axis_size: int, in_batched: Flags, x: Array) -> tuple[Array, bool]:
    (batched,) = in_batched
    return (any_element(jnp.any(x, axis=0)) if batched else any_element(x)), False


@custom_vmap
def no_element(x: Array) -> Array:
    """Return True if x is false for every batch element. Without vmap, return True: the loop's test of ∇C suffices."""
    return jnp.array(True)


@no_element.def_vmap
def _no_element(axis_size: int, in_batched: Flags, x: Array) -> tuple[Array, bool]:
    (batched,) = in_batched
    return ~any_element(jnp.any(x, axis=0) if batched else x), False


@custom_vmap
def least_element(x: Array) -> Array:
    """Return the smallest x in the batch."""
    return x


@least_element.def_vmap
def _least_element(axis_size: int, in_batched: Flags, x: Array) -> tuple[Array, bool]:
    (batched,) = in_batched
    return (least_element(jnp.min(x, axis=0)) if batched else least_element(x)), False


@custom_vmap
def select_alive(alive: Array, new: V, old: V) -> V:
    """Return `new` for batch elements that are alive and `old` for the others. Without vmap, return `new`."""
    return new


@select_alive.def_vmap
def _select_alive(axis_size: int, in_batched: Flags, alive: Array, new: V, old: V) -> tuple[V, object]:
    axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)

    def chosen(alive: Array, new: V, old: V) -> V:
        return tree_map(lambda x, y: jnp.where(alive, x, y), new, old)

    out = vmap(chosen, in_axes=tuple(axes), axis_size=axis_size)(alive, new, old)
    return out, jax.tree.map(lambda _: True, out)


@custom_vmap
def count_alive(alive: Array, count: Array) -> Array:
    """Add 1 to the count of each element that is alive. Without vmap, return `count` unchanged."""
    return count


@count_alive.def_vmap
def _count_alive(axis_size: int, in_batched: Flags, alive: Array, count: Array) -> tuple[Array, bool]:
    return jnp.broadcast_to(count + jnp.where(alive, 1, 0), (axis_size,)), True


@custom_vmap
def count_after(passed: Array, count: Array, before: Array) -> Array:
    """Return each batch element's count after the loop. Without vmap, return `before` + `passed`."""
    return before + passed


@count_after.def_vmap
def _count_after(axis_size: int, in_batched: Flags, passed: Array, count: Array, before: Array) -> tuple[Array, bool]:
    return jnp.broadcast_to(count, (axis_size,)), True


@custom_vmap
def updates_made(count: Array, own: Array) -> Array:
    """Return each batch element's own number of updates. Without vmap, return the loop's count."""
    return count


@updates_made.def_vmap
def _updates_made(axis_size: int, in_batched: Flags, count: Array, own: Array) -> tuple[Array, bool]:
    return own, in_batched[1]


@custom_vmap
def any_due(i: Array, own: Array, every: Array, even: Array) -> Array:
    """Return True if this update is to be recorded in any batch element, including elements that have ended.

    `own` is the number of this update in each element. If `even` is True, this number is i in all elements.
    """
    return i % every == 0


@any_due.def_vmap
def _any_due(axis_size: int, in_batched: Flags, i: Array, own: Array, every: Array, even: Array) -> tuple[Array, bool]:
    # Use i for all elements if possible: computing own % every can take as long as the updates themselves.
    return control.cond(even, lambda: i % every == 0, lambda: any_element(jnp.any(own % every == 0))), False


@custom_vmap
def write_row(
    buffers: Buffers, i: Array, own: Array, every: Array, alive: Array, even: Array, entry: Buffers
) -> Buffers:
    """Write the entry of an update to its row of the buffers. An update that is not recorded goes to the last row."""
    return written(buffers, _row(len(buffers.table) - 1, i, every), entry)


@write_row.def_vmap
def _write_row(
    axis_size: int,
    in_batched: Flags,
    buffers: Buffers,
    i: Array,
    own: Array,
    every: Array,
    alive: Array,
    even: Array,
    entry: Buffers,
) -> tuple[Buffers, object]:
    axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)
    last = len(buffers.table[0] if in_batched[0].table else buffers.table) - 1
    shared = jnp.where(even, _row(last, i, every), last)
    # Writing to the same row in all elements is much faster than writing to a different row in each.
    filled = vmap(written, in_axes=(axes[0], None, axes[-1]), axis_size=axis_size)(buffers, shared, entry)

    def each(buffers: Buffers, own: Array, alive: Array, entry: Buffers) -> Buffers:
        return written(buffers, jnp.where(alive, _row(last, own, every), last), entry)

    def separately(c: tuple[Buffers, Array]) -> tuple[Buffers, Array]:
        after = vmap(each, in_axes=(0, axes[2], axes[4], axes[-1]), axis_size=axis_size)(c[0], own, alive, entry)
        return after, jnp.array(False)

    # This loop runs once or never. Unlike `cond`, it never copies the buffers.
    out, _ = control.while_loop(lambda c: c[1], separately, (filled, ~even))
    return out, jax.tree.map(lambda _: True, out)


def _row(last: int, count: Array, every: Array) -> Array:
    return jnp.where(count % every == 0, count // every, last)
