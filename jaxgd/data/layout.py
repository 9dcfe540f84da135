"""The files of a data set in a folder: the images and the labels of each split."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from jaxgd.data.foreign import conversion
from jaxgd.errors import DataError

_SPLITS = {"train": ("train",), "validation": ("val", "validation"), "test": ("t10k", "test")}
_NAME = re.compile(r"(?:(.+?)-)?(train|val|validation|t10k|test)-(images|labels)")
_LISTED = 8  # `_contents` lists at most this number of names
_ADVICE = "Name a folder with train-images, train-labels, test-images and test-labels files."


class Layout(NamedTuple):
    """The files of a data set.

    Attributes:
        folder: The folder of the files: the given folder, or torchvision's folder `raw` inside it.
        prefix: The prefix of the files' names in lower case and with `-` for `_`, such as "emnist-letters"; "" if they
            have none.
        files: For each split, the paths of its images and of its labels. There are two paths if a file is present both
            gzipped and unpacked.
    """

    folder: Path
    prefix: str
    files: dict[str, tuple[list[Path], list[Path]]]


def find_layout(who: str, folder: Path) -> Layout:
    """Return the files of the data set in a folder.

    Raise DataError unless there is one file of images and one of labels for training, for test and, if there are any,
    for validation. A file may be present both gzipped and unpacked.
    """
    if os.path.isfile(folder):  # False, and no error, for a path that cannot be read
        advice = conversion([folder]) or _ADVICE
        raise DataError(f"{who}: {folder}: expected a folder of IDX files, got a file.\n{advice}")
    try:
        names = _names(folder)
        # torchvision unpacks MNIST into ROOT/MNIST/raw. The given folder may be ROOT or ROOT/MNIST.
        raw = [] if any(map(_parsed, names)) else [folder / "raw", *sorted(folder.glob("*/raw"))]
        raw_folders = {place: own for place in raw if place.is_dir() and any(map(_parsed, own := _names(place)))}
    except OSError as error:
        raise DataError(
            f"{who}: cannot read {folder}: expected a folder of IDX files, got: {error.strerror or error}.\n{_ADVICE}"
        ) from error
    if len(raw_folders) > 1:
        places = " and ".join(str(place.relative_to(folder)) for place in raw_folders)
        raise DataError(
            f"{who}: {folder}: expected the files of one data set, got {places}.\nName one of these folders."
        )
    if raw_folders:
        ((folder, names),) = raw_folders.items()
    sets: dict[str, dict[tuple[str, str], list[str]]] = {}
    for name in names:
        if parsed := _parsed(name):
            prefix, split, kind = parsed
            sets.setdefault(prefix, {}).setdefault((split, kind), []).append(name)
    # If some files have no prefix, ignore files with a prefix, such as emnist-letters-train-images.
    if "" not in sets and len(sets) > 1:
        raise DataError(
            f"{who}: {folder}: expected the files of one data set, got {len(sets)}: {', '.join(sorted(sets))}.\n"
            "Move the files of one data set into a folder of their own."
        )
    prefix = "" if "" in sets or not sets else next(iter(sets))
    chosen = sets.get(prefix, {})
    with_validation = any(split == "validation" for split, _ in chosen)

    def only(split: str, kind: str) -> list[Path]:
        return _only(who, folder, names, split, kind, chosen.get((split, kind), []))

    splits = ("train", "test", "validation") if with_validation else ("train", "test")
    return Layout(folder, prefix, {split: (only(split, "images"), only(split, "labels")) for split in splits})


def _names(folder: Path) -> list[str]:
    """Return the sorted names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def _parsed(name: str) -> tuple[str, str, str] | None:
    """Return the prefix, the split and the kind that the name of a file states, or None.

    >>> _parsed("train-images-idx3-ubyte.gz"), _parsed("EMNIST_letters_test_labels"), _parsed("notes.txt")
    (('', 'train', 'images'), ('emnist-letters', 'test', 'labels'), None)
    """
    if name.startswith(".") or not (match := _NAME.match(name.lower().replace("_", "-"))):
        return None
    return match[1] or "", next(split for split, words in _SPLITS.items() if match[2] in words), match[3]


def _only(who: str, folder: Path, names: list[str], split: str, kind: str, matches: list[str]) -> list[Path]:
    """Return the path of the only match, or both paths if the second name is the first with .gz added.

    Raise DataError in all other cases.
    """
    if len(matches) == 1 or (len(matches) == 2 and matches[1] == f"{matches[0]}.gz"):
        return [folder / name for name in matches]
    expected = " or ".join(f"{word}-{kind}*" for word in _SPLITS[split])
    if matches:
        got, remedy = " and ".join(matches), "Keep one of them in this folder and move the rest away."
    else:
        got = "none"
        remedy = conversion(folder / name for name in names) or (
            f"Put it into this folder as an IDX file of unsigned bytes, gzipped or not. {_contents(folder)}"
        )
    raise DataError(f"{who}: {folder}: expected one file {expected}, got {got}.\n{remedy}")


def _contents(folder: Path) -> str:
    """Return a sentence that lists the first names in a folder."""
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"The folder has {', '.join(names[:_LISTED])}{more}." if names else "The folder is empty."
