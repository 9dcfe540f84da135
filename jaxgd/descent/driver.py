"""`minimize`: update the variables by a rule, and return the last point, the reason for the stop and the path."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxgd.descent.host import Watch, run_in_chunks
from jaxgd.descent.implicit import at_minimum
from jaxgd.descent.loop import Carry, advance, start
from jaxgd.descent.problem import WHO, WithoutAux, configured, require_bounds, require_problem, require_sampled_stop
from jaxgd.descent.record import Record, require_record, trajectory
from jaxgd.descent.solution import Solution
from jaxgd.descent.state import DescentState, args_at
from jaxgd.descent.stop import Stop, default_stop, require_stop, resolved_stop
from jaxgd.descent.update import StaticConfig, begin, one_update, resume
from jaxgd.errors import RangeError, is_traced, require_bool, require_choice
from jaxgd.mesh import control
from jaxgd.mesh.axes import automatic_axes, varying
from jaxgd.outcome import Outcome, Reason
from jaxgd.pytree import is_wide, wide_dtype
from jaxgd.rules import Rule
from jaxgd.rules.bounds import Bounds, hold, inside
from jaxgd.rules.rule import Transformation
from jaxgd.seen import seen
from jaxgd.typed import Tree, V, checkpoint, jit, tree_leaves


@overload
def minimize(
    cost: Callable[..., Any],
    v0: np.ndarray[Any, np.dtype[Any]] | float,
    rule: Transformation,
    *,
    args: tuple[Any, ...] = (),
    max_steps: int,
    stop: Stop | Literal["auto"] | None = "auto",
    record: Record | Literal["auto"] | None = "auto",
    callback: Callable[[Solution[Array]], bool | None] | None = None,
    chunk: int | None = None,
    seconds: float | None = None,
    progress: bool = False,
    state: DescentState[Array] | None = None,
    differentiate: Literal["implicit", "unroll"] = "implicit",
    bounds: Sequence[object] | None = None,
    has_aux: bool = False,
    batches: object = None,
) -> Solution[Array]: ...
@overload
def minimize(
    cost: Callable[..., Any],
    v0: V | None,
    rule: Transformation,
    *,
    args: tuple[Any, ...] = (),
    max_steps: int,
    stop: Stop | Literal["auto"] | None = "auto",
    record: Record | Literal["auto"] | None = "auto",
    callback: Callable[[Solution[V]], bool | None] | None = None,
    chunk: int | None = None,
    seconds: float | None = None,
    progress: bool = False,
    state: DescentState[V] | None = None,
    differentiate: Literal["implicit", "unroll"] = "implicit",
    bounds: Sequence[object] | None = None,
    has_aux: bool = False,
    batches: object = None,
) -> Solution[V]: ...
@automatic_axes
def minimize(
    cost: Callable[..., Any],
    v0: Any,
    rule: Transformation,
    *,
    args: tuple[Any, ...] = (),
    max_steps: int,
    stop: Stop | Literal["auto"] | None = "auto",
    record: Record | Literal["auto"] | None = "auto",
    callback: Callable[[Solution[Any]], bool | None] | None = None,
    chunk: int | None = None,
    seconds: float | None = None,
    progress: bool = False,
    state: DescentState[Any] | None = None,
    differentiate: Literal["implicit", "unroll"] = "implicit",
    bounds: Any = None,
    has_aux: bool = False,
    batches: object = None,
) -> Solution[Any]:
    """Minimize a cost of many variables by repeated updates. The rule computes each step from the gradient.

    v → v + Δv, with Δv = −η∇C for `gradient_descent(eta)`. v₀ is the start and v_k the point after k updates.

    A plain call runs one compiled loop. Under `jit` and `vmap` (over starts, η or args) the loop is part of the
    caller's program. Each batch element then stops by its own tests, with its own outcome, and does not affect the
    others. The elements share only the spacing of the recorded entries (see `Record.every`).

    Compilation: v₀, args, the hyperparameters of jaxgd's rules and the numbers in `stop` are traced, so new values do
    not recompile. A new cost object or a new optax transformation recompiles, so define each once. A new `memory` or
    `max_products` of a rule recompiles too. With a record, so does a new `max_steps`. Python side effects of the cost,
    such as printing, happen only while JAX traces it.

    Data that the cost reads from outside are constants of the compiled program. `minimize` recompiles after another
    object is assigned to a variable of the cost's closure, to a global that its code names, or to a field of the cost
    object. It does not notice a list or NumPy array changed in place, a changed global of another module, or changed
    data of a cost that `jax.jit` wraps. Pass data that change as args.

    Interruption: a run with `callback`, `seconds` or `progress` returns to the host after each chunk. An exception that
    ends such a run, for instance from the callback or from Ctrl-C, has an attribute `state`: the state after the last
    complete chunk. `minimize(..., state=error.state)` continues from this state bit for bit. The attribute is None if
    the run has no state yet. A plain run returns to the host only at its end, so Ctrl-C takes effect only then.

    Differentiation: `jax.grad` and `jax.jvp` apply to `v`, `cost`, `best_v`, `best_cost` and `aux` of the solution. The
    trajectory has no derivatives.

    - "implicit" differentiates with respect to `args` and to arrays in the cost's closure, by the implicit function
      theorem. The derivatives are exact at a minimum with an invertible Hessian. They are NaN unless Newton's equation
      predicts a minimum within r^⅔ · max(1, ‖v‖) of v. Here r is the gradient_rtol of `stop`, or eps^¾ if that is None.
      The derivatives with respect to v₀ and the rule are 0. For the derivatives of a fixed number of updates, use
      "unroll". Do not differentiate with respect to arrays in the closure of an optax rule or of `record.function`.
      With bounds, a variable that ends on a bound depends only on that bound. The theorem holds for the other
      variables. Derivatives with respect to the bounds exist too. A run with batches does not end at a minimum, so its
      derivatives raise an error.
    - "unroll" differentiates through exactly `max_steps` updates, also with respect to v₀ and η. Memory grows with the
      square root of `max_steps`.

    Args:
        cost: The function to minimize; `cost(v, *args)` returns one real scalar, or a pair with `has_aux`.
        v0: The start: any pytree of real floating-point arrays. With `state`, pass None.
        rule: One of jaxgd's rules, such as `gradient_descent(0.1)`, or any optax transformation.
        args: Further arguments of the cost: a tuple of arrays, numbers or pytrees of them; by default empty.
        max_steps: The largest number of updates in this call, at least 0. With 0, C and ∇C are evaluated at the start.
        stop: The stopping tests, made at the start and after each update. "auto" (default) makes three tests: for
            divergence, for a stall, and for ‖∇C‖ ≤ eps^¾ ‖∇C(v₀)‖, which a check must confirm (see `Stop`). With
            "unroll" or batches, "auto" means None. With None, exactly `max_steps` updates are made, unless C becomes
            infinite or NaN.
        record: The parts of the path to record. "auto" (default) is `Record()`, or None with "unroll". With None,
            nothing is recorded and `best_v` is the last v.
        callback: A function that takes the `Solution` so far. It runs on the host before the first update and after
            each chunk. The run stops if the function returns True. A callback or a chunk length does not change the
            computed values. A callback cannot run inside `jit` or `vmap`.
        chunk: The number of updates in a chunk, at least 1. By default it starts at 1, and doubles after the first
            chunk and after each chunk that takes under 0.05 s. A chunk of fast updates then takes 0.05 to 0.1 s.
        seconds: The time limit, in seconds above 0; by default none. No chunk starts after the limit. The time of the
            first chunk, which includes compilation, does not count. A limit cannot be used inside `jit` or `vmap`.
        progress: True to show one line on stderr with the number of updates, C, ‖∇C‖ and the time left until
            `max_steps`; by default False. It shows nothing if stderr is not a terminal. A progress line changes no
            value, and cannot be used inside `jit` or `vmap`.
        state: The `state` of an earlier solution; by default None. The run continues from this state: k updates and
            then m updates give the same bits as k + m updates. `minimize` first evaluates C and ∇C again. If they
            differ from the state's values by more than rounding, the cost or its args have changed. The run then uses
            the new values, and `backtracking`, `wolfe` and `newton` clear their memory. The rule may have other
            hyperparameters.
        differentiate: "implicit" (default) or "unroll", as above. "unroll" excludes stop, record, callback, seconds,
            progress and state, and rules that search.
        bounds: A pair (lower, upper) that v stays within; by default None, no bounds. Each is a tree like v0, one
            number for all variables, or None. A leaf of such a tree may be one number. −∞ and ∞ mean no bound. v₀ and v
            after each update are projected onto the box. The rule and the stopping tests use the reduced gradient. It
            is ∇C, but 0 for each variable on a bound where −∇C points out of the box. The recorded gradient_norm is the
            norm of the reduced gradient. The state holds no bounds, so pass them again to continue.
        has_aux: True if the cost returns a pair (C, aux), as in `jax.value_and_grad`; by default False. aux is any tree
            of arrays, and `solution.aux` is its value at `solution.v`. `minimize` evaluates aux once for each solution,
            also for a callback's solutions. `evaluations` does not count these evaluations. aux has derivatives through
            v and args.
        batches: A tree of arrays whose first axes all have length m ≥ 1, the number of batches; by default None. The
            cost is then `cost(v, batch, *args)`. An update that follows k others, including those of earlier runs, uses
            batch k mod m. A batch may be a random key. It may also be indices of examples in `args`, which avoids
            copies. After k updates, the state and the recorded entry hold C and ∇C of batch k mod m. Each recorded
            `actual` therefore compares C on two batches. `best_v` is the v_k whose C on batch k mod m is lowest.
            Batches are traced: new values do not recompile. stop="auto" means None. A `Stop` must have stalled=False,
            and may set only `diverging`, `step_atol` and `step_rtol`. Rules that search with C are refused. To continue
            bit for bit, pass the same batches.

    Returns:
        The end of the descent, as a `Solution`. `solution.outcome` reports a C or ∇C that is infinite or NaN at v₀, and
        a traced hyperparameter or bound that is out of range. These raise no error.

    Raises:
        ShapeError: If the cost does not return one real scalar, or a pair with `has_aux`; if v0 holds no variable, or
            does not fit the state or the bounds; or if the batches have different lengths.
        DtypeError: If v0 is not real floating point, or an argument has the wrong type.
        RangeError: If a number is out of range, a lower bound is above its upper bound, the state belongs to another
            rule, options exclude each other, or a run with batches is differentiated without "unroll".

    Source: Nielsen, chapter 1, "Learning with gradient descent", equations (7) to (12). For bounds,
    Bertsekas, SIAM J. Control Optim. 20 (1982) 221–246.

    Example:
        >>> def valley(v):
        ...     return v[0] ** 2 + v[1] ** 2
        >>> from jaxgd import gradient_descent
        >>> solution = minimize(valley, jnp.array([1.0, 1.0]), gradient_descent(0.1), max_steps=1000)
        >>> print(solution.outcome.message)
        converged: the norm of the gradient is within its tolerance (‖∇C‖ = 1.65e-05, tolerance 1.81e-05)
        >>> print(solution.trajectory.cost[:3].round(4))
        [2.     1.28   0.8192]
    """
    # Inside jax.shard_map, v may differ between devices. JAX then needs the other arguments marked as differing too.
    args, state, bounds, batches, rule, stop = varying((args, state, bounds, batches, rule, stop), (v0, state))
    v0, args = require_problem(cost, v0, rule, args, max_steps, callback, chunk, seconds, state, has_aux, batches)
    require_bool(WHO, "progress", progress)
    max_steps, kind, box = int(max_steps), wide_dtype(v0), require_bounds(bounds, v0)
    watch = Watch(callback, chunk, seconds, bool(progress))
    require_choice(WHO, "differentiate", differentiate, ("implicit", "unroll"))
    if (differentiate == "unroll" or batches is not None) and isinstance(stop, str) and stop == "auto":
        stop = None
    stop = resolved_stop(WHO, stop, jnp.result_type(*tree_leaves(v0)))
    if stop is not None:
        require_stop(WHO, stop, kind)
    if batches is not None:
        require_sampled_stop(stop)
    if isinstance(record, str) and record == "auto":
        record = None if differentiate == "unroll" else Record()
    if record is not None:
        record = require_record(record, max_steps)
        if record.function is not None:
            record = dataclasses.replace(record, function=seen(record.function))
    recorded_steps = None if record is None else max_steps
    config, traced_rule, args = configured(cost, rule, v0, args, record, recorded_steps, bool(has_aux))
    if differentiate == "unroll":
        if stop is not None or record is not None or watch.needs_host or state is not None:
            raise RangeError(
                f'{WHO}: differentiate="unroll" makes exactly max_steps updates and records nothing. '
                "Leave out stop, record, callback, seconds, progress and state."
            )
        if traced_rule is not None and not traced_rule.spec.unrolls:
            raise RangeError(
                f"{WHO}: {rule!r} cannot be unrolled: its search is a loop of unknown length, without reverse mode. "
                'Use differentiate="implicit", or a rule that does not search.'
            )
        return _with_aux(config, args, _unrolled(config, traced_rule, v0, args, max_steps, box))
    detached = lax.stop_gradient((v0, traced_rule, stop, state, args, box))
    solution = _run(config, *detached, max_steps, watch)
    if batches is not None:
        inputs = [x for x in tree_leaves((v0, traced_rule, stop, state, args, box)) if is_traced(x)]
        solution = _without_derivatives(inputs, solution)
    elif any(map(is_traced, tree_leaves((args, box)))):
        solution = _differentiable(config.cost, args, detached[2], solution, box)
    return _with_aux(config, args, solution)


@jit(static_argnames="config")
def _start(
    config: StaticConfig,
    rule: Rule | None,
    stop: Stop | None,
    v0: V,
    state: DescentState[V] | None,
    args: tuple[Any, ...],
    bounds: Bounds | None,
) -> Carry[V]:
    state = begin(config, rule, v0, args, bounds) if state is None else resume(config, rule, state, args, bounds)
    return _bare(config, start(config, rule, stop, state, args, bounds))


def _advanced(
    config: StaticConfig, rule: Rule | None, stop: Stop | None, carry: Carry[V], args: tuple[Any, ...], limit: ArrayLike
) -> Carry[V]:
    return _bare(config, advance(config, rule, stop, carry, args, limit))


_advance = jit(_advanced, static_argnames="config")
# This program overwrites the carry to save memory.
_advance_in_place = jit(_advanced, static_argnames="config", donate_argnames="carry")


def _bare(config: StaticConfig, carry: Carry[V]) -> Carry[V]:
    """Return the carry. If nothing is recorded, best_v equals v: leave it out, so that no program stores v twice."""
    nothing: Any = None
    return carry if config.record is not None else carry._replace(state=carry.state._replace(best_v=nothing))


def _whole(carry: Carry[V]) -> Carry[V]:
    """Return the carry with best_v."""
    s = carry.state
    return carry if s.best_v is not None else carry._replace(state=s._replace(best_v=s.v))


def _run(
    config: StaticConfig,
    v0: V,
    rule: Rule | None,
    stop: Stop | None,
    state: DescentState[V] | None,
    args: tuple[Any, ...],
    bounds: Bounds | None,
    max_steps: int,
    watch: Watch,
) -> Solution[V]:
    def started() -> Carry[V]:
        return _whole(_start(config, rule, stop, v0, state, args, bounds))

    def advanced(carry: Carry[V], limit: int) -> Carry[V]:
        return _whole(_advance(config, rule, stop, _bare(config, carry), args, limit))

    def solution(carry: Carry[V], first: Array, over: bool) -> Solution[V]:
        reached = _solution(config, stop, carry, first, max_steps if over else None)
        # The aux of the last solution needs v with its derivatives, so `minimize` adds it later.
        return reached if over else _with_aux(config, args, reached)

    if watch.needs_host:
        return run_in_chunks(watch, started, advanced, solution, max_steps, state)
    carry = started()
    first = carry.state.step
    if is_wide(v0) and not is_traced(carry.code):
        first = jnp.copy(first)
        carry = _whole(_advance_in_place(config, rule, stop, _bare(config, carry), args, max_steps))
    else:
        carry = advanced(carry, max_steps)
    return solution(carry, first, True)


def _solution(
    config: StaticConfig, stop: Stop | None, carry: Carry[V], first: Array | int, max_steps: int | None
) -> Solution[V]:
    """Return the solution at the end of a run, or during the run if max_steps is None."""
    s = carry.state
    running = carry.code == int(Reason.RUNNING)
    over = Reason.COMPLETED if stop is None else Reason.MAX_STEPS
    code = jnp.where(running, int(over), carry.code) if max_steps is not None else carry.code
    length, tolerance = carry.gradient_norm or (None, None)
    path = None
    if config.record is not None and carry.buffers is not None:
        reached = None if is_traced(carry.code) else int(s.step - first)
        path = trajectory(config.record, carry.buffers, first, carry.every, reached)
    return Solution(
        v=s.v,
        cost=s.cost,
        gradient=s.gradient,
        best_v=s.best_v,
        best_cost=s.best_cost,
        steps=s.step,
        evaluations=s.evaluations,
        outcome=Outcome(code, length, tolerance, config.step_size),
        trajectory=path,
        state=s,
    )


@jit(static_argnames="cost")
def _aux(cost: WithoutAux, v: Tree, args: tuple[Any, ...], k: Array) -> Any:
    return cost.aux(v, *args_at(args, k))


def _with_aux(config: StaticConfig, args: tuple[Any, ...], solution: Solution[V]) -> Solution[V]:
    """Return the solution with the aux of the cost at v, if it has any."""
    if not isinstance(config.cost, WithoutAux):
        return solution
    return solution._replace(aux=_aux(config.cost, solution.v, args, solution.steps))


@jax.custom_jvp
def _without_derivatives(inputs: list[Array], solution: Solution[V]) -> Solution[V]:
    """Return the solution. Its derivatives with respect to the inputs raise an error."""
    return solution


@_without_derivatives.defjvp
def _refuse_derivatives(primals: object, tangents: object) -> NoReturn:
    raise RangeError(
        f"{WHO}: a run with batches does not end at a minimum, so it has no implicit derivative.\n"
        'Use differentiate="unroll", or put jax.lax.stop_gradient around the arguments.'
    )


def _differentiable(
    cost: Callable[..., Array],
    args: tuple[Any, ...],
    stop: Stop | None,
    solution: Solution[V],
    box: Bounds | None,
) -> Solution[V]:
    """Return the solution with its derivatives with respect to args and bounds, by the implicit function theorem."""
    rtol = None if stop is None else stop.gradient_rtol
    if rtol is None:
        rtol = default_stop(jnp.result_type(*tree_leaves(solution.v))).gradient_rtol

    def minimum(v: V, value: Array) -> tuple[V, Array, V]:
        minimum: tuple[V, Array, V]
        if box is None:
            minimum = at_minimum(cost, args, v, value, solution.gradient, rtol)
            return minimum
        # `hold` replaces each variable on a bound by that bound, so C and its derivatives need no mask.
        minimum = at_minimum(held, (args, box), v, value, solution.gradient, rtol, inside(box, v))
        return hold(box, minimum[0]), *minimum[1:]

    def held(v: V, args: tuple[Any, ...], box: Bounds) -> Array:
        return cost(hold(box, v), *args)

    v, value, gradient = minimum(solution.v, solution.cost)
    best_v, best_cost, _ = minimum(solution.best_v, solution.best_cost)
    return solution._replace(v=v, cost=value, gradient=gradient, best_v=best_v, best_cost=best_cost)


def _unrolled(
    config: StaticConfig, rule: Rule | None, v0: V, args: tuple[Any, ...], max_steps: int, bounds: Bounds | None
) -> Solution[V]:
    """Make exactly max_steps updates. The memory of their derivatives grows like √max_steps."""

    def step(s: DescentState[V], _: None) -> tuple[DescentState[V], None]:
        state = one_update(config, rule, None, s, args, False, s.step, bounds)[0]
        return state._replace(step=s.step + 1, evaluations=state.evaluations + 1), None

    s = begin(config, rule, v0, args, bounds)
    failed = jnp.where(jnp.isfinite(s.cost), int(Reason.NOT_FINITE), int(Reason.START_NOT_FINITE))
    length = max(1, math.isqrt(max_steps))
    rounds, rest = divmod(max_steps, length)

    def several(s: DescentState[V], _: None) -> tuple[DescentState[V], None]:
        return control.scan(checkpoint(step), s, None, length=length)

    s, _ = control.scan(checkpoint(several), s, None, length=rounds)
    s, _ = control.scan(checkpoint(step), s, None, length=rest)
    s = s._replace(best_v=s.v, best_cost=s.cost)
    code = jnp.where(jnp.isfinite(s.cost), int(Reason.COMPLETED), failed)
    if rule is not None:
        code = jnp.where(rule.valid, code, int(Reason.BAD_RULE))
    if bounds is not None:
        code = jnp.where(bounds.valid, code, int(Reason.BAD_RULE))
    made = jnp.array(max_steps)
    carry = Carry(s, made, made, jnp.array(True), code, jnp.array(1), None, None)
    return _solution(config, None, carry, 0, max_steps)
