"""Tasks of `python -m benchmarks device` that launch without JAX, through a fake driver that computes in NumPy."""

import ctypes
import json
import os

import numpy as np
import pytest

from benchmarks.device import adder, ceilings, context, correct, data, kernel, reference, sizes
from benchmarks.rows import Row
from jaxgd.kernels.cuda import nvrtc

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(isinstance(nvrtc.compiler(), str), reason=str(nvrtc.compiler())),
]
MODEL = adder.Model(1, "toward zero", "toward zero", 4)


class Kernels:
    """The kernels of a fake driver, in NumPy. They read and write the fake driver's memory."""

    def __init__(self, spoil):
        self.names, self.memory, self.spoil, self.launches = [], {}, spoil, 0

    def get(self, fake, kernel, library, name):
        self.names.append(name.decode())
        kernel.value = len(self.names)

    def launch(self, fake, kernel, *rest):
        blocks, _, _, threads, *_ = (size.value for size in rest[:7])
        self.memory = fake.memory
        getattr(self, self.names[kernel.value - 1])(blocks, threads, rest[8])

    def array(self, pointer, dtype, *shape):
        address = ctypes.c_uint64.from_address(pointer).value
        return np.frombuffer(self.memory[address], dtype).reshape(*shape)

    def adder(self, blocks, threads, pointers):
        assert threads == 32
        a, b = (self.array(pointers[i], np.float32, blocks, 8) for i in (0, 1))
        c, d = (self.array(pointers[i], np.float32, blocks) for i in (2, 3))
        products = a.astype(float) * b
        d[:] = [MODEL.add(adder.Sum(float(c[i]), tuple(products[i]))) for i in range(blocks)]

    def products(self, blocks, threads, pointers):
        self.array(pointers[0], np.float32, blocks * threads)[:] = 1

    def barriers(self, blocks, threads, pointers):
        self.array(pointers[0], np.float32, blocks * threads)[:] = ctypes.c_int32.from_address(pointers[1]).value

    def jaxgd_descend(self, blocks, threads, pointers):
        n, batch = (ctypes.c_int32.from_address(pointers[i]).value for i in (10, 11))
        inputs, hidden, outputs = data.SIZES
        assert ctypes.c_uint64.from_address(pointers[2]).value == 0  # no targets
        x, y = self.array(pointers[0], np.uint8, -1, inputs), self.array(pointers[1], np.int32, -1)
        orders, etas = self.array(pointers[3], np.int32, blocks, n), self.array(pointers[4], np.float32, blocks)
        shapes = ((hidden, inputs), (hidden,), (outputs, hidden), (outputs,))
        networks = [self.array(p, np.float32, blocks, *s) for p, s in zip(pointers[5:9], shapes, strict=True)]
        for i in range(blocks):
            trained = reference.descend([v[i] for v in networks], x, y, orders[i], etas[i], batch, np.float32)
            for v, new in zip(networks, trained, strict=True):
                v[i] = new
        self.launches += 1
        # Change one weight by the relative error that `spoil` returns for this launch.
        networks[0][0, 0, 0] *= 1 + self.spoil(self.launches)
        self.array(pointers[9], np.int32, blocks)[:] = 1


@pytest.fixture
def on_gpu(fake_cuda, monkeypatch, tmp_path):
    """Return a function that runs a task on the fake GPU, and returns the task's rows and messages."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAXGD_DATA_DIR", raising=False)
    monkeypatch.setattr(context, "DEVICE", sizes.REHEARSAL)
    # Load the real compiler before the fake driver replaces all libraries.
    compiler = nvrtc.compiler()
    monkeypatch.setattr(nvrtc, "compiler", lambda *_: compiler)

    def run(task, spoil=lambda launch: 0):
        kernels = Kernels(spoil)
        fake_cuda(answers={"cuLibraryGetKernel": kernels.get, "cuLaunchKernel": kernels.launch})
        reading, writing = os.pipe()
        task(context.Context("task", False, tmp_path, writing))
        os.close(writing)
        with os.fdopen(reading) as lines:
            messages = [json.loads(line) for line in lines]
        return [Row.from_json(text) for kind, text in messages if kind == "row"], messages

    return run


def test_the_adder_task_finds_the_rounding_of_the_fake_tensor_core(on_gpu):
    (row,), messages = on_gpu(adder.run)
    assert row.details["rounding"] == str(MODEL)
    assert ["note", f"adder of the tensor core: {MODEL}"] in messages


def test_the_rates_of_the_loops_are_computed_from_their_times(on_gpu):
    rows, _ = on_gpu(ceilings.loops)
    # The fake GPU has 132 multiprocessors, and reports 12.5 ms for every timing.
    values = {row.case.partition("/")[2]: row.value for row in rows}
    flop = 2 * 16 * 8 * 8 * ceilings.COUNT * 132 * ceilings.THREADS / 32
    assert values["products-1-chains"] == pytest.approx(flop / 0.0125 / 1e12, rel=1e-5)
    assert values["products-8-chains"] == pytest.approx(8 * flop / 0.0125 / 1e12, rel=1e-5)
    assert values["barriers"] == pytest.approx(0.0125 / ceilings.COUNT)
    assert values["copy"] == pytest.approx(2 * sizes.REHEARSAL.copied / 0.0125 / 1e12, rel=1e-5)


def test_the_errors_of_the_kernel_are_stored_and_equal_those_of_numpy(on_gpu):
    rows, _ = on_gpu(correct.run)
    errors = {(row.case, row.precision): row.value for row in rows if row.quantity == "error"}
    for case in ("device-task/1-steps", "device-task/3-steps"):
        # The fake kernel computes in NumPy's float32, so the errors are equal.
        assert errors[case, "float32 (2×TF32)"] == errors[case, "float32"]
    assert {row.value for row in rows if row.quantity == "faults"} == {0}


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        # A change of 1% exceeds the limit of the error. The other change is only in the second launch. It changes bits
        # of a weight, but no error is computed from this launch.
        (lambda launch: 1e-2, r"1 steps, float32 \(2×TF32\): expected an error of at most .*, got"),
        (lambda launch: 2e-7 * (launch == 2), r"1 steps, float32 \(2×TF32\): 1 weights differ between two runs"),
    ],
    ids=["weight changed by 1%", "weight changed by 2e-7 in the second launch"],
)
def test_a_spoiled_weight_fails_the_comparison(spoil, fault, on_gpu):
    with pytest.raises(context.TaskError, match=fault):
        on_gpu(correct.run, spoil)


def test_each_kernel_row_has_the_time_and_the_network_epochs_per_second(on_gpu):
    rows, _ = on_gpu(kernel.times)
    for row in rows:
        assert row.value == 0.0125
        assert row.details["networks"] == int(row.case.partition("/")[2].split("-")[0])
        assert row.details["network_epochs_per_s"] == pytest.approx(row.details["networks"] / 0.0125)
    # Each row has the cost of its first network. This cost does not depend on the number of networks.
    assert len({row.details["cost"] for row in rows}) == 1
