"""Load the data of a command, by name or from a folder, and check that they fit a network."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Protocol

import tyro

from jaxgd.cli.common import DATA_HELP, MaybeFlag, MaybeInt, MaybeName, MaybePath, command_line
from jaxgd.data.registry import DATASETS, Entry

if TYPE_CHECKING:
    from jaxgd.data import Dataset
    from jaxgd.run_folder import RunConfig


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """The options that choose the data set for `jaxgd train` and `jaxgd sweep`."""

    data: Annotated[MaybeName, tyro.conf.arg(help=f"{DATA_HELP}\n(default: digits)")] = None
    data_dir: MaybePath = None
    """Folder to search for data sets and to download them to. (default: $JAXGD_DATA_DIR, or ~/.cache/jaxgd if unset)"""
    labels_from: MaybeInt = None
    """Label of the first class in the files of a folder: 1 for the letters of EMNIST. (default: 0)"""
    transpose: MaybeFlag = None
    """Exchange the rows and columns of a folder's images. The files of EMNIST need it."""
    no_transpose: MaybeFlag = None
    """Take a folder's images as upright, without a check."""


class Conventions(NamedTuple):
    """The conventions of a folder's files, as `load_idx` takes them. None stands for an option that is not given."""

    labels_from: int | None = None
    transpose: bool | None = None


UNSTATED = Conventions()


class _Options(Protocol):
    """The options of a command that state the conventions of a folder."""

    @property
    def labels_from(self) -> int | None: ...
    @property
    def transpose(self) -> bool | None: ...
    @property
    def no_transpose(self) -> bool | None: ...


def stated_conventions(who: str, options: _Options) -> Conventions:
    """Return the conventions that the options of a command state."""
    from jaxgd.errors import RangeError, require_count

    if options.transpose and options.no_transpose:
        raise RangeError("--transpose and --no-transpose exclude each other, got both.\nLeave out one of them.")
    if options.labels_from is not None:
        require_count(who, "--labels-from", options.labels_from, least=0, most=255)
    return Conventions(options.labels_from, True if options.transpose else False if options.no_transpose else None)


def recorded_conventions(config: "RunConfig", name: str) -> Conventions:
    """Return the conventions that the configuration of a run records for its folder. Named data sets have none."""
    if not is_folder(name):
        return UNSTATED
    return Conventions(config.get("labels_from", 0), config.get("transpose", False))  # earlier versions recorded none


def load_data(name: str, data_dir: str | Path | None, conventions: Conventions = UNSTATED) -> "Dataset":
    """Load a data set by its name, or a folder of IDX files by its path."""
    from jaxgd.data import load_dataset
    from jaxgd.errors import RangeError

    if data_dir is not None and (is_included(name) or is_folder(name)):
        why = "comes with jaxgd" if is_included(name) else "is itself a folder"
        raise RangeError(f"--data-dir must be left out, because {name} {why}, got {data_dir}.")
    if not is_folder(name) and name not in DATASETS:
        raise RangeError(f"--data must be {', '.join(DATASETS)} or the path of a folder of IDX files, got {name!r}.")
    if not is_folder(name) and conventions != UNSTATED:
        raise RangeError(
            f"--labels-from and --transpose are for folders of IDX files, but {name} has labels from 0 and upright "
            "images.\nLeave them out."
        )
    return load_dataset(name, data_dir, **conventions._asdict())


def is_included(name: str) -> bool:
    """Return True if jaxgd includes the data set of this name.

    >>> is_included("digits"), is_included("mnist")
    (True, False)
    """
    return name in DATASETS and DATASETS[name].included


def default_settings(data: str) -> tuple[Literal["gaussian", "scaled"], int]:
    """Return the default scheme and number of epochs for a data set, or for a folder."""
    entry = DATASETS.get(data, Entry())
    return entry.scheme, entry.epochs


def is_folder(name: str) -> bool:
    """Return True if `name` is the path of a folder or a file, and False if it is the name of a data set."""
    from jaxgd.data import named

    return named.is_folder(name)


def digest(data: "Dataset") -> str:
    """Return the SHA-256 of all images and labels, with their shapes, to identify the data set."""
    sha = hashlib.sha256()
    for part in (data.train, data.validation, data.test):
        for array in (part.images, part.labels):
            sha.update(str(array.shape).encode())
            sha.update(array.tobytes())
    return sha.hexdigest()


def other_data(data: "Dataset", run: Path, config: "RunConfig") -> str:
    """Return a warning if the data differ from the data set of the run, and otherwise an empty string."""
    actual, expected = digest(data), config["data_sha256"]
    if actual == expected:
        return ""
    return f"{data.name} is not the data set that {run} was trained on: expected the SHA-256 {expected}, got {actual}."


def if_moved(command: str, run: Path, config: "RunConfig") -> str:
    """Return the advice for a command that cannot read the data of a run."""
    option = "--data-dir" if config["data_dir"] else "--data"
    return f"If the data have moved: {command_line('jaxgd', command, run, option)} FOLDER"


def require_sizes_fit(
    sizes: Sequence[int], data: "Dataset", *, exact: bool, run: Path | None = None, who: str = "train"
) -> None:
    """Raise RangeError unless the network has one input per pixel and one output per class.

    With `exact=False`, allow additional outputs: the labels of a folder may lack the last classes. `run` is the run
    folder or the file of the network, or None if the sizes come from --sizes. `who` is the command in the message.
    """
    import jax.numpy as jnp

    from jaxgd.errors import RangeError, require_sizes, shown
    from jaxgd.network import require_memory

    require_sizes(who, sizes)
    if run is None:
        require_memory(who, sizes, jnp.result_type(float), 3, "the weights, the next weights and the gradient")
    height, width = data.image_shape
    if sizes[0] != data.inputs or sizes[-1] < data.classes or (exact and sizes[-1] != data.classes):
        images = f"its images are {height}×{width}, and it has {data.classes} classes"
        if run is not None:
            raise RangeError(
                f"the network of {run} has sizes {shown(list(sizes))} and does not fit {data.name}: {images}.\n"
                f"Name a data set with {sizes[0]} pixels per image and {sizes[-1]} classes."
            )
        raise RangeError(
            f"--sizes {shown(' '.join(map(str, sizes)), str)} does not fit {data.name}: {images}.\n"
            f"Use --sizes {data.inputs} … {data.classes}."
        )
