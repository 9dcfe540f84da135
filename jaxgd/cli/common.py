"""Helpers that several commands share: types of arguments, data, and checks before any work."""

import hashlib
import math
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from jaxgd.kernels.registry import BACKENDS, kernel_names

if TYPE_CHECKING:
    from jaxgd.data import Dataset

# Exit statuses. A signal gives 128 plus its number, so Ctrl-C gives INTERRUPTED.
DONE, FAILED, MISUSED, CANNOT_TELL, INTERRUPTED = 0, 1, 2, 3, 130


def _read(metavar: str, expected: str, parse: Callable[[str], Any], *, several: bool = False) -> Any:
    """Return a reader of an argument for tyro. tyro's own readers repeat themselves in messages and accept `None`."""

    def read(words: list[str]) -> Any:
        try:
            values = tuple(parse(word) for word in words)
        except ValueError as error:
            got = shlex.join(words)
            raise ValueError(f"must be {expected}, got {got if len(got) < 100 else got[:100] + '…'}.") from error
        return values if several else values[0]

    def shown(value: Any) -> list[str]:
        return [str(x) for x in value] if isinstance(value, tuple) else [str(value)]

    return PrimitiveConstructorSpec(
        nargs="*" if several else 1,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda _: True,
        str_from_instance=shown,
    )


def _path(word: str) -> Path:
    if not word:
        raise ValueError
    return Path(word)


def _name(word: str) -> str:
    if not word:
        raise ValueError
    return word


def _batch_size(word: str) -> int | str:
    return word if word == "full" else int(word)


def _part(word: str) -> tuple[int, int]:
    index, slash, count = word.partition("/")
    if not slash:
        raise ValueError
    return int(index), int(count)


def _bytes(word: str) -> int:
    """Return the number of bytes in words such as 2GB, 500MiB or 1000000.

    >>> _bytes("1.5kB"), _bytes("2GiB")
    (1500, 2147483648)
    """
    found = re.fullmatch(r"([\d.]+)(?:([kMGT])(i?)B)?", word.replace("K", "k"))
    number = float(found[1]) if found else math.inf
    if found is None or math.isinf(number):
        raise ValueError
    return int(number * (1024 if found[3] else 1000) ** " kMGT".index(found[2] or " "))


Int = Annotated[int, _read("INT", "a whole number", int)]
Floats = Annotated[tuple[float, ...], _read("FLOAT [FLOAT ...]", "numbers", float, several=True)]
Float = Annotated[float, _read("FLOAT", "a number", float)]
BatchSize = Annotated[int | Literal["full"], _read("INT|full", "a whole number or full", _batch_size)]

# Optional arguments. The help text of each states its default.
_NO_HINT = tyro.conf.arg(help_behavior_hint="")
MaybePath = Annotated[Path | None, _read("PATH", "a path", _path), _NO_HINT]
MaybeName = Annotated[str | None, _read("NAME", "a name or a path", _name), _NO_HINT]
MaybeInt = Annotated[int | None, _read("INT", "a whole number", int), _NO_HINT]
MaybeFloat = Annotated[float | None, _read("FLOAT", "a number", float), _NO_HINT]
MaybeFloats = Annotated[tuple[float, ...] | None, _read("FLOAT [FLOAT ...]", "numbers", float, several=True), _NO_HINT]
MaybeInts = Annotated[tuple[int, ...] | None, _read("INT INT [INT ...]", "whole numbers", int, several=True), _NO_HINT]
# This option may be given several times.
Ints = Annotated[tuple[int, ...], _read("INT INT [INT ...]", "whole numbers", int, several=True)]
ManyInts = Annotated[tuple[Ints, ...], tyro.conf.UseAppendAction, _NO_HINT]
MaybeBest = Annotated[
    tuple[int | str, ...] | None,
    _read("best INT", "best and a whole number", lambda word: word if word == "best" else int(word), several=True),
    _NO_HINT,
]
MaybePart = Annotated[tuple[int, int] | None, _read("INT/INT", "two whole numbers, such as 2/8", _part), _NO_HINT]
MaybeBytes = Annotated[int | None, _read("BYTES", "a number of bytes, such as 500000000 or 2GB", _bytes), _NO_HINT]
MaybeScheme = Annotated[
    Literal["gaussian", "scaled"] | None, tyro.conf.arg(metavar="{gaussian,scaled}", help_behavior_hint="")
]
MaybeWords = Annotated[
    tuple[str, ...] | None, _read("NAME [NAME ...]", "one or more names", _name, several=True), _NO_HINT
]
# The choices of --kernel and its help follow from the registry.
if TYPE_CHECKING:
    Kernel = str
else:
    _SUMMARIES = "; ".join(f"{entry.name} {entry.summary}" for entry in reversed(BACKENDS))
    _KERNEL_HELP = (
        f"Backend that runs an epoch: {_SUMMARIES}; auto is the fastest that can run. Results differ only by rounding."
    )
    Kernel = Annotated[Literal[kernel_names()], tyro.conf.arg(help=_KERNEL_HELP)]
# An option without a value, which is None if it is not given.
_FLAG = PrimitiveConstructorSpec(
    nargs=0, metavar="", instance_from_str=lambda _: True, is_instance=lambda _: True, str_from_instance=lambda _: []
)
MaybeFlag = Annotated[bool | None, _FLAG, _NO_HINT]
# Positional arguments.
RunDir = Annotated[Path, tyro.conf.Positional, _read("RUN", "a path", _path)]
RunOrNetwork = Annotated[Path, tyro.conf.Positional, _read("RUN|NETWORK", "a path", _path)]


class Conventions(NamedTuple):
    """The conventions of a folder's files, as `load_idx` takes them. None stands for an option that is not given."""

    labels_from: int | None = None
    transpose: bool | None = None


UNSTATED = Conventions()


def stated_conventions(who: str, options: Any) -> Conventions:
    """Return the conventions that the options of a command state."""
    from jaxgd.errors import RangeError, require_count

    if options.transpose and options.no_transpose:
        raise RangeError("--transpose and --no-transpose exclude each other, got both.\nLeave out one of them.")
    if options.labels_from is not None:
        require_count(who, "--labels-from", options.labels_from, least=0, most=255)
    return Conventions(options.labels_from, True if options.transpose else False if options.no_transpose else None)


def recorded_conventions(config: dict[str, Any], name: str) -> Conventions:
    """Return the conventions that the configuration of a run records for its folder. Named data sets have none."""
    if not is_folder(name):
        return UNSTATED
    return Conventions(config.get("labels_from", 0), config.get("transpose", False))  # earlier versions lack them


def load_data(name: str, data_dir: str | Path | None, conventions: Conventions = UNSTATED) -> "Dataset":
    """Load a data set by its name, or a folder of IDX files by its path."""
    from jaxgd.data import load_dataset
    from jaxgd.data.sources import SOURCES
    from jaxgd.errors import RangeError

    if data_dir is not None and (name == "digits" or is_folder(name)):
        why = "comes with jaxgd" if name == "digits" else "is a folder of its own"
        raise RangeError(f"--data-dir must be left out, because {name} {why}, got {data_dir}.")
    if not is_folder(name) and name not in (known := ("digits", *SOURCES)):
        raise RangeError(f"--data must be {', '.join(known)} or the path of a folder of IDX files, got {name!r}.")
    if not is_folder(name) and conventions != UNSTATED:
        raise RangeError(
            f"--labels-from and --transpose are for folders of IDX files, but {name} has labels from 0 and upright "
            "images.\nLeave them out."
        )
    return load_dataset(name, data_dir, **conventions._asdict())


def run_data(config: dict[str, Any]) -> "Dataset":
    """Load the data set that a run was trained on, as its configuration records it."""
    return load_data(config["data"], config["data_dir"], recorded_conventions(config, config["data"]))


def default_settings(data: str) -> tuple[str, int]:
    """Return the default scheme and number of epochs for a data set.

    On digits, over 60 seeds each: one in five runs with gaussian weights ended below 97% test accuracy, and none with
    scaled weights.
    """
    return ("scaled", 60) if data == "digits" else ("gaussian", 30)


def command_line(*words: object) -> str:
    """Return a command line that a shell splits into these words.

    >>> command_line("jaxgd", "train", "--resume", Path("my run"))
    "jaxgd train --resume 'my run'"
    """
    return shlex.join(
        f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in words
    )


def require_writable_figure(path: Path, endings: Sequence[str], option: str = "--plot") -> None:
    """Raise unless an option names a file of these types that can be written. Call it before any work."""
    from jaxgd.errors import RangeError

    folder = path.absolute().parent
    if path.suffix.lower() not in endings:
        allowed = f"{', '.join(endings[:-1])} or {endings[-1]}"
        raise RangeError(f"{option} must be a file whose name ends in {allowed}, got {path}.")
    if not folder.is_dir():
        raise RangeError(
            f"{option} must be a file in an existing folder, but {folder} does not exist.\nCreate it first."
        )
    if path.is_dir():
        raise RangeError(f"{option} must be a file, got the folder {path}.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise RangeError(f"{option} must be a file that can be written, got {path}.\nCheck its permissions.")


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


def require_sizes_fit(
    sizes: Sequence[int], data: "Dataset", *, exact: bool, run: Path | None = None, who: str = "train"
) -> None:
    """Raise RangeError unless the network has one input per pixel and one output per class.

    Pass `exact=False` if the number of classes is inferred from the labels: additional outputs are then allowed. Pass
    the run folder if the network comes from it, and not from the option --sizes. `who` is the command that complains.
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
