"""JAX's compilation cache for all commands. Without a cache, compilation takes half the time of a short run."""

import hashlib
import os
import platform
import warnings
from pathlib import Path
from typing import Any


def enable_compilation_cache() -> None:
    """Let JAX cache compiled programs in ~/.cache/jaxgd/programs, in one folder per kind of processor.

    JAX's cache key covers the computation, the shapes, the JAX version and the flags, but not the processor. A program
    compiled for one processor may not run on another one with the same home folder.

    The user's own JAX settings for the cache take precedence. Otherwise nothing is cached if the processor is unknown,
    the folder cannot be written or belongs to another user, or another user can write to it.
    """
    import jax

    config: Any = jax.config
    if not config.jax_enable_compilation_cache:
        return
    if config.jax_compilation_cache_dir is not None:
        _cache_quick_compilations(config)
        return
    processor = _processor_id()
    if processor is None:
        return
    try:
        folder = Path("~/.cache/jaxgd/programs").expanduser() / processor
        # The user executes the cached programs, so no other user may write to the folder.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if not os.access(folder, os.W_OK | os.X_OK) or status.st_uid != os.getuid() or status.st_mode & 0o022:
            return
    except (OSError, RuntimeError):
        return
    config.update("jax_compilation_cache_dir", str(folder))
    _cache_quick_compilations(config)
    # Hide JAX's warning of a failed write, because the results stay the same. Keep its warning of a damaged program,
    # because JAX recompiles that program on every run until the user deletes the file.
    warnings.filterwarnings("ignore", message="Error writing persistent compilation cache entry")


def _cache_quick_compilations(config: Any) -> None:
    # JAX caches only compilations over 1 s by default, so a short run caches nothing. Respect a limit set by the user.
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _processor_id() -> str | None:
    """Return a hash of the processor's model and instruction set, or None if they are unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return None
    # Leave out fields such as the clock speed, which change from moment to moment.
    fields = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")
    known = sorted(line for line in lines if line.split(":")[0].strip() in fields)
    description = "\n".join([platform.machine(), *known])
    return hashlib.sha256(description.encode()).hexdigest()[:16] if known else None
