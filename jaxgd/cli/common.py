"""Helpers that several commands share: load data, and check a network's sizes against it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from jaxgd.data import Dataset

# Exit statuses.
DONE, FAILED, MISUSED, CANNOT_TELL, INTERRUPTED = 0, 1, 2, 3, 130

# Types of optional arguments. The help text of each argument states its default.
MaybePath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
MaybeName = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
MaybeInt = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
MaybeFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]
MaybeFloats = Annotated[tuple[float, ...] | None, tyro.conf.arg(metavar="FLOAT [FLOAT ...]", help_behavior_hint="")]
MaybeScheme = Annotated[
    Literal["gaussian", "scaled"] | None, tyro.conf.arg(metavar="{gaussian,scaled}", help_behavior_hint="")
]
MaybeInts = Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="INT INT [INT ...]", help_behavior_hint="")]


def load_data(name: str, data_dir: str | Path | None) -> "Dataset":
    """Load a data set by its name, or a folder of IDX files by its path."""
    from jaxgd.data import load_dataset, load_idx
    from jaxgd.data.sources import SOURCES
    from jaxgd.errors import RangeError

    if is_folder(name):
        return load_idx(name)
    if name not in (known := ("digits", *SOURCES)):
        raise RangeError(f"--data: expected {', '.join(known)} or the path of a folder of IDX files, got {name!r}.")
    return load_dataset(name, data_dir)


def is_folder(name: str) -> bool:
    """Return True if `name` is the path of a folder, and False if it is the name of a data set.

    >>> is_folder("mnist"), is_folder("./mnist")
    (False, True)
    """
    from jaxgd.data.sources import SOURCES

    return name not in ("digits", *SOURCES) and (Path(name).is_dir() or Path(name).name != name)


def digest(data: "Dataset") -> str:
    """Return the SHA-256 of all images and labels, with their shapes, to identify the data set."""
    sha = hashlib.sha256()
    for part in (data.train, data.validation, data.test):
        for array in part:
            sha.update(str(array.shape).encode())
            sha.update(array.tobytes())
    return sha.hexdigest()


def require_sizes_fit(sizes: Sequence[int], data: "Dataset", *, exact: bool, run: Path | None = None) -> None:
    """Raise RangeError unless the network has one input per pixel and one output per class.

    Pass `exact=False` if the number of classes is inferred from the labels: additional outputs are then allowed. Pass
    the run folder if the network comes from it, and not from the option --sizes.
    """
    from jaxgd.errors import RangeError, require_sizes

    require_sizes("--sizes", sizes)
    height, width = data.image_shape
    if sizes[0] != data.inputs or sizes[-1] < data.classes or (exact and sizes[-1] != data.classes):
        images = f"its images are {height}×{width}, and it has {data.classes} classes"
        if run is not None:
            raise RangeError(
                f"the network of {run} has sizes {list(sizes)} and does not fit {data.name}: {images}.\n"
                f"Name a data set with {sizes[0]} pixels per image and {sizes[-1]} classes."
            )
        raise RangeError(
            f"--sizes {' '.join(map(str, sizes))} does not fit {data.name}: {images}.\n"
            f"Use --sizes {data.inputs} … {data.classes}."
        )
