"""Writing files so that a kill or a full disk leaves the old file or the new one, never half of one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxgd.errors import WriteError


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the final name, flush to the disk, then rename over it.

    Raises: WriteError, with nothing left behind.

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
    """Turn an OSError on the way into a WriteError that names the path.

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
    # mkstemp makes files for the owner alone; what a user asked for gets the permissions any program would give it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
