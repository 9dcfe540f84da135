"""The one loop of every descent."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PyTree

from jaxgd.curvature import sharpness
from jaxgd.descent.lanes import any_lane, count_after, counted, least_lane, none_waits, while_alive
from jaxgd.descent.record import ENTRIES, Buffers, blank, buffers, thinned, written
from jaxgd.descent.stop import FIRST_LOOK, Limits, Stop, limits_of, may_go_on, overflows, reason_to_stop
from jaxgd.descent.update import DescentState, Plan, cost_of, follows_cost, moves, one_update, step_of
from jaxgd.outcome import Reason
from jaxgd.pytree import any_nonzero, norm
from jaxgd.rules import Rule


class Carry(NamedTuple):
    """What the loop hands on: the count of this run's updates, which all lanes share, and each lane's own.

    `every` is after how many updates an entry is recorded; all lanes share it as well.
    """

    state: DescentState
    i: Int[Array, ""]
    code: Int[Array, ""]
    every: Int[Array, ""]
    buffers: Buffers | None
    eigenvector: PyTree[Array] | None


def start(plan: Plan, rule: Rule | None, stop: Stop | None, state: DescentState, args: tuple[Any, ...]) -> Carry:
    """The carry before the first update of a run, with entry 0 recorded and the tests made that can be made."""
    code = reason_to_stop(stop, _limits(stop, state), state)
    if rule is not None:
        code = jnp.where(rule.valid, code, int(Reason.BAD_RULE))
    carry = Carry(state, jnp.array(0), code, jnp.array(1), None, None)
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
    limits, follows = _limits(stop, carry.state), follows_cost(plan, rule, stop)
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
        return running & (may_go_on(stop, limits, c.state, follows) | (c.i == carry.i))

    def going(c: Carry) -> Any:
        held_up = running & overflows(stop, c.state) & (c.i > carry.i) if not follows else jnp.array(False)
        return any_lane(alive(c)) & none_waits(held_up) & (c.i < limit)

    end: Carry = lax.while_loop(going, lambda c: _updated(plan, rule, stop, c, args, alive(c)), carry)
    s, before = end.state, carry.state
    if not follows:
        s = s._replace(cost=cost_of(plan, s.v, args).astype(s.cost.dtype))
    step = count_after(end.i - carry.i, s.step, before.step)
    return end._replace(state=s._replace(step=step, evaluations=s.evaluations + step - before.step))


def _looked_at(plan: Plan, rule: Rule | None, stop: Stop | None, c: Carry, args: tuple[Any, ...]) -> Carry:
    """Which test was met, and whether there is any progress, if it is time to look."""
    s = c.state
    s = s._replace(scale=jnp.where(s.step == 1, jnp.maximum(s.scale, jnp.abs(s.cost)), s.scale))
    running = c.code == int(Reason.RUNNING)
    limits = _limits(stop, s)
    # As cheap as a loop's own test where there is nothing to say: a look must not cost what several updates do.
    met = running & ~(limits.plain & may_go_on(stop, limits, s, cost_known=True))
    code = lax.cond(any_lane(met), lambda: reason_to_stop(stop, limits, s), lambda: jnp.array(int(Reason.RUNNING)))
    code = jnp.where(running, code, c.code)
    if stop is not None and stop.stalled:
        due = (code == int(Reason.RUNNING)) & (s.step >= s.next_look)
        idle = due & ~(s.cost < s.cost_seen)

        def stuck() -> Any:
            steps = step_of(plan, rule, s, args)[0]
            still = ~moves(s.v, steps)
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


def _recorded_at(plan: Plan, c: Carry, i: Array) -> Any:
    """Whether the update is one that is recorded: known beforehand for all or none."""
    if plan.record is None:
        return False
    return True if plan.record.every == 1 else i % c.every == 0


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
