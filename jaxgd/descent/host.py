"""The loop on the host, for runs with a callback, a time limit or a progress line. It runs the updates in chunks."""

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from jaxgd.descent.loop import Carry
from jaxgd.descent.problem import WHO
from jaxgd.descent.solution import Solution
from jaxgd.descent.state import DescentState
from jaxgd.descent.update import with_reduced_gradient
from jaxgd.errors import RangeError, is_traced
from jaxgd.mesh.processes import decided, spans_processes
from jaxgd.outcome import Reason
from jaxgd.progress import progress_line
from jaxgd.pytree import norm
from jaxgd.rules.bounds import Bounds
from jaxgd.typed import V, block_until_ready, jit

# The longest time of a chunk of fast updates, in seconds, if the caller gives no `chunk`.
_CHUNK_SECONDS = 0.1


class Watch(NamedTuple):
    """The arguments of `minimize` for the loop on the host: `callback`, `chunk`, `seconds` and `progress`."""

    callback: Callable[[Any], bool | None] | None
    chunk: int | None
    seconds: float | None
    progress: bool

    @property
    def needs_host(self) -> bool:
        """True if the run must return to the host between chunks."""
        return self.callback is not None or self.seconds is not None or self.progress


def run_in_chunks(
    watch: Watch,
    start: Callable[[], Carry[V]],
    advance: Callable[[Carry[V], int], Carry[V]],
    solution: Callable[[Carry[V], Array, bool], Solution[V]],
    max_steps: int,
    given: DescentState[V] | None,
) -> Solution[V]:
    """Run a descent in chunks, and return its solution.

    If the arrays span several processes, the clock and the callback of process 0 decide for all processes.

    An exception that ends the run gets an attribute `state`: the state after the last complete chunk. If the start has
    not been checked yet, this state is `given`.

    Args:
        watch: The caller's options.
        start: A function that returns the carry before the first update.
        advance: A function of a carry and a limit. It makes updates until a test is met or this run has made `limit`
            updates.
        solution: A function that returns the solution. Its arguments are a carry, the number of updates before this
            run, and a flag that is True at the end of the run.
        max_steps: The largest number of updates.
        given: The state that the caller has given, or None.

    Returns:
        The solution.
    """
    kept = given
    try:
        carry = start()
        if is_traced(carry.code):
            raise RangeError(
                f"{WHO}: callback, seconds and progress need the host, so they cannot run inside jit or vmap. "
                "Leave them out."
            )
        first = carry.state.step
        # With limit 0, `advance` makes no update. If ‖∇C‖ at the start is within its tolerance, it checks for a
        # minimum.
        carry = _finished(advance(carry, 0))
        kept, done, length, began = carry.state, 0, watch.chunk or 1, None
        together = spans_processes(carry)
        with progress_line(watch.progress, max_steps, "minimize", "update") as show:
            while True:
                show(int(carry.i), functools.partial(_words, carry))
                running = int(carry.code) == int(Reason.RUNNING)
                if watch.callback is not None:
                    stopped = decided(together, bool(watch.callback(solution(carry, first, False))))
                    if stopped and running:
                        carry = carry._replace(code=jnp.array(int(Reason.STOPPED)))
                        break
                if not running or done >= max_steps:
                    break
                start_of_chunk = time.monotonic()
                timed = watch.seconds is not None and began is not None
                if timed and decided(together, start_of_chunk - (began or 0) >= (watch.seconds or 0)):
                    carry = carry._replace(code=jnp.array(int(Reason.SECONDS)))
                    break
                done = min(done + length, max_steps)
                carry = _finished(advance(carry, done))
                kept = carry.state
                end_of_chunk = time.monotonic()
                if watch.chunk is None and decided(
                    together, end_of_chunk - start_of_chunk < _CHUNK_SECONDS / 2 or done == 1
                ):
                    length *= 2
                # The first chunk includes compilation, so the time limit counts from its end.
                began = end_of_chunk if began is None else began
        return solution(carry, first, True)
    except BaseException as error:
        with contextlib.suppress(AttributeError, TypeError):  # An exception's class may forbid new attributes.
            error.state = kept  # type: ignore[attr-defined]
        raise


def _finished(carry: Carry[V]) -> Carry[V]:
    # Wait for the end of the chunk. If the chunk fails or is interrupted, the caller keeps the state before the chunk.
    return block_until_ready(carry)


def _words(carry: Carry[Any]) -> str:
    s = carry.state
    return f"C = {float(s.cost):.4g}, ‖∇C‖ = {float(_norm(carry.bounds, s)):.4g}"


@jit
def _norm(bounds: Bounds | None, s: DescentState[Any]) -> Array:
    return norm(with_reduced_gradient(bounds, s).gradient)
