"""The launch of the CUDA kernel. Its handler is compiled for the CPU, and a stub in C replaces the driver."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax.ffi
import pytest

from jaxgd.kernels import native
from jaxgd.kernels.cuda import nvrtc

HERE, SOURCE = Path(__file__).parent, Path(native.__file__).parent / "src"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("g++"), reason="needs GCC"),
    pytest.mark.skipif(isinstance(nvrtc.compiler(), str), reason=str(nvrtc.compiler())),
    pytest.mark.skipif(isinstance(native.library(), str), reason=str(native.library())),
    pytest.mark.xdist_group("cuda_launch"),
]

# Each case prints one line of JSON: its name, and the result or the error message.
SCRIPT = r"""
import ctypes, json, sys
import jax, jax.numpy as jnp, numpy as np
from jaxgd import Layer
from jaxgd.kernels.cuda import backend, driver
jax.config.update("jax_enable_compilation_cache", False)

handlers = ctypes.CDLL(sys.argv[1])
handlers.jaxgd_cuda_register.argtypes = [ctypes.c_char_p, ctypes.c_void_p, *[ctypes.c_int64] * 4]
jax.ffi.register_ffi_target(backend.TARGET, jax.ffi.pycapsule(handlers.launch_on_cpu), platform="cpu")
SHAPE = backend.shape_of((20, 5, 3), 4, None)
found = backend.loaded(SHAPE, 0)
name = found if isinstance(found, str) else found.name
if not isinstance(found, str):
    handlers.jaxgd_cuda_register(name.encode(), backend._handles[name], *SHAPE[:4])
    handlers.jaxgd_cuda_register(b"another shape", backend._handles[name], 20, 6, 3, 4)
else:
    # Register the name without a loaded kernel, so that only the missing driver stops a launch.
    handlers.jaxgd_cuda_register(name.encode(), 1, *SHAPE[:4])

N = 10
rng = np.random.default_rng(0)
def network(*front):
    shapes = ((5, 20), (5,), (3, 5), (3,))
    w1, b1, w2, b2 = (jnp.asarray(rng.normal(size=(*front, *s)).astype(np.float32)) for s in shapes)
    return Layer(w1, b1), Layer(w2, b2)
x = rng.integers(1, 256, (N, 20), dtype=np.uint8)
labels, targets = rng.integers(0, 3, N).astype(np.int32), rng.random((N, 3)).astype(np.float32)

def show(case, value):
    print(json.dumps([case, value]), flush=True)

def changes(case, f, before, y, order, eta):
    try:
        after, finite = jax.jit(f)(before, x, y, order, eta)
        moved = jax.tree.map(lambda a, b: np.asarray(a - b), after, before)
        # The stub changes the first number of each array.
        nonzero = [int(np.count_nonzero(v)) for v in jax.tree.leaves(moved)]
        first = [v.reshape(*eta.shape, -1)[..., 0].tolist() for v in jax.tree.leaves(moved)]
        show(case, [first, nonzero, np.asarray(finite).tolist()])
    except Exception as error:
        show(case, str(error))

epoch = backend.epoch_of(SHAPE, name)
order = rng.permutation(N).astype(np.int32)
show("given", [int(x[0, 1]), int(labels[0]), float(targets[0, 0]), int(order[0])])
show("loaded", found if isinstance(found, str) else "yes")
changes("one", epoch, network(), labels, order, np.float32(0.5))
if sys.argv[2:] == ["one"]:
    raise SystemExit
changes("targets", epoch, network(), targets, order, np.float32(0.5))
orders = np.stack([np.roll(order, k) for k in range(3)])
show("orders", orders[:, 0].tolist())
etas = np.float32([0.5, 1, 2])
changes("grid", jax.vmap(epoch, (0, None, None, 0, 0)), network(3), labels, orders, etas)
changes("not loaded", backend.epoch_of(SHAPE, "0123456789abcdef"), network(), labels, order, np.float32(0.5))
changes("another shape", backend.epoch_of(SHAPE, "another shape"), network(), labels, order, np.float32(0.5))

def scanned(v, x, y, order, eta):
    return jax.lax.scan(lambda v, _: epoch(v, x, y, order, eta), v, None, length=3)
before = network()
after, _ = jax.jit(scanned)(before, x, labels, order, np.float32(0.5))
show("scan", float(after[1].b[0] - before[1].b[0]))

# A wrong argument raises an error and never reaches the kernel.
def known(front=()):
    flat = [v for layer in network(*front) for v in layer]
    padded, orders = np.pad(x, ((0, 0), (0, 12))), np.broadcast_to(order, (*front, N))
    return [padded, labels, orders, np.zeros(front, np.float32), *flat]

def call(case, arguments, aliases=4, results=None, batch_size=4):
    results = [arguments[3].astype(np.int32), *arguments[4:]] if results is None else results
    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in results]
    f = jax.ffi.ffi_call(backend.TARGET, shapes, input_output_aliases={4 + i: 1 + i for i in range(aliases)})
    attributes = {"kernel": name, "batch_size": np.int64(batch_size), "threads": np.int64(SHAPE.threads)}
    attributes |= {"shared_bytes": np.int64(SHAPE.shared_bytes)}
    try:
        jax.block_until_ready(jax.jit(lambda *given: f(*given, **attributes))(*arguments))
        show(case, "accepted")
    except Exception as error:
        show(case, str(error))

def changed(i, change, front=()):
    arguments = known(front)
    arguments[i] = change(arguments[i])
    return arguments

call("right", known())
call("right grid", known((2,)))
call("no networks", known((0,)))
call("inputs of 20 columns, not padded to 32", changed(0, lambda x: x[:, :20]))
call("inputs in float32", changed(0, lambda x: x.astype(np.float32)))
call("fewer inputs than labels", changed(0, lambda x: x[:-1]))
call("labels of another dtype", changed(1, lambda y: y.astype(np.int16)))
call("targets of another width", changed(1, lambda y: np.zeros((N, 2), np.float32)))
call("no labels", changed(1, lambda y: y[:0]))
call("a scalar for y", changed(1, lambda y: np.int32(0)))
call("an order of 9 examples", changed(2, lambda v: v[:-1]))
call("an order of another dtype", changed(2, lambda v: v.astype(np.uint32)))
call("one η for each example", changed(3, lambda v: np.zeros(N, np.float32)), results=[np.int32(0), *known()[4:]])
call("one η for two networks", changed(3, lambda v: v[0], (2,)), results=[np.zeros(2, np.int32), *known((2,))[4:]])
call("w1 in half precision", changed(4, lambda v: v.astype(np.float16)))
call("w1 of another rank", changed(4, lambda v: v[0]))
call("w1 with fewer neurons than b1", changed(4, lambda v: v[:-1]))
call("a short b1", changed(5, lambda v: v[:-1]))
call("w2 with fewer hidden neurons than w1", changed(6, lambda v: v[:, :-1]))
call("a short b2", changed(7, lambda v: v[:-1]))
call("a network with 2 outputs, a kernel for 3", [*known()[:6], np.zeros((2, 5), np.float32), np.zeros(2, np.float32)])
call("results not in place", known(), aliases=0)
call("a result of another shape", known(), 3, [np.int32(0), *known()[4:7], np.zeros(4, np.float32)])
call("one finite flag for each example", known(), results=[np.zeros(N, np.int32), *known()[4:]])
call("7 arguments", known()[:7], 0, known()[3:8])
call("batch size 0", known(), batch_size=0)
call("batch size above n", known(), batch_size=11)
call("batch size 5, a kernel for 4", known(), batch_size=5)
"""

REFUSED = {
    "inputs of 20 columns, not padded to 32": "x has another shape or dtype: expected U8[10,32], got U8[10,20]",
    "inputs in float32": "x has another shape or dtype: expected U8[10,32], got F32[10,32]",
    "fewer inputs than labels": "x has another shape or dtype: expected U8[10,32], got U8[9,32]",
    "labels of another dtype": "y has another shape or dtype: expected F32[10,3], got S16[10]",
    "targets of another width": "y has another shape or dtype: expected F32[10,3], got F32[10,2]",
    "no labels": "expected 1 to 2147483519 examples, got 0",
    "a scalar for y": "y must be labels (n) or targets (n, out), got S32[]",
    "an order of 9 examples": "order has another shape or dtype: expected S32[10], got S32[9]",
    "an order of another dtype": "order has another shape or dtype: expected S32[10], got U32[10]",
    "one η for each example": "eta has another shape or dtype: expected F32[], got F32[10]",
    "one η for two networks": "eta has another shape or dtype: expected F32[2], got F32[]",
    "w1 in half precision": "w1 has another shape or dtype: expected F32[5,20], got F16[5,20]",
    "w1 of another rank": "w1 must be (hidden, in), got F32[20]",
    "w1 with fewer neurons than b1": "b1 has another shape or dtype: expected F32[4], got F32[5]",
    "a short b1": "b1 has another shape or dtype: expected F32[5], got F32[4]",
    "w2 with fewer hidden neurons than w1": "w2 has another shape or dtype: expected F32[3,5], got F32[3,4]",
    "a short b2": "b2 has another shape or dtype: expected F32[3], got F32[2]",
    "a network with 2 outputs, a kernel for 3": "the kernel was compiled for [20,5,3] with a batch size of 4, "
    "got [20,5,2] with a batch size of 4",
    "results not in place": "the result w1 must be in the memory of its argument: it is updated in place",
    "a result of another shape": "the result b2 has another shape or dtype: expected F32[3], got F32[4]",
    "one finite flag for each example": "finite has another shape or dtype: expected S32[], got S32[10]",
    "7 arguments": "expected 8 arguments and 5 results, got 7 and 5",
    "batch size 0": "batch_size must be from 1 to the number of examples, 10, got 0",
    "batch size above n": "batch_size must be from 1 to the number of examples, 10, got 11",
    "batch size 5, a kernel for 4": "the kernel was compiled for [20,5,3] with a batch size of 4, "
    "got [20,5,3] with a batch size of 5",
}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Build the stub of the driver and the handler for the CPU. Return their folder."""
    folder = tmp_path_factory.mktemp("cuda")
    stub = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", HERE / "stub_cuda.c", "-o", folder / "libcuda.so.1"]
    include = ["-isystem", jax.ffi.include_dir(), "-I", SOURCE]
    flags = ["-std=gnu++17", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    handler = ["g++", *flags, *include, HERE / "launch_on_cpu.cc", "-o", folder / "launch.so"]
    for words in (stub, handler):
        subprocess.run(words, check=True, timeout=300)
    return folder


def run(build, *words, driver=True, **environment):
    """Run the script, and return the output of each case."""
    known = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    known |= {"XDG_CACHE_HOME": str(build / "cache"), "JAX_PLATFORMS": "cpu", **environment}
    if driver:
        known["LD_LIBRARY_PATH"] = str(build)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, build / "launch.so", *words],
        env=known,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(map(json.loads, done.stdout.splitlines()))


@pytest.fixture(scope="module")
def shown(build):
    return run(build)


def test_every_argument_reaches_the_launch(shown):
    assert shown["loaded"] == "yes"
    x, label, target, first = shown["given"]
    assert shown["one"] == [pytest.approx([0.5 * x, first, label, 1004], rel=1e-4), [1, 1, int(label > 0), 1], True]
    assert shown["targets"][0] == pytest.approx([0.5 * x, first, 10 * target, 1004], rel=1e-4)
    w1, b1, w2, b2 = shown["grid"][0]
    assert w1 == pytest.approx([0.5 * x, x, 2 * x], rel=1e-4)
    assert b1 == pytest.approx(shown["orders"], rel=1e-4)
    assert w2 == pytest.approx([label] * 3, rel=1e-4)
    assert b2 == pytest.approx([1004] * 3, rel=1e-4)
    assert shown["grid"][2] == [True, False, True]
    assert shown["scan"] == pytest.approx(3 * 1004, rel=1e-4)
    assert shown["right"] == shown["right grid"] == shown["no networks"] == "accepted"


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arguments_are_refused_before_the_launch(shown, name):
    assert shown[name] == f"INVALID_ARGUMENT: jaxgd, cuda epoch: {REFUSED[name]}"


def test_the_error_for_an_unloaded_kernel_says_how_to_load_it(shown):
    message = shown["not loaded"]
    assert message.startswith("FAILED_PRECONDITION: jaxgd, cuda epoch: the kernel 0123456789ab is not loaded in this ")
    assert "call jaxgd.kernels.cuda.backend.load(sizes, batch_size, precision)" in message
    assert "compiled for [20,6,3] with a batch size of 4" in shown["another shape"]


def test_a_launch_error_contains_the_message_of_the_driver(build):
    shown = run(build, "one", STUB_CUDA_FAILS="cuLaunchKernel")
    assert shown["loaded"] == "yes"
    assert shown["one"].startswith("INTERNAL: jaxgd, cuda epoch: the driver refused to launch 1 blocks of 256 threads")
    assert shown["one"].endswith("an illegal memory access was encountered, error 700")


def test_a_failing_or_missing_driver_is_reported(build):
    shown = run(build, "one", STUB_CUDA_FAILS="cuInit")
    assert shown["loaded"] == ("the CUDA driver reports: an illegal memory access was encountered (cuInit, error 700)")
    shown = run(build, "one", driver=False)
    if shown["loaded"] == "yes":
        pytest.skip("this host has a driver")
    assert shown["loaded"].startswith("the CUDA driver cannot be loaded: libcuda.so.1: ")
    assert shown["one"].startswith("UNAVAILABLE: jaxgd, cuda epoch: the CUDA driver cannot be loaded: libcuda.so.1: ")
