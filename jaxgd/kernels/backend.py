"""Run an epoch, or evaluate all examples, with the selected backend."""

from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxgd.examples import Examples
from jaxgd.kernels import xla
from jaxgd.kernels.choice import BackendChoice
from jaxgd.kernels.registry import load
from jaxgd.network import Network


def prepare(choice: BackendChoice, examples: Examples) -> Examples:
    """Return the examples in the dtypes that the backend takes. Call it once, before all epochs."""
    return load(choice.name).prepare(examples)


def epoch(
    choice: BackendChoice,
    network: Network,
    optimizer_state: PyTree[Array],
    examples: Examples,
    order: Int[Array, " n"],
    eta: Float[Array, ""],
    rule_of: Any,
    objective: xla.Objective,
    batch_size: int,
) -> tuple[Network, PyTree[Array], Bool[Array, ""]]:
    """Make one update per mini-batch, over all examples in the given order.

    Args:
        choice: The backend.
        network: The network before the epoch.
        optimizer_state: The state of the update rule.
        examples: The training examples.
        order: The order of the examples, a permutation of 0, …, n − 1.
        eta: The learning rate η.
        rule_of: A function that returns the update rule for an η. A backend that knows only plain descent ignores it.
        objective: The cost and its precision. A backend that knows only the quadratic cost ignores the cost.
        batch_size: Examples per mini-batch, 1 to n.

    Returns:
        The network and the state of the rule after the epoch, and True if the cost of every mini-batch was finite.
    """

    def by_xla(network: Network, examples: Examples, order: Array, eta: Array) -> tuple[Network, Any, Array]:
        return xla.epoch(network, optimizer_state, examples, order, rule_of(eta), objective, batch_size)

    run = load(choice.name).epoch(by_xla, optimizer_state, batch_size, objective.precision)
    return run(network, examples, order, eta)


def evaluate(
    choice: BackendChoice, network: Network, examples: Examples, objective: xla.Objective, gradient: bool
) -> tuple[Array, Array, Network | None]:
    """Return C over all examples, their outputs, and ∇C. ∇C is None if `gradient` is False."""

    def by_xla(network: Network, examples: Examples) -> tuple[Array, Array, Network | None]:
        if not gradient:
            return *objective.full(network, examples), None
        (c, a), slopes = jax.value_and_grad(objective.full, has_aux=True)(network, examples)
        return c, a, slopes

    run = load(choice.name).evaluate(by_xla, gradient, objective.precision)
    return run(network, examples)
