"""Run an epoch, or evaluate all examples, with the selected backend."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
from jaxtyping import Array, Bool, Float, Int

from jaxgd.examples import Examples
from jaxgd.kernels import xla
from jaxgd.kernels.choice import BackendChoice
from jaxgd.kernels.evaluation import Evaluation, Objective
from jaxgd.kernels.protocol import UpdateRule
from jaxgd.kernels.registry import load
from jaxgd.network import Network
from jaxgd.typed import Tree

P = ParamSpec("P")
R = TypeVar("R")

# JAX's name of the platform for which it lowers a program, by `Backend.platform`. A program traced for a GPU may later
# run on the host's CPU, so a portable program also holds XLA's function. "cpu" is not listed: a program traced for a
# CPU rarely runs on another device, and tracing XLA's function costs time.
LOWERED = {"gpu": "cuda"}


def prepare(choice: BackendChoice, examples: Examples) -> Examples:
    """Return the examples in the dtypes that the backend takes. Call this function once, before all epochs."""
    return load(choice.name).prepare(examples)


def epoch(
    choice: BackendChoice,
    network: Network,
    optimizer_state: Tree,
    examples: Examples,
    order: Int[Array, " n"],
    eta: Float[Array, "*updates"],
    rule_of: Callable[[Array], UpdateRule],
    objective: Objective,
    batch_size: int,
    portable: bool = False,
    decay: Float[Array, ""] | None = None,
) -> tuple[Network, Tree, Bool[Array, ""]]:
    """Make one update per mini-batch, over all examples in the given order.

    Args:
        choice: The backend.
        network: The network before the epoch.
        optimizer_state: The state of the update rule.
        examples: The training examples.
        order: The order of the examples, a permutation of 0, …, n − 1.
        eta: The learning rate η, a scalar. For a schedule, the rate of each update, (updates,). Only XLA takes a
            schedule.
        rule_of: A function that returns the update rule for a given η. A backend that knows only plain descent ignores
            it.
        objective: The cost, and the precision of matrix products.
        batch_size: Examples per mini-batch, 1 to n.
        portable: True to let XLA run the epoch if a program traced for a GPU is lowered for another kind of device.
        decay: λ/n for L2 regularization with n training examples: the gradient of each mini-batch has the further term
            (λ/n) w. None means no regularization.

    Returns:
        The network and the state of the rule after the epoch, and True if the cost of every mini-batch was finite.
    """

    def by_xla(
        network: Network, examples: Examples, order: Array, eta: Array, decay: Array | None
    ) -> tuple[Network, Tree, Array]:
        return xla.epoch(network, optimizer_state, examples, order, eta, rule_of, objective, batch_size, decay)

    run = load(choice.name).epoch(by_xla, optimizer_state, batch_size, objective)
    return _lowered(choice, run, by_xla, portable)(network, examples, order, eta, decay)


def evaluate(
    choice: BackendChoice,
    network: Network,
    examples: Examples,
    objective: Objective,
    gradient: bool,
    portable: bool = False,
) -> Evaluation:
    """Evaluate the network on all examples in one pass, with ∇C if `gradient` is True. See `epoch` for `portable`."""

    def by_xla(network: Network, examples: Examples) -> Evaluation:
        return objective.evaluate(network, examples, gradient)

    run = load(choice.name).evaluate(by_xla, gradient, objective)
    return _lowered(choice, run, by_xla, portable)(network, examples)


def _lowered(choice: BackendChoice, run: Callable[P, R], by_xla: Callable[P, R], portable: bool) -> Callable[P, R]:
    """Return the backend's function.

    If `portable` is True and the backend is made for a GPU, the function runs `by_xla` on every other platform.
    """
    platform = LOWERED.get(load(choice.name).platform or "")
    if not portable or platform is None or run is by_xla:
        return run

    def on_each(*args: P.args, **_: P.kwargs) -> R:
        out: R = jax.lax.platform_dependent(*args, default=by_xla, **{platform: run})
        return out

    return on_each
