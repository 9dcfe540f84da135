"""The XLA backend: a compiled loop over the mini-batches, each gradient computed by autodiff."""

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from jaxgd.activations import activate
from jaxgd.chunks import UNBATCHED, Batched, Budget, weighted_inputs_in_chunks
from jaxgd.cost import Cost, cost_from, network_cost
from jaxgd.examples import Examples, inputs, targets
from jaxgd.kernels.evaluation import Evaluation, evaluation_of, penalty
from jaxgd.kernels.protocol import Backend, Epoch, Job
from jaxgd.mesh import control
from jaxgd.network import Network


@dataclasses.dataclass(frozen=True)
class Objective:
    """The cost to minimize, with the precision and the memory of its computation by XLA.

    Attributes:
        cost: The cost function of outputs and targets.
        precision: The precision of the matrix products. Default None, the device's default.
        budget: The limits on the memory of an evaluation. Default None, the budget of the device's platform.
        batched: The number of networks and data sets that vmap evaluates at once.
    """

    cost: Cost
    precision: Any = None
    budget: Budget | None = None
    batched: Batched = UNBATCHED

    def batch(self, network: Network, examples: Examples) -> Array:
        """Return the cost over all examples, computed at once."""
        dtype, width = network[-1].b.dtype, network[-1].b.shape[0]
        x, y = inputs(examples.x, dtype), targets(examples.y, width, dtype)
        return network_cost(network, x, y, cost=self.cost, precision=self.precision)

    def full(self, network: Network, examples: Examples) -> tuple[Array, Array]:
        """Return the cost over all examples, and their outputs, computed in chunks that fit the budget."""
        z = weighted_inputs_in_chunks(network, examples.x, self.precision, self.budget, self.batched)
        activation, y = network[-1].activation, targets(examples.y, z.shape[-1], z.dtype)
        return cost_from(self.cost, activation, z, y), activate(activation, z)

    def evaluate(self, network: Network, examples: Examples, gradient: bool) -> Evaluation:
        """Evaluate the network on all examples in one pass, with ∇C if `gradient` is True."""
        if not gradient:
            c, a = self.full(network, examples)
            return evaluation_of(c, a, examples.y, None, network[-1].activation)
        (c, a), slopes = jax.value_and_grad(self.full, has_aux=True)(network, examples)
        return evaluation_of(c, a, examples.y, slopes, network[-1].activation)


def step(
    network: Network, optimizer_state: PyTree[Array], gradient: Network, rule: Any, **extra: Any
) -> tuple[Network, PyTree[Array]]:
    """Make one update by a rule. Return the network and the state of the rule."""
    steps, optimizer_state = rule.update(gradient, optimizer_state, network, grad=gradient, **extra)
    return optax.apply_updates(network, steps), optimizer_state


def epoch(
    network: Network,
    optimizer_state: PyTree[Array],
    examples: Examples,
    order: Int[Array, " n"],
    eta: Float[Array, "*updates"],
    rule_of: Any,
    objective: Objective,
    batch_size: int,
    decay: Array | None = None,
) -> tuple[Network, PyTree[Array], Array]:
    """Make one update per mini-batch, over all examples in the given order. See `backend.epoch` for the arguments.

    Return the network, the state of the rule, and True if the cost of every mini-batch was finite.
    """
    n = len(order)

    def one_batch(
        carry: tuple[Network, PyTree[Array], Array], batch: tuple[Array, Array | None]
    ) -> tuple[tuple[Network, PyTree[Array], Array], None]:
        (network, optimizer_state, finite), (rows, its_eta) = carry, batch
        rule = rule_of(eta if its_eta is None else its_eta)
        mini_batch = Examples(examples.x[rows], examples.y[rows])

        def costs(network: Network) -> tuple[Array, Array]:
            """Return the cost with and without the term of L2 regularization."""
            c = objective.batch(network, mini_batch)
            return c if decay is None else c + penalty(network, decay), c

        (total, c), gradient = jax.value_and_grad(costs, has_aux=True)(network)
        network, optimizer_state = step(
            network, optimizer_state, gradient, rule, value=total, value_fn=lambda network: costs(network)[0]
        )
        # XLA leaves out the sum over all weights in `total` if nothing needs it.
        return (network, optimizer_state, finite & jnp.isfinite(c)), None

    carry = (network, optimizer_state, jnp.array(True))
    whole = n - n % batch_size
    rows = order[:whole].reshape(-1, batch_size)
    carry, _ = control.scan(one_batch, carry, (rows, eta[: len(rows)] if eta.ndim else None))
    if n % batch_size:
        carry, _ = one_batch(carry, (order[whole:], eta[-1] if eta.ndim else None))
    return carry


class _XLA(Backend):
    """XLA as a backend: every network, cost and optimizer, on every device."""

    name, platform = "xla", None

    def about(self) -> str:
        """Return the kind of device, and the flags that the environment gives to XLA."""
        return f"on {jax.default_backend()}, XLA_FLAGS {os.environ.get('XLA_FLAGS') or 'not set'}"

    def why_unsupported(self, job: Job) -> None:
        """Return None: XLA runs every job."""

    def epoch(self, by_xla: Epoch, optimizer_state: PyTree[Array], batch_size: int, objective: Any) -> Epoch:
        """Return XLA's function unchanged."""
        return by_xla


BACKEND: Backend = _XLA()
