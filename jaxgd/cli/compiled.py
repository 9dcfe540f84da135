"""Programs that one command compiled, kept on disk for the next: to compile them is half of a short run's time."""

import hashlib
import os
import platform
import warnings
from pathlib import Path
from typing import Any


def keep_programs() -> None:
    """Let JAX keep compiled programs in ~/.cache/jaxgd/programs, a folder for each kind of machine.

    A program is found again only for the same computation, shapes, JAX and flags, which JAX sees to, and on the same
    processor, which it does not: a home folder may be shared by machines that cannot run each other's programs. Where
    the user has said by JAX's own settings where programs are kept, or that none are, it stays so; where the processor
    is not known or the folder cannot be written, none are kept.
    """
    import jax

    config: Any = jax.config
    if not config.jax_enable_compilation_cache:
        return
    if config.jax_compilation_cache_dir is not None:
        _keep_small_ones(config)
        return
    machine = _machine()
    if machine is None:
        return
    folder = Path("~/.cache/jaxgd/programs").expanduser() / machine
    try:
        # They are run: nobody else must be able to put any there.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if not os.access(folder, os.W_OK | os.X_OK) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            return
    except (OSError, RuntimeError):
        return
    config.update("jax_compilation_cache_dir", str(folder))
    _keep_small_ones(config)
    # Of a damaged program, which is compiled anew each time until it is deleted, JAX warns. That a full disk keeps none
    # is nothing that one would have to hear of.
    warnings.filterwarnings("ignore", message="Error writing persistent compilation cache entry")


def _keep_small_ones(config: Any) -> None:
    # By itself JAX keeps what took a second to compile, which of a short run is nothing. Another limit is the user's.
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _machine() -> str | None:
    """A name for this kind of processor, all that it can do included; None where that is not known."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return None
    # Not what changes from moment to moment, such as its speed.
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")
    known = sorted(line for line in lines if line.split(":")[0].strip() in wanted)
    about = "\n".join([platform.machine(), *known])
    return hashlib.sha256(about.encode()).hexdigest()[:16] if known else None
