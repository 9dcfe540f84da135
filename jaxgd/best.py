"""The best network on the validation examples, for the arguments `keep` and `patience` of `train`."""

import dataclasses
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxgd.errors import (
    DtypeError,
    RangeError,
    describe,
    is_traced,
    largest_int,
    outline,
    require_choice,
    require_count,
)
from jaxgd.history import Best, History, TrainState
from jaxgd.network import Network
from jaxgd.outcome import Reason
from jaxgd.pytree import select
from jaxgd.typed import Field, tree_map


@dataclasses.dataclass(frozen=True)
class Choice:
    """The arguments `keep`, `by` and `patience` of `train`, which choose the network to return or end the run early."""

    keep: str = "last"
    by: str = "accuracy"
    patience: int | None = None

    @property
    def follows(self) -> bool:
        """True if the run must know its best network so far."""
        return self.keep == "best" or self.patience is not None

    def network(self, state: TrainState) -> Network:
        """Return the network of the result: the best one for "best" if a validation value was finite, else the last."""
        if self.keep == "last" or state.best is None:
            return state.network
        known: Array = state.best.epoch >= 0
        if is_traced(known):
            return select(known, state.best.network, state.network)
        return state.best.network if known else state.network

    def outcome(self, best: Best | None, xp: ModuleType) -> Field | int:
        """Return the outcome code COMPLETED, PATIENCE or NOT_FINITE. `xp` is `numpy` or `jax.numpy`."""
        if best is None:
            return int(Reason.COMPLETED)
        ended: Array = xp.where(self.is_out_of_patience(best), int(Reason.PATIENCE), int(Reason.COMPLETED))
        # The epoch is −1 if no validation value was finite. The run has then found no best network.
        code: Array = xp.where(best.epoch >= 0, ended, int(Reason.NOT_FINITE))
        return code

    def is_out_of_patience(self, best: Best | None) -> Any:
        """Return True if `patience` epochs in a row brought no better network."""
        return self.patience is not None and best is not None and best.waited >= self.patience


def require_choice_of_network(
    keep: str, by: str, patience: int | None, *, evaluate: bool, validated: bool, outputs: int
) -> Choice:
    """Return the choice. Raise if an argument is invalid, or if it needs a validation value that the run lacks."""
    require_choice("train", "keep", keep, ("last", "best"))
    require_choice("train", "by", by, ("accuracy", "cost"))
    if patience is not None:
        require_count("train", "patience", patience, most=largest_int())
    choice = Choice(keep, by, None if patience is None else int(patience))
    if not choice.follows:
        return choice
    who = 'train: keep="best" needs' if patience is None else "train: patience needs"
    if not validated:
        raise RangeError(
            f"{who} validation examples, got none.\nPass a Dataset with a validation set, such as load_dataset's."
        )
    if not evaluate:
        raise RangeError(f"{who} the values on the validation examples, got evaluate=False.\nLeave it out.")
    if by == "accuracy" and outputs == 1:
        raise RangeError(f'{who} an accuracy, and a network with a single output has none.\nPass by="cost".')
    return choice


def require_same_best(best: object, network: Network, choice: Choice) -> Best | None:
    """Return `best`, or None if the run needs no best network. Raise unless `best` fits `network` and `choice`."""
    if best is not None and not (isinstance(best, Best) and outline(best.network) == outline(network)):
        raise DtypeError(
            f"train: state.best must be None, or a Best with a network like that of state, got {describe(best)}.\n"
            "Pass result.state unchanged."
        )
    if best is None or not choice.follows:
        return None
    if best.by != choice.by:
        raise RangeError(
            f'train: state.best is the best network by {best.by}, got by="{choice.by}".\n'
            f'Pass by="{best.by}", or state._replace(best=None) to forget it.'
        )
    return best


def best_epochs(entries: Sequence[History], by: str) -> list[int]:
    """Return for each entry the epoch of the best network so far, or −1 if no value was finite yet."""
    epochs: list[int] = []
    best: Array | float = np.nan
    for entry in entries:
        value = _value(entry, by)
        better = bool(_is_better(value, best, by, np))
        best = value if better else best
        epochs.append(int(entry.epoch) if better else epochs[-1] if epochs else -1)
    return epochs


def followed(best: Best | None, state: TrainState, entry: History, by: str, known: Array | bool = True) -> Best:
    """Return the best network so far, including `entry`, under jit and vmap.

    `best` is None at the first entry. `known` is False if the first entry must not count.
    """
    value, none = _value(entry, by), jnp.zeros_like(state.epoch)
    new = Best(state.network, state.epoch, value, none, by)
    if best is None:
        unknown = Best(state.network, none - 1, jnp.full_like(value, jnp.nan), none, by)
        return select(jnp.isfinite(value) & known, new, unknown)
    waited = dataclasses.replace(best, waited=best.waited + 1)
    return select(_is_better(value, best.value, by, jnp), new, waited)


def followed_on_host(best: Best | None, state: TrainState, entry: History, by: str, known: bool, copies: bool) -> Best:
    """Return the best network so far, including `entry`, outside jit and vmap.

    Args:
        best: The best network before `entry`. None at the first entry.
        state: The state of this entry.
        entry: The entry.
        by: "accuracy" or "cost".
        known: False if the entry is a start that is not finite. The entry then does not count.
        copies: True to copy the network, because the next epoch writes over its arrays. Otherwise keep a
            reference to the network.

    Returns:
        The best network so far.
    """
    value = _value(entry, by)
    number: Callable[[ArrayLike], Field] = state.epoch.dtype.type
    if best is not None and not _is_better(value, best.value, by, np):
        return dataclasses.replace(best, waited=number(best.waited + 1))
    network = tree_map(jnp.copy, state.network) if copies else state.network
    if np.isfinite(value) and known:
        return Best(network, number(entry.epoch), value, number(0), by)
    return Best(network, number(-1), value * np.nan, number(0), by)


def _value(entry: History, by: str) -> Field:
    value: Field = getattr(entry, f"validation_{by}")
    return value


def _is_better(value: Field, best: Field | float, by: str, xp: ModuleType) -> Field:
    """Return True if a value is finite, and strictly better than the best one. Any finite value is better than NaN."""
    better = value > best if by == "accuracy" else value < best
    is_better: Field = xp.isfinite(value) & (better | xp.isnan(best))
    return is_better
