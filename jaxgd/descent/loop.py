"""The loop that every descent runs."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PyTree

from jaxgd.curvature import sharpness
from jaxgd.descent.batching import any_element, count_after, count_alive, least_element, no_element, select_alive
from jaxgd.descent.confirm import is_near
from jaxgd.descent.record import ENTRIES, Buffers, blank, buffers, thinned, written
from jaxgd.descent.stop import FIRST_LOOK, Limits, Stop, limits_of, may_go_on, overflows, reason_to_stop
from jaxgd.descent.update import (
    DescentState,
    StaticConfig,
    cost_of,
    follows_cost,
    landing,
    moves,
    one_update,
    step_of,
    with_reduced_gradient,
)
from jaxgd.errors import as_array
from jaxgd.outcome import Reason
from jaxgd.pytree import any_nonzero, norm, subtract
from jaxgd.rules import Rule
from jaxgd.rules.bounds import Bounds, free


class Carry(NamedTuple):
    """The state of the loop.

    Attributes:
        state: The state of the descent.
        i: The number of updates in this run, one number for the whole batch.
        code: The `Reason` as an integer, RUNNING until a test is met.
        every: The number of updates between two recorded entries, one number for the whole batch.
        buffers: The recorded entries; None if nothing is recorded.
        eigenvector: The Hessian's last eigenvector, where the next search starts; None if sharpness is not recorded.
        gradient_norm: ‖∇C‖ at the end, and its tolerance; None without a test of the gradient.
        bounds: The bounds of the variables; None without bounds.
    """

    state: DescentState
    i: Int[Array, ""]
    code: Int[Array, ""]
    every: Int[Array, ""]
    buffers: Buffers | None
    eigenvector: PyTree[Array] | None
    gradient_norm: tuple[Array, Array] | None = None
    bounds: Bounds | None = None


def start(
    config: StaticConfig,
    rule: Rule | None,
    stop: Stop | None,
    state: DescentState,
    args: tuple[Any, ...],
    bounds: Bounds | None = None,
) -> Carry:
    """Return the carry before the first update of a run. Record entry 0, and make the stopping tests at the start."""
    tested_state = with_reduced_gradient(bounds, state)
    code = reason_to_stop(stop, _limits(stop, state), tested_state)
    # After an update, a smaller η may help. At the start, it cannot.
    first = (state.step == 0) & (code == int(Reason.NOT_FINITE))
    code = jnp.where(first, int(Reason.START_NOT_FINITE), code)
    if rule is not None:
        code = jnp.where(rule.valid, code, int(Reason.BAD_RULE))
    if bounds is not None:
        code = jnp.where(bounds.valid, code, int(Reason.BAD_RULE))
    nan = jnp.full((), jnp.nan, state.cost.dtype)
    tested = (nan, nan) if stop is not None and stop.needs_gradient_norm else None
    carry = Carry(state, jnp.array(0), code, jnp.array(1), None, None, tested, bounds)
    if config.record is None:
        return carry
    carry = carry._replace(every=jnp.array(config.record.every or 1))
    vector = jax.tree.map(jnp.zeros_like, state.v) if config.record.sharpness else None
    entry, vector = _entry(config, rule, tested_state, args, (nan, nan, nan), vector)
    empty = buffers(config.record, config.max_steps or 0, entry)
    return carry._replace(buffers=written(empty, 0, entry), eigenvector=vector)


def advance(
    config: StaticConfig, rule: Rule | None, stop: Stop | None, carry: Carry, args: tuple[Any, ...], limit: Any
) -> Carry:
    """Update until a stopping test is met or this run has made `limit` updates.

    The inner loop makes updates. After each update, a cheap check shows whether any test is met. The outer loop finds
    the test that is met, checks progress and thins the record. A step therefore costs about as much as in a bare loop.
    After the loop, a small gradient must also pass the check of `_confirmed`.
    """

    def going(c: Carry) -> Any:
        return any_element(c.code == int(Reason.RUNNING)) & (c.i < limit)

    def several(c: Carry) -> Carry:
        return _thin(config, _check_tests(config, rule, stop, _run_updates(config, rule, stop, c, args, limit), args))

    end: Carry = lax.while_loop(going, several, carry)
    end = _confirmed(config, stop, end, args)
    if config.record is None:
        s = end.state
        end = end._replace(state=s._replace(best_v=s.v, best_cost=s.cost))
    return end


def _run_updates(
    config: StaticConfig, rule: Rule | None, stop: Stop | None, carry: Carry, args: tuple[Any, ...], limit: Any
) -> Carry:
    """Update until every batch element meets a test, a check of progress is due, or the limit is reached.

    The loop also ends after the first update, after each update if `limits.plain` is false, when ‖∇C‖² overflows, and
    when the buffers are full.
    """
    running = carry.code == int(Reason.RUNNING)
    limits, follows, bounds = _limits(stop, carry.state), follows_cost(config, rule, stop), carry.bounds
    # Make the first update alone: C(v₁) is part of the scale for the divergence test.
    most = jnp.where(carry.state.step == 0, 1, limit)
    if stop is not None and stop.needs_gradient_norm:
        most = jnp.where(limits.plain, most, 1)
    if stop is not None and stop.stalled:
        most = jnp.minimum(most, carry.state.next_look - carry.state.step)
    limit = jnp.minimum(limit, carry.i + least_element(jnp.where(running, most, limit)))
    if config.record is not None and config.record.every is None:
        limit = jnp.minimum(limit, ENTRIES * carry.every)

    def alive(c: Carry) -> Any:
        # Make at least one update. If rounding made this test differ from the outer one, the loops would never end.
        state = with_reduced_gradient(bounds, c.state)
        return running & (may_go_on(stop, limits, state, follows) | (c.i == carry.i))

    def going(c: Carry) -> Any:
        state = with_reduced_gradient(bounds, c.state)
        overflowed = running & overflows(stop, state) & (c.i > carry.i) if not follows else jnp.array(False)
        return any_element(alive(c)) & no_element(overflowed) & (c.i < limit)

    end: Carry = lax.while_loop(going, lambda c: _update(config, rule, stop, c, args, alive(c)), carry)
    s, before = end.state, carry.state
    if not follows:
        s = s._replace(cost=cost_of(config, s.v, args).astype(s.cost.dtype))
    step = count_after(end.i - carry.i, s.step, before.step)
    return end._replace(state=s._replace(step=step, evaluations=s.evaluations + step - before.step))


def _check_tests(config: StaticConfig, rule: Rule | None, stop: Stop | None, c: Carry, args: tuple[Any, ...]) -> Carry:
    """Set the code of each batch element that meets a test, and check progress if it is due."""
    s = c.state
    s = s._replace(scale=jnp.where(s.step == 1, jnp.maximum(s.scale, jnp.abs(s.cost)), s.scale))
    running = c.code == int(Reason.RUNNING)
    limits = _limits(stop, s)
    # Use the cheap test first. The exact tests can cost as much as several updates.
    tested = with_reduced_gradient(c.bounds, s)
    met = running & ~(limits.plain & may_go_on(stop, limits, tested, cost_known=True))
    code = lax.cond(
        any_element(met), lambda: reason_to_stop(stop, limits, tested), lambda: jnp.array(int(Reason.RUNNING))
    )
    code = jnp.where(running, code, c.code)
    if stop is not None and stop.stalled:
        due = (code == int(Reason.RUNNING)) & (s.step >= s.next_look)
        idle = due & ~(s.cost < s.cost_seen)

        def stuck() -> Any:
            if rule is not None and rule.spec.caches_value:
                # The state holds the last v. A second copy of the search would double the time of compilation.
                steps = subtract(s.v, s.rule.v)
            else:
                steps = step_of(config, rule, s, args, c.bounds)[0]
            changes = steps if c.bounds is None else subtract(landing(c.bounds, s.v, steps), s.v)
            still = ~moves(s.v, changes)
            # A zero step is no stall here: a schedule may begin with 0, and an optimizer may first collect gradients.
            waiting = ~any_nonzero(steps) if rule is None or rule.spec.may_step_zero else False
            return still & ~jnp.asarray(waiting)

        stalled = idle & lax.cond(any_element(idle), stuck, lambda: jnp.array(False))
        code = jnp.where(stalled, int(Reason.STALLED), code)
        later = s.step + jnp.maximum(FIRST_LOOK, s.step // 8)
        s = s._replace(next_look=jnp.where(due, later, s.next_look), cost_seen=jnp.where(due, s.cost, s.cost_seen))
    return c._replace(code=code, state=s)


def _thin(config: StaticConfig, c: Carry) -> Carry:
    """Drop every second entry if the buffers are full."""
    if config.record is None or config.record.every is not None or c.buffers is None:
        return c
    full = c.i >= ENTRIES * c.every
    kept = lax.cond(full, thinned, lambda filled: filled, c.buffers)
    return c._replace(buffers=kept, every=jnp.where(full, 2 * c.every, c.every))


def _update(
    config: StaticConfig, rule: Rule | None, stop: Stop | None, c: Carry, args: tuple[Any, ...], alive: Any
) -> Carry:
    s = c.state
    i = c.i + 1
    state, (step_norm, predicted) = one_update(config, rule, stop, s, args, _is_recorded(config, c, i), c.bounds)
    state = select_alive(alive, state, s)._replace(step=count_alive(alive, s.step))
    if config.record is None or c.buffers is None:
        return c._replace(i=i, state=state)

    def measured() -> tuple[Buffers, Any]:
        tested = with_reduced_gradient(c.bounds, state)
        return _entry(config, rule, tested, args, (step_norm, predicted, state.cost - s.cost), c.eigenvector)

    nothing = jax.tree.map(lambda xs: blank(xs[0]), c.buffers)

    def between() -> tuple[Buffers, Any]:
        return nothing, c.eigenvector

    if config.record.every == 1:
        (entry, vector), row = measured(), i
    else:
        entry, vector = lax.cond(i % c.every == 0, measured, between)
        row = jnp.where(i % c.every == 0, i // c.every, len(c.buffers.table) - 1)
    entry = select_alive(alive, entry, nothing)
    return c._replace(i=i, state=state, buffers=written(c.buffers, row, entry), eigenvector=vector)


def _is_recorded(config: StaticConfig, c: Carry, i: Array) -> Any:
    """Return whether update i is recorded.

    The result is a Python bool if it does not depend on i, otherwise a traced bool.
    """
    if config.record is None:
        return False
    return True if config.record.every == 1 else i % c.every == 0


def _confirmed(config: StaticConfig, stop: Stop | None, end: Carry, args: tuple[Any, ...]) -> Carry:
    """Return the carry with another code where ‖∇C‖ is small compared with the start, but v is not near a minimum.

    The check is not made where ‖∇C‖ ≤ gradient_atol, because that is the caller's own goal.
    """
    if stop is None or not stop.needs_gradient_norm:
        return end
    s, kind = with_reduced_gradient(end.bounds, end.state), end.state.cost.dtype
    can_move = None if end.bounds is None else free(end.bounds, s.v, end.state.gradient)
    length = norm(s.gradient).astype(kind)
    zero = length == 0
    own_goal = length <= (0 if stop.gradient_atol is None else stop.gradient_atol)
    met = (end.code == int(Reason.GRADIENT)) & (zero | ~own_goal)

    def near() -> Array:
        rtol = 0 if stop.gradient_rtol is None else stop.gradient_rtol
        definite, either = is_near(
            lambda v: config.cost(v, *args), s.v, s.cost, s.gradient, rtol, s.evaluations, can_move
        )
        return jnp.where(s.step > 0, either, definite)

    confirmed = lax.cond(any_element(met), near, lambda: jnp.array(True))
    other = jnp.where(zero, int(Reason.ZERO_GRADIENT), int(Reason.UNCONFIRMED))
    code = jnp.where(met & ~confirmed, other, end.code)
    return end._replace(code=code, gradient_norm=(length, _limits(stop, s).gradient))


def _limits(stop: Stop | None, s: DescentState) -> Limits:
    return limits_of(stop, s.first_norm, s.scale)


def _entry(
    config: StaticConfig,
    rule: Rule | None,
    s: DescentState,
    args: tuple[Any, ...],
    step: tuple[Array, Array, Array],
    vector: Any,
) -> tuple[Buffers, Any]:
    """Return one entry of the trajectory, and the Hessian's eigenvector, where the next search starts."""
    record, kind = config.record, s.cost.dtype
    assert record is not None
    largest = limit = jnp.full((), jnp.nan, kind)
    if record.sharpness:
        estimate = sharpness(config.cost, s.v, args=args, start=_first_direction(vector))
        vector = jax.tree.map(lambda x, y: jnp.asarray(y, x.dtype), s.v, estimate.vector)
        # An eigenvalue that did not converge is recorded as NaN.
        largest = jnp.where(estimate.converged, estimate.value, jnp.nan).astype(kind)
        if rule is not None:
            limit = (2 / rule.rate(s.rule)).astype(kind)
    step_norm, predicted, actual = step
    table = jnp.stack([s.cost, norm(s.gradient).astype(kind), step_norm, predicted, actual, largest, limit])
    value = None
    if record.function is not None:
        checked = functools.partial(as_array, "minimize", "the result of record.function")
        value = jax.tree.map(lambda x: jnp.asarray(checked(x)), record.function(s.v))
    return Buffers(table, s.v if record.v else None, value), vector


def _first_direction(vector: Any) -> Any:
    """Return the last eigenvector, or all ones if it is zero: a direction for the search to start with."""
    length = norm(vector)
    return jax.tree.map(lambda x: jnp.where(length > 0, x, jnp.ones_like(x)), vector)
