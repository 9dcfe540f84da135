"""NVRTC, NVIDIA's compiler for use at run time. It is called through ctypes, and needs no CUDA toolkit and no GPU."""

import ctypes
import functools
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxgd.kernels.cuda.errors import CudaError
from jaxgd.kernels.cuda.shape import Shape

FOLDER = Path(__file__).parent
SOURCE, HEADER = "descend.cu", "block.h"
ENTRY = "jaxgd_descend"
# ptxas reports the registers and the spills of the kernel.
FLAGS = ("--std=c++17", "--ptxas-options=-v")
_MAJORS = (13, 12)
_INSTALL = "pip install 'jaxgd[nvrtc]'"


class Compiled(NamedTuple):
    """A compiled kernel.

    Attributes:
        cubin: The machine code, for one architecture.
        log: The messages of the compiler.
    """

    cubin: bytes
    log: str


class Resources(NamedTuple):
    """The resources of a kernel, from the messages of the compiler.

    Attributes:
        registers: Registers per thread.
        spill_bytes: Bytes per thread that spill from registers to memory: the larger of the stores and the loads.
        static_bytes: Bytes of static shared memory per block, in addition to the dynamic bytes of the launch.
    """

    registers: int
    spill_bytes: int
    static_bytes: int


def resources(log: str) -> Resources:
    """Return the resources that the compiler reported.

    >>> resources("4 bytes spill stores, 8 bytes spill loads. Used 40 registers, 16 bytes smem")
    Resources(registers=40, spill_bytes=8, static_bytes=16)
    """
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    used = re.search(r"Used (\d+) registers", log)
    if spills is None or used is None:
        raise CudaError("NVRTC did not report the registers of the kernel")
    static = re.search(r"(\d+) bytes smem", log)
    return Resources(int(used[1]), max(map(int, spills.groups())), int(static[1]) if static else 0)


class Compiler:
    """The loaded NVRTC library.

    Args:
        path: The file of the library, or a name that the system finds.

    Attributes:
        path: The file of the library, or its name if the system found it.
        version: Major and minor version, such as (13, 0).
    """

    path: str
    version: tuple[int, int]

    def __init__(self, path: str) -> None:
        # NVRTC 13.0 opens its library of builtins by name only. Load that library first, so that NVRTC finds it.
        for builtins in sorted(Path(path).parent.glob("libnvrtc-builtins.so.*")) if os.sep in path else ():
            ctypes.CDLL(str(builtins))
        self._library = ctypes.CDLL(path)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        self.path = path
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = major.value, minor.value

    def __str__(self) -> str:
        return f"NVRTC {self.version[0]}.{self.version[1]}"

    def architectures(self) -> list[int]:
        """Return the architectures that this NVRTC compiles for, such as 90 for compute capability 9.0."""
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        known = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", known)
        return list(known)

    def architecture(self, capability: tuple[int, int]) -> str:
        """Return the name of the newest known architecture whose code runs on a device, such as "sm_90".

        A device also runs code for lower minor versions of its major version.
        """
        major, minor = capability
        known = [each for each in self.architectures() if each // 10 == major and each % 10 <= minor]
        if not known:
            raise CudaError(
                f"{self} does not know the architecture sm_{major}{minor} (update it: {_INSTALL} --upgrade)"
            )
        return f"sm_{max(known)}"

    def compile(self, shape: Shape, architecture: str, *flags: str) -> Compiled:
        """Compile the kernel.

        Args:
            shape: The constants of the kernel.
            architecture: The architecture, such as "sm_90".
            *flags: Further options, such as "--generate-line-info".

        Returns:
            The machine code and the messages.

        Raises:
            CudaError: If the compilation fails. The message gives the first error of NVRTC.
        """
        return self.compile_source(SOURCE, *sources(), options_for(shape, architecture, *flags))

    def compile_source(self, name: str, source: bytes, header: bytes, options: list[str]) -> Compiled:
        """Compile any source, which may include the header "block.h"."""
        program = ctypes.c_void_p()
        self._call(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            ctypes.c_char_p(source),
            name.encode(),
            1,
            (ctypes.c_char_p * 1)(header),
            (ctypes.c_char_p * 1)(HEADER.encode()),
        )
        try:
            words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            code = self._library.nvrtcCompileProgram(program, len(options), words)
            log = self._bytes(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog").rstrip(b"\0").decode()
            if code != 0:
                raise CudaError(f"{self} cannot compile the kernel: {_first_error(log) or self._text(code)}")
            return Compiled(self._bytes(program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN"), log)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _bytes(self, program: ctypes.c_void_p, size_of: str, content_of: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(size_of, program, ctypes.byref(size))
        content = ctypes.create_string_buffer(max(1, size.value))
        self._call(content_of, program, content)
        return content.raw[: size.value]

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise CudaError(f"NVRTC: {name} failed: {self._text(code)}")

    def _text(self, code: int) -> str:
        text: bytes = self._library.nvrtcGetErrorString(code)
        return text.decode()


def sources() -> tuple[bytes, bytes]:
    """Return the text of the kernel and the text of its header."""
    return (FOLDER / SOURCE).read_bytes(), (FOLDER / HEADER).read_bytes()


def options_for(shape: Shape, architecture: str, *flags: str) -> list[str]:
    """Return the options of the compiler."""
    defines = [f"-D{name}={value}" for name, value in shape.defines().items()]
    return [f"--gpu-architecture={architecture}", *FLAGS, *defines, *flags]


def _first_error(log: str) -> str | None:
    lines = [" ".join(line.split()) for line in log.splitlines()]
    return next((line for line in lines if re.search(r"\berror\b", line)), None)


@functools.cache
def compiler(most_major: int | None = None) -> Compiler | str:
    """Load NVRTC. If that fails, return the reason in one line.

    Try NVIDIA's wheels first, then the system's library, then the toolkits of CUDA_HOME, CUDA_PATH and /usr/local/cuda.

    Args:
        most_major: The largest major version of NVRTC whose code the driver runs, or None for any.

    Returns:
        NVRTC, or the reason why it cannot be used.
    """
    reasons = []
    for path in _candidates():
        try:
            candidate = Compiler(path)
        except (OSError, AttributeError, CudaError) as error:
            if Path(path).is_file():
                reasons.append(f"NVRTC cannot be loaded: {' '.join(str(error).split())}")
            continue
        if most_major is None or candidate.version[0] <= most_major:
            return candidate
        reasons.append(
            f"{candidate} is newer than the driver, which knows CUDA {most_major} "
            f"(run: pip install nvidia-cuda-nvrtc-cu{most_major})"
        )
    return reasons[0] if reasons else f"NVRTC, the compiler of the kernel, is not installed (run: {_INSTALL})"


def _candidates() -> Iterator[str]:
    """Yield the paths and names of libraries that may be NVRTC, in order of preference."""
    for major in _MAJORS:
        for folder in _wheel_folders():
            yield from map(str, sorted(folder.glob(f"*/lib/libnvrtc.so.{major}")))
    for major in _MAJORS:
        yield f"libnvrtc.so.{major}"
    toolkits = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    for toolkit in (*toolkits, "/usr/local/cuda"):
        yield from (str(Path(toolkit, "lib64", f"libnvrtc.so.{major}")) for major in _MAJORS)


def _wheel_folders() -> list[Path]:
    """Return the folders that hold the files of NVIDIA's wheels."""
    package = importlib.util.find_spec("nvidia")
    return [Path(folder) for folder in (package.submodule_search_locations if package else None) or ()]
