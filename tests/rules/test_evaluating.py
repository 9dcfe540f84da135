"""Rules that evaluate the cost meet the conditions of their methods and count their evaluations.

The last sections test fixed length, momentum and schedules, and every rule as a pytree and an optax transformation.
"""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from costs import in_numpy, quadratic, rosenbrock, rosenbrock_along, valley
from support import often

from jaxgd import (
    Record,
    Rule,
    Stop,
    backtracking,
    fixed_length,
    gradient_descent,
    gradient_flow,
    heavy_ball,
    minimize,
    nesterov,
    newton,
    wolfe,
)
from jaxgd.rules.registry import RULES

START = np.array([-1.2, 1.0])


def counted(rule, cost=rosenbrock, v0=START, n=15):
    """Return the solution, and the number of costs, gradients and Hessian-vector products computed on the device."""
    calls = []

    def seen(v):
        jax.debug.callback(lambda: calls.append(None))
        return cost(v)

    solution = minimize(seen, v0, rule, max_steps=n, stop=None, record=None)
    jax.effects_barrier()
    return solution, len(calls)


@pytest.mark.parametrize(
    "rule",
    [gradient_descent(1e-3), backtracking(), newton(), gradient_flow(1e-4), wolfe()],
    ids=lambda r: r.spec.build.__name__,
)
def test_a_solution_counts_the_evaluations_on_the_device(rule, x64):
    solution, calls = counted(rule)
    assert solution.evaluations == calls


def test_evaluations_of_an_optax_line_search_are_counted(x64):
    """A trial of optax's search evaluates a value and a slope. It counts as one gradient, but runs 1 or 2 callbacks."""
    solution, calls = counted(optax.lbfgs())
    assert 0.4 * calls <= solution.evaluations <= 1.1 * calls


# Backtracking.


@pytest.mark.parametrize("memory", often([1, 3, 10], [3]))
def test_armijo_condition_holds_after_every_search(memory, x64):
    solution = minimize(rosenbrock, START, backtracking(memory), max_steps=40, record=Record(every=1))
    path = jax.tree.map(np.asarray, solution.trajectory)
    for k in range(1, len(path.cost)):
        reference = path.cost[max(0, k - memory) : k].max()
        eta = path.step_norm[k] / path.gradient_norm[k - 1]
        assert path.cost[k] <= reference - 1e-4 * eta * path.gradient_norm[k - 1] ** 2 * (1 - 1e-9)
    # With one cost in memory, C decreases at every step. With several costs, C may increase, and it does in these runs.
    assert np.all(np.diff(path.cost) < 0) == (memory == 1)


def test_the_second_search_starts_at_the_inverse_curvature(x64):
    """For ½ a v² the quotient of Barzilai and Borwein is 1/a, so two steps reach the minimum for every a."""
    cost = lambda v, a: a * v**2 / 2  # noqa: E731
    for a in (1e-3, 1.0, 1e6):
        solution = minimize(cost, 3.0, backtracking(), args=(a,), max_steps=2, stop=None, record=None)
        assert abs(solution.v) <= 1e-12


def test_a_search_does_not_move_along_a_wrong_gradient():
    """The gradient has the wrong sign.

    backtracking accepts only a rise hidden by rounding, and wolfe makes only one search.
    """

    @jax.custom_vjp
    def cost(v):
        return jnp.sum(v)

    cost.defvjp(lambda v: (cost(v), v), lambda v, g: (-g * jnp.ones_like(v),))
    solution = minimize(cost, jnp.ones(2), backtracking(), max_steps=100, record=None)
    np.testing.assert_allclose(solution.v, 1, rtol=1e-4)
    solution = minimize(cost, jnp.zeros(2), wolfe(), max_steps=100, record=None)
    assert not solution.v.any()
    assert solution.evaluations <= 31
    assert solution.outcome.reason.name == "STALLED"


# Wolfe.


@pytest.mark.parametrize("memory", often([0, 10], [10]))
def test_the_steps_of_wolfe_meet_the_wolfe_conditions(memory, x64):
    record = Record(v=True, every=1)
    path = in_numpy(minimize(rosenbrock, START, wolfe(memory), max_steps=20, stop=None, record=record).trajectory)
    g = np.asarray(rosenbrock_along(path.v)[1])
    step = np.diff(path.v, axis=0)
    slope, after = np.sum(g[:-1] * step, 1), np.sum(g[1:] * step, 1)
    assert np.all(path.cost[1:] <= path.cost[:-1] + 1e-4 * slope + 1e-12)
    assert np.all(np.abs(after) <= 0.9 * np.abs(slope) + 1e-12)


@pytest.mark.parametrize("dtype", often([jnp.float32, jnp.float64], [jnp.float32]), ids=lambda d: d.__name__)
def test_no_step_of_wolfe_raises_the_cost_beyond_rounding(dtype):
    """At a kink, no step meets the curvature condition, so the run ends at max_steps. At a smooth minimum it stalls."""
    with jax.enable_x64(dtype is jnp.float64):
        for cost, last in (
            (lambda v: jnp.sum(jnp.abs(v)), "MAX_STEPS"),
            (lambda v: jnp.sum(jnp.cosh(v - 2)) + 5, "STALLED"),
        ):
            s = in_numpy(minimize(cost, jnp.array([1.0, 0.3], dtype), wolfe(), max_steps=200, stop=Stop()))
            c = s.trajectory.cost
            allowed = 8 * jnp.finfo(dtype).eps if last == "MAX_STEPS" else jnp.finfo(dtype).eps ** (2 / 3)
            assert np.all(np.diff(c) <= allowed * np.abs(c[:-1]))
            assert s.best_cost <= np.min(c)
            assert s.outcome.reason.name == last
            assert "eta" not in s.outcome.message


@pytest.mark.slow
def test_compilations_do_not_grow_with_max_steps():
    traces = []

    def cost(v):
        traces.append(v)
        return rosenbrock(v)

    for rule in (backtracking, newton):
        counts = []
        for n in (3, 30):
            before = len(traces)
            minimize(cost, START, rule(), max_steps=n, record=None)
            counts.append(len(traces) - before)
        assert counts[1] < counts[0]


# Newton.


def test_newton_solves_a_quadratic_in_few_steps(seed, x64):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(6, 6))
    a = jnp.asarray(a @ a.T + np.eye(6))
    b = jnp.asarray(rng.normal(size=6))
    solution = minimize(
        lambda v, a, b: jnp.vdot(v, a @ v) / 2 - jnp.vdot(b, v),
        jnp.zeros(6),
        newton(),
        args=(a, b),
        max_steps=20,
        stop=Stop(gradient_rtol=1e-10),
        record=None,
    )
    np.testing.assert_allclose(solution.v, np.linalg.solve(a, b), rtol=1e-8)
    assert solution.steps <= 8


def test_newton_converges_quadratically(x64):
    path = minimize(rosenbrock, START, newton(), max_steps=60, stop=Stop(gradient_atol=1e-12)).trajectory
    tail = np.asarray(path.gradient_norm)[-4:]
    assert tail[-1] < 1e-3 * tail[-2]


def test_newton_moves_past_0_if_the_cost_has_no_curvature():
    assert minimize(lambda v: jnp.abs(v + 5), 1.0, newton(), max_steps=100, record=None).cost < 1e-5


@pytest.mark.parametrize("v0", often([(0.1, 0.0), (1e-6, 1e-3), (-0.5, 2.0)], [(1e-6, 1e-3)]))
def test_newton_descends_at_an_indefinite_hessian(v0, x64):
    """C = (v₁² − 1)² + v₂² has a saddle at 0, which attracts Newton's method without damping."""
    cost = lambda v: (v[0] ** 2 - 1) ** 2 + v[1] ** 2  # noqa: E731
    solution = minimize(cost, jnp.array(v0), newton(), max_steps=100, record=Record(every=1))
    assert solution.cost < 1e-12
    assert np.all(np.diff(solution.trajectory.cost) <= 1e-12)


def test_newton_limits_its_products(x64):
    """Without the limit, six steps make 118 evaluations."""
    d = jnp.asarray(np.linspace(1, 1e4, 200))
    cost = lambda v: jnp.sum(d * v**2) / 2  # noqa: E731
    solution = minimize(cost, jnp.ones(200), newton(max_products=3), max_steps=6, stop=None, record=None)
    assert solution.evaluations <= 1 + 6 * (3 + 1 + 1)


# Scale.


def spring(w, scale, unit):
    """Return a cost with its minimum at w = 3 · unit."""
    v = w / unit
    return scale * ((v[0] - 3) ** 2 + 2 * (v[1] - 3) ** 2 + (v[1] - 3) ** 4)


def spring_runs(rule):
    """Return a function of scales, units and a start. It minimizes `spring` for each pair of a scale and a unit."""

    def run(scale, unit, start):
        return minimize(spring, start * unit, rule, args=(scale, unit), max_steps=500, record=None)

    return jax.jit(jax.vmap(run, (0, 0, None)))


SCALED = [backtracking(), wolfe(), newton()]


@pytest.mark.parametrize("dtype", often([jnp.float32, jnp.float64], [jnp.float32]), ids=lambda d: d.__name__)
@pytest.mark.parametrize("rule", often(SCALED, SCALED[1:2]), ids=lambda r: r.spec.name)
def test_a_scale_of_the_cost_or_of_v_only_scales_the_run(rule, dtype):
    """A product with a power of two is exact, so every number of the run is scaled exactly."""
    powers = np.array([-66, -30, 0, 30, 66] if dtype is jnp.float32 else [-498, -100, 0, 100, 498])
    with jax.enable_x64(dtype is jnp.float64):
        one, scales, units = (jnp.asarray(2.0**x, dtype) for x in (0 * powers, powers, (powers / 4).round()))
        runs = spring_runs(rule)
        by_scale, by_unit = map(
            in_numpy, (runs(scales, one, jnp.zeros(2, dtype)), runs(one, units, jnp.ones(2, dtype)))
        )
    for batch in (by_scale, by_unit):
        assert batch.outcome.ok.all()
        assert len(set(batch.steps.tolist())) == 1
        assert len(set(batch.evaluations.tolist())) == 1
    np.testing.assert_allclose(by_scale.v, 3, rtol=1e-4)
    np.testing.assert_allclose(by_unit.v / np.asarray(units)[:, None], 3, rtol=1e-4)


# Gradient flow.


@pytest.mark.parametrize("dt", [0.1, 0.05])
def test_gradient_flow_has_fourth_order(dt, x64):
    """For ½ vᵀAv the path is exp(−At) v₀.

    The error of one step is at most (λdt)⁵/120 · ‖v‖, where λ is the largest eigenvalue of A.
    """
    a, v0, n = np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([1.0, -2.0]), round(1 / dt)
    values, vectors = np.linalg.eigh(a)
    exact = vectors @ (np.exp(-values) * (vectors.T @ v0))
    flow, descent = (
        np.asarray(minimize(quadratic, v0, rule(dt), args=(a,), max_steps=n, stop=None, record=None).v)
        for rule in (gradient_flow, gradient_descent)
    )
    assert np.linalg.norm(flow - exact) < n * (3.7 * dt) ** 5 / 120
    assert np.linalg.norm(descent - exact) > 100 * np.linalg.norm(flow - exact)


# Fixed length, momentum and schedules.


def test_fixed_length_moves_by_epsilon_along_the_negative_gradient(x64):
    path = in_numpy(minimize(rosenbrock, START, fixed_length(0.01), max_steps=50, stop=None).trajectory)
    np.testing.assert_allclose(path.step_norm[1:], 0.01, rtol=1e-12)
    # Along −∇C the predicted change is −ε‖∇C‖.
    np.testing.assert_allclose(path.predicted[1:], -0.01 * path.gradient_norm[:-1], rtol=1e-12)


def test_fixed_length_does_not_move_at_a_zero_gradient():
    step, _ = fixed_length(0.1).update(jnp.zeros(2), optax.EmptyState())
    assert step.tolist() == [0, 0]


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e30])
def test_fixed_length_is_accurate_for_tiny_and_huge_gradients(scale):
    step, _ = fixed_length(0.5).update(scale * jnp.array([3.0, 4.0]), optax.EmptyState())
    np.testing.assert_allclose(step, [-0.3, -0.4], rtol=1e-5)
    # The quotient ε/‖∇C‖ overflows for the smallest of these gradients.
    step, _ = fixed_length(1e3).update(scale * jnp.array([3.0, 4.0]), optax.EmptyState())
    np.testing.assert_allclose(step, [-600, -800], rtol=1e-5)


def test_momentum_equals_optax_momentum(x64):
    g = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)))
    for ours, theirs in (
        (heavy_ball(0.1, 0.9), optax.sgd(0.1, 0.9)),
        (nesterov(0.1, 0.9), optax.sgd(0.1, 0.9, nesterov=True)),
    ):
        steps = []
        for rule in (ours, theirs):

            @jax.jit
            def scanned(g, rule=rule):
                return jax.lax.scan(lambda state, x: rule.update(x, state)[::-1], rule.init(g[0]), g)[1]

            steps.append(scanned(g))
        np.testing.assert_allclose(*steps, rtol=1e-12)


def test_momentum_0_is_gradient_descent(x64):
    rules = gradient_descent(1e-3), heavy_ball(1e-3, 0.0)
    states = [rule.init(jnp.zeros(3)) for rule in rules]
    for g in map(jnp.asarray, np.random.default_rng(0).normal(size=(5, 3))):
        (u, states[0]), (w, states[1]) = (rule.update(g, s) for rule, s in zip(rules, states, strict=True))
        np.testing.assert_array_equal(u, w)


def test_a_schedule_receives_the_number_of_updates(x64):
    etas = np.array([0.1, 0.3, 0.05])
    rule = gradient_descent(lambda k: jnp.asarray(etas)[k])
    solution = minimize(valley, jnp.array([1.0, 2.0]), rule, max_steps=3, stop=None, record=None)
    np.testing.assert_allclose(solution.v, np.prod(1 - 2 * etas) * np.array([1.0, 2.0]), rtol=1e-12)


# Rules as pytrees and as optax transformations.


MADE = [entry.load()(**{h.name: h.default for h in entry.hyperparams}) for entry in RULES.values()]


@pytest.mark.parametrize("rule", MADE, ids=lambda r: r.spec.name)
def test_a_rule_is_a_pytree_and_an_optax_transformation(rule):
    leaves, structure = jax.tree.flatten(rule)
    again = jax.tree.unflatten(structure, leaves)
    assert isinstance(again, Rule)
    assert isinstance(again, optax.GradientTransformationExtraArgs)
    assert jax.tree.structure(again) == structure
    pickled = pickle.loads(pickle.dumps(rule))
    assert jax.tree.flatten(pickled) == (leaves, structure)  # equal structures share a compiled program
    assert (type(pickled), repr(pickled)) == (Rule, repr(rule))
    init, update = rule
    assert callable(init)
    assert callable(update)
    assert bool(rule.valid)


def test_a_rule_chains_with_optax_transformations(x64):
    rule = optax.chain(optax.clip_by_global_norm(1.0), gradient_descent(0.1))
    solution = minimize(valley, jnp.array([30.0, 40.0]), rule, max_steps=1, stop=None, record=None)
    np.testing.assert_allclose(solution.v, np.array([30.0, 40.0]) - 0.1 * np.array([0.6, 0.8]), rtol=1e-12)


@pytest.mark.parametrize(
    ("eta", "mu", "valid"), [(0.1, 0.5, True), (0.0, 0.5, False), (0.1, 1.0, False), (0.1, jnp.nan, False)]
)
def test_a_rule_is_valid_only_if_its_traced_parameters_are_in_range(eta, mu, valid):
    assert bool(jax.jit(lambda eta, mu: heavy_ball(eta, mu).valid)(eta, mu)) is valid
