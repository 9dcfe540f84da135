"""`pytest -m gpu`: run only tests/gpu, in one process and with users' optimizations, and list the measured values.

The tests in other folders import libraries that a machine with a GPU need not have, such as tyro. A GPU may be
available for minutes only, so the tests of the kernel run first. `JAXGD_GPU_SECONDS=40 pytest -m gpu` starts no test
after 40 seconds.
"""

import os
import pathlib
import time

import pytest

FOLDER = pathlib.Path(__file__).with_name("gpu")
ORDER = ("test_kernel.py", "test_determinism.py", "test_mathematics.py", "test_training.py", "test_checker.py")
# The key of the user property that holds the name, value and limits of a measurement.
FIGURE = "figure"


def is_requested(config):
    """Return True if this run is `pytest -m gpu`."""
    return config.option.markexpr.strip() == "gpu"


def use_one_process(config):
    """Undo `-n 2`. Each process of JAX reserves most of the GPU's memory, so a second process would have too little."""
    if hasattr(config.option, "numprocesses"):
        config.option.numprocesses = 0


class GpuRun:
    """A pytest plugin, because a conftest.py could not ignore files outside its own folder."""

    def __init__(self, config):
        # A library's warning about this machine must not fail every test.
        config.addinivalue_line("filterwarnings", "default")
        self.started, self.seconds = time.monotonic(), float(os.environ.get("JAXGD_GPU_SECONDS", "inf"))

    def pytest_ignore_collect(self, collection_path):
        inside = FOLDER in (collection_path, *collection_path.parents)
        return None if inside or collection_path in FOLDER.parents else True

    def pytest_collection_modifyitems(self, items):
        # A file outside the folder, named on the command line, comes last.
        items.sort(key=lambda item: ORDER.index(item.path.name) if item.path.name in ORDER else len(ORDER))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self):
        if time.monotonic() - self.started > self.seconds:
            pytest.skip(f"the limit of JAXGD_GPU_SECONDS, {self.seconds:g} seconds, is over")

    def pytest_report_header(self):
        import jax

        from jaxgd.kernels.cuda.backend import BACKEND

        devices = ", ".join(f"{device.platform} {device.device_kind}" for device in jax.devices())
        kernel = BACKEND.about() if jax.default_backend() == "gpu" else "emulated on the CPU, because JAX sees no GPU"
        return [f"JAX {jax.__version__} on {devices}", f"kernel: {kernel}"]

    def pytest_terminal_summary(self, terminalreporter):
        reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        lines = [
            f"{value:11.3g}  {limits:24} {report.nodeid.split('::', 1)[1]}: {name}"
            for report in reports
            for key, (name, value, limits) in report.user_properties
            if key == FIGURE and report.when == "call"
        ]
        if lines:
            terminalreporter.section("measured values and their limits")
            for line in lines:
                terminalreporter.write_line(line)
