"""A job of several processes: decisions of process 0, and values that span processes."""

from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree, Shaped

from jaxgd.errors import is_traced


def spans_processes(tree: PyTree[Any]) -> bool:
    """Return True if an array of the tree has devices of several processes."""
    return jax.process_count() > 1 and any(
        isinstance(x, jax.Array) and not is_traced(x) and not x.is_fully_addressable for x in jax.tree.leaves(tree)
    )


def decided(together: bool, value: Any) -> Any:
    """Return the value of process 0 if the processes run together, and the process's own value otherwise.

    All processes must call this function together. They then act alike on the clock, and on the answer of a callback.
    """
    if not together:
        return value
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(value))).item()


def on_host(x: Any) -> Shaped[np.ndarray, "..."]:
    """Return the values of an array, also of one that is sharded over processes. Then all processes must call this."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated:
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)
