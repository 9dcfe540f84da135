"""The folder of one run: its configuration, metrics, checkpoints and network."""

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxgd.checkpoint import Checkpoints, load_network, save_network
from jaxgd.errors import CheckpointError
from jaxgd.files import write_atomically, writing
from jaxgd.network import Network
from jaxgd.training import History

_RUN = "jaxgd.run/1"
_CONFIG = {
    "data": str,
    "data_dir": str | None,
    "data_sha256": str,
    "frame": dict,
    "sizes": list,
    "scheme": str,
    "eta": float,
    "batch_size": int | str,
    "epochs": int,
    "seed": int,
    "made_with": dict,
}


class RunFolder:
    """A run's folder: config.json, metrics.jsonl, network.safetensors, checkpoints/ and, on request, tensorboard/."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path, self.config = path, config
        self.metrics = path / "metrics.jsonl"

    @classmethod
    def create(cls, path: Path, config: dict[str, Any]) -> "RunFolder":
        """Create a run folder together with its configuration, or nothing at all.

        A path that exists raises CheckpointError, unless it is an empty folder.
        """
        require_new(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
            try:
                write_atomically(staging / "config.json", _json({"format": _RUN, **config}, indent=2))
                staging.chmod(0o755)
                os.rename(staging, path)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
        return cls(path, json.loads(json.dumps(config)))

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open an existing run folder. A missing or damaged configuration raises CheckpointError."""
        try:
            config = json.loads((path / "config.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CheckpointError(f"{path} is not a run folder of jaxgd: it has no config.json.") from error
        except ValueError as error:
            raise CheckpointError(f"{path / 'config.json'} is damaged: {error}.") from error
        if not isinstance(config, dict) or config.pop("format", None) != _RUN:
            raise CheckpointError(f"{path / 'config.json'} is not the configuration of a run ({_RUN}).")
        for name, kind in _CONFIG.items():
            if not isinstance(config.get(name), kind):
                raise CheckpointError(f"{path / 'config.json'} is damaged: {name} is missing or not a {kind}.")
        return cls(path, config)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against training by other processes. A locked folder raises CheckpointError."""
        try:
            import fcntl
        except ModuleNotFoundError:  # a platform without this lock, such as Windows
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise CheckpointError(f"another process is already training in {self.path}.") from error
        finally:
            os.close(handle)

    def lengthen(self, epochs: int) -> None:
        """Set the number of epochs of the run."""
        self.config["epochs"] = epochs
        write_atomically(self.path / "config.json", _json({"format": _RUN, **self.config}, indent=2))

    def relocate(self, data: str, data_dir: str | None) -> None:
        """Set the new place of the run's data. The checkpoints keep the place of the first epoch in their copy."""
        self.config.setdefault("first_place", {name: self.config[name] for name in ("data", "data_dir")})
        self.config.update(data=data, data_dir=data_dir)
        write_atomically(self.path / "config.json", _json({"format": _RUN, **self.config}, indent=2))

    def checkpoints(self) -> Checkpoints:
        """Return the run's checkpoints. They store its configuration without the number of epochs, which may grow."""
        fixed = {name: value for name, value in self.config.items() if name not in ("epochs", "first_place")}
        fixed.update(self.config.get("first_place", {}))
        return Checkpoints(self.path / "checkpoints", fixed)

    def write_metrics(self, entries: list[History]) -> None:
        """Replace metrics.jsonl with these entries."""
        write_atomically(self.metrics, b"".join(map(_row, entries)))

    def append_metrics(self, entry: History) -> None:
        """Add one entry to metrics.jsonl."""
        with writing(self.metrics), self.metrics.open("ab") as file:
            file.write(_row(entry))

    def save_network(self, network: Network) -> None:
        """Write network.safetensors, for exchange with other programs."""
        save_network(self.path / "network.safetensors", network)

    def load_network(self) -> Network:
        """Return the network as last saved."""
        return load_network(self.path / "network.safetensors")


def require_new(path: Path) -> None:
    """Raise CheckpointError if the path exists, unless it is an empty folder."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise CheckpointError(f"{path} already exists.\nName another run folder, or continue it with --resume {path}.")


def _row(entry: History) -> bytes:
    """Return the entry as one line of JSON. NaN becomes null, because JSON has no NaN."""
    values = {name: value.item() for name, value in entry._asdict().items()}
    return _json({k: v if math.isfinite(v) else None for k, v in values.items()})


def _json(value: Any, indent: int | None = None) -> bytes:
    return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()
