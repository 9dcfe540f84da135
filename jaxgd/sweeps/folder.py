"""The folder of a sweep: its settings, the table and state of each group, the kept networks and the whole table."""

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxgd.errors import CheckpointError, RangeError
from jaxgd.files import as_path, read_json, remove_temporaries, seal, unseal, write_atomically, writing
from jaxgd.network import Network
from jaxgd.network_file import checksum, read_tensors, save_network, write_tensors
from jaxgd.run_folder import locked_folder
from jaxgd.sweeps.group import Progress
from jaxgd.sweeps.plan import Group
from jaxgd.sweeps.table import read_table, write_table

_SWEEP, _STATE = "jaxgd.sweep/1", "jaxgd.sweep.state/1"
_LONGEST = 2**19  # limit on sweep.json, in bytes


class SweepFolder:
    """The folder of a sweep. `config` is the content of sweep.json. Its "settings" identify the sweep."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path, self.config = path, config
        self._id = str(seal(config["settings"])["sha256"])

    @classmethod
    def open(cls, who: str, path: Path) -> "SweepFolder":
        """Open the folder of a sweep. A missing or damaged sweep.json raises CheckpointError."""
        path = as_path(who, path)
        file = path / "sweep.json"
        try:
            config = unseal(read_json(file))
            if config.pop("format", None) != _SWEEP:
                raise ValueError(f"it is not a {_SWEEP}")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CheckpointError(
                f"{who}: {path} must be the folder of a sweep, but it has no sweep.json.\nName another folder."
            ) from error
        except OSError as error:
            raise CheckpointError(f"{who}: {file} cannot be read: {error.strerror or error}.") from error
        except (ValueError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{who}: {file} is damaged: {error}.\nRestore an intact copy.") from error
        return cls(path, config)

    @classmethod
    def find(cls, path: Path) -> "SweepFolder | None":
        """Return the folder of a sweep, or None if it is missing or empty. Other content raises CheckpointError."""
        with writing(path):
            free = not path.exists() or (path.is_dir() and not any(not x.name.endswith(".tmp") for x in path.iterdir()))
        return None if free else cls.open("sweep", path)

    @classmethod
    def create(cls, path: Path, config: dict[str, Any]) -> "SweepFolder":
        """Create the folder, or open it if another process has just created it."""
        content = (json.dumps(seal({"format": _SWEEP, **config}), indent=1) + "\n").encode()
        if len(content) > _LONGEST:
            raise RangeError(
                f"sweep: sweep.json, with sizes, eta and seeds, must have at most {_LONGEST:,} bytes, got "
                f"{len(content):,}.\n"
                "Give seeds as a count, or make several sweeps."
            )
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        with locked_folder(path, "", wait=True):
            if other := cls.find(path):
                return other
            with writing(path):
                remove_temporaries(path, ("sweep.json",))
            write_atomically(path / "sweep.json", content)
        return cls.open("sweep", path)

    def _of(self, group: Group) -> Path:
        return self.path / "groups" / f"{group.number:05}"

    def _id_of(self, group: Group) -> str:
        return f"{self._id} {self.config['groups']} {group.number}"

    def is_done(self, group: Group) -> bool:
        """Return True if the table of the group exists."""
        return (self._of(group) / "table.parquet").exists()

    @contextlib.contextmanager
    def locked(self, group: Group) -> Iterator[None]:
        """Lock a group against other processes, and remove half-written files of killed processes."""
        path = self._of(group)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        with locked_folder(path, f"another process is already running group {group.number} of {self.path}."):
            with writing(path):
                remove_temporaries(path, ("table.parquet", "state.safetensors"))
            yield

    def save(self, group: Group, progress: Progress) -> None:
        """Replace the saved state of a group."""
        # Leave out the rows of later epochs, which are not known yet.
        arrays = {**progress._asdict(), "values": progress.values[: progress.epoch + 1], **progress.batch}
        del arrays["batch"]
        tensors = {name: np.ascontiguousarray(x, np.int32 if name == "epoch" else None) for name, x in arrays.items()}
        write_tensors(self._of(group) / "state.safetensors", f"{_STATE} {self._id_of(group)}", tensors)

    def restore(self, group: Group, epochs: int) -> Progress | None:
        """Return the saved state of a group, or None if none is saved. For a damaged state, warn and return None."""
        path = self._of(group) / "state.safetensors"
        try:
            arrays, metadata, sha, _ = read_tensors(path)
            known = metadata == checksum(f"{_STATE} {self._id_of(group)}", sha)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"sweep: {path} cannot be read: {error.strerror or error}.") from error
        except ValueError:
            known = False
        if not known:
            _warn(f"{path} is damaged: the group starts again from its first epoch.")
            return None
        tensors = {name: np.asarray(x) for name, x in arrays.items()}
        fields = {name: tensors.pop(name) for name in Progress._fields if name != "batch"}
        values = np.full((epochs + 1, *fields["values"].shape[1:]), np.nan, fields["values"].dtype)
        values[: len(fields["values"])] = fields["values"]
        numbers: dict[str, Any] = {"epoch": int(fields["epoch"].item()), "values": values}
        return Progress(**{**fields, **numbers, "batch": tensors})

    def finish(self, group: Group, table: Any) -> None:
        """Write the table of a group, and remove its state."""
        write_table(self._of(group) / "table.parquet", table, self._id_of(group))
        with writing(self.path):
            (self._of(group) / "state.safetensors").unlink(missing_ok=True)

    def table_of(self, group: Group) -> Any | None:
        """Return the table of a group, or None without a table. Remove a damaged table with a warning."""
        return self._table(self._of(group) / "table.parquet", self._id_of(group), "the group runs again")

    def table(self) -> Any | None:
        """Return the table of the whole sweep, or None without a table. Remove a damaged table with a warning."""
        return self._table(self.path / "table.parquet", self._id, "the groups are joined again")

    def complete(self, table: Any, kept: list[Path]) -> None:
        """Write the table of the sweep if it is missing. Remove the groups' states, and networks not in `kept`."""
        with writing(self.path):
            for path in {*self.path.glob("network-*.safetensors"), *self.path.glob("groups/*/state.safetensors")}:
                if path not in kept:
                    path.unlink(missing_ok=True)
        if not (self.path / "table.parquet").exists():
            write_table(self.path / "table.parquet", table, self._id)

    def _table(self, path: Path, sweep: str, then: str) -> Any | None:
        try:
            table = read_table(path, sweep)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"sweep: {path} cannot be read: {error.strerror or error}.") from error
        if table is None:
            _warn(f"{path} is damaged: {then}.")
            with writing(path):
                path.unlink(missing_ok=True)
        return table

    def network(self, sizes: str, eta: float, seed: int) -> Path:
        """Return the path of a kept network."""
        return self.path / f"network-{sizes}-eta-{eta!r}-seed-{seed}.safetensors"

    def save_network(self, point: tuple[str, float, int], network: Network) -> None:
        """Save the network of a point, which is a tuple of sizes, η and seed."""
        save_network(self.network(*point), network)


def _warn(message: str) -> None:
    warnings.warn(f"sweep: {message}", stacklevel=4)
