"""Fixtures of the GPU tests.

Without a GPU, an emulation runs the kernel on the CPU. Without the emulation, tests that need the kernel are skipped.
"""

import functools

import emulation
import jax
import numpy as np
import pytest
from gpu_run import FIGURE

from jaxgd.kernels.cuda import cubins, direct, driver, nvrtc


@pytest.fixture(scope="session")
def on_gpu():
    """Return True if JAX computes on a GPU."""
    return jax.default_backend() == "gpu"


@pytest.fixture(scope="session")
def kernel_runs(on_gpu):
    """Skip the test if this machine has neither a GPU nor the emulation."""
    if not on_gpu and emulation.why_missing is not None:
        pytest.skip(emulation.why_missing)


@pytest.fixture
def cuda(on_gpu, kernel_runs, monkeypatch):
    """Let the backend "cuda" run. Without a GPU, the emulation runs it."""
    if not on_gpu:
        emulation.emulate_backend(monkeypatch)


@pytest.fixture
def require(request):
    """Return a function that requires a value to be within limits. `pytest -m gpu` lists all these values."""

    def check(name, value, most, least=0.0):
        value, limits = float(value), f"{least:.3g} to {most:.3g}"
        request.node.user_properties.append((FIGURE, (name, value, limits)))
        assert least <= value <= most, f"{name}: expected {limits}, got {value:.3g}"

    return check


@functools.cache
def _code(shape):
    device = driver.device()
    assert isinstance(device, driver.Device), device
    compiler = nvrtc.compiler(device.driver[0])
    assert isinstance(compiler, nvrtc.Compiler), compiler
    return cubins.cubin(compiler, shape, device.capability).compiled.cubin


@pytest.fixture(scope="session")
def launch(on_gpu, kernel_runs):
    """Return a function that trains networks for an epoch by the kernel alone, without JAX.

    The function returns their weights and biases, and `finite`, which is 1 for each network with a finite result.
    Before the launch, `finite` holds a number that the kernel never writes.
    """

    def emulated(shape, networks, x, y, orders, etas, batch_size=None):
        library = emulation.library_of(shape)
        return emulation.emulate(library, shape, networks, x, y, orders, etas, batch_size)

    def on_device(shape, networks, x, y, orders, etas, batch_size=None):
        with driver.Context() as context:
            arrays = networks, x, y, orders, np.asarray(etas)
            training = direct.Training(context, shape, _code(shape), *arrays, batch_size)
            training.launch()
            return training.result()

    return on_device if on_gpu else emulated
