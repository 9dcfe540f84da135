"""A job of several processes: decisions of process 0, and values that span processes."""

from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Array, Shaped

from jaxgd.errors import is_traced
from jaxgd.typed import tree_leaves

T = TypeVar("T")


def process_count() -> int:
    """Return the number of processes of the job; 1 without a job."""
    count: int = jax.process_count()
    return count


def spans_processes(tree: object) -> bool:
    """Return True if any array of the tree is on devices of other processes too."""
    return process_count() > 1 and any(
        isinstance(x, jax.Array) and not is_traced(x) and not x.is_fully_addressable for x in tree_leaves(tree)
    )


def is_main() -> bool:
    """Return True on process 0, which writes the files and prints. Without a job, this is the only process."""
    return jax.process_index() == 0


def decided(together: bool, value: T) -> T:
    """Return the value of process 0 if `together` is True, and otherwise this process's own value.

    With `together`, all processes must call this function. All of them then act on the same decision, for instance
    about a time limit or the answer of a callback.
    """
    if not together:
        return value
    from jax.experimental import multihost_utils

    of_process_0: T = np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(value))).item()
    return of_process_0


def text_from_process_0(text: str) -> str:
    """Return the text of process 0, cut to 4,096 bytes in a job. All processes must call this function together."""
    if process_count() == 1:
        return text
    from jax.experimental import multihost_utils

    encoded = text.encode()[:4096].ljust(4096, b"\0")
    received: Array = multihost_utils.broadcast_one_to_all(np.frombuffer(encoded, np.uint8))
    return np.asarray(received, np.uint8).tobytes().rstrip(b"\0").decode(errors="ignore")


def largest(number: int) -> int:
    """Return the largest of the numbers that the processes pass. All processes must call this function together."""
    if process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    numbers: Shaped[np.ndarray, " processes"] = multihost_utils.process_allgather(np.array(number))
    return max(map(int, numbers))


def on_host(x: object) -> Shaped[np.ndarray, "..."]:
    """Return an array's values. If it is sharded over processes, all processes must call this function together."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated:
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)
