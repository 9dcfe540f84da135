"""Save and resume: checkpoints of a run with orbax, and networks for exchange with safetensors."""

import contextlib
import functools
import hashlib
import importlib.util
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float, PyTree

from jaxgd.errors import CheckpointError, MissingDependencyError, WriteError
from jaxgd.files import write_atomically
from jaxgd.network import Layer, Network, network_sizes

_CHECKPOINT = "jaxgd.checkpoint/1"
_NETWORK = "jaxgd.network/1"


class Restored(NamedTuple):
    """The newest intact checkpoint, and the reasons to refuse newer ones.

    Attributes:
        epoch: Epoch of the checkpoint.
        tree: Saved pytree.
        refused: One message for each newer checkpoint that is damaged or foreign.
    """

    epoch: int
    tree: PyTree[Any]
    refused: tuple[str, ...]


class Checkpoints:
    """The checkpoints of one run in one folder. Each is written whole or not at all, and the newest few are kept.

    A checkpoint holds a pytree of arrays (typed keys included), the run's configuration, the shapes of the arrays, and
    the SHA-256 of all values, which detects damage. Saving runs in the background. `close`, or the end of the `with`
    block, waits for it. Loading never unpickles.

    A failed write raises WriteError. If no checkpoint can be read, `restore` raises CheckpointError.

    >>> import tempfile
    >>> with Checkpoints(Path(tempfile.mkdtemp()), config={"eta": 3.0}) as checkpoints:
    ...     checkpoints.save(3, {"v": jnp.array([1.0, 2.0])})
    ...     checkpoints.wait()
    ...     restored = checkpoints.restore({"v": jnp.zeros(0)})
    >>> restored.epoch, restored.tree["v"].tolist(), restored.refused
    (3, [1.0, 2.0], ())
    """

    def __init__(self, folder: Path, config: dict[str, Any], keep: int = 3) -> None:
        require_orbax()
        self._folder, self._config, self._keep = Path(folder).absolute(), json.loads(json.dumps(config)), keep

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @functools.cached_property
    def _ocp(self) -> Any:
        import orbax.checkpoint

        return orbax.checkpoint

    @functools.cached_property
    def _manager(self) -> Any:
        # Import orbax on first use, because the import takes half as long as that of JAX.
        options = self._ocp.CheckpointManagerOptions(max_to_keep=self._keep)
        with _saving(self._folder):
            return self._ocp.CheckpointManager(self._folder, options=options)

    @property
    def newest(self) -> int | None:
        """The epoch of the newest checkpoint, saved or being saved; None if there is none."""
        newest: int | None = self._manager.latest_step()
        return newest

    def save(self, epoch: int, tree: PyTree[Any]) -> None:
        """Start to write the tree as this epoch's checkpoint. An earlier write that failed raises its error here."""
        leaves = [np.asarray(leaf) for leaf in jax.device_get(list(map(_unkeyed, jax.tree.leaves(tree))))]
        values = np.frombuffer(b"".join(leaf.tobytes() for leaf in leaves), np.uint8)
        about = {
            "format": _CHECKPOINT,
            "config": self._config,
            "epoch": epoch,
            "leaves": [{"shape": leaf.shape, "dtype": str(leaf.dtype)} for leaf in leaves],
            "bytes": values.size,
            "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
        }
        # Save all values as one array. If one of several arrays is damaged, orbax hangs while it reads the others.
        state = self._ocp.args.StandardSave({"values": values})
        items = {"about": self._ocp.args.JsonSave(about), "state": state}
        with _saving(self._folder):
            # force=True writes an epoch again after `restore` has refused it.
            self._manager.save(epoch, args=self._ocp.args.Composite(**items), force=True)

    def wait(self) -> None:
        """Return when everything saved is on the disk."""
        with _saving(self._folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for all writes, and release the folder."""
        if "_manager" in self.__dict__:
            with _saving(self._folder):
                self._manager.close()

    def restore(self, like: PyTree[Any]) -> Restored | None:
        """Return the newest intact checkpoint in the structure of `like`, or None if the folder is empty.

        A checkpoint is refused if it is damaged, was written by another program or has another structure. Refused
        checkpoints move to another folder, so that the run can write their epochs again.

        Args:
            like: A pytree of the same structure. Its shapes and values do not matter.

        Returns:
            The newest intact checkpoint and the refused ones, or None.

        Raises:
            CheckpointError: If all checkpoints are refused. They stay in the folder.
        """
        refused: list[str] = []
        steps = sorted(self._manager.all_steps(), reverse=True)
        for epoch in steps:
            try:
                tree = self._read(epoch, like)
            except Exception as error:  # orbax and tensorstore raise many types on damaged files
                reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
                refused.append(f"{self._folder / str(epoch)} is refused: {reason}")
                continue
            self._set_aside([step for step in steps if step > epoch])
            return Restored(epoch, tree, tuple(refused))
        if refused:
            raise CheckpointError("no checkpoint can be read: " + "; ".join(refused))
        return None

    def _read(self, epoch: int, like: PyTree[Any]) -> PyTree[Any]:
        about = self._manager.restore(epoch, args=self._ocp.args.Composite(about=self._ocp.args.JsonRestore()))["about"]
        if not isinstance(about, dict) or about.get("format") != _CHECKPOINT:
            raise CheckpointError(f"it is not a {_CHECKPOINT}")
        if about["config"] != self._config or len(about["leaves"]) != len(jax.tree.leaves(like)):
            raise CheckpointError("it belongs to another run")
        state = self._ocp.args.StandardRestore({"values": np.zeros(about["bytes"], np.uint8)})
        values = self._manager.restore(epoch, args=self._ocp.args.Composite(state=state))["state"]["values"]
        if hashlib.sha256(values.tobytes()).hexdigest() != about["sha256"] or about["epoch"] != epoch:
            raise CheckpointError("its values differ from the saved ones (damaged file)")
        leaves, offset = [], 0
        for leaf in about["leaves"]:
            dtype, count = jnp.dtype(leaf["dtype"]), math.prod(leaf["shape"])
            leaves.append(np.frombuffer(values, dtype, count, offset).reshape(leaf["shape"]))
            offset += count * dtype.itemsize
        return jax.tree.map(_keyed_like, like, jax.tree.unflatten(jax.tree.structure(like), leaves))

    def _set_aside(self, steps: list[int]) -> None:
        """Move the refused checkpoints to a folder next to this one."""
        for step in steps:
            target = self._folder.with_name(f"{self._folder.name}-refused") / str(step)
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            (self._folder / str(step)).rename(target)
        if steps:
            self._manager.reload()


def require_orbax() -> None:
    """Raise MissingDependencyError if orbax, which writes the checkpoints, is not installed."""
    if importlib.util.find_spec("orbax") is None or importlib.util.find_spec("orbax.checkpoint") is None:
        raise MissingDependencyError("checkpoints need orbax: pip install orbax-checkpoint")


@contextlib.contextmanager
def _saving(folder: Path) -> Iterator[None]:
    """Turn every exception of the writing library, for instance on a full disk, into one WriteError."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise WriteError(f"{folder}: the checkpoint cannot be written: {reason[:300]}") from error


def save_network(path: str | Path, network: Network) -> None:
    """Write a network to a safetensors file, for any program that reads the format.

    Layer i's weights and biases are the tensors "i.w", (out, in), and "i.b", (out,). The file is replaced whole or not
    at all.

    Args:
        path: Path of the file, which must end in `.safetensors`.
        network: Network to write, in its own dtype.

    Raises:
        CheckpointError: If the path does not end in `.safetensors`.
        ShapeError: If the layers do not fit together.
        WriteError: If the file cannot be written.

    Example:
        >>> import tempfile; from jaxgd import init_network
        >>> path = Path(tempfile.mkdtemp()) / "network.safetensors"
        >>> save_network(path, init_network(jax.random.key(0), (3, 2)))
        >>> load_network(path)[0].w.shape
        (2, 3)
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"save_network: the file's name must end in .safetensors, got {path.name!r}.")
    network_sizes(network)
    tensors = {
        f"{i}.{name}": np.ascontiguousarray(jax.device_get(value))
        for i, layer in enumerate(network)
        for name, value in layer._asdict().items()
    }
    write_atomically(path, safetensors.numpy.save(tensors, metadata={"format": _NETWORK}))


def load_network(path: str | Path) -> Network:
    """Read a network from a safetensors file, as `save_network` writes it. Nothing is unpickled.

    Args:
        path: Path of the file.

    Returns:
        The network, in the dtype of the file.

    Raises:
        CheckpointError: If the file is missing or damaged, holds no network, or holds float64 while x64 is off.

    Example:
        >>> import tempfile; from jaxgd import init_network
        >>> path = Path(tempfile.mkdtemp()) / "network.safetensors"
        >>> save_network(path, init_network(jax.random.key(0), (4, 3, 2)))
        >>> [layer.w.shape for layer in load_network(path)]
        [(3, 4), (2, 3)]
    """
    path = Path(path)
    try:
        tensors = _tensors(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"load_network: {path} cannot be read: {error.strerror}.") from error
    except KeyError as error:
        raise CheckpointError(f"load_network: {path} must hold floating point weights, got {error}.") from error
    except (safetensors.SafetensorError, ValueError) as error:
        raise CheckpointError(f"load_network: {path} is damaged or not a safetensors file: {error}.") from error
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
    network = tuple(Layer(*(jnp.asarray(tensors[f"{i}.{name}"]) for name in Layer._fields)) for i in layers)
    try:
        network_sizes(network)
    except ValueError as error:
        raise CheckpointError(f"load_network: {path}: {error}") from error
    return network


_DTYPES = {"BF16": jnp.bfloat16, "F16": np.float16, "F32": np.float32, "F64": np.float64}


def _tensors(content: bytes) -> dict[str, Float[np.ndarray, "..."]]:
    # safetensors.numpy writes bfloat16 but cannot read it.
    return {
        name: np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    }


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _unkeyed(x: Any) -> Any:
    return jax.random.key_data(x) if _is_key(x) else x


def _keyed_like(like: Any, x: Any) -> Any:
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(like)) if _is_key(like) else jnp.asarray(x)
