"""The loops of `train`: epoch after epoch on the host, or all epochs in one compiled loop."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxgd import epoch
from jaxgd.epoch import Change, Splits, StaticConfig, unpadded
from jaxgd.errors import RangeError, is_traced
from jaxgd.history import History, TrainResult, TrainState
from jaxgd.mesh import control
from jaxgd.mesh.processes import decided, on_host, spans_processes
from jaxgd.outcome import Outcome, Reason
from jaxgd.pytree import select


def train_by_epoch(
    start: Any, state: TrainState, splits: Splits, eta: Array, config: StaticConfig, epochs: int, callback: Any
) -> TrainResult:
    """Run one compiled epoch after another, with the callback between them."""
    together = spans_processes((state, splits))
    first, given = _in_place if config.lean else _packed, state
    state, numbers = first(start, state, splits, eta, config)
    if config.wide and not config.lean:
        # The program has copied the network.
        state = state._replace(network=given.network)
    del given
    entries: list[History] = []
    reasons: list[Reason] = []
    for k in range(epochs + 1):
        if is_traced(numbers[0]):
            raise RangeError(
                "train: a number inside the optimizer or the cost is traced, and train cannot see it under vmap.\n"
                "Wrap the vmapped function in jax.jit and vmap over train's own arguments too, or loop over the number."
            )
        entry, reason = _unpacked(numbers)
        reasons.append(reason)
        if reason is not Reason.NOT_FINITE or k == 0:
            entries.append(entry)
        if reason is Reason.NOT_FINITE:
            reason = Reason.START_NOT_FINITE if k == 0 else reason
            break
        if callback is not None and decided(together, bool(callback(state, entry))) and k < epochs:
            reason = Reason.STOPPED
            break
        if k < epochs:
            state, numbers = _next(state, splits, eta, config, kept=callback is not None)
    if reason is Reason.UNCHANGED and config.optimizer is not None and set(reasons[1:]) != {reason}:
        reason = Reason.COMPLETED
    history = jax.device_put(jax.tree.map(lambda *xs: np.stack(xs), *entries))
    return TrainResult(state.network, history, Outcome(jnp.array(reason)), state, config.backend)


def _next(
    state: TrainState, splits: Splits, eta: Array, config: StaticConfig, kept: bool
) -> tuple[TrainState, tuple[Array, Array]]:
    """Return the state after an epoch, and the numbers for the host. A callback may have kept the state."""
    if config.lean or not config.wide:
        run = _in_place if config.lean else _packed
        result: tuple[TrainState, tuple[Array, Array]] = run(epoch.advance, state, splits, eta, config)
        return result
    advanced, change, finite = _updated(state, splits, eta, config)
    if not kept:
        # The next ∇C takes its memory. A run that returns to the state computes it again.
        for x in jax.tree.leaves(state.gradient):
            x.delete()
    cost, gradient, numbers = _evaluated(advanced, change, finite, splits, config)
    if _unpacked(numbers)[1] is not Reason.NOT_FINITE:
        return advanced._replace(cost=cost, gradient=gradient), numbers
    if not kept and state.gradient is not None:
        del advanced, gradient
        state = state._replace(gradient=_evaluated(state._replace(gradient=None), Change(), finite, splits, config)[1])
    return state, numbers


def _in_place(
    advance: Any, state: TrainState, splits: Splits, eta: Array, config: StaticConfig
) -> tuple[TrainState, tuple[Array, Array]]:
    """Return the result of `_packed`, and delete the arrays of the state."""
    held, nothing = {name: getattr(state, name) for name in epoch.HELD}, cast(Any, dict.fromkeys(epoch.HELD))
    result: tuple[TrainState, tuple[Array, Array]]
    result = _packed_in_place(advance, held, state._replace(**nothing), splits, eta, config)
    return result


@functools.partial(jax.jit, static_argnames=("advance", "config"))
def _packed(
    advance: Any, state: TrainState, splits: Splits, eta: Array, config: StaticConfig
) -> tuple[TrainState, tuple[Array, Array]]:
    return _numbers(*advance(state, unpadded(splits, config), eta, config))


@functools.partial(jax.jit, static_argnames=("advance", "config"), donate_argnames="held")
def _packed_in_place(
    advance: Any, held: dict[str, Any], state: TrainState, splits: Splits, eta: Array, config: StaticConfig
) -> tuple[TrainState, tuple[Array, Array]]:
    return _numbers(*advance(state._replace(**held), unpadded(splits, config), eta, config))


@functools.partial(jax.jit, static_argnames="config")
def _updated(state: TrainState, splits: Splits, eta: Array, config: StaticConfig) -> tuple[TrainState, Change, Array]:
    return epoch.update(state, unpadded(splits, config), eta, config)


@functools.partial(jax.jit, static_argnames="config")
def _evaluated(
    state: TrainState, change: Change, finite: Array, splits: Splits, config: StaticConfig
) -> tuple[Array, Any, tuple[Array, Array]]:
    """Return C, ∇C and the numbers for the host. A program that returned the network too would copy it."""
    state, entry, evaluated_finite = epoch.evaluate(state, change, unpadded(splits, config), config)
    return state.cost, state.gradient, _numbers(state, entry, finite & evaluated_finite)[1]


def _numbers(state: TrainState, entry: epoch.Entry, finite: Array) -> tuple[TrainState, tuple[Array, Array]]:
    """Return the state, and the numbers for the host packed into two arrays: it takes 30 µs to fetch each array."""
    history, code = entry
    code = jnp.where(finite, code, int(Reason.NOT_FINITE))
    counts = jnp.stack([history.epoch, history.updates, code.astype(history.epoch.dtype)])
    return state, (counts, jnp.stack(history[2:]))


def donatable(state: TrainState) -> TrainState:
    """Return the state with copies of arrays that JAX does not own, or that occur twice."""
    seen: set[int] = set()

    def own(x: Any) -> Any:
        again = id(x) in seen or not isinstance(x, jax.Array)
        seen.add(id(x))
        return jnp.array(x) if again else x

    return state._replace(**{name: jax.tree.map(own, getattr(state, name)) for name in epoch.HELD})


def _unpacked(numbers: tuple[Array, Array]) -> tuple[History, Reason]:
    counts, values = map(on_host, numbers)
    return History(counts[0], counts[1], *values), Reason(int(counts[2]))


def train_traced(
    start: Any, state: TrainState, splits: Splits, eta: Array, config: StaticConfig, epochs: int, labels_fit: Any
) -> TrainResult:
    """Run all epochs in one compiled loop, under jit and vmap. `labels_fit` is False if a traced label is wrong."""
    state, (first, code), finite = start(state, splits, eta, config)

    def unless(known: Any, entry: History, state: TrainState) -> History:
        """Return the entry, with NaN in place of its numbers unless they are known."""
        blank = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan if x.dtype.kind == "f" else x), entry)
        blank = blank._replace(epoch=state.epoch, updates=epoch.updates(state.epoch, splits, config))
        return cast(History, select(known, entry, blank))

    first = unless(jnp.asarray(labels_fit), first, state)
    code = jnp.where(finite & labels_fit, code, int(Reason.START_NOT_FINITE))
    code = jnp.where(jnp.isfinite(eta) & (eta > 0), code, int(Reason.BAD_RULE))

    def body(carry: tuple[TrainState, Array], _: None) -> tuple[tuple[TrainState, Array], tuple[History, Array]]:
        state, code = carry
        advanced, (entry, reached), finite = epoch.advance(state, splits, eta, config)
        reached = jnp.where(finite, reached, int(Reason.NOT_FINITE))
        code = jnp.where(_ended(code), code, reached)
        advances = ~_ended(code)
        return (epoch.keep(advances, advanced, state), code), (unless(advances, entry, state), code)

    (state, code), (entries, codes) = control.scan(body, (state, code), None, length=epochs)
    history = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, entries)
    if config.optimizer is not None:
        waited = (code == int(Reason.UNCHANGED)) & jnp.any(codes != code)
        code = jnp.where(waited, int(Reason.COMPLETED), code)
    return TrainResult(state.network, history, Outcome(code), state, config.backend)


def _ended(code: Array) -> Array:
    """Return True if a run with this reason goes no further."""
    reasons = (Reason.NOT_FINITE, Reason.START_NOT_FINITE, Reason.BAD_RULE)
    return jnp.any(jnp.array([code == int(reason) for reason in reasons]))
