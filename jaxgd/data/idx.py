"""The IDX format of MNIST's files: a short header with the shape, then the values row by row.

The header is two zero bytes, one byte for the type of the values (8: unsigned bytes), one byte for the number of
dimensions, and each dimension as four bytes in big-endian order.
"""

import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from jaxgd.errors import DataError, DtypeError, RangeError, describe
from jaxgd.files import as_path, read_file, read_head, write_atomically

_UNSIGNED_BYTE = 0x08
_OTHER_TYPES = {0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
_TYPES = {_UNSIGNED_BYTE, *_OTHER_TYPES}
_MOST_DIMENSIONS = 64  # NumPy's limit
_GZIP = b"\x1f\x8b"
# The first bytes of other kinds of file, with the kind and the remedy.
_OTHERS = {
    _GZIP: ("a file that was gzipped twice", "Unpack it once."),
    b"PK\x03\x04": ("a ZIP archive", "Unpack it."),
    b"<": ("a web page", "Download the file itself."),
    b"version https://git-lfs": ("a pointer of Git LFS", "Run git lfs pull in its repository."),
}
_LIMIT = 2**32  # bytes: gzipped files above this size, and unpacked data of at least this size, are refused
_HEAD = 2**16  # bytes that `is_idx` reads, because a gzip header can hold a long name


def read_idx(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "*shape"]:
    """Read the array in an IDX file of unsigned bytes, gzipped or not.

    The first bytes of the file show if it is gzipped; the name of the file does not matter. The whole file is checked
    before the array is returned.

    Args:
        path: Path of the file.

    Returns:
        A read-only view of the bytes read, `uint8`, in the shape that the header states.

    Raises:
        DataError: If the file cannot be read, is damaged, truncated or too long, or holds another type of value. Also
            if it has 4 GiB or more unpacked, or more than 4 GiB gzipped. Pipes and devices cannot be read.
        DtypeError: If the path is not a str or a Path.
        RangeError: If no file can have this path.

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits, "the IDX file format".

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_idx(f"{folder}/labels-idx1-ubyte.gz", np.array([5, 0, 4], np.uint8))
        ...     read_idx(f"{folder}/labels-idx1-ubyte.gz")
        array([5, 0, 4], dtype=uint8)
    """
    return parse_idx(read_bytes(path), path)


def write_idx(path: str | os.PathLike[str], array: UInt8[np.ndarray, "*shape"]) -> None:
    """Write an array of unsigned bytes as an IDX file, gzipped if the name ends in `.gz`.

    Equal arrays give equal files, byte for byte. The file appears under its name only when it is complete.

    Args:
        path: Path of the file to write.
        array: Array of dtype `uint8`, of any rank.

    Raises:
        DtypeError: If the array is not `uint8`, or the path is not a str or a Path.
        RangeError: If a dimension is 2³² or more, which the header cannot hold, or if no file can have this path.
        WriteError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_idx(f"{folder}/one", np.array([[7]], np.uint8))
        ...     Path(f"{folder}/one").read_bytes().hex(" ")
        '00 00 08 02 00 00 00 01 00 00 00 01 07'
    """
    if getattr(array, "dtype", None) != np.uint8:
        raise DtypeError(
            f"write_idx: the array must be uint8, got {describe(array)}.\n"
            "Convert pixels in [0, 1] with np.rint(255 * x).astype(np.uint8)."
        )
    if max(array.shape, default=0) >= 2**32:
        raise RangeError(f"write_idx: every dimension must be below 2**32, got {array.shape}.\nSplit the array.")
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, _UNSIGNED_BYTE, array.ndim, *array.shape) + array.tobytes()
    path = as_path("write_idx", path)
    if path.suffix == ".gz":
        packed = io.BytesIO()
        # Leave the name and the time out of the gzip header, so that equal arrays give equal files.
        with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as stream:
            stream.write(content)
        content = packed.getvalue()
    write_atomically(path, content)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file's raw content, or raise DataError if that fails."""
    path = as_path("read_idx", path)
    try:
        return read_file(path, _LIMIT)
    except OSError as error:
        raise DataError(
            f"read_idx: cannot read {path}: expected an IDX file, got: {error.strerror or error}.\n"
            "Check the path and its permissions."
        ) from error


def is_idx(path: str | os.PathLike[str]) -> bool:
    """Return True if the file starts like an IDX file, gzipped or not.

    The name of the file does not matter. Return False for a file that cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_idx(f"{folder}/seven.png", np.zeros((2, 2), np.uint8))
    ...     is_idx(f"{folder}/seven.png"), is_idx(folder)
    (True, False)
    """
    try:
        head = read_head(as_path("is_idx", path), _HEAD)
        if is_gzip(head):
            head = zlib.decompressobj(wbits=31).decompress(head, 4)
    except (OSError, zlib.error):
        return False
    # A TGA picture may start with 00 00, a code in _OTHER_TYPES, and 00. So require a dimension after such a code.
    return len(head) >= 4 and head[:2] == b"\0\0" and head[2] in _TYPES and (head[2] == _UNSIGNED_BYTE or head[3] > 0)


def is_gzip(content: bytes) -> bool:
    """Return True if the content starts like a gzip file."""
    return content.startswith(_GZIP)


def parse_idx(content: bytes, path: str | os.PathLike[str]) -> UInt8[np.ndarray, "*shape"]:
    """Return the array in the content of an IDX file. Error messages name `path`."""
    unpack: Callable[[bytes, int], bytes | bytearray] = _gunzip if is_gzip(content) else _first_bytes
    try:
        shape = _shape(unpack(content, 4 + 4 * _MOST_DIMENSIONS), path)
        start, payload = 4 + 4 * len(shape), math.prod(shape)
        # Unpack at most one byte more than declared. The extra byte detects trailing data.
        data = unpack(content, min(start + payload + 1, _LIMIT))
    except (EOFError, zlib.error) as error:
        raise _damaged(path, "a complete gzip file", f"a damaged one ({error})") from error
    size = len(data) - start
    if len(data) == _LIMIT:
        raise _damaged(
            path, f"fewer than {_LIMIT:,} bytes", f"at least as many for the shape {shape}", "Split the array."
        )
    if size < payload:
        raise _damaged(path, f"{payload} bytes for the shape {shape} of its header", f"{size} bytes: it is truncated")
    if size > payload:
        raise _damaged(path, f"{payload} bytes for the shape {shape} of its header", "more: trailing bytes follow")
    try:
        array = np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    except ValueError as error:  # an empty array: the product of its non-zero dimensions overflows
        raise _damaged(path, "a shape that an array can have", f"{shape}") from error
    array.flags.writeable = False
    return array


def _shape(header: bytes | bytearray, path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Return the shape that the header declares."""
    for beginning, (other, remedy) in _OTHERS.items():
        if header.startswith(beginning):
            raise _damaged(path, "an IDX header, which begins 00 00 08", other, remedy)
    if len(header) < 4 or header[:2] != b"\0\0":
        raise _damaged(path, "an IDX header, which begins 00 00 08", f"the bytes '{header[:4].hex(' ')}'")
    kind, dimensions = header[2], header[3]
    if kind != _UNSIGNED_BYTE:
        values = _OTHER_TYPES.get(kind, "values of an unknown type")
        raise _damaged(path, "unsigned bytes (type 08)", f"{values} (type {kind:02x})", "Convert it to unsigned bytes.")
    if dimensions > _MOST_DIMENSIONS:
        raise _damaged(path, f"at most {_MOST_DIMENSIONS} dimensions", f"{dimensions}")
    if len(header) < 4 + 4 * dimensions:
        raise _damaged(path, f"a header with {dimensions} dimensions", "a truncated one")
    return struct.unpack_from(f">{dimensions}I", header, 4)


def _first_bytes(content: bytes, most: int) -> bytes:
    return content[:most]


def _gunzip(content: bytes, most: int) -> bytearray:
    """Unpack all members of a gzip file, up to `most` bytes in total.

    Further data are dropped, and their checksums are not verified.
    """
    data, rest = bytearray(), memoryview(content)
    while rest and len(data) < most:
        member, size = zlib.decompressobj(wbits=31), 2**10
        # At the end of a member, zlib copies the rest of the piece. Short first pieces keep the total time linear.
        while rest and not member.eof and len(data) < most:
            piece = rest[:size]
            data += member.decompress(piece, most - len(data))
            rest = rest[len(piece) - len(member.unused_data) - len(member.unconsumed_tail) :]
            size = min(2 * size, 2**20)
        if not member.eof and len(data) < most:
            raise EOFError("it ends early")
        if member.eof and rest and rest[0] == 0:  # zeros may pad a gzip file
            if content.count(0, len(content) - len(rest)) < len(rest):
                raise EOFError("other bytes follow its padding")
            break
    return data


def _damaged(
    path: str | os.PathLike[str], expected: str, got: str, remedy: str = "Download or write the file again."
) -> DataError:
    return DataError(f"read_idx: {path}: expected {expected}, got {got}.\n{remedy}")
