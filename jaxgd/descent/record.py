"""The recorded path of a descent, on the device, in buffers of a fixed size."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxgd.errors import DtypeError, describe, largest_int, require_bool, require_callable, require_count
from jaxgd.typed import Generic, Tree, V, tree_map

# By default, a record holds at most this number of entries after entry 0. When the record is full, every second entry
# is dropped.
ENTRIES = 1024


@dataclasses.dataclass(frozen=True)
class Record:
    """The parts of the path that a descent records.

    Attributes:
        every: The number of updates between two entries, at least 1. By default it begins at 1. If `max_steps` is above
            1,024, `every` doubles each time the record reaches 1,025 entries, and every second entry is dropped. A run
            of 1,024 or more updates thus keeps at least 513 entries. Under vmap, all runs share one `every`, which the
            longest run sets.
        v: True to record the variables; by default False.
        function: A function of v that returns any pytree of arrays, recorded in each entry; by default None.
        sharpness: True to record λ_max of the Hessian; by default False. An entry costs one Hessian-vector product per
            variable for up to 16 variables, and 31 or more products for more variables.

    Example:
        >>> Record(every=10, v=True)
        Record(every=10, v=True, function=None, sharpness=False)
    """

    every: int | None = None
    v: bool = False
    function: Callable[..., Any] | None = None
    sharpness: bool = False


class Trajectory(NamedTuple, Generic[V]):
    """The recorded path of a descent. Entry j is the point after `step[j]` updates; entry 0 is the start of the run.

    The first axis of every array runs over the entries. Under vmap, the batch axes come before it. A plain call returns
    the entries that the run reached. Under `jit` or `vmap` the arrays have a fixed length. Entries after the end of the
    descent are NaN, 0 for whole numbers or False for bools, and `step` keeps counting.

    Attributes:
        step: The number of updates before each entry. It includes the updates of earlier runs that this run continues.
        cost: C(v).
        gradient_norm: ‖∇C(v)‖; with bounds, the norm of the reduced gradient.
        step_norm: ‖Δv‖ of the update that led to the entry; NaN for entry 0.
        predicted: The predicted change ∇C·Δv of that update; NaN for entry 0.
        actual: The actual change ΔC of that update; NaN for entry 0.
        v: The variables, a tree like v₀; None if not recorded.
        value: The values of `record.function`; None if not recorded.
        sharpness: The largest eigenvalue λ_max of the Hessian, NaN if it did not converge; None if not recorded.
        stability: The threshold 2/η; gradient descent is stable while λ_max is below it. NaN for a rule without η and
            for an optax rule. None if sharpness is not recorded.
    """

    step: Int[Array, "*entries"]
    cost: Float[Array, "*entries"]
    gradient_norm: Float[Array, "*entries"]
    step_norm: Float[Array, "*entries"]
    predicted: Float[Array, "*entries"]
    actual: Float[Array, "*entries"]
    v: V | None
    value: Any
    sharpness: Float[Array, "*entries"] | None
    stability: Float[Array, "*entries"] | None

    @property
    def crossed(self) -> Int[Array, "*batch"]:
        """The step of the first entry where λ_max has risen from below 2/η to above it; −1 if it never does.

        It is also −1 if the sharpness is not recorded. Entries of NaN do not count.
        """
        if self.sharpness is None or self.stability is None:
            return jnp.full(self.step.shape[:-1], -1)
        below_before = jnp.cumsum(self.sharpness <= self.stability, -1) > 0
        rose = (self.sharpness > self.stability) & below_before
        first = jnp.take_along_axis(self.step, jnp.argmax(rose, -1)[..., None], -1)[..., 0]
        return jnp.where(jnp.any(rose, -1), first, -1)

    @property
    def started_above(self) -> Bool[Array, "*batch"]:
        """True if λ_max is above 2/η in the first entry. False if the sharpness is not recorded."""
        if self.sharpness is None or self.stability is None:
            return jnp.zeros(self.step.shape[:-1], bool)
        return self.sharpness[..., 0] > self.stability[..., 0]


# The columns of the table of scalars, named as in Trajectory.
COLUMNS = ("cost", "gradient_norm", "step_norm", "predicted", "actual", "sharpness", "stability")


def require_record(record: Record, max_steps: int) -> Record:
    """Return the record, with every=1 instead of None for a short run. Raise unless the fields are valid."""
    if not isinstance(record, Record):
        raise DtypeError(f'minimize: record must be a jaxgd.Record, None or "auto", got {describe(record)}.')
    for name in ("v", "sharpness"):
        require_bool("minimize", f"record.{name}", getattr(record, name))
    if record.function is not None:
        require_callable("minimize", "record.function", record.function, "It takes v.")
    if record.every is None:
        return dataclasses.replace(record, every=1) if max_steps <= ENTRIES else record
    require_count("minimize", "record.every", record.every, most=largest_int())
    return dataclasses.replace(record, every=int(record.every))


class Buffers(NamedTuple):
    """The recorded entries: one row per entry, plus a scratch row for steps that are not recorded.

    Attributes:
        table: The scalars of each entry, one column for each of `COLUMNS`.
        v: The variables of each entry, or None.
        value: The values of `record.function` of each entry, or None.
    """

    table: Float[Array, "rows columns"]
    v: Tree | None
    value: Tree | None


def buffers(record: Record, max_steps: int, entry: Buffers) -> Buffers:
    """Return blank buffers for a run of max_steps updates. Each row has the shapes and dtypes of `entry`."""
    rows = 2 + (ENTRIES if record.every is None else max_steps // record.every)

    # Broadcasting keeps the sharding of x.
    return tree_map(lambda x: jnp.broadcast_to(blank(x)[None], (rows, *x.shape)), entry)


def blank(x: Array) -> Array:
    """Return the value of an entry that is not filled: NaN, 0 for whole numbers, or False for bools."""
    # Arithmetic with x keeps the result on x's devices.
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return x * 0 + jnp.asarray(jnp.nan, x.dtype)
    return x & False if x.dtype == bool else x * 0


def written(filled: Buffers, row: ArrayLike, entry: Buffers) -> Buffers:
    """Return the buffers with the entry written to a row."""
    return tree_map(lambda xs, x: jax.lax.dynamic_update_index_in_dim(xs, x, row, 0), filled, entry)


def thinned(filled: Buffers) -> Buffers:
    """Return the buffers without every second entry. The rows that become free are blank."""

    def thin(xs: Array) -> Array:
        kept = xs[:-1:2]
        empty = jnp.broadcast_to(blank(xs[0])[None], (len(xs) - len(kept), *xs.shape[1:]))
        return jnp.concatenate([kept, empty])

    return tree_map(thin, filled)


def trajectory(
    record: Record, filled: Buffers, begin: Array | int, every: Array, reached: int | None
) -> Trajectory[Any]:
    """Return the trajectory of the first `reached` updates, or of all rows if `reached` is None."""
    columns: dict[str, Any]
    if reached is None:
        rows = filled.table.shape[0] - 1
        step = begin + jnp.arange(rows) * every
        columns = {name: filled.table[:rows, i] for i, name in enumerate(COLUMNS)}
        v, value = tree_map(lambda x: x[:rows], (filled.v, filled.value))
    else:
        # Slice in NumPy, because JAX compiles a program for each new length, also in jnp.asarray.
        rows, table = reached // int(every) + 1, np.asarray(filled.table)
        step = jax.device_put(int(begin) + np.arange(rows) * int(every))
        columns = {name: jax.device_put(table[:rows, i]) for i, name in enumerate(COLUMNS)}
        v, value = tree_map(lambda x: _head(x, rows), (filled.v, filled.value))
    if not record.sharpness:
        columns |= {"sharpness": None, "stability": None}
    return Trajectory(step=step, v=v, value=value, **columns)


def _head(x: Array, rows: int) -> Array:
    """Return the first rows, on the device of x. A sharded x keeps its sharding."""
    return x[:rows] if len(x.devices()) > 1 else jax.device_put(np.asarray(x)[:rows], x.sharding)
