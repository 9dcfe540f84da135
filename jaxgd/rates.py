"""Check the learning rates and the L2 regularization of a run, and compute their values for each epoch."""

import warnings
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxgd.epoch import Rates, StaticConfig
from jaxgd.errors import DtypeError, RangeError, is_traced, require_positive, require_real, shown
from jaxgd.network import Network
from jaxgd.typed import Real, vmap

Schedule = Callable[[Array], ArrayLike]
"""A function that takes the number of updates made so far and returns η."""


def updates_before(n: int, batch_size: int | None, done: Array | int, epochs: int) -> Array:
    """Return the indices, from 0, of all updates in the `epochs` epochs that follow the first `done` epochs."""
    each = -(-n // (batch_size or n))
    return jnp.asarray(each * done + np.arange(each * epochs))


def rates_of_run(
    network: Network,
    eta: Real | Schedule | None,
    optimizer: optax.GradientTransformation | None,
    l2: Real | None,
    n: int,
    updates: Callable[[], Array],
) -> Rates:
    """Return η and λ/n. With an optimizer, η is 1.

    A schedule gives one η per update, and `updates` returns the schedule's arguments.
    """
    # An update of a bfloat16 network multiplies by η in float32, and rounds once.
    dtype = np.dtype(jnp.promote_types(network[0].w.dtype, np.float32))
    return Rates(
        _step_size(dtype, eta, optimizer is not None, updates), None if l2 is None else weight_decay(dtype, l2, n)
    )


def _step_size(
    dtype: np.dtype[Any], eta: Real | Schedule | None, with_optimizer: bool, updates: Callable[[], Array]
) -> Array:
    if with_optimizer:
        if eta is not None:
            warnings.warn("train: eta is not used, because the optimizer has its own learning rate.", stacklevel=4)
        eta = 1.0
    if eta is None:
        raise DtypeError("train: eta must be one real number, got none.\nGive eta, or an optimizer with its own rate.")
    if callable(eta):
        return _scheduled(dtype, eta, updates())
    require_positive("train", "eta", eta)
    if not is_traced(eta):
        with np.errstate(over="ignore"):
            require_positive("train", f"eta in {dtype}", np.asarray(eta).astype(dtype))
    return jnp.asarray(eta, dtype)


def _scheduled(dtype: np.dtype[Any], schedule: Schedule, updates: Array) -> Array:
    """Return the rate of each update. Rates that jit or vmap traces are not checked."""

    def rate(k: Array) -> Array:
        eta = schedule(k)
        require_real("train", "the eta of the schedule", eta)
        return jnp.asarray(eta, dtype)

    rates = vmap(rate)(updates)
    if not is_traced(rates):
        wrong = np.flatnonzero(~(np.isfinite(rates) & (np.asarray(rates) >= 0)))
        if len(wrong):
            raise RangeError(
                f"train: the schedule must give a finite eta of 0 or more, got {rates[wrong[0]]} for eta("
                f"{updates[wrong[0]]}).\nIts argument is the number of updates made, from 0."
            )
    return rates


def weight_decay(dtype: np.dtype[Any], l2: Real, n: int, name: str = "l2") -> Array:
    """Return λ/n in the dtype. Raise if λ/n is negative or not finite. The range of a traced λ is not checked."""
    require_real("train", name, l2)
    if is_traced(l2):
        return jnp.asarray(l2, dtype) / n
    with np.errstate(over="ignore"):
        decay = (np.asarray(l2, np.float64) / n).astype(dtype)
    if not 0 <= decay < np.inf:
        raise RangeError(
            f"train: {name} must be a finite number, 0 or more, got {shown(l2, str)}.\nThe book uses 5.0 in chapter 3."
        )
    return jnp.asarray(decay)


def rates_of_epoch(rates: Rates, k: int, epochs: int) -> Rates:
    """Return the rates of epoch k of a run. With a schedule, `rates.eta` has one entry per update of all epochs."""
    if rates.eta.ndim == 0 or epochs == 0:
        return rates
    # Slice in NumPy, because JAX would compile the slice.
    of_epoch: Array = np.asarray(rates.eta).reshape(epochs, -1)[min(k, epochs - 1)]
    return rates._replace(eta=of_epoch)


def may_wait(rates: Rates, config: StaticConfig) -> bool:
    """Return True if weights may change again after an epoch without a change: with an optimizer or a schedule."""
    return config.optimizer is not None or rates.eta.ndim > 0


def in_range(rates: Rates) -> Array:
    """Return True if η and the decay are finite and not negative, and a constant η is not 0."""
    eta, decay = rates
    ok = jnp.all(jnp.isfinite(eta) & ((eta >= 0) if eta.ndim else (eta > 0)))
    return ok if decay is None else ok & jnp.isfinite(decay) & (decay >= 0)
