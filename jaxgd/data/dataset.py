"""The in-memory form of every data set."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxgd.errors import DataError, DtypeError, describe
from jaxgd.mesh import Placed


class Part(NamedTuple):
    """The images and labels of one split: training, validation or test.

    Attributes:
        images: Images, `uint8` of shape (n, height, width), from 0 (paper, the background) to 255 (ink).
        labels: Class of each image, `uint8` of shape (n,), in the order of the images.
    """

    images: UInt8[np.ndarray, "n height width"]
    labels: UInt8[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels, split into training, validation and test examples.

    Pixels are bytes from 0 (paper, the background) to 255 (ink) in every data set, so `images / 255` always lies in
    [0, 1]. Keep the bytes, which need a quarter of the memory of float32, and scale them on use. The arrays of a
    loaded data set are read-only.

    Attributes:
        name: Name of the data set. For a folder: the folder's name, or the common prefix of its files.
        train: Training examples; a `Placed` split if `jaxgd.mesh.place` returned the data set.
        validation: Examples held out from training, to choose η and other hyperparameters; `Placed` like `train`.
        test: Test examples; `Placed` like `train`.
        classes: Number of classes. Labels are 0 to `classes` − 1.

    Source: Nielsen, chapter 1, "Implementing our network to classify digits".

    Example:
        >>> from jaxgd.data import load_dataset
        >>> digits = load_dataset("digits")
        >>> digits, digits.inputs, digits.train.images.shape
        (Dataset(name='digits', classes=10), 64, (1197, 8, 8))
    """

    name: str
    train: Part | Placed = field(repr=False)
    validation: Part | Placed = field(repr=False)
    test: Part | Placed = field(repr=False)
    classes: int

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of every image."""
        _, height, width = self.train.images.shape
        return height, width

    @property
    def inputs(self) -> int:
        """Pixels per image, height · width: the number of inputs that a network for these images needs."""
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
    """Check images and labels, and return read-only views of them as a `Part`.

    >>> make_part("example", np.zeros((2, 8, 8), np.uint8), np.zeros(2, np.uint8)).labels
    array([0, 0], dtype=uint8)
    """
    for name, x in ((images_name, images), (labels_name, labels)):
        if getattr(x, "dtype", None) != np.uint8:
            raise DtypeError(
                f"{who}: {name} must be uint8, got {describe(x)}.\n"
                "Labels and pixels are bytes, and pixels run from 0 (paper) to 255 (ink)."
            )
    if images.ndim != 3:
        raise DataError(
            f"{who}: {images_name} must have the shape (n, height, width), got {images.shape}.\n"
            "Each entry along the first axis must be one image of one channel."
        )
    if labels.ndim != 1:
        raise DataError(
            f"{who}: {labels_name} must have the shape (n,), got {labels.shape}.\nEach entry must be one label."
        )
    if len(images) != len(labels):
        raise DataError(
            f"{who}: expected one label for each image, got {len(images)} images in {images_name} "
            f"and {len(labels)} labels in {labels_name}.\nTake both from the same source."
        )
    if images.size == 0:
        raise DataError(
            f"{who}: {images_name} must hold at least one image of at least one pixel, got {images.shape}.\n"
            "Add an image. Only the validation split may be left out."
        )
    images, labels = images.view(), labels.view()
    images.flags.writeable = labels.flags.writeable = False
    return Part(images, labels)


def make_dataset(
    who: str, name: str, train: Part, validation: Part, test: Part, *, classes: int | None = None
) -> Dataset:
    """Check three splits, and join them into a `Dataset`. By default `classes` is the largest label plus one.

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
        raise DataError(f"{who}: all images must have one size, got {got}.\nCrop or scale them to the same size first.")
    if classes is None:
        classes = 1 + max(int(part.labels.max()) for part in parts.values())
    for key, part in parts.items():
        if part.labels.max() >= classes:
            raise DataError(
                f"{who}: labels must be below classes = {classes}, got {part.labels.max()} in {key}.\n"
                "Number the classes from 0, or pass a larger classes."
            )
    return Dataset(name=name, classes=classes, **parts)
