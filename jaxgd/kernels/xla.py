"""The XLA backend: a compiled loop over the mini-batches, each gradient computed by autodiff."""

import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxgd.examples import Examples
from jaxgd.kernels.evaluation import Objective as Objective
from jaxgd.kernels.evaluation import penalty
from jaxgd.kernels.protocol import Backend, Epoch, Job, UpdateRule
from jaxgd.mesh import control
from jaxgd.network import Network
from jaxgd.typed import Tree, value_and_grad


def step(
    network: Network, optimizer_state: Tree, gradient: Network, rule: UpdateRule, **extra: object
) -> tuple[Network, Tree]:
    """Make one update by a rule. Return the network and the state of the rule."""
    steps, optimizer_state = rule.update(gradient, optimizer_state, network, grad=gradient, **extra)
    updated: Network = optax.apply_updates(network, steps)
    return updated, optimizer_state


def epoch(
    network: Network,
    optimizer_state: Tree,
    examples: Examples,
    order: Int[Array, " n"],
    eta: Float[Array, "*updates"],
    rule_of: Callable[[Array], UpdateRule],
    objective: Objective,
    batch_size: int,
    decay: Array | None = None,
) -> tuple[Network, Tree, Array]:
    """Make one update per mini-batch, and use all examples in the given order. See `backend.epoch` for the arguments.

    Return the network, the state of the rule, and True if the cost of every mini-batch was finite.
    """
    n = len(order)

    def one_batch(
        carry: tuple[Network, Tree, Array], batch: tuple[Array, Array | None]
    ) -> tuple[tuple[Network, Tree, Array], None]:
        (network, optimizer_state, finite), (rows, its_eta) = carry, batch
        rule = rule_of(eta if its_eta is None else its_eta)
        mini_batch = Examples(examples.x[rows], examples.y[rows])

        def costs(network: Network) -> tuple[Array, Array]:
            """Return the cost with the L2 term, and the cost without it."""
            c = objective.batch(network, mini_batch)
            return c if decay is None else c + penalty(network, decay), c

        (total, c), gradient = value_and_grad(costs, has_aux=True)(network)
        network, optimizer_state = step(
            network, optimizer_state, gradient, rule, value=total, value_fn=lambda network: costs(network)[0]
        )
        # Test c, not `total`: unless the rule needs `total`, XLA leaves out its sum over all weights.
        return (network, optimizer_state, finite & jnp.isfinite(c)), None

    carry = (network, optimizer_state, jnp.array(True))
    whole = n - n % batch_size
    rows = order[:whole].reshape(-1, batch_size)
    carry, _ = control.scan(one_batch, carry, (rows, eta[: len(rows)] if eta.ndim else None))
    if n % batch_size:
        carry, _ = one_batch(carry, (order[whole:], eta[-1] if eta.ndim else None))
    return carry


class _XLA(Backend):
    """The XLA backend, for every network, cost and optimizer, on every device."""

    name, platform = "xla", None

    def about(self) -> str:
        """Return the kind of device, and the value of XLA_FLAGS."""
        return f"on {jax.default_backend()}, XLA_FLAGS {os.environ.get('XLA_FLAGS') or 'not set'}"

    def why_unsupported(self, job: Job) -> None:
        """Return None: XLA runs every job."""

    def epoch(self, by_xla: Epoch, optimizer_state: Tree, batch_size: int, objective: Objective) -> Epoch:
        """Return `by_xla` unchanged."""
        return by_xla


BACKEND: Backend = _XLA()
