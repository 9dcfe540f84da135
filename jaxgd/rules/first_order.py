"""Rules that need only the gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxgd.errors import (
    ShapeError,
    describe,
    require_float,
    require_positive,
    require_real,
    shown,
)
from jaxgd.pytree import norm
from jaxgd.rules.rule import Rule, RuleSpec, checked_rule
from jaxgd.typed import Field, Generic, Real, Tree, V, tree_map


def update(v: V, gradient: Tree, eta: Real) -> V:
    """Make one step of gradient descent, for any pytree of variables.

    v → v − η∇C.

    Args:
        v: The variables: any pytree of real floating-point arrays, such as a network.
        gradient: The gradient ∇C, a tree like v with the same shapes.
        eta: The learning rate η, one number above 0. A traced η is not checked. `jax.vmap` maps over several η.

    Returns:
        The new variables, with v's shapes and dtypes.

    Raises:
        ShapeError: If the trees or their shapes differ.
        DtypeError: If a leaf is not real floating point, or η is not one number.
        RangeError: If η is complex, or not a finite number above 0.

    Source: Nielsen, chapter 1, equation (15).

    Example:
        >>> float(update(jnp.array(1.0), jnp.array(2.0), 0.25))
        0.5
    """
    require_positive("update", "eta", eta)
    ours, theirs = str(jax.tree.structure(v)), str(jax.tree.structure(gradient))
    if ours != theirs:
        raise ShapeError(f"update: the gradient must be a tree like v, {shown(ours, str)}, got {shown(theirs, str)}.")
    after: V = jax.tree_util.tree_map_with_path(lambda path, x, g: _step(path, x, g, eta), v, gradient)
    return after


def _step(path: tuple[Any, ...], x: Array, g: Array, eta: Real) -> Array:
    name = jax.tree_util.keystr(path) or "v"
    require_float("update", f"variable {name}", x)
    require_float("update", f"the gradient of {name}", g)
    if jnp.shape(x) != jnp.shape(g):
        raise ShapeError(f"update: variable {name} is {describe(x)} but its gradient is {describe(g)}.")
    return jnp.asarray(x - eta * g, jnp.result_type(x))


Schedule = Callable[[Array], ArrayLike]
"""A schedule as in optax: a function that returns η for the number of earlier updates."""


class ScheduleState(NamedTuple):
    """The state of a schedule.

    Attributes:
        updates: The number of updates made so far.
    """

    updates: Array


def gradient_descent(eta: Real | Schedule) -> Rule:
    """Make the book's rule of gradient descent, for a constant η or a schedule.

    Δv = −η∇C.

    Args:
        eta: The learning rate η, one number above 0, or a schedule: a function of the number of earlier updates, such
            as optax's. A traced number is not checked here. A new number does not recompile, and `jax.vmap` maps over
            it.

    Returns:
        The rule.

    Raises:
        DtypeError: If η is neither one number nor a function.
        RangeError: If η is complex, or not a finite number above 0.

    Source: Nielsen, chapter 1, equation (10).

    Example:
        >>> rule = gradient_descent(0.25)
        >>> step, _ = rule.update(jnp.array(2.0), rule.init(jnp.array(1.0)))
        >>> float(step)
        -0.5
    """
    if callable(eta):
        return Rule(_SCHEDULED, {}, schedule=eta)
    return checked_rule(_CONSTANT, eta=eta)


def _constant(eta: Field) -> optax.GradientTransformation:
    def step(gradient: V, _: object) -> V:
        return tree_map(lambda g: -eta * g, gradient)

    return optax.stateless(step)


def _scheduled(schedule: Schedule) -> optax.GradientTransformation:
    def step(gradient: V, state: ScheduleState, v: V | None = None) -> tuple[V, ScheduleState]:
        eta: Any = schedule(state.updates)
        require_real("gradient_descent", "the eta of the schedule", eta)
        steps = tree_map(lambda g: jnp.asarray(-eta * g, g.dtype), gradient)
        return steps, ScheduleState(state.updates + 1)

    return optax.GradientTransformation(lambda v: ScheduleState(jnp.array(0)), step)


# These functions have names, because pickle cannot store a lambda.
def _constant_rate(state: object, eta: Real, mu: Real = 0) -> Real:
    return eta


def _scheduled_rate(state: ScheduleState, schedule: Schedule) -> ArrayLike:
    return schedule(state.updates)


_CONSTANT = RuleSpec("gradient_descent", _constant, rate=_constant_rate)
_SCHEDULED = RuleSpec("gradient_descent", _scheduled, may_step_zero=True, rate=_scheduled_rate)


def fixed_length(epsilon: Real) -> Rule:
    """Make the rule whose steps all have length ε.

    To first order, no other step of length ε decreases C more.

    Δv = −ε ∇C/‖∇C‖, and 0 where ∇C = 0. Near a minimum, the steps jump across the minimum, so v does not converge: its
    distance from the minimum stays of the order of ε.

    Args:
        epsilon: The length ε of each step, one number above 0, in the units of v. A traced ε is not checked here.

    Returns:
        The rule.

    Raises:
        DtypeError: If ε is not one number.
        RangeError: If ε is complex, or not a finite number above 0.

    Source: Nielsen, chapter 1, the exercise after equation (15), ‖Δv‖ = ε.

    Example:
        >>> rule = fixed_length(0.5)
        >>> step, _ = rule.update(jnp.array([3.0, 4.0]), rule.init(jnp.zeros(2)))
        >>> print(step)
        [-0.3 -0.4]
    """
    return checked_rule(_FIXED_LENGTH, epsilon=epsilon)


def _fixed_length(epsilon: Real) -> optax.GradientTransformation:
    def step(gradient: V, _: object) -> V:
        length = norm(gradient)
        # (ε/‖g‖) g would overflow for the smallest gradients.
        safe = jnp.where(length > 0, length, 1)
        return tree_map(lambda g: jnp.asarray(-epsilon * (g / safe), g.dtype), gradient)

    return optax.stateless(step)


_FIXED_LENGTH = RuleSpec("fixed_length", _fixed_length)


class MomentumState(NamedTuple, Generic[V]):
    """The state of a rule with momentum.

    Attributes:
        velocity: The velocity after the last step, a tree like v.
    """

    velocity: V


def heavy_ball(eta: Real, mu: Real) -> Rule:
    """Make the rule of a ball with momentum: each step keeps the fraction μ of the previous step.

    Δv = μ Δv′ − η∇C, where Δv′ is the previous step, at first 0. With μ = 0, the rule is gradient descent.

    Args:
        eta: The learning rate η, one number above 0. A traced η is not checked here.
        mu: The momentum coefficient μ, one number with 0 ≤ μ < 1. A traced μ is not checked here.

    Returns:
        The rule.

    Raises:
        DtypeError: If η is not one number, or μ is not one real number.
        RangeError: If η is complex, or η or μ is out of range.

    Source: Nielsen, chapter 3, equations (107) and (108); Polyak, USSR Comp. Math. 4 (1964) 1–17.

    Example:
        >>> rule = heavy_ball(0.5, 0.9)
        >>> state = rule.init(jnp.array(0.0))
        >>> for _ in range(2):
        ...     step, state = rule.update(jnp.array(1.0), state)
        >>> print(f"{step:.2f}")  # 0.9 × −0.5 − 0.5
        -0.95
    """
    return checked_rule(_HEAVY_BALL, eta=eta, mu=mu)


def nesterov(eta: Real, mu: Real) -> Rule:
    """Make the rule of Nesterov's accelerated gradient, in the form that needs ∇C only at v.

    m = μ m′ − η∇C and Δv = μ m − η∇C, where m′ is the previous velocity, at first 0.

    Args:
        eta: The learning rate η, one number above 0. A traced η is not checked here.
        mu: The momentum coefficient μ, one number with 0 ≤ μ < 1. A traced μ is not checked here.

    Returns:
        The rule.

    Raises:
        DtypeError: If η is not one number, or μ is not one real number.
        RangeError: If η is complex, or η or μ is out of range.

    Source: Sutskever et al., ICML 2013, equations (3) and (4). Their look-ahead point θ + μv is v here, and their
    velocity v is m here.

    Example:
        >>> rule = nesterov(0.5, 0.9)
        >>> step, _ = rule.update(jnp.array(1.0), rule.init(jnp.array(0.0)))
        >>> print(f"{step:.2f}")
        -0.95
    """
    return checked_rule(_NESTEROV, eta=eta, mu=mu)


def _momentum(eta: Real, mu: Real, ahead: bool = False) -> optax.GradientTransformation:
    def init(v: V) -> MomentumState[V]:
        return MomentumState(tree_map(jnp.zeros_like, v))

    def moved(m: Array, g: Array) -> Array:
        return jnp.asarray(mu * m - eta * g, g.dtype)

    def step(gradient: V, state: MomentumState[V], v: V | None = None) -> tuple[V, MomentumState[V]]:
        velocity = tree_map(moved, state.velocity, gradient)
        return tree_map(moved, velocity, gradient) if ahead else velocity, MomentumState(velocity)

    return optax.GradientTransformation(init, step)


def _nesterov(eta: Real, mu: Real) -> optax.GradientTransformation:
    return _momentum(eta, mu, ahead=True)


_HEAVY_BALL = RuleSpec("heavy_ball", _momentum, rate=_constant_rate)
_NESTEROV = RuleSpec("nesterov", _nesterov, rate=_constant_rate)
