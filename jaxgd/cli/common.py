"""Helpers that several commands share: exit statuses, types of arguments, command lines and files to write."""

import math
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from jaxgd.data.registry import DATASETS, Entry
from jaxgd.kernels.registry import BACKENDS, kernel_names

# Exit statuses. A signal gives 128 plus its number, so Ctrl-C gives INTERRUPTED.
DONE, FAILED, MISUSED, CANNOT_TELL, INTERRUPTED = 0, 1, 2, 3, 130


def _read(
    metavar: str, expected: str, parse: Callable[[str], object], *, several: bool = False
) -> PrimitiveConstructorSpec[object]:
    """Return a reader of an argument for tyro. Messages of tyro's own readers are repetitive."""

    def read(words: list[str]) -> object:
        try:
            values = tuple(parse(word) for word in words)
        except ValueError as error:
            given = shlex.join(words)
            raise ValueError(f"must be {expected}, got {given if len(given) < 100 else given[:100] + '…'}.") from error
        return values if several else values[0]

    def shown(value: object) -> list[str]:
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
    """Return the number of bytes that a word such as 2GB, 500MiB or 1000000 gives.

    >>> _bytes("1.5kB"), _bytes("2GiB")
    (1500, 2147483648)
    """
    match = re.fullmatch(r"([\d.]+)(?:([kMGT])(i?)B)?", word.replace("K", "k"))
    number = float(match[1]) if match else math.inf
    if match is None or math.isinf(number):
        raise ValueError
    return int(number * (1024 if match[3] else 1000) ** " kMGT".index(match[2] or " "))


Int = Annotated[int, _read("INT", "a whole number", int)]
Floats = Annotated[tuple[float, ...], _read("FLOAT [FLOAT ...]", "numbers", float, several=True)]
Float = Annotated[float, _read("FLOAT", "a number", float)]
BatchSize = Annotated[int | Literal["full"], _read("INT|full", "a whole number or full", _batch_size)]

# For optional arguments: omit tyro's hint on the default. The help text states the default, if there is one.
_NO_HINT = tyro.conf.arg(help_behavior_hint="")
MaybePath = Annotated[Path | None, _read("PATH", "a path", _path), _NO_HINT]
Name = Annotated[str, _read("NAME", "a name", _name)]
MaybeName = Annotated[str | None, _read("NAME", "a name or a path", _name), _NO_HINT]
MaybeInt = Annotated[int | None, _read("INT", "a whole number", int), _NO_HINT]
MaybeFloat = Annotated[float | None, _read("FLOAT", "a number", float), _NO_HINT]
MaybeFloats = Annotated[tuple[float, ...] | None, _read("FLOAT [FLOAT ...]", "numbers", float, several=True), _NO_HINT]
MaybeInts = Annotated[tuple[int, ...] | None, _read("INT INT [INT ...]", "whole numbers", int, several=True), _NO_HINT]
# ManyInts: an option that may be given several times, each time with several numbers.
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
# The registry supplies the names of data sets and the defaults that depend on them.
_NAMES = ", ".join(f"{name} (included in jaxgd)" if entry.included else name for name, entry in DATASETS.items())
DATA_HELP = f"Data set: {_NAMES}, or a folder of IDX files."
_SCALED = ", ".join(name for name, entry in DATASETS.items() if entry.scheme == "scaled")
_EPOCHS = "".join(f"; {entry.epochs} for {name}" for name, entry in DATASETS.items() if entry.epochs != Entry().epochs)
Scheme = Annotated[
    MaybeScheme,
    tyro.conf.arg(
        help="First weights: gaussian is N(0, 1), scaled is N(0, 1/fan-in).\n"
        f"(default: gaussian, as in the book; scaled for {_SCALED})"
    ),
]
Epochs = Annotated[
    MaybeInt,
    tyro.conf.arg(help=f"Passes over the training examples. (default: the book's {Entry().epochs}{_EPOCHS})"),
]
# The registry supplies the choices of --kernel and its help.
if TYPE_CHECKING:
    Kernel = str
else:
    _SUMMARIES = "; ".join(f"{entry.name} {entry.summary}" for entry in reversed(BACKENDS))
    _KERNEL_HELP = (
        f"Backend that runs an epoch: {_SUMMARIES}; auto is the fastest that can run. Results differ only by rounding."
    )
    Kernel = Annotated[Literal[kernel_names()], tyro.conf.arg(help=_KERNEL_HELP)]
# An option without a value: True if the user gives it, otherwise None.
_FLAG = PrimitiveConstructorSpec(
    nargs=0, metavar="", instance_from_str=lambda _: True, is_instance=lambda _: True, str_from_instance=lambda _: []
)
MaybeFlag = Annotated[bool | None, _FLAG, _NO_HINT]
# Positional arguments.
RunDir = Annotated[Path, tyro.conf.Positional, _read("RUN", "a path", _path)]
RunOrNetwork = Annotated[Path, tyro.conf.Positional, _read("RUN|NETWORK", "a path", _path)]


def command_line(*words: object) -> str:
    """Return a command line that a shell splits into these words.

    A path that starts with - gets ./ in front, so that it does not look like an option.

    >>> command_line("jaxgd", "train", "--resume", Path("my run"))
    "jaxgd train --resume 'my run'"
    """
    return shlex.join(
        f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in words
    )


def require_writable_figure(path: Path, endings: Sequence[str], option: str = "--plot") -> None:
    """Raise unless an option names a writable file with one of these endings. Call this before any work."""
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
