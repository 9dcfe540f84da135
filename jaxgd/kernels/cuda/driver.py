"""The CUDA driver, called through ctypes: devices, loaded kernels, and launches without JAX."""

import contextlib
import ctypes
import functools
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.typing import DTypeLike
from numpy.typing import NDArray

from jaxgd.kernels.cuda.errors import CudaError
from jaxgd.kernels.cuda.nvrtc import ENTRY
from jaxgd.kernels.cuda.shape import Shape

LIBRARY = "libcuda.so.1"
# The kernel copies images by cp.async.bulk, which needs this compute capability.
LEAST_CAPABILITY = (9, 0)
# Constants of cuda.h.
_NAME_BYTES = 256
_MULTIPROCESSORS, _MAJOR, _MINOR, _SHARED_BYTES = 16, 75, 76, 97  # attributes of a device
_MAX_DYNAMIC_SHARED_BYTES = 8  # attribute of a kernel


class Device(NamedTuple):
    """A CUDA device.

    Attributes:
        ordinal: Its number among the visible devices.
        name: Its name.
        capability: Its compute capability, such as (9, 0).
        multiprocessors: The number of its multiprocessors.
        shared_bytes: Bytes of shared memory that a block may use, at most.
        driver: The newest version of CUDA that the driver supports, such as (13, 0).
    """

    ordinal: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared_bytes: int
    driver: tuple[int, int]

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name}, compute capability {major}.{minor}, driver for CUDA {self.driver[0]}.{self.driver[1]}"


class Driver:
    """The loaded driver. A call that fails raises CudaError with the driver's message."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise CudaError(f"the CUDA driver cannot be loaded: {' '.join(str(error).split())}") from error
        self("cuInit", 0)
        version = ctypes.c_int()
        self("cuDriverGetVersion", ctypes.byref(version))
        self.version = version.value // 1000, version.value % 1000 // 10

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver."""
        code = self._function(name)(*arguments)
        if code != 0:
            raise CudaError(f"the CUDA driver reports: {self._text(code)} ({name}, error {code})")

    def has(self, name: str) -> bool:
        """Return True if the driver has a function."""
        return hasattr(self._library, name)

    def _function(self, name: str) -> Callable[..., int]:
        try:
            function: Callable[..., int] = getattr(self._library, name)
        except AttributeError as error:
            raise CudaError(f"the kernel needs a driver for CUDA 12.0 or later; this driver has no {name}") from error
        return function

    def _text(self, code: int) -> str:
        text = ctypes.c_char_p()
        known = self._function("cuGetErrorString")(code, ctypes.byref(text)) == 0 and text.value is not None
        return text.value.decode() if known and text.value else "an error that it cannot name"

    def device(self, ordinal: int) -> Device:
        """Return a device by its number."""
        count = ctypes.c_int()
        self("cuDeviceGetCount", ctypes.byref(count))
        if not 0 <= ordinal < count.value:
            raise CudaError(f"the CUDA driver sees {count.value} devices, and device {ordinal} was asked for")
        handle = self._handle(ordinal)
        name = ctypes.create_string_buffer(_NAME_BYTES)
        self("cuDeviceGetName", name, _NAME_BYTES, handle)

        def attribute(number: int) -> int:
            value = ctypes.c_int()
            self("cuDeviceGetAttribute", ctypes.byref(value), number, handle)
            return value.value

        capability = attribute(_MAJOR), attribute(_MINOR)
        text = name.value.decode(errors="replace")
        return Device(ordinal, text, capability, attribute(_MULTIPROCESSORS), attribute(_SHARED_BYTES), self.version)

    def load(self, cubin: bytes, entry: str = ENTRY) -> int:
        """Return the CUkernel of a cubin. It is valid on every device of the cubin's architecture."""
        library, kernel = ctypes.c_void_p(), ctypes.c_void_p()
        # The driver copies the code. It needs no context for this.
        self("cuLibraryLoadData", ctypes.byref(library), ctypes.c_char_p(cubin), None, None, 0, None, None, 0)
        self("cuLibraryGetKernel", ctypes.byref(kernel), library, entry.encode())
        return kernel.value or 0

    def enable(self, kernel: int, shared_bytes: int, ordinal: int) -> None:
        """Prepare a kernel for launches on a device. Each block may use `shared_bytes` of dynamic shared memory.

        This method loads the code. Otherwise the driver would load it at the first launch, and that can fail while XLA
        captures a CUDA graph.
        """
        handle, function = ctypes.c_void_p(kernel), ctypes.c_void_p()
        self("cuKernelSetAttribute", _MAX_DYNAMIC_SHARED_BYTES, shared_bytes, handle, self._handle(ordinal))
        self.push_context(ordinal)
        try:
            self("cuKernelGetFunction", ctypes.byref(function), handle)
            if self.has("cuFuncLoad"):  # since CUDA 12.4
                self("cuFuncLoad", function)
        finally:
            self.pop_context()

    def push_context(self, ordinal: int) -> None:
        """Make the device's primary context current in this thread. JAX uses the same context."""
        context = ctypes.c_void_p()
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._handle(ordinal))
        self("cuCtxPushCurrent_v2", context)

    def pop_context(self) -> None:
        """Undo `push_context`. The context is not released, because a release could reset it while JAX uses it."""
        self("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _handle(self, ordinal: int) -> ctypes.c_int:
        handle = ctypes.c_int()
        self("cuDeviceGet", ctypes.byref(handle), ordinal)
        return handle


@functools.cache
def driver() -> Driver | str:
    """Load the driver. If that fails, return the reason in one line."""
    try:
        return Driver()
    except CudaError as error:
        return str(error)


@functools.cache
def device(ordinal: int = 0) -> Device | str:
    """Return a device, or in one line the reason why no kernel can run on it."""
    loaded = driver()
    if isinstance(loaded, str):
        return loaded
    try:
        device = loaded.device(ordinal)
    except CudaError as error:
        return str(error)
    if device.capability < LEAST_CAPABILITY:
        return "the kernel needs compute capability {}.{}, and {} has {}.{}".format(
            *LEAST_CAPABILITY, device.name, *device.capability
        )
    return device


def why_unsuitable(device: Device, shape: Shape) -> str | None:
    """Return the reason why a block for networks of this shape does not fit on a device, or None if it fits."""
    if shape.shared_bytes <= device.shared_bytes:
        return None
    return (
        f"the kernel needs {shape.shared_bytes:,} bytes of shared memory for this shape, "
        f"and {device.name} has {device.shared_bytes:,}"
    )


class Memory:
    """Memory on a device. The end of the context frees it, if `free` has not done so.

    Args:
        context: The context of the device.
        size: The number of bytes.

    Attributes:
        address: The address on the device.
        size: The number of bytes.
    """

    address: int
    size: int

    def __init__(self, context: "Context", size: int) -> None:
        address = ctypes.c_uint64()
        context.driver("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        self._context, self.address, self.size = context, address.value, size

    def write(self, array: NDArray[Any]) -> None:
        """Copy an array of `size` bytes to the device."""
        content = np.ascontiguousarray(array)
        self._require(content.nbytes)
        self._context.driver(
            "cuMemcpyHtoD_v2", *self._pointer(), content.ctypes.data_as(ctypes.c_void_p), self._bytes()
        )

    def read(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Wait for earlier launches, and return the content as an array."""
        content = np.empty(shape, dtype)
        self._require(content.nbytes)
        self._context.driver(
            "cuMemcpyDtoH_v2", content.ctypes.data_as(ctypes.c_void_p), *self._pointer(), self._bytes()
        )
        return content

    def fill(self, byte: int) -> None:
        """Set every byte of the memory to `byte`."""
        self._context.driver("cuMemsetD8_v2", *self._pointer(), ctypes.c_ubyte(byte), self._bytes())

    def free(self) -> None:
        """Free the memory. A second call does nothing."""
        if self.address:
            self._context.driver("cuMemFree_v2", *self._pointer())
            self.address = 0

    def _pointer(self) -> tuple[ctypes.c_uint64]:
        return (ctypes.c_uint64(self.address),)

    def _bytes(self) -> ctypes.c_size_t:
        return ctypes.c_size_t(self.size)

    def _require(self, size: int) -> None:
        if size != self.size:
            raise CudaError(f"expected an array of {self.size} bytes, the size on the device, got {size} bytes")


class Context:
    """A device's primary context, for scripts that check and time a kernel without JAX.

    Every launch goes to the default stream, in order.

    Args:
        ordinal: The number of the device. Default 0.

    Attributes:
        driver: The driver.
        device: The device.
    """

    driver: Driver
    device: Device

    def __init__(self, ordinal: int = 0) -> None:
        loaded_driver, device_ = driver(), device(ordinal)
        if isinstance(loaded_driver, str) or isinstance(device_, str):
            raise CudaError(device_ if isinstance(device_, str) else str(loaded_driver))
        self.driver, self.device = loaded_driver, device_
        self._allocated: list[Memory] = []

    def __enter__(self) -> "Context":
        self.driver.push_context(self.device.ordinal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        # After an error on the device, every later call fails too. Suppress the later errors to raise the first one.
        with contextlib.suppress(CudaError) if error else contextlib.nullcontext():
            try:
                for memory in self._allocated:
                    memory.free()
            finally:
                self.driver.pop_context()

    def load(self, cubin: bytes, shared_bytes: int, entry: str = ENTRY) -> int:
        """Load a kernel. Each block of its launches may use `shared_bytes` of dynamic shared memory."""
        kernel = self.driver.load(cubin, entry)
        self.driver.enable(kernel, shared_bytes, self.device.ordinal)
        return kernel

    def empty(self, size: int) -> Memory:
        """Allocate memory of `size` bytes on the device."""
        self._allocated.append(Memory(self, size))
        return self._allocated[-1]

    def put(self, array: NDArray[Any]) -> Memory:
        """Copy an array to the device."""
        memory = self.empty(array.nbytes)
        memory.write(array)
        return memory

    def launch(
        self, kernel: int, blocks: int, threads: int, shared_bytes: int, *arguments: "Memory | int | float | None"
    ) -> None:
        """Start a kernel, and return before it ends.

        Args:
            kernel: The CUkernel.
            blocks: The number of blocks.
            threads: Threads per block.
            shared_bytes: Bytes of dynamic shared memory per block.
            *arguments: The kernel's arguments: memory, None for a null pointer, an int as 32 bits, or a float as 32
                bits.
        """
        values = [_argument(each) for each in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        sizes = (blocks, 1, 1, threads, 1, 1, shared_bytes)
        self.driver("cuLaunchKernel", ctypes.c_void_p(kernel), *map(ctypes.c_uint, sizes), None, pointers, None)

    def synchronize(self) -> None:
        """Wait until every launch has ended. Raise CudaError if one failed."""
        self.driver("cuCtxSynchronize")

    def seconds(self, work: Callable[[], object]) -> float:
        """Call `work`, wait for its launches, and return the seconds that passed on the device."""
        events = [ctypes.c_void_p(), ctypes.c_void_p()]
        for event in events:
            self.driver("cuEventCreate", ctypes.byref(event), 0)
        try:
            self.driver("cuEventRecord", events[0], None)
            work()
            self.driver("cuEventRecord", events[1], None)
            self.driver("cuEventSynchronize", events[1])
            milliseconds = ctypes.c_float()
            self.driver("cuEventElapsedTime", ctypes.byref(milliseconds), *events)
        finally:
            for event in events:
                with contextlib.suppress(CudaError):
                    self.driver("cuEventDestroy_v2", event)
        return milliseconds.value / 1000


def _argument(value: Memory | int | float | None) -> Any:
    if isinstance(value, Memory):
        return ctypes.c_uint64(value.address)
    if value is None:
        return ctypes.c_uint64(0)
    return ctypes.c_int32(value) if isinstance(value, int) else ctypes.c_float(value)
