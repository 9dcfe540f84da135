"""One update of a descent: the state it begins with, and the state it leaves."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from jaxgd.descent.record import Record
from jaxgd.descent.stop import FIRST_LOOK, Stop
from jaxgd.pytree import dot, norm, select, wide_dtype
from jaxgd.rules import Rule


class DescentState(NamedTuple):
    """Everything a step needs and leaves behind. A pytree: scan it, vmap it, save it whole."""

    v: PyTree[Array]  # the variables
    cost: Float[Array, "*lanes"]  # C(v)
    gradient: PyTree[Array]  # ∇C(v)
    rule: PyTree[Array]  # the rule's own state
    step: Int[Array, "*lanes"]  # updates made so far
    evaluations: Int[Array, "*lanes"]  # of C, ∇C or a Hessian-vector product, each counted as one
    best_v: PyTree[Array]  # where C was lowest; v where nothing is recorded
    best_cost: Float[Array, "*lanes"]
    first_norm: Float[Array, "*lanes"]  # ‖∇C(v₀)‖
    scale: Float[Array, "*lanes"]  # max(|C(v₀)|, |C(v₁)|)
    cost_before: Float[Array, "*lanes"]  # C(v_{k−1}); infinite at the start
    step_norm: Float[Array, "*lanes"]  # ‖Δv‖ of the last update; infinite at the start or if no test needs it
    next_look: Int[Array, "*lanes"]  # the update after which progress is looked at next
    cost_seen: Float[Array, "*lanes"]  # C when it was looked at last


@dataclasses.dataclass(frozen=True)
class Plan:
    """What decides the compiled program, as one hashable value.

    `rule` is an optax transformation, where the rule is not a `Rule` whose numbers are data.
    """

    cost: Callable[..., Any]
    rule: Any
    record: Record | None
    max_steps: int | None  # of the buffers; None where nothing is recorded


def rule_of(plan: Plan, rule: Rule | None) -> Any:
    """The optax transformation to use."""
    if rule is not None:
        return rule
    if not isinstance(plan.rule, optax.GradientTransformation):
        # As MultiSteps, which takes what its inner rule needs and does not say so by its type.
        return optax.GradientTransformationExtraArgs(plan.rule.init, plan.rule.update)
    return optax.with_extra_args_support(plan.rule)


def begin(plan: Plan, rule: Rule | None, v: PyTree[Array], args: tuple[Any, ...]) -> DescentState:
    """The state before the first update."""
    kind = wide_dtype(v)
    cost, gradient = jax.value_and_grad(lambda v: plan.cost(v, *args))(v)
    cost = jnp.asarray(cost, kind)
    infinite = jnp.full((), jnp.inf, kind)
    return DescentState(
        v=v,
        cost=cost,
        gradient=gradient,
        rule=rule_of(plan, rule).init(v),
        step=jnp.array(0),
        evaluations=jnp.array(1),
        best_v=v,
        best_cost=jnp.where(jnp.isnan(cost), jnp.inf, cost),
        first_norm=norm(gradient).astype(kind),
        scale=jnp.abs(cost),
        cost_before=infinite,
        step_norm=infinite,
        next_look=jnp.array(FIRST_LOOK),
        cost_seen=cost,
    )


def follows_cost(plan: Plan, rule: Rule | None, stop: Stop | None) -> bool:
    """Whether C has to be known after every update, or is a number that nobody looks at before the end."""
    needed = stop is None or stop.needs_cost or not stop.needs_gradient_norm
    return needed or plan.record is not None or rule is None or rule.kind.uses_cost


def cost_of(plan: Plan, v: PyTree[Array], args: tuple[Any, ...]) -> Array:
    """C(v)."""
    return jnp.asarray(plan.cost(v, *args))


def step_of(plan: Plan, rule: Rule | None, s: DescentState, args: tuple[Any, ...]) -> tuple[Any, Any]:
    """Δv and the rule's next state."""

    def cost(v: PyTree[Array]) -> Any:
        return plan.cost(v, *args)

    step: tuple[Any, Any] = rule_of(plan, rule).update(
        s.gradient, s.rule, s.v, value=s.cost, grad=s.gradient, value_fn=cost
    )
    return step


def one_update(
    plan: Plan, rule: Rule | None, stop: Stop | None, s: DescentState, args: tuple[Any, ...], recorded: Any
) -> tuple[DescentState, tuple[Array, Array]]:
    """One update and what was measured of the step itself: ‖Δv‖ and ∇C·Δv, where they are recorded.

    The state's `step` and the one evaluation that each update makes are left to the caller, who knows of many at once.
    """
    kind = s.cost.dtype
    steps, rule_state = step_of(plan, rule, s, args)
    nan = jnp.full((), jnp.nan, kind)
    step_norm = predicted = nan
    if recorded is not False:

        def of_the_step() -> tuple[Array, Array]:
            return norm(steps).astype(kind), dot(s.gradient, steps).astype(kind)

        step_norm, predicted = (
            of_the_step() if recorded is True else lax.cond(recorded, of_the_step, lambda: (nan, nan))
        )
    v = jax.tree.map(_moved, s.v, steps)
    if follows_cost(plan, rule, stop):
        keeps = rule is not None and rule.kind.keeps_value
        c, gradient, known = _evaluated(lambda v: plan.cost(v, *args), v, rule_state if keeps else ())
        c = jnp.asarray(c, kind)
    else:
        c, gradient, known = s.cost, jax.grad(lambda v: plan.cost(v, *args))(v), 0
    # What no test needs and nothing records stays as it is, and costs nothing.
    state = s._replace(v=v, cost=c, gradient=gradient, rule=rule_state)
    if (extra := _evaluations(rule_state)) is not None:
        state = state._replace(evaluations=s.evaluations + extra - known)
    if plan.record is not None:
        better = c < s.best_cost
        state = state._replace(best_v=select(better, v, s.best_v), best_cost=jnp.where(better, c, s.best_cost))
    if stop is not None and stop.needs_step_norm:
        state = state._replace(step_norm=step_norm if recorded is True else norm(steps).astype(kind))
    if stop is not None and stop.needs_decrease:
        state = state._replace(cost_before=s.cost)
    return state, (step_norm, predicted)


def moves(v: PyTree[Array], steps: PyTree[Array]) -> Array:
    """Whether a step moves any variable by more than its rounding."""

    def leaf_moves(x: Array, u: Array) -> Array:
        return jnp.any(~(jnp.abs(u) <= jnp.finfo(x.dtype).eps * jnp.abs(x)))  # type: ignore[no-untyped-call]

    return jnp.any(jnp.array(jax.tree.leaves(jax.tree.map(leaf_moves, v, steps))))


def _moved(x: Array, u: Any) -> Array:
    """The step made, in the dtype of the variable."""
    moved = jnp.asarray(x + u, x.dtype)
    if x.dtype.itemsize < 4:
        # XLA would keep the digits that the dtype has not, and C would be that of another point.
        known: Any = jnp.finfo(x.dtype)  # type: ignore[no-untyped-call]
        moved = lax.reduce_precision(moved, known.nexp, known.nmant)
    return moved


def _evaluated(cost: Any, v: PyTree[Array], rule_state: Any) -> tuple[Any, Any, Any]:
    """C and ∇C at v, and whether they were known: a line search of optax keeps what it found where it ended."""
    values = optax.tree_utils.tree_get_all_with_path(rule_state, "value")
    gradients = optax.tree_utils.tree_get_all_with_path(rule_state, "grad")
    if not (len(values) == len(gradients) == 1):
        c, g = jax.value_and_grad(cost)(v)
        return c, g, 0
    value, gradient = values[0][1], gradients[0][1]
    known = jnp.isfinite(value)

    def evaluate() -> Any:
        c, g = jax.value_and_grad(cost)(v)
        return jnp.asarray(c, value.dtype), jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), g, gradient)

    c, g = lax.cond(known, lambda: (value, gradient), evaluate)
    return c, g, known.astype(int)


def _evaluations(rule_state: Any) -> Any:
    """What the last update evaluated itself, as our rules count it, and optax's line searches; None if none counts."""
    ours = optax.tree_utils.tree_get_all_with_path(rule_state, "evaluations")
    searches = optax.tree_utils.tree_get_all_with_path(rule_state, "num_linesearch_steps")
    counts = [jnp.asarray(n, int) for _, n in (*ours, *searches)]
    return sum(counts) if counts else None
