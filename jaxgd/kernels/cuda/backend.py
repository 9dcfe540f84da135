"""The CUDA backend: plain descent on the quadratic cost, for small networks with one hidden layer.

Each network is trained by one block of threads for the whole epoch. Under `vmap` over networks that share the data, one
launch trains all networks, one block each.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import PrecisionLike
from jaxtyping import Array, Bool, Float, Int

from jaxgd.cost import quadratic_cost
from jaxgd.examples import Examples
from jaxgd.kernels import native
from jaxgd.kernels.calls import arrays_of, batched, network_of, result
from jaxgd.kernels.cuda import cubins, driver, nvrtc
from jaxgd.kernels.cuda.errors import CudaError
from jaxgd.kernels.cuda.shape import MOST_BATCH, MOST_HIDDEN, MOST_INPUTS, MOST_OUTPUTS, Shape
from jaxgd.kernels.evaluation import Objective
from jaxgd.kernels.protocol import Backend, Epoch, Job, with_derivatives
from jaxgd.network import Network, network_sizes
from jaxgd.typed import Tree, tree_leaves, tree_map

TARGET = "jaxgd_cuda_epoch"
_HIGHEST, _HIGH = jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGH
# The number of TF32 parts per float32 factor, by the precision that the user asks for.
_PARTS: dict[object, int] = {
    None: 2,
    **{"float32": 2, "highest": 2, _HIGHEST: 2},
    **{"tensorfloat32": 1, "high": 1, _HIGH: 1},
}


def shape_of(sizes: Sequence[int], batch_size: int | None, precision: object) -> Shape | str:
    """Return the shape to compile the kernel for, or one line that says why the kernel does not take these arguments.

    Args:
        sizes: The sizes of the network's layers.
        batch_size: Examples per mini-batch, or None for the full batch.
        precision: The precision of matrix products. None, "float32" and "highest" split a float32 factor into two TF32
            parts; "tensorfloat32" and "high" use one part.

    Returns:
        The shape, or the reason.
    """
    if len(sizes) != 3:
        return f"the CUDA kernel needs one hidden layer, got {len(sizes) - 2}"
    if batch_size is None:
        return "the CUDA kernel needs mini-batches, got the full batch"
    limits = (
        ("inputs", sizes[0], MOST_INPUTS),
        ("hidden neurons", sizes[1], MOST_HIDDEN),
        ("outputs", sizes[2], MOST_OUTPUTS),
        ("examples per mini-batch", batch_size, MOST_BATCH),
    )
    for unit, count, limit in limits:
        if count > limit:
            return f"the CUDA kernel takes at most {limit:,} {unit}, got {count:,}"
    try:
        parts = _PARTS.get(precision)
    except TypeError:  # not hashable
        parts = None
    if parts is None:
        return f'the CUDA kernel needs the precision None, "float32" or "tensorfloat32", got {precision!r}'
    return Shape(sizes[0], sizes[1], sizes[2], batch_size, parts)


@functools.cache
def loaded(shape: Shape, ordinal: int) -> cubins.Cubin | str:
    """Load the kernel for a shape on a device of this process. Return the kernel, or one line that says why not.

    The first use of a shape compiles the kernel, unless it is on disk from an earlier process. Compiling takes about a
    second. Programs compiled by JAX refer to the kernel by its name.
    """
    device = driver.device(ordinal)
    if isinstance(device, str):
        return device
    library, loaded_driver = native.library(), driver.driver()
    if isinstance(library, str) or isinstance(loaded_driver, str):
        return str(library if isinstance(library, str) else loaded_driver)
    unsuitable = driver.why_unsuitable(device, shape)
    if unsuitable is not None:
        return unsuitable
    compiler = nvrtc.compiler(device.driver[0])
    if isinstance(compiler, str):
        return compiler
    try:
        cubin = cubins.cubin(compiler, shape, device.capability)
        # Devices of one architecture share the handle.
        if cubin.name not in _handles:
            _handles[cubin.name] = loaded_driver.load(cubin.compiled.cubin)
        loaded_driver.enable(_handles[cubin.name], shape.shared_bytes, ordinal)
    except CudaError as error:
        return str(error)
    library.jaxgd_cuda_register(cubin.name.encode(), _handles[cubin.name], *shape[:4])
    return cubin


_handles: dict[str, int] = {}


def load(sizes: Sequence[int], batch_size: int, precision: PrecisionLike = None) -> str:
    """Load the kernel on JAX's default GPU and the other GPUs of the same kind, and return its name.

    `train` loads its kernel itself. Call this function before you run an exported program, which holds only the name of
    its kernel.

    Args:
        sizes: The sizes of the network's layers, such as (784, 30, 10).
        batch_size: Examples per mini-batch.
        precision: The precision of matrix products, as in `train`.

    Returns:
        The name of the kernel.

    Raises:
        CudaError: If the kernel cannot run here. The message gives the reason.
    """
    shape = shape_of(sizes, batch_size, precision)
    if isinstance(shape, str):
        _refuse(shape)
    return name_of(shape)


def name_of(shape: Shape) -> str:
    """Load the kernel on JAX's default GPU, and return its name. Raise CudaError with the reason if that fails.

    JAX decides after tracing which GPU runs a program, so this also loads the kernel on the process's other GPUs of the
    same compute capability. A failure on one of these is ignored.
    """
    try:
        ordinal = _default_gpu().local_hardware_id
    except RuntimeError as error:
        _refuse(f"JAX sees no GPU: {' '.join(str(error).split())}")
    cubin = loaded(shape, ordinal)
    if isinstance(cubin, str):
        _refuse(cubin)
    for other in _local_gpus():
        if _capability(other) == _capability(ordinal):
            loaded(shape, other)
    return cubin.name


def _local_gpus() -> list[int]:
    """Return the numbers of this process's GPUs."""
    return [device.local_hardware_id for device in jax.local_devices(backend="gpu")]


def _capability(ordinal: int) -> tuple[int, int] | None:
    device = driver.device(ordinal)
    return None if isinstance(device, str) else device.capability


def _refuse(reason: str) -> NoReturn:
    raise CudaError(f"the CUDA kernel cannot run here: {reason}")


def _default_gpu() -> jax.Device:
    """Return JAX's default device if it is a GPU, otherwise the first GPU of this process."""
    config: Any = jax.config
    device = config.jax_default_device or jax.local_devices()[0]
    return device if getattr(device, "platform", None) == "gpu" else jax.local_devices(backend="gpu")[0]


def _jax_sees_a_gpu() -> bool:
    try:
        _default_gpu()
    except RuntimeError:
        return False
    return True


def _extra() -> str:
    """Return advice to install JAX: for CUDA 12 if the driver is older than 13.0, otherwise for CUDA 13."""
    device = driver.device()
    old = not isinstance(device, str) and device.driver < (13, 0)
    return f"JAX for a GPU: pip install 'jaxgd[cuda{12 if old else 13}]'"


def _gpus_of(job: Job) -> set[int]:
    """Return the numbers of the GPUs that hold the arrays. Leave out arrays without a device, such as traced ones."""
    arrays = [x for x in tree_leaves((job.network, job.examples)) if not isinstance(x, jax.core.Tracer)]
    return {device.local_hardware_id for x in arrays if isinstance(x, jax.Array) for device in x.devices()}


def epoch(
    network: Network,
    x: Array,
    y: Array,
    order: Int[Array, "*batch n"],
    eta: Float[Array, "*batch"],
    batch_size: int,
    precision: PrecisionLike = None,
) -> tuple[Network, Bool[Array, "*batch"]]:
    """Make one update v → v − η∇C per mini-batch, over all examples in the given order.

    Under vmap over networks, orders and η, one block of threads trains each network, and all share the data. Blocks
    that do not fit on the device wait for the others. If vmap batches the data too, the networks train one by one.

    Args:
        network: The network of sigmoid neurons, float32, with one hidden layer.
        x: Inputs, (n, in), bytes. The kernel uses x/255.
        y: Labels (n,) as int32, or targets (n, out) as float32.
        order: The order of the examples, as in `native.epoch`.
        eta: The learning rate η, a float32 scalar.
        batch_size: Examples per mini-batch, 1 to 16, and at most n. The last mini-batch may be smaller.
        precision: The precision of the products with the inputs. None and "float32" split each float32 factor into two
            TF32 numbers, which keep 22 of its bits. "tensorfloat32" keeps 11 bits.

    Returns:
        The network after the epoch, and True if no output was NaN, every label names an output, and every number in the
        order names an example.

    Raises:
        CudaError: If the kernel does not take these sizes or this precision, or cannot run here.
    """
    sizes = (network[0].w.shape[-1], *(layer.b.shape[-1] for layer in network))
    shape = shape_of(sizes, batch_size, precision)
    if isinstance(shape, str):
        _refuse(shape)
    return epoch_of(shape, name_of(shape))(network, x, y, order, eta)


Mapped = tuple[Network, Array, Array]
"""The arguments of an epoch that may differ between the networks of a batch: the network, the order and η."""

Data = tuple[Array, Array]
"""The inputs and the answers."""


@functools.cache
def epoch_of(shape: Shape, name: str) -> Callable[[Network, Array, Array, Array, Array], tuple[Network, Array]]:
    """Return a function of the network, x, y, order and η. It runs an epoch by the kernel of this name."""

    def one(mapped: Mapped, data: Data) -> tuple[Network, Array]:
        (network, order, eta), (x, y) = mapped, data
        arrays = arrays_of(network)
        if shape.row_bytes > shape.inputs:
            x = jnp.pad(x, ((0, 0), (0, shape.row_bytes - shape.inputs)))
        call = jax.ffi.ffi_call(
            TARGET,
            (result(eta.shape, np.int32), *(result(v.shape) for v in arrays)),
            # The kernel updates the weights and biases in place.
            input_output_aliases={4 + i: 1 + i for i in range(len(arrays))},
        )
        sizes = {name: np.int64(getattr(shape, name)) for name in ("batch_size", "threads", "shared_bytes")}
        finite, *arrays = call(x, y, order, eta, *arrays, kernel=name, **sizes)
        return network_of(arrays), finite == 1

    def many(mapped: Mapped, data: Data) -> tuple[Network, Array]:
        if mapped[2].ndim == 1:
            return run(mapped, data)
        # Under a vmap of a vmap, merge both axes into one, because a launch takes one axis of networks.
        out = run(tree_map(lambda v: v.reshape(-1, *v.shape[2:]), mapped), data)
        return tree_map(lambda v: v.reshape(*mapped[2].shape, *v.shape[1:]), out)

    run = batched(one, many, divide=False)
    return lambda network, x, y, order, eta: run((network, order, eta), (x, y))


class _Cuda(Backend):
    """The CUDA kernel as a backend: plain descent on the quadratic cost, in float32 on one NVIDIA GPU."""

    name, platform = "cuda", "gpu"

    def about(self) -> str:
        """Return the device and the compiler, or the reason why the kernel cannot run."""
        device = driver.device()
        if isinstance(device, str):
            return device
        if not _jax_sees_a_gpu():
            return f"{device}, but JAX sees no GPU ({_extra()})"
        compiler = nvrtc.compiler(device.driver[0])
        return compiler if isinstance(compiler, str) else f"{device}, {compiler}"

    def fingerprint(self) -> str | None:
        """Return the compiler's version, because it influences the results; None without a suitable GPU or compiler."""
        device = driver.device()
        compiler = device if isinstance(device, str) else nvrtc.compiler(device.driver[0])
        return None if isinstance(compiler, str) else str(compiler)

    def why_unsupported(self, job: Job) -> str | None:
        """Return the reason why the kernel cannot run, or None if it can.

        The first call for a shape may compile the kernel.
        """
        dtypes = {x.dtype for x in tree_leaves(job.network)}
        if dtypes != {np.dtype("float32")}:
            return f"the CUDA kernel needs a float32 network, got {', '.join(sorted(map(str, dtypes)))}"
        if job.optimizer is not None:
            return "the CUDA kernel knows only plain descent, and an optimizer was given"
        if job.cost is not quadratic_cost:
            return "the CUDA kernel knows only the quadratic cost, and another cost was given"
        if (others := job.other_activations()) is not None:
            return f"the CUDA kernel knows only sigmoid neurons, got {others}"
        if job.l2 is not None:
            return "the CUDA kernel knows no L2 regularization, and l2 was given"
        if job.schedule is not None:
            return "the CUDA kernel knows only a constant η, and a schedule was given"
        if job.examples.x.dtype != np.uint8:
            return f"the CUDA kernel needs inputs of bytes, got {job.examples.x.dtype}"
        shape = shape_of(network_sizes(job.network), job.batch_size, job.precision)
        if isinstance(shape, str):
            return shape
        if (places := job.places()) != {"gpu"}:
            remedy = f" ({_extra()})" if places == {"cpu"} and not _jax_sees_a_gpu() else ""
            return f"the CUDA kernel needs arrays on one NVIDIA GPU, got {', '.join(sorted(places - {'gpu'}))}{remedy}"
        return self._why_not_on(job, shape)

    def _why_not_on(self, job: Job, shape: Shape) -> str | None:
        """Return why the kernel cannot run on JAX's default GPU or on the GPUs of the arrays, or None if it can."""
        names = set()
        for ordinal in (_default_gpu().local_hardware_id, *_gpus_of(job)):
            cubin = loaded(shape, ordinal)
            if isinstance(cubin, str):
                return cubin
            names.add(cubin.name)
        if len(names) > 1:
            return "the CUDA kernel is compiled for JAX's default GPU, and the arrays are on a GPU of another kind"
        return None

    def why_faster(self, job: Job) -> str:
        """Return the reason for choosing the CUDA kernel."""
        return f"quicker for these shapes, on the GPU ({self.about()})"

    def prepare(self, examples: Examples) -> Examples:
        """Return the examples with labels in int32 or targets in float32."""
        x, y = examples
        return Examples(x, y.astype(np.int32 if jnp.issubdtype(y.dtype, np.integer) else np.float32))

    def epoch(self, by_xla: Epoch, optimizer_state: Tree, batch_size: int, objective: Objective) -> Epoch:
        """Return the function that runs an epoch by the kernel."""

        def by_kernel(
            network: Network, examples: Examples, order: Array, eta: Array, _: Array | None
        ) -> tuple[Network, Tree, Array]:
            network, finite = epoch(network, *examples, order, eta, batch_size, objective.precision)
            return network, optimizer_state, finite

        return with_derivatives(by_kernel, by_xla)


BACKEND: Backend = _Cuda()
