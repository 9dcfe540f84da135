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
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxgd.errors import (
    CheckpointError,
    JaxgdError,
    MissingDependencyError,
    WriteError,
)
from jaxgd.files import seal, unseal

_CHECKPOINT, _OLD_CHECKPOINT = "jaxgd.checkpoint/2", "jaxgd.checkpoint/1"
_FOREIGN = "it belongs to another run, or config.json was changed"


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
    the SHA-256 of all of this, which detects damage. Saving runs in the background. `close`, or the end of the `with`
    block, waits for it. Loading never unpickles.

    A failed write raises WriteError. If no checkpoint can be read, `restore` raises CheckpointError. These errors carry
    the reason, so the log messages of orbax are dropped until `close`.

    Args:
        folder: Folder for the checkpoints. It is created if it does not exist.
        config: Configuration of the run, as JSON. Checkpoints of another configuration are refused.
        keep: Number of checkpoints to keep. Default 3.
        guard: Function that `save`, `wait` and `close` call. It raises if the folder is lost. By default it does
            nothing.

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
        self._folder, self._config, self._keep = Path(folder).absolute(), json.loads(json.dumps(config)), keep
        self._guard, self._quiet = guard, lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname

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
        logging.getLogger("absl").addFilter(self._quiet)
        with _saving(self._folder):
            return self._ocp.CheckpointManager(self._folder, options=options)

    @property
    def newest(self) -> int | None:
        """The epoch of the newest checkpoint, saved or being saved; None if there is none."""
        newest: int | None = self._manager.latest_step()
        return newest

    def save(self, epoch: int, tree: PyTree[Any]) -> None:
        """Start to write the tree as this epoch's checkpoint. An earlier write that failed raises its error here."""
        leaves = [np.asarray(leaf) for leaf in jax.device_get(list(map(unkeyed, jax.tree.leaves(tree))))]
        values = np.frombuffer(b"".join(leaf.tobytes() for leaf in leaves), np.uint8)
        about = {
            "format": _CHECKPOINT,
            "config": self._config,
            "epoch": epoch,
            "leaves": [{"shape": leaf.shape, "dtype": str(leaf.dtype)} for leaf in leaves],
            "bytes": values.size,
            "values": hashlib.sha256(values.tobytes()).hexdigest(),
        }
        # Save all values as one array. If one of several arrays is damaged, orbax hangs while it reads the others.
        state = self._ocp.args.StandardSave({"values": values})
        items = {"about": self._ocp.args.JsonSave(seal(about)), "state": state}
        self._guard()
        with _saving(self._folder):
            # force=True writes an epoch again after `restore` has refused it.
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
                logging.getLogger("absl").removeFilter(self._quiet)
            self._guard()

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
        # Count checkpoints that orbax does not list. Otherwise the run would silently start from its beginning.
        folders = [path for path in self._folder.glob("*") if path.name.isdecimal() and path.is_dir()]
        steps = sorted((int(path.name) for path in folders), reverse=True)
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
                    "Copy back the config.json of these checkpoints."
                    if refused[0].endswith(_FOREIGN)
                    else f"Delete {self._folder} to start from the first epoch."
                )
            )
        return None

    def _read(self, epoch: int, like: PyTree[Any]) -> PyTree[Any]:
        if not all(path.is_file() or path.is_dir() for path in (self._folder / str(epoch)).rglob("*")):
            raise CheckpointError("it holds a file that is not a regular one")  # orbax would wait for a pipe
        about = self._manager.restore(epoch, args=self._ocp.args.Composite(about=self._ocp.args.JsonRestore()))["about"]
        kind = about.get("format") if isinstance(about, dict) else None
        if kind not in (_CHECKPOINT, _OLD_CHECKPOINT):
            raise CheckpointError(f"it is not a {_CHECKPOINT}")
        if kind == _CHECKPOINT:
            about = unseal(about)
        # A checkpoint of an earlier version has more entries, for instance the place of the data.
        if not self._config.items() <= about["config"].items() or len(about["leaves"]) != len(jax.tree.leaves(like)):
            raise CheckpointError(_FOREIGN)
        state = self._ocp.args.StandardRestore({"values": np.zeros(about["bytes"], np.uint8)})
        values = self._manager.restore(epoch, args=self._ocp.args.Composite(state=state))["state"]["values"]
        saved = about["values" if kind == _CHECKPOINT else "sha256"]
        if hashlib.sha256(values.tobytes()).hexdigest() != saved or about["epoch"] != epoch:
            raise CheckpointError("its values differ from the saved ones (damaged file)")
        leaves, offset = [], 0
        for leaf in about["leaves"]:
            dtype, count = jnp.dtype(leaf["dtype"]), math.prod(leaf["shape"])
            leaves.append(np.frombuffer(values, dtype, count, offset).reshape(leaf["shape"]))
            offset += count * dtype.itemsize
        return jax.tree.map(keyed_like, like, jax.tree.unflatten(jax.tree.structure(like), leaves))

    def _set_aside(self, steps: list[int]) -> None:
        """Move the refused checkpoints to a folder next to this one."""
        with _saving(self._folder):
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
    except JaxgdError:
        raise
    except Exception as error:  # orbax and tensorstore raise many types
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        code = re.search(r"os_error_code='(\d+)'", str(error))  # in the messages of tensorstore
        reason = os.strerror(int(code[1])) if code else lines[0][:300]
        raise WriteError(f"{folder}: the checkpoint cannot be written: {reason.rstrip('.')}.") from error


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array | jax.ShapeDtypeStruct) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def unkeyed(x: Any) -> Any:
    """Return the raw data of a typed random key, and any other leaf as it is."""
    return jax.random.key_data(x) if _is_key(x) else x


def keyed_like(like: Any, x: Any) -> Any:
    """Return x as an array of JAX, or as a random key if `like` is one, or the outline of one."""
    if not _is_key(like):
        return jnp.asarray(x)
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(jnp.empty((), like.dtype)))
