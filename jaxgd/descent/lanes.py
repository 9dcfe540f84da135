"""What a loop must know of the lanes that vmap runs it over.

Under vmap, JAX turns a loop whose lanes end at different times into one that rewrites everything it carries in every
step, to keep what has ended as it is: recorded paths would be copied whole, again and again. Told here instead are the
two things that matter: the loop goes on while any lane does, and a lane that ended keeps what it has.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import PyTree


@custom_vmap
def any_lane(x: Any) -> Any:
    """Whether it holds in any lane: one answer for all of them."""
    return x


@any_lane.def_vmap
def _any_lane(axis_size: int, in_batched: Any, x: Any) -> Any:
    (batched,) = in_batched
    return (any_lane(jnp.any(x, axis=0)) if batched else any_lane(x)), False


@custom_vmap
def none_waits(x: Any) -> Any:
    """Whether it holds in no lane; of a lane by itself nobody asks, since the loop ends there at once."""
    return jnp.array(True)


@none_waits.def_vmap
def _none_waits(axis_size: int, in_batched: Any, x: Any) -> Any:
    (batched,) = in_batched
    return ~any_lane(jnp.any(x, axis=0) if batched else x), False


@custom_vmap
def least_lane(x: Any) -> Any:
    """The smallest of all lanes."""
    return x


@least_lane.def_vmap
def _least_lane(axis_size: int, in_batched: Any, x: Any) -> Any:
    (batched,) = in_batched
    return (least_lane(jnp.min(x, axis=0)) if batched else least_lane(x)), False


@custom_vmap
def while_alive(alive: Any, new: PyTree[Any], old: PyTree[Any]) -> PyTree[Any]:
    """What is new, in lanes that are alive; a lane by itself runs only while it is."""
    return new


@while_alive.def_vmap
def _while_alive(axis_size: int, in_batched: Any, alive: Any, new: Any, old: Any) -> Any:
    axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)

    def chosen(alive: Any, new: Any, old: Any) -> Any:
        return jax.tree.map(lambda x, y: jnp.where(alive, x, y), new, old)

    out = jax.vmap(chosen, in_axes=tuple(axes), axis_size=axis_size)(alive, new, old)
    return out, jax.tree.map(lambda _: True, out)


@custom_vmap
def counted(alive: Any, count: Any) -> Any:
    """One more for every lane that is alive; a lane by itself is as far as the loop, and need not count."""
    return count


@counted.def_vmap
def _counted(axis_size: int, in_batched: Any, alive: Any, count: Any) -> Any:
    return jnp.broadcast_to(count + jnp.where(alive, 1, 0), (axis_size,)), True


@custom_vmap
def count_after(passed: Any, count: Any, before: Any) -> Any:
    """The count of a lane after so many passes of the loop: as it was counted, or for a lane by itself all of them."""
    return before + passed


@count_after.def_vmap
def _count_after(axis_size: int, in_batched: Any, passed: Any, count: Any, before: Any) -> Any:
    return jnp.broadcast_to(count, (axis_size,)), True
