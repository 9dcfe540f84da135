"""The compiled loop of `minimize`, and its parts for the methods of `Descent`."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int

from jaxgd.curvature import sharpness
from jaxgd.descent.batching import (
    any_due,
    any_element,
    count_after,
    count_alive,
    least_element,
    no_element,
    select_alive,
    updates_made,
    write_row,
)
from jaxgd.descent.confirm import is_near
from jaxgd.descent.record import ENTRIES, Buffers, blank, buffers, thinned, written
from jaxgd.descent.state import DescentState, args_at
from jaxgd.descent.stop import FIRST_LOOK, Limits, Stop, limits_of, may_go_on, overflows, reason_to_stop
from jaxgd.descent.update import (
    StaticConfig,
    cost_of,
    cost_with,
    follows_cost,
    landing,
    moves,
    one_update,
    step_of,
    with_reduced_gradient,
    with_scale,
)
from jaxgd.errors import as_array
from jaxgd.mesh import control
from jaxgd.outcome import Reason
from jaxgd.pytree import any_nonzero, norm, subtract
from jaxgd.rules import Rule
from jaxgd.rules.bounds import Bounds, free
from jaxgd.typed import Generic, V, tree_map

# The code of a run whose ‖∇C‖ is within its tolerance at the start. The loop replaces it after a check for a minimum.
_UNCHECKED = -1
# After a check that finds no minimum near v, ‖∇C‖ − gradient_atol must fall to this fraction of its value. Then the
# loop checks again.
_SMALLER = 0.1


class Carry(NamedTuple, Generic[V]):
    """The state of the loop.

    Attributes:
        state: The state of the descent.
        i: The number of updates in this run. Under vmap, it is one number for the whole batch, exact only if `even` is
            True.
        first: The number of updates before this run.
        even: True if no element of a batch has made more than i updates. An element that pauses at a test makes fewer
            updates.
        code: The `Reason` as an integer. It is RUNNING or _UNCHECKED until a test is met.
        every: The number of updates between two recorded entries, one number for the whole batch.
        buffers: The recorded entries; None if nothing is recorded.
        eigenvector: The eigenvector of the latest sharpness, where the next search starts. It is 0 before the first
            search, and None if sharpness is not recorded.
        gradient_norm: ‖∇C‖ and its tolerance at the end of the run; None without a test of the gradient.
        bounds: The bounds of the variables; None without bounds.
    """

    state: DescentState[V]
    i: Int[Array, ""]
    first: Int[Array, ""]
    even: Bool[Array, ""]
    code: Int[Array, ""]
    every: Int[Array, ""]
    buffers: Buffers | None
    eigenvector: V | None
    gradient_norm: tuple[Array, Array] | None = None
    bounds: Bounds | None = None


def start(
    config: StaticConfig,
    rule: Rule | None,
    stop: Stop | None,
    state: DescentState[V],
    args: tuple[Any, ...],
    bounds: Bounds | None = None,
) -> Carry[V]:
    """Return the carry before the first update of a run. Record entry 0, and make the stopping tests at the start."""
    tested_state = with_reduced_gradient(bounds, state)
    code = reason_to_stop(stop, _limits(stop, state), tested_state)
    # A start that is not finite has its own reason, because a smaller η cannot help.
    first = (state.step == 0) & (code == int(Reason.NOT_FINITE))
    code = jnp.where(first, int(Reason.START_NOT_FINITE), code)
    code = jnp.where(code == int(Reason.GRADIENT), _UNCHECKED, code)
    if rule is not None:
        code = jnp.where(rule.valid, code, int(Reason.BAD_RULE))
    if bounds is not None:
        code = jnp.where(bounds.valid, code, int(Reason.BAD_RULE))
    nan = jnp.full((), jnp.nan, state.cost.dtype)
    tested = (nan, nan) if stop is not None and stop.needs_gradient_norm else None
    carry = Carry(state, jnp.array(0), state.step, jnp.array(True), code, jnp.array(1), None, None, tested, bounds)
    if config.record is None:
        return carry
    vector = tree_map(jnp.zeros_like, state.v) if config.record.sharpness else None

    def first_entry() -> tuple[Buffers, V | None]:
        return _entry(config, rule, tested_state, args_at(args, state.step), (nan, nan, nan), vector)

    entry, vector = first_entry()
    empty = buffers(config.record, config.max_steps or 0, entry)
    every = jnp.array(config.record.every or 1)
    return carry._replace(every=every, buffers=written(empty, 0, entry), eigenvector=vector)


def advance(
    config: StaticConfig, rule: Rule | None, stop: Stop | None, carry: Carry[V], args: tuple[Any, ...], limit: ArrayLike
) -> Carry[V]:
    """Make updates until a stopping test is met or this run has made `limit` updates.

    The inner loop makes updates, and leaves when a cheap check shows that some test is met. The outer loop finds the
    test that is met, checks progress and thins the record. An update therefore costs about as much as in a loop without
    tests. A single loop that makes all tests after each update took 40 times as long for 2 variables, 3 times as long
    for 1,000, and the same time for 10⁶ (CPU, float32, nothing recorded). `Descent` makes the same updates and tests,
    one update at a time, without the outer loop. A batch element that meets a test pauses until the outer loop has
    checked it.
    """

    def going(c: Carry[V]) -> Array:
        running = c.code == int(Reason.RUNNING)
        return any_element((running & (c.state.step - c.first < limit)) | (c.code == _UNCHECKED))

    def several(c: Carry[V]) -> Carry[V]:
        return _thin(config, _check_tests(config, rule, stop, _run_updates(config, rule, stop, c, args, limit), args))

    end: Carry[V] = _with_norm(stop, control.while_loop(going, several, carry))
    if config.record is None:
        s = end.state
        end = end._replace(state=s._replace(best_v=s.v, best_cost=s.cost))
    return end


def _with_norm(stop: Stop | None, c: Carry[V]) -> Carry[V]:
    """Return the carry with ‖∇C‖ and its tolerance, if a test needs them."""
    if stop is None or not stop.needs_gradient_norm:
        return c
    s = with_reduced_gradient(c.bounds, c.state)
    return c._replace(gradient_norm=(norm(s.gradient).astype(s.cost.dtype), _limits(stop, s).gradient))


def judge(
    config: StaticConfig, rule: Rule | None, stop: Stop | None, state: DescentState[V], args: tuple[Any, ...]
) -> Carry[V]:
    """Return the carry after all tests at a state, without an update or a record."""
    return _with_norm(stop, _check_tests(config, rule, stop, start(config, rule, stop, state, args), args))


def step_once(
    config: StaticConfig, rule: Rule | None, stop: Stop | None, state: DescentState[V], args: tuple[Any, ...]
) -> DescentState[V]:
    """Make one update, unless the state meets a stopping test."""
    carry = _run_updates(config, rule, stop, judge(config, rule, stop, state, args), args, 1)
    s = with_scale(carry.state)
    return s._replace(best_v=s.v, best_cost=s.cost)


def _run_updates(
    config: StaticConfig, rule: Rule | None, stop: Stop | None, carry: Carry[V], args: tuple[Any, ...], limit: ArrayLike
) -> Carry[V]:
    """Make updates until every batch element meets a test, or one running element must leave the loop.

    An element must leave the loop when it reaches the limit, its check of progress is due or its buffers are full. It
    must also leave after the first update of its descent. If its `limits.plain` is false, it must leave after every
    update. If the loop does not evaluate C, an element must leave when its ‖∇C‖² overflows.
    """
    done = carry.state.step - carry.first
    left = limit - done
    running = (carry.code == int(Reason.RUNNING)) & (left > 0)
    i = least_element(jnp.where(running, done, limit))
    carry = carry._replace(i=i, even=~any_element(done > i))
    limits, follows, bounds = _limits(stop, carry.state), follows_cost(config, rule, stop), carry.bounds
    # Make the first update alone: C(v₁) is part of the scale for the divergence test.
    most = jnp.where(carry.state.step == 0, 1, left)
    if stop is not None and stop.needs_gradient_norm:
        most = jnp.where(limits.plain, most, 1)
    if stop is not None and stop.stalled:
        most = jnp.minimum(most, carry.state.next_look - carry.state.step)
    if config.record is not None and config.record.every is None:
        most = jnp.minimum(most, ENTRIES * carry.every - done)
    limit = i + least_element(jnp.where(running, jnp.minimum(most, left), limit))

    def alive(c: Carry[V]) -> Array:
        # Make at least one update. Because of rounding, `may_go_on` may end this loop although the outer loop finds no
        # test met. Without an update, the outer loop would then never end.
        state = with_reduced_gradient(bounds, c.state)
        return running & (may_go_on(stop, limits, state, follows) | (c.i == carry.i))

    def going(c: Carry[V]) -> Array:
        state = with_reduced_gradient(bounds, c.state)
        overflowed = running & overflows(stop, state) & (c.i > carry.i) if not follows else jnp.array(False)
        return any_element(alive(c)) & no_element(overflowed) & (c.i < limit)

    end: Carry[V] = control.while_loop(going, lambda c: _update(config, rule, stop, c, args, alive(c)), carry)
    s, before = end.state, carry.state
    if not follows:
        s = s._replace(cost=cost_of(config, s.v, args).astype(s.cost.dtype))
    step = count_after(end.i - carry.i, s.step, before.step)
    return end._replace(state=s._replace(step=step, evaluations=s.evaluations + step - before.step))


def _check_tests(
    config: StaticConfig, rule: Rule | None, stop: Stop | None, c: Carry[V], args: tuple[Any, ...]
) -> Carry[V]:
    """Set the code of each batch element that meets a test, and check progress if it is due."""
    s = with_scale(c.state)
    running = (c.code == int(Reason.RUNNING)) | (c.code == _UNCHECKED)
    limits = _limits(stop, s)
    # Use the cheap test first. The exact tests can cost as much as several updates.
    tested = with_reduced_gradient(c.bounds, s)
    met = running & ~(limits.plain & may_go_on(stop, limits, tested, cost_known=True))
    code = control.cond(
        any_element(met), lambda: reason_to_stop(stop, limits, tested), lambda: jnp.array(int(Reason.RUNNING))
    )
    if stop is not None and stop.needs_gradient_norm:
        code, s = _confirmed(config, stop, c._replace(code=jnp.where(running, code, c.code), state=s), running, args)
    code = jnp.where(running, code, c.code)
    if stop is not None and stop.stalled:
        due = (code == int(Reason.RUNNING)) & (s.step >= s.next_look)
        idle = due & ~(s.cost < s.cost_seen)

        def stuck() -> Array:
            if rule is not None and rule.spec.caches_value:
                # The next step would need a search, which would double the compile time. Use the latest step, from
                # s.rule.v to s.v.
                steps = subtract(s.v, s.rule.v)
            else:
                steps = step_of(config, rule, s, args, c.bounds)[0]
            changes = steps if c.bounds is None else subtract(landing(c.bounds, s.v, steps), s.v)
            still = ~moves(s.v, changes)
            # A zero step of these rules is no stall: a schedule may begin with 0, and an optax rule may sum gradients
            # before it moves v.
            waiting = ~any_nonzero(steps) if rule is None or rule.spec.may_step_zero else False
            return still & ~jnp.asarray(waiting)

        stalled = idle & control.cond(any_element(idle), stuck, lambda: jnp.array(False))
        code = jnp.where(stalled, int(Reason.STALLED), code)
        later = s.step + jnp.maximum(FIRST_LOOK, s.step // 8)
        s = s._replace(next_look=jnp.where(due, later, s.next_look), cost_seen=jnp.where(due, s.cost, s.cost_seen))
    return c._replace(code=code, state=s)


def _thin(config: StaticConfig, c: Carry[V]) -> Carry[V]:
    """Drop every second entry if the buffers are full."""
    if config.record is None or config.record.every is not None or c.buffers is None:
        return c
    full = any_element(c.state.step - c.first >= ENTRIES * c.every)
    kept = control.cond(full, thinned, lambda filled: filled, c.buffers)
    return c._replace(buffers=kept, every=jnp.where(full, 2 * c.every, c.every))


def _update(
    config: StaticConfig, rule: Rule | None, stop: Stop | None, c: Carry[V], args: tuple[Any, ...], alive: Array
) -> Carry[V]:
    s = c.state
    i = c.i + 1
    own = s.step - c.first + 1
    recorded = config.record is not None and (config.record.every == 1 or any_due(i, own, c.every, c.even))
    k = updates_made(c.first + c.i, s.step)
    state, (step_norm, predicted) = one_update(config, rule, stop, s, args, recorded, k, c.bounds)
    state = select_alive(alive, state, s)._replace(step=count_alive(alive, s.step))
    if config.record is None or c.buffers is None:
        return c._replace(i=i, state=state)

    def measured() -> tuple[Buffers, V | None]:
        tested = with_reduced_gradient(c.bounds, state)
        step = step_norm, predicted, state.cost - s.cost
        return _entry(config, rule, tested, args_at(args, k + 1), step, c.eigenvector)

    nothing = tree_map(lambda xs: blank(xs[0]), c.buffers)

    def between() -> tuple[Buffers, V | None]:
        return nothing, c.eigenvector

    if config.record.every == 1:
        entry, vector = measured()
    else:
        entry, vector = control.cond(recorded, measured, between)
    entry = select_alive(alive, entry, nothing)
    filled = write_row(c.buffers, i, own, c.every, alive, c.even, entry)
    return c._replace(i=i, state=state, buffers=filled, eigenvector=vector)


def _confirmed(
    config: StaticConfig, stop: Stop, c: Carry[V], running: Array, args: tuple[Any, ...]
) -> tuple[Array, DescentState[V]]:
    """Check for a minimum near v if ‖∇C‖ is within its tolerance. Return the code and the state.

    If the check finds no minimum and ∇C = 0, the code is ZERO_GRADIENT. If it finds none and ∇C ≠ 0, the code is
    RUNNING and the state gets a smaller tolerance. If 0 < ‖∇C‖ ≤ gradient_atol, skip the check, because the caller has
    set that tolerance.
    """
    s = with_reduced_gradient(c.bounds, c.state)
    can_move = None if c.bounds is None else free(c.bounds, s.v, c.state.gradient)
    length = norm(s.gradient).astype(s.cost.dtype)
    atol, rtol = (jnp.asarray(0 if x is None else x, length.dtype) for x in (stop.gradient_atol, stop.gradient_rtol))
    zero = length == 0
    met = running & (c.code == int(Reason.GRADIENT)) & (zero | (length > atol))

    def near() -> Array:
        definite, either = is_near(
            cost_with(config, args), s.v, s.cost, s.gradient, rtol, s.evaluations, (s.size, s.scale), can_move
        )
        return jnp.where(s.step > 0, either, definite)

    far = met & ~control.cond(any_element(met), near, lambda: jnp.array(True))
    code = jnp.where(far, jnp.where(zero, int(Reason.ZERO_GRADIENT), int(Reason.RUNNING)), c.code)
    smaller = _SMALLER * (length - atol) / jnp.where(rtol > 0, rtol, 1)
    return code, c.state._replace(first_norm=jnp.where(far & ~zero, smaller, s.first_norm))


def _limits(stop: Stop | None, s: DescentState[Any]) -> Limits:
    return limits_of(stop, s.first_norm, s.scale)


def _entry(
    config: StaticConfig,
    rule: Rule | None,
    s: DescentState[V],
    args: tuple[Any, ...],
    step: tuple[Array, Array, Array],
    vector: V | None,
) -> tuple[Buffers, V | None]:
    """Return one entry of the trajectory, and the Hessian's eigenvector, where the next search starts."""
    record, kind = config.record, s.cost.dtype
    assert record is not None
    largest = limit = jnp.full((), jnp.nan, kind)
    if record.sharpness and vector is not None:
        estimate = sharpness(config.cost, s.v, args=args, start=_first_direction(vector))
        vector = tree_map(lambda x, y: jnp.asarray(y, x.dtype), s.v, estimate.vector)
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


def _first_direction(vector: V) -> V:
    """Return the first direction of the search: the latest eigenvector, or all ones if it is zero, as at entry 0."""
    length = norm(vector)
    return tree_map(lambda x: jnp.where(length > 0, x, jnp.ones_like(x)), vector)
