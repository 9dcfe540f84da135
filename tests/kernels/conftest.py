"""A fake of libcuda.so.1. It records the calls, answers them, and keeps device memory in Python."""
# ruff: noqa: N802

import ctypes
import functools

import pytest

from jaxgd.kernels.cuda import backend, driver, nvrtc

ATTRIBUTES = {75: 9, 76: 0, 16: 132, 97: 232_448}  # an H100: compute capability, multiprocessors, shared memory
TEXTS = {1: b"invalid argument", 100: b"no CUDA-capable device is detected", 700: b"an illegal memory access"}


class FakeCuda:
    """The fake driver.

    Attributes:
        calls: The names of the functions called, in order.
        launches: The kernel, the sizes and the arguments of each launch.
        memory: The content of each allocation, by address.
        fail: The error code of each function that fails.
        missing: Names of functions that this driver lacks.
        answers: Functions that replace methods of this class, by the driver's names.
    """

    def __init__(self, devices=({},), version=13_000, fail=None, missing=(), answers=None):
        self.devices, self.version = [ATTRIBUTES | device for device in devices], version
        self.calls, self.launches, self.memory = [], [], {}
        self.fail, self.missing, self.answers = fail or {}, missing, answers or {}

    def __getattr__(self, name):
        if name in self.missing or not name.startswith("cu"):
            raise AttributeError(name)
        return functools.partial(self.call, name)

    def call(self, name, *arguments):
        self.calls.append(name)
        if name in self.fail:
            return self.fail[name]
        answer = self.answers.get(name, getattr(type(self), f"_{name}", None))
        if answer is not None:
            answer(self, *(getattr(each, "_obj", each) for each in arguments))
        return 0

    def _cuGetErrorString(self, code, text):
        text.value = TEXTS.get(code)

    def _cuDriverGetVersion(self, version):
        version.value = self.version

    def _cuDeviceGetCount(self, count):
        count.value = len(self.devices)

    def _cuDeviceGet(self, handle, ordinal):
        handle.value = ordinal

    def _cuDeviceGetName(self, name, size, handle):
        name.value = b"Fake H100"

    def _cuDeviceGetAttribute(self, value, number, handle):
        value.value = self.devices[handle.value][number]

    def _cuLibraryLoadData(self, library, code, *options):
        self.code, library.value = code.value, 7

    def _cuLibraryGetKernel(self, kernel, library, name):
        kernel.value = 1000 + self.calls.count("cuLibraryGetKernel")

    def _cuMemAlloc_v2(self, address, size):
        address.value = 4096 * (1 + self.calls.count("cuMemAlloc_v2"))
        self.memory[address.value] = bytearray(size.value)

    def _cuMemFree_v2(self, address):
        del self.memory[address.value]

    def _cuMemcpyHtoD_v2(self, address, source, size):
        self.memory[address.value][:] = ctypes.string_at(source, size.value)

    def _cuMemcpyDtoH_v2(self, target, address, size):
        ctypes.memmove(target, bytes(self.memory[address.value]), size.value)

    def _cuMemsetD8_v2(self, address, byte, size):
        self.memory[address.value][:] = bytes([byte.value]) * size.value

    def _cuLaunchKernel(self, kernel, *rest):
        *sizes, _stream, pointers, _extra = rest
        kinds = [ctypes.c_uint64] * 10 + [ctypes.c_int32] * 2
        arguments = [kind.from_address(pointer).value for kind, pointer in zip(kinds, pointers, strict=True)]
        self.launches.append((kernel.value, [size.value for size in sizes], arguments))

    def _cuEventElapsedTime(self, milliseconds, start, end):
        milliseconds.value = 12.5


@pytest.fixture
def fake_cuda(monkeypatch):
    """Return a function that replaces libcuda.so.1 by a fake driver. With `error`, the load fails with this message."""
    caches = (driver.driver, driver.device, backend.loaded, nvrtc.compiler)

    def clear():
        for function in caches:
            function.cache_clear()
        backend._handles.clear()

    def put(error=None, **options):
        fake = FakeCuda(**options)

        def open_library(name):
            assert name == "libcuda.so.1"
            if error is not None:
                raise OSError(error)
            return fake

        monkeypatch.setattr(driver.ctypes, "CDLL", open_library)
        clear()
        return fake

    yield put
    monkeypatch.undo()
    clear()
