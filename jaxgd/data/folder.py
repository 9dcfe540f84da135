"""A folder of one's own IDX files, of any image size and any number of classes."""

import os
from pathlib import Path

from jaxgd.data.dataset import Dataset, Part, make_dataset, make_part
from jaxgd.data.idx import read_idx
from jaxgd.errors import DataError, RangeError, require_count

_PREFIXES = {"train": ("train-",), "validation": ("validation-",), "test": ("t10k-", "test-")}


def load_idx(folder: str | os.PathLike[str], *, classes: int | None = None, validation: int | None = None) -> Dataset:
    """Load the data set in a folder of IDX files, gzipped or not.

    The files are `train-images*` and `train-labels*`, `t10k-images*` or `test-images*` and their labels, and, where
    there are any, `validation-images*` and `validation-labels*`. Without the latter the last `validation` training
    examples, in file order, are set aside: by default one sixth, the book's 10,000 of 60,000.

    Shapes: images `(n, height, width)` of one size in all files, labels `(n,)`.
    Range: pixels 0 (paper) to 255 (ink); labels below `classes`, by default the largest label plus one;
    1 ≤ `validation` < training examples.
    Raises: DataError if a file is missing, damaged or one of two for the same purpose, or if files do not fit together;
    RangeError if `validation` or `classes` cannot be had.
    Source: Nielsen, chapter 1, for the split.

    >>> import tempfile
    >>> import numpy as np
    >>> from jaxgd.data.idx import write_idx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part, n in (("train", 12), ("test", 3)):
    ...         write_idx(f"{folder}/{part}-images.gz", np.zeros((n, 5, 4), np.uint8))
    ...         write_idx(f"{folder}/{part}-labels.gz", np.arange(n, dtype=np.uint8) % 3)
    ...     dataset = load_idx(folder)
    >>> dataset.image_shape, dataset.classes, len(dataset.train.labels), len(dataset.validation.labels)
    ((5, 4), 3, 10, 2)
    """
    folder = Path(folder).expanduser()
    if classes is not None:
        require_count("load_idx", "classes", classes)
    names = _names(folder)
    train = _read_part(folder, names, "train")
    test = _read_part(folder, names, "test")
    if any(name.startswith(_PREFIXES["validation"]) for name in names):
        if validation is not None:
            raise RangeError(
                f"load_idx: validation = {validation} examples were asked for, and {folder} has validation files.\n"
                "Leave validation out, or move those files away."
            )
        held_out = _read_part(folder, names, "validation")
    else:
        train, held_out = split_last("load_idx", train, validation, folder)
    name = folder.name or str(folder)
    return make_dataset(f"load_idx: {folder}", name, train, held_out, test, classes=classes)


def split_last(who: str, train: Part, last: int | None, folder: Path) -> tuple[Part, Part]:
    """Set the last examples aside, by default one sixth of them; nothing is copied."""
    n = len(train.labels)
    if n < 2:
        raise DataError(
            f"{who}: {folder}: expected at least two training examples, one of them to set aside for validation, got "
            f"{n}.\nAdd examples, or validation-images and validation-labels files."
        )
    if last is None:
        last = max(1, n // 6)
    require_count(who, "validation", last, most=n - 1)
    cut = n - last
    return Part(train.images[:cut], train.labels[:cut]), Part(train.images[cut:], train.labels[cut:])


def _names(folder: Path) -> list[str]:
    """List the names of the files in the folder."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise DataError(
            f"load_idx: cannot read {folder}: expected a folder of IDX files, got: {error.strerror or error}.\n"
            "Name a folder with train-images, train-labels, test-images and test-labels files."
        ) from error


def _read_part(folder: Path, names: list[str], role: str) -> Part:
    """Read the images and the labels of one part."""
    images, labels = (folder / _find(folder, names, role, kind) for kind in ("images", "labels"))
    return make_part("load_idx", read_idx(images), read_idx(labels), images_name=str(images), labels_name=str(labels))


def _find(folder: Path, names: list[str], role: str, kind: str) -> str:
    """Find the one name that matches the part and the kind."""
    prefixes = tuple(prefix + kind for prefix in _PREFIXES[role])
    found = [name for name in names if name.startswith(prefixes)]
    if len(found) == 1:
        return found[0]
    wanted = " or ".join(f"{prefix}*" for prefix in prefixes)
    if found:
        remedy = "Keep one of them in this folder and move the rest away."
    else:
        remedy = "Put it there as an IDX file of unsigned bytes, gzipped or not."
    got = " and ".join(found) or "none"
    raise DataError(f"load_idx: {folder}: expected one file {wanted}, got {got}.\n{remedy}")
