"""Rules that need the gradient alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from jaxgd.errors import DtypeError, RangeError, ShapeError, describe, is_traced, require_float, require_positive
from jaxgd.pytree import norm
from jaxgd.rules.rule import Kind, Rule


def update(v: PyTree[Array], gradient: PyTree[Array], eta: Any) -> PyTree[Array]:
    """One step of gradient descent, for any pytree of variables.

    v → v − η∇C.

    Shapes: `v` and `gradient` alike; the result has v's shapes and dtypes.
    Range: η > 0; traced, it is not checked and may be swept with vmap.
    Raises: ShapeError if the trees or their shapes differ; DtypeError unless all are real floating point; RangeError or
    DtypeError for an η that is no step size.
    Source: Nielsen, chapter 1, equation (15).

    >>> float(update(jnp.array(1.0), jnp.array(2.0), 0.25))
    0.5
    """
    require_positive("update", "eta", eta)
    ours, theirs = str(jax.tree.structure(v)), str(jax.tree.structure(gradient))
    if ours != theirs:
        raise ShapeError(f"update: the gradient must be a tree like v, {ours}, got {theirs}.")
    return jax.tree_util.tree_map_with_path(lambda path, x, g: _step(path, x, g, eta), v, gradient)


def _step(path: Any, x: Array, g: Array, eta: Any) -> Array:
    if jnp.shape(x) != jnp.shape(g):
        raise ShapeError(
            f"update: leaf {jax.tree_util.keystr(path)!r} is {describe(x)} but its gradient is {describe(g)}."
        )
    name = jax.tree_util.keystr(path) or "v"
    require_float("update", f"variable {name}", x)
    require_float("update", f"the gradient of {name}", g)
    return jnp.asarray(x - eta * g, jnp.result_type(x))


Schedule = Callable[[Any], Any]
"""η by the number of updates made before, from 0: what optax calls a schedule."""


class ScheduleState(NamedTuple):
    """How many updates a schedule has seen."""

    updates: Array


def gradient_descent(eta: Any) -> Rule:
    """The book's rule: Δv = −η∇C and nothing else.

    Range: η > 0, or a schedule, a function of the number of updates made before (any of optax's). A number may be
    traced: then it is not checked, changing it does not recompile and vmap sweeps it.
    Raises: RangeError or DtypeError for an η that is no step size.
    Source: Nielsen, chapter 1, equation (10).

    >>> rule = gradient_descent(0.25)
    >>> step, _ = rule.update(jnp.array(2.0), rule.init(jnp.array(1.0)))
    >>> float(step)
    -0.5
    """
    if callable(eta):
        return Rule(_SCHEDULED, {}, schedule=eta)
    require_positive("gradient_descent", "eta", eta)
    return Rule(_CONSTANT, {"eta": eta})


def _constant(eta: Any) -> optax.GradientTransformation:
    return optax.stateless(lambda gradient, _: jax.tree.map(lambda g: -eta * g, gradient))


def _scheduled(schedule: Schedule) -> optax.GradientTransformation:
    def step(gradient: Any, state: ScheduleState, v: Any = None) -> tuple[Any, ScheduleState]:
        eta = schedule(state.updates)
        steps = jax.tree.map(lambda g: jnp.asarray(-eta * g, g.dtype), gradient)
        return steps, ScheduleState(state.updates + 1)

    return optax.GradientTransformation(lambda v: ScheduleState(jnp.array(0)), step)


_CONSTANT = Kind("gradient_descent", _constant, positive=("eta",), rate=lambda state, eta: eta)
_SCHEDULED = Kind("gradient_descent", _scheduled, waits=True, rate=lambda state, schedule: schedule(state.updates))


def fixed_length(epsilon: Any) -> Rule:
    """Of all moves of one length, the one that decreases C most, to first order.

    Δv = −ε ∇C/‖∇C‖, and 0 where ∇C = 0. Near a minimum it steps across, back and forth: it never settles closer than ε.

    Range: ε > 0, in the units of v.
    Raises: RangeError or DtypeError for an ε that is no length.
    Source: Nielsen, chapter 1, the exercise after equation (11), ‖Δv‖ = ε.

    >>> rule = fixed_length(0.5)
    >>> step, _ = rule.update(jnp.array([3.0, 4.0]), rule.init(jnp.zeros(2)))
    >>> print(step)
    [-0.3 -0.4]
    """
    require_positive("fixed_length", "epsilon", epsilon)
    return Rule(_FIXED_LENGTH, {"epsilon": epsilon})


def _fixed_length(epsilon: Any) -> optax.GradientTransformation:
    def step(gradient: Any, _: Any) -> Any:
        length = norm(gradient)
        # ε (g/‖g‖) and not (ε/‖g‖) g, which overflows for the smallest gradients.
        safe = jnp.where(length > 0, length, 1)
        return jax.tree.map(lambda g: jnp.asarray(-epsilon * (g / safe), g.dtype), gradient)

    return optax.stateless(step)


_FIXED_LENGTH = Kind("fixed_length", _fixed_length, positive=("epsilon",))


class MomentumState(NamedTuple):
    """The velocity: what the last step was."""

    velocity: PyTree[Array]


def heavy_ball(eta: Any, mu: Any) -> Rule:
    """A ball with momentum: part of each step is that of the step before.

    Δv = μ Δv′ − η∇C, with Δv′ the step before and 0 at first. μ = 0 is gradient descent.

    Range: η > 0, 0 ≤ μ < 1.
    Raises: RangeError or DtypeError for numbers out of range.
    Source: Nielsen, chapter 3, equations (107) and (108); Polyak, USSR Comp. Math. 4 (1964) 1–17.

    >>> rule = heavy_ball(0.5, 0.9)
    >>> state = rule.init(jnp.array(0.0))
    >>> for _ in range(2):
    ...     step, state = rule.update(jnp.array(1.0), state)
    >>> print(f"{step:.2f}")  # 0.9 × −0.5 − 0.5
    -0.95
    """
    require_positive("heavy_ball", "eta", eta)
    _require_fraction("heavy_ball", "mu", mu)
    return Rule(_HEAVY_BALL, {"eta": eta, "mu": mu})


def nesterov(eta: Any, mu: Any) -> Rule:
    """Momentum that looks ahead: Nesterov's accelerated gradient, in the form that needs ∇C(v) alone.

    m = μ m′ − η∇C, Δv = μ m − η∇C, with m′ that of the step before and 0 at first.

    Range: η > 0, 0 ≤ μ < 1.
    Raises: RangeError or DtypeError for numbers out of range.
    Source: Sutskever et al., ICML 2013, equations (3) and (4), in the variables of the looked-ahead point.

    >>> rule = nesterov(0.5, 0.9)
    >>> step, _ = rule.update(jnp.array(1.0), rule.init(jnp.array(0.0)))
    >>> print(f"{step:.2f}")
    -0.95
    """
    require_positive("nesterov", "eta", eta)
    _require_fraction("nesterov", "mu", mu)
    return Rule(_NESTEROV, {"eta": eta, "mu": mu})


def _momentum(eta: Any, mu: Any, ahead: bool = False) -> optax.GradientTransformation:
    def init(v: Any) -> MomentumState:
        return MomentumState(jax.tree.map(jnp.zeros_like, v))

    def moved(m: Array, g: Array) -> Array:
        return jnp.asarray(mu * m - eta * g, g.dtype)

    def step(gradient: Any, state: MomentumState, v: Any = None) -> tuple[Any, MomentumState]:
        velocity = jax.tree.map(moved, state.velocity, gradient)
        return jax.tree.map(moved, velocity, gradient) if ahead else velocity, MomentumState(velocity)

    return optax.GradientTransformation(init, step)


def _nesterov(eta: Any, mu: Any) -> optax.GradientTransformation:
    return _momentum(eta, mu, ahead=True)


_HEAVY_BALL = Kind("heavy_ball", _momentum, positive=("eta",), fractions=("mu",), rate=lambda state, eta, mu: eta)
_NESTEROV = Kind("nesterov", _nesterov, positive=("eta",), fractions=("mu",), rate=lambda state, eta, mu: eta)


def _require_fraction(who: str, name: str, x: Any) -> None:
    if is_traced(x):
        return
    if isinstance(x, bool) or jnp.ndim(x) != 0 or jnp.result_type(x).kind not in "iuf":
        raise DtypeError(f"{who}: {name} must be one real number, got {describe(x)}.\nTo try several, use jax.vmap.")
    if not 0 <= x < 1:
        raise RangeError(f"{who}: {name} must be at least 0 and below 1, got {x}.\nThe usual one is 0.9.")
