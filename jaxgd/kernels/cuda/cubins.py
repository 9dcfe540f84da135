"""Compiled kernels (cubins), kept on disk between processes.

The folder is $XDG_CACHE_HOME/jaxgd/kernels, by default ~/.cache/jaxgd/kernels. A file's name is a hash of everything
that decides its content. A new compilation replaces a file that is damaged or holds another kernel. Without a usable
folder, each process compiles its kernels again, which takes about one second per kernel.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from jaxgd.files import read_file, remove_temporaries, write_atomically
from jaxgd.kernels.cuda.nvrtc import Compiled, Compiler, options_for, sources
from jaxgd.kernels.cuda.shape import Shape

_LARGEST = 2**24  # bytes; a larger file cannot be a kernel
_DIGEST = hashlib.sha256().digest_size


class Cubin(NamedTuple):
    """A compiled kernel and its name.

    Attributes:
        name: A hash of the sources, the options, the architecture and the version of NVRTC.
        compiled: The machine code and the messages of the compiler.
    """

    name: str
    compiled: Compiled


def cubin(compiler: Compiler, shape: Shape, capability: tuple[int, int], *flags: str) -> Cubin:
    """Return the kernel for a shape and a device, from the disk or from the compiler.

    Args:
        compiler: NVRTC.
        shape: The constants of the kernel.
        capability: The compute capability of the device, such as (9, 0).
        *flags: Further options of the compiler, such as "--generate-line-info".

    Returns:
        The kernel.

    Raises:
        CudaError: If NVRTC cannot compile the kernel for this device.
    """
    architecture = compiler.architecture(capability)
    name = name_of(compiler, shape, architecture, *flags)
    folder = usable_folder()
    path = folder / f"{name}.cubin" if folder else None
    compiled = _read(path, name) if path else None
    if compiled is None:
        compiled = compiler.compile(shape, architecture, *flags)
        if path:
            _write(path, name, compiled)
    return Cubin(name, compiled)


def name_of(compiler: Compiler, shape: Shape, architecture: str, *flags: str) -> str:
    """Return the name of a kernel: a hash of everything that decides its machine code."""
    parts = (*sources(), *options_for(shape, architecture, *flags), str(compiler))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def usable_folder() -> Path | None:
    """Return the folder of the kernels, and create it if necessary.

    Return None if the folder has no absolute path, if it cannot be created, or if another user could write to it. jaxgd
    runs the kernels of this folder, so a file from another user would run as code of this user.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        # The XDG specification says to ignore a relative path.
        folder = (cache if cache.is_absolute() else Path("~/.cache").expanduser()) / "jaxgd" / "kernels"
        if not folder.is_absolute():  # HOME is relative, and the folder would be in the working directory
            return None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except (OSError, RuntimeError):
        return None
    owned = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return folder if owned and not status.st_mode & 0o022 else None


def _read(path: Path, name: str) -> Compiled | None:
    try:
        content = read_file(path, _LARGEST)
    except OSError:
        return None
    digest, body = content[:_DIGEST], content[_DIGEST:]
    if digest != hashlib.sha256(body).digest():
        return None
    try:
        held, log, code = body.split(b"\0", 2)
        # A renamed file is intact, but holds another kernel.
        return Compiled(code, log.decode()) if held == name.encode() else None
    except ValueError:  # an intact file in another format
        return None


def _write(path: Path, name: str, compiled: Compiled) -> None:
    body = b"\0".join((name.encode(), compiled.log.encode(), compiled.cubin))
    try:
        remove_temporaries(path.parent, (path.name,))
        write_atomically(path, hashlib.sha256(body).digest() + body)
    except OSError:
        pass  # This process keeps its kernel, and the next process compiles again.
