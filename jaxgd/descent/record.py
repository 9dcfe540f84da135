"""What is remembered of a descent's path: on the device, in memory of a size known beforehand."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jaxgd.errors import DtypeError, describe, require_count

# Entries kept where nothing else is asked for: when there are more, every second one is let go.
ENTRIES = 1024


@dataclasses.dataclass(frozen=True)
class Record:
    """What a descent remembers, after every `every` updates.

    By default that begins with 1, and doubles whenever there are more than 1,025 entries, of which every second one is
    let go then: a short run is remembered whole, a long one at 513 points and more. `v` keeps the variables themselves,
    `function` what it makes of them: any pytree of arrays. `sharpness` keeps λ_max of the Hessian, which costs a dozen
    and more gradients an entry.

    >>> Record(every=10, v=True)
    Record(every=10, v=True, function=None, sharpness=False)
    """

    every: Any = None
    v: bool = False
    function: Callable[[PyTree[Array]], PyTree[Array]] | None = None
    sharpness: bool = False


class Trajectory(NamedTuple):
    """The path of a descent. Entry j is after the first `step[j]` updates, and entry 0 is where the run began.

    ‖Δv‖, the predicted ∇C·Δv and the actual ΔC are of the update that led to the entry, NaN for entry 0. `sharpness` is
    λ_max and `stability` 2/η, above which plain descent cannot follow a valley. What was not asked for is None.

    Shapes: every field has the entries as its leading axis, with the lanes in front under vmap. Under `jit` or `vmap`
    all entries are there that max_steps would make, NaN where the descent had ended; else only those it reached.
    """

    step: Int[Array, "*entries"]
    cost: Float[Array, "*entries"]
    gradient_norm: Float[Array, "*entries"]
    step_norm: Float[Array, "*entries"]
    predicted: Float[Array, "*entries"]
    actual: Float[Array, "*entries"]
    v: PyTree[Array] | None
    value: PyTree[Array] | None
    sharpness: Float[Array, "*entries"] | None
    stability: Float[Array, "*entries"] | None

    @property
    def crossed(self) -> Int[Array, ""]:
        """The step of the first entry where λ_max is above 2/η; −1 if there is none, or it was not recorded."""
        if self.sharpness is None or self.stability is None:
            return jnp.array(-1)
        above = self.sharpness > self.stability
        return jnp.where(
            jnp.any(above, -1), jnp.take_along_axis(self.step, jnp.argmax(above, -1)[..., None], -1)[..., 0], -1
        )


# The columns of the table of numbers, as they stand in a Trajectory.
COLUMNS = ("cost", "gradient_norm", "step_norm", "predicted", "actual", "sharpness", "stability")


def require_record(record: Record, max_steps: int) -> Record:
    """The record, with `every` filled in if it will not change. Raises unless its fields can serve."""
    if not isinstance(record, Record):
        raise DtypeError(f'minimize: record must be a jaxgd.Record, None or "auto", got {describe(record)}.')
    for name in ("v", "sharpness"):
        if not isinstance(getattr(record, name), bool):
            raise DtypeError(f"minimize: record.{name} must be True or False, got {describe(getattr(record, name))}.")
    if record.function is not None and not callable(record.function):
        raise DtypeError(f"minimize: record.function must be a function of v, got {describe(record.function)}.")
    if record.every is None:
        return dataclasses.replace(record, every=1) if max_steps <= ENTRIES else record
    require_count("minimize", "record.every", record.every)
    return dataclasses.replace(record, every=int(record.every))


class Buffers(NamedTuple):
    """One row an entry, and one more where goes what is between entries."""

    table: Float[Array, "rows columns"]
    v: PyTree[Array] | None
    value: PyTree[Array] | None


def buffers(record: Record, max_steps: int, entry: Buffers) -> Buffers:
    """Rows like this entry for so many updates, all empty."""
    rows = 2 + (ENTRIES if record.every is None else max_steps // record.every)

    def empty(x: Any) -> Array:
        # By broadcasting, so that what is sharded over devices stays so.
        return jnp.broadcast_to(blank(x)[None], (rows, *x.shape))

    empty_rows: Buffers = jax.tree.map(empty, entry)
    return empty_rows


def blank(x: Array) -> Array:
    """What stands where there is nothing: NaN, or 0 among whole numbers."""
    # By arithmetic, which leaves it on the devices that x is on.
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return x * 0 + jnp.asarray(jnp.nan, x.dtype)
    return x & False if x.dtype == bool else x * 0


def written(filled: Buffers, row: Any, entry: Buffers) -> Buffers:
    """The buffers with one entry in a row."""
    after: Buffers = jax.tree.map(lambda xs, x: jax.lax.dynamic_update_index_in_dim(xs, x, row, 0), filled, entry)
    return after


def thinned(filled: Buffers) -> Buffers:
    """Every second entry, and room for as many again."""

    def thin(xs: Array) -> Array:
        kept = xs[:-1:2]
        empty = jnp.broadcast_to(blank(xs[0])[None], (len(xs) - len(kept), *xs.shape[1:]))
        return jnp.concatenate([kept, empty])

    half: Buffers = jax.tree.map(thin, filled)
    return half


def trajectory(record: Record, filled: Buffers, begin: Any, every: Any, reached: int | None) -> Trajectory:
    """The path, of all rows or of those that were reached, where that is known."""
    rows = filled.table.shape[0] - 1 if reached is None else reached // int(every) + 1
    filled = jax.tree.map(lambda x: x[:rows], filled)
    columns: dict[str, Any] = {name: filled.table[:, i] for i, name in enumerate(COLUMNS)}
    if not record.sharpness:
        columns |= {"sharpness": None, "stability": None}
    step = begin + jnp.arange(rows) * every
    return Trajectory(step=step, v=filled.v, value=filled.value, **columns)
