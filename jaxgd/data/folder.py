"""A user's folder of IDX files, with any image size and number of classes."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxgd.data.conventions import follow_conventions, require_conventions
from jaxgd.data.dataset import Dataset, Part, make_dataset, make_part
from jaxgd.data.idx import read_idx
from jaxgd.data.layout import find_layout
from jaxgd.errors import DataError, RangeError, require_count
from jaxgd.files import as_path


def load_idx(
    folder: str | os.PathLike[str],
    *,
    classes: int | None = None,
    validation: int | None = None,
    labels_from: int | None = None,
    transpose: bool | None = None,
) -> Dataset:
    """Load the data set in a folder of IDX files, gzipped or not.

    The folder must hold `train-images*` and `train-labels*`, and `test-images*` and `test-labels*` (or `t10k-` instead
    of `test-`). It may hold `validation-images*` and `validation-labels*` (or `val-`). Without these files, the last
    training examples in file order become the validation split. All images must have the same size. The names may have
    capital letters, `_` instead of `-`, and a common prefix such as `emnist-letters-`. If the folder has no file with
    one of these names, the files are read from torchvision's folder: `raw` in this folder, or `raw` in a subfolder.

    EMNIST's files have transposed images, and its letters have the labels 1 to 26. Pass `labels_from=1, transpose=True`
    to read the letters. If the name of a folder or file contains EMNIST, `transpose` is required, and `labels_from` too
    if no label is 0. For other files, `load_idx` warns if no label is 0 and `labels_from` is not given. It also warns
    if the returned images look like transposed digits, except with `transpose=False`. Only `labels_from` and
    `transpose` change the labels or the images.

    Args:
        folder: Path of the folder. `~` stands for the home folder.
        classes: Number of classes; every label must be smaller. By default the largest label plus one.
        validation: Number of training examples to set aside for validation, at least 1 and fewer than all. By default
            one sixth, but at least 1. Leave it out if the folder has validation files.
        labels_from: Label of the first class in the files, 0 to 255; by default 0. The loaded labels start at 0.
        transpose: True to exchange the rows and columns of each image; False if the images are upright. By default the
            images stay as they are, and are checked.

    Returns:
        The data set, named after the folder, or after the prefix of its files.

    Raises:
        DataError: If a file is missing, damaged or present twice. An identical gzipped copy is allowed. Also if the
            files do not fit together, or a label is below `labels_from` or too large for `classes`. Also if there is
            only one training example and no validation file, or an argument that EMNIST requires is missing.
        RangeError: If `validation`, `classes` or `labels_from` is out of range, if `validation` is given although
            there are validation files, or if no folder can have this path.
        DtypeError: If an argument has the wrong type.

    Source: Nielsen, chapter 1, for the split; Cohen, Afshar, Tapson and van Schaik, arXiv:1702.05373, for EMNIST.

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
    require_conventions("load_idx", labels_from, transpose)
    place, prefix, files = find_layout("load_idx", folder)
    if validation is not None and "validation" in files:
        raise RangeError(
            f"load_idx: expected no validation argument, because {folder} has validation files, got "
            f"validation = {validation}.\nLeave it out, or move those files away."
        )
    parts = {split: _read_part(*paths) for split, paths in files.items()}
    names = [*place.relative_to(folder.parent).parts, *(path.name for pair in files.values() for path in pair[0])]
    parts = follow_conventions(f"load_idx: {folder}", parts, names, labels_from, transpose)
    train = parts["train"]
    if "validation" in parts:
        held_out = parts["validation"]
    else:
        train, held_out = split_last("load_idx", train, validation, folder)
    name = prefix or folder.name or str(folder)
    return make_dataset(f"load_idx: {folder}", name, train, held_out, parts["test"], classes=classes)


def _read_part(images: list[Path], labels: list[Path]) -> Part:
    """Read the images and the labels of one split."""
    return make_part("load_idx", _read(images), _read(labels), images_name=str(images[0]), labels_name=str(labels[0]))


def _read(paths: list[Path]) -> UInt8[np.ndarray, "*shape"]:
    """Return the array in a file. If the file is present both unpacked and gzipped, both must hold the same array."""
    array = read_idx(paths[0])
    if len(paths) > 1 and not np.array_equal(array, read_idx(paths[1])):
        raise DataError(
            f"load_idx: {paths[0].parent}: expected the same array in {paths[0].name} and {paths[1].name}, "
            "got two arrays.\nKeep one of them in this folder and move the other away."
        )
    return array


def split_last(who: str, train: Part, last: int | None, folder: Path) -> tuple[Part, Part]:
    """Split off the last examples without a copy: by default one sixth, but at least one."""
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
