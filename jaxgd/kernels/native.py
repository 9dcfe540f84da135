"""The native CPU kernels: a small C++ library, called from compiled programs through JAX's foreign-function interface.

The folder src holds its sources, which describe the algorithms and the layout of the data.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxgd.cost import Cost, cross_entropy, quadratic_cost
from jaxgd.examples import Examples
from jaxgd.kernels.calls import arrays_of, batched, network_of, result
from jaxgd.kernels.evaluation import Evaluation, Objective
from jaxgd.kernels.protocol import Backend, Epoch, Evaluate, Job, with_derivatives
from jaxgd.mesh.partition import divided
from jaxgd.network import Network, network_sizes
from jaxgd.pytree import is_wide, size
from jaxgd.typed import Tree, map_rows, tree_leaves

LIBRARY = Path(__file__).parent / "_native.so"

# XLA's large matrix products are faster. "auto" therefore takes XLA if two conditions hold: a layer is wider than its
# limit below, and the batch size is None or more than _LARGEST_BATCH. Native time divided by XLA's time, measured for
# [784, 512, 512, 10]: 0.73 with 10 examples per mini-batch, 1.12 with 32 and 1.5 with 128. The first hidden layer has a
# larger limit, because several threads share it and skip inputs that are zero. With 300 and 1,000 neurons in the first
# hidden layer, the ratio was 0.4 to 0.9, for mini-batches of 10 to 1,000 and for a full batch of 10,000. Wider first
# layers were not measured.
_WIDEST, _WIDEST_FIRST = 256, 1024
_LARGEST_BATCH = 32


@functools.cache
def library() -> ctypes.CDLL | str:
    """Load the library and register its functions with JAX. If that fails, return the reason in words."""
    if not LIBRARY.exists():
        return "the native library was not built when jaxgd was installed; it needs a C++ compiler (GCC or Clang)"
    try:
        loaded = ctypes.CDLL(str(LIBRARY))
        for name, platform in (("jaxgd_epoch", "cpu"), ("jaxgd_evaluate", "cpu"), ("jaxgd_cuda_epoch", "CUDA")):
            capsule = jax.ffi.pycapsule(getattr(loaded, name))  # type: ignore[no-untyped-call]
            jax.ffi.register_ffi_target(name, capsule, platform=platform)
        loaded.jaxgd_isa.restype = ctypes.c_char_p
        loaded.jaxgd_cuda_register.argtypes = [ctypes.c_char_p, ctypes.c_void_p, *[ctypes.c_int64] * 4]
        loaded.jaxgd_cuda_register.restype = None
    except (OSError, AttributeError, RuntimeError, ValueError) as error:  # jaxlib raises the last two
        return f"the native library cannot be loaded: {error}"
    return loaded


def isa() -> str:
    """Return the instruction set of the kernels, which decides the bits of results.

    If the kernels cannot run, return the reason.
    """
    loaded = library()
    return loaded if isinstance(loaded, str) else loaded.jaxgd_isa().decode()


def about() -> str:
    """Return the instruction set and the number of threads, or the reason why the kernels cannot run."""
    loaded = library()
    if isinstance(loaded, str):
        return loaded
    threads = loaded.jaxgd_threads()
    return f"{isa()}, {threads} thread{'s' if threads > 1 else ''}"


# The library's name of each cost that it knows.
COSTS: dict[Cost, str] = {quadratic_cost: "quadratic", cross_entropy: "cross-entropy"}


def epoch(
    network: Network,
    x: Array,
    y: Array,
    order: Int[Array, "*batch n"],
    eta: Float[Array, "*batch"],
    batch_size: int,
    cost: Cost = quadratic_cost,
    decay: Float[Array, "*batch"] | None = None,
    *,
    isa: str | None = None,
    threads: int | None = None,
) -> tuple[Network, Bool[Array, "*batch"]]:
    """Make one update per mini-batch, over all examples in the given order.

    w → (1 − ηλ/n) w − η ∂C/∂w;  b → b − η ∂C/∂b, where C is the mean cost of the mini-batch.

    Several threads may train one network together if a mini-batch is enough work. The result is the same, bit for bit,
    for any number of threads. Under vmap over networks, orders, η and λ/n, several networks train at a time, and all
    share the data. Under vmap over the data too, each device trains its networks one after the other.

    Args:
        network: The network of sigmoid neurons, float32.
        x: Inputs, (n, in): bytes, used as x/255, or float32.
        y: Labels (n,) as int32, or targets (n, out) as float32.
        order: The order of the examples, a permutation of 0, …, n − 1, as int32. Each mini-batch takes the next
            `batch_size` examples.
        eta: The learning rate η, a float32 scalar.
        batch_size: Examples per mini-batch, 1 to n. The last mini-batch may be smaller.
        cost: The cost, one of `COSTS`. By default `quadratic_cost`.
        decay: The decay λ/n of L2 regularization, a float32 scalar. None gives the same bits as 0.
        isa: The instruction set, as in `isa()`. By default the one with the widest vectors.
        threads: The most threads that train each network. By default, the library chooses the number.

    Returns:
        The network after the epoch, and True if the cost of every mini-batch was finite.
    """
    decay = jnp.zeros_like(eta) if decay is None else decay
    return _epoch(batch_size, COSTS[cost], isa, threads)((network, order, eta, decay), (x, y))


Mapped = tuple[Network, Array, Array, Array]
"""The arguments of an epoch that may differ between the networks of a batch: the network, the order, η and λ/n."""

Data = tuple[Array, Array]
"""The inputs and the answers."""


@functools.cache
def _epoch(
    batch_size: int, cost: str, isa: str | None, threads: int | None
) -> Callable[[Mapped, Data], tuple[Network, Array]]:
    attributes: dict[str, str | np.int64] = {"batch_size": np.int64(batch_size), "cost": cost, **_isa(isa)}
    if threads is not None:
        attributes["threads"] = np.int64(threads)

    def one(mapped: Mapped, data: Data) -> tuple[Network, Array]:
        network, order, eta, decay = mapped
        arrays = arrays_of(network)
        call = jax.ffi.ffi_call(
            "jaxgd_epoch",
            (result(order.shape[:-1], np.int32), *(result(v.shape) for v in arrays)),
            # Update the weights and biases in place.
            input_output_aliases={5 + i: 1 + i for i in range(len(arrays))},
        )
        finite, *arrays = call(*data, order, eta, decay, *arrays, **attributes)
        return network_of(arrays), finite == 1

    run = batched(one, lambda mapped, data: divided(run, mapped, data), divide=True)
    return run


def evaluate(
    network: Network, x: Array, y: Array, gradient: bool, cost: Cost = quadratic_cost, *, isa: str | None = None
) -> Evaluation:
    """Evaluate a network on all examples in one pass.

    Costs are summed in float64. Gradients are summed in float32 over groups of about 512 examples, and
    the sums of the groups are added in float64. Under vmap, each device evaluates its networks one after the other.

    Args:
        network: The network of sigmoid neurons, float32.
        x: Inputs, (n, in): bytes, used as x/255, or float32.
        y: Labels (n,) as int32, or targets (n, out) as float32.
        gradient: True to compute ∇C.
        cost: The cost, one of `COSTS`. By default `quadratic_cost`.
        isa: The instruction set, as in `isa()`. By default the one with the widest vectors.

    Returns:
        The cost, the accuracy, the saturation and ∇C.
    """
    return _evaluate(network, x, y, gradient, cost, isa, outputs=False)[0]


def evaluate_with_outputs(
    network: Network, x: Array, y: Array, gradient: bool, cost: Cost = quadratic_cost, *, isa: str | None = None
) -> tuple[Evaluation, Float[Array, "n out"]]:
    """Return the evaluation and the outputs of all examples. The tests check the outputs."""
    evaluation, outputs = _evaluate(network, x, y, gradient, cost, isa, outputs=True)
    return evaluation, outputs[0]


def _evaluate(
    network: Network, x: Array, y: Array, gradient: bool, cost: Cost, isa: str | None, *, outputs: bool
) -> tuple[Evaluation, list[Array]]:
    """Return the evaluation, and a list with the outputs; the list is empty unless `outputs` is True."""

    def one(network: Network, data: Data) -> tuple[Evaluation, list[Array]]:
        arrays = arrays_of(network)
        shapes = [result(()), result(()), result((), np.int32)]
        shapes += [result((data[1].shape[0], arrays[-1].shape[0]))] if outputs else []
        shapes += [result(v.shape) for v in arrays] if gradient else []
        call = jax.ffi.ffi_call("jaxgd_evaluate", shapes)
        c, right, saturated, *rest = call(*data, *arrays, cost=COSTS[cost], **_isa(isa))
        a = [rest.pop(0)] if outputs else []
        return Evaluation(c, right, saturated == 1, network_of(rest) if gradient else None), a

    def many(networks: Network, data: Data) -> tuple[Evaluation, list[Array]]:
        # The library cannot batch evaluations; map over them one by one.
        out: tuple[Evaluation, list[Array]] = divided(
            lambda networks, data: map_rows(lambda v: run(v, data), networks), networks, data
        )
        return out

    run = batched(one, many, divide=True)
    return run(network, (x, y))


def _isa(isa: str | None) -> dict[str, str]:
    """Return the attribute that selects the instruction set for a call, or no attribute if `isa` is None."""
    return {} if isa is None else {"isa": isa}


class _Native(Backend):
    """The native kernels as a backend: plain descent of networks of sigmoid neurons, in float32 on one CPU device.

    The cost is one of `COSTS`, with or without L2 regularization.
    """

    name, platform = "native", "cpu"

    def about(self) -> str:
        """Return the instruction set and the number of threads, or the reason why the kernels cannot run."""
        return about()

    def fingerprint(self) -> str:
        """Return the instruction set of the kernels, or the reason why they cannot run."""
        return isa()

    def why_unsupported(self, job: Job) -> str | None:
        """Return the reason why the native kernels cannot run, or None if they can."""
        dtypes = {x.dtype for x in tree_leaves(job.network)}
        if dtypes != {np.dtype("float32")}:
            return f"the native kernels need a float32 network, got {', '.join(sorted(map(str, dtypes)))}"
        if job.optimizer is not None:
            return "the native kernels know only plain descent, and an optimizer was given"
        if job.cost not in COSTS:
            return "the native kernels know only the quadratic cost and the cross-entropy, and another cost was given"
        if (others := job.other_activations()) is not None:
            return f"the native kernels know only sigmoid neurons, got {others}"
        if job.schedule is not None:
            return "the native kernels know only a constant η, and a schedule was given"
        if job.examples.x.dtype not in (np.uint8, np.float32):
            return f"the native kernels need inputs of bytes or float32, got {job.examples.x.dtype}"
        if (places := job.places()) != {"cpu"}:
            return f"the native kernels need arrays on one CPU device, got {', '.join(sorted(places - {'cpu'}))}"
        loaded = library()
        return loaded if isinstance(loaded, str) else None

    def why_slower(self, job: Job) -> str | None:
        """Return the reason why "auto" prefers XLA for these shapes, or None if it prefers the native kernels."""
        if is_wide(job.network):
            # Each native thread holds two copies of all layers after the first, and gradients are summed in float64.
            return f"needs less memory for {size(job.network):,} weights"
        _, first, *later = network_sizes(job.network)
        limits = ((first, _WIDEST_FIRST), (max(later, default=0), _WIDEST))
        too_wide = [width for width, limit in limits if width > limit]
        if too_wide and (job.batch_size is None or job.batch_size > _LARGEST_BATCH):
            return f"quicker for layers of {max(too_wide)} neurons and large batches"
        return None

    def why_faster(self, job: Job) -> str:
        """Return the reason for choosing the native kernels."""
        return f"quicker for these shapes, on the CPU ({about()})"

    def prepare(self, examples: Examples) -> Examples:
        """Return the examples with targets in float32. Labels keep their dtype."""
        x, y = examples
        return examples if jnp.issubdtype(y.dtype, np.integer) else Examples(x, y.astype(np.float32))

    def epoch(self, by_xla: Epoch, optimizer_state: Tree, batch_size: int, objective: Objective) -> Epoch:
        """Return the native epoch. It ignores the precision and multiplies in float32."""

        def by_library(
            network: Network, examples: Examples, order: Array, eta: Array, decay: Array | None
        ) -> tuple[Network, Tree, Array]:
            network, finite = epoch(network, *examples, order, eta, batch_size, objective.cost, decay)
            return network, optimizer_state, finite

        return with_derivatives(by_library, by_xla)

    def evaluate(self, by_xla: Evaluate, gradient: bool, objective: Objective) -> Evaluate:
        """Return the native evaluation. It ignores the precision and multiplies in float32."""

        def by_library(network: Network, examples: Examples) -> Evaluation:
            return evaluate(network, *examples, gradient, objective.cost)

        return with_derivatives(by_library, by_xla)


BACKEND: Backend = _Native()
