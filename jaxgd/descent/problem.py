"""Checks of minimize's arguments, before anything runs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgd.descent.update import DescentState
from jaxgd.errors import (
    DtypeError,
    RangeError,
    ShapeError,
    describe,
    require_count,
    require_scalar,
    require_variables,
)

WHO = "minimize"


def require_problem(
    cost: Any, v0: Any, rule: Any, args: Any, max_steps: Any, callback: Any, chunk: Any, seconds: Any, state: Any
) -> tuple[Any, tuple[Any, ...]]:
    """Return v0 and args as arrays. Raise unless all arguments of minimize are valid."""
    if not callable(cost):
        raise DtypeError(f"{WHO}: cost must be a function of v, got {describe(cost)}.")
    if not (hasattr(rule, "init") and hasattr(rule, "update")):
        hint = f"\nCall it: {getattr(rule, '__name__', 'rule')}(…)." if callable(rule) else ""
        raise DtypeError(
            f"{WHO}: rule must be a rule such as jaxgd.gradient_descent(0.1), or a transformation of optax, "
            f"got {describe(rule)}.{hint}"
        )
    require_count(WHO, "max_steps", max_steps, least=0, most=int(jnp.iinfo(int).max))  # type: ignore[no-untyped-call]
    if chunk is not None:
        require_count(WHO, "chunk", chunk)
    if seconds is not None and not (isinstance(seconds, float | int) and seconds > 0):
        raise RangeError(f"{WHO}: seconds must be a number above 0, got {seconds!r}.")
    if callback is not None and not callable(callback):
        raise DtypeError(f"{WHO}: callback must be a function of a Solution, got {describe(callback)}.")
    if state is not None:
        if not isinstance(state, DescentState):
            raise DtypeError(f"{WHO}: state must be the state of a solution, got {describe(state)}.")
        if v0 is not None and jax.tree.map(jnp.shape, v0) != jax.tree.map(jnp.shape, state.v):
            raise ShapeError(f"{WHO}: v0 must have the shapes of the variables in state. Pass v0=None.")
        v0 = state.v
        _require_same_rule(rule, state)
    if not isinstance(args, tuple):
        raise DtypeError(f"{WHO}: args must be a tuple, got {describe(args)}.\nFor one argument, args=(x,).")
    for path, x in jax.tree_util.tree_leaves_with_path(args):
        if not hasattr(x, "dtype") and not isinstance(x, bool | int | float | complex):
            raise DtypeError(
                f"{WHO}: args must hold arrays and numbers, got {describe(x)} at args{jax.tree_util.keystr(path)}.\n"
                "Let the cost close over other objects."
            )
    require_variables(WHO, "v0", v0)
    # A Python number is weakly typed: in JAX it would take the dtype of the other operand.
    v0 = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), v0)
    args = jax.tree.map(jnp.asarray, args)
    require_scalar(WHO, cost, v0, *args)
    return v0, args


def hashable(cost: Callable[..., Any]) -> Callable[..., Any]:
    """Return the cost, wrapped if it has no hash. An object with mutable fields may have none."""
    try:
        hash(cost)
    except TypeError:
        return functools.partial(cost)
    return cost


def _require_same_rule(rule: Any, state: DescentState) -> None:
    """Raise unless the state may come from this rule."""
    mine, its = jax.eval_shape(rule.init, state.v), jax.eval_shape(lambda x: x, state.rule)
    alike = str(jax.tree.structure(mine)) == str(jax.tree.structure(its))
    pairs = zip(*map(jax.tree.leaves, (mine, its)), strict=True) if alike else ()
    if not alike or any((x.shape, x.dtype) != (y.shape, y.dtype) for x, y in pairs):
        raise RangeError(f"{WHO}: state must come from {rule!r}, but another rule made it.\nContinue with that rule.")
