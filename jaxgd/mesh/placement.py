"""Examples on the devices of a mesh, padded to a multiple of the number of devices."""

import dataclasses
import hashlib
from typing import Any, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, UInt8

from jaxgd.errors import (
    DataError,
    DtypeError,
    RangeError,
    ShapeError,
    as_array,
    describe,
    require_bool,
    require_examples,
    shown,
)
from jaxgd.mesh.processes import process_count

D = TypeVar("D")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Placed:
    """Examples on the devices of a mesh, as `place` returns them and `train` takes them.

    The first `n` rows are examples, and the others are padding. `train` leaves the padding out of every cost, accuracy,
    gradient and mini-batch.

    Attributes:
        images: Inputs, (m, …). The number m of rows is at least n, and a multiple of `devices`.
        labels: Labels or targets, (m, …).
        n: The number of examples.
        devices: The number of devices among which the rows are divided. Like `n`, it is static under `jit`.
    """

    # JAX may put objects other than arrays in these fields, so their type is Any.
    images: Any
    labels: Any
    n: int = dataclasses.field(metadata={"static": True})
    devices: int = dataclasses.field(default=1, metadata={"static": True})


@overload
def place(
    data: tuple[object, object] | list[Any], mesh: Mesh, *, axis: str | None = None, pad: bool = True
) -> Placed: ...
@overload
def place(data: D, mesh: Mesh, *, axis: str | None = None, pad: bool = True) -> D: ...
def place(data: object, mesh: Mesh, *, axis: str | None = None, pad: bool = True) -> object:
    """Put examples on the devices of a mesh, with the same number of rows on each device.

    If the number of devices along `axis` does not divide the number n of examples, rows of zeros are added at the end.
    `train` uses only the first n rows, so the padding changes no result.

    In a job of several processes, each process passes all examples and keeps the rows of its own devices. The processes
    compare a digest of the data.

    Args:
        data: A `Dataset`, or a pair (x, y) as for `train`.
        mesh: A mesh of devices, such as `jax.make_mesh((8,), ("data",))`.
        axis: The name of the mesh's axis along which the rows are divided. Default: the first axis.
        pad: False to raise if the number of devices along `axis` does not divide n. Default True.

    Returns:
        The data for `train`: a `Dataset` with `Placed` splits, or one `Placed` pair.

    Raises:
        RangeError: If the mesh has no such axis.
        ShapeError: If x and y have different lengths, there are no examples, or `pad` is False and the rows cannot be
            divided evenly.
        DataError: If the processes pass different data.
        DtypeError: If an argument has the wrong type.

    Example:
        >>> mesh = jax.make_mesh((1,), ("data",))
        >>> placed = place((np.zeros((5, 4), np.float32), np.arange(5) % 2), mesh)
        >>> placed.images.shape, placed.n
        ((5, 4), 5)
    """
    if not isinstance(mesh, Mesh):
        raise DtypeError(
            f"place: mesh must be a jax.sharding.Mesh, got {describe(mesh)}.\n"
            'Make one with jax.make_mesh((jax.device_count(),), ("data",)).'
        )
    axis = mesh.axis_names[0] if axis is None else axis
    if axis not in mesh.axis_names:
        known = ", ".join(map(repr, mesh.axis_names))
        raise RangeError(f"place: axis must be an axis of the mesh ({known}), got {shown(axis)}.")
    require_bool("place", "pad", pad)
    if not dataclasses.is_dataclass(data) or isinstance(data, Placed):
        placed = _placed("", data, mesh, axis, pad)
        _require_same_everywhere([data])
        return placed
    splits = {name: split for name, split in vars(data).items() if isinstance(split, tuple | Placed)}
    _require_same_everywhere(list(splits.values()))
    placed_splits = {name: _placed(f"{name} ", split, mesh, axis, pad) for name, split in splits.items()}
    return dataclasses.replace(data, **placed_splits)  # type: ignore[type-var]


def _placed(name: str, pair: object, mesh: Mesh, axis: str, pad: bool) -> Placed:
    if isinstance(pair, Placed):
        raise DtypeError(f"place: the {name}data are already placed.\nPlace the original data.")
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DtypeError(f"place: the {name}data must be a pair (x, y), got {describe(pair)}.")
    x: Array | np.ndarray = as_array("place", f"the {name}inputs", pair[0])
    y: Array | np.ndarray = as_array("place", f"the {name}labels", pair[1])
    if x.ndim == 0 or y.shape[:1] != x.shape[:1]:
        raise ShapeError(
            f"place: expected one label or target for each {name}input, got {describe(x)} and {describe(y)}."
        )
    require_examples("place", len(x))
    n, devices = len(x), int(mesh.shape[axis])
    missing = -n % devices
    if missing and not pad:
        raise ShapeError(
            f"place: {n} {name}examples cannot be divided evenly among {devices} devices.\n"
            f"Leave out {n % devices} of them, or pass pad=True."
        )
    sharding = NamedSharding(mesh, P(axis))  # type: ignore[no-untyped-call]
    return Placed(_sharded(x, missing, sharding), _sharded(y, missing, sharding), n, devices)


def _sharded(a: Array | np.ndarray, missing: int, sharding: NamedSharding) -> Array:
    """Add rows of zeros to an array, and divide its rows among the devices. Each process provides its own rows."""
    shape = (len(a) + missing, *a.shape[1:])
    if isinstance(a, jax.Array):
        rows = jnp.concatenate([a, jnp.zeros((missing, *a.shape[1:]), a.dtype)]) if missing else a
        placed: Array = jax.device_put(rows, sharding)
        return placed

    def rows_of(index: tuple[slice, ...] | None) -> np.ndarray:
        start, stop, _ = (index or (slice(None),))[0].indices(shape[0])
        rows = a[start:stop]
        if len(rows) < stop - start:
            rows = np.concatenate([rows, np.zeros((stop - start - len(rows), *a.shape[1:]), a.dtype)])
        return rows

    return jax.make_array_from_callback(shape, sharding, rows_of)


def _require_same_everywhere(pairs: list[object]) -> None:
    """Raise DataError unless all processes pass the same data."""
    if process_count() == 1:
        return
    from jax.experimental import multihost_utils

    sha = hashlib.sha256()
    for a in jax.tree.leaves(pairs):
        if isinstance(a, jax.Array) and not a.is_fully_addressable:
            return  # the processes already share an array that spans them
        sha.update(f"{np.shape(a)} {np.asarray(a).dtype} ".encode())
        sha.update(np.ascontiguousarray(a).data)
    digests: UInt8[np.ndarray, "processes 32"] = multihost_utils.process_allgather(
        np.frombuffer(sha.digest(), np.uint8)
    )
    different = [p for p, own in enumerate(digests) if own.tobytes() != digests[0].tobytes()]
    if different:
        raise DataError(
            f"place: all processes must pass the same data, but process {different[0]} has other data than process 0.\n"
            "Load the same files on every host."
        )
