"""Fit a picture of one handwritten digit to the form of the images that a network was trained on.

The authors of MNIST scaled the bounding box of the ink into 20×20 pixels, with its aspect ratio kept, and moved its
center of mass to the center of 28×28 pixels. Other data sets differ, so the form is measured from the training images.
Here, paper means the background of a picture, and ink its strokes.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from jaxgd.errors import DataError, DtypeError, describe

_SAMPLE = 2000  # the largest number of images that frame_of measures
_SAMPLE_PIXELS = 2**23  # limit on the pixels that frame_of measures, but 64 images are always allowed

# Threshold between paper (0) and the strongest ink (1). Shadows, grain and JPEG artifacts around strokes stay below a
# third, and pale strokes stay above it. With this threshold the longer side of 99.9% of MNIST's digits is 20 pixels.
FAINT = 1 / 3
# A detached group with less than this share of all ink is dust. A group with more may be the bar of a 5. `find_digits`
# takes the share of the strongest group's ink.
SPECK = 0.005
LEAST_CONTRAST = 16  # in gray levels, 0 to 255: an image with less contrast counts as blank


class Frame(NamedTuple):
    """The size and position of the digits in the images of a data set. All fields are valid JSON.

    A digit whose ink is h pixels high and w wide is scaled by min(`box_height` / h, `box_width` / w). It is then moved
    until the center that `centering` names is as near as possible to (`center_row`, `center_column`). Positions are in
    pixels: the center of pixel i is at i, so 28 pixels extend from −0.5 to 27.5.

    Attributes:
        height: Height of an image in pixels.
        width: Width of an image in pixels.
        box_height: Largest height of a scaled digit's ink in pixels.
        box_width: Largest width of a scaled digit's ink in pixels.
        centering: Center that is aligned: "mass" for the ink's center of mass, "box" for the middle of its box.
        center_row: Row of that center in pixels.
        center_column: Column of that center in pixels.
        peak: Strongest ink: the median of the images' largest values, at most 255.
        slack: Upper limit, in pixels, of the deviation of 99.5% of the sampled digits from this frame; at least 0.5.
    """

    height: int
    width: int
    box_height: int
    box_width: int
    centering: str
    center_row: float
    center_column: float
    peak: int
    slack: float


def frame_of(images: UInt8[np.ndarray, "n height width"]) -> Frame:
    """Measure the frame of a set of images, from at most 2,000 images, evenly spaced through the set.

    `box_height` / `box_width` is the ratio of the 99th percentiles of ink height and ink width. At least about
    half of the digits fit into a box of this size. The centering is "box" if the middle of the box varies less between
    digits than the center of mass, otherwise "mass". (`center_row`, `center_column`) is the mean position of the chosen
    center, rounded to half a pixel.

    Args:
        images: Images, `uint8` of shape (n, height, width), n ≥ 1, from 0 (paper) to 255 (ink).

    Returns:
        The frame of the images.

    Raises:
        DtypeError: If the images are not `uint8`.
        DataError: If the shape is not (n, height, width) or a dimension is 0.

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits.

    Example:
        >>> images = np.zeros((3, 8, 8), np.uint8)
        >>> images[:, 1:7, 3:5] = 255
        >>> frame_of(images)
        Frame(height=8, width=8, box_height=6, box_width=2, centering='mass', center_row=3.5, center_column=3.5, \
peak=255, slack=0.5)
    """
    _require_bytes("frame_of", "images", images, ("n", "height", "width"))
    n, height, width = images.shape
    count = min(n, _SAMPLE, max(64, _SAMPLE_PIXELS // (height * width)))
    sample = images[np.linspace(0, n - 1, count).astype(int)]
    sample = sample[sample.max(axis=(1, 2)) - border_median(sample) >= LEAST_CONTRAST]
    if len(sample) == 0:  # no image has ink: accept every digit in an image of this size
        middle = ((height - 1) / 2, (width - 1) / 2)
        return Frame(height, width, height, width, "box", *middle, 255, float(max(height, width)))
    ink = _ink(sample, border_median(sample))
    box = _box(ink)
    sizes = (box[:, 1] - box[:, 0]).astype(float)
    largest = np.percentile(sizes, 99, axis=0)
    box_size = np.rint(largest * np.median((sizes / largest).max(axis=1))).astype(int)
    # With few images, `box_size` can be larger than an image.
    box_height, box_width = np.minimum(box_size, (height, width)).tolist()
    positions = {"mass": _center_of_mass(ink), "box": _middle(box)}
    centering = min(positions, key=lambda name: float(positions[name].var(axis=0).sum()))
    row, column = (np.rint(2 * positions[centering].mean(axis=0)) / 2).tolist()
    frame = Frame(
        height=height,
        width=width,
        box_height=max(1, box_height),
        box_width=max(1, box_width),
        centering=centering,
        center_row=row,
        center_column=column,
        peak=int(np.median(sample.max(axis=(1, 2)))),
        slack=0.5,  # digits move by whole pixels, so a deviation of 0.5 can remain
    )
    slack = float(np.percentile(_distance(ink, frame), 99.5, method="higher"))
    return frame._replace(slack=max(frame.slack, math.ceil(1000 * slack) / 1000))


def fit_to_frame(image: UInt8[np.ndarray, "rows columns"], frame: Frame) -> UInt8[np.ndarray, "height width"]:
    """Scale and move the digit in an image to fit the frame.

    An image that already fits is returned unchanged. It fits if it has the frame's size, a border of median 0 and ink
    of at least half of the frame's peak, and deviates from the frame by at most `frame.slack` pixels. All other images
    go through these steps:

    1. The median of the border is the value of the paper. It is subtracted from the image.
    2. Pixels with less than a third of the strongest ink become 0. Neighbors of ink stay, so that strokes keep soft
       edges.
    3. The bounding box of the ink is cut out, without detached specks that hold at most 0.5% of the ink.
    4. The box is reduced by exact area averages, or enlarged by bilinear interpolation.
    5. The values are scaled so that the largest equals the frame's peak.
    6. The digit is moved by whole pixels, but not beyond the edge.

    Args:
        image: Image of any size, `uint8` of shape (height, width), from 0 (paper) to 255 (ink).
        frame: Frame to fit.

    Returns:
        The fitted image, (frame.height, frame.width), from 0 (paper) to 255 (ink).

    Raises:
        DtypeError: If the image is not `uint8`.
        DataError: If the shape is not (height, width), a dimension is 0, or the image has no ink.

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits.

    Example:
        >>> image = np.zeros((9, 9), np.uint8)
        >>> image[1:5, 6:8] = 200
        >>> fit_to_frame(image, Frame(4, 4, 2, 2, "mass", 1.5, 1.5, 255, 0.5))
        array([[  0,   0,   0,   0],
               [  0,   0, 255,   0],
               [  0,   0, 255,   0],
               [  0,   0,   0,   0]], dtype=uint8)
    """
    _require_bytes("fit_to_frame", "image", image, ("height", "width"))
    paper = border_median(image[None])
    if int(image.max()) - int(paper[0]) < LEAST_CONTRAST:
        raise DataError(
            f"fit_to_frame: expected an image with a digit on it, got a blank one of {image.shape[0]}×{image.shape[1]} "
            f"pixels.\nPixels are bytes, from 0 (paper) to 255 (ink), and the border is paper."
        )
    ink = _ink(image[None], paper)
    clean = int(paper[0]) == 0 and int(image.max()) >= frame.peak / 2
    if clean and image.shape == (frame.height, frame.width) and _distance(ink, frame)[0] <= frame.slack:
        return image
    top, left, bottom, right = _box(ink).ravel().tolist()
    crop = ink[0, top:bottom, left:right]
    scale = min(frame.box_height / crop.shape[0], frame.box_width / crop.shape[1])
    height, width = (max(1, round(side * scale)) for side in crop.shape)
    digit = _resampling(crop.shape[0], height) @ crop.astype(np.float32) @ _resampling(crop.shape[1], width).T
    digit = np.rint(digit * (frame.peak / digit.max())).astype(np.uint8)
    center = (
        _center_of_mass(digit[None]).ravel() if frame.centering == "mass" else np.array([height - 1, width - 1]) / 2
    )
    corner = np.floor(np.array([frame.center_row, frame.center_column]) - center + 0.5)
    top, left = np.clip(corner, 0, [frame.height - height, frame.width - width]).astype(int).tolist()
    framed = np.zeros((frame.height, frame.width), np.uint8)
    framed[top : top + height, left : left + width] = digit
    return framed


def _require_bytes(who: str, name: str, x: UInt8[np.ndarray, "..."], axes: tuple[str, ...]) -> None:
    """Raise unless x is a non-empty array of bytes with these axes."""
    if getattr(x, "dtype", None) != np.uint8:
        raise DtypeError(
            f"{who}: {name} must be uint8, got {describe(x)}.\nPixels are bytes, from 0 (paper) to 255 (ink)."
        )
    if x.ndim != len(axes) or x.size == 0:
        raise DataError(
            f"{who}: {name} must have the shape ({', '.join(axes)}) with each dimension at least 1, got {x.shape}.\n"
            "Images have one channel."
        )


def border_median(images: UInt8[np.ndarray, "n height width"]) -> UInt8[np.ndarray, " n"]:
    """Return the median of each image's border."""
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    return np.asarray(np.median(border, axis=1).astype(np.uint8))


def _ink(
    images: UInt8[np.ndarray, "n height width"], paper: UInt8[np.ndarray, " n"]
) -> UInt8[np.ndarray, "n height width"]:
    """Subtract each image's paper, and set faint pixels to 0."""
    paper = paper[:, None, None]
    contrast = images.max(axis=(1, 2), keepdims=True) - paper
    level = paper + (FAINT * contrast).astype(np.uint8)
    return np.where(_grown(images > level), np.maximum(images, paper) - paper, np.uint8(0))


def _grown(mask: Bool[np.ndarray, "n height width"]) -> Bool[np.ndarray, "n height width"]:
    """Add the eight neighbors of every pixel of the mask, so that strokes keep their soft edges."""
    tall = mask.copy()
    tall[:, 1:] |= mask[:, :-1]
    tall[:, :-1] |= mask[:, 1:]
    wide = tall.copy()
    wide[:, :, 1:] |= tall[:, :, :-1]
    wide[:, :, :-1] |= tall[:, :, 1:]
    return wide


def _projections(ink: UInt8[np.ndarray, "n height width"]) -> list[Int[np.ndarray, "n _"]]:
    """Return the sum of the ink in every row, and in every column."""
    return [ink.sum(axis=2, dtype=np.int64), ink.sum(axis=1, dtype=np.int64)]


def _box(ink: UInt8[np.ndarray, "n height width"]) -> Int[np.ndarray, "n 2 2"]:
    """Return the bounding box of each image's ink as [[top, left], [bottom, right]], bottom and right exclusive."""
    first, last = zip(*((_first(lines), _first(lines[:, ::-1])) for lines in _projections(ink)), strict=True)
    return np.stack([np.stack(first, axis=1), np.array(ink.shape[1:]) - np.stack(last, axis=1)], axis=1)


def _first(lines: Int[np.ndarray, "n _"]) -> Int[np.ndarray, " n"]:
    """Return the first row or column with ink.

    Skip the ink before an empty line if it holds at most 0.5% of all ink.
    """
    before = lines.cumsum(axis=1)
    skipped = (lines == 0) & (before <= SPECK * before[:, -1:])
    return np.asarray((skipped * np.arange(1, lines.shape[1] + 1)).max(axis=1))


def _middle(box: Int[np.ndarray, "n 2 2"]) -> Float32[np.ndarray, "n 2"]:
    return np.asarray((box[:, 0] + box[:, 1] - 1) / 2, np.float32)


def _center_of_mass(ink: UInt8[np.ndarray, "n height width"]) -> Float32[np.ndarray, "n 2"]:
    centers = [lines @ np.arange(lines.shape[1]) / lines.sum(axis=1) for lines in _projections(ink)]
    return np.stack(centers, axis=1).astype(np.float32)


def _distance(ink: UInt8[np.ndarray, "n height width"], frame: Frame) -> Float32[np.ndarray, " n"]:
    """Return each image's distance to the frame: the largest difference in size, row or column."""
    box = _box(ink)
    excess = (box[:, 1] - box[:, 0] - [frame.box_height, frame.box_width]).max(axis=1)
    position = _center_of_mass(ink) if frame.centering == "mass" else _middle(box)
    off = np.abs(position - [frame.center_row, frame.center_column]).max(axis=1)
    return np.asarray(np.maximum(np.abs(excess), off), np.float32)


def _resampling(old: int, new: int) -> Float32[np.ndarray, "new old"]:
    """Return the weight of each old pixel in each new pixel.

    The weight is proportional to the old pixel's overlap with a window around the center of the new pixel. The window
    is as wide as a new or an old pixel, whichever is wider. An enlargement is therefore a linear interpolation.
    """
    pixel = np.arange(old)
    middle = (np.arange(new)[:, None] + 0.5) * (old / new)
    half = max(old / new, 1.0) / 2
    overlap = np.minimum(pixel + 1, middle + half) - np.maximum(pixel, middle - half)
    overlap = np.maximum(overlap, 0)
    return np.asarray(overlap / overlap.sum(axis=1, keepdims=True), np.float32)
