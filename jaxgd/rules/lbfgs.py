"""L-BFGS with a line search for the strong Wolfe conditions."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxgd.errors import require_count
from jaxgd.mesh import control
from jaxgd.pytree import any_nonzero, axpy, dot, norm, scaled, subtract, unit_vector, wide_dtype
from jaxgd.rules.bounds import Bounds, free, inside, masked, predicted, project, reduced
from jaxgd.rules.evaluating import first_length
from jaxgd.rules.rule import Rule, RuleSpec
from jaxgd.typed import Generic, Tree, V, finfo, tree_leaves, tree_map, value_and_grad, vmap

# The Wolfe conditions: C must fall by at least _DECREASE times the predicted decrease, and |slope| must be at most
# _SLOPE times its value at the start of the search.
_DECREASE, _SLOPE = 1e-4, 0.9
_TRIALS = 30
# A rise of C that counts as rounding, relative to |C|: up to 8 eps, or up to eps^⅔ if the largest
# |∂C/∂vᵢ| falls, because the terms of C may cancel.
_SLACK, _CANCELED = 8, 2 / 3
# A search ends before a step whose predicted decrease is below this fraction of the rounding error of C.
_HOPELESS = 1e-3
# While the interval has no upper end, the next t is at most this many times the last t.
_GROWTH = 10


class WolfeState(NamedTuple, Generic[V]):
    """The state of L-BFGS and its line search.

    A pair holds a step s and the change y of the gradient, as the unit vectors s/‖s‖ and y/‖y‖, so that no square
    leaves the range of the dtype. The newest pair is in row (known − 1) mod memory.

    Attributes:
        v: The variables before the last update.
        gradient: ∇C at `v`.
        value: C at the end of the last step.
        grad: ∇C at the end of the last step.
        s: The unit vectors of the steps: a tree like v with an axis of length memory in front of every leaf.
        y: The unit vectors of the changes of the gradient, like s.
        cosine: ⟨s, y⟩/(‖s‖‖y‖) of each pair.
        ratio: ‖s‖/‖y‖ of each pair.
        known: The number of pairs since the memory was last cleared; −1 after a failed search along −∇C.
        length: ‖Δv‖ of the last step that was not 0; 0 at first.
        evaluations: The number of trials in the last search. Each evaluates C and ∇C once.
    """

    v: V
    gradient: V
    value: Float[Array, ""]
    grad: V
    s: V
    y: V
    cosine: Float[Array, " memory"]
    ratio: Float[Array, " memory"]
    known: Int[Array, ""]
    length: Float[Array, ""]
    evaluations: Int[Array, ""]


def wolfe(memory: int = 10) -> Rule:
    """Make the rule of a line search for the strong Wolfe conditions, along the direction of L-BFGS or along −∇C.

    Δv = −η B∇C, with B the inverse Hessian estimated from the last `memory` steps. η satisfies
    C(v + Δv) ≤ C + c₁⟨∇C, Δv⟩ and |⟨∇C(v + Δv), Δv⟩| ≤ c₂|⟨∇C, Δv⟩|, with c₁ = 10⁻⁴ and c₂ = 0.9. The second
    condition keeps B positive definite.

    Rounding in C must not reject a step near a minimum. In place of the first condition, the search therefore also
    accepts C(v + Δv) ≤ C + 8 eps · |C| with ⟨∇C(v + Δv), Δv⟩ ≤ (1 − 2c₁)|⟨∇C, Δv⟩|. If the largest |∂C/∂vᵢ| falls, the
    search accepts a rise of C of up to eps^⅔ · |C|, because the terms of C may cancel. No step raises C by more than
    that.

    A search starts at η = 1. It makes at most 30 trials. It ends earlier if rounding hides the width of its interval,
    or the decrease that the next trial promises. If no trial meets both conditions, the rule takes the trial with the
    lowest C of those that meet the first condition. If no trial meets the first condition, Δv = 0, and the next search
    goes along −∇C. If that search fails too, Δv = 0 until v or ∇C changes. If the memory of steps is empty, the first
    trial has the length of the last step. Before the first step, this length is ‖v‖/10, or 1 for v = 0.

    With bounds, the trials are projected onto the box. The variables that a short step along −∇C would take to or
    beyond a bound move along −∇C, and B is restricted to the others. A trial beyond a bound needs to meet only the
    first condition.

    Args:
        memory: The number of steps that B uses, 0 to 10⁶; by default 10. With 0, B is the identity, so each search
            goes along −∇C. A new value recompiles.

    Returns:
        The rule. Its `update` needs `value=` and `value_fn=`. It cannot be unrolled by
        `minimize(..., differentiate="unroll")`.

    Raises:
        DtypeError: If memory is not a whole number.
        RangeError: If memory is below 0 or above 10⁶.

    Source: Nocedal and Wright, Numerical Optimization (2006), algorithms 3.5, 3.6 and 7.4; Hager and Zhang, SIAM J.
    Optim. 16 (2005) 170–192, for the condition near a minimum.

    Example:
        >>> from jaxgd import minimize
        >>> solution = minimize(lambda v: jnp.sum((v - 3) ** 2), jnp.zeros(2), wolfe(), max_steps=10)
        >>> print(solution.v.round(4))
        [3. 3.]
    """
    require_count("wolfe", "memory", memory, least=0, most=10**6)
    return Rule(_WOLFE, {}, memory=memory)


def _wolfe(memory: int) -> optax.GradientTransformationExtraArgs:
    def init(v: V) -> WolfeState[V]:
        zero, rows = jnp.zeros((), wide_dtype(v)), jnp.zeros(memory, wide_dtype(v))
        nothing = tree_map(jnp.zeros_like, v)
        pairs = tree_map(lambda x: jnp.zeros((memory, *x.shape), x.dtype), v)
        none = jnp.array(0)
        return WolfeState(v, nothing, zero + jnp.inf, nothing, pairs, pairs, rows, rows, none, zero, none)

    def step(
        g: V,
        state: WolfeState[V],
        v: V,
        *,
        value: ArrayLike,
        value_fn: Callable[[V], Array],
        grad: V | None = None,
        bounds: Bounds | None = None,
        **_: object,
    ) -> tuple[V, WolfeState[V]]:
        kind = state.value.dtype
        value = jnp.asarray(value, kind)
        # In a chain of optax, g may differ from ∇C. With bounds, g is the reduced gradient.
        grad = g if grad is None else grad
        kept = g if bounds is None else grad
        stuck = (state.known < 0) & ~any_nonzero((subtract(v, state.v), subtract(kept, state.gradient)))
        state = state._replace(known=jnp.maximum(state.known, 0))
        state = _with_pair(state, v, kept, memory)
        grad = reduced(bounds, v, grad)
        unit, length = unit_vector(g, kind)
        first = jnp.where(state.length > 0, state.length, first_length(v)).astype(kind)
        down = scaled(-first, unit)
        direction, slope, use_quasi = down, dot(grad, down).astype(kind), jnp.array(False)
        short = None if bounds is None else grad
        if memory:
            mask = None
            if bounds is None:
                quasi = scaled(-length, _two_loops(state, unit, memory))
            else:
                quasi, mask = _bounded_direction(bounds, state, v, g, unit, length, memory)
            quasi_slope = dot(grad, quasi).astype(kind)
            use_quasi = (state.known > 0) & (quasi_slope < 0)
            direction = _chosen(use_quasi, quasi, down)
            slope = jnp.where(use_quasi, quasi_slope, slope)
            if bounds is not None:
                short = tree_map(lambda x, m: jnp.where(m & use_quasi, 0, x), grad, mask)
        most = jnp.where(stuck, 0, _TRIALS)
        t, c, gradient, trials = _search(value_fn, v, direction, slope, value, grad, most, bounds, short)
        steps = scaled(t, direction)
        if bounds is None:
            moved = (t * norm(direction)).astype(kind)
        else:
            moved = norm(subtract(project(bounds, axpy(1, steps, v)), v)).astype(kind)
        return steps, state._replace(
            v=v,
            gradient=kept,
            value=c,
            grad=gradient,
            known=jnp.where(t > 0, state.known, jnp.where(use_quasi, 0, -1)),
            length=jnp.where(moved > 0, moved, state.length),
            evaluations=trials,
        )

    return optax.GradientTransformationExtraArgs(init, step)


def _with_pair(state: WolfeState[V], v: V, g: V, memory: int) -> WolfeState[V]:
    """Add the pair of the last step if the curvature along the step is positive, and return the state."""
    if not memory:
        return state
    kind = state.value.dtype
    s, s_length = unit_vector(subtract(v, state.v), kind)
    y, y_length = unit_vector(subtract(g, state.gradient), kind)
    cosine = dot(s, y).astype(kind)
    curved = (s_length > 0) & (cosine > 10 * finfo(kind).eps)
    row = state.known % memory

    pairs = (state.s, state.y, state.cosine, state.ratio)
    pair = (s, y, cosine, s_length / jnp.where(y_length > 0, y_length, 1))
    s, y, cosine, ratio = tree_map(lambda xs, x: xs.at[row].set(jnp.where(curved, x, xs[row])), pairs, pair)
    return state._replace(s=s, y=y, cosine=cosine, ratio=ratio, known=state.known + curved)


def _bounded_direction(
    bounds: Bounds, state: WolfeState[V], v: V, g: V, unit: V, length: Array, memory: int
) -> tuple[V, V]:
    """Return a direction, and the mask of the variables that move by L-BFGS.

    The variables that a short step along −g takes to or beyond a bound move along −g. The pairs are restricted to the
    other variables.
    """
    row = (state.known - 1) % memory
    step = scaled(-length * state.cosine[row] * state.ratio[row], unit)
    mask = tree_map(jnp.logical_and, free(bounds, v, g), inside(bounds, axpy(1, step, v)))
    return scaled(-length, _two_loops(_restricted(state, mask), unit, memory)), mask


def _restricted(state: WolfeState[V], mask: V) -> WolfeState[V]:
    """Return the state with its pairs restricted to the variables of the mask.

    A pair without positive curvature in these variables becomes 0.
    """
    kind = state.value.dtype

    def pair(s: V, y: V, ratio: Array) -> tuple[V, V, Array, Array]:
        # s and y were unit vectors, so squares that underflow are negligible.
        s, y = masked(mask, s), masked(mask, y)
        s_length, y_length = (jnp.sqrt(dot(u, u)).astype(kind) for u in (s, y))
        product = dot(s, y).astype(kind)
        curved = product > 10 * finfo(kind).eps * s_length * y_length
        # The two loops need a unit vector y, but s of any length.
        length = jnp.where(curved, y_length, 1)
        s, y = scaled(jnp.where(curved, 1.0, 0), s), scaled(jnp.where(curved, 1 / length, 0), y)
        return s, y, jnp.where(curved, product / length, 1), ratio / length

    s, y, cosine, ratio = vmap(pair)(state.s, state.y, state.ratio)
    return state._replace(s=s, y=y, cosine=cosine, ratio=ratio)


def _two_loops(state: WolfeState[V], q: V, memory: int) -> V:
    """Return B q, by the two loops of L-BFGS over the pairs: from the newest to the oldest, and back."""
    n = jnp.minimum(state.known, memory)

    def pair(i: ArrayLike) -> tuple[V, V, Array, Array]:
        row = (state.known - 1 - i) % memory
        return tree_map(lambda xs: xs[row], (state.s, state.y, state.cosine, state.ratio))

    def back(i: Array, carry: tuple[V, Array]) -> tuple[V, Array]:
        q, alphas = carry
        s, y, cosine, _ = pair(i)
        alpha = (dot(s, q) / cosine).astype(cosine.dtype)
        return axpy(-alpha, y, q), alphas.at[i].set(alpha)

    def forth(j: Array, r: V) -> V:
        i = n - 1 - j
        s, y, cosine, ratio = pair(i)
        beta = (dot(y, r) / cosine).astype(cosine.dtype)
        return axpy(alphas[i] * ratio - beta, s, r)

    q, alphas = control.fori_loop(0, n, back, (q, jnp.zeros_like(state.ratio)))
    _, _, cosine, ratio = pair(0)
    product: V = control.fori_loop(0, n, forth, scaled(cosine * ratio, q))
    return product


class _Trial(NamedTuple):
    """A trial t, with the change of C and the slope of C at t, both divided by the |slope| at t = 0."""

    t: Array
    change: Array
    slope: Array


class _Searching(NamedTuple, Generic[V]):
    low: _Trial  # the best trial so far: the lowest that meets the first condition, or the latest within rounding
    high: _Trial  # the other end of the interval; t = ∞ while this end is unknown
    t: Array  # the next trial
    best: tuple[Array, V]  # C and ∇C at `low`
    trials: Array
    done: Array


def _search(
    cost: Callable[[V], Array],
    v: V,
    direction: V,
    slope: Array,
    value: Array,
    gradient: V,
    most: Array,
    bounds: Bounds | None = None,
    short: V | None = None,
) -> tuple[Array, Array, V, Array]:
    """Make at most `most` trials. Return t ≥ 0, C and ∇C at v + t · direction, and the number of trials.

    If the search fails, t is 0. With bounds, the trials are projected. A trial beyond a bound needs to meet only the
    first condition, because the projected C has a kink at the bound. `short` is the gradient of the variables that
    move along −∇C, and 0 for the others. `slope` is the slope of C over all variables.
    """
    kind = value.dtype
    size = jnp.where(slope < 0, -slope, 1)
    eps = finfo(kind).eps
    rounding = eps * jnp.abs(value) / size
    largest = _largest(gradient)
    rest = slope if short is None else slope - dot(short, direction).astype(kind)

    def more(s: _Searching[V]) -> Array:
        return ~s.done & (s.trials < most)

    def at(point: V) -> Array:
        return jnp.asarray(cost(point), kind)

    def trial(s: _Searching[V]) -> _Searching[V]:
        x = axpy(s.t, direction, v)
        point = project(bounds, x)
        c, g = value_and_grad(at)(point)
        inner, expected = g, s.t
        if bounds is not None:
            # A variable that has reached its bound no longer moves.
            inner = masked(tree_map(jnp.equal, x, point), reduced(bounds, point, g))
            expected = -predicted(bounds, v, rest, short, s.t, point) / size
        new = _Trial(s.t, (c - value) / size, dot(inner, direction).astype(kind) / size)
        near = (new.change <= _SLACK * rounding) & (new.slope <= 1 - 2 * _DECREASE)
        near |= (new.change <= eps**_CANCELED / eps * rounding) & (_largest(inner) < largest)
        falls = (new.change <= -_DECREASE * expected) | near
        worse = ~(falls & ((new.change < s.low.change) | (s.low.t == 0) | near))
        done = ~worse & (jnp.abs(new.slope) <= _SLOPE)
        if bounds is not None:
            done |= ~worse & any_nonzero(subtract(x, point))
        # Choose `high` so that C falls from `low` into the interval.
        swaps = ~worse & (new.slope * (s.high.t - s.t) >= 0)
        low = _chosen(worse, s.low, new)
        high = _chosen(worse, new, _chosen(swaps, s.low, s.high))
        best = _chosen(worse, s.best, (c, g))
        narrow = jnp.abs(high.t - low.t) <= eps * jnp.maximum(high.t, low.t)
        t = _next(low, high, s.low)
        done |= ~(slope < 0) | (narrow & jnp.isfinite(high.t)) | (t <= _HOPELESS * rounding)
        return _Searching(low, high, t, best, s.trials + 1, done)

    zero = jnp.zeros((), kind)
    start = _Trial(zero, zero, zero - 1)
    unknown = _Trial(zero + jnp.inf, zero, zero)
    s = control.while_loop(
        more, trial, _Searching(start, unknown, zero + 1, (value, gradient), jnp.array(0), jnp.array(False))
    )
    return s.low.t, *s.best, s.trials


def _largest(g: Tree) -> Array:
    """Return the largest |∂C/∂vᵢ|."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in tree_leaves(g) if x.size]))


def _chosen(condition: Array, x: V, y: V) -> V:
    return tree_map(lambda x, y: jnp.where(condition, x, y), x, y)


def _next(low: _Trial, high: _Trial, before: _Trial) -> Array:
    """Return the next t: the minimum of the cubic through two trials, kept away from both ends of the interval.

    While `high` is unknown, the next t is 2 to 10 times the t of `low`.
    """
    open_end = jnp.isinf(high.t)
    # While `high` is unknown, extrapolate from `low` and the `low` before it.
    other = _chosen(open_end, before, high)
    width = other.t - low.t
    a = low.slope + other.slope - 3 * (other.change - low.change) / width
    root = jnp.sqrt(jnp.maximum(a**2 - low.slope * other.slope, 0)) * jnp.sign(width)
    cubic = low.t + width * (root - low.slope + a) / (other.slope - low.slope + 2 * root)
    cubic = jnp.where(jnp.isfinite(cubic), cubic, low.t)
    # A trial that is not finite shows only that the interval is far too long.
    inside = jnp.where(jnp.isfinite(high.change), cubic, low.t)
    ends = low.t + jnp.array([0.1, 0.9], low.t.dtype) * (high.t - low.t)
    inside = jnp.clip(inside, jnp.min(ends), jnp.max(ends))
    return jnp.where(open_end, jnp.clip(cubic, 2 * low.t, _GROWTH * low.t), inside)


_WOLFE = RuleSpec("wolfe", _wolfe, unrolls=False, uses_cost=True, caches_value=True)
