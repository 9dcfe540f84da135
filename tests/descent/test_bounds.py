"""Runs with bounds end at a minimum in the box, record projected steps and have derivatives. Bad bounds are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from costs import COSTS, beale, freudenstein_roth, in_numpy, powell_singular, rosenbrock, rosenbrock_gradient
from scipy.optimize import lsq_linear
from scipy.optimize import minimize as scipy_minimize
from support import often

from jaxgd import (
    Record,
    backtracking,
    gradient_descent,
    gradient_flow,
    heavy_ball,
    minimize,
    nesterov,
    newton,
    wolfe,
)
from jaxgd.errors import DtypeError, RangeError, ShapeError

INF = np.inf
EYE = np.eye(3)
CORNER = [1.0, 2.0, 3.0]
# In the case "kink", the path along −∇C bends at the bound v₁ = 1. C falls before the bend and rises after it.
KINK = np.diag([-3, 2.9, 1])
BENT = [[-1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]
# Each row: H and b of C = ½vᵀHv − bᵀv, the lower and upper bounds, the start, the expected end or None, and the reason
# for the stop.
DEGENERATE = {
    "v fixed by bounds": (-EYE, [-1, -2, -3], CORNER, CORNER, [9, 9, 9], CORNER, "GRADIENT"),
    "v₁ fixed": (EYE + 1, [0, 0, 0], [2, -9, -9], [2, 9, 9], [9, 9, 9], [2, -2 / 3, -2 / 3], "GRADIENT"),
    "gradient 0 on bounds": (EYE + 1, CORNER, [-0.5, -INF, -9], [9, 0.5, 9], [9, 9, 9], [-0.5, 0.5, 1.5], "GRADIENT"),
    "start on bounds, end off": (EYE, [0.5, -1, 1], [0, -4, 0], [3, 0, 1], [9, 9, -9], [0.5, -1, 1], "GRADIENT"),
    "start at the minimum": (EYE, [-1, -1, -1], [0, 0, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0], "GRADIENT"),
    "infinite bounds": (EYE + 1, CORNER, [-INF] * 3, [INF] * 3, [9, 9, 9], [-0.5, 0.5, 1.5], "GRADIENT"),
    "saddle": (np.diag([-1, 1, 1]), [0, 0, 0], [-1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0], "ZERO_GRADIENT"),
    "negative curvature": (BENT, [0, 3, 0], [-1] * 3, [3] * 3, [1, 0, 0], [3, 1.5, 0], "GRADIENT"),
    "kink": (KINK, [1, 1, 0], [-1, -9, -9], [1, 9, 9], [0, 0, 0], [1, 1 / 2.9, 0], "GRADIENT"),
    "lower above upper": (EYE, [0, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0], None, "BAD_RULE"),
    "NaN as a bound": (EYE, [0, 0, 0], [0, np.nan, 0], [1, 1, 1], [0, 0, 0], None, "BAD_RULE"),
}


def random_cases(count, n, hard):
    """Yield random rows in the format of DEGENERATE, with C = ½‖av − b‖² for a random `a`. SciPy finds the minima.

    If hard, every second `a` has columns of different scales, and H = aᵀa has condition numbers from 85 to 13,000.
    """
    rng = np.random.default_rng(0)
    for k in range(count):
        a = rng.normal(size=(n + (2 if hard else 9), n)) * np.geomspace(1, 20 if hard and k % 2 else 1, n)
        b = 3 * rng.normal(size=len(a))
        low, high = (sign * np.where(rng.random(n) < 0.2, INF, rng.exponential(0.5, n)) for sign in (-1, 1))
        v = lsq_linear(a, b, (low, high), method="bvls", tol=1e-14, max_iter=1000).x
        yield a.T @ a, a.T @ b, low, high, 2 * rng.normal(size=n), v, "GRADIENT"


def quadratic(v, h, b):
    return jnp.sum(v * jnp.sum(h * v[None], axis=-1)) / 2 - jnp.sum(b * v)


RULES = {
    "backtracking": lambda eta: backtracking(),
    "newton": lambda eta: newton(),
    "wolfe": lambda eta: wolfe(),
    "gradient_descent": gradient_descent,
    "heavy_ball": lambda eta: heavy_ball(eta, 0.9),
    "nesterov": lambda eta: nesterov(eta, 0.9),
    "gradient_flow": gradient_flow,
    "optax.sgd": lambda eta: optax.sgd(0.5 * eta, 0.9),
    "optax.lbfgs": lambda eta: optax.lbfgs(),
}


def runs(name, rows, dtype):
    """Run a rule on all rows as one batch."""
    h, b, low, high, v0 = (jnp.asarray(np.array(x), dtype) for x in zip(*[row[:5] for row in rows], strict=True))
    eta = 1 / jnp.linalg.norm(h, 2, axis=(1, 2))

    @jax.jit
    @jax.vmap
    def run(v0, low, high, eta, h, b):
        return minimize(quadratic, v0, RULES[name](eta), args=(h, b), bounds=(low, high), max_steps=20_000, record=None)

    return in_numpy(run(v0, low, high, eta, h, b))


@pytest.mark.parametrize("dtype", often([jnp.float32, jnp.float64], [jnp.float64]), ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", often(RULES, ["wolfe"]))
def test_quadratics_end_at_the_minimum_in_the_box(name, dtype):
    hard = name in ("newton", "wolfe", "backtracking") and dtype is jnp.float64
    rows = [*DEGENERATE.values(), *random_cases(200, 3, hard)]
    with jax.enable_x64(dtype is jnp.float64):
        end = runs(name, rows, dtype)
    if name == "wolfe" and dtype is jnp.float64:
        # If the L-BFGS pairs were not restricted to the free variables, the runs would need more evaluations.
        assert np.median(end.evaluations) <= 10
        # A line search that insists on the second Wolfe condition would make 30 trials.
        assert end.evaluations[[*DEGENERATE].index("kink")] <= 20
    given_up = 0
    for i, (_, _, low, high, _, want, reason) in enumerate(rows):
        case = f"case {i}: {[*DEGENERATE, *range(200)][i]}"
        got, outcome = end.v[i], end.at(i).outcome
        if name == "optax.lbfgs" and i >= len(DEGENERATE) and outcome.reason.name == "DIVERGING":
            given_up += 1
            continue
        if reason == "BAD_RULE" or dtype is jnp.float64:
            assert outcome.reason.name == reason, case
        if want is not None:
            np.testing.assert_allclose(got, want, atol=1e-7 if dtype is jnp.float64 else 1e-3, err_msg=case)
            low, high = np.asarray(low, dtype), np.asarray(high, dtype)
            assert np.all((low <= got) & (got <= high)), case
            if i >= len(DEGENERATE) and dtype is jnp.float64:
                expected = [np.abs(want - low) < 1e-9, np.abs(want - high) < 1e-9]
                np.testing.assert_array_equal([got == low, got == high], expected, err_msg=case)
    # optax's line search does not know the bounds, so up to two of the 200 random rows diverge.
    assert given_up <= 2


@pytest.mark.slow
@pytest.mark.parametrize("cost", [rosenbrock, beale, freudenstein_roth, powell_singular], ids=lambda c: c.__name__)
def test_classical_costs_agree_with_scipy(cost, x64):
    """The bounds exclude the unconstrained minimum, as in Conn, Gould and Toint, Math. Comput. 50 (1988) 399–430."""
    start = np.array(COSTS[cost][0])
    value_and_grad = jax.jit(jax.value_and_grad(cost))

    def evaluated(v):
        return tuple(map(np.asarray, value_and_grad(jnp.asarray(v))))

    tight = {"method": "L-BFGS-B", "jac": True, "options": {"ftol": 1e-16, "gtol": 1e-10}}
    low, high = np.full(len(start), -100.0), np.full(len(start), 100.0)
    low[::2] = scipy_minimize(evaluated, start, **tight).x[::2] + 0.1
    high[::2] = low[::2] + 1
    want = scipy_minimize(evaluated, start, bounds=np.stack([low, high], 1), **tight)
    for rule in (backtracking(), newton(), wolfe()):
        end = in_numpy(minimize(cost, start, rule, bounds=(low, high), max_steps=2_000, record=None))
        assert end.outcome.ok, rule
        assert end.cost <= want.fun * (1 + 1e-9), rule
        np.testing.assert_array_equal([end.v == low, end.v == high], [want.x == low, want.x == high])


def test_each_step_is_projected_and_recorded_and_a_run_continues_from_a_state(x64):
    low, high = np.array([-2.0, 0.2]), np.array([-0.5, INF])
    options = {"bounds": (low, high), "stop": None, "record": Record(v=True, every=1)}
    v, path, norms = np.array([-1.2, 0.2]), [], []
    for _ in range(8):
        g = np.asarray(rosenbrock_gradient(v))
        path.append(v)
        norms.append(np.linalg.norm(np.where((v <= low) & (g > 0) | (v >= high) & (g < 0), 0, g)))
        v = np.clip(v - 2e-3 * g, low, high)
    # minimize projects the start onto the bounds: v₂ = 0.1 becomes 0.2.
    whole = in_numpy(minimize(rosenbrock, jnp.array([-1.2, 0.1]), gradient_descent(2e-3), max_steps=7, **options))
    np.testing.assert_allclose(whole.trajectory.v, path, rtol=1e-12)
    np.testing.assert_allclose(whole.trajectory.gradient_norm, norms, rtol=1e-9)
    np.testing.assert_allclose(whole.gradient, rosenbrock_gradient(path[-1]), rtol=1e-9)
    steps = np.diff(path, axis=0)
    np.testing.assert_allclose(whole.trajectory.step_norm[1:], np.linalg.norm(steps, axis=1), rtol=1e-9)
    assert np.any(np.array(path) == high), "the path must touch an upper bound"
    first = minimize(rosenbrock, jnp.array([-1.2, 0.1]), gradient_descent(2e-3), max_steps=3, **options)
    rest = minimize(rosenbrock, None, gradient_descent(2e-3), max_steps=4, state=first.state, **options)
    np.testing.assert_array_equal(rest.v, whole.v)
    # v is projected onto new bounds, and a best_v outside them is replaced.
    far = first.state._replace(best_v=first.state.v - 9, best_cost=jnp.array(-1.0))
    for state, box in ((first.state, (0.0, 1.0)), (far, (-4.0, 4.0))):
        options["bounds"] = tuple(jnp.full(2, b) for b in box)
        moved = minimize(rosenbrock, None, gradient_descent(2e-3), max_steps=4, state=state, **options)
        seen = np.array([*moved.trajectory.v, moved.best_v])
        assert np.all((seen >= box[0]) & (seen <= box[1]))


@pytest.mark.slow
def test_implicit_derivatives_hold_the_variables_on_bounds(x64):
    """If v₁ is on its bound b, C = ½(v − a)ᵀH(v − a) has its minimum at v₂ = a₂ − H₂₁(b − a₁)/H₂₂."""
    h = jnp.array([[2.0, 1.0], [1.0, 3.0]])

    def end(a, low, stop="auto"):
        s = minimize(
            lambda v, a: quadratic(v - a, h, jnp.zeros(2)), jnp.zeros(2), gradient_descent(0.3), args=(a,),
            bounds=(low, INF), max_steps=400, record=None, stop=stop,
        )  # fmt: skip
        return jnp.stack([*s.v, s.cost])

    low, a = jnp.array([0.5, -9.0]), jnp.array([-1.0, 2.0])
    by_a, by_low = jax.jit(jax.jacrev(end, (0, 1)))(a, low)
    # The minimal C is ½(H₁₁ − H₁₂²/H₂₂)(b − a₁)².
    slope = (2 - 1 / 3) * 1.5
    np.testing.assert_allclose(by_a, [[0, 0], [1 / 3, 1], [-slope, 0]], atol=1e-9)
    np.testing.assert_allclose(by_low, [[1, 0], [-1 / 3, 0], [slope, 0]], atol=1e-9)


def test_unrolled_derivatives_pass_through_the_projection(x64):
    """v₁ reaches its bound and stays there, so its derivative is 0. v₂ reaches no bound, so its derivative is 0.8³."""

    def end(v0):
        return minimize(
            lambda v: jnp.sum(v**2), v0, gradient_descent(0.1), bounds=(jnp.array([2.0, -1.0]), None), max_steps=3,
            differentiate="unroll",
        ).v  # fmt: skip

    np.testing.assert_allclose(jax.jit(jax.jacfwd(end))(jnp.array([3.0, 1.0])), np.diag([0, 0.8**3]), rtol=1e-12)


BAD = {
    "a number": (3.0, DtypeError, "pair"),
    "three bounds": ((0.0, 1.0, 2.0), DtypeError, "pair"),
    "lower above upper": ((1.0, 0.0), RangeError, "lower ≤ upper"),
    "NaN": ((jnp.array([0.0, jnp.nan]), None), RangeError, "NaN"),
    "lower is ∞": ((jnp.inf, None), RangeError, "below ∞"),
    "lower of another structure": (({"a": jnp.zeros(2)}, None), ShapeError, "lower has another structure"),
    "upper of another shape": ((None, jnp.zeros(3)), ShapeError, r"upper has shape \(3,\)"),
    "complex": ((jnp.zeros(2, complex), None), DtypeError, "lower is complex"),
    "text": (("a", None), DtypeError, "lower is str"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_bounds_get_one_clear_error(name):
    bounds, error, words = BAD[name]
    with pytest.raises(error, match=words):
        minimize(rosenbrock, jnp.ones(2), gradient_descent(0.1), bounds=bounds, max_steps=1)
