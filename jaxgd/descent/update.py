"""One update of a descent: the state before it and the state after it."""

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
from jaxgd.mesh import control
from jaxgd.pytree import any_nonzero, dot, norm, select, subtract, wide_dtype
from jaxgd.rules import Rule
from jaxgd.rules.bounds import Bounds, project, reduced


class DescentState(NamedTuple):
    """The state of a descent between two updates. It is a pytree, so it works with `scan` and `vmap`, and can be saved.

    Under vmap, the batch axes come first in every array.

    Attributes:
        v: The variables.
        cost: C(v), a scalar.
        gradient: ∇C(v), a tree like v.
        rule: The state of the rule.
        step: The number of updates made so far.
        evaluations: The number of evaluations: C, ∇C or a Hessian-vector product. C and ∇C at one point count as one.
            Evaluations for a recorded sharpness, the stall check and the check of the minimum are not counted.
        best_v: The variables with the lowest C so far; v if nothing is recorded.
        best_cost: C(best_v), a scalar.
        first_norm: ‖∇C(v₀)‖, or of the reduced gradient with bounds: the scale of `gradient_rtol`. It is smaller after
            a check that found no minimum near v.
        scale: max(|C(v₀)|, |C(v₁)|), for the divergence test and the check of a minimum.
        size: ‖v₀‖, for the check of a minimum.
        cost_before: C before the last update; infinite at the start, or if no test needs it.
        step_norm: ‖Δv‖ of the last update; infinite at the start, or if no test needs it.
        next_look: The number of updates at which progress is checked next.
        cost_seen: C at the last check of progress.
    """

    v: PyTree[Array]
    cost: Float[Array, "*batch"]
    gradient: PyTree[Array]
    rule: PyTree[Array]
    step: Int[Array, "*batch"]
    evaluations: Int[Array, "*batch"]
    best_v: PyTree[Array]
    best_cost: Float[Array, "*batch"]
    first_norm: Float[Array, "*batch"]
    scale: Float[Array, "*batch"]
    size: Float[Array, "*batch"]
    cost_before: Float[Array, "*batch"]
    step_norm: Float[Array, "*batch"]
    next_look: Int[Array, "*batch"]
    cost_seen: Float[Array, "*batch"]


class BatchedArgs(NamedTuple):
    """The args of a cost that gets another batch at every update.

    Attributes:
        batches: All batches: a tree of arrays with a leading axis of length m.
        args: The args that follow the batch.
    """

    batches: PyTree[Array]
    args: tuple[Any, ...]


def args_at(args: tuple[Any, ...], k: Any) -> tuple[Any, ...]:
    """Return the cost's args after k updates: with batches, batch k mod m and the other args."""
    if not isinstance(args, BatchedArgs):
        return args
    m = len(jax.tree.leaves(args.batches)[0])
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, k % m, keepdims=False), args.batches), *args.args


@dataclasses.dataclass(frozen=True)
class StaticConfig:
    """The static configuration of the compiled loop, as one hashable value.

    Attributes:
        cost: The function to minimize.
        rule: An optax transformation; None if the rule is a `Rule`, whose hyperparameters are traced.
        record: The parts of the path to record; None to record nothing.
        max_steps: The number of updates that the buffers must hold; None if nothing is recorded.
        step_size: The name of the rule's step size, for messages; None if the rule has none.
    """

    cost: Callable[..., Any]
    rule: Any
    record: Record | None
    max_steps: int | None
    step_size: str | None = None


def rule_of(config: StaticConfig, rule: Rule | None) -> Any:
    """Return the optax transformation to use."""
    if rule is not None:
        return rule
    if not isinstance(config.rule, optax.GradientTransformation):
        # An example is optax.MultiSteps: it passes extra arguments on, but its type does not show that.
        return optax.GradientTransformationExtraArgs(config.rule.init, config.rule.update)
    return optax.with_extra_args_support(config.rule)


def begin(
    config: StaticConfig, rule: Rule | None, v: PyTree[Array], args: tuple[Any, ...], bounds: Bounds | None = None
) -> DescentState:
    """Return the state before the first update. Bounds project v."""
    v, args = project(bounds, v), args_at(args, 0)
    return state_at(config, rule, v, *jax.value_and_grad(lambda v: config.cost(v, *args))(v), bounds)


def state_at(
    config: StaticConfig,
    rule: Rule | None,
    v: PyTree[Array],
    cost: Any,
    gradient: PyTree[Array],
    bounds: Bounds | None = None,
) -> DescentState:
    """Return the state before the first update, with C and ∇C at v."""
    kind = wide_dtype(v)
    cost = jnp.asarray(cost, kind)
    infinite = jnp.full((), jnp.inf, kind)
    return DescentState(
        v=v,
        cost=cost,
        gradient=gradient,
        rule=rule_of(config, rule).init(v),
        # An array with an explicit dtype is not weakly typed, so an update keeps the types of the state.
        step=jnp.array(0, int),
        evaluations=jnp.array(1, int),
        best_v=v,
        best_cost=jnp.where(jnp.isnan(cost), jnp.inf, cost),
        first_norm=norm(reduced(bounds, v, gradient)).astype(kind),
        scale=jnp.abs(cost),
        size=norm(v).astype(kind),
        cost_before=infinite,
        step_norm=infinite,
        next_look=jnp.array(FIRST_LOOK, int),
        cost_seen=cost,
    )


def resume(
    config: StaticConfig, rule: Rule | None, s: DescentState, args: tuple[Any, ...], bounds: Bounds | None = None
) -> DescentState:
    """Return a given state with C and ∇C of this cost and these args.

    Two programs may round C and ∇C differently. Return the state unchanged if they agree with it within rounding: a
    continued run then gives the same bits as a single one. Otherwise the cost or its args have changed. Then reset the
    fields that depend on older costs, and the state of a rule that uses the cost. Reset them also if v or best_v is
    outside the bounds. v is projected onto the box.
    """
    outside = jnp.array(False)
    if bounds is not None:
        pair = s.v, s.best_v
        outside = any_nonzero([subtract(project(bounds, v), v) for v in pair])
        s = s._replace(v=project(bounds, s.v))
    args = args_at(args, s.step)
    eps: Any = jnp.finfo(s.cost.dtype).eps  # type: ignore[no-untyped-call]

    def moved(x: Array) -> Array:
        signs = jnp.where(jnp.arange(x.size).reshape(x.shape) % 3 == 0, -1, 1)
        return x + jnp.asarray(4 * jnp.finfo(x.dtype).eps * x * signs, x.dtype)  # type: ignore[no-untyped-call]

    # Rounding changes C and ∇C about as much as a change of v by a few eps does.
    points = jax.tree.map(lambda x, y: jnp.stack([x, y]), s.v, project(bounds, jax.tree.map(moved, s.v)))
    costs, gradients = lax.map(jax.value_and_grad(lambda v: config.cost(v, *args)), points)
    costs = costs.astype(s.cost.dtype)
    new, noisy = ((costs[i], jax.tree.map(lambda g, i=i: g[i], gradients)) for i in range(2))

    def apart(a: Any, b: Any) -> tuple[Array, Array]:
        return jnp.abs(a[0] - b[0]), norm(subtract(a[1], b[1]))

    sizes = jnp.abs(s.cost), norm(s.gradient)
    change, noise = apart(new, (s.cost, s.gradient)), apart(new, noisy)
    close = [~(x > 16 * y + 64 * eps * z) for x, y, z in zip(change, noise, sizes, strict=True)]
    same = close[0] & close[1] & (jnp.isfinite(new[0]) == jnp.isfinite(s.cost))
    changed = state_at(config, rule, s.v, *new, bounds)
    if bounds is not None:
        # Other bounds may free variables at a minimum.
        same &= ~outside & ((s.first_norm > 0) | (changed.first_norm == 0))
    changed = changed._replace(
        rule=changed.rule if rule is not None and rule.spec.uses_cost else s.rule,
        step=s.step,
        evaluations=s.evaluations + 1,
        first_norm=jnp.maximum(s.first_norm, changed.first_norm),
        next_look=s.step + FIRST_LOOK,
    )
    chosen: DescentState = select(same, s, changed)
    return chosen


def follows_cost(config: StaticConfig, rule: Rule | None, stop: Stop | None) -> bool:
    """Return True if C must be known after every update, and not only at the end."""
    needed = stop is None or stop.needs_cost or not stop.needs_gradient_norm
    return needed or config.record is not None or rule is None or rule.spec.uses_cost


def cost_of(config: StaticConfig, v: PyTree[Array], args: tuple[Any, ...]) -> Array:
    """Return C(v)."""
    return jnp.asarray(config.cost(v, *args))


def step_of(
    config: StaticConfig, rule: Rule | None, s: DescentState, args: tuple[Any, ...], bounds: Bounds | None = None
) -> tuple[Any, Any]:
    """Return Δv and the rule's next state. With bounds, v + Δv may lie outside."""

    def cost(v: PyTree[Array], bounds: Bounds | None = bounds) -> Any:
        # Optax's line searches require that value_fn takes the extra arguments.
        return config.cost(project(bounds, v), *args)

    extra = {} if bounds is None else {"bounds": bounds}
    step: tuple[Any, Any] = rule_of(config, rule).update(
        reduced(bounds, s.v, s.gradient), s.rule, s.v, value=s.cost, grad=s.gradient, value_fn=cost, **extra
    )
    return step


def with_reduced_gradient(bounds: Bounds | None, s: DescentState) -> DescentState:
    """Return the state with the reduced gradient, for the tests and the record."""
    return s._replace(gradient=reduced(bounds, s.v, s.gradient))


def landing(bounds: Bounds | None, v: PyTree[Array], steps: PyTree[Array]) -> PyTree[Array]:
    """Return v + Δv in the dtypes of v, projected onto the box."""
    return project(bounds, jax.tree.map(_moved, v, steps))


def one_update(
    config: StaticConfig,
    rule: Rule | None,
    stop: Stop | None,
    s: DescentState,
    args: tuple[Any, ...],
    recorded: Any,
    k: Any,
    bounds: Bounds | None = None,
) -> tuple[DescentState, tuple[Array, Array]]:
    """Make one update. Return the new state, and ‖Δv‖ and ∇C·Δv of the step, which are NaN if they are not recorded.

    k is the number of updates before this one. The caller adds 1 to `step` and 1 to `evaluations` for each update,
    because it can count many updates at once.
    """
    kind = s.cost.dtype
    steps, rule_state = step_of(config, rule, s, args_at(args, k), bounds)
    args = args_at(args, k + 1)
    target = None
    if bounds is not None:
        target = landing(bounds, s.v, steps)
        steps = subtract(target, s.v)
    nan = jnp.full((), jnp.nan, kind)
    step_norm = predicted = nan
    if recorded is not False:

        def of_the_step() -> tuple[Array, Array]:
            return norm(steps).astype(kind), dot(s.gradient, steps).astype(kind)

        step_norm, predicted = (
            of_the_step() if recorded is True else control.cond(recorded, of_the_step, lambda: (nan, nan))
        )
    v = landing(None, s.v, steps) if target is None else target
    if follows_cost(config, rule, stop):
        keeps = rule is not None and rule.spec.caches_value
        c, gradient, known = _evaluated(lambda v: config.cost(v, *args), v, rule_state if keeps else ())
        c = jnp.asarray(c, kind)
    else:
        c, gradient, known = s.cost, jax.grad(lambda v: config.cost(v, *args))(v), 0
    # Fields that no test and no record needs keep their values, which costs nothing.
    state = s._replace(v=v, cost=c, gradient=gradient, rule=rule_state)
    if (extra := _evaluations(rule_state)) is not None:
        state = state._replace(evaluations=s.evaluations + extra - known)
    if config.record is not None:
        better = c < s.best_cost
        state = state._replace(best_v=select(better, v, s.best_v), best_cost=jnp.where(better, c, s.best_cost))
    if stop is not None and stop.needs_step_norm:
        state = state._replace(step_norm=step_norm if recorded is True else norm(steps).astype(kind))
    if stop is not None and stop.needs_decrease:
        state = state._replace(cost_before=s.cost)
    return state, (step_norm, predicted)


def with_scale(s: DescentState) -> DescentState:
    """Return the state with the scale for the divergence test, which includes C after the first update."""
    return s._replace(scale=jnp.where(s.step == 1, jnp.maximum(s.scale, jnp.abs(s.cost)), s.scale))


def moves(v: PyTree[Array], steps: PyTree[Array]) -> Array:
    """Return True if a step moves any variable by more than its rounding."""

    def leaf_moves(x: Array, u: Array) -> Array:
        return jnp.any(~(jnp.abs(u) <= jnp.finfo(x.dtype).eps * jnp.abs(x)))  # type: ignore[no-untyped-call]

    return jnp.any(jnp.array(jax.tree.leaves(jax.tree.map(leaf_moves, v, steps))))


def _moved(x: Array, u: Any) -> Array:
    """Return x + u in the dtype of x."""
    moved = jnp.asarray(x + u, x.dtype)
    if x.dtype.itemsize < 4:
        # XLA may keep extra digits of a narrow dtype. C would then be evaluated at another point.
        known: Any = jnp.finfo(x.dtype)  # type: ignore[no-untyped-call]
        moved = lax.reduce_precision(moved, known.nexp, known.nmant)
    return moved


def _evaluated(cost: Any, v: PyTree[Array], rule_state: Any) -> tuple[Any, Any, Any]:
    """Return C and ∇C at v, and 1 if they were already known or 0 otherwise.

    A line search of optax stores C and ∇C of the point where it ended.
    """
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

    c, g = control.cond(known, lambda: (value, gradient), evaluate)
    return c, g, known.astype(int)


def _evaluations(rule_state: Any) -> Any:
    """Return the number of evaluations that the rule made in the last update; None if the rule does not count them."""
    ours = optax.tree_utils.tree_get_all_with_path(rule_state, "evaluations")
    searches = optax.tree_utils.tree_get_all_with_path(rule_state, "num_linesearch_steps")
    counts = [jnp.asarray(n, int) for _, n in (*ours, *searches)]
    return sum(counts) if counts else None
