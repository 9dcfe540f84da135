"""Small digits inside the package, available without a download."""

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxgd.data.dataset import Dataset, Part, make_dataset
from jaxgd.data.idx import read_idx

_TRAIN, _VALIDATION = 1197, 300  # of 1,797 digits; the remaining 300 are the test examples

# Entry v is the byte for the value v in the file.
_INK = np.rint(np.arange(17) * 255 / 16).astype(np.uint8)


def load(data_dir: Path) -> Dataset:
    """Load the digits for `load_dataset`. The package includes the digits, so `data_dir` has no effect."""
    return load_digits()


def load_digits() -> Dataset:
    """Load 1,797 handwritten digits of 8×8 pixels, shuffled with a fixed seed and split 1,197 / 300 / 300.

    The file holds the original values v from 0 to 16. The images hold round(v · 255 / 16), so that pixels are bytes
    from 0 (paper) to 255 (ink) as in every other data set. round(byte · 16 / 255) gives v back.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
    doi 10.24432/C50P49, CC BY 4.0. The 1,797 digits are the test set of that collection. scikit-learn ships
    the same digits.

    >>> load_digits().train.labels[:10]
    array([2, 8, 2, 6, 6, 7, 1, 9, 8, 5], dtype=uint8)
    """
    values, labels = read_original()
    images = _INK[values]
    # The file has the order of the source, so shuffle the digits. All versions of NumPy draw the same numbers from
    # RandomState. The newer generators do not guarantee this.
    order = np.random.RandomState(0).permutation(len(labels))
    train, validation, test = (
        Part(images[part], labels[part]) for part in np.split(order, [_TRAIN, _TRAIN + _VALIDATION])
    )
    return make_dataset("load_dataset", "digits", train, validation, test, classes=10)


def read_original() -> tuple[UInt8[np.ndarray, "1797 8 8"], UInt8[np.ndarray, " 1797"]]:
    """Read the original values, 0 to 16, and the labels, in the order of the source.

    >>> values, labels = read_original()
    >>> int(values.max()), labels[:10].tolist()
    (16, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    folder = files("jaxgd.data") / "digits"
    with as_file(folder / "images-idx3-ubyte.gz") as images, as_file(folder / "labels-idx1-ubyte.gz") as labels:
        return read_idx(images), read_idx(labels)
