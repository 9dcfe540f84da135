"""The folder of one run: its configuration, metrics, checkpoints and network."""

import contextlib
import errno
import json
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, TypeGuard

import jax

import jaxgd
from jaxgd.activations import ACTIVATIONS
from jaxgd.checkpoint import Checkpoints
from jaxgd.cost import COSTS
from jaxgd.data.image import Frame
from jaxgd.errors import CheckpointError, JaxgdError, WriteError
from jaxgd.files import append, as_path, read_json, remove_temporaries, seal, unseal, write_atomically, writing
from jaxgd.history import NUMBERS, History
from jaxgd.kernels.registry import fingerprints, kernel_names
from jaxgd.mesh.job import on_main
from jaxgd.mesh.processes import is_main
from jaxgd.network import Network, network_sizes
from jaxgd.network_file import load_network, save_network

_RUN, _OLD_RUN = "jaxgd.run/2", "jaxgd.run/1"
_LARGEST = 2**31 - 1
_RECORDED = ("gradient-norms", "sharpness")
_START = "start.safetensors"


class _Rule(NamedTuple):
    """A condition on a value of config.json, and its description for messages."""

    holds: Callable[[object], bool]
    words: str


def _is_int(x: object, least: int, most: int) -> TypeGuard[int]:
    return type(x) is int and least <= x <= most


def _is_float(x: object, least: float, most: float) -> TypeGuard[float]:
    return type(x) in (int, float) and isinstance(x, int | float) and least <= x <= most


def _whole(least: int, most: int) -> _Rule:
    return _Rule(lambda x: _is_int(x, least, most), f"a whole number from {least} to {most}")


def _real(least: float, most: float) -> _Rule:
    return _Rule(lambda x: _is_float(x, least, most), f"a number from {least:g} to {most:g}")


def _one_of(*names: str) -> _Rule:
    return _Rule(lambda x: x in names, " or ".join(names))


def _are_sizes(x: object) -> bool:
    return type(x) is list and len(x) >= 2 and all(_is_int(n, 1, _LARGEST) for n in x)


def _is_path(x: object) -> bool:
    with contextlib.suppress(JaxgdError):
        return type(x) is str and x != "" and as_path("config", x) is not None
    return False


_PATH = _Rule(_is_path, "a name or a path")
_SHA = _Rule(lambda x: type(x) is str and bool(re.fullmatch("[0-9a-f]{64}", x)), "64 hexadecimal digits")
_SIDE = _whole(1, _LARGEST)
_CENTER = _real(-0.5, float(_LARGEST))
_FRAME = {
    **dict.fromkeys(("height", "width", "box_height", "box_width"), _SIDE),
    "centering": _one_of("mass", "box"),
    **dict.fromkeys(("center_row", "center_column"), _CENTER),
    "peak": _whole(1, 255),
    "slack": _real(0.5, float(_LARGEST)),
}
RunConfig = TypedDict(
    "RunConfig",
    {
        "data": str,
        "data_dir": str | None,
        "labels_from": int,
        "transpose": bool,
        "data_sha256": str,
        "frame": dict[str, Any],
        "sizes": list[int],
        "activation": list[str],
        "cost": str,
        "l2": float | None,
        "scheme": Literal["gaussian", "scaled"] | None,
        "eta": float,
        "batch_size": int | Literal["full"],
        "epochs": int,
        "seed": int,
        "kernel": str,
        "gradient_norm": bool,
        "keep": Literal["last", "best"],
        "by": Literal["accuracy", "cost"],
        "patience": int | None,
        "record": list[str],
        "record_every": int,
        "from": dict[str, str] | None,
        "budget": dict[str, int],
        "made_with": dict[str, str],
    },
    total=False,
)
"""The configuration of a run in config.json. `_CONFIG` has the condition on each value."""

_CONFIG = {
    "data": _PATH,
    "data_dir": _Rule(lambda x: x is None or _PATH.holds(x), "a path or null"),
    "labels_from": _whole(0, 255),
    "transpose": _Rule(lambda x: type(x) is bool, "true or false"),
    "data_sha256": _SHA,
    "frame": _Rule(lambda x: type(x) is dict, f"an object with {', '.join(_FRAME)}"),
    "sizes": _Rule(_are_sizes, f"two or more whole numbers from 1 to {_LARGEST}"),
    "activation": _Rule(
        lambda x: type(x) is list and len(x) > 0 and all(type(name) is str and name in ACTIVATIONS for name in x),
        f"a list of one or more names from {', '.join(ACTIVATIONS)}",
    ),
    "cost": _one_of(*COSTS),
    "l2": _Rule(lambda x: x is None or _is_float(x, 0.0, sys.float_info.max), "a finite number, 0 or more, or null"),
    "scheme": _one_of("gaussian", "scaled"),
    "eta": _Rule(lambda x: _is_float(x, 0.0, sys.float_info.max) and x > 0, "a finite number above 0"),
    "batch_size": _Rule(
        lambda x: x == "full" or _is_int(x, 1, _LARGEST), f'a whole number from 1 to {_LARGEST}, or "full"'
    ),
    "epochs": _whole(1, 2**31 - 1),
    "seed": _whole(0, 2**32 - 1),
    "kernel": _one_of(*kernel_names()),
    "gradient_norm": _Rule(lambda x: type(x) is bool, "true or false"),
    "keep": _one_of("last", "best"),
    "by": _one_of("accuracy", "cost"),
    "patience": _Rule(lambda x: x is None or _is_int(x, 1, _LARGEST), f"a whole number from 1 to {_LARGEST} or null"),
    "record": _Rule(
        lambda x: type(x) is list and all(name in _RECORDED for name in x),
        f"a list of names from {', '.join(_RECORDED)}",
    ),
    "record_every": _whole(1, _LARGEST),
    "from": _Rule(lambda x: x is None or type(x) is dict, "the path and the SHA-256 of a network, or null"),
    "budget": _Rule(lambda x: type(x) is dict, "an object with the limits chunk and kept"),
    "made_with": _Rule(
        lambda x: (
            type(x) is dict and all(type(v) is str for v in x.values()) and x.get("float") in ("float32", "float64")
        ),
        'an object of strings, with "float" equal to float32 or float64',
    ),
}
_BUDGET = {"chunk": _whole(1, 2**63 - 1), "kept": _whole(0, 2**63 - 1)}
_FROM = {"path": _PATH, "sha256": _SHA}
# Configurations of earlier versions may lack these entries.
_ADDED_LATER = (
    *("gradient_norm", "budget", "keep", "by", "patience", "record", "record_every", "from"),
    *("labels_from", "transpose", "activation", "cost", "l2"),
)


class RunFolder:
    """A run's folder: config.json, metrics.jsonl, network.safetensors, checkpoints/ and, on request, tensorboard/.

    A run that started from a trained network keeps a copy of it as start.safetensors.

    In a job of several processes, process 0 locks the folder and writes config.json and metrics.jsonl. All processes
    must call `locked`, `save_network` and the methods of the checkpoints together.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config
        self.metrics, self.start = path / "metrics.jsonl", path / _START
        self._handle: int | None = None

    @classmethod
    def create(cls, path: Path, config: RunConfig, start: Network | None = None) -> "RunFolder":
        """Create a run folder with a configuration and, if given, a start network. A failed call leaves no run folder.

        A path that exists raises CheckpointError, unless it is an empty folder.
        """
        path = as_path("train", path)
        require_new(path)
        config = _checked(json.loads(json.dumps(config)), "the configuration of a new run")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # A killed call leaves the staging folder behind. The next call for the same path uses it.
            staging = _staging(path)
            staging.mkdir(exist_ok=True)
            with locked_folder(staging, f"another process is creating {path}."):
                try:
                    remove_temporaries(staging, ("config.json", _START))
                    if start is not None:
                        save_network(staging / _START, start)
                    write_atomically(staging / "config.json", _json(seal({"format": _RUN, **config}), indent=2))
                    os.rename(staging, path)
                except BaseException:
                    shutil.rmtree(staging, ignore_errors=True)
                    raise
        return cls(path, config)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open an existing run folder. A missing or damaged configuration raises CheckpointError."""
        path = as_path("train", path)
        file = path / "config.json"
        try:
            config = read_json(file)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CheckpointError(f"{path} is not a run folder of jaxgd: it has no config.json.") from error
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read: {error.strerror or error}.") from error
        except ValueError as error:
            raise CheckpointError(f"{file} is damaged: {error}.") from error
        kind = config.get("format") if isinstance(config, dict) else None
        if kind not in (_RUN, _OLD_RUN):
            raise CheckpointError(f"{file} is not the configuration of a run ({_RUN}).")
        try:
            config = unseal(config) if kind == _RUN else config
        except ValueError as error:
            raise CheckpointError(f"{file} is damaged: {error}.\nRestore an intact copy.") from error
        del config["format"]
        return cls(path, _checked(config, str(file)))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against training by other processes, and remove half-written files of killed processes.

        If another process holds the lock, raise CheckpointError. Inside the block, each write raises WriteError if the
        path no longer leads to the locked folder. The end of the block checks the path too.
        """
        with contextlib.ExitStack() as stack:
            lock = locked_folder(self.path, f"another process is already training in {self.path}.")
            self._handle = on_main(lambda: stack.enter_context(lock))
            try:
                if self._handle is not None:  # without a lock, the files may belong to a running process
                    with writing(self.path):
                        self._clean()
                yield
                self._require_here()
            finally:
                self._handle = None

    def _clean(self) -> None:
        remove_temporaries(self.path, ("config.json", "metrics.jsonl", "network.safetensors"))
        # Orbax writes a checkpoint into a temporary folder, and renames this folder when the checkpoint is complete.
        for path in (self.path / "checkpoints").glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path)
        shutil.rmtree(_staging(self.path), ignore_errors=True)

    def _require_here(self) -> None:
        """Raise WriteError if the locked folder was deleted, moved or replaced, or if it has no config.json."""
        if self._handle is None:
            return
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.path), os.fstat(self._handle)) and os.stat(self.path / "config.json"):
                return
        raise WriteError(f"{self.path} was deleted, moved or replaced during the run: nothing more can be saved there.")

    def lengthen(self, epochs: int) -> None:
        """Set the number of epochs of the run."""
        self._change(epochs=epochs)

    def relocate(self, data: str, data_dir: str | None) -> None:
        """Set the data set and its folder, after the data have moved."""
        self._change(data=data, data_dir=data_dir)

    def _change(self, **values: Any) -> None:
        config = _checked({**self.config, **values}, str(self.path))
        if is_main():
            self._require_here()
            write_atomically(self.path / "config.json", _json(seal({"format": _RUN, **config}), indent=2))
        self.config = config

    def checkpoints(self) -> Checkpoints:
        """Return the run's checkpoints.

        If the run has a network but no folder of checkpoints, raise CheckpointError, because the run would start again
        from its first epoch and replace the network.
        """
        folder = self.path / "checkpoints"
        if (self.path / "network.safetensors").exists() and not folder.exists():
            raise CheckpointError(
                f"{self.path} must have the folder checkpoints next to network.safetensors, got none.\n"
                "Copy the folder back, or delete network.safetensors to start again from the first epoch."
            )
        self._require_here()
        with writing(folder):
            folder.mkdir(exist_ok=True)
        fixed = {name: value for name, value in self.config.items() if name not in ("epochs", "data", "data_dir")}
        return Checkpoints(folder, fixed, guard=self._require_here)

    def write_metrics(self, entries: Sequence[History], best: Sequence[int] | None = None) -> None:
        """Replace metrics.jsonl with these entries. `best[i]` is the epoch of the best network up to entry i."""
        if is_main():
            self._require_here()
            known: Sequence[int | None] = [None] * len(entries) if best is None else best
            write_atomically(self.metrics, b"".join(map(_row, entries, known)))

    def append_metrics(self, entry: History, best: int | None = None) -> None:
        """Add one entry to metrics.jsonl, with the epoch of the best network so far if it is known.

        The line is not flushed to the disk, because an epoch can take only 2 ms. A resumed run rewrites metrics.jsonl
        from its checkpoint.
        """
        if is_main():
            self._require_here()
            append(self.metrics, _row(entry, best))

    def save_network(self, network: Network) -> None:
        """Write network.safetensors, for exchange with other programs."""
        self._require_here()
        save_network(self.path / "network.safetensors", network)

    def load_network(self) -> Network:
        """Return the network that was saved last."""
        network = load_network(self.path / "network.safetensors")
        if (sizes := list(network_sizes(network))) != self.config["sizes"]:
            raise CheckpointError(
                f"{self.path / 'network.safetensors'} must have the sizes {self.config['sizes']} of its run, "
                f"got {sizes}."
            )
        return network


def require_new(path: Path) -> None:
    """Raise CheckpointError if the path exists, unless it is an empty folder."""
    with writing(path):
        taken = os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir()))
    if taken:
        again = shlex.quote(str(path))
        raise CheckpointError(f"{path} already exists.\nName another run folder, or continue it with --resume {again}.")


def _checked(config: Any, where: str) -> RunConfig:
    """Return the configuration. Raise CheckpointError if a value is missing, unknown or outside its range."""
    known = {name: rule for name, rule in _CONFIG.items() if name in config or name not in _ADDED_LATER}
    if config.get("from") is not None:
        # A run from a trained network draws no weights, so it has no scheme.
        known["scheme"] = _Rule(lambda x: x is None, "null")
    _require(config, known, where, "")
    if config.get("from") is not None:
        _require(config["from"], _FROM, where, "from.")
    if "budget" in config:
        _require(config["budget"], _BUDGET, where, "budget.")
    _require(config["frame"], _FRAME, where, "frame.")
    frame, inputs = Frame(**config["frame"]), config["sizes"][0]
    if frame.height * frame.width != inputs or frame.box_height > frame.height or frame.box_width > frame.width:
        raise CheckpointError(
            f"{where} is damaged: its frame must have {inputs} pixels and contain its box, got {frame}."
        )
    checked: RunConfig = config
    return checked


def _require(values: dict[str, Any], rules: dict[str, _Rule], where: str, prefix: str) -> None:
    for name in (*rules, *(values.keys() - rules.keys())):
        if name not in rules:
            raise CheckpointError(f"{where} is damaged: it has an unknown entry {prefix}{name[:50]!r}.")
        if name not in values:
            raise CheckpointError(f"{where} is damaged: {prefix}{name} is missing.")
        if not rules[name].holds(values[name]):
            got = repr(values[name])[:100]
            raise CheckpointError(f"{where} is damaged: {prefix}{name} must be {rules[name].words}, got {got}.")


def made_with() -> dict[str, str]:
    """Return the versions, the kind of device and the settings on which the bits of a result depend."""
    return {
        **fingerprints(),
        "jaxgd": jaxgd.__version__,
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "device": jax.devices()[0].device_kind,
        "float": str(jax.numpy.result_type(float)),
        "partitionable keys": str(getattr(jax.config, "jax_threefry_partitionable", None)),
        "matrix products": str(getattr(jax.config, "jax_default_matmul_precision", None)),
    }


def _staging(path: Path) -> Path:
    return path.parent / f".{path.name}.creating"


@contextlib.contextmanager
def locked_folder(folder: Path, taken: str, *, wait: bool = False) -> Iterator[int | None]:
    """Lock a folder, and yield its descriptor, or None on a platform without this lock, such as Windows.

    If another process holds the lock, wait if `wait` is True. Otherwise raise CheckpointError with the message `taken`.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        yield None
        return
    with writing(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        with writing(folder):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise CheckpointError(taken) from error
            # Another process may have renamed or removed the folder before it was locked.
            if not os.path.samestat(os.stat(folder), os.fstat(handle)):
                raise OSError(errno.ENOENT, "another process has replaced it")
        yield handle
    finally:
        os.close(handle)


def _row(entry: History, best: int | None = None) -> bytes:
    """Return the entry as one line of JSON. NaN and infinities become null, because JSON has neither."""

    def plain(x: Any) -> Any:
        return [plain(y) for y in x] if isinstance(x, list) else x if math.isfinite(x) else None

    values = {name: getattr(entry, name) for name in NUMBERS} | entry.records
    row = {name: plain(value.tolist()) for name, value in values.items()}
    return _json(row if best is None else {**row, "best_epoch": best})


def _json(value: Any, indent: int | None = None) -> bytes:
    return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()
