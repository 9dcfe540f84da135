"""What every data set looks like once it is in memory."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxgd.errors import DataError, DtypeError, describe


class Part(NamedTuple):
    """Images and their labels, in one order."""

    images: UInt8[np.ndarray, "n height width"]
    labels: UInt8[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels, split into training, validation and test examples.

    Pixels are bytes from 0 (paper) to 255 (ink) in every data set, so that `images / 255` is right everywhere. They
    stay bytes in memory, a quarter of float32: scale on use. The arrays are read-only.

    Shapes: each part's `images` is `(n, height, width)` and its `labels` `(n,)`.
    Range: pixels 0 to 255, labels 0 to `classes` − 1; both `uint8`.
    Raises: nothing. `make_dataset` is what checks.
    Source: Nielsen, chapter 1, "Implementing our network to classify digits".

    >>> from jaxgd.data import load_dataset
    >>> digits = load_dataset("digits")
    >>> digits, digits.inputs, digits.train.images.shape
    (Dataset(name='digits', classes=10), 64, (1197, 8, 8))
    """

    name: str
    train: Part = field(repr=False)
    validation: Part = field(repr=False)
    test: Part = field(repr=False)
    classes: int

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of every image."""
        _, height, width = self.train.images.shape
        return height, width

    @property
    def inputs(self) -> int:
        """Pixels of an image, height · width: the size of a network's first layer."""
        height, width = self.image_shape
        return height * width


def make_part(
    who: str,
    images: UInt8[np.ndarray, "*images"],
    labels: UInt8[np.ndarray, "*labels"],
    *,
    images_name: str = "images",
    labels_name: str = "labels",
) -> Part:
    """Check and join images and labels: a `Part` of two read-only arrays, neither of them copied.

    Shapes: `images` is `(n, height, width)` and `labels` `(n,)`, with n ≥ 1 and at least one pixel.
    Raises: DtypeError unless both are `uint8`; DataError if a shape does not serve or the counts differ.

    >>> make_part("example", np.zeros((2, 8, 8), np.uint8), np.zeros(2, np.uint8)).labels
    array([0, 0], dtype=uint8)
    """
    for name, x in ((images_name, images), (labels_name, labels)):
        if getattr(x, "dtype", None) != np.uint8:
            raise DtypeError(f"{who}: {name} must be uint8, got {describe(x)}.\nPixels are bytes, 0 paper to 255 ink.")
    if images.ndim != 3:
        raise DataError(
            f"{who}: {images_name} must have the shape (n, height, width), got {images.shape}.\n"
            "Put one image of one channel at each index."
        )
    if labels.ndim != 1:
        raise DataError(
            f"{who}: {labels_name} must have the shape (n,), got {labels.shape}.\nPut one label at each index."
        )
    if len(images) != len(labels):
        raise DataError(
            f"{who}: expected one label for each image, got {len(images)} images in {images_name} "
            f"and {len(labels)} labels in {labels_name}.\nTake both from the same source."
        )
    if images.size == 0:
        raise DataError(
            f"{who}: {images_name} must hold at least one image of at least one pixel, got {images.shape}.\n"
            "Leave the part out or fill it."
        )
    images, labels = images.view(), labels.view()
    images.flags.writeable = labels.flags.writeable = False
    return Part(images, labels)


def make_dataset(
    who: str, name: str, train: Part, validation: Part, test: Part, *, classes: int | None = None
) -> Dataset:
    """Check and join three parts to a `Dataset`; `classes` is by default the largest label of all parts plus one.

    Shapes: all parts hold images of one shape.
    Range: labels below `classes`.
    Raises: as `make_part`; DataError if the parts' image shapes differ or a label is not below `classes`.

    >>> part = Part(np.zeros((2, 8, 8), np.uint8), np.array([0, 3], np.uint8))
    >>> make_dataset("example", "mine", part, part, part).classes
    4
    """
    parts = {"train": train, "validation": validation, "test": test}
    parts = {
        key: make_part(who, *part, images_name=f"{key} images", labels_name=f"{key} labels")
        for key, part in parts.items()
    }
    shapes = {key: part.images.shape[1:] for key, part in parts.items()}
    if len(set(shapes.values())) > 1:
        got = ", ".join(f"{key} {height}×{width}" for key, (height, width) in shapes.items())
        raise DataError(f"{who}: all images must have one size, got {got}.\nCrop or scale them alike first.")
    if classes is None:
        classes = 1 + max(int(part.labels.max()) for part in parts.values())
    for key, part in parts.items():
        if part.labels.max() >= classes:
            raise DataError(
                f"{who}: labels must be below classes = {classes}, got {part.labels.max()} in {key}.\n"
                "Number the classes from 0, or pass a larger classes."
            )
    return Dataset(name=name, classes=classes, **parts)
