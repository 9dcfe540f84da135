"""The loops of `train`: epoch after epoch on the host, or all epochs in one compiled loop."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxgd import epoch
from jaxgd.best import Choice, followed, followed_on_host
from jaxgd.descent.record import blank
from jaxgd.epoch import Change, Rates, Splits, StaticConfig, unpadded
from jaxgd.errors import RangeError, is_traced
from jaxgd.history import NUMBERS, Best, History, TrainResult, TrainState
from jaxgd.mesh import control
from jaxgd.mesh.processes import decided, on_host, spans_processes
from jaxgd.network import Network
from jaxgd.outcome import Outcome, Reason
from jaxgd.progress import progress_line
from jaxgd.pytree import select
from jaxgd.rates import in_range, may_wait, rates_of_epoch
from jaxgd.records import Records, recorded
from jaxgd.typed import Field, jit, tree_leaves, tree_map


class Watch(NamedTuple):
    """The arguments of `train` that observe a run or end it, and do not change its updates."""

    choice: Choice
    record: Records
    callback: Callable[[TrainState, History], bool | None] | None
    progress: bool

    @property
    def of_host(self) -> str:
        """The argument that needs the host, as text for a message; empty if no argument needs it."""
        return "a callback" if self.callback is not None else "progress=True" if self.progress else ""


def train_by_epoch(
    start: epoch.Advance,
    state: TrainState,
    splits: Splits,
    rates: Rates,
    config: StaticConfig,
    epochs: int,
    watch: Watch,
) -> TrainResult:
    """Run one compiled epoch after another. In between, the host selects the best network and calls the callback."""
    together, choice, callback = spans_processes((state, splits)), watch.choice, watch.callback
    # The compiled programs do not take the best network, so `keep` changes neither the programs nor their rounding.
    best, state = state.best, state._replace(best=None)
    first, given = _in_place if config.lean else _packed, state
    state, numbers = first(start, state, splits, rates_of_epoch(rates, 0, epochs), config)
    if config.wide and not config.lean:
        # The program has returned a copy of the network. Drop the copy and keep the original.
        state = state._replace(network=given.network)
    del given
    entries: list[History] = []
    reasons: list[Reason] = []
    with progress_line(watch.progress, epochs, "train", "epoch") as show:
        for k in range(epochs + 1):
            _require_known(numbers[0])
            entry, reason = _unpacked(numbers)
            reasons.append(reason)
            if reason is Reason.NOT_FINITE and k:
                break
            if choice.follows and (k or best is None):
                known = reason is not Reason.NOT_FINITE
                best = followed_on_host(best, state, entry, choice.by, known, copies=config.lean)
            now = state if best is None else state._replace(best=best)
            if watch.record:
                values = _recorded(now, splits, rates.decay, watch.record, config)
                for value in values.values():
                    _require_known(value)
                entry = entry._replace(records=jax.tree.map(on_host, values))
            entries.append(entry)
            show(k, functools.partial(_words, entry))
            if reason is Reason.NOT_FINITE:
                reason = Reason.START_NOT_FINITE
                break
            ended = k == epochs or bool(choice.is_out_of_patience(best))
            if callback is not None and decided(together, bool(callback(now, entry))) and not ended:
                reason = Reason.STOPPED
                break
            if ended:
                break
            state, numbers = _next(state, splits, rates_of_epoch(rates, k, epochs), config, kept=callback is not None)
    if reason is Reason.UNCHANGED and may_wait(rates, config) and set(reasons[1:]) != {reason}:
        reason = Reason.COMPLETED
    if reason is Reason.COMPLETED:
        reason = Reason(int(choice.outcome(best, np)))
    history: History = jax.device_put(jax.tree.map(lambda *xs: np.stack(xs), *entries))
    state = state._replace(best=tree_map(jnp.asarray, best))
    return TrainResult(choice.network(state), history, Outcome(jnp.array(reason)), state, config.backend)


def _require_known(value: object) -> None:
    if is_traced(value):
        raise RangeError(
            "train: a number inside the optimizer, the cost or a function in record is traced, and train cannot see it "
            "under vmap.\n"
            "Wrap the vmapped function in jax.jit and vmap over train's own arguments too, or loop over the number."
        )


def _words(entry: History) -> str:
    """Return the finite ones of cost and accuracy as text for the progress line."""
    split = next((x for x in ("validation_", "test_", "") if np.isfinite(_number(entry, f"{x}accuracy"))), "")
    cost, accuracy = float(entry.cost), _number(entry, f"{split}accuracy")
    words = [f"C = {cost:.4g}"] if np.isfinite(cost) else []
    words += [f"{split.replace('_', ' ')}accuracy {accuracy:.2%}"] if np.isfinite(accuracy) else []
    return ", ".join(words)


def _number(entry: History, name: str) -> float:
    return float(getattr(entry, name))


def _next(
    state: TrainState, splits: Splits, rates: Rates, config: StaticConfig, kept: bool
) -> tuple[TrainState, tuple[Array, Array]]:
    """Return the state after an epoch, and the numbers for the host. If `kept`, a callback may keep `state`."""
    if config.lean or not config.wide:
        run = _in_place if config.lean else _packed
        return run(epoch.advance, state, splits, rates, config)
    advanced, change, finite = _updated(state, splits, rates, config)
    if not kept:
        # Free this ∇C to make room for the next one. If the next epoch is not finite, compute this ∇C again.
        for x in tree_leaves(state.gradient):
            x.delete()
    cost, gradient, numbers = _evaluated(advanced, change, finite, splits, rates.decay, config)
    if _unpacked(numbers)[1] is not Reason.NOT_FINITE:
        return advanced._replace(cost=cost, gradient=gradient), numbers
    if not kept and state.gradient is not None:
        del advanced, gradient
        again = state._replace(gradient=None)
        state = state._replace(gradient=_evaluated(again, Change(), finite, splits, rates.decay, config)[1])
    return state, numbers


def _in_place(
    advance: epoch.Advance, state: TrainState, splits: Splits, rates: Rates, config: StaticConfig
) -> tuple[TrainState, tuple[Array, Array]]:
    """Return the result of `_packed`, and reuse the memory of the state's fields `epoch.HELD`."""
    held = {name: getattr(state, name) for name in epoch.HELD}
    nothing: dict[str, Any] = dict.fromkeys(epoch.HELD)
    return _packed_in_place(advance, held, state._replace(**nothing), splits, rates, config)


@jit(static_argnames=("advance", "config"))
def _packed(
    advance: epoch.Advance, state: TrainState, splits: Splits, rates: Rates, config: StaticConfig
) -> tuple[TrainState, tuple[Array, Array]]:
    return _numbers(*advance(state, unpadded(splits, config), rates, config))


@jit(static_argnames=("advance", "config"), donate_argnames="held")
def _packed_in_place(
    advance: epoch.Advance, held: dict[str, Any], state: TrainState, splits: Splits, rates: Rates, config: StaticConfig
) -> tuple[TrainState, tuple[Array, Array]]:
    return _numbers(*advance(state._replace(**held), unpadded(splits, config), rates, config))


@jit(static_argnames="config")
def _updated(state: TrainState, splits: Splits, rates: Rates, config: StaticConfig) -> tuple[TrainState, Change, Array]:
    return epoch.update(state, unpadded(splits, config), rates, config)


@jit(static_argnames="config")
def _evaluated(
    state: TrainState, change: Change, finite: Array, splits: Splits, decay: Array | None, config: StaticConfig
) -> tuple[Array, Network | None, tuple[Array, Array]]:
    """Return C, ∇C and the numbers for the host. Do not return the network, because the program would copy it."""
    state, entry, evaluated_finite = epoch.evaluate(state, change, unpadded(splits, config), decay, config)
    return state.cost, state.gradient, _numbers(state, entry, finite & evaluated_finite)[1]


@jit(static_argnames=("record", "config"))
def _recorded(
    state: TrainState, splits: Splits, decay: Array | None, record: Records, config: StaticConfig
) -> dict[str, Array]:
    return recorded(record, state, unpadded(splits, config).train, decay, config, state.epoch)


def _numbers(state: TrainState, entry: epoch.Entry, finite: Array) -> tuple[TrainState, tuple[Array, Array]]:
    """Return the state, and the numbers for the host in only two arrays, because fetching an array takes 30 µs."""
    history, code = entry
    code = jnp.where(finite, code, int(Reason.NOT_FINITE))
    counts = jnp.stack([history.epoch, history.updates, code.astype(history.epoch.dtype)])
    values: list[Array] = [getattr(history, name) for name in NUMBERS[2:]]
    return state, (counts, jnp.stack(values))


def donatable(state: TrainState) -> TrainState:
    """Return the state. Copy each array that JAX does not own, and each repeated occurrence of an array."""
    seen: set[int] = set()

    def own(x: Field) -> Field:
        again = id(x) in seen or not isinstance(x, jax.Array)
        seen.add(id(x))
        return jnp.array(x) if again else x

    held: dict[str, Any] = {name: tree_map(own, getattr(state, name)) for name in epoch.HELD}
    return state._replace(**held)


def _unpacked(numbers: tuple[Array, Array]) -> tuple[History, Reason]:
    counts, values = map(on_host, numbers)
    return History(counts[0], counts[1], *values), Reason(int(counts[2]))


def train_traced(
    start: epoch.Advance,
    state: TrainState,
    splits: Splits,
    rates: Rates,
    config: StaticConfig,
    epochs: int,
    labels_fit: Array | bool,
    watch: Watch,
) -> TrainResult:
    """Run all epochs in one compiled loop, under jit and vmap.

    `labels_fit` is False if a traced label is out of range.
    """
    choice, best = watch.choice, state.best
    state, (first, code), finite = start(state._replace(best=None), splits, rates, config)
    known = jnp.asarray(finite & labels_fit)

    def unless(known: Array, entry: History, state: TrainState) -> History:
        """Return the entry if `known`; otherwise an entry of NaN that has only the counts of epochs and updates."""
        empty = tree_map(blank, entry)
        empty = empty._replace(epoch=state.epoch, updates=epoch.updates(state.epoch, splits, config))
        return select(known, entry, empty)

    def with_records(entry: History, state: TrainState, k: Array | None) -> History:
        if k is None:
            return entry
        return entry._replace(records=recorded(watch.record, state, splits.train, rates.decay, config, k))

    def follow(best: Best | None, state: TrainState, entry: History, known: Array | bool = True) -> TrainState:
        return state._replace(best=followed(best, state, entry, choice.by, known) if choice.follows else None)

    # If vmap does not batch this count of epochs, a record with `every` takes no time in the epochs that it skips.
    count = state.epoch if watch.record else None
    state = follow(None, state, first, known) if best is None else state._replace(best=best)
    first = unless(jnp.asarray(labels_fit), with_records(first, state, count), state)
    code = jnp.where(known, code, int(Reason.START_NOT_FINITE))
    code = jnp.where(in_range(rates), code, int(Reason.BAD_RULE))

    Carry = tuple[TrainState, Array, Array | None]

    def body(carry: Carry, eta: Array | None) -> tuple[Carry, tuple[History, Array]]:
        state, code, count = carry
        now = Rates(rates.eta if eta is None else eta, rates.decay)
        advanced, (entry, reached), finite = epoch.advance(state._replace(best=None), splits, now, config)
        reached = jnp.where(finite, reached, int(Reason.NOT_FINITE))
        ended = _ended(code) | choice.is_out_of_patience(state.best)
        code = jnp.where(ended, code, reached)
        advances = ~(ended | _ended(code))
        advanced = follow(state.best, advanced, entry)
        count = None if count is None else count + 1
        entry = with_records(entry, advanced, count)
        return (epoch.keep(advances, advanced, state), code, count), (unless(advances, entry, state), code)

    etas = rates.eta.reshape(epochs, -1) if epochs and rates.eta.ndim else None
    (state, code, _), (entries, codes) = control.scan(body, (state, code, count), etas, length=epochs)
    history = tree_map(lambda x, xs: jnp.concatenate([x[None], xs]), first, entries)
    if may_wait(rates, config):
        waited = (code == int(Reason.UNCHANGED)) & jnp.any(codes != code)
        code = jnp.where(waited, int(Reason.COMPLETED), code)
    code = jnp.where(code == int(Reason.COMPLETED), choice.outcome(state.best, jnp), code)
    return TrainResult(choice.network(state), history, Outcome(code), state, config.backend)


def _ended(code: Array) -> Array:
    """Return True if a run with this reason has ended."""
    reasons = (Reason.NOT_FINITE, Reason.START_NOT_FINITE, Reason.BAD_RULE)
    return jnp.any(jnp.array([code == int(reason) for reason in reasons]))
