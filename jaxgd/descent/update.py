"""One update of a descent, and the state in which a descent starts or continues."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxgd.descent.record import Record
from jaxgd.descent.state import DescentState, args_at
from jaxgd.descent.stop import FIRST_LOOK, Stop
from jaxgd.mesh import control
from jaxgd.pytree import any_nonzero, dot, norm, select, subtract, wide_dtype
from jaxgd.rules import Rule
from jaxgd.rules.bounds import Bounds, project, reduced
from jaxgd.rules.rule import Transformation
from jaxgd.typed import Real, Tree, V, finfo, grad, map_rows, tree_leaves, tree_map, value_and_grad


@dataclasses.dataclass(frozen=True)
class StaticConfig:
    """The static configuration of the compiled loop, as one hashable value.

    Attributes:
        cost: The function to minimize.
        rule: An optax transformation; None if the rule is a `Rule`, whose hyperparameters are traced.
        record: The parts of the path to record; None to record nothing.
        max_steps: The number of updates that the record must cover; None if nothing is recorded.
        step_size: The name of the rule's step size in messages; None if the rule has no step size.
    """

    cost: Callable[..., Array]
    rule: Any
    record: Record | None
    max_steps: int | None
    step_size: str | None = None


def rule_of(config: StaticConfig, rule: Rule | None) -> Transformation:
    """Return the rule as a transformation that takes extra arguments."""
    if rule is not None:
        return rule
    if not isinstance(config.rule, optax.GradientTransformation):
        # optax.MultiSteps, for example, takes extra arguments although it is not a GradientTransformation.
        made: Transformation = optax.GradientTransformationExtraArgs(config.rule.init, config.rule.update)
    else:
        made = optax.with_extra_args_support(config.rule)
    return made


def cost_with(config: StaticConfig, args: tuple[Any, ...]) -> Callable[[V], Array]:
    """Return the cost as a function of v alone."""
    return lambda v: config.cost(v, *args)


def begin(
    config: StaticConfig, rule: Rule | None, v: V, args: tuple[Any, ...], bounds: Bounds | None = None
) -> DescentState[V]:
    """Return the state before the first update. With bounds, v is projected onto the box."""
    v = project(bounds, v)
    return state_at(config, rule, v, *value_and_grad(cost_with(config, args_at(args, 0)))(v), bounds)


def state_at(
    config: StaticConfig,
    rule: Rule | None,
    v: V,
    cost: ArrayLike,
    gradient: V,
    bounds: Bounds | None = None,
) -> DescentState[V]:
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
    config: StaticConfig, rule: Rule | None, s: DescentState[V], args: tuple[Any, ...], bounds: Bounds | None = None
) -> DescentState[V]:
    """Return a given state with C and ∇C of this cost and these args.

    Two programs may round C and ∇C differently. If the new values equal those in the state within rounding, return the
    state unchanged. A continued run then gives the same bits as a single run. Otherwise the cost or its args have
    changed. Then reset the fields that depend on older costs, and the state of a rule that uses the cost. Also reset
    these if v or best_v is outside the bounds, or if first_norm is 0 and new bounds free a variable. With bounds, v is
    projected onto the box.
    """
    outside = jnp.array(False)
    if bounds is not None:
        pair = s.v, s.best_v
        outside = any_nonzero([subtract(project(bounds, v), v) for v in pair])
        s = s._replace(v=project(bounds, s.v))
    args = args_at(args, s.step)
    eps = finfo(s.cost.dtype).eps

    def moved(x: Array) -> Array:
        signs = jnp.where(jnp.arange(x.size).reshape(x.shape) % 3 == 0, -1, 1)
        return x + jnp.asarray(4 * finfo(x.dtype).eps * x * signs, x.dtype)

    # A change of v by a few eps changes C and ∇C about as much as rounding does.
    points = tree_map(lambda x, y: jnp.stack([x, y]), s.v, project(bounds, tree_map(moved, s.v)))
    costs, gradients = map_rows(value_and_grad(cost_with(config, args)), points)
    costs = costs.astype(s.cost.dtype)
    new, noisy = ((costs[i], _row(gradients, i)) for i in range(2))

    def differences(a: tuple[Array, V], b: tuple[Array, V]) -> tuple[Array, Array]:
        return jnp.abs(a[0] - b[0]), norm(subtract(a[1], b[1]))

    sizes = jnp.abs(s.cost), norm(s.gradient)
    change, noise = differences(new, (s.cost, s.gradient)), differences(new, noisy)
    close = [~(x > 16 * y + 64 * eps * z) for x, y, z in zip(change, noise, sizes, strict=True)]
    same = close[0] & close[1] & (jnp.isfinite(new[0]) == jnp.isfinite(s.cost))
    changed = state_at(config, rule, s.v, *new, bounds)
    if bounds is not None:
        # If first_norm is 0, the tolerance of ∇C has no relative part. Reset first_norm if new bounds free a variable.
        same &= ~outside & ((s.first_norm > 0) | (changed.first_norm == 0))
    changed = changed._replace(
        rule=changed.rule if rule is not None and rule.spec.uses_cost else s.rule,
        step=s.step,
        evaluations=s.evaluations + 1,
        first_norm=jnp.maximum(s.first_norm, changed.first_norm),
        next_look=s.step + FIRST_LOOK,
    )
    return select(same, s, changed)


def _row(trees: V, i: int) -> V:
    return tree_map(lambda x: x[i], trees)


def follows_cost(config: StaticConfig, rule: Rule | None, stop: Stop | None) -> bool:
    """Return True if C must be evaluated after every update."""
    needed = stop is None or stop.needs_cost or not stop.needs_gradient_norm
    return needed or config.record is not None or rule is None or rule.spec.uses_cost


def cost_of(config: StaticConfig, v: Tree, args: tuple[Any, ...]) -> Array:
    """Return C(v)."""
    return jnp.asarray(config.cost(v, *args))


def step_of(
    config: StaticConfig, rule: Rule | None, s: DescentState[V], args: tuple[Any, ...], bounds: Bounds | None = None
) -> tuple[V, Any]:
    """Return Δv and the rule's next state. With bounds, v + Δv may lie outside the box."""

    def cost(v: V, bounds: Bounds | None = bounds) -> Array:
        # Optax's line searches require value_fn to take every extra argument, here `bounds`.
        return config.cost(project(bounds, v), *args)

    extra = {} if bounds is None else {"bounds": bounds}
    return rule_of(config, rule).update(
        reduced(bounds, s.v, s.gradient), s.rule, s.v, value=s.cost, grad=s.gradient, value_fn=cost, **extra
    )


def with_reduced_gradient(bounds: Bounds | None, s: DescentState[V]) -> DescentState[V]:
    """Return the state with the reduced gradient, for the tests and the record."""
    return s._replace(gradient=reduced(bounds, s.v, s.gradient))


def landing(bounds: Bounds | None, v: V, steps: V) -> V:
    """Return v + Δv in the dtypes of v, projected onto the box."""
    return project(bounds, tree_map(_moved, v, steps))


def one_update(
    config: StaticConfig,
    rule: Rule | None,
    stop: Stop | None,
    s: DescentState[V],
    args: tuple[Any, ...],
    recorded: Array | bool,
    k: Array,
    bounds: Bounds | None = None,
) -> tuple[DescentState[V], tuple[Array, Array]]:
    """Make one update. Return the new state and the pair (‖Δv‖, ∇C·Δv), which is NaN if it is not recorded.

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
        c, gradient, known = _evaluated(cost_with(config, args), v, rule_state if keeps else ())
        c = jnp.asarray(c, kind)
    else:
        c, gradient, known = s.cost, grad(cost_with(config, args))(v), 0
    # To save time, update only the fields that a test or the record needs.
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


def with_scale(s: DescentState[V]) -> DescentState[V]:
    """Return the state. At v₁, set the scale of the divergence test to max(|C(v₀)|, |C(v₁)|)."""
    return s._replace(scale=jnp.where(s.step == 1, jnp.maximum(s.scale, jnp.abs(s.cost)), s.scale))


def moves(v: Tree, steps: Tree) -> Array:
    """Return True if a step moves any variable by more than its rounding."""

    def leaf_moves(x: Array, u: Array) -> Array:
        return jnp.any(~(jnp.abs(u) <= finfo(x.dtype).eps * jnp.abs(x)))

    return jnp.any(jnp.array(tree_leaves(tree_map(leaf_moves, v, steps))))


def _moved(x: Array, u: Array) -> Array:
    """Return x + u in the dtype of x."""
    moved = jnp.asarray(x + u, x.dtype)
    if x.dtype.itemsize < 4:
        # XLA may keep extra digits of a narrow dtype. It would then evaluate C at another point than the stored v.
        known = finfo(x.dtype)
        moved = lax.reduce_precision(moved, known.nexp, known.nmant)
    return moved


def _evaluated(cost: Callable[[V], Array], v: V, rule_state: object) -> tuple[Real, V, Array | int]:
    """Return C and ∇C at v, and the number of evaluations saved: 1 if both were known, otherwise 0.

    They are known if `rule_state` holds both and C is finite, as after a search of `wolfe`.
    """
    values = optax.tree_utils.tree_get_all_with_path(rule_state, "value")
    gradients = optax.tree_utils.tree_get_all_with_path(rule_state, "grad")
    if not (len(values) == len(gradients) == 1):
        return *value_and_grad(cost)(v), 0
    value: Array = values[0][1]
    gradient: V = gradients[0][1]
    known = jnp.isfinite(value)

    def evaluate() -> tuple[Array, V]:
        c, g = value_and_grad(cost)(v)
        return jnp.asarray(c, value.dtype), tree_map(lambda x, y: jnp.asarray(x, y.dtype), g, gradient)

    c, g = control.cond(known, lambda: (value, gradient), evaluate)
    return c, g, known.astype(int)


def _evaluations(rule_state: object) -> Array | int | None:
    """Return the number of evaluations that the rule made in this update; None if the rule does not count them."""
    ours = optax.tree_utils.tree_get_all_with_path(rule_state, "evaluations")
    searches = optax.tree_utils.tree_get_all_with_path(rule_state, "num_linesearch_steps")
    counts = [jnp.asarray(n, int) for _, n in (*ours, *searches)]
    return sum(counts) if counts else None
