"""Check the limits of the process, and JAX's device, because the errors of the libraries are unclear."""

import errno
import os

# Required address space in bytes. On two cores, JAX alone needs 1.5 GiB and training 1.8 GiB. More cores need more.
_ADDRESSES = 2**31
# Training has up to 26 files open at a time, including the standard streams and the pieces of a checkpoint.
_FILES = 28


def require_resources() -> None:
    """Raise MemoryError or OSError if the limits of this process are too low for JAX and orbax."""
    try:
        import resource
    except ModuleNotFoundError:  # a platform without such limits
        return
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses != resource.RLIM_INFINITY and addresses < _ADDRESSES:
        raise MemoryError(
            f"the address space must be at least {_ADDRESSES / 2**30:.1f} GiB, got {addresses / 2**30:.1f} GiB. "
            "Raise the limit with ulimit -v."
        )
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < _FILES:
        raise OSError(
            errno.EMFILE, f"must be at least {_FILES}, got {files}. Raise the limit with ulimit -n.", "open files"
        )


def require_device() -> None:
    """Raise RangeError if JAX cannot start, for instance on the platform that JAX_PLATFORMS names."""
    import jax

    from jaxgd.errors import RangeError

    try:
        jax.devices()
    except Exception as error:  # for instance an AssertionError without a message
        platforms = os.environ.get("JAX_PLATFORMS", "")
        reason = str(error).partition("\n")[0][:150] or "it finds no device"
        raise RangeError(
            f"JAX cannot start with JAX_PLATFORMS={platforms!r}: {reason}.\n"
            "Name a platform of this machine, such as cpu."
        ) from error
