"""Read, write and digest arrays in pieces, to save memory. The arrays may be sharded."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Shaped, UInt8, UInt32
from numpy.typing import NDArray

from jaxgd.typed import jit

# Bytes of a piece. Smaller pieces take more time, and larger pieces more memory: a few are in memory at a time.
PIECE = 2**24
# The odd constants of Knuth's multiplicative hash and of Wellons's integer mixer lowbias32.
_GOLDEN, _FIRST, _SECOND = np.uint32(0x9E3779B1), np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
_LONGEST = 400  # most bytes of an error message that goes to the other processes
T = TypeVar("T")
if TYPE_CHECKING:
    Slice = slice[int, int, None]
else:
    Slice = slice
_Index = tuple[Slice, ...]


def together(work: Callable[[], T], kind: Callable[[str], Exception]) -> T:
    """Run the work on every process of a job, and return its result. If it fails on one process, raise on all.

    So no process waits for a failed process. All processes must call this function together.

    Args:
        work: A function without collective operations.
        kind: A function that makes an exception from a message. The processes that did not fail raise this exception.

    Returns:
        The result of `work` on this process.
    """
    if jax.process_count() == 1:
        return work()
    error, text = None, b""
    try:
        result = work()
    except Exception as caught:
        error, text = caught, (str(caught) or type(caught).__name__).encode()[:_LONGEST]
    from jax.experimental import multihost_utils

    texts = multihost_utils.process_allgather(np.frombuffer(text.ljust(_LONGEST, b"\0"), np.uint8))
    if error is not None:
        raise error
    for process, row in enumerate(np.asarray(texts)):
        if row.any():
            words = row.tobytes().rstrip(b"\0").decode(errors="replace")
            raise kind(f"process {process}: {words}")
    return result


def from_process_0(numbers: list[int]) -> list[int]:
    """Return the numbers that process 0 passes. All processes must call this function together."""
    if jax.process_count() == 1:
        return numbers
    from jax.experimental import multihost_utils

    count = int(multihost_utils.broadcast_one_to_all(np.int32(len(numbers))))
    if not count:
        return []
    return list(map(int, multihost_utils.broadcast_one_to_all(np.resize(np.array(numbers or [0], np.int32), count))))


def spans_processes(x: object) -> bool:
    """Return True if an array has devices of other processes."""
    return isinstance(x, jax.Array) and not x.is_fully_addressable


def boxes(shape: Sequence[int], box: Sequence[int], start: Sequence[int]) -> Iterator[_Index]:
    """Divide an array along a grid of boxes, and yield the parts in row-major order.

    The array may be a shard of a larger array. The grid begins at the first element of the larger array.

    Args:
        shape: The shape of the array.
        box: The shape of a box.
        start: The index of the array's first element in the larger array.

    Yields:
        The slices of each part in the larger array.
    """
    axes: list[list[Slice]] = []
    for n, size, first in zip(shape, box, start, strict=True):
        inner = range((first // size + 1) * size, first + n, size)
        edges = [first, *inner, first + n]
        axes.append([slice(a, b) for a, b in itertools.pairwise(edges)])
    yield from itertools.product(*axes)


def rows(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Return the shape of a box of whole rows: as many as fit into `PIECE` bytes, but at least one."""
    row = itemsize * int(np.prod(shape[1:], dtype=object))
    return (max(PIECE // max(row, 1), 1), *(max(n, 1) for n in shape[1:])) if shape else ()


def pieces(x: ArrayLike) -> Iterator[UInt8[np.ndarray, "n"]]:
    """Yield the bytes of an array's values in row-major order.

    A sharded array is read in pieces, and any other array in one piece. The values of an array on one CPU device are
    not copied. If a sharded array spans processes, every process gets all pieces, and all processes must read the
    pieces together.
    """
    if not isinstance(x, jax.Array):
        whole = np.ascontiguousarray(x)
    elif x.is_fully_replicated:
        # JAX keeps the NumPy copy of an accelerator array until the array object is freed. `addressable_data` makes a
        # new object, which is freed earlier.
        whole = np.ascontiguousarray(x.addressable_data(0))
    else:
        yield from map(_bytes, _gathered(x))
        return
    yield _bytes(whole)


def _bytes(x: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "n"]:
    return x.reshape(-1).view(np.uint8)


def _gathered(x: Array) -> Iterator[Shaped[np.ndarray, "..."]]:
    """Yield a sharded array in pieces of whole rows."""
    shards = [(_resolved(s.index, x.shape), np.asarray(s.data)) for s in x.addressable_shards if s.replica_id == 0]
    for part in boxes(x.shape, rows(x.shape, x.dtype.itemsize), (0,) * x.ndim):
        piece = np.zeros([s.stop - s.start for s in part], x.dtype)
        for index, data in shards:
            common = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(part, index, strict=True)]
            if all(start < stop for start, stop in common):
                target, source = (
                    tuple(slice(i - s.start, j - s.start) for (i, j), s in zip(common, place, strict=True))
                    for place in (part, index)
                )
                piece[target] = data[source]
        if spans_processes(x):
            from jax.experimental import multihost_utils

            # Exactly one process has the bytes of an element, and the others have zeros, so OR gives the bytes.
            each = multihost_utils.process_allgather(_bytes(piece))
            piece = np.bitwise_or.reduce(each, axis=0).view(x.dtype).reshape(piece.shape)
        yield piece


def _resolved(index: _Index, shape: Sequence[int]) -> _Index:
    return tuple(slice(*s.indices(n)[:2]) for s, n in zip(index, shape, strict=True))


def assembled(
    shape: Sequence[int],
    dtype: DTypeLike,
    read: Callable[[_Index], Shaped[np.ndarray, "..."]],
    sharding: jax.sharding.Sharding | None = None,
    box: Sequence[int] | None = None,
) -> Array:
    """Return an array that is read in pieces, without a second copy of its values.

    Args:
        shape: The shape of the array.
        dtype: The dtype of the array. A 64-bit dtype is kept even if x64 is off.
        read: A function that takes a tuple with one slice per axis, and returns the values there.
        sharding: The devices of the array. Each process reads the parts of its own devices. By default, the
            array is on the default device, uncommitted, and its pieces are read in row-major order.
        box: The largest shape of a piece. Default: whole rows.

    Returns:
        The array. JAX owns its memory, so a jitted function can reuse the memory if the array is donated.
    """
    box = rows(shape, jnp.dtype(dtype).itemsize) if box is None else box
    with jax.enable_x64(True):
        if sharding is None:
            return _filled(_resolved((slice(None),) * len(shape), shape), dtype, read, box, None)
        parts = sharding.addressable_devices_indices_map(tuple(shape)).items()
        shards = [_filled(_resolved(index or (), shape), dtype, read, box, device) for device, index in parts]
        return jax.make_array_from_single_device_arrays(tuple(shape), sharding, shards)


def _filled(
    index: _Index,
    dtype: DTypeLike,
    read: Callable[[_Index], Shaped[np.ndarray, "..."]],
    box: Sequence[int],
    device: jax.Device | None,
) -> Array:
    """Return one device's part of an array."""
    shape, start = [s.stop - s.start for s in index], [s.start for s in index]
    parts = list(boxes(shape, box, start))
    if len(parts) == 1:
        return jnp.array(read(parts[0]), dtype, device=device)
    x = jnp.zeros(shape, dtype, device=device)
    for part in parts:
        piece = np.ascontiguousarray(read(part), dtype)
        # Wait for the copy. Otherwise pieces that are not yet copied could fill the memory.
        x = _put(
            x, piece, [np.uint32(s.start - first) for s, first in zip(part, start, strict=True)]
        ).block_until_ready()
    return x


@jit(donate_argnums=0)
def _put(x: Array, piece: ArrayLike, start: Sequence[ArrayLike]) -> Array:
    return lax.dynamic_update_slice(x, piece, start)


def digest(arrays: Sequence[Array | NDArray[Any]]) -> list[str]:
    """Return a 64-bit digest of each array's values, as hexadecimal digits.

    The digest depends on the values and their places, and not on the devices. An element of up to 32 bits is one word u
    of 32 bits. A larger element is several words, along one or two more axes. With the indices i₁, …, iₖ of the word,
    an odd constant g, and all arithmetic mod 2³²:

        p₀ = q₀ = 0,   pₐ = mix(pₐ₋₁ + g(iₐ + 1)),   qₐ = g·qₐ₋₁ + iₐ
        s = mix(u XOR pₖ),   t = mix(s + qₖ)
        digest = (Σ s, Σ t), the sums over all words

    mix is a bijection, so any change of one word changes Σ s. If more words change, both sums stay the same with a
    probability of about 2⁻⁶⁴. The digest detects damage; it is no protection against forgery.
    Each device sums its own shards in one pass, without temporary arrays.

    All processes must call this function together.

    Args:
        arrays: JAX arrays, sharded or not, and NumPy arrays. If an array does not span processes, the values on
            process 0 are used.

    Returns:
        One string of 16 digits per array.

    Source: mix is lowbias32, Chris Wellons, https://nullprogram.com/blog/2018/07/31/. g is the constant of Knuth's
    multiplicative hash.
    """
    with jax.enable_x64(True):  # otherwise JAX would cut elements of 64 bits to 32 bits
        parts = [_own_sums(x) for x in arrays]
    sums = np.array([np.sum(part, axis=0, dtype=np.uint32) for part in parts], np.uint32).reshape(-1, 2)
    if jax.process_count() > 1 and arrays:
        from jax.experimental import multihost_utils

        sums = np.sum(multihost_utils.process_allgather(sums), axis=0, dtype=np.uint32)
    return [f"{s:08x}{t:08x}" for s, t in sums]


def _own_sums(x: Array | NDArray[Any]) -> list[NDArray[Any]]:
    """Return the two sums of each part of an array that this process counts. One device counts each part."""
    parts: list[tuple[Array | NDArray[Any], Sequence[int]]]
    if not isinstance(x, jax.Array):
        parts = [(x, (0,) * x.ndim)] if jax.process_index() == 0 else []
    elif x.is_fully_addressable and jax.process_index() > 0:
        parts = []  # process 0 counts its own copy of this array
    else:
        parts = [
            (s.data, [i.start for i in _resolved(s.index, x.shape)]) for s in x.addressable_shards if s.replica_id == 0
        ]
    sums = [_sums(data, jnp.asarray(np.array(start, np.uint32))) for data, start in parts]
    return [np.asarray(pair) for pair in sums] or [np.zeros(2, np.uint32)]


@jit
def _sums(x: ArrayLike, start: UInt32[Array, "axes"]) -> UInt32[Array, "2"]:
    x = jnp.asarray(x)
    u = _words(x)
    p = q = jnp.asarray(0, np.uint32)
    for axis in range(u.ndim):
        i = lax.broadcasted_iota(np.uint32, u.shape, axis)
        i = i + start[axis] if axis < x.ndim else i
        p, q = _mix(p + _GOLDEN * (i + np.uint32(1))), _GOLDEN * q + i
    s = _mix(u ^ p)
    t = _mix(s + q)
    zero = jnp.asarray(0, np.uint32)
    # Reduce s and t together: two calls of jnp.sum would write s and t to memory.
    sums: tuple[Array, Array]
    sums = lax.reduce((s, t), (zero, zero), lambda a, b: (a[0] + b[0], a[1] + b[1]), tuple(range(u.ndim)))
    return jnp.stack(sums)


def _mix(x: Array) -> Array:
    x = (x ^ (x >> np.uint32(16))) * _FIRST
    x = (x ^ (x >> np.uint32(15))) * _SECOND
    return x ^ (x >> np.uint32(16))


def _words(x: Array) -> UInt32[Array, "..."]:
    """Return the elements as words of 32 bits. Words of longer elements lie along one or two more axes."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = jnp.stack([x.real, x.imag], axis=-1)
    if x.dtype.itemsize <= 4 and not jnp.issubdtype(x.dtype, jnp.inexact):
        return x.astype(np.uint32)
    unsigned = {1: "uint8", 2: "uint16"}.get(x.dtype.itemsize, "uint32")
    return lax.bitcast_convert_type(x, unsigned).astype(np.uint32)
