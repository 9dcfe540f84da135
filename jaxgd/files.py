"""Atomic writing: after a crash or with a full disk, the path holds the complete old or the complete new content."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxgd.errors import WriteError


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file in the folder of `path`, flush it to the disk, and rename it to `path`.

    Args:
        path: The file to write, in an existing folder. An existing file is replaced.
        content: The bytes of the file.

    Raises:
        WriteError: If any of these steps fails. The temporary file is removed and an existing file stays as it was.

    Example:
        >>> write_atomically(Path(tempfile.mkdtemp()) / "note.txt", b"kept")
    """
    with writing(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


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


def _umask() -> int:
    # mkstemp gives access to the owner only, so the caller sets the permissions of an ordinary new file.
    mask = os.umask(0)
    os.umask(mask)
    return mask
