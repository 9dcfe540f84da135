"""The CUDA backend without a GPU: why it cannot run, its loaded kernels, and the programs that JAX lowers for CUDA."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgd import Layer, RangeError, cross_entropy, quadratic_cost, train
from jaxgd.examples import Examples
from jaxgd.kernels import Job, native, protocol, select_backend
from jaxgd.kernels.cuda import backend, cubins, driver, nvrtc
from jaxgd.kernels.cuda.errors import CudaError
from jaxgd.kernels.cuda.nvrtc import Compiled
from jaxgd.kernels.cuda.shape import Shape

SHAPE = Shape(20, 5, 3, 4, 2)
N = 10
needs_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="JAX's default device must be the CPU")


def job(sizes=(20, 5, 3), x=np.uint8, y=np.int32, dtype=np.float32, **options):
    network = tuple(Layer(np.zeros((b, a), dtype), np.zeros(b, dtype)) for a, b in itertools.pairwise(sizes))
    answers = np.zeros(N, y) if np.issubdtype(y, np.integer) else np.zeros((N, sizes[-1]), y)
    examples = Examples(np.zeros((N, sizes[0]), x), answers)
    known = {"cost": quadratic_cost, "optimizer": None, "batch_size": 4} | options
    return Job(jax.tree.map(jnp.asarray, network), jax.tree.map(jnp.asarray, examples), **known)


# Jobs that the backend refuses without a GPU, and its reasons.
REASONS = {
    "float16": ({"dtype": np.float16}, "the CUDA kernel needs a float32 network, got float16"),
    "an optimizer": ({"optimizer": optax.adam(0.1)}, "knows only plain descent"),
    "another cost": ({"cost": lambda a, y: jnp.mean(a - y)}, "knows only the quadratic cost"),
    "the cross-entropy": ({"cost": cross_entropy}, "knows only the quadratic cost"),
    "L2 regularization": ({"l2": 5.0}, "knows no L2 regularization"),
    "a schedule": ({"schedule": lambda k: 0.5}, "knows only a constant η"),
    "inputs in float32": ({"x": np.float32}, "the CUDA kernel needs inputs of bytes, got float32"),
    "no hidden layer": ({"sizes": (20, 3)}, "the CUDA kernel needs one hidden layer, got 0"),
    "two hidden layers": ({"sizes": (20, 5, 5, 3)}, "the CUDA kernel needs one hidden layer, got 2"),
    "too many inputs": ({"sizes": (1025, 5, 3)}, "the CUDA kernel takes at most 1,024 inputs, got 1,025"),
    "too many hidden neurons": ({"sizes": (20, 33, 3)}, "the CUDA kernel takes at most 32 hidden neurons, got 33"),
    "too many outputs": ({"sizes": (20, 5, 17)}, "the CUDA kernel takes at most 16 outputs, got 17"),
    "batch_size 17": ({"batch_size": 17}, "the CUDA kernel takes at most 16 examples per mini-batch, got 17"),
    "full batch": ({"batch_size": None}, "the CUDA kernel needs mini-batches, got the full batch"),
    "bfloat16 products": (
        {"precision": "bfloat16"},
        'the CUDA kernel needs the precision None, "float32" or "tensorfloat32", got \'bfloat16\'',
    ),
    "a precision for each factor": ({"precision": ["high", "high"]}, "got ['high', 'high']"),
    "arrays on the CPU": (
        {},
        "the CUDA kernel needs arrays on one NVIDIA GPU, got cpu (JAX for a GPU: pip install 'jaxgd[cuda13]')",
    ),
}


@needs_cpu
@pytest.mark.parametrize("name", REASONS)
def test_a_job_that_the_kernel_does_not_take_is_refused_with_a_reason(name):
    options, reason = REASONS[name]
    actual = backend.BACKEND.why_unsupported(job(**options))
    assert reason in actual
    assert "\n" not in actual
    with pytest.raises(RangeError, match=r'^train: kernel="cuda" cannot run here: '):
        select_backend("cuda", job(**options))


def test_a_sharded_array_is_refused_with_a_reason(monkeypatch):
    monkeypatch.setattr(protocol, "_platforms", lambda x: ["gpu", "gpu"])
    assert backend.BACKEND.why_unsupported(job()).endswith("got a sharded array")


PRECISIONS = {None: 2, "float32": 2, "highest": 2, "tensorfloat32": 1, "high": 1, "default": None, "bfloat16": None}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_precision_sets_the_number_of_tf32_parts_per_factor(precision):
    shape = backend.shape_of((20, 5, 3), 4, precision)
    parts = PRECISIONS[precision]
    assert isinstance(shape, str) if parts is None else shape == SHAPE._replace(parts=parts)
    if precision in ("highest", "high", "default"):
        same = backend.shape_of((20, 5, 3), 4, jax.lax.Precision(precision))
        assert isinstance(same, str) if parts is None else same == shape


@needs_cpu
def test_without_a_gpu_the_error_gives_the_reason():
    data = np.zeros((N, 20), np.uint8), np.zeros(N, np.int32)
    options = {"epochs": 1, "batch_size": 4, "eta": 1.0, "key": jax.random.key(0)}
    network = job().network
    text = r'kernel="cuda" cannot run here: .* got cpu .*\.\nUse kernel="auto" or "xla"\.$'
    with pytest.raises(RangeError, match=text):
        train(network, data, **options, kernel="cuda")
    assert select_backend("auto", job()).name != "cuda"
    with pytest.raises(CudaError, match=r"^the CUDA kernel cannot run here: JAX sees no GPU: "):
        backend.load((20, 5, 3), 4)
    with pytest.raises(CudaError, match=r"^the CUDA kernel cannot run here: the CUDA kernel takes at most 32 hidden"):
        backend.load((20, 50, 3), 4)


# Kernels and their names, with a fake driver and a fake compiler.
class FakeCompiler(nvrtc.Compiler):
    """A fake compiler. Its machine code is the shape and the architecture as text."""

    def __init__(self, error=None):
        self.version, self.error = (13, 0), error

    def architecture(self, capability):
        return "sm_{}{}".format(*capability)

    def compile(self, shape, architecture, *flags):
        if self.error:
            raise CudaError(self.error)
        return Compiled(f"{shape} {architecture}".encode(), "Used 40 registers")


class FakeGpu:
    platform = "gpu"

    def __init__(self, ordinal):
        self.local_hardware_id = ordinal


@pytest.fixture
def gpus(fake_cuda, monkeypatch):
    """Return a function that fakes some GPUs. JAX's default is the first one, and the arrays are on the last one."""
    if isinstance(native.library(), str):
        pytest.skip(native.library())
    monkeypatch.setattr(cubins, "usable_folder", lambda: None)

    def put(devices=({},), compiler=None, **options):
        fake = fake_cuda(devices=devices, **options)
        last = FakeGpu(len(devices) - 1)
        monkeypatch.setattr(nvrtc, "compiler", lambda most_major: compiler or FakeCompiler())
        monkeypatch.setattr(backend, "_default_gpu", lambda: FakeGpu(0))
        monkeypatch.setattr(backend, "_gpus_of", lambda job: {last.local_hardware_id})
        monkeypatch.setattr(backend, "_local_gpus", lambda: list(range(len(devices))))
        monkeypatch.setattr(protocol, "_platforms", lambda x: ["gpu"])
        return fake

    yield put
    monkeypatch.undo()


NOT_HERE = {
    "no driver": ({"error": "no file"}, "the CUDA driver cannot be loaded: no file"),
    "an old device": ({"devices": ({75: 8},)}, "the kernel needs compute capability 9.0, and Fake H100 has 8.0"),
    "small shared memory": ({"devices": ({97: 100},)}, "bytes of shared memory for this shape, and Fake H100 has 100"),
    "no NVRTC": ({"compiler": "NVRTC is not installed"}, "NVRTC is not installed"),
    "an error of NVRTC": ({"compiler": FakeCompiler("descend.cu(3): error: x")}, "descend.cu(3): error: x"),
    "a refused cubin": (
        {"fail": {"cuLibraryLoadData": 1}},
        "the CUDA driver reports: invalid argument (cuLibraryLoadData, error 1)",
    ),
    "another kind of GPU": ({"devices": ({}, {75: 10})}, "the arrays are on a GPU of another kind"),
}


@pytest.mark.parametrize("name", NOT_HERE)
def test_auto_gives_the_reason_why_the_kernel_cannot_run_on_a_host(gpus, name):
    options, reason = NOT_HERE[name]
    gpus(**options)
    actual = backend.BACKEND.why_unsupported(job())
    assert actual.endswith(reason)
    assert "\n" not in actual
    choice = select_backend("auto", job())
    assert (choice.name, choice.reason) == ("xla", actual)


def test_a_kernel_is_loaded_once_for_two_gpus_and_prepared_on_both(gpus):
    fake = gpus(devices=({}, {}))
    choice = select_backend("auto", job())
    assert choice.name == "cuda"
    assert choice.reason.startswith("quicker for these shapes, on the GPU (Fake H100, compute capability 9.0, ")
    assert backend.BACKEND.fingerprint() == "NVRTC 13.0"
    assert fake.calls.count("cuLibraryLoadData") == 1
    assert fake.calls.count("cuKernelSetAttribute") == 2
    assert fake.code == f"{SHAPE} sm_90".encode()
    name = backend.load((20, 5, 3), 4)
    assert name == cubins.name_of(FakeCompiler(), SHAPE, "sm_90")
    assert backend.load((20, 5, 3), 4, "tensorfloat32") != name
    assert fake.calls.count("cuLibraryLoadData") == 2


@pytest.mark.parametrize(("second", "prepared"), [({}, 2), ({75: 10}, 1), ({75: 8}, 1)], ids=str)
def test_a_kernel_is_prepared_on_every_gpu_of_the_same_kind(gpus, second, prepared):
    """A traced program may run on any GPU of this kind. The kernel needs a higher limit of shared memory on each."""
    fake = gpus(devices=({}, second))
    backend.name_of(SHAPE)
    assert fake.calls.count("cuLibraryLoadData") == 1
    assert fake.calls.count("cuKernelSetAttribute") == prepared


def test_tracing_an_epoch_loads_its_kernel(gpus):
    fake = gpus()
    network, x, y, order, eta = shapes()
    text = lowered(lambda *given: backend.epoch(*given, 4), network, x, y, order, eta)
    name = cubins.name_of(FakeCompiler(), SHAPE, "sm_90")
    assert f'kernel = "{name}"' in text
    assert fake.calls.count("cuLibraryLoadData") == 1
    with pytest.raises(CudaError, match="takes at most 16 examples per mini-batch, got 17"):
        backend.epoch(*(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes())), 17)


def test_about_gives_a_remedy_if_jax_does_not_see_the_gpu(gpus, monkeypatch):
    gpus()
    assert backend.BACKEND.about().endswith("driver for CUDA 13.0, NVRTC 13.0")

    def sees_none():
        raise RuntimeError("no GPU")

    monkeypatch.setattr(backend, "_default_gpu", sees_none)
    assert backend.BACKEND.about().endswith("but JAX sees no GPU (JAX for a GPU: pip install 'jaxgd[cuda13]')")


def test_without_a_device_there_is_no_fingerprint():
    if isinstance(driver.device(), str):
        assert backend.BACKEND.fingerprint() is None
        assert backend.BACKEND.about() == driver.device()


def test_examples_are_prepared_in_the_dtypes_of_the_kernel():
    x, labels = np.zeros((2, 3), np.uint8), np.array([1, 2], np.uint8)
    assert backend.BACKEND.prepare(Examples(x, jnp.asarray(labels))).y.dtype == jnp.int32
    assert backend.BACKEND.prepare(Examples(x, jnp.zeros((2, 3), jnp.float16))).y.dtype == jnp.float32


# Programs for CUDA.
def shapes(front=(), sizes=(20, 5, 3), labels=True):
    """Return the shapes of an epoch's arguments. `front` holds the leading axes of the network, the order and η."""

    def of(shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype)

    network = tuple(Layer(of((*front, b, a)), of((*front, b))) for a, b in itertools.pairwise(sizes))
    y = of((N,), jnp.int32) if labels else of((N, sizes[-1]))
    return network, of((N, sizes[0]), jnp.uint8), y, of((*front, N), jnp.int32), of(front)


def lowered(f, *given):
    """Lower a function for CUDA, which needs no GPU, and return the text of the program."""
    return jax.jit(f).trace(*given).lower(lowering_platforms=("cuda",)).as_text()


def types(*arrays):
    """Return the types of arrays as they are written in a program."""
    names = {"float32": "f32", "int32": "i32", "uint8": "ui8"}
    return ", ".join(f"tensor<{''.join(f'{k}x' for k in shape)}{names[dtype]}>" for shape, dtype in arrays)


def require_call(text, front=(), sizes=(20, 5, 3), labels=True, padded=32):
    """Require exactly one call of the kernel, and check its shapes, aliases, attributes and layouts."""
    (call,) = re.findall(r"stablehlo\.custom_call @jaxgd_cuda_epoch\((.*)\) \{(.*)\} : \((.*)\) -> \((.*)\)\n", text)
    arguments, attributes, operands, results = call
    inputs, hidden, outputs = sizes
    network = [((*front, *shape), "float32") for shape in ((hidden, inputs), (hidden,), (outputs, hidden), (outputs,))]
    y = ((N,), "int32") if labels else ((N, outputs), "float32")
    assert len(arguments.split(", ")) == 8
    assert operands == types(((N, padded), "uint8"), y, ((*front, N), "int32"), (front, "float32"), *network)
    assert results == types((front, "int32"), *network)
    aliases = re.findall(r"output_tuple_indices = \[(\d)\], operand_index = (\d), operand_tuple_indices = \[\]", text)
    assert aliases == [("1", "4"), ("2", "5"), ("3", "6"), ("4", "7")]
    shape = backend.shape_of(sizes, 4, None)
    want = {"batch_size": "4 : i64", "kernel": '"abc"', "shared_bytes": f"{shape.shared_bytes} : i64"}
    want["threads"] = f"{shape.threads} : i64"
    (held,) = re.findall(r"mhlo\.backend_config = \{(.*?)\}", attributes)
    assert dict(each.split(" = ") for each in held.split(", ")) == want
    # The kernel reads arrays in row-major order.
    for layout in re.findall(r"dense<\[([\d, ]+)\]> : tensor<\dxindex>", attributes):
        axes = [int(axis) for axis in layout.split(", ")]
        assert axes == sorted(axes, reverse=True)


def the_epoch(sizes=(20, 5, 3)):
    return backend.epoch_of(backend.shape_of(sizes, 4, None), "abc")


SIZES = {"padded": ((20, 5, 3), 32), "not padded": ((32, 5, 3), 32), "1 input": ((1, 1, 1), 16)}


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("name", SIZES)
def test_an_epoch_lowers_for_cuda(name, labels):
    sizes, padded = SIZES[name]
    text = lowered(the_epoch(sizes), *shapes((), sizes, labels))
    require_call(text, (), sizes, labels, padded)
    assert ("stablehlo.pad" in text) == (padded != sizes[0])


NETWORK, ORDER, ETA = (0, None, None, None, None), (None, None, None, 0, None), (None, None, None, None, 0)
ALL = (0, None, None, 0, 0)
# The axes of a vmap. Mapping the networks, the orders or η alone makes a grid.
GRIDS = {"networks": NETWORK, "orders": ORDER, "η": ETA, "all": ALL}


def with_front(axes, front=(6,)):
    """Return the shapes of an epoch's arguments. Arguments with 0 in `axes` have the leading axes `front`."""
    plain, batched = shapes(), shapes(front)
    return [each if axis == 0 else same for axis, each, same in zip(axes, batched, plain, strict=True)]


@pytest.mark.parametrize("name", GRIDS)
def test_networks_under_vmap_become_the_grid(name):
    axes = GRIDS[name]
    require_call(lowered(jax.vmap(the_epoch(), axes), *with_front(axes)), (6,))


def test_a_vmap_of_a_vmap_becomes_one_grid():
    nested = jax.vmap(jax.vmap(the_epoch(), ALL), ALL)
    text = lowered(nested, *with_front(ALL, (2, 3)))
    require_call(text, (6,))
    assert "tensor<6x5x20xf32>) -> tensor<2x3x5x20xf32>" in text
    # The outer vmap has 2 orders, and the inner one 3 learning rates.
    across = jax.vmap(jax.vmap(the_epoch(), ETA), ORDER)
    network, x, y, *_ = shapes()
    text = lowered(across, network, x, y, with_front(ORDER, (2,))[3], with_front(ETA, (3,))[4])
    require_call(text, (6,))


def epochs(network, x, y, orders, eta):
    """Train for an epoch per order, in a scan."""

    def one(network, order):
        return the_epoch()(network, x, y, order, eta)

    return jax.lax.scan(one, network, orders)


def test_a_scan_of_epochs_and_a_vmap_of_the_scan_lower_for_cuda():
    network, x, y, _, eta = shapes()
    orders = jax.ShapeDtypeStruct((7, N), jnp.int32)
    text = lowered(epochs, network, x, y, orders, eta)
    require_call(text)
    assert "stablehlo.while" in text
    text = lowered(jax.vmap(epochs, (0, None, None, None, 0)), shapes((6,))[0], x, y, orders, shapes((6,))[4])
    require_call(text, (6,))
    assert "stablehlo.while" in text


@pytest.mark.parametrize("axes", [(None, 0, None, None, None), (0, 0, 0, 0, 0)], ids=str)
def test_networks_on_different_data_train_one_by_one(axes):
    arrays = [
        jax.tree.map(lambda s: jax.ShapeDtypeStruct((6, *s.shape), s.dtype), each) if axis == 0 else each
        for axis, each in zip(axes, shapes(), strict=True)
    ]
    text = lowered(jax.vmap(the_epoch(), axes), *arrays)
    require_call(text)
    assert "stablehlo.while" in text


def test_with_float64_enabled_the_program_is_the_same(x64):
    require_call(lowered(the_epoch(), *shapes()))


def test_a_traced_program_may_run_on_another_device(gpus):
    """Under jit, the arrays count as arrays on the GPU, but JAX may place the program on the CPU of the same host."""
    gpus()
    data = np.zeros((N, 20), np.uint8), np.zeros(N, np.int32)

    def trained(eta, kernel="auto"):
        result = train(job().network, data, epochs=2, batch_size=4, eta=eta, key=jax.random.key(0), kernel=kernel)
        assert result.kernel.name == ("cuda" if kernel == "auto" else kernel)
        return result.network

    traced = jax.jit(trained).trace(jnp.float32(1.0))
    assert traced.lower(lowering_platforms=("cuda",)).as_text().count("custom_call @jaxgd_cuda_epoch(") == 1
    assert "jaxgd_cuda_epoch" not in traced.lower(lowering_platforms=("cpu",)).as_text()
    # A requested backend is kept: on another device, JAX reports that the backend is missing.
    requested = jax.jit(lambda eta: trained(eta, "cuda")).trace(jnp.float32(1.0))
    assert "jaxgd_cuda_epoch" in requested.lower(lowering_platforms=("cpu",)).as_text()
