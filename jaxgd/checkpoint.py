"""Checkpoints of a run, written and read by orbax."""

import contextlib
import functools
import hashlib
import importlib.util
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import Any, NamedTuple, NotRequired, TypedDict, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxgd.errors import (
    CheckpointError,
    JaxgdError,
    MissingDependencyError,
    WriteError,
)
from jaxgd.files import read_file, seal, unseal
from jaxgd.mesh.processes import process_count
from jaxgd.pieces import PIECE, assembled, digest, from_process_0, spans_processes, together
from jaxgd.typed import Field, tree_leaves, tree_map

X = TypeVar("X")

# Formats 1 and 2 join all leaves into one array. Format 1 has no checksum of the description.
_CHECKPOINT, _JOINED, _UNSEALED = "jaxgd.checkpoint/3", "jaxgd.checkpoint/2", "jaxgd.checkpoint/1"
_FOREIGN = "it belongs to another run, or config.json was changed"
_DAMAGED = "its values differ from the saved ones (damaged file)"
# Largest size in bytes of a leaf that is joined with others. A file for each small leaf would take longer.
_SMALL = 2**20
_MOST = 2**30  # limit on the description of a checkpoint, in bytes


class Restored(NamedTuple):
    """The newest intact checkpoint, and the reasons why newer ones were refused.

    Attributes:
        epoch: Epoch of the checkpoint.
        tree: Saved pytree.
        refused: One message for each newer checkpoint, with the reason why it was refused.
    """

    epoch: int
    tree: Any
    refused: tuple[str, ...]


class _Entry(TypedDict):
    """The description of a leaf in a checkpoint."""

    shape: list[int]
    dtype: str
    path: NotRequired[str]
    digest: NotRequired[str | None]


class Checkpoints:
    """The checkpoints of one run in one folder. Each is written whole or not at all, and the newest few are kept.

    A checkpoint holds a pytree of arrays (typed keys included), the run's configuration, and the paths and shapes of
    the arrays. Checksums of all of this detect damage. Saving runs in the background. `wait`, `close` and the end of
    the `with` block wait for it. Loading never unpickles.

    Leaves above 1 MiB, and leaves divided among processes, are arrays of their own, written shard by shard. Their
    checksum is `jaxgd.pieces.digest`, which does not depend on the devices. Smaller leaves are joined into one array,
    whose checksum is a SHA-256.

    In a job, all processes share the folder and make the same calls together. Each process writes and reads its own
    shards. All processes accept or refuse the same checkpoints.

    A failed write raises WriteError. If all checkpoints are refused, `restore` raises CheckpointError. Both errors
    state the reason, so the log messages of orbax are dropped until `close`.

    Args:
        folder: Folder for the checkpoints. It is created if it does not exist.
        config: Configuration of the run, a dict that JSON can hold. A checkpoint is refused if its own configuration
            lacks one of these entries or has another value for it.
        keep: Number of checkpoints to keep. Default 3.
        guard: Function that `save`, `wait` and `close` call. It raises if the folder was deleted, moved or
            replaced. By default it does nothing.

    >>> import tempfile
    >>> with Checkpoints(Path(tempfile.mkdtemp()), config={"eta": 3.0}) as checkpoints:
    ...     checkpoints.save(3, {"v": jnp.array([1.0, 2.0])})
    ...     checkpoints.wait()
    ...     restored = checkpoints.restore({"v": jnp.zeros(0)})
    >>> restored.epoch, restored.tree["v"].tolist(), restored.refused
    (3, [1.0, 2.0], ())
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], keep: int = 3, guard: Callable[[], None] = lambda: None
    ) -> None:
        require_orbax()
        self._config: dict[str, Any] = json.loads(json.dumps(config))
        self._folder, self._keep, self._guard = Path(folder).absolute(), keep, guard

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
        # orbax logs the traceback of each error of its threads, and of each damaged file that it reads.
        logging.getLogger("absl").addFilter(_is_not_of_orbax)
        with _saving(self._folder):
            # Write one file per chunk of an array. OCDBT would hold all chunks in memory until the write ends.
            handler = self._ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=False)
            handlers = {"about": self._ocp.JsonCheckpointHandler(), "state": handler}
            return self._ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    @property
    def newest(self) -> int | None:
        """The epoch of the newest checkpoint, saved or being saved; None if there is none."""
        newest: int | None = self._manager.latest_step()
        return newest

    def save(self, epoch: int, tree: object) -> None:
        """Start to write the tree as this epoch's checkpoint. An earlier write that failed raises its error here."""
        together(self._guard, WriteError)
        leaves = [unkeyed(x) if hasattr(x, "dtype") else np.asarray(x) for x in tree_leaves(tree)]
        arrays = {str(i): _for_orbax(x) for i, x in enumerate(leaves) if _is_alone(x)}
        small: list[np.ndarray] = jax.device_get([x for x in leaves if not _is_alone(x)])
        joined = b"".join(np.asarray(x).tobytes() for x in small)
        digests = dict(zip(arrays, digest(list(arrays.values())), strict=True))
        about = {
            "format": _CHECKPOINT,
            "config": self._config,
            "epoch": epoch,
            "leaves": [
                {"path": path, "shape": x.shape, "dtype": str(x.dtype), "digest": digests.get(str(i))}
                for i, (path, x) in enumerate(zip(_paths(tree), leaves, strict=True))
            ],
            "bytes": len(joined),
            "values": hashlib.sha256(joined).hexdigest(),
        }
        if joined:  # orbax refuses an array without elements
            arrays["values"] = np.frombuffer(joined, np.uint8)
        chunks = {name: self._ocp.SaveArgs(chunk_byte_size=PIECE) for name in arrays}
        state = self._ocp.args.PyTreeSave(arrays, chunks)
        items = {"about": self._ocp.args.JsonSave(seal(about)), "state": state}
        with _saving(self._folder):
            # force=True writes an epoch again after `restore` has refused its checkpoint.
            self._manager.save(epoch, args=self._ocp.args.Composite(**items), force=True)

    def wait(self) -> None:
        """Return when everything saved is on the disk."""
        with _saving(self._folder):
            self._manager.wait_until_finished()
        self._guard()

    def close(self) -> None:
        """Wait for all writes, and release the folder."""
        if "_manager" in self.__dict__:
            try:
                with _saving(self._folder):
                    self._manager.close()
            finally:
                logging.getLogger("absl").removeFilter(_is_not_of_orbax)
            self._guard()

    def restore(self, like: object) -> Restored | None:
        """Return the newest intact checkpoint in the structure of `like`, or None if the folder holds no checkpoint.

        A checkpoint is refused if it is damaged, or has another format, configuration or structure. If an older
        checkpoint is intact, refused checkpoints move to another folder, so that the run can write their epochs again.

        Args:
            like: A pytree of the same structure, of arrays or their outlines (`jax.ShapeDtypeStruct`). Its shapes and
                values do not matter. Each leaf is restored with the sharding of the same leaf of `like`. A leaf
                without a sharding goes to the default device. The devices and the number of processes may differ from
                those that saved the checkpoint.

        Returns:
            The newest intact checkpoint and the reasons why newer ones were refused, or None.

        Raises:
            CheckpointError: If all checkpoints are refused. They stay in the folder.
        """
        refused: list[str] = []
        # Include checkpoints that orbax does not list. Without them, the run would silently start from its first epoch.
        folders = [path for path in self._folder.glob("*") if path.name.isdecimal() and path.is_dir()]
        steps = from_process_0(sorted((int(path.name) for path in folders), reverse=True))
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
            older = f" (and so are {len(refused) - 1} older ones)" if len(refused) > 1 else ""
            raise CheckpointError(
                f"no checkpoint can be read: {refused[0].rstrip('.')}{older}.\n"
                + (
                    "Copy back the config.json of the run that saved these checkpoints."
                    if refused[0].endswith(_FOREIGN)
                    else f"Delete {self._folder} to start from the first epoch."
                )
            )
        return None

    def _read(self, epoch: int, like: object) -> object:
        leaves, digests = together(lambda: self._leaves(epoch, like), CheckpointError)
        if digest([leaves[i] for i in digests]) != list(digests.values()):
            raise CheckpointError(_DAMAGED)
        tree: object = jax.tree.unflatten(jax.tree.structure(like), leaves)
        return tree_map(keyed_like, like, tree)

    def _leaves(self, epoch: int, like: object) -> tuple[list[Array | np.ndarray], dict[int, str]]:
        """Read this process's shards of all leaves, and the saved digests of the large leaves."""
        folder = self._folder / str(epoch)
        if not all(path.is_file() or path.is_dir() for path in folder.rglob("*")):
            raise CheckpointError("it holds a file that is not a regular one")  # a named pipe would block tensorstore
        content: object = json.loads(read_file(folder / "about" / "metadata", _MOST).decode())
        kind = content.get("format") if isinstance(content, dict) else None
        if not isinstance(content, dict) or kind not in (_CHECKPOINT, _JOINED, _UNSEALED):
            raise CheckpointError(f"it is not a {_CHECKPOINT}")
        about = content if kind == _UNSEALED else unseal(content)
        entries: list[_Entry] = about["leaves"]
        config: dict[str, Any] = about["config"]
        # Earlier versions saved no paths of the leaves. They saved more of the configuration, such as the data's path.
        paths = [entry.get("path", path) for entry, path in zip(entries, _paths(like), strict=False)]
        same = paths == _paths(like) and len(paths) == len(entries)
        if not self._config.items() <= config.items() or not same:
            raise CheckpointError(_FOREIGN)
        values = b""
        if about["bytes"]:
            values = _part(_opened(folder / "state", "values", [about["bytes"]], "uint8"), ...).tobytes()
        saved = about["sha256" if kind == _UNSEALED else "values"]
        if hashlib.sha256(values).hexdigest() != saved or about["epoch"] != epoch:
            raise CheckpointError(_DAMAGED)
        leaves: list[Array | np.ndarray] = []
        digests: dict[int, str] = {}
        offset = 0
        for i, (entry, x) in enumerate(zip(entries, tree_leaves(like), strict=True)):
            shape, dtype, sharding = entry["shape"], np.dtype(jnp.dtype(entry["dtype"])), _sharding(x)
            if known := entry.get("digest"):
                array = _opened(folder / "state", str(i), shape, dtype.name)
                box: Sequence[int] = array.chunk_layout.read_chunk.shape
                leaves.append(assembled(shape, dtype, functools.partial(_part, array), sharding, box))
                digests[i] = known
                continue
            value = np.frombuffer(values, dtype, math.prod(shape), offset).reshape(shape)
            offset += value.nbytes
            leaves.append(value if sharding is None else assembled(shape, dtype, value.__getitem__, sharding))
        return leaves, digests

    def _set_aside(self, steps: list[int]) -> None:
        """Move the refused checkpoints to the folder NAME-refused next to the folder NAME."""

        def move() -> None:
            for step in steps if jax.process_index() == 0 else ():
                target = self._folder.with_name(f"{self._folder.name}-refused") / str(step)
                target.parent.mkdir(exist_ok=True)
                shutil.rmtree(target, ignore_errors=True)
                (self._folder / str(step)).rename(target)

        with _saving(self._folder):
            together(move, WriteError)
            if steps:
                self._manager.reload()


def require_orbax() -> None:
    """Raise MissingDependencyError if orbax, which writes the checkpoints, is not installed."""
    if importlib.util.find_spec("orbax") is None or importlib.util.find_spec("orbax.checkpoint") is None:
        raise MissingDependencyError("checkpoints need orbax: pip install orbax-checkpoint")


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


@contextlib.contextmanager
def _saving(folder: Path) -> Iterator[None]:
    """Raise WriteError in place of any exception that is not jaxgd's own."""
    try:
        yield
    except JaxgdError:
        raise
    except Exception as error:  # orbax and tensorstore raise many types
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        code = re.search(r"os_error_code='(\d+)'", str(error))  # tensorstore puts the code into its messages
        reason = os.strerror(int(code[1])) if code else lines[0][:300]
        raise WriteError(f"{folder}: the checkpoint cannot be written: {reason.rstrip('.')}.") from error


def _is_alone(x: Array | np.ndarray) -> bool:
    """Return True if a leaf is written as an array of its own."""
    if isinstance(x, jax.Array) and spans_processes(x) and not x.is_fully_replicated:
        return x.size > 0
    return x.size * x.dtype.itemsize > _SMALL


def _for_orbax(x: Array | np.ndarray) -> Array | np.ndarray:
    """Return a leaf in the form that orbax accepts. In a job, orbax refuses a JAX array that only one process holds."""
    is_local = process_count() > 1 and not spans_processes(x)
    return np.asarray(x) if is_local else x


def _sharding(like: object) -> jax.sharding.Sharding | None:
    """Return the sharding for a leaf, or None for the default device."""
    if isinstance(like, jax.ShapeDtypeStruct):
        outline: jax.sharding.Sharding | None = like.sharding
        return outline
    return like.sharding if isinstance(like, jax.Array) and like.committed else None


def _opened(folder: Path, name: str, shape: Sequence[int], dtype: str) -> Any:
    """Open an array that orbax wrote, without reading its values."""
    import tensorstore

    store: dict[str, Any] = {"driver": "file", "path": f"{folder}/{name}/"}
    if (folder / "manifest.ocdbt").exists():  # formats 1 and 2
        store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}, "path": f"{name}/"}
    array = tensorstore.open({"driver": "zarr", "kvstore": store}, open=True, read=True).result()
    if list(array.shape) != list(shape) or array.dtype.name != dtype:
        raise CheckpointError(_DAMAGED)
    return array


def _part(array: Any, part: tuple[slice, ...] | EllipsisType) -> np.ndarray:
    values: np.ndarray = array[part].read().result()
    return values


def _paths(tree: object) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _is_key(x: object) -> bool:
    return isinstance(x, jax.Array | jax.ShapeDtypeStruct) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def unkeyed(x: X) -> X | Array:
    """Return the raw data of a typed random key, and any other leaf as it is."""
    if _is_key(x):
        return jax.random.key_data(x)  # type: ignore[arg-type]
    return x


def keyed_like(like: Field, x: Field) -> Array:
    """Return x as a JAX array, or as a random key if `like` is a random key or the outline of one."""
    if not _is_key(like):
        return jnp.asarray(x)
    key: Array = jax.random.wrap_key_data(x, impl=jax.random.key_impl(jnp.empty((), like.dtype)))
    return key
