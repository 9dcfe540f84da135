"""Decode a picture of any format that Pillow itself decodes, within limits of time and memory."""

import io
import os
import re
import warnings
from pathlib import Path

from jaxgd.data.image.channels import PillowImage, gray_of
from jaxgd.data.image.frame import LEAST_CONTRAST, border_median
from jaxgd.data.image.paper import Gray, Picture, separate
from jaxgd.errors import DataError, MissingDependencyError
from jaxgd.files import as_path, read_file

# Limits on a picture. Within them, reading takes less than 10 s and 1 GiB.
_MOST_BYTES = 2**28
_MOST_PIXELS = 50_000_000
_LONGEST_SIDE = 65_535
# Limit on the pixels, and on the bytes, of a picture that Pillow decodes in Python. Python takes about 1 µs per pixel
# or byte, compiled code about 10 ns.
_MOST_SLOW = 2_000_000
# Limit on pixels times scans of a JPEG file. Every scan visits all pixels, and programs write up to 10 scans.
_MOST_VISITS = 20 * _MOST_PIXELS
# A JPEG marker that starts a segment of stated length, or ends the picture. Other markers may occur in compressed data.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
# Formats that Pillow gives to another program (PostScript can run any command and read any file) or cannot read itself.
_FOREIGN = {"EPS", "WMF", "EMF", "BUFR", "GRIB", "HDF5", "MPEG"}


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Read a picture with dark or light ink of any color, and separate the ink from the paper.

    The format is any that Pillow itself decodes. The picture is turned upright by its EXIF data, and reduced to one
    channel. If the alpha channel holds the shape, it is used. Otherwise the color channel with the strongest ink is
    used if this ink is at least twice as strong as in the gray level. Otherwise the gray level on white is used. Only
    the first frame of an animation is read. `separate` describes how the ink is found.

    Args:
        path: Path of the picture.

    Returns:
        The picture with its ink, (height, width), from 0 (paper) to 255 (ink). The values of Pillow's modes F and I
        are stretched to the range 0 to 255, except those of PNG images of mode I.

    Raises:
        DataError: If the file cannot be read, is damaged, is not a picture or shows no ink. Also if it needs another
            program, as PostScript does. Also if it has more than 256 MiB, 50 million pixels or 65,535 pixels per side.
            In a format that Pillow decodes in Python, the limits are 2 million pixels and 2 million bytes. For a JPEG
            file, the limit on pixels times scans is 10⁹.
        DtypeError: If the path is not a str or a Path.
        RangeError: If no file can have this path.
        MissingDependencyError: If Pillow is not installed.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> picture = Image.new("L", (5, 3), color=255)
        >>> picture.putpixel((2, 1), 10)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     picture.save(f"{folder}/dot.png")
        ...     read_picture(f"{folder}/dot.png").ink
        array([[  0,   0,   0,   0,   0],
               [  0,   0, 245,   0,   0],
               [  0,   0,   0,   0,   0]], dtype=uint8)
    """
    picture = separate(decode(path))
    contrast = int(picture.ink.max()) - int(border_median(picture.ink[None])[0])
    if contrast < LEAST_CONTRAST:
        raise DataError(
            f"read_picture: {path}: expected a digit, got a blank picture: its ink differs from its border by "
            f"{max(0, contrast)} of 255.\nLeave empty paper around the digit. Transparent pixels count as white."
        )
    return picture


def decode(path: str | os.PathLike[str]) -> Gray:
    """Read the gray values of a picture, from 0 (black) to 255 (white)."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise MissingDependencyError(
            "read_picture: expected Pillow to be installed, got no module PIL.\nRun: pip install pillow"
        ) from error
    path = as_path("read_picture", path)
    try:
        content = read_file(path, _MOST_BYTES)
    except OSError as error:
        raise DataError(
            f"read_picture: cannot read {path}: expected a picture, got: {error.strerror or error}.\n"
            "Check the path and its permissions."
        ) from error
    try:
        with warnings.catch_warnings():
            # Pillow warns about large and unusual files. The checks below raise an error for files that cannot be used.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as picture:
                _require_readable(picture, content, path)
                picture.load()
                _require_readable(picture, content, path)  # only load() finds the size of the picture in an icon
                ImageOps.exif_transpose(picture, in_place=True)
                return gray_of(picture)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"read_picture: {path}: expected a picture in a format that Pillow reads, got another file.\n"
            "Convert the picture to PNG."
        ) from error
    except Image.DecompressionBombError as error:  # Pillow refuses to open a picture of this size
        raise _too_large(path, "far more") from error
    except Exception as error:  # decoders raise many types: OSError, SyntaxError, struct.error, MemoryError, ...
        raise DataError(
            f"read_picture: {path}: expected a complete picture, got one that cannot be decoded: "
            f"{error or type(error).__name__}.\nExport the picture to PNG again."
        ) from error


def _require_readable(picture: PillowImage, content: bytes, path: Path) -> None:
    """Raise DataError unless Pillow itself decodes the picture in bounded time and memory."""
    from PIL import Image

    if picture.format in _FOREIGN:
        raise DataError(
            f"read_picture: {path}: expected a format that Pillow decodes itself, got {picture.format}.\n"
            "Convert the picture to PNG."
        )
    pixels, size = picture.width * picture.height, f"{picture.width}×{picture.height}"
    if pixels > _MOST_PIXELS or max(picture.size) > _LONGEST_SIDE:
        raise _too_large(path, size)
    slow = any(tile[0] in Image.DECODERS for tile in getattr(picture, "tile", ()))
    if slow and max(pixels, len(content)) > _MOST_SLOW:
        raise DataError(
            f"read_picture: {path}: expected at most {_MOST_SLOW:,} pixels and as many bytes of a {picture.format} "
            f"file, which is slow to decode, got {size} in {len(content):,} bytes.\nConvert the picture to PNG."
        )
    scans = _scans(content) if picture.format in ("JPEG", "MPO") else 1
    if pixels * scans > _MOST_VISITS:
        raise DataError(
            f"read_picture: {path}: expected at most {_MOST_VISITS // pixels:,} scans of {size} pixels in a JPEG file, "
            f"got {scans:,}.\n"
            "Export the picture to PNG."
        )


def _scans(content: bytes) -> int:
    """Return the number of scans of the first picture in a JPEG file. Other pictures or a video may follow it."""
    count, at = 0, 2
    while (marker := _MARKER.search(content, at)) and (kind := marker[0][1]) != 0xD9:  # the end of the picture
        at = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2], "big")
        count += kind == 0xDA
    return count


def _too_large(path: Path, got: str) -> DataError:
    return DataError(
        f"read_picture: {path}: expected at most {_MOST_PIXELS:,} pixels and {_LONGEST_SIDE:,} per side, got {got}.\n"
        "Scale it down: a few hundred pixels per side are enough for a digit."
    )
