"""Checks of minimize's arguments, before anything runs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgd.descent.record import Record
from jaxgd.descent.seen import Seen
from jaxgd.descent.update import DescentState, StaticConfig
from jaxgd.errors import (
    DtypeError,
    RangeError,
    ShapeError,
    describe,
    is_real,
    is_traced,
    largest_int,
    outline,
    require_args,
    require_callable,
    require_count,
    require_rule,
    require_scalar,
    require_variables,
    same_shapes,
    shown,
)
from jaxgd.rules import Rule

WHO = "minimize"


def require_problem(
    cost: Any, v0: Any, rule: Any, args: Any, max_steps: Any, callback: Any, chunk: Any, seconds: Any, state: Any
) -> tuple[Any, tuple[Any, ...]]:
    """Return v0 and args as arrays. Raise unless all arguments of minimize are valid."""
    require_callable(WHO, "cost", cost, "It takes v and the args.")
    require_rule(WHO, "rule", rule)
    require_count(WHO, "max_steps", max_steps, least=0, most=largest_int())
    if chunk is not None:
        require_count(WHO, "chunk", chunk)
    if seconds is not None and not (is_real(seconds) and not is_traced(seconds) and seconds > 0):
        raise RangeError(f"{WHO}: seconds must be a number above 0, got {shown(seconds)}.")
    if callback is not None:
        require_callable(WHO, "callback", callback, "It takes a Solution.")
    if state is not None:
        require_state(WHO, state)
        if v0 is not None and not same_shapes(v0, state.v):
            raise ShapeError(f"{WHO}: v0 must have the shapes of the variables in state. Pass v0=None.")
        v0 = state.v
        require_same_rule(WHO, rule, state)
    require_args(WHO, args)
    require_variables(WHO, "v0", v0)
    # A Python number is weakly typed: in JAX it would take the dtype of the other operand.
    v0 = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), v0)
    args = jax.tree.map(jnp.asarray, args)
    require_scalar(WHO, cost, v0, *args)
    return v0, args


def require_state(who: str, state: Any) -> None:
    """Raise unless state is the state of one descent."""
    if not isinstance(state, DescentState):
        raise DtypeError(f"{who}: state must be the state of a solution, got {describe(state)}.")
    if jnp.ndim(state.step):
        raise ShapeError(
            f"{who}: state must be of one descent, got a batch of shape {jnp.shape(state.step)}.\n"
            "Pass solution.at(i).state, or map over the states with jax.vmap."
        )


def hashable(cost: Callable[..., Any]) -> Callable[..., Any]:
    """Return the cost, wrapped if it has no hash. An object with mutable fields may have none."""
    try:
        hash(cost)
    except TypeError:
        return functools.partial(cost)
    return cost


def configured(
    cost: Callable[..., Any], rule: Any, v: Any, args: tuple[Any, ...], record: Record | None, max_steps: int | None
) -> tuple[StaticConfig, Rule | None, tuple[Any, ...]]:
    """Return the static configuration, the traced part of the rule, and the args of the configured cost.

    Traced arrays in the cost's closure become args, so that they can be differentiated and mapped over.
    """
    cost = Seen(hashable(cost))
    converted, hoisted = jax.closure_convert(cost, v, *args)
    if hoisted:
        cost, args = converted, (*args, *hoisted)
    traced, other = (rule, None) if isinstance(rule, Rule) else (None, rule)
    step_size = "learning rate" if traced is None else traced.step_size
    return StaticConfig(cost, other, record, max_steps, step_size), traced, args


def require_same_rule(who: str, rule: Any, state: DescentState) -> None:
    """Raise unless the state may come from this rule."""
    require_variables(who, "state.v", state.v)
    if outline(jax.eval_shape(rule.init, state.v)) != outline(state.rule):
        raise RangeError(
            f"{who}: state must come from {shown(rule)}, but another rule made it.\nContinue with that rule."
        )
