"""Networks as safetensors files, for exchange with other programs."""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float, Shaped

from jaxgd.errors import (
    CheckpointError,
    DtypeError,
    ShapeError,
    describe,
    is_traced,
    require_float,
)
from jaxgd.files import as_path, read_file, write_atomically
from jaxgd.network import Layer, Network, network_sizes

_NETWORK, _OLD_NETWORK = "jaxgd.network/2", "jaxgd.network/1"
# Largest size of a file in bytes: 2**30 weights in float64, and 1 GiB for biases and names.
_MOST = 9 * 2**30
_DTYPES = {"BF16": jnp.bfloat16, "F16": np.float16, "F32": np.float32, "F64": np.float64}


def save_network(path: str | Path, network: Network) -> None:
    """Write a network to a safetensors file, for any program that reads the format.

    Layer i's weights and biases are the tensors "i.w", (out, in), and "i.b", (out,). The file is replaced whole or not
    at all. It holds the SHA-256 of the tensors, which detects damage.

    Args:
        path: Path of the file, which must end in `.safetensors`.
        network: Network to write, in its own dtype: float16, bfloat16, float32 or float64.

    Raises:
        CheckpointError: If the path does not end in `.safetensors`.
        DtypeError: If `path` is not a str or a Path, or the network is not a tuple of layers with arrays of these
            dtypes.
        RangeError: If no file can have this path.
        ShapeError: If the layers do not fit together, or one has no neuron or no input.
        WriteError: If the file cannot be written.

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
    tensors = {
        f"{i}.{name}": np.ascontiguousarray(jax.device_get(value))
        for i, layer in enumerate(network)
        for name, value in layer._asdict().items()
    }
    # One entry of metadata, because safetensors writes several in an order that differs between processes.
    write_atomically(path, safetensors.numpy.save(tensors, metadata=checksum(_NETWORK, tensors)))


def load_network(path: str | Path, *, allow_non_finite: bool = False) -> Network:
    """Read a network from a safetensors file, as `save_network` writes it. Nothing is unpickled.

    The values are compared with the SHA-256 in the file. Files of other programs and of earlier versions of jaxgd
    have no SHA-256, so `load_network` warns that their values could not be verified.

    Args:
        path: Path of the file, of at most 9 GiB.
        allow_non_finite: True also accepts weights that are infinite or NaN. Default False.

    Returns:
        The network, in the dtype of the file.

    Raises:
        CheckpointError: If the file is missing or damaged, holds no network, holds float64 while x64 is off, or holds
            values that are not finite although `allow_non_finite` is False.
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
        tensors, metadata = read_tensors(read_file(path, _MOST), _DTYPES)
    except OSError as error:
        raise CheckpointError(f"load_network: {path} cannot be read: {error.strerror}.") from error
    except KeyError as error:
        raise CheckpointError(f"load_network: {path} must hold floating point weights, got {error}.") from error
    except (safetensors.SafetensorError, ValueError) as error:
        raise CheckpointError(f"load_network: {path} is damaged or not a safetensors file: {error}.") from error
    verified = _verify(path, tensors, metadata)
    layers = range(len(tensors) // 2)
    if not tensors or set(tensors) != {f"{i}.{name}" for i in layers for name in Layer._fields}:
        raise CheckpointError(
            f"load_network: {path} must hold the tensors 0.w, 0.b, 1.w, …, got {', '.join(sorted(tensors)) or 'none'}."
        )
    for name, value in tensors.items():
        if value.dtype == np.float64 and jnp.result_type(float) != np.float64:
            raise CheckpointError(
                f"load_network: {path}: {name} is float64, which JAX would round to float32.\n"
                "First call jax.config.update('jax_enable_x64', True)."
            )
        if not allow_non_finite and not np.isfinite(value).all():
            raise CheckpointError(
                f"load_network: {path}: {name} must be finite, got values that are infinite or NaN.\n"
                "Pass allow_non_finite=True to read them."
            )
    network = tuple(Layer(*(jnp.asarray(tensors[f"{i}.{name}"]) for name in Layer._fields)) for i in layers)
    try:
        _require_network("load_network", network)
    except ValueError as error:
        raise CheckpointError(f"load_network: {path}: {error}") from error
    if not verified:
        warnings.warn(f"load_network: {path} has no checksum of jaxgd: its values could not be verified.", stacklevel=2)
    return network


def _require_network(who: str, network: Network) -> None:
    """Raise unless `network` is a sequence of layers that a file can hold."""
    layers = () if isinstance(network, Layer) else network  # network_sizes explains a single layer
    if not isinstance(layers, (tuple, list)) or not all(isinstance(layer, Layer) for layer in layers):
        raise DtypeError(
            f"{who}: network must be a tuple of layers, got {describe(network)}.\n"
            "Make one with init_network(key, sizes)."
        )
    for i, layer in enumerate(layers):
        for name, value in layer._asdict().items():
            require_float(who, f"network[{i}].{name}", value)
            if is_traced(value) or jnp.result_type(value) not in _DTYPES.values():
                raise DtypeError(
                    f"{who}: network[{i}].{name} must be an array of float16, bfloat16, float32 or float64, got "
                    f"{'a traced ' * is_traced(value)}{describe(value)}.\nConvert it, and save outside jit."
                )
    if min(sizes := network_sizes(network)) == 0:
        raise ShapeError(f"network: each layer must have at least one neuron and one input, got the sizes {sizes}.")


def checksum(kind: str, tensors: dict[str, Shaped[np.ndarray, "..."]]) -> dict[str, str]:
    """Return the metadata of a file: its format, and the SHA-256 of all names, dtypes, shapes and values."""
    sha = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        sha.update(f"{name} {value.dtype} {value.shape} ".encode())
        sha.update(value.tobytes())
    return {"format": f"{kind} sha256:{sha.hexdigest()}"}


def _verify(path: Path, tensors: dict[str, Float[np.ndarray, "..."]], metadata: dict[str, str]) -> bool:
    """Return True if the SHA-256 shows that `save_network` wrote these tensors, and False if the file has none.

    A damaged file raises CheckpointError.
    """
    if metadata == checksum(_NETWORK, tensors):
        return True
    # A flipped bit damages at most one of these words. The other one still shows that jaxgd wrote the file.
    ours = any(word in text for text in (*metadata, *metadata.values()) for word in ("jaxgd", "sha256"))
    if ours and metadata != {"format": _OLD_NETWORK}:
        raise CheckpointError(
            f"load_network: {path} is damaged: its values differ from the saved ones, or it is not a {_NETWORK}.\n"
            "Restore the file, or write the network again."
        )
    return False


def read_tensors(content: bytes, dtypes: dict[str, Any]) -> tuple[dict[str, Shaped[np.ndarray, "..."]], dict[str, str]]:
    """Return the tensors and the metadata. safetensors.numpy writes bfloat16 but cannot read it.

    A tensor of a dtype that `dtypes` does not list raises KeyError.
    """
    tensors = {
        name: np.frombuffer(tensor["data"], dtypes[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    }
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return tensors, header.get("__metadata__") or {}
