"""Rules that evaluate the cost: backtracking, Newton's method and the gradient flow.

Their `update` also takes the keyword arguments of optax's line searches: the cost `value`, its gradient `grad` and the
cost function `value_fn`. `minimize` and `train` pass them. With bounds, `minimize` also passes `bounds`, and passes the
reduced gradient as the first argument.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxgd.curvature import hessian_vector_product
from jaxgd.errors import require_count
from jaxgd.mesh import control
from jaxgd.pytree import axpy, dot, norm, scaled, size, unit_vector, wide_dtype
from jaxgd.rules.bounds import Bounds, free, inside, masked, predicted, project
from jaxgd.rules.rule import Rule, RuleSpec, checked_rule
from jaxgd.typed import Generic, Real, Tree, V, finfo, grad, tree_map

# Armijo's condition: a step must decrease C by at least this fraction of the predicted decrease.
_ARMIJO = 1e-4
_HALF = 0.5
# A search makes at most 60 trials: 0.5⁶⁰ is below the rounding error of float64.
_TRIALS = 60
# A search begins with an η within this factor of the last η.
_FARTHEST = 1e6


class SearchState(NamedTuple, Generic[V]):
    """The state of a backtracking search.

    Attributes:
        eta: The last accepted η; 0 before the first accepted step. A failed search halves it.
        gradient: ∇C before the last update, a tree like v; with bounds, the reduced gradient.
        costs: The last `memory` costs, newest first. Entries before the first cost are −∞.
        evaluations: The number of evaluations of C in the last search.
    """

    eta: Float[Array, ""]
    gradient: V
    costs: Float[Array, " memory"]
    evaluations: Int[Array, ""]


def backtracking(memory: int = 10) -> Rule:
    """Make the rule of gradient descent with a line search: η is halved until C is low enough.

    Δv = −η∇C, with Armijo's condition C(v + Δv) ≤ max C − 10⁻⁴ η‖∇C‖². The maximum is over the last `memory` costs. A
    slack of 4 eps · |max C| is allowed, so that rounding in C does not reject a step. With memory=1, C therefore never
    rises by more than this slack. With a larger memory, C may rise in a single step. The descent can then cross a
    narrow valley, and moves faster along the valley.

    The first step tried has the length ‖v‖/10, or 1 for v = 0. Each later search begins at the η of Barzilai and
    Borwein, η′‖g′‖²/⟨g′, g′ − g⟩, with the previous η′ and gradient g′ and the present gradient g. This η is the
    inverse of the curvature along the last step. If that curvature is not positive, the search begins at 4η′. Every
    search begins within a factor of 10⁶ of η′.

    A search makes at most 60 trials. If all fail, Δv = 0 and the rule halves η′. With bounds, the trials are projected
    onto the box, and ∇C·Δv of the projected step replaces −η‖∇C‖².

    Args:
        memory: The number of costs that the maximum covers, 1 to 10⁶; by default 10. A new value recompiles.

    Returns:
        The rule. Its `update` needs `value=` and `value_fn=`. It cannot be unrolled by
        `minimize(..., differentiate="unroll")`.

    Raises:
        DtypeError: If memory is not a whole number.
        RangeError: If memory is below 1 or above 10⁶.

    Source: Raydan, SIAM J. Optim. 7 (1997) 26–33, after Barzilai and Borwein, IMA J. Numer. Anal. 8 (1988) 141–148 and
    Grippo, Lampariello and Lucidi, SIAM J. Numer. Anal. 23 (1986) 707–716.

    Example:
        >>> rule = backtracking()
        >>> v, cost = jnp.array(1.0), lambda v: 50 * v**2
        >>> step, _ = rule.update(100 * v, rule.init(v), v, value=cost(v), value_fn=cost)
        >>> print(f"{step:.4f}")  # the search accepts the first step tried
        -0.1000
    """
    require_count("backtracking", "memory", memory, most=10**6)
    return Rule(_BACKTRACKING, {}, memory=memory)


def _backtracking(memory: int) -> optax.GradientTransformationExtraArgs:
    def init(v: V) -> SearchState[V]:
        dtype = wide_dtype(v)
        return SearchState(
            jnp.zeros((), dtype), tree_map(jnp.zeros_like, v), jnp.full(memory, -jnp.inf, dtype), jnp.array(0)
        )

    def step(
        g: V,
        state: SearchState[V],
        v: V,
        *,
        value: ArrayLike,
        value_fn: Callable[[V], Array],
        bounds: Bounds | None = None,
        **_: object,
    ) -> tuple[V, SearchState[V]]:
        value = jnp.asarray(value, state.costs.dtype)
        costs = jnp.roll(state.costs, 1).at[0].set(value)
        unit, length = unit_vector(g, value.dtype)
        before, length_before = unit_vector(state.gradient, value.dtype)
        # With unit vectors, no square leaves the range of the dtype.
        change = 1 - length / jnp.where(length_before > 0, length_before, 1) * dot(before, unit)
        guess = state.eta * jnp.where(change > 0, 1 / change, 4)
        guess = jnp.clip(guess, state.eta / _FARTHEST, state.eta * _FARTHEST)
        first = jnp.where(state.eta > 0, guess * length, first_length(v))
        down = tree_map(jnp.negative, unit)
        slope, short = (-length, None) if bounds is None else (0 * length, g)
        t, trials = _search(value_fn, v, down, slope, first.astype(value.dtype), jnp.max(costs), bounds, short)
        steps = scaled(t, down)
        eta = jnp.where(t > 0, t / jnp.where(length > 0, length, 1), state.eta / 2)
        return steps, SearchState(eta, g, costs, trials)

    return optax.GradientTransformationExtraArgs(init, step)


def first_length(v: Tree) -> Array:
    """Return the length of the first step tried: ‖v‖/10, or 1 for v = 0."""
    length = norm(v)
    return jnp.where(length > 0, length / 10, 1)


def _search(
    cost: Callable[[V], Array],
    v: V,
    direction: V,
    slope: Array,
    first: Array,
    reference: Array,
    bounds: Bounds | None = None,
    short: V | None = None,
) -> tuple[Array, Array]:
    """Return t and the number of trials.

    Try t = first, first/2, first/4, … until Armijo's condition holds. If 60 trials fail, t is 0. The condition compares
    C with `reference`. `slope` is the slope of C along the direction, and is negative. With bounds, `slope` and `short`
    are as in `predicted`.
    """
    # Rounding in C must not reject a step.
    slack = 4 * finfo(reference.dtype).eps * jnp.abs(reference)

    def bad(carry: tuple[Array, Array, Array]) -> Array:
        t, trials, c = carry
        return ~accepted(t, c) & (trials < _TRIALS)

    def at(t: Array) -> Array:
        return jnp.asarray(cost(axpy(t, direction, v)), reference.dtype)

    def accepted(t: Array, c: Array) -> Array:
        if bounds is None:
            return c <= reference + _ARMIJO * t * slope + slack
        point = project(bounds, axpy(t, direction, v))
        return c <= reference + _ARMIJO * predicted(bounds, v, slope, short, t, point) + slack

    def halve(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        t, trials, _ = carry
        return t * _HALF, trials + 1, at(t * _HALF)

    t, trials, c = control.while_loop(bad, halve, (first, jnp.array(1), at(first)))
    return jnp.where(accepted(t, c), t, 0), trials


class NewtonState(NamedTuple):
    """The state of Newton's method.

    Attributes:
        largest: The largest ‖∇C‖ so far, for the tolerance of the conjugate gradients.
        length: ‖Δv‖ of the last step, before the projection onto any bounds; 0 at first.
        evaluations: The number of Hessian-vector products and evaluations of C in the last step.
    """

    largest: Float[Array, ""]
    length: Float[Array, ""]
    evaluations: Int[Array, ""]


def newton(max_products: int = 100) -> Rule:
    """Make the rule of Newton's method, without forming the Hessian.

    The rule solves HΔv = −∇C, with H the Hessian, by conjugate gradients. The iteration stops when the residual is at
    most min(½, √(‖∇C‖/G)) · ‖∇C‖, with G the largest ‖∇C‖ so far. It also stops after `max_products` Hessian-vector
    products, or after two products per variable if that is less.

    If a direction p has pᵀHp < 0, the rule moves along p as if the curvature were |pᵀHp|, and the iteration stops. It
    also stops if pᵀHp is 0 within rounding. If this p is the first direction, −∇C, the rule tries a step along p. The
    length of this step is ‖v‖/10, or 1 for v = 0, but at least twice the length of the last step.

    The step is halved until C(v + Δv) ≤ C + 10⁻⁴ ∇C·Δv, which is Armijo's condition, with the same slack as in
    `backtracking`. If 60 trials fail, Δv = 0.

    With bounds, the trials are projected onto the box. One more product per step gives the curvature along −∇C, and
    from it a step to the estimated minimum along −∇C. The variables that are on or beyond a bound after this step move
    by this step. The equation is solved for the other variables.

    Args:
        max_products: The largest number of Hessian-vector products per step, at least 1; by default 100. Each costs
            about two gradients. A new value recompiles.

    Returns:
        The rule. Its `update` needs `value=` and `value_fn=`. It cannot be unrolled by
        `minimize(..., differentiate="unroll")`.

    Raises:
        DtypeError: If max_products is not a whole number.
        RangeError: If max_products is below 1.

    Source: Nocedal and Wright, Numerical Optimization (2006), algorithm 7.1, with a step along a direction of negative
    curvature added.

    Example:
        >>> rule = newton()
        >>> v, cost = jnp.array(1.0), lambda v: 50 * v**2
        >>> step, _ = rule.update(100 * v, rule.init(v), v, value=cost(v), value_fn=cost)
        >>> float(step)
        -1.0
    """
    require_count("newton", "max_products", max_products)
    return Rule(_NEWTON, {}, max_products=max_products)


def _newton(max_products: int) -> optax.GradientTransformationExtraArgs:
    def init(v: Tree) -> NewtonState:
        zero = jnp.zeros((), wide_dtype(v))
        return NewtonState(zero, zero, jnp.array(0))

    def step(
        g: V,
        state: NewtonState,
        v: V,
        *,
        value: ArrayLike,
        value_fn: Callable[[V], Array],
        bounds: Bounds | None = None,
        **_: object,
    ) -> tuple[V, NewtonState]:
        value = jnp.asarray(value, state.largest.dtype)
        unit, length = unit_vector(g, value.dtype)
        largest = jnp.maximum(state.largest, length)
        exact = jnp.minimum(0.5, jnp.sqrt(length / jnp.where(largest > 0, largest, 1)))
        # Steps in proportion to ‖v‖ alone would shrink near v = 0 and never pass it.
        flat_length = jnp.maximum(first_length(v), 2 * state.length).astype(value.dtype)
        # Solve for the unit vector, so that no square leaves the range of the dtype.
        lengths = length, flat_length
        if bounds is None:
            direction, products = _newton_direction(value_fn, v, unit, lengths, exact, max_products)
            slope, short = length * dot(unit, direction).astype(value.dtype), None
        else:
            direction, mask, products = _bounded_direction(bounds, value_fn, v, g, unit, lengths, exact, max_products)
            slope = length * dot(masked(mask, unit), direction).astype(value.dtype)
            short = tree_map(lambda x, m: jnp.where(m, 0, x), g, mask)
        eta, trials = _search(value_fn, v, direction, slope, jnp.ones((), value.dtype), value, bounds, short)
        steps = scaled(eta, direction)
        return steps, NewtonState(largest, norm(steps).astype(value.dtype), products + trials)

    return optax.GradientTransformationExtraArgs(init, step)


class _Solving(NamedTuple, Generic[V]):
    d: V  # the solution of Hd = −∇C so far
    r: V  # the residual −∇C − Hd, in units of ‖∇C‖
    p: V  # the next direction of conjugate gradients
    left: Array  # ‖r‖²
    products: Array  # the number of Hessian-vector products
    bent: Array  # True after a direction with pᵀHp ≤ 0, within rounding


def _bounded_direction(
    bounds: Bounds,
    cost: Callable[[V], Array],
    v: V,
    g: V,
    unit: V,
    lengths: tuple[Array, Array],
    exact: Array,
    max_products: int,
) -> tuple[V, V, Array]:
    """Return a direction, the mask of the variables that move by Newton's method, and the number of products.

    The curvature along −∇C gives a step to the estimated minimum along −∇C. The variables that are on or beyond a bound
    after this step move by this step. The other variables move by Newton's equation, restricted to them.
    """
    length, flat_length = lengths
    hu = hessian_vector_product(cost, v, unit)
    curvature = jnp.abs(dot(unit, hu)).astype(length.dtype)
    flat = curvature <= finfo(length.dtype).eps * norm(hu)
    step = scaled(-jnp.where(flat, flat_length, length / jnp.where(flat, 1, curvature)), unit)
    mask = tree_map(jnp.logical_and, free(bounds, v, g), inside(bounds, axpy(1, step, v)))
    d, products = _newton_direction(cost, v, unit, lengths, exact, max_products, mask)
    return tree_map(jnp.where, mask, d, step), mask, products + 1


def _newton_direction(
    cost: Callable[[V], Array],
    v: V,
    unit: V,
    lengths: tuple[Array, Array],
    exact: Array,
    max_products: int,
    mask: V | None = None,
) -> tuple[V, Array]:
    """Solve Hd = −∇C by conjugate gradients, with ∇C = length · unit. Return d and the number of products.

    Stop when the residual is at most `exact` · ‖∇C‖, when a direction has no positive curvature, or after
    min(max_products, 2 · number of variables) products. A mask restricts the equation and ∇C to the variables where it
    is True.
    """
    length, flat_length = lengths
    most = min(max_products, 2 * size(v))
    if mask is not None:
        unit = masked(mask, unit)
        exact = exact * norm(unit)
    down = tree_map(jnp.negative, unit)
    left = dot(unit, unit)

    def more(s: _Solving[V]) -> Array:
        return (s.left > exact**2) & (s.products < most) & ~s.bent

    def solve(s: _Solving[V]) -> _Solving[V]:
        hp = masked(mask, hessian_vector_product(cost, v, s.p))
        curvature = dot(s.p, hp)
        # A curvature within rounding of 0 gives no step length. The first direction then gets the length
        # `flat_length`, and a later direction gets no step.
        flat = jnp.abs(curvature) <= finfo(s.left.dtype).eps * jnp.sqrt(dot(s.p, s.p)) * norm(hp)
        alpha = s.left / jnp.where(flat, 1, jnp.abs(curvature))
        along = jnp.where(flat, jnp.where(s.products == 0, flat_length, 0), alpha * length)
        d, r = axpy(along, s.p, s.d), axpy(-alpha, hp, s.r)
        now = dot(r, r)
        return _Solving(d, r, axpy(now / s.left, s.p, r), now, s.products + 1, flat | (curvature < 0))

    zero = tree_map(jnp.zeros_like, unit)
    s = control.while_loop(more, solve, _Solving(zero, down, down, left, jnp.array(0), jnp.array(False)))
    return s.d, s.products


class FlowState(NamedTuple):
    """The state of the gradient flow.

    Attributes:
        evaluations: The number of evaluations of ∇C in the last step, without the gradient that `update` receives.
    """

    evaluations: Int[Array, ""]


def gradient_flow(dt: Real) -> Rule:
    """Make the rule that follows the gradient flow, the limit of gradient descent for η → 0.

    dv/dt = −∇C(v), by the classical Runge–Kutta method: Δv = −dt/6 (k₁ + 2k₂ + 2k₃ + k₄), where the kᵢ are ∇C at v,
    v − dt/2 k₁, v − dt/2 k₂ and v − dt k₃. The error after a fixed time is O(dt⁴); for gradient descent with η = dt it
    is O(dt).

    Args:
        dt: The time step, one number above 0. The method is stable below about 2.78/λ_max, with λ_max the largest
            curvature. A traced dt is not checked here: if it is out of range, `minimize` ends with BAD_RULE.

    Returns:
        The rule. Its `update` needs `value_fn=` and evaluates three gradients per step, in addition to the one that it
        receives. It can be unrolled by `minimize(..., differentiate="unroll")`.

    Raises:
        DtypeError: If dt is not one number.
        RangeError: If dt is complex, or not a finite number above 0.

    Source: Butcher, Numerical Methods for Ordinary Differential Equations (2016), section 235.

    Example:
        >>> rule = gradient_flow(0.1)
        >>> v = jnp.array(1.0)
        >>> step, _ = rule.update(v, rule.init(v), v, value_fn=lambda v: v**2 / 2)
        >>> print(f"{v + step:.7f} {jnp.exp(-0.1):.7f}")
        0.9048375 0.9048374
    """
    return checked_rule(_FLOW, dt=dt)


def _flow(dt: Real) -> optax.GradientTransformationExtraArgs:
    def step(g: V, state: FlowState, v: V, *, value_fn: Callable[[V], Array], **_: object) -> tuple[V, FlowState]:
        gradient = grad(value_fn)
        k2 = gradient(axpy(-dt / 2, g, v))
        k3 = gradient(axpy(-dt / 2, k2, v))
        k4 = gradient(axpy(-dt, k3, v))
        steps = tree_map(lambda a, b, c, d: jnp.asarray(-dt / 6 * (a + 2 * (b + c) + d), a.dtype), g, k2, k3, k4)
        return steps, FlowState(jnp.array(3))

    return optax.GradientTransformationExtraArgs(lambda v: FlowState(jnp.array(0)), step)


def _last_eta(state: SearchState[V], memory: int) -> Array:
    return state.eta


_BACKTRACKING = RuleSpec("backtracking", _backtracking, rate=_last_eta, unrolls=False, uses_cost=True)
_NEWTON = RuleSpec("newton", _newton, unrolls=False, uses_cost=True)
_FLOW = RuleSpec("gradient_flow", _flow)
