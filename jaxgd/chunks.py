"""Evaluation of many examples in chunks that fit a budget of memory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

from jaxgd.activations import activate
from jaxgd.errors import DtypeError, describe, is_traced, require_count
from jaxgd.examples import inputs
from jaxgd.network import Network, network_sizes, output_weighted_input
from jaxgd.pytree import is_wide, size
from jaxgd.typed import tree_leaves


class Budget(NamedTuple):
    """Limits on the memory that XLA uses to evaluate many examples.

    The limits decide which rows are computed together, and therefore how sums round.

    Each chunk makes a pass over the weights, which takes long in a wide network. A network with 2²⁴ or more weights and
    biases therefore has larger chunks: their limit is at least a quarter of the network's bytes.

    Attributes:
        chunk: Limit in bytes on the inputs, weighted inputs and activations of the rows that are computed together.
        kept: Limit in bytes on the weighted inputs of all rows. Up to this limit the forward pass keeps them for
            back-propagation; beyond it, back-propagation computes them again.
    """

    chunk: int
    kept: int


# The budget of each platform of JAX. It does not depend on the host's memory, so sums are split in the same way on
# every host with the same kind of device.
BUDGETS = {
    # A chunk of 8 MiB stays in the last-level cache, and allocates few new pages. For 50,000 images and [784, 30, 10],
    # ∇C took 0.6 times as long as without chunks. With 4 MiB, the factor was 0.6, and with 16 MiB it was 0.7. The limit
    # `kept` leaves most of a small host's memory to the data.
    "cpu": Budget(chunk=8 * 2**20, kept=256 * 2**20),
    # Not measured. Each chunk costs a round of kernel launches, so chunks are large. For [784, 30, 10], 60,000 images
    # take 207 MB and form one chunk. The limits, 3 GiB together, leave room for the data on a GPU of 8 GB.
    "gpu": Budget(chunk=2**30, kept=2**31),
    # Not measured. The smallest TPU in use has 8 GB per core.
    "tpu": Budget(chunk=2**30, kept=2**31),
}

UNLIMITED = Budget(chunk=2**62, kept=2**62)


def budget_of(x: object) -> Budget:
    """Return the budget of a JAX array's platform, or of JAX's default platform for a traced or NumPy array."""
    platform: str = jax.default_backend()
    if isinstance(x, jax.Array) and not is_traced(x):
        platform = next(iter(x.devices())).platform
    # Assume that an accelerator with another name has as much memory as a GPU.
    return BUDGETS.get(platform, BUDGETS["gpu"])


def require_budget(who: str, budget: object) -> Budget:
    """Return the budget. Raise unless `chunk` is a whole number of at least 1, and `kept` one of at least 0."""
    if not isinstance(budget, Budget):
        raise DtypeError(
            f"{who}: budget must be a jaxgd.chunks.Budget, got {describe(budget)}.\nPass Budget(chunk=…, kept=…)."
        )
    require_count(who, "budget.chunk", budget.chunk)
    require_count(who, "budget.kept", budget.kept, least=0)
    return budget


class Batched(NamedTuple):
    """The number of networks and of data sets that vmap evaluates together. All of them are in memory.

    Attributes:
        networks: The number of networks.
        data_sets: The number of sets of inputs; 1 if all networks share one set.
    """

    networks: int
    data_sets: int


UNBATCHED = Batched(networks=1, data_sets=1)


def batched_over(inputs: object, others: object) -> Batched:
    """Return the numbers of networks and data sets that vmap evaluates together.

    Both are 1 if no vmap maps over the arguments. A call inside a jit does not see a vmap around that jit.
    """
    networks = data_sets = 1

    @custom_vmap
    def probe(inputs: list[Array], others: list[Array]) -> tuple[list[Array], list[Array]]:
        return inputs, others

    @probe.def_vmap
    def _(
        axis_size: int, in_batched: list[list[bool]], inputs: list[Array], others: list[Array]
    ) -> tuple[object, tuple[list[bool], ...]]:
        nonlocal networks, data_sets
        networks *= axis_size
        data_sets *= axis_size if any(in_batched[0]) else 1
        # With nested vmaps, this call of `probe` runs the rule again for the outer vmap.
        return probe(inputs, others), tuple(in_batched)

    def unkeyed(x: Array) -> Array:
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.extended) else x

    traced = [[unkeyed(x) for x in tree_leaves(tree) if is_traced(x)] for tree in (inputs, others)]
    if any(traced):
        probe(*jax.lax.stop_gradient(traced))
    return Batched(networks, data_sets)


def outputs_in_chunks(network: Network, x: Array, budget: Budget | None = None) -> Float[Array, "n out"]:
    """Return the network's outputs for all rows of x, from the result of `weighted_inputs_in_chunks`."""
    return activate(network[-1].activation, weighted_inputs_in_chunks(network, x, budget=budget))


def weighted_inputs_in_chunks(
    network: Network,
    x: Array,
    precision: jax.lax.PrecisionLike = None,
    budget: Budget | None = None,
    batched: Batched = UNBATCHED,
) -> Float[Array, "n out"]:
    """Return the weighted inputs of the output layer for all rows of x, computed in chunks that fit the budget.

    With several chunks, back-propagation converts the inputs of each chunk to floats again. It also computes the
    weighted inputs again if those of all rows take more than `budget.kept` bytes.
    """
    budget = budget_of(x) if budget is None else budget

    def weighted_inputs(rows: Array) -> Array:
        return output_weighted_input("feedforward", network, inputs(rows, network[-1].b.dtype), precision)

    rows = rows_at_once(network, len(x), budget, batched)
    if rows == len(x):
        return weighted_inputs(x)
    kept = len(x) * batched.networks * sum(network_sizes(network)[1:]) * network[-1].b.dtype.itemsize
    policy = jax.checkpoint_policies.dots_saveable if kept <= budget.kept else None
    z: Array = jax.lax.map(jax.checkpoint(weighted_inputs, policy=policy), x, batch_size=rows)
    return z


def rows_at_once(network: Network, n: int, budget: Budget, batched: Batched = UNBATCHED) -> int:
    """Return the number of rows per chunk for n rows. It is n if all rows fit the budget."""
    first, *widths = network_sizes(network)
    # A layer holds its weighted inputs and its activations.
    floats = batched.data_sets * first + batched.networks * 2 * sum(widths)
    limit, itemsize = budget.chunk, network[-1].b.dtype.itemsize
    if is_wide(network):
        limit = max(limit, batched.networks * size(network) * itemsize // 4)
    most = max(limit // (floats * itemsize), 1)
    if n <= most:
        return n
    # If n is a multiple of the rows per chunk, XLA compiles no second program for a smaller last chunk.
    return next((rows for rows in range(most, most // 2, -1) if n % rows == 0), most)
