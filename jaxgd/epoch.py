"""One epoch of `train` as a compiled function, the evaluation after it, and the reason for a stop at that epoch."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from jaxgd.cost import Cost, cross_entropy
from jaxgd.examples import Examples
from jaxgd.history import NUMBERS, History, TrainState
from jaxgd.kernels import BackendChoice, backend, random_order, xla
from jaxgd.kernels.evaluation import Evaluation, penalized, penalty
from jaxgd.network import Network
from jaxgd.outcome import Reason
from jaxgd.pytree import all_finite, distance, dot, norm, select, subtract
from jaxgd.rules import gradient_descent
from jaxgd.rules.rule import Transformation
from jaxgd.typed import Real, finfo, jit, optimization_barrier, tree_map

# A saturated network counts as right if its cost is at most this. Each wrong output adds 1/(2n) to the quadratic cost
# of n examples, so at most two outputs per thousand examples are wrong.
NEAR_0 = 1e-3


def near_0(cost: Cost, network: Network) -> float:
    """Return the largest cost at which a network whose outputs are all saturated counts as right.

    For each example, a saturated output that is right adds at most eps to the cross-entropy. In a dtype of 16 bits, or
    with thousands of outputs in float32, the sum over the outputs can exceed NEAR_0.
    """
    width, dtype = network[-1].b.shape[-1], network[-1].b.dtype
    eps = float(finfo(dtype).eps)
    # The factor 2 covers ln(1 − ε) and the rounding of the sum.
    return max(NEAR_0, 2 * width * eps) if cost is cross_entropy else NEAR_0


class Rates(NamedTuple):
    """The parameters of the update rule, which are traced.

    Attributes:
        eta: The learning rate η, a scalar. For a schedule, the rate of each update of the epoch, (updates,).
        decay: λ/n of L2 regularization, a scalar. None without regularization.
    """

    eta: Array
    decay: Array | None = None


@dataclasses.dataclass(frozen=True)
class StaticConfig:
    """The static configuration of the compiled functions, a hashable value. A new configuration compiles them again.

    With `portable`, XLA runs the program on kinds of device other than the backend's. `counts` holds the number of
    examples of each split; further rows are padding. With `lean`, the compiled epoch overwrites the state, so the state
    before the epoch is lost. With `wide` and without `lean`, an epoch runs as two programs, `update` and `evaluate`,
    which need less memory than one.
    """

    batch_size: int | None
    optimizer: optax.GradientTransformation | None
    objective: xla.Objective
    evaluate: bool
    gradient_norm: bool
    backend: BackendChoice
    portable: bool = False
    counts: tuple[int, ...] = ()
    wide: bool = False
    lean: bool = False


class Entry(NamedTuple):
    """An entry of the history, and the code of the reason if the run ends at this entry."""

    history: History
    code: Array


# The fields of a state that a lean run overwrites.
HELD = ("network", "optimizer_state", "gradient")


class Change(NamedTuple):
    """The change of the weights and of C over an epoch. Unknown numbers are None.

    Attributes:
        step_norm: ‖Δv‖.
        predicted: ∇C · Δv.
        cost_before: C before the epoch.
    """

    step_norm: Array | None = None
    predicted: Array | None = None
    cost_before: Array | None = None


class Splits(NamedTuple):
    """The examples of each split."""

    train: Examples
    validation: Examples | None
    test: Examples | None


Advance = Callable[[TrainState, Splits, Rates, StaticConfig], tuple[TrainState, Entry, Array]]
"""The type of `start`, `resume` and `advance`."""


def unpadded(splits: Splits, config: StaticConfig) -> Splits:
    """Return the splits without the padding. XLA compiles this to a mask, so no rows move between devices."""

    def first(examples: Examples | None, n: int) -> Any:
        return None if examples is None else Examples(*(x[:n] for x in examples))

    return Splits(*map(first, splits, config.counts))


def keep(advances: Array, advanced: TrainState, state: TrainState) -> TrainState:
    """Return `advanced` if `advances` is True, otherwise `state`."""
    # lax.select does not take random keys. The key of a state never changes, so leave it out of the selection.
    key, state, advanced = state.key, state._replace(key=jnp.array(0)), advanced._replace(key=jnp.array(0))
    return select(advances, advanced, state)._replace(key=key)


def rule(eta: Real, config: StaticConfig) -> Transformation:
    """Return the update rule: plain descent with η, or the optimizer."""
    with_extra_args: Transformation = optax.with_extra_args_support(
        gradient_descent(eta) if config.optimizer is None else config.optimizer
    )
    return with_extra_args


@jit(static_argnames="config")
def start(state: TrainState, splits: Splits, rates: Rates, config: StaticConfig) -> tuple[TrainState, Entry, Array]:
    """Add the optimizer's state to a new state. Return the three values of `evaluate`."""
    optimizer_state = rule(1.0, config).init(state.network)
    if config.lean:
        # The state of some optimizers holds the network's own arrays. JAX cannot donate one array twice.
        optimizer_state = tree_map(jnp.copy, optimizer_state)
    return evaluate(state._replace(optimizer_state=optimizer_state), Change(), splits, rates.decay, config)


@jit(static_argnames="config")
def resume(state: TrainState, splits: Splits, rates: Rates, config: StaticConfig) -> tuple[TrainState, Entry, Array]:
    """Return a given state, its entry, and the flag of `evaluate`.

    In full-batch descent, a state without a gradient gets the gradient and the new cost. Any other state stays the
    same, bit for bit.
    """
    if config.wide:
        # A wide run deletes the ∇C of its states, so copy the caller's array.
        state = state._replace(gradient=tree_map(jnp.copy, state.gradient))
    evaluated, entry, finite = evaluate(state, Change(), splits, rates.decay, config)
    return evaluated if config.batch_size is None and state.gradient is None else state, entry, finite


@jit(static_argnames="config")
def advance(state: TrainState, splits: Splits, rates: Rates, config: StaticConfig) -> tuple[TrainState, Entry, Array]:
    """Run one epoch. Return the new state, its entry and True.

    If the weights or a cost become infinite or NaN, return False instead of True. The entry is meaningless. The state
    is then the old one, or the new one with `config.lean`.
    """
    advanced, change, finite = update(state, splits, rates, config)
    advanced, entry, evaluated_finite = evaluate(advanced, change, splits, rates.decay, config)
    finite &= evaluated_finite
    return advanced if config.lean else keep(finite, advanced, state), entry, finite


def update(state: TrainState, splits: Splits, rates: Rates, config: StaticConfig) -> tuple[TrainState, Change, Array]:
    """Make the updates of one epoch. Return the new state, with the old cost and no gradient, the change, and a flag.

    The flag is False if the cost of a mini-batch was not finite.
    """
    if config.batch_size is None:

        def cost(network: Network) -> Array:
            c = config.objective.full(network, splits.train)[0]
            return c if rates.decay is None else c + penalty(network, rates.decay)

        network, optimizer_state = xla.step(
            state.network,
            state.optimizer_state,
            cast(Network, state.gradient),
            rule(rates.eta.reshape(()), config),
            value=state.cost,
            value_fn=cost,
        )
        finite = jnp.array(True)
    else:
        order = random_order(jax.random.fold_in(state.key, state.epoch), len(splits.train.y))
        network, optimizer_state, finite = backend.epoch(
            config.backend,
            state.network,
            state.optimizer_state,
            splits.train,
            order,
            rates.eta,
            lambda eta: rule(eta, config),
            config.objective,
            config.batch_size,
            config.portable,
            rates.decay,
        )
    advanced = state._replace(network=network, optimizer_state=optimizer_state, epoch=state.epoch + 1, gradient=None)
    if config.lean:
        return advanced, Change(), finite
    step = subtract(network, state.network)
    predicted = dot(state.gradient, step) if config.batch_size is None else None
    if not config.wide:
        return advanced, Change(norm(step), predicted, state.cost), finite
    # Without the barrier, XLA would keep the step in memory for both its norm and `predicted`.
    after, before, predicted = optimization_barrier((network, state.network, predicted))
    return advanced, Change(distance(after, before), predicted, state.cost), finite


def updates(epoch: Array, splits: Splits, config: StaticConfig) -> Array:
    """Return the number of updates in the first `epoch` epochs."""
    return epoch * (1 if config.batch_size is None else -(-len(splits.train.y) // config.batch_size))


def evaluate(
    state: TrainState, change: Change, splits: Splits, decay: Array | None, config: StaticConfig
) -> tuple[TrainState, Entry, Array]:
    """Return a state with its cost, its entry, and True if the weights and the cost are finite.

    With full-batch descent, the state gets its gradient too. A cost that is not evaluated is NaN, and the flag ignores
    it.
    """
    network, nan = state.network, jnp.full((), jnp.nan, jnp.promote_types(state.network[0].w.dtype, np.float32))
    values: dict[str, Array] = dict.fromkeys(NUMBERS, nan)
    finite, saturated = all_finite(network), jnp.array(False)
    full_batch, data_cost = config.batch_size is None, nan

    def evaluated(examples: Examples, gradient: bool) -> Evaluation:
        result = backend.evaluate(config.backend, network, examples, config.objective, gradient, config.portable)
        # The accuracy compares several outputs, so it is NaN for a single output.
        return result._replace(accuracy=nan) if examples.y.shape[1:] == (1,) else result

    if full_batch or config.evaluate:
        result = evaluated(splits.train, full_batch or config.gradient_norm)
        data_cost = result.cost
        if decay is not None:
            result = penalized(result, network, decay)
        c, saturated = jnp.asarray(result.cost, nan.dtype), result.saturated
        values["cost"] = c
        finite &= jnp.isfinite(c)
        state = state._replace(cost=c, gradient=result.gradient if full_batch else None)
        if result.gradient is not None:
            values["gradient_norm"] = norm(result.gradient)
        if config.evaluate:
            values["accuracy"] = result.accuracy
    else:
        state = state._replace(cost=nan)
    if config.evaluate:
        for name, examples in (("validation", splits.validation), ("test", splits.test)):
            if examples is not None:
                result = evaluated(examples, gradient=False)
                values |= {f"{name}_cost": result.cost, f"{name}_accuracy": result.accuracy}
    if change.step_norm is not None:
        values["step_norm"] = change.step_norm
    if change.predicted is not None:
        values["predicted"] = change.predicted
    if change.cost_before is not None:
        values["actual"] = state.cost - change.cost_before
    # `data_cost` is NaN if it is not known; then `wrong` is True. It excludes the term of L2 regularization, which is
    # not near 0 even if the outputs are right.
    wrong = ~(jnp.abs(data_cost) <= near_0(config.objective.cost, network))
    # Before the first epoch and with `lean`, values["step_norm"] is NaN, so the code is not UNCHANGED.
    code = jnp.where((values["step_norm"] == 0) & wrong, int(Reason.UNCHANGED), int(Reason.COMPLETED))
    # Do not test a new network, which may be saturated before its first epoch.
    code = jnp.where(saturated & wrong & (state.epoch > 0), int(Reason.SATURATED), code)
    values = {name: jnp.asarray(value, nan.dtype) for name, value in values.items()}
    values |= {"epoch": state.epoch, "updates": updates(state.epoch, splits, config)}
    numbers: dict[str, Any] = values
    return state, Entry(History(**numbers), code), finite
