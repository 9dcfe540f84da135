"""Conventions in which a folder's files may differ: the label of the first class, and the orientation of the images.

EMNIST's files have transposed images, and its letters have the labels 1 to 26.
"""

import functools
import warnings
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxgd.data.dataset import Part
from jaxgd.data.digits import load_digits
from jaxgd.errors import DataError, require_bool, require_count

_LETTERS = 26
_EXAMINED = 2000  # maximum number of images to compare with the digits in the package
_SIDE = 8  # rows and columns of the digits in the package
# Images look like digits if their class means have at least this mean correlation with those of the digits in the
# package. It is about 0.55 for 500 or more upright images of MNIST, at most 0.36 for digits in any other orientation,
# and 0.02 for Fashion-MNIST.
_ALIKE = 0.4


def require_conventions(who: str, labels_from: object, transpose: object) -> None:
    """Raise unless `labels_from` is None or 0 to 255, and `transpose` is None, True or False."""
    if labels_from is not None:
        require_count(who, "labels_from", labels_from, least=0, most=255)
    if transpose is not None:
        require_bool(who, "transpose", transpose)


def follow_conventions(
    who: str, parts: dict[str, Part], names: Iterable[str], labels_from: int | None, transpose: bool | None
) -> dict[str, Part]:
    """Return the parts with labels from 0 and upright images.

    `labels_from` or `transpose` is None if the caller has not stated it. Then expect labels from 0, or upright images,
    and warn if the data look different. Also warn if the images look transposed although `transpose` is True.

    Raise DataError if a label is below `labels_from`. `names` are the names of the folder and its files. If one
    contains "emnist", the caller must state `transpose`, and also `labels_from` if no label is 0.
    """
    least = min(int(part.labels.min()) for part in parts.values())
    most = max(int(part.labels.max()) for part in parts.values())
    starts_later = labels_from is None and least > 0
    if any("emnist" in name.lower() for name in names) and (transpose is None or starts_later):
        raise DataError(
            f"{who}: expected labels from 0 and upright images, but the names say EMNIST, whose images are transposed "
            f"and whose letters have the labels 1 to 26; got labels from {least} to {most}.\n"
            f"Pass {_arguments(least, starts_later, True if transpose is None else transpose)}."
            + (" If the images are upright, pass transpose=False (--no-transpose)." if transpose is None else "")
        )
    if starts_later:
        letters = (least, most) == (1, _LETTERS) and transpose is None
        _warn(
            f"{who}: the labels run from {least} to {most}, instead of from 0. If the first class is {least}, "
            f"pass {_arguments(least, True, False)}."
            + (" EMNIST's letters have these labels, and its images are transposed." if letters else "")
        )
    if least < (labels_from or 0):
        raise DataError(
            f"{who}: labels must be labels_from = {labels_from} or more, got {least}.\n"
            f"Pass {_arguments(least, True, False)}."
        )
    parts = {name: _converted(part, labels_from or 0, bool(transpose)) for name, part in parts.items()}
    if transpose is not False and _are_transposed_digits(parts["train"]):
        remedy = "Leave out transpose=True (--transpose)" if transpose else "Pass transpose=True (--transpose)"
        _warn(
            f"{who}: the images look like transposed digits: rows and columns are exchanged. {remedy}, or "
            "transpose=False (--no-transpose) if they are upright."
        )
    return parts


def _arguments(least: int, starts_later: bool, transpose: bool) -> str:
    """Return the arguments to pass, in Python and on the command line."""
    words = [f"labels_from={least}"] * starts_later + ["transpose=True"] * transpose
    options = [f"--labels-from {least}"] * starts_later + ["--transpose"] * transpose
    return f"{', '.join(words)} ({' '.join(options)})"


def _converted(part: Part, labels_from: int, transpose: bool) -> Part:
    images, labels = part
    if transpose:
        images = np.ascontiguousarray(images.swapaxes(1, 2))
    return Part(images, labels - np.uint8(labels_from) if labels_from else labels)


def _are_transposed_digits(part: Part) -> bool:
    """Return True if the images of classes 0 to 9 resemble the package's digits only after a transposition."""
    step = -(-len(part.labels) // _EXAMINED)  # evenly spaced, because a file may be sorted by class
    images, labels = part.images[::step], part.labels[::step]
    if images.shape[1] != images.shape[2] or not np.isin(np.arange(10), labels).all():
        return False
    means, digits = _class_means(images, labels), _digit_means()
    upright, transposed = (float(np.mean(np.sum(digits * m, (1, 2)))) for m in (means, means.swapaxes(1, 2)))
    return transposed >= _ALIKE and upright <= transposed / 2


@functools.cache
def _digit_means() -> Float[np.ndarray, "10 8 8"]:
    digits = load_digits().train
    return _class_means(digits.images, digits.labels)


def _class_means(
    images: UInt8[np.ndarray, "n rows columns"], labels: UInt8[np.ndarray, " n"]
) -> Float[np.ndarray, "10 8 8"]:
    """Return the mean image of each digit, cropped to its ink, minus the mean of all ten.

    Each result is shifted and scaled to mean 0 and norm 1.
    """
    means = np.stack([_cropped(images[labels == digit].mean(0)) for digit in range(10)])
    means -= means.mean(0)
    means -= means.mean((1, 2), keepdims=True)
    norms = np.linalg.norm(means, axis=(1, 2), keepdims=True)
    return means / np.where(norms > 0, norms, 1)


def _cropped(mean: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "8 8"]:
    """Return 8×8 samples from the box around the ink of a mean image."""
    ink = mean > mean.max() / 10
    if not ink.any():
        return np.zeros((_SIDE, _SIDE))
    rows, columns = (_samples(np.flatnonzero(ink.any(axis))) for axis in (1, 0))
    samples: Float[np.ndarray, "8 8"] = mean[np.ix_(rows, columns)]
    return samples


def _samples(lines: Int[np.ndarray, " lines"]) -> Int[np.ndarray, " samples"]:
    """Return 8 evenly spaced indices between the first and the last index in `lines`."""
    first, end = int(lines[0]), int(lines[-1]) + 1
    return np.asarray(first + (np.arange(0.5, _SIDE) * (end - first) / _SIDE).astype(int))


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
