"""A user's folder of IDX files, with any image size and number of classes."""

import os
from pathlib import Path

from jaxgd.data.dataset import Dataset, Part, make_dataset, make_part
from jaxgd.data.idx import read_idx
from jaxgd.errors import DataError, RangeError, require_count
from jaxgd.files import as_path

_PREFIXES = {"train": ("train-",), "validation": ("validation-",), "test": ("t10k-", "test-")}


def load_idx(folder: str | os.PathLike[str], *, classes: int | None = None, validation: int | None = None) -> Dataset:
    """Load the data set in a folder of IDX files, gzipped or not.

    The folder must hold `train-images*` and `train-labels*`, and `test-images*` and `test-labels*` (or `t10k-` instead
    of `test-`). It may hold `validation-images*` and `validation-labels*`. Without them, the last training examples in
    file order become the validation split. All images must have the same size.

    Args:
        folder: Path of the folder. `~` stands for the home folder.
        classes: Number of classes; every label must be smaller. By default the largest label plus one.
        validation: Number of training examples to set aside for validation, at least 1 and fewer than all. By default
            one sixth, which is the book's 10,000 of 60,000. Leave it out if the folder has validation files.

    Returns:
        The data set, named after the folder.

    Raises:
        DataError: If a file is missing, damaged or present twice, or if the files do not fit together.
        RangeError: If `validation` or `classes` is out of range, or `validation` is given next to validation files.
        DtypeError: If `validation` or `classes` is not a whole number, or `folder` is not a str or a Path.

    Source: Nielsen, chapter 1, for the split.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from jaxgd.data.idx import write_idx
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for split, n in (("train", 12), ("test", 3)):
        ...         write_idx(f"{folder}/{split}-images.gz", np.zeros((n, 5, 4), np.uint8))
        ...         write_idx(f"{folder}/{split}-labels.gz", np.arange(n, dtype=np.uint8) % 3)
        ...     dataset = load_idx(folder)
        >>> dataset.image_shape, dataset.classes, len(dataset.train.labels), len(dataset.validation.labels)
        ((5, 4), 3, 10, 2)
    """
    folder = as_path("load_idx", folder).expanduser()
    if classes is not None:
        require_count("load_idx", "classes", classes)
    names = _names(folder)
    train = _read_part(folder, names, "train")
    test = _read_part(folder, names, "test")
    if any(name.startswith(_PREFIXES["validation"]) for name in names):
        if validation is not None:
            raise RangeError(
                f"load_idx: expected no validation argument, because {folder} has validation files, got "
                f"validation = {validation}.\nLeave it out, or move those files away."
            )
        held_out = _read_part(folder, names, "validation")
    else:
        train, held_out = split_last("load_idx", train, validation, folder)
    name = folder.name or str(folder)
    return make_dataset(f"load_idx: {folder}", name, train, held_out, test, classes=classes)


def split_last(who: str, train: Part, last: int | None, folder: Path) -> tuple[Part, Part]:
    """Split the last examples off without a copy; by default one sixth of them."""
    n = len(train.labels)
    if n < 2:
        raise DataError(
            f"{who}: {folder}: expected at least two training examples, one of them for validation, got {n}.\n"
            "Add examples, or validation-images and validation-labels files."
        )
    if last is None:
        last = max(1, n // 6)
    require_count(who, "validation", last, most=n - 1)
    cut = n - last
    return Part(train.images[:cut], train.labels[:cut]), Part(train.images[cut:], train.labels[cut:])


def _names(folder: Path) -> list[str]:
    """Return the sorted names of the files in the folder."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise DataError(
            f"load_idx: cannot read {folder}: expected a folder of IDX files, got: {error.strerror or error}.\n"
            "Name a folder with train-images, train-labels, test-images and test-labels files."
        ) from error


def _read_part(folder: Path, names: list[str], split: str) -> Part:
    """Read the images and the labels of one split."""
    images, labels = (folder / _find(folder, names, split, kind) for kind in ("images", "labels"))
    return make_part("load_idx", read_idx(images), read_idx(labels), images_name=str(images), labels_name=str(labels))


def _find(folder: Path, names: list[str], split: str, kind: str) -> str:
    """Return the only name that matches the split and the kind."""
    prefixes = tuple(prefix + kind for prefix in _PREFIXES[split])
    matches = [name for name in names if name.startswith(prefixes)]
    if len(matches) == 1:
        return matches[0]
    expected = " or ".join(f"{prefix}*" for prefix in prefixes)
    if matches:
        remedy = "Keep one of them in this folder and move the rest away."
    else:
        remedy = "Put it into this folder as an IDX file of unsigned bytes, gzipped or not."
    got = " and ".join(matches) or "none"
    raise DataError(f"load_idx: {folder}: expected one file {expected}, got {got}.\n{remedy}")
