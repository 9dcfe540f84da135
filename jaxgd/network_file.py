"""Networks as safetensors files, for exchange with other programs."""

import errno
import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt8
from numpy.typing import NDArray

from jaxgd.activations import ACTIVATIONS, name_of
from jaxgd.errors import (
    CheckpointError,
    DtypeError,
    ShapeError,
    WriteError,
    describe,
    is_traced,
    require_float,
)
from jaxgd.files import as_path, free_memory, opened, unique, write_atomically
from jaxgd.network import Layer, Network, network_sizes
from jaxgd.pieces import assembled, pieces, spans_processes, together

_NETWORK, _OLD_NETWORK = "jaxgd.network/2", "jaxgd.network/1"
# The format of a network with an activation other than sigmoid. Older versions of jaxgd refuse it.
_ACTIVATED = "jaxgd.network/3"
# The dtypes in the order of the safetensors format. A file sorts its tensors by dtype, in the reverse order, and then
# by name.
_DTYPES = {
    name: jnp.dtype(dtype)
    for name, dtype in (
        *(("BOOL", "bool"), ("U8", "uint8"), ("I8", "int8"), ("I16", "int16"), ("U16", "uint16"), ("F16", "float16")),
        *(("BF16", "bfloat16"), ("I32", "int32"), ("U32", "uint32"), ("F32", "float32"), ("F64", "float64")),
        *(("I64", "int64"), ("U64", "uint64")),
    )
}
_FLOAT_DTYPES = [_DTYPES[name] for name in ("F16", "BF16", "F32", "F64")]
_LONGEST = 100_000_000  # most bytes of a header in the safetensors format


def save_network(path: str | Path, network: Network) -> None:
    """Write a network to a safetensors file, for any program that reads the format.

    The weights and biases of layer i, from 0, are the tensors "i.w", (out, in), and "i.b", (out,). The metadata of the
    file hold the names of the activations, unless all are "sigmoid". The file is replaced whole or not at all. It holds
    a SHA-256 of the tensors and of the activations, which detects damage. The weights are written in pieces, without a
    second copy in memory.

    If the network spans several processes, all processes call `save_network`. Process 0 writes the file, and the others
    return when it is complete.

    Args:
        path: Path of the file, which must end in `.safetensors`.
        network: Network to write, in its own dtype: float16, bfloat16, float32 or float64. Its activations must be
            names such as "tanh".

    Raises:
        CheckpointError: If the path does not end in `.safetensors`.
        DtypeError: If `path` is not a str or a Path, or the network is not a tuple of layers with arrays of these
            dtypes. Also if an activation is a function of your own, which a file cannot hold.
        RangeError: If no file can have this path.
        ShapeError: If the network is a single Layer without a tuple or has no layer, the layers do not fit together, or
            a layer has no neuron or no input.
        WriteError: If the file cannot be written, on any process.

    Example:
        >>> import tempfile; from jaxgd import init_network
        >>> path = Path(tempfile.mkdtemp()) / "network.safetensors"
        >>> save_network(path, init_network(jax.random.key(0), (3, 2)))
        >>> load_network(path)[0].w.shape
        (2, 3)
    """
    path = as_path("save_network", path)
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"save_network: path must end in .safetensors, got {path.name!r}.\n"
            f"Name it {path.stem or 'network'}.safetensors."
        )
    _require_network("save_network", network)
    layers = enumerate(network)
    tensors = {f"{i}.{name}": x for i, layer in layers for name, x in layer._asdict().items()}
    names = [layer.activation for layer in network]
    if all(name == "sigmoid" for name in names):
        write_tensors(path, _NETWORK, tensors)
    else:
        write_tensors(path, _ACTIVATED, tensors, {"activations": json.dumps(names)})


def load_network(path: str | Path, *, allow_non_finite: bool = False) -> Network:
    """Read a network from a safetensors file, as `save_network` writes it. Nothing is unpickled.

    The values are verified with the SHA-256 in the file. Files of other programs and of earlier versions of jaxgd
    have no SHA-256, so `load_network` warns that their values could not be verified. It assumes that all their neurons
    are sigmoid neurons.

    Args:
        path: Path of the file.
        allow_non_finite: True also accepts weights that are infinite or NaN. Default False.

    Returns:
        The network, in the dtype and with the activations of the file.

    Raises:
        CheckpointError: If the file is missing or damaged, holds no network, or is larger than the free memory. Also if
            it holds float64 while x64 is off, an activation that this version does not know, or infinite or NaN
            values without `allow_non_finite`.
        DtypeError: If `path` is not a str or a Path.
        RangeError: If no file can have this path.

    Example:
        >>> import tempfile; from jaxgd import init_network
        >>> path = Path(tempfile.mkdtemp()) / "network.safetensors"
        >>> save_network(path, init_network(jax.random.key(0), (4, 3, 2)))
        >>> [layer.w.shape for layer in load_network(path)]
        [(3, 4), (2, 3)]
    """
    path = as_path("load_network", path)
    try:
        tensors, metadata, sha, finite = read_tensors(path)
    except OSError as error:
        raise CheckpointError(f"load_network: {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise CheckpointError(f"load_network: {path} is damaged or not a safetensors file: {error}.") from error
    layers = range(len(tensors) // 2)
    activations = _verified_activations(path, sha, metadata, len(layers))
    if not tensors or set(tensors) != {f"{i}.{name}" for i in layers for name in Layer._fields}:
        raise CheckpointError(
            f"load_network: {path} must hold the tensors 0.w, 0.b, 1.w, …, got {', '.join(sorted(tensors)) or 'none'}."
        )
    for name, value in tensors.items():
        if value.dtype not in _FLOAT_DTYPES:
            raise CheckpointError(f"load_network: {path} must hold floating point weights, got {describe(value)}.")
        if value.dtype == np.float64 and jnp.result_type(float) != np.float64:
            raise CheckpointError(
                f"load_network: {path}: {name} is float64, which JAX would round to float32.\n"
                "First call jax.config.update('jax_enable_x64', True)."
            )
        if not allow_non_finite and name not in finite:
            raise CheckpointError(
                f"load_network: {path}: {name} must be finite, got values that are infinite or NaN.\n"
                "Pass allow_non_finite=True to read them."
            )
    each = activations or ["sigmoid"] * len(layers)
    network = tuple(Layer(tensors[f"{i}.w"], tensors[f"{i}.b"], each[i]) for i in layers)
    try:
        _require_network("load_network", network)
    except ValueError as error:
        raise CheckpointError(f"load_network: {path}: {error}") from error
    if activations is None:
        warnings.warn(
            f"load_network: {path} has no checksum of jaxgd: its values could not be verified, and its neurons are "
            "assumed to be sigmoid neurons.",
            stacklevel=2,
        )
    return network


def _require_network(who: str, network: Network) -> None:
    """Raise unless `network` is a sequence of layers that a file can hold."""
    layers = () if isinstance(network, Layer) else network  # network_sizes raises for a single layer
    if not isinstance(layers, (tuple, list)) or not all(isinstance(layer, Layer) for layer in layers):
        raise DtypeError(
            f"{who}: network must be a tuple of layers, got {describe(network)}.\n"
            "Make one with init_network(key, sizes)."
        )
    for i, layer in enumerate(layers):
        if not isinstance(layer.activation, str):
            raise DtypeError(
                f"{who}: network[{i}].activation must be the name of an activation, got {name_of(layer.activation)}.\n"
                'Save layers with layer._replace(activation="sigmoid"), and set your function again after loading.'
            )
        for name, value in layer._asdict().items():
            require_float(who, f"network[{i}].{name}", value)
            if is_traced(value) or jnp.result_type(value) not in _FLOAT_DTYPES:
                raise DtypeError(
                    f"{who}: network[{i}].{name} must be an array of float16, bfloat16, float32 or float64, got "
                    f"{'a traced ' * is_traced(value)}{describe(value)}.\nConvert it, and save outside jit."
                )
    if min(sizes := network_sizes(network)) == 0:
        raise ShapeError(f"network: each layer must have at least one neuron and one input, got the sizes {sizes}.")


def _verified_activations(path: Path, sha: str, metadata: dict[str, str], layers: int) -> list[str] | None:
    """Return the activations if the SHA-256 of the file is right. Return None if the file has no SHA-256.

    Raise CheckpointError if the file is damaged, or if this version of jaxgd does not know its activations.
    """
    if metadata == checksum(_NETWORK, sha):
        return ["sigmoid"] * layers
    names = metadata.get("activations", "")
    if metadata == checksum(_ACTIVATED, sha, {"activations": names}):
        activations: list[str] = json.loads(names)
        if len(activations) == layers and all(name in ACTIVATIONS for name in activations):
            return activations
        raise CheckpointError(
            f"load_network: {path} must have {layers} of the activations {', '.join(ACTIVATIONS)}, got {names[:100]}.\n"
            "A newer version of jaxgd may know these activations."
        )
    # "jaxgd" or "sha256" shows that jaxgd wrote the file. A flipped bit damages only one of these words.
    ours = any(word in text for text in (*metadata, *metadata.values()) for word in ("jaxgd", "sha256"))
    if ours and metadata != {"format": _OLD_NETWORK}:
        raise CheckpointError(
            f"load_network: {path} is damaged: its values differ from the saved ones, or it is neither a {_NETWORK} "
            f"nor a {_ACTIVATED}.\nRestore the file, or write the network again."
        )
    return None


def checksum(kind: str, sha: str, notes: dict[str, str] | None = None) -> dict[str, str]:
    """Return the metadata of a file: its format with a SHA-256, and the texts `notes`.

    `sha` is the SHA-256 of all names, dtypes, shapes and values. With notes, the metadata hold a SHA-256 of `sha` and
    the notes in place of `sha`.
    """
    if notes:
        sha = hashlib.sha256(json.dumps([sha, notes], sort_keys=True).encode()).hexdigest()
    return {"format": f"{kind} sha256:{sha}", **(notes or {})}


def write_tensors(
    path: Path, kind: str, tensors: Mapping[str, Array | np.ndarray], notes: dict[str, str] | None = None
) -> None:
    """Write arrays to a safetensors file, with their SHA-256.

    `notes` are texts for the metadata. If an array spans processes, all processes must call this function
    together.
    """
    tensors = {name: x if hasattr(x, "dtype") else np.asarray(x) for name, x in tensors.items()}
    names = {dtype: name for name, dtype in _DTYPES.items()}
    rank = list(names)
    entries: dict[str, _Entry] = {}
    size = 0
    for name in sorted(tensors, key=lambda name: (-rank.index(tensors[name].dtype), name)):
        x, start = tensors[name], size
        size += math.prod(x.shape) * x.dtype.itemsize
        entries[name] = {"dtype": names[x.dtype], "shape": list(x.shape), "data_offsets": [start, size]}

    def header(sha: str) -> bytes:
        text = json.dumps(
            {"__metadata__": checksum(kind, sha, notes), **entries}, separators=(",", ":"), ensure_ascii=False
        )
        content = text.encode()
        content += b" " * (-len(content) % 8)
        return len(content).to_bytes(8, "little") + content

    data = len(header("0" * 64))
    # All processes gather the pieces of an array together, so every process must read the stream to its end.
    stream = ((name, piece) for name in sorted(tensors) for piece in _with_start(tensors[name]))

    def write(file: BinaryIO) -> None:
        sha = hashlib.sha256()
        for name, piece in stream:
            if piece is None:
                file.seek(data + entries[name]["data_offsets"][0])
                sha.update(f"{name} {tensors[name].dtype} {tensors[name].shape} ".encode())
            else:
                sha.update(piece.data)
                file.write(piece.data)
        file.seek(0)
        file.write(header(sha.hexdigest()))

    def work() -> None:
        try:
            if jax.process_index() == 0:
                write_atomically(path, write)
        finally:
            for _ in stream:
                pass

    if any(map(spans_processes, tensors.values())):
        together(work, WriteError)
    else:
        write_atomically(path, write)


def _with_start(x: Array | np.ndarray) -> Iterator[UInt8[np.ndarray, "n"] | None]:
    yield None
    yield from pieces(x)


_Index = tuple[slice, ...]
# The dtype and the shape of a tensor, and its offset in the data.
_Place = tuple[np.dtype[Any], tuple[int, ...], int]


class _Entry(TypedDict):
    """The entry of a tensor in the header of a safetensors file."""

    dtype: str
    shape: list[int]
    data_offsets: list[int]


class Tensors(NamedTuple):
    """The content of a safetensors file.

    Attributes:
        arrays: The arrays by their names.
        metadata: The metadata of the header.
        sha: The SHA-256 of all names, dtypes, shapes and values.
        finite: The names of the arrays whose values are all finite.
    """

    arrays: dict[str, Array]
    metadata: dict[str, str]
    sha: str
    finite: set[str]


def read_tensors(path: Path) -> Tensors:
    """Read a safetensors file in pieces.

    Args:
        path: The file.

    Returns:
        The content of the file, with the arrays on the default device.

    Raises:
        OSError: If the file cannot be read, or is larger than the free memory.
        ValueError: If the file is damaged or of another format.
    """
    with opened(path) as (handle, size), open(handle, "rb", buffering=0, closefd=False) as file:
        length = int.from_bytes(_exactly(file, 8), "little")
        if not 2 <= length <= min(size - 8, _LONGEST):
            raise ValueError(f"its header must have 2 to {_LONGEST:,} bytes, and the file must hold all of them")
        metadata, entries = _header(_exactly(file, length), size - 8 - length)
        if (free := free_memory()) is not None and size > free:
            raise OSError(
                errno.ENOMEM,
                f"it needs {size / 1e9:.3g} GB of memory, but {free / 1e9:.3g} GB are free",
            )
        sha, arrays, finite = hashlib.sha256(), {}, set()
        for name, (dtype, shape, start) in sorted(entries.items()):
            file.seek(8 + length + start)
            sha.update(f"{name} {dtype} {shape} ".encode())
            finite.add(name)

            def read(
                part: tuple[slice, ...], name: str = name, dtype: np.dtype[Any] = dtype
            ) -> Shaped[np.ndarray, "..."]:
                piece = np.empty([s.stop - s.start for s in part], dtype)
                sha.update(_exactly(file, piece.nbytes, piece.reshape(-1).view(np.uint8)).data)
                if name in finite and not np.isfinite(piece).all():
                    finite.remove(name)
                return piece

            arrays[name] = assembled(shape, dtype, read)
    return Tensors(arrays, metadata, sha.hexdigest(), finite)


def _exactly(file: FileIO, size: int, buffer: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Read exactly `size` bytes of a file into a buffer, and return the buffer."""
    buffer = np.empty(size, np.uint8) if buffer is None else buffer
    view, done = buffer.data, 0
    while done < size:
        count = file.readinto(view[done:])
        if not count:
            raise ValueError("it is cut short")
        done += count
    return buffer


def _header(
    content: NDArray[np.uint8], size: int
) -> tuple[dict[str, str], dict[str, tuple[np.dtype[Any], tuple[int, ...], int]]]:
    """Return the metadata of a header, and the dtype, shape and offset of each tensor.

    `size` is the number of bytes after the header.
    """
    try:
        header: object = json.loads(content.tobytes().decode("utf-8"), object_pairs_hook=unique)
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    metadata = header.pop("__metadata__", None) if isinstance(header, dict) else 0
    metadata = {} if metadata is None else metadata
    if (
        not isinstance(header, dict)
        or not isinstance(metadata, dict)
        or not all(isinstance(text, str) for text in metadata.values())
    ):
        raise ValueError("its header must be an object, and its metadata must be texts")
    entries: dict[str, _Place] = {}
    ends: list[tuple[int, int]] = []
    for name, entry in header.items():
        try:
            dtype, shape, (start, end) = _DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
            numbers = [*shape, start, end]
            known = len(entry) == 3 and all(type(n) is int and 0 <= n < 2**63 for n in numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"tensor {name[:50]!r} must have a known dtype, a shape and two offsets") from error
        if not known or end - start != math.prod(shape) * dtype.itemsize or (end == start and max(shape) >= 2**31):
            raise ValueError(f"the offsets of tensor {name[:50]!r} must fit its shape")
        entries[name] = (dtype, shape, start)
        ends.append((start, end))
    edges = [0, *(edge for pair in sorted(ends) for edge in pair), size]
    if edges[::2] != edges[1::2]:
        raise ValueError("its tensors must fill the file without gaps or overlaps")
    return metadata, entries
