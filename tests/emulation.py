"""The CUDA kernel on a CPU: compile descend.cu against the emulation of a block, and call it."""

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax
import numpy as np

from jaxgd.kernels import backend as backends
from jaxgd.kernels import cuda, native
from jaxgd.kernels.cuda import backend
from jaxgd.kernels.protocol import Job

KERNEL = Path(cuda.__file__).parent
EMULATION = Path(__file__).parent / "kernels/emulation"
FLAGS = ("-std=gnu++17", "-O2", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")

# The emulation switches between the stacks of threads in x86-64 assembly.
why_missing = (
    None if shutil.which("g++") and platform.machine() == "x86_64" else "the emulation needs GCC on an x86-64 processor"
)


# A folder for object files, the libraries of `library_of`, and the handler.
_objects = tempfile.TemporaryDirectory()


@functools.cache
def object_of(source, *flags):
    """Compile a source of the emulation with these flags, once per process, and return the path of the object."""
    path = Path(_objects.name) / f"{source}-{len(os.listdir(_objects.name))}.o"
    run("g++", *FLAGS, *flags, "-I", EMULATION, "-c", EMULATION / f"{source}.cc", "-o", path)
    return path


def compiled(folder, shape, *flags, kernel=KERNEL, main=False, block_flags=None):
    """Compile the kernel for a shape into a library, or with `main` into a program, and return its path.

    `flags` are the compiler's flags for the kernel, and `block_flags` those for block.cc. By default both are the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    defines = [f"-D{name}={value}" for name, value in shape.defines().items()]
    # The emulation's folder comes first, so that its block.h replaces the GPU's.
    include = ["-I", EMULATION, "-I", kernel]
    emulate = folder / "emulate.o"
    run("g++", *FLAGS, *flags, *defines, *include, "-c", EMULATION / "emulate.cc", "-o", emulate)
    objects = [emulate, object_of("block", *(flags if block_flags is None else block_flags))]
    if main:
        objects.append(object_of("main", *flags, *defines))
    out = folder / ("main" if main else "emulated.so")
    run("g++", *flags, *([] if main else ["-shared"]), *objects, "-o", out)
    return out


@functools.cache
def library_of(shape):
    """Compile the kernel for a shape once per process, and return the path of its library."""
    return compiled(Path(_objects.name) / "-".join(map(str, shape)), shape)


def run(*words):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def emulate(library, shape, network, x, y, orders, etas, batch_size=None, seed=0, truncate=False):
    """Train networks for one epoch. Return their weights and biases, and 1 for each network with a finite result.

    `network` is w1, b1, w2 and b2. These arrays, `orders` and `etas` have a leading axis of networks. block.h explains
    `seed` and `truncate`.
    """
    images = aligned(x.shape[0], shape.row_bytes)
    images[:, : x.shape[1]] = x
    network = [np.array(v, np.float32, order="C") for v in network]
    orders, etas = np.ascontiguousarray(orders, np.int32), np.ascontiguousarray(etas, np.float32)
    finite = np.full(len(etas), -1, np.int32)
    labels, targets = (np.ascontiguousarray(y, np.int32), None) if y.ndim == 1 else (None, np.float32(y))
    pointers = [None if a is None else a.ctypes.data_as(ctypes.c_void_p) for a in (
        images, labels, targets, orders, etas, *network, finite
    )]  # fmt: skip
    ctypes.CDLL(str(library)).jaxgd_emulate(
        *pointers, len(x), batch_size or shape.batch_size, len(etas), seed, int(truncate)
    )
    return network, finite


def aligned(rows, row_bytes):
    """Return an array of zero bytes whose address is a multiple of 16, as on a device."""
    memory = np.zeros(rows * row_bytes + 16, np.uint8)
    start = -memory.ctypes.data % 16
    return memory[start : start + rows * row_bytes].reshape(rows, row_bytes)


@functools.cache
def handler():
    """Compile the handler that runs the emulation for JAX on the CPU, register it, and return its library."""
    path = Path(_objects.name) / "handler.so"
    include = ["-I", native.LIBRARY.parent / "src", "-isystem", jax.ffi.include_dir()]
    run("g++", *FLAGS, "-shared", *include, EMULATION / "handler.cc", "-o", path)
    library = ctypes.CDLL(str(path))
    capsule = jax.ffi.pycapsule(library.jaxgd_emulated_epoch)
    jax.ffi.register_ffi_target(backend.TARGET, capsule, platform="cpu")
    return library


@functools.cache
def emulated_name(shape):
    """Compile the kernel for a shape, register it with the handler, and return its name."""
    name = "-".join(map(str, shape))
    library = ctypes.CDLL(str(library_of(shape)))
    sizes = (*shape[:4], shape.threads, shape.shared_bytes)
    handler().jaxgd_emulated_register(name.encode(), library.jaxgd_emulate, *map(ctypes.c_int64, sizes))
    return name


def emulate_backend(patch):
    """Make the backend "cuda" run on the CPU through the emulation, until the patch is undone."""
    patch.setattr(backend, "name_of", emulated_name)
    patch.setattr(type(backend.BACKEND), "_why_not_on", lambda self, job, shape: None)
    patch.setattr(type(backend.BACKEND), "about", lambda self: "emulated")
    patch.setitem(backends.LOWERED, "gpu", "cpu")
    patch.setattr(Job, "places", lambda self: {"gpu"})
    patch.setattr(Job, "is_on", lambda self, platform: platform == "gpu")
