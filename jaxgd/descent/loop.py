"""The one loop of every descent."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from jaxgd.curvature import sharpness
from jaxgd.descent.lanes import any_lane, count_after, counted, least_lane, while_alive
from jaxgd.descent.record import ENTRIES, Buffers, Record, blank, buffers, thinned, written
from jaxgd.descent.stop import FIRST_LOOK, Limits, Stop, limits_of, may_go_on, reason_to_stop
from jaxgd.outcome import Reason
from jaxgd.pytree import any_nonzero, dot, norm, select, wide_dtype
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


class Carry(NamedTuple):
    """What the loop hands on: the count of this run's updates, which all lanes share, and each lane's own.

    `every` is after how many updates an entry is recorded; all lanes share it as well.
    """

    i: Int[Array, ""]
    code: Int[Array, ""]
    state: DescentState
    every: Int[Array, ""]
    buffers: Buffers | None
    eigenvector: PyTree[Array] | None


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


def start(plan: Plan, rule: Rule | None, stop: Stop | None, state: DescentState, args: tuple[Any, ...]) -> Carry:
    """The carry before the first update of a run, with entry 0 recorded and the tests made that can be made."""
    code = reason_to_stop(stop, _limits(stop, state), state)
    if rule is not None:
        code = jnp.where(rule.valid, code, int(Reason.BAD_RULE))
    carry = Carry(jnp.array(0), code, state, jnp.array(1), None, None)
    if plan.record is None:
        return carry
    carry = carry._replace(every=jnp.array(plan.record.every or 1))
    vector = jax.tree.map(jnp.zeros_like, state.v) if plan.record.sharpness else None
    nan = jnp.full((), jnp.nan, state.cost.dtype)
    entry, vector = _entry(plan, rule, state, args, (nan, nan, nan), vector)
    empty = buffers(plan.record, plan.max_steps or 0, entry)
    return carry._replace(buffers=written(empty, 0, entry), eigenvector=vector)


def advance(plan: Plan, rule: Rule | None, stop: Stop | None, carry: Carry, args: tuple[Any, ...], limit: Any) -> Carry:
    """Update until a test is met or `limit` updates of this run are made.

    Two loops: the inner one updates and asks no more than whether any test may be met; the outer one says which, and
    looks at what is rare. So a step costs what a bare loop's does.
    """

    def going(c: Carry) -> Any:
        return any_lane(c.code == int(Reason.RUNNING)) & (c.i < limit)

    def several(c: Carry) -> Carry:
        return _thinned(plan, _looked_at(plan, rule, stop, _several(plan, rule, stop, c, args, limit), args))

    end: Carry = lax.while_loop(going, several, carry)
    if plan.record is None:
        s = end.state
        end = end._replace(state=s._replace(best_v=s.v, best_cost=s.cost))
    return end


def _several(
    plan: Plan, rule: Rule | None, stop: Stop | None, carry: Carry, args: tuple[Any, ...], limit: Any
) -> Carry:
    """Updates until a test is met in all lanes, or it is time to look at one, or the limit is reached."""
    running = carry.code == int(Reason.RUNNING)
    limits = _limits(stop, carry.state)
    # The first alone: what C is after it belongs to the scale by which divergence is measured.
    most = jnp.where(carry.state.step == 0, 1, limit)
    if stop is not None and stop.needs_gradient_norm:
        most = jnp.where(limits.plain, most, 1)
    if stop is not None and stop.stalled:
        most = jnp.minimum(most, carry.state.next_look - carry.state.step)
    limit = jnp.minimum(limit, carry.i + least_lane(jnp.where(running, most, limit)))
    if plan.record is not None and plan.record.every is None:
        limit = jnp.minimum(limit, ENTRIES * carry.every)

    def alive(c: Carry) -> Any:
        # One update at least: should rounding be another here than where the tests are told, it goes on all the same.
        return running & (may_go_on(stop, limits, c.state) | (c.i == carry.i))

    def going(c: Carry) -> Any:
        return any_lane(alive(c)) & (c.i < limit)

    end: Carry = lax.while_loop(going, lambda c: _updated(plan, rule, stop, c, args, alive(c)), carry)
    s, before = end.state, carry.state
    step = count_after(end.i - carry.i, s.step, before.step)
    return end._replace(state=s._replace(step=step, evaluations=s.evaluations + step - before.step))


def _looked_at(plan: Plan, rule: Rule | None, stop: Stop | None, c: Carry, args: tuple[Any, ...]) -> Carry:
    """Which test was met, and whether there is any progress, if it is time to look."""
    s = c.state
    s = s._replace(scale=jnp.where(s.step == 1, jnp.maximum(s.scale, jnp.abs(s.cost)), s.scale))
    running = c.code == int(Reason.RUNNING)
    code = jnp.where(running, reason_to_stop(stop, _limits(stop, s), s), c.code)
    if stop is not None and stop.stalled:
        due = (code == int(Reason.RUNNING)) & (s.step >= s.next_look)
        idle = due & ~(s.cost < s.cost_seen)

        def stuck() -> Any:
            steps = _step(plan, rule, s, args)[0]
            still = ~_moves(s.v, steps)
            # A schedule may begin with 0, and an optimizer gather gradients first.
            waiting = ~any_nonzero(steps) if rule is None or rule.kind.waits else False
            return still & ~jnp.asarray(waiting)

        stalled = idle & lax.cond(any_lane(idle), stuck, lambda: jnp.array(False))
        code = jnp.where(stalled, int(Reason.STALLED), code)
        later = s.step + jnp.maximum(FIRST_LOOK, s.step // 8)
        s = s._replace(next_look=jnp.where(due, later, s.next_look), cost_seen=jnp.where(due, s.cost, s.cost_seen))
    return c._replace(code=code, state=s)


def _thinned(plan: Plan, c: Carry) -> Carry:
    """With every second entry only, where there is no room for more."""
    if plan.record is None or plan.record.every is not None or c.buffers is None:
        return c
    full = c.i >= ENTRIES * c.every
    kept = lax.cond(full, thinned, lambda filled: filled, c.buffers)
    return c._replace(buffers=kept, every=jnp.where(full, 2 * c.every, c.every))


def _updated(plan: Plan, rule: Rule | None, stop: Stop | None, c: Carry, args: tuple[Any, ...], alive: Any) -> Carry:
    s = c.state
    i = c.i + 1
    state, (step_norm, predicted) = one_update(plan, rule, stop, s, args, _recorded_at(plan, c, i))
    state = while_alive(alive, state, s)._replace(step=counted(alive, s.step))
    if plan.record is None or c.buffers is None:
        return c._replace(i=i, state=state)

    def measured() -> tuple[Buffers, Any]:
        return _entry(plan, rule, state, args, (step_norm, predicted, state.cost - s.cost), c.eigenvector)

    nothing = jax.tree.map(lambda xs: blank(xs[0]), c.buffers)

    def between() -> tuple[Buffers, Any]:
        return nothing, c.eigenvector

    if plan.record.every == 1:
        (entry, vector), row = measured(), i
    else:
        entry, vector = lax.cond(i % c.every == 0, measured, between)
        row = jnp.where(i % c.every == 0, i // c.every, len(c.buffers.table) - 1)
    entry = while_alive(alive, entry, nothing)
    return c._replace(i=i, state=state, buffers=written(c.buffers, row, entry), eigenvector=vector)


def _step(plan: Plan, rule: Rule | None, s: DescentState, args: tuple[Any, ...]) -> tuple[Any, Any]:
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
    steps, rule_state = _step(plan, rule, s, args)
    nan = jnp.full((), jnp.nan, kind)
    step_norm = predicted = nan
    if recorded is not False:

        def of_the_step() -> tuple[Array, Array]:
            return norm(steps).astype(kind), dot(s.gradient, steps).astype(kind)

        step_norm, predicted = (
            of_the_step() if recorded is True else lax.cond(recorded, of_the_step, lambda: (nan, nan))
        )
    v = jax.tree.map(_moved, s.v, steps)
    keeps = rule is not None and rule.kind.keeps_value
    c, gradient, known = _evaluated(lambda v: plan.cost(v, *args), v, rule_state if keeps else ())
    c = jnp.asarray(c, kind)
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


def _recorded_at(plan: Plan, c: Carry, i: Array) -> Any:
    """Whether the update is one that is recorded: known beforehand for all or none."""
    if plan.record is None:
        return False
    return True if plan.record.every == 1 else i % c.every == 0


def _moves(v: PyTree[Array], steps: PyTree[Array]) -> Array:
    """Whether a step moves any variable by more than its rounding."""

    def moves(x: Array, u: Array) -> Array:
        return jnp.any(~(jnp.abs(u) <= jnp.finfo(x.dtype).eps * jnp.abs(x)))  # type: ignore[no-untyped-call]

    return jnp.any(jnp.array(jax.tree.leaves(jax.tree.map(moves, v, steps))))


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


def _limits(stop: Stop | None, s: DescentState) -> Limits:
    return limits_of(stop, s.first_norm, s.scale)


def _entry(
    plan: Plan, rule: Rule | None, s: DescentState, args: tuple[Any, ...], step: tuple[Array, Array, Array], vector: Any
) -> tuple[Buffers, Any]:
    """One entry of the trajectory, and the Hessian's eigenvector to begin the next one's search with."""
    record, kind = plan.record, s.cost.dtype
    assert record is not None
    largest = limit = jnp.full((), jnp.nan, kind)
    if record.sharpness:
        found = sharpness(plan.cost, s.v, args=args, start=_or_ones(vector))
        vector = jax.tree.map(lambda x, y: jnp.asarray(y, x.dtype), s.v, found.vector)
        # What did not converge is not known.
        largest = jnp.where(found.converged, found.value, jnp.nan).astype(kind)
        if rule is not None:
            limit = (2 / rule.rate(s.rule)).astype(kind)
    step_norm, predicted, actual = step
    table = jnp.stack([s.cost, norm(s.gradient).astype(kind), step_norm, predicted, actual, largest, limit])
    value = None if record.function is None else jax.tree.map(jnp.asarray, record.function(s.v))
    return Buffers(table, s.v if record.v else None, value), vector


def _or_ones(vector: Any) -> Any:
    """A direction to begin with: the last one, or where there is none yet, all ones."""
    length = norm(vector)
    return jax.tree.map(lambda x: jnp.where(length > 0, x, jnp.ones_like(x)), vector)
