"""Rules that evaluate the cost: line searches, Newton's method, the gradient flow.

Their `update` takes `value`, `grad` and `value_fn` beside the gradient, as optax's line searches do; `minimize` and
`train` pass them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from jaxgd.curvature import hessian_vector_product
from jaxgd.errors import require_count, require_positive
from jaxgd.pytree import axpy, dot, norm, size, wide_dtype
from jaxgd.rules.rule import Kind, Rule

# A step must decrease C by this part of what the slope promises: Armijo's condition.
_ARMIJO = 1e-4
_HALF = 0.5
# 0.5⁶⁰ is below rounding in float64.
_TRIALS = 60
# The first step guessed from two gradients is at most so many times longer or shorter than the last.
_FARTHEST = 1e6

Cost = Callable[[PyTree[Array]], Array]


class SearchState(NamedTuple):
    """What a backtracking search keeps: the last η and gradient, the last few costs, evaluations of the last search."""

    eta: Float[Array, ""]
    gradient: PyTree[Array]
    costs: Float[Array, " memory"]
    evaluations: Int[Array, ""]


def backtracking(memory: int = 10) -> Rule:
    """Gradient descent that finds η by itself: halved until C falls enough.

    Δv = −η∇C with Armijo's condition C(v + Δv) ≤ max C − 10⁻⁴ η‖∇C‖², the maximum being over the last `memory` costs:
    with 1, C falls in every step; a few allow the steps across a narrow valley that get ahead along it. The search
    begins at the η of Barzilai and Borwein, η‖g′‖²/⟨g′, g′ − g⟩ with g′ the gradient before, which is the inverse
    curvature that the last step met.

    Range: `memory` ≥ 1.
    Raises: RangeError or DtypeError for a `memory` that is no count.
    Source: Raydan, SIAM J. Optim. 7 (1997) 26–33, after Barzilai and Borwein, IMA J. Numer. Anal. 8 (1988) 141–148 and
    Grippo, Lampariello and Lucidi, SIAM J. Numer. Anal. 23 (1986) 707–716.

    >>> rule = backtracking()
    >>> cost = lambda v: 50 * v**2
    >>> step, _ = rule.update(jnp.array(100.0), rule.init(jnp.array(1.0)), jnp.array(1.0), value=50.0, value_fn=cost)
    >>> float(step)  # η = 1/‖∇C‖ already serves
    -1.0
    """
    require_count("backtracking", "memory", memory)
    return Rule(_BACKTRACKING, {}, memory=memory)


def _backtracking(memory: int) -> optax.GradientTransformationExtraArgs:
    def init(v: Any) -> SearchState:
        kind = wide_dtype(v)
        return SearchState(
            jnp.zeros((), kind), jax.tree.map(jnp.zeros_like, v), jnp.full(memory, -jnp.inf, kind), jnp.array(0)
        )

    def step(g: Any, state: SearchState, v: Any, *, value: Any, value_fn: Cost, **_: Any) -> tuple[Any, SearchState]:
        value = jnp.asarray(value, state.costs.dtype)
        costs = jnp.roll(state.costs, 1).at[0].set(value)
        slope = dot(g, g)
        before = dot(state.gradient, state.gradient)
        change = before - dot(state.gradient, g)
        guess = state.eta * jnp.where(change > 0, before / change, 4)
        guess = jnp.clip(guess, state.eta / _FARTHEST, state.eta * _FARTHEST)
        length = norm(g)
        guess = jnp.where(state.eta > 0, guess, jnp.minimum(1, 1 / jnp.where(length > 0, length, 1)))
        eta, trials = _search(value_fn, v, g, -slope, guess.astype(value.dtype), jnp.max(costs), sign=-1)
        steps = jax.tree.map(lambda x: jnp.asarray(-eta * x, x.dtype), g)
        return steps, SearchState(jnp.where(eta > 0, eta, state.eta / 2), g, costs, trials)

    return optax.GradientTransformationExtraArgs(init, step)


def _search(
    cost: Cost, v: Any, direction: Any, slope: Array, first: Array, reference: Array, sign: int = 1
) -> tuple[Array, Array]:
    """The first of `first`, first/2, … that fulfills Armijo's condition from the reference, or 0; and how many trials.

    The slope is that of the cost along sign · direction, below 0.
    """
    # Closer than its own rounding C cannot be compared.
    slack = 4 * jnp.finfo(reference.dtype).eps * jnp.abs(reference)  # type: ignore[no-untyped-call]

    def bad(carry: tuple[Array, Array, Array]) -> Array:
        eta, trials, c = carry
        return ~(c <= reference + _ARMIJO * eta * slope + slack) & (trials < _TRIALS)

    def at(eta: Array) -> Array:
        return jnp.asarray(cost(axpy(sign * eta, direction, v)), reference.dtype)

    def halve(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        eta, trials, _ = carry
        return eta * _HALF, trials + 1, at(eta * _HALF)

    eta, trials, c = lax.while_loop(bad, halve, (first, jnp.array(1), at(first)))
    accepted = c <= reference + _ARMIJO * eta * slope + slack
    return jnp.where(accepted, eta, 0), trials


def wolfe(memory: int = 10) -> Rule:
    """A line search for the strong Wolfe conditions, along the direction of L-BFGS or that of −∇C.

    Δv = −η B∇C with B the inverse Hessian as the last `memory` steps show it; `memory=0` is B = 1, gradient descent.
    η fulfills C(v + Δv) ≤ C + c₁⟨∇C, Δv⟩ and |⟨∇C(v + Δv), Δv⟩| ≤ c₂|⟨∇C, Δv⟩|: the second is what keeps B positive.
    The step is optax's: `scale_by_lbfgs` and `scale_by_zoom_linesearch`.

    Range: `memory` ≥ 0.
    Raises: RangeError or DtypeError for a `memory` that is no count.
    Source: Nocedal and Wright, Numerical Optimization (2006), algorithms 3.5, 3.6 and 7.4.

    >>> rule = wolfe()
    >>> callable(rule.init) and callable(rule.update)
    True
    """
    require_count("wolfe", "memory", memory, least=0)
    return Rule(_WOLFE, {}, memory=memory)


def _wolfe(memory: int) -> Any:
    if memory:
        return optax.lbfgs(memory_size=memory)
    # The last η is the best guess there is for the next.
    return optax.chain(optax.scale(-1.0), optax.scale_by_zoom_linesearch(20, initial_guess_strategy="keep"))


class NewtonState(NamedTuple):
    """The largest gradient so far, which says how exact the next direction must be, and the last step's evaluations."""

    largest: Float[Array, ""]
    evaluations: Int[Array, ""]


def newton(max_products: int = 100) -> Rule:
    """Newton's method without a matrix: the direction by conjugate gradients on Hessian-vector products.

    HΔv = −∇C, solved to min(½, √(‖∇C‖/max‖∇C‖)) of ‖∇C‖, then halved until Armijo's condition holds. Where a direction
    p with pᵀHp ≤ 0 turns up, H is damped there: the step along p is the one for the curvature |pᵀHp|, which descends,
    and the solution ends with it.

    Range: `max_products` ≥ 1 Hessian-vector products a step; each costs about two gradients.
    Raises: RangeError or DtypeError for a `max_products` that is no count.
    Source: Nocedal and Wright, Numerical Optimization (2006), algorithm 7.1, with the damping of negative curvature.

    >>> rule = newton()
    >>> cost = lambda v: 50 * v**2
    >>> step, _ = rule.update(jnp.array(100.0), rule.init(jnp.array(1.0)), jnp.array(1.0), value=50.0, value_fn=cost)
    >>> float(step)
    -1.0
    """
    require_count("newton", "max_products", max_products)
    return Rule(_NEWTON, {}, max_products=max_products)


def _newton(max_products: int) -> optax.GradientTransformationExtraArgs:
    def init(v: Any) -> NewtonState:
        return NewtonState(jnp.zeros((), wide_dtype(v)), jnp.array(0))

    def step(g: Any, state: NewtonState, v: Any, *, value: Any, value_fn: Cost, **_: Any) -> tuple[Any, NewtonState]:
        length = norm(g).astype(state.largest.dtype)
        largest = jnp.maximum(state.largest, length)
        exact = jnp.minimum(0.5, jnp.sqrt(length / jnp.where(largest > 0, largest, 1))) * length
        direction, products = _newton_direction(value_fn, v, g, exact, max_products)
        value = jnp.asarray(value, state.largest.dtype)
        slope = dot(g, direction).astype(value.dtype)
        eta, trials = _search(value_fn, v, direction, slope, jnp.ones((), value.dtype), value)
        steps = jax.tree.map(lambda x: jnp.asarray(eta * x, x.dtype), direction)
        return steps, NewtonState(largest, products + trials)

    return optax.GradientTransformationExtraArgs(init, step)


class _Solving(NamedTuple):
    d: Any  # the solution so far
    r: Any  # what is left of −∇C
    p: Any  # the direction of the next step
    left: Array  # ‖r‖²
    products: Array
    bent: Array  # whether a direction of no positive curvature was met


def _newton_direction(cost: Cost, v: Any, g: Any, exact: Array, max_products: int) -> tuple[Any, Array]:
    """Conjugate gradients on Hd = −g until ‖r‖ ≤ `exact` or a direction bends down."""
    most = min(max_products, 2 * size(v))
    down = jax.tree.map(jnp.negative, g)
    left = dot(g, g)

    def more(s: _Solving) -> Array:
        return (s.left > exact**2) & (s.products < most) & ~s.bent

    def solve(s: _Solving) -> _Solving:
        hp = hessian_vector_product(cost, v, s.p)
        curvature = dot(s.p, hp)
        # Of a curvature that is 0 but for rounding nothing can be made: the step of plain descent is taken.
        flat = jnp.finfo(s.left.dtype).eps * jnp.sqrt(s.left) * norm(hp)  # type: ignore[no-untyped-call]
        safe = jnp.where(jnp.abs(curvature) > flat, jnp.abs(curvature), dot(s.p, s.p))
        alpha = s.left / jnp.where(safe > 0, safe, 1)
        d, r = axpy(alpha, s.p, s.d), axpy(-alpha, hp, s.r)
        now = dot(r, r)
        return _Solving(d, r, axpy(now / s.left, s.p, r), now, s.products + 1, curvature <= flat)

    zero = jax.tree.map(jnp.zeros_like, g)
    s = lax.while_loop(more, solve, _Solving(zero, down, down, left, jnp.array(0), jnp.array(False)))
    return s.d, s.products


class FlowState(NamedTuple):
    """The evaluations of the last step."""

    evaluations: Int[Array, ""]


def gradient_flow(dt: Any) -> Rule:
    """The limit of gradient descent as η → 0: the path dv/dt = −∇C(v), by the classical Runge–Kutta method.

    Δv = −dt/6 (k₁ + 2k₂ + 2k₃ + k₄), the kᵢ being ∇C at v, v − dt/2 k₁, v − dt/2 k₂ and v − dt k₃: the error after a
    time is O(dt⁴), where that of gradient descent with η = dt is O(dt).

    Range: dt > 0; stable below about 2.78/λ_max, with λ_max the largest curvature.
    Raises: RangeError or DtypeError for a dt that is no step size.
    Source: Butcher, Numerical Methods for Ordinary Differential Equations (2016), section 235.

    >>> rule = gradient_flow(0.1)
    >>> v = jnp.array(1.0)
    >>> step, _ = rule.update(v, rule.init(v), v, value_fn=lambda v: v**2 / 2)
    >>> print(f"{v + step:.7f} {jnp.exp(-0.1):.7f}")
    0.9048375 0.9048374
    """
    require_positive("gradient_flow", "dt", dt)
    return Rule(_FLOW, {"dt": dt})


def _flow(dt: Any) -> optax.GradientTransformationExtraArgs:
    def step(g: Any, state: FlowState, v: Any, *, value_fn: Cost, **_: Any) -> tuple[Any, FlowState]:
        gradient = jax.grad(value_fn)
        k2 = gradient(axpy(-dt / 2, g, v))
        k3 = gradient(axpy(-dt / 2, k2, v))
        k4 = gradient(axpy(-dt, k3, v))
        steps = jax.tree.map(lambda a, b, c, d: jnp.asarray(-dt / 6 * (a + 2 * (b + c) + d), a.dtype), g, k2, k3, k4)
        return steps, FlowState(jnp.array(3))

    return optax.GradientTransformationExtraArgs(lambda v: FlowState(jnp.array(0)), step)


_BACKTRACKING = Kind("backtracking", _backtracking, rate=lambda state, memory: state.eta, unrolls=False, uses_cost=True)
_WOLFE = Kind("wolfe", _wolfe, unrolls=False, uses_cost=True, keeps_value=True)
_NEWTON = Kind("newton", _newton, unrolls=False, uses_cost=True)
_FLOW = Kind("gradient_flow", _flow, positive=("dt",))
