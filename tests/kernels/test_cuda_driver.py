"""The CUDA driver through ctypes, with a fake library: the calls, their order, and one-line messages for failures."""

import numpy as np
import pytest

from jaxgd.kernels.cuda import driver
from jaxgd.kernels.cuda.direct import Networks, Training
from jaxgd.kernels.cuda.errors import CudaError
from jaxgd.kernels.cuda.shape import Shape

SHAPE = Shape(20, 5, 3, 4, 2)


def test_a_device_reports_its_properties(fake_cuda):
    fake_cuda(devices=({}, {16: 78}))
    assert driver.device() == driver.Device(0, "Fake H100", (9, 0), 132, 232_448, (13, 0))
    assert driver.device(1).multiprocessors == 78
    assert str(driver.device()) == "Fake H100, compute capability 9.0, driver for CUDA 13.0"


NO_DEVICE = {
    "no driver": (
        {"error": "libcuda.so.1: cannot\nopen"},
        "the CUDA driver cannot be loaded: libcuda.so.1: cannot open",
    ),
    "no CUDA device": (
        {"fail": {"cuInit": 100}},
        "the CUDA driver reports: no CUDA-capable device is detected (cuInit, error 100)",
    ),
    "an unknown error": (
        {"fail": {"cuInit": 12345}},
        "the CUDA driver reports: an error that it cannot name (cuInit, error 12345)",
    ),
    "no visible device": ({"devices": ()}, "the CUDA driver sees 0 devices, and device 0 was asked for"),
    "compute capability 8.9": (
        {"devices": ({75: 8, 76: 9},)},
        "the kernel needs compute capability 9.0, and Fake H100 has 8.9",
    ),
    "the properties cannot be read": (
        {"fail": {"cuDeviceGetAttribute": 1}},
        "the CUDA driver reports: invalid argument (cuDeviceGetAttribute, error 1)",
    ),
}


@pytest.mark.parametrize("name", NO_DEVICE)
def test_a_device_that_cannot_be_used_has_a_reason(fake_cuda, name):
    options, reason = NO_DEVICE[name]
    fake_cuda(**options)
    assert driver.device() == reason


def test_a_block_must_fit_into_shared_memory(fake_cuda):
    fake_cuda(devices=({97: SHAPE.shared_bytes}, {97: SHAPE.shared_bytes - 1}))
    assert driver.why_unsuitable(driver.device(0), SHAPE) is None
    reason = driver.why_unsuitable(driver.device(1), SHAPE)
    assert f"{SHAPE.shared_bytes:,} bytes" in reason
    assert f"has {SHAPE.shared_bytes - 1:,}" in reason


LOAD = [
    *("cuLibraryLoadData", "cuLibraryGetKernel"),
    *("cuDeviceGet", "cuKernelSetAttribute"),
    *("cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2"),
    *("cuKernelGetFunction", "cuFuncLoad", "cuCtxPopCurrent_v2"),
]


def test_enabling_a_kernel_loads_its_code_before_any_launch(fake_cuda):
    fake = fake_cuda()
    loaded = driver.driver()
    fake.calls.clear()
    loaded.enable(loaded.load(b"code\0more"), 70_000, 0)
    assert fake.calls == LOAD
    old = fake_cuda(missing=("cuFuncLoad",))  # a driver before CUDA 12.4
    driver.driver().enable(1, 70_000, 0)
    assert old.calls[-2:] == ["cuKernelGetFunction", "cuCtxPopCurrent_v2"]


@pytest.mark.parametrize("name", sorted(set(LOAD)))
def test_every_failed_call_of_a_load_has_a_one_line_message(fake_cuda, name):
    fake = fake_cuda()
    loaded = driver.driver()
    fake.fail[name] = 1
    with pytest.raises(CudaError, match=rf"^the CUDA driver reports: invalid argument \({name}, error 1\)$"):
        loaded.enable(loaded.load(b"code"), 70_000, 0)
    # After a failure, no context is current.
    pushed = fake.calls.count("cuCtxPushCurrent_v2") - (name == "cuCtxPushCurrent_v2")
    assert fake.calls.count("cuCtxPopCurrent_v2") == pushed


def test_a_missing_function_of_the_driver_is_named(fake_cuda):
    fake_cuda(missing=("cuLibraryLoadData",))
    with pytest.raises(
        CudaError, match=r"^the kernel needs a driver for CUDA 12\.0 or later; this driver has no cuLibraryLoadData$"
    ):
        driver.driver().load(b"code")


def prepared(context, labels=True, batch_size=None):
    rng = np.random.default_rng(0)
    shapes = ((2, 5, 20), (2, 5), (2, 3, 5), (2, 3))
    networks = Networks(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))
    x = rng.integers(0, 256, (7, 20), dtype=np.uint8)
    y = rng.integers(0, 3, 7) if labels else rng.random((7, 3))
    order, eta = np.stack([rng.permutation(7), np.arange(7)]), np.array([0.5, 3.0])
    arrays = networks, x, y, order, eta
    return *arrays, Training(context, SHAPE, b"code", *arrays, batch_size)


@pytest.mark.parametrize(("labels", "batch_size"), [(True, None), (False, 3)])
def test_a_launch_without_jax_passes_every_argument_to_the_kernel(fake_cuda, labels, batch_size):
    fake = fake_cuda()
    with driver.Context() as context:
        networks, x, y, order, eta, training = prepared(context, labels, batch_size)
        training.launch()
        ((kernel, sizes, arguments),) = fake.launches
        assert (kernel, sizes) == (1001, [2, 1, 1, SHAPE.threads, 1, 1, SHAPE.shared_bytes])
        assert arguments[-2:] == [7, batch_size or 4]
        padded = np.zeros((7, 32), np.uint8)
        padded[:, :20] = x
        assert fake.memory[arguments[0]] == padded.tobytes()
        answers = y.astype(np.int32 if labels else np.float32)
        assert fake.memory[arguments[1 if labels else 2]] == answers.tobytes()
        assert arguments[2 if labels else 1] == 0
        assert fake.memory[arguments[3]] == order.astype(np.int32).tobytes()
        assert fake.memory[arguments[4]] == eta.astype(np.float32).tobytes()
        for pointer, array in zip(arguments[5:9], networks, strict=True):
            assert fake.memory[pointer] == array.tobytes()
        actual, finite = training.result()
        np.testing.assert_array_equal(actual.w1, networks.w1)
        assert finite.tolist() == [-1, -1]  # the kernel did not run
        assert fake.calls.index("cuCtxSynchronize") > fake.calls.index("cuLaunchKernel")
        fake.memory[arguments[5]][:4] = b"\0\0\0\0"
        assert training.result()[0].w1[0, 0, 0] == 0
        training.reset()
        np.testing.assert_array_equal(training.result()[0].w1, networks.w1)
        assert context.seconds(training.launch) == pytest.approx(0.0125)
    assert fake.memory == {}
    assert fake.calls[-1] == "cuCtxPopCurrent_v2"


def test_the_first_error_of_a_device_is_raised(fake_cuda):
    fake = fake_cuda()

    def run():
        with driver.Context() as context:
            *_, training = prepared(context)
            training.launch()
            fake.fail |= dict.fromkeys(("cuCtxSynchronize", "cuMemFree_v2"), 700)
            training.result()

    with pytest.raises(CudaError, match=r"an illegal memory access \(cuCtxSynchronize, error 700\)$"):
        run()


def test_memory_refuses_an_array_of_another_size(fake_cuda):
    fake_cuda()
    with driver.Context() as context:
        memory = context.put(np.arange(3))
        with pytest.raises(CudaError, match=r"^expected an array of 24 bytes, the size on the device, got 16 bytes$"):
            memory.write(np.arange(2))
        memory.free()
        memory.free()


def test_without_a_device_a_context_gives_the_reason(fake_cuda):
    fake_cuda(fail={"cuInit": 100})
    with pytest.raises(CudaError, match="no CUDA-capable device"):
        driver.Context()
