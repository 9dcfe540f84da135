"""minimize: from a cost, a start and a rule to a solution that says how it came about."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from jaxgd.descent.implicit import at_minimum
from jaxgd.descent.loop import Carry, advance, start
from jaxgd.descent.problem import WHO, hashable, require_problem
from jaxgd.descent.record import Record, Trajectory, require_record, trajectory
from jaxgd.descent.stop import Stop, default_stop, require_stop
from jaxgd.descent.update import DescentState, Plan, begin, one_update
from jaxgd.errors import DtypeError, RangeError, describe, is_traced
from jaxgd.outcome import Outcome, Reason
from jaxgd.pytree import wide_dtype
from jaxgd.rules import Rule

# A chunk is to take about so long, where its length is not given.
_CHUNK_SECONDS = 0.1


class Solution(NamedTuple):
    """Where a descent ended, and how it came there.

    Shapes: `v`, `gradient` and `best_v` are trees like v₀; the numbers are scalars, with the lanes in front under vmap.
    """

    v: PyTree[Array]  # where it ended: after `steps` updates
    cost: Float[Array, "*lanes"]  # C(v)
    gradient: PyTree[Array]  # ∇C(v)
    best_v: PyTree[Array]  # where C was lowest on the way; v where record=None
    best_cost: Float[Array, "*lanes"]
    steps: Int[Array, "*lanes"]  # updates made, those before a `state` included
    evaluations: Int[Array, "*lanes"]  # of C, ∇C or a Hessian-vector product, each counted as one
    outcome: Outcome  # why it stopped
    trajectory: Trajectory | None
    state: DescentState  # to continue from: minimize(..., state=solution.state)

    def __repr__(self) -> str:
        """What one wants to read of it; the trajectory and the state are long."""
        shown = [f"{name}={getattr(self, name)!r}" for name in ("v", "cost", "steps", "evaluations", "outcome")]
        return f"Solution({', '.join(shown)}, …)"


def minimize(
    cost: Callable[..., Any],
    v0: PyTree[Any],
    rule: Any,
    *,
    args: tuple[Any, ...] = (),
    max_steps: int,
    stop: Stop | Literal["auto"] | None = "auto",
    record: Record | Literal["auto"] | None = "auto",
    callback: Callable[[Solution], bool | None] | None = None,
    chunk: int | None = None,
    seconds: float | None = None,
    state: DescentState | None = None,
    differentiate: Literal["implicit", "unroll"] = "implicit",
) -> Solution:
    """Let the ball roll: minimize a cost of many variables by moves Δv that a rule takes from the gradient.

    v → v + Δv, with Δv = −η∇C for `gradient_descent(eta)`. v_k is after k updates, v₀ the start.

    Called plainly, one compiled loop runs; under `jit` and `vmap` (over starts, η, args) the loop is part of what is
    compiled, and each lane ends by itself, with its own outcome, undisturbed by the others.

    Shapes: `v0` is any pytree of floats, `cost(v, *args)` returns one real scalar, `rule` is one of jaxgd's or any
    optax transformation. `args` are arrays and numbers, in any pytrees; they are traced, as are v₀ and the numbers of
    jaxgd's rules and of `stop`: changing them compiles nothing anew. The cost, and a rule of optax, compile anew when
    they are another object: define them once. The cost is traced by `jit`: what it prints or counts happens then only.
    Range: `stop` are the tests after which to stop, by default ‖∇C‖ ≤ eps^¾ ‖∇C(v₀)‖, diverging and stalled; with None,
    exactly `max_steps` updates are made, unless the cost becomes infinite or NaN. `record` is what is remembered of the
    path; with None nothing is, and `best_v` is where it ended. `max_steps` 0 evaluates at v₀ alone.
    `callback(solution so far)` runs on the host before the first and after every `chunk` updates, by default of about a
    tenth of a second; returning True stops. After `seconds`, in which compiling does not count, no further chunk is
    begun. Neither changes a bit.
    `state=` continues an earlier run of the same cost, rule and args in place of v0: k and then m more updates are to
    the bit what k + m are.

    Differentiation: `jax.grad` and `jax.jvp` of `v`, `best_v` or `cost` with respect to `args` and what the cost closes
    over, by the implicit function theorem: true at a minimum with an invertible Hessian, and independent of v₀ and the
    rule, whose derivatives are 0. NaN where the descent diverged or ran out of steps. What a rule of optax or
    `record.function` closes over must not be differentiated. `differentiate="unroll"` differentiates through the
    updates instead, v₀ and η included, for exactly `max_steps` of them (`stop=None`), and records nothing. The
    trajectory has no derivatives.
    Raises: ShapeError or DtypeError for a cost that is not one real scalar, or variables that are not floats;
    RangeError or DtypeError for counts, tests and records that cannot serve. NaN at v₀ is no error but an outcome, and
    so is a traced η that is not above 0.
    Source: Nielsen, chapter 1, "Learning with gradient descent", equations (7) to (12).

    >>> def valley(v):
    ...     return v[0] ** 2 + v[1] ** 2
    >>> from jaxgd import gradient_descent
    >>> solution = minimize(valley, jnp.array([1.0, 1.0]), gradient_descent(0.1), max_steps=1000)
    >>> print(solution.outcome.message)
    converged: the gradient is as small as was asked for
    >>> print(solution.trajectory.cost[:3].round(4))
    [2.     1.28   0.8192]
    """
    v0, args = require_problem(cost, v0, rule, args, max_steps, callback, chunk, seconds, state)
    max_steps, kind = int(max_steps), wide_dtype(v0)
    if differentiate not in ("implicit", "unroll"):
        raise RangeError(f'{WHO}: differentiate must be "implicit" or "unroll", got {differentiate!r}.')
    if isinstance(stop, str) and stop == "auto":
        stop = None if differentiate == "unroll" else default_stop(jnp.result_type(*jax.tree.leaves(v0)))
    if stop is not None:
        if not isinstance(stop, Stop):
            raise DtypeError(f'{WHO}: stop must be a jaxgd.Stop, None or "auto", got {describe(stop)}.')
        require_stop(stop, kind)
    if isinstance(record, str) and record == "auto":
        record = None if differentiate == "unroll" else Record()
    if record is not None:
        record = require_record(record, max_steps)
    # What the cost closes over and somebody differentiates, or maps over, becomes an argument like the others.
    cost = hashable(cost)
    converted, hoisted = jax.closure_convert(cost, v0, *args)
    if hoisted:
        cost, args = converted, (*args, *hoisted)
    numbers, fixed = (rule, None) if isinstance(rule, Rule) else (None, rule)
    plan = Plan(cost, fixed, record, None if record is None else max_steps)
    if differentiate == "unroll":
        if stop is not None or record is not None or callback or seconds or state is not None:
            raise RangeError(
                f'{WHO}: differentiate="unroll" makes exactly max_steps updates and keeps nothing of the path: '
                "leave out stop, record, callback, seconds and state."
            )
        if numbers is not None and not numbers.kind.unrolls:
            raise RangeError(
                f"{WHO}: the search of {rule!r} ends by itself, and such a loop has no reverse mode: it cannot be "
                'unrolled. Use differentiate="implicit", or a rule that does not search.'
            )
        return _unrolled(plan, numbers, v0, args, max_steps)
    held = lax.stop_gradient((v0, numbers, stop, state, args))
    solution = _run(plan, *held, max_steps, callback, chunk, seconds)
    if any(map(is_traced, jax.tree.leaves(args))):
        solution = _differentiable(cost, args, solution)
    return solution


@functools.partial(jax.jit, static_argnames="plan")
def _begin(plan: Plan, rule: Any, v0: Any, args: Any) -> DescentState:
    return begin(plan, rule, v0, args)


@functools.partial(jax.jit, static_argnames="plan")
def _start(plan: Plan, rule: Any, stop: Any, state: DescentState, args: Any) -> Carry:
    return start(plan, rule, stop, state, args)


@functools.partial(jax.jit, static_argnames="plan")
def _advance(plan: Plan, rule: Any, stop: Any, carry: Carry, args: Any, limit: Any) -> Carry:
    return advance(plan, rule, stop, carry, args, limit)


def _run(
    plan: Plan,
    v0: Any,
    rule: Any,
    stop: Any,
    state: Any,
    args: Any,
    max_steps: int,
    callback: Any,
    chunk: int | None,
    seconds: float | None,
) -> Solution:
    state = _begin(plan, rule, v0, args) if state is None else state
    carry = _start(plan, rule, stop, state, args)
    first = state.step
    if is_traced(carry.code) or (callback is None and seconds is None):
        if is_traced(carry.code) and (callback is not None or seconds is not None):
            raise RangeError(
                f"{WHO}: a callback and seconds are of the host, which jit and vmap do not run; leave them out."
            )
        carry = _advance(plan, rule, stop, carry, args, max_steps)
        return _solution(plan, stop, carry, first, max_steps)
    length, done, began, first_chunk = chunk or 1, 0, time.monotonic(), True
    while True:
        running = int(carry.code) == int(Reason.RUNNING)
        if callback is not None and callback(_solution(plan, stop, carry, first, None)) and running:
            carry = carry._replace(code=jnp.array(int(Reason.STOPPED)))
            break
        if not running or done >= max_steps:
            break
        if seconds is not None and not first_chunk and time.monotonic() - began >= seconds:
            carry = carry._replace(code=jnp.array(int(Reason.SECONDS)))
            break
        start_of_chunk = time.monotonic()
        carry = _advance(plan, rule, stop, carry, args, min(done + length, max_steps))
        done = min(done + length, max_steps)
        jax.block_until_ready(carry.code)  # type: ignore[no-untyped-call]
        if chunk is None:
            taken = time.monotonic() - start_of_chunk
            length = length * 2 if taken < _CHUNK_SECONDS / 2 or done == 1 else length
        if first_chunk:
            # It includes compiling, and says nothing of how long the others take.
            first_chunk, began = False, time.monotonic()
    return _solution(plan, stop, carry, first, max_steps)


def _solution(plan: Plan, stop: Any, carry: Carry, first: Any, max_steps: int | None) -> Solution:
    """The solution, at the end of a run or, where max_steps is None, on the way."""
    s = carry.state
    running = carry.code == int(Reason.RUNNING)
    over = Reason.COMPLETED if stop is None else Reason.MAX_STEPS
    code = jnp.where(running, int(over), carry.code) if max_steps is not None else carry.code
    path = None
    if plan.record is not None and carry.buffers is not None:
        reached = None if is_traced(carry.code) else int(s.step - first)
        path = trajectory(plan.record, carry.buffers, first, carry.every, reached)
    return Solution(
        v=s.v,
        cost=s.cost,
        gradient=s.gradient,
        best_v=s.best_v,
        best_cost=s.best_cost,
        steps=s.step,
        evaluations=s.evaluations,
        outcome=Outcome(code),
        trajectory=path,
        state=s,
    )


def _differentiable(cost: Any, args: Any, solution: Solution) -> Solution:
    """The solution as a function of args, by the implicit function theorem."""
    bad = [Reason.NOT_FINITE, Reason.DIVERGING, Reason.BAD_RULE, Reason.MAX_STEPS]
    ended_well = ~jnp.any(jnp.array([solution.outcome.code == int(reason) for reason in bad]))
    # Multiplied into the tangents of args: where there is no minimum, no derivative is better than any.
    marked = jax.tree.map(lambda x: _marked(x, ended_well), args)
    v, value, gradient = at_minimum(cost, marked, solution.v, solution.cost, solution.gradient)
    best_v, best_cost, _ = at_minimum(cost, marked, solution.best_v, solution.best_cost, solution.gradient)
    return solution._replace(v=v, cost=value, gradient=gradient, best_v=best_v, best_cost=best_cost)


@jax.custom_jvp
def _marked(x: Any, good: Any) -> Any:
    return x


@_marked.defjvp
def _marked_jvp(primals: Any, tangents: Any) -> Any:
    x, good = primals
    dx = tangents[0]
    if dx.dtype == jax.dtypes.float0:
        return x, dx
    return _marked(x, good), dx * jnp.where(good, 1, jnp.nan).astype(dx.dtype)


def _unrolled(plan: Plan, rule: Any, v0: Any, args: Any, max_steps: int) -> Solution:
    """Exactly so many updates that can be differentiated through, in memory that grows with their root."""

    def step(s: DescentState, _: None) -> tuple[DescentState, None]:
        state = one_update(plan, rule, None, s, args, False)[0]
        return state._replace(step=s.step + 1, evaluations=state.evaluations + 1), None

    s = begin(plan, rule, v0, args)
    length = max(1, math.isqrt(max_steps))
    rounds, rest = divmod(max_steps, length)

    @jax.checkpoint
    def several(s: DescentState, _: None) -> tuple[DescentState, None]:
        return lax.scan(jax.checkpoint(step), s, None, length=length)

    s, _ = lax.scan(several, s, None, length=rounds)
    s, _ = lax.scan(jax.checkpoint(step), s, None, length=rest)
    s = s._replace(best_v=s.v, best_cost=s.cost)
    code = jnp.where(jnp.isfinite(s.cost), int(Reason.COMPLETED), int(Reason.NOT_FINITE))
    if rule is not None:
        code = jnp.where(rule.valid, code, int(Reason.BAD_RULE))
    carry = Carry(s, jnp.array(max_steps), code, jnp.array(1), None, None)
    return _solution(plan, None, carry, 0, max_steps)
