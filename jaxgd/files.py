"""Reading and writing of files.

`read_file` and `read_head` read only regular files, up to a limit of bytes. `write_atomically` replaces a file. After a
crash or on a full disk, the file holds either the complete old content or the complete new content.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxgd.errors import DtypeError, RangeError, WriteError, describe, shown

_SMALL = 2**20  # limit on the size of a JSON file, in bytes
_DIGEST = "sha256"
_LONGEST_PATH = 4096  # characters


def as_path(who: str, path: Any) -> Path:
    """Return `path` as a Path. Raise DtypeError or RangeError if it cannot be the name of a file.

    >>> as_path("example", "a/b").name
    'b'
    """
    try:
        name = Path(path)
        os.fsencode(name)
    except TypeError as error:
        raise DtypeError(
            f"{who}: path must be a str or a pathlib.Path, got {describe(path)}.\nName a file, for instance 'file'."
        ) from error
    except UnicodeEncodeError:  # The system cannot encode a character, such as a surrogate.
        name = Path("\0")
    if "\0" in str(name) or len(str(name)) > _LONGEST_PATH:
        raise RangeError(
            f"{who}: path must be a name that a file can have, got {shown(str(path))}.\n"
            f"It has at most {_LONGEST_PATH} characters, no NUL, and only characters that the system can encode."
        )
    return name


def read_file(path: str | os.PathLike[str], most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Other files are refused, because reading a pipe or a device may never end. A link to a regular file is allowed.

    Args:
        path: The file.
        most: Largest size in bytes.

    Returns:
        The bytes of the file.

    Raises:
        OSError: If the path is not a regular file, or the file is larger than `most`, grows or shrinks during the
            reading, or cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "note.txt"
        >>> write_atomically(path, b"kept")
        >>> read_file(path, 10)
        b'kept'
        >>> read_file(path, 3)
        Traceback (most recent call last):
        OSError: [Errno 27] it has 4 bytes, more than the limit of 3
    """
    with opened(path) as (handle, size):
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than the limit of {most:,}")
        # Read one byte more than stated, to detect a file that has grown, or one in /proc, whose stated size is 0.
        content = _read(handle, size + 1)
    if len(content) != size:
        held = f"{len(content):,}{' or more' * (len(content) > size)}"
        raise OSError(errno.EINVAL, f"it stated a size of {size:,} bytes and held {held}")
    return content


def read_head(path: str | os.PathLike[str], most: int) -> bytes:
    """Return the first bytes of a regular file, at most `most`. Raise OSError if `opened` does."""
    with opened(path) as (handle, _):
        return _read(handle, most)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[int, int]]:
    """Open a file, and yield its descriptor and its size. Raise OSError if it is not regular or cannot be opened."""
    # Without O_NONBLOCK, opening a pipe waits for a writer. Windows needs O_BINARY and has no O_NONBLOCK.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        about = os.fstat(handle)
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield handle, about.st_size
    finally:
        os.close(handle)


def _read(handle: int, most: int) -> bytes:
    with open(handle, "rb", closefd=False) as file:
        return file.read(most) or b""


def free_memory() -> int | None:
    """Return the bytes of memory that this process can still take, or None if the system does not say.

    The result respects the memory limits of control groups, such as those of a container or a batch job.

    >>> free_memory() is None or free_memory() > 0
    True
    """
    free = [1024 * kib for kib in _values(Path("/proc/meminfo"), "MemAvailable:")]
    for root, controller, limit, used, cached in _GROUPS:
        for folder in _group_folders(root, controller):
            for most, now in zip(_values(folder / limit), _values(folder / used), strict=False):
                # Cached files count as used, but the operating system frees them when a process needs memory.
                free.append(max(most - now + sum(_values(folder / "memory.stat", cached)), 0))
    return min(free, default=None)


# Control groups of version 2, then of version 1. Each row holds the root folder, the name of the controller in
# /proc/self/cgroup, the file with the memory limit, the file with the memory in use, and the line of memory.stat with
# the size of the cached files that can be freed.
_GROUPS = (
    (Path("/sys/fs/cgroup"), "", "memory.max", "memory.current", "inactive_file "),
    (Path("/sys/fs/cgroup/memory"), "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
)
_OWN_GROUPS = Path("/proc/self/cgroup")


def _group_folders(root: Path, controller: str) -> set[Path]:
    """Return the folders of the control groups that contain this process, from the root to its own group.

    In a container, some of these folders may not exist.
    """
    folders = {root}
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            folders.update(itertools.accumulate(Path(path.lstrip("/")).parts, Path.joinpath, initial=root))
    return folders


def _values(path: Path, name: str = "") -> list[int]:
    """Return [n] for the first line of the system file that starts with `name` and a number n, or [] if none does."""
    try:
        match = re.search(rf"^{name}\s*(\d+)", path.read_text(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return []
    return [int(match[1])] if match else []


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the content of a JSON file in UTF-8, of at most 1 MiB. Raise OSError if `read_file` does.

    Raise ValueError if the content is not JSON, repeats a name, holds NaN or Infinity, or is nested too deeply.
    """
    try:
        return json.loads(read_file(path, _SMALL).decode("utf-8"), object_pairs_hook=unique, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dict. Raise ValueError if they repeat a name."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("it repeats a name")
    return content


def _no_number(constant: str) -> float:
    raise ValueError(f"it holds {constant}")


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content with the SHA-256 of its JSON text, which detects damage.

    >>> unseal(seal({"eta": 3.0}))
    {'eta': 3.0}
    """
    return {**content, _DIGEST: hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def unseal(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content without its SHA-256. Raise ValueError if the SHA-256 does not fit the content."""
    plain = {name: value for name, value in content.items() if name != _DIGEST}
    if seal(plain) != content:
        raise ValueError("its values differ from the saved ones")
    return plain


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], None]) -> None:
    """Write `content` to a temporary file in the folder of `path`, flush it to the disk, and rename it to `path`.

    Args:
        path: The file to write, in an existing folder. An existing file is replaced.
        content: The bytes of the file, or a function that writes them to an open file.

    Raises:
        WriteError: If any of these steps fails, or `path` exists and is not a regular file. The temporary file is
            removed and an existing file stays as it was.

    Example:
        >>> import tempfile
        >>> write_atomically(Path(tempfile.mkdtemp()) / "note.txt", b"kept")
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    with writing(path):
        # Without this check, the superuser could replace a device such as /dev/null with a file.
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "not a regular file")
        try:
            with temporary.open("xb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    content(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def remove_temporaries(folder: Path, names: tuple[str, ...]) -> None:
    """Remove the temporary files of these names that killed calls of `write_atomically` left in the folder."""
    pattern = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.[0-9a-f]{{8}}\.tmp")
    for path in folder.iterdir():
        if pattern.fullmatch(path.name):
            path.unlink(missing_ok=True)


def append(path: Path, content: bytes) -> None:
    """Append `content` to an existing file. If this fails, restore the file and raise WriteError.

    The content is not flushed to the disk, so a crash of the machine can lose it.
    """
    with writing(path):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
        try:
            before = os.fstat(handle).st_size
            try:
                while content:  # os.write may write only the first bytes, for instance on a nearly full disk.
                    content = content[os.write(handle, content) :]
            except BaseException:
                os.ftruncate(handle, before)
                raise
        finally:
            os.close(handle)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a WriteError that names the path.

    >>> with writing(Path("/nowhere/at/all")):
    ...     open("/nowhere/at/all", "w")
    Traceback (most recent call last):
    jaxgd.errors.WriteError: /nowhere/at/all cannot be written: No such file or directory.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, WriteError):
            raise
        raise WriteError(f"{path} cannot be written: {error.strerror or error}.") from error
