"""The way that JAX alone can go: each mini-batch's gradient by autodiff, in a compiled loop."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from jaxgd.cost import Cost, network_cost
from jaxgd.examples import Examples, inputs, outputs_in_chunks, targets
from jaxgd.network import Network


@dataclasses.dataclass(frozen=True)
class Measure:
    """What is minimized, and how precisely its products are computed."""

    cost: Cost
    precision: Any = None

    def batch(self, network: Network, examples: Examples) -> Array:
        """The cost over all examples, in one piece."""
        dtype, width = network[-1].b.dtype, network[-1].b.shape[0]
        x, y = inputs(examples.x, dtype), targets(examples.y, width, dtype)
        return network_cost(network, x, y, cost=self.cost, precision=self.precision)

    def full(self, network: Network, examples: Examples) -> tuple[Array, Array]:
        """The cost over all examples and the outputs, in chunks so that memory does not grow with n."""
        a = outputs_in_chunks(network, examples.x, self.precision)
        return self.cost(a, targets(examples.y, a.shape[-1], a.dtype)), a


def step(
    network: Network, optimizer_state: PyTree[Array], gradient: Network, rule: Any, **extra: Any
) -> tuple[Network, PyTree[Array]]:
    """One update by a rule."""
    steps, optimizer_state = rule.update(gradient, optimizer_state, network, grad=gradient, **extra)
    return optax.apply_updates(network, steps), optimizer_state


def epoch(
    network: Network,
    optimizer_state: PyTree[Array],
    examples: Examples,
    order: Int[Array, " n"],
    rule: Any,
    measure: Measure,
    batch_size: int,
) -> tuple[Network, PyTree[Array], Array]:
    """One update a mini-batch, over all examples in this order; and whether every mini-batch's cost was finite."""
    n = len(order)

    def one(
        carry: tuple[Network, PyTree[Array], Array], rows: Array
    ) -> tuple[tuple[Network, PyTree[Array], Array], None]:
        network, optimizer_state, finite = carry
        cost = functools.partial(measure.batch, examples=Examples(examples.x[rows], examples.y[rows]))
        c, gradient = jax.value_and_grad(cost)(network)
        network, optimizer_state = step(network, optimizer_state, gradient, rule, value=c, value_fn=cost)
        return (network, optimizer_state, finite & jnp.isfinite(c)), None

    carry = (network, optimizer_state, jnp.array(True))
    whole = n - n % batch_size
    carry, _ = jax.lax.scan(one, carry, order[:whole].reshape(-1, batch_size))
    if n % batch_size:
        carry, _ = one(carry, order[whole:])
    return carry
