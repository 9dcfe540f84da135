"""A picture of one handwritten digit, brought into the form of the images a network was trained on.

MNIST's makers scaled the ink's bounding box, aspect ratio kept, into 20×20 pixels and moved its center of mass to the
center of 28×28. Other sets are framed in other ways, so the form is measured from the training images.
"""

import math
import os
import warnings
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from jaxgd.errors import DataError, DtypeError, MissingDependencyError, describe

_SAMPLE = 2000  # images that frame_of looks at
_SAMPLE_PIXELS = 2**23  # fewer where images are large

# Between paper (0) and the darkest ink (1). Shadows, grain and the rings JPEG leaves around strokes stay below a third;
# pale strokes stay above it, and so does every row that counts: with it 99.9% of MNIST's digits measure 20 pixels.
_FAINT = 1 / 3
_SPECK = 0.005  # of all ink: what stands apart with less is a grain of dust, not the bar of a 5
_LEAST_CONTRAST = 16  # of 255: with less there is no ink

_MOST_PIXELS = 50_000_000
_LONGEST_SIDE = 65_535


class Frame(NamedTuple):
    """How the digits of a data set stand in their images. Whole numbers, floats and a word: JSON holds it.

    The ink's box is scaled by min(`box_height` / its height, `box_width` / its width) and moved until its center of
    mass (`centering` "mass") or its middle ("box") is nearest to (`center_row`, `center_column`).

    Units: pixels; pixel i of a row or column is at i, so that 28 pixels reach from −0.5 to 27.5.
    """

    height: int
    width: int
    box_height: int
    box_width: int
    centering: str
    center_row: float
    center_column: float
    peak: int  # the value of the darkest ink
    slack: float  # how far, in pixels, the set's own digits are from this form


def frame_of(images: UInt8[np.ndarray, "n height width"]) -> Frame:
    """Measure the form of a set of images from at most 2,000 of them, evenly spaced.

    The box has the shape of the 99th percentiles of the ink's height and width, and the size at which the median digit
    just fits. The centering is the one of the two in which the digits differ less; the center is their mean position,
    to the nearest half pixel. All but 0.5% of the digits are within `slack` of the form.

    Shapes: `images` is `(n, height, width)`, n ≥ 1.
    Range: pixels from 0 (paper) to 255 (ink).
    Raises: DtypeError unless the images are `uint8`; DataError if the shape does not serve.
    Source: Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits.

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
    sample = sample[sample.max(axis=(1, 2)) - _paper(sample) >= _LEAST_CONTRAST]
    if len(sample) == 0:  # nothing to measure: whatever has the size has the form
        middle = ((height - 1) / 2, (width - 1) / 2)
        return Frame(height, width, height, width, "box", *middle, 255, float(max(height, width)))
    ink = _ink(sample, _paper(sample))
    box = _box(ink)
    sizes = box[:, 1] - box[:, 0]
    largest = np.percentile(sizes, 99, axis=0)
    box_height, box_width = np.rint(largest * np.median((sizes / largest).max(axis=1))).astype(int)
    positions = {"mass": _center_of_mass(ink), "box": _middle(box)}
    centering = min(positions, key=lambda name: float(positions[name].var(axis=0).sum()))
    row, column = np.rint(2 * positions[centering].mean(axis=0)) / 2
    frame = Frame(
        height=height,
        width=width,
        box_height=max(1, int(box_height)),
        box_width=max(1, int(box_width)),
        centering=centering,
        center_row=float(row),
        center_column=float(column),
        peak=int(np.median(sample.max(axis=(1, 2)))),
        slack=0.5,  # whole pixels cannot do better
    )
    slack = np.percentile(_distance(ink, frame), 99.5, method="higher")
    return frame._replace(slack=max(frame.slack, math.ceil(1000 * slack) / 1000))


def read_picture(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "height width"]:
    """Read a picture as bytes, paper dark and ink bright, whatever its format, colors and polarity.

    What Pillow reads is turned upright as its EXIF data says, laid on white where it is transparent and reduced to
    gray; 16-bit values are divided by 257. The median b of its border is the paper. Ink is darker than it where
    Σ (v − b)³ over all pixels v is negative, and then every v becomes 255 − v. Of several frames the first counts.

    Shapes: the result is `(height, width)`, as large as the picture.
    Range: 0 (paper) to 255 (ink). Nothing is stretched: gray paper stays above 0 and gray ink below 255.
    Raises: DataError if the file cannot be read, is no image, is damaged, has more than 50 million pixels or 65,535 a
    side, or shows no ink; MissingDependencyError without Pillow.

    >>> import tempfile
    >>> from PIL import Image
    >>> picture = Image.new("L", (5, 3), color=255)
    >>> picture.putpixel((2, 1), 10)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     picture.save(f"{folder}/dot.png")
    ...     read_picture(f"{folder}/dot.png")
    array([[  0,   0,   0,   0,   0],
           [  0,   0, 245,   0,   0],
           [  0,   0,   0,   0,   0]], dtype=uint8)
    """
    gray = _decode(path)
    paper = int(_paper(gray[None])[0])
    deviation = np.arange(256) - paper
    if np.bincount(gray.ravel(), minlength=256) @ deviation**3 < 0:
        gray, paper = 255 - gray, 255 - paper
    contrast = int(gray.max()) - paper
    if contrast < _LEAST_CONTRAST:
        raise DataError(
            f"read_picture: {path}: expected one digit, got a blank picture: its ink differs from its border by "
            f"{contrast} of 255.\nLeave some empty paper around the digit; transparent places count as white."
        )
    return gray


def fit_to_frame(image: UInt8[np.ndarray, "rows columns"], frame: Frame) -> UInt8[np.ndarray, "height width"]:
    """Scale and move the digit in an image into the frame's form.

    An image that has the frame's size and form already is returned as it is. Otherwise the paper, the median of the
    border, becomes 0, and so does what is within a third of the way from it to the darkest ink, save next to ink: a
    stroke keeps its soft edge. The box of the ink, without specks that stand apart and hold less than 0.5%, is scaled
    by exact area (bilinearly where it grows), stretched to the frame's peak and moved by whole pixels, never over the
    edge.

    Shapes: `image` of any size; the result is `(frame.height, frame.width)`.
    Range: 0 (paper) to 255 (ink).
    Raises: DtypeError unless the image is `uint8`; DataError if the shape does not serve or there is no ink.
    Source: Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits.

    >>> image = np.zeros((9, 9), np.uint8)
    >>> image[1:5, 6:8] = 200
    >>> fit_to_frame(image, Frame(4, 4, 2, 2, "mass", 1.5, 1.5, 255, 0.5))
    array([[  0,   0,   0,   0],
           [  0,   0, 255,   0],
           [  0,   0, 255,   0],
           [  0,   0,   0,   0]], dtype=uint8)
    """
    _require_bytes("fit_to_frame", "image", image, ("height", "width"))
    paper = _paper(image[None])
    if image.max() - paper[0] < _LEAST_CONTRAST:
        raise DataError(
            f"fit_to_frame: expected an image with a digit on it, got a blank one of {image.shape[0]}×{image.shape[1]} "
            f"pixels.\nPixels are bytes, 0 paper to 255 ink, and the border is paper."
        )
    ink = _ink(image[None], paper)
    clean = paper[0] == 0 and image.max() >= frame.peak / 2
    if clean and image.shape == (frame.height, frame.width) and _distance(ink, frame)[0] <= frame.slack:
        return image
    (top, left), (bottom, right) = _box(ink)[0]
    crop = ink[0, top:bottom, left:right]
    scale = min(frame.box_height / crop.shape[0], frame.box_width / crop.shape[1])
    height, width = (max(1, round(side * scale)) for side in crop.shape)
    digit = _resampling(crop.shape[0], height) @ crop.astype(np.float32) @ _resampling(crop.shape[1], width).T
    digit = np.rint(digit * (frame.peak / digit.max())).astype(np.uint8)
    at = _center_of_mass(digit[None])[0] if frame.centering == "mass" else np.array([height - 1, width - 1]) / 2
    corner = np.floor(np.array([frame.center_row, frame.center_column]) - at + 0.5)
    top, left = np.clip(corner, 0, [frame.height - height, frame.width - width]).astype(int)
    framed = np.zeros((frame.height, frame.width), np.uint8)
    framed[top : top + height, left : left + width] = digit
    return framed


def _require_bytes(who: str, name: str, x: Any, axes: tuple[str, ...]) -> None:
    """Raise unless x is a non-empty array of bytes with these axes."""
    if getattr(x, "dtype", None) != np.uint8:
        raise DtypeError(f"{who}: {name} must be uint8, got {describe(x)}.\nPixels are bytes, 0 paper to 255 ink.")
    if x.ndim != len(axes) or x.size == 0:
        raise DataError(
            f"{who}: {name} must have the shape ({', '.join(axes)}), none of them 0, got {x.shape}.\n"
            "Images have one channel."
        )


def _paper(images: UInt8[np.ndarray, "n height width"]) -> UInt8[np.ndarray, " n"]:
    """Take the median of each image's border."""
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    return np.asarray(np.median(border, axis=1).astype(np.uint8))


def _ink(
    images: UInt8[np.ndarray, "n height width"], paper: UInt8[np.ndarray, " n"]
) -> UInt8[np.ndarray, "n height width"]:
    """Subtract each image's paper, and make 0 what is faint."""
    paper = paper[:, None, None]
    contrast = images.max(axis=(1, 2), keepdims=True) - paper
    level = paper + (_FAINT * contrast).astype(np.uint8)
    return np.where(_grown(images > level), np.maximum(images, paper) - paper, np.uint8(0))


def _grown(mask: Bool[np.ndarray, "n height width"]) -> Bool[np.ndarray, "n height width"]:
    """Add the eight neighbors of every pixel: strokes keep their soft edges."""
    tall = mask.copy()
    tall[:, 1:] |= mask[:, :-1]
    tall[:, :-1] |= mask[:, 1:]
    wide = tall.copy()
    wide[:, :, 1:] |= tall[:, :, :-1]
    wide[:, :, :-1] |= tall[:, :, 1:]
    return wide


def _projections(ink: UInt8[np.ndarray, "n height width"]) -> list[Int[np.ndarray, "n _"]]:
    """Sum the ink of every row, and of every column."""
    return [ink.sum(axis=2, dtype=np.int64), ink.sum(axis=1, dtype=np.int64)]


def _box(ink: UInt8[np.ndarray, "n height width"]) -> Int[np.ndarray, "n 2 2"]:
    """Find the first row and column of each image's ink, and those after the last: [[top, left], [bottom, right]]."""
    first, last = zip(*((_first(lines), _first(lines[:, ::-1])) for lines in _projections(ink)), strict=True)
    return np.stack([np.stack(first, axis=1), np.array(ink.shape[1:]) - np.stack(last, axis=1)], axis=1)


def _first(lines: Int[np.ndarray, "n _"]) -> Int[np.ndarray, " n"]:
    """Find the first line with ink after the last empty one that has no more than a speck before it."""
    before = lines.cumsum(axis=1)
    skipped = (lines == 0) & (before <= _SPECK * before[:, -1:])
    return np.asarray((skipped * np.arange(1, lines.shape[1] + 1)).max(axis=1))


def _middle(box: Int[np.ndarray, "n 2 2"]) -> Float32[np.ndarray, "n 2"]:
    return np.asarray((box[:, 0] + box[:, 1] - 1) / 2, np.float32)


def _center_of_mass(ink: UInt8[np.ndarray, "n height width"]) -> Float32[np.ndarray, "n 2"]:
    centers = [lines @ np.arange(lines.shape[1]) / lines.sum(axis=1) for lines in _projections(ink)]
    return np.stack(centers, axis=1).astype(np.float32)


def _distance(ink: UInt8[np.ndarray, "n height width"], frame: Frame) -> Float32[np.ndarray, " n"]:
    """How far each image is from the frame's form: the largest of the three differences in size, row and column."""
    box = _box(ink)
    excess = (box[:, 1] - box[:, 0] - [frame.box_height, frame.box_width]).max(axis=1)
    position = _center_of_mass(ink) if frame.centering == "mass" else _middle(box)
    off = np.abs(position - [frame.center_row, frame.center_column]).max(axis=1)
    return np.asarray(np.maximum(np.abs(excess), off), np.float32)


def _resampling(old: int, new: int) -> Float32[np.ndarray, "new old"]:
    """Compute the share of each old pixel in each new one: its overlap with the new one's footprint.

    A footprint is as wide as a new pixel, or as an old one where that is wider: then overlaps interpolate linearly.
    """
    pixel = np.arange(old)
    middle = (np.arange(new)[:, None] + 0.5) * (old / new)
    half = max(old / new, 1.0) / 2
    overlap = np.minimum(pixel + 1, middle + half) - np.maximum(pixel, middle - half)
    overlap = np.maximum(overlap, 0)
    return np.asarray(overlap / overlap.sum(axis=1, keepdims=True), np.float32)


def _decode(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "height width"]:
    """Read a picture's gray values as they are, 0 black to 255 white."""
    try:
        with Path(path).open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of large and odd files; what matters of them is checked
            return _decode_stream(stream, path)
    except OSError as error:
        raise DataError(
            f"read_picture: cannot read {path}: expected a picture, got: {error.strerror or error}.\n"
            "Check the path and its permissions."
        ) from error


def _decode_stream(stream: BinaryIO, path: Any) -> UInt8[np.ndarray, "height width"]:
    """Decode an open file; `path` is only for the messages."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise MissingDependencyError(
            "read_picture: reading a picture needs Pillow, which is not installed.\nRun: pip install pillow"
        ) from error
    try:
        with Image.open(stream) as picture:
            if picture.width * picture.height > _MOST_PIXELS or max(picture.size) > _LONGEST_SIDE:
                raise _too_large(path, f"{picture.width}×{picture.height}")
            whole_range = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")
            return _gray(Image, ImageOps.exif_transpose(picture), whole_range)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"read_picture: {path}: expected a picture in a format Pillow reads, got something else.\n"
            "Save the digit as PNG."
        ) from error
    except Image.DecompressionBombError as error:  # so large that Pillow itself refuses to open it
        raise _too_large(path, "far more") from error
    except Exception as error:  # a decoder raises what its parser raises: OSError, SyntaxError, struct.error, ...
        raise DataError(
            f"read_picture: {path}: expected a complete picture, got one that cannot be decoded: {error}.\n"
            "Save the digit as PNG again."
        ) from error


def _too_large(path: Any, got: str) -> DataError:
    return DataError(
        f"read_picture: {path}: expected at most {_MOST_PIXELS:,} pixels, {_LONGEST_SIDE:,} a side, got {got}.\n"
        "Scale it down: a few hundred pixels a side are enough for a digit."
    )


def _gray(pillow: Any, picture: Any, whole_range: bool) -> UInt8[np.ndarray, "height width"]:
    """Reduce a Pillow image to gray; `whole_range` says that its integers are 16-bit."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture).astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("it holds values that are not finite")
        low, high = (0, 65535) if whole_range else (values.min(), values.max())
        return np.rint((values - low) * (255 / max(high - low, np.finfo(float).tiny))).astype(np.uint8)
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = pillow.alpha_composite(pillow.new("RGBA", picture.size, "white"), picture)
    return np.array(picture.convert("RGB").convert("L"))
