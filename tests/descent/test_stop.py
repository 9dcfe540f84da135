"""Each stopping test ends a run at the first step that meets its formula. A disabled test ends no run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from costs import in_numpy, powell_singular, rosenbrock, valley
from support import often

from jaxgd import Record, Stop, backtracking, fixed_length, gradient_descent, minimize, newton

START = np.array([1.0, 1.0])


def run(stop, eta=0.1, max_steps=400, v0=START, cost=valley):
    rule = gradient_descent(eta)
    solution = minimize(cost, v0, rule, max_steps=max_steps, stop=stop, record=Record(every=1))
    return solution, jax.tree.map(np.asarray, solution.trajectory)


QUIET = {"diverging": None, "stalled": False}


def test_gradient_test_stops_at_the_first_small_gradient(x64):
    solution, path = run(Stop(gradient_atol=1e-3, gradient_rtol=1e-3, **QUIET))
    met = path.gradient_norm <= 1e-3 + 1e-3 * path.gradient_norm[0]
    assert solution.outcome.reason.name == "GRADIENT"
    assert np.argmax(met) == len(met) - 1 == solution.steps


def counting(cost):
    """Return the cost, and a list that grows by one at each evaluation of C.

    The list does not count evaluations that the compiler removes because their value is unused.
    """
    calls = []

    def count(c):
        zero = jax.pure_callback(lambda c: (calls.append(1), np.int32(0))[1], jax.ShapeDtypeStruct((), np.int32), c)
        return c + zero.astype(c.dtype)

    @jax.custom_jvp
    def counted(v):
        return count(cost(v))

    @counted.defjvp
    def _(primals, tangents):
        c, dc = jax.jvp(cost, primals, tangents)
        return count(c), dc

    return counted, calls


# Each row: the stop, the record and the number of evaluations of C. None means one at the start and one per update.
# With a gradient test alone, C is evaluated at the start, after the first update and at the end.
EVALUATED = {
    "gradient": (Stop(gradient_rtol=1e-4, **QUIET), None, 3),
    "diverging": (Stop(gradient_rtol=1e-4, stalled=False), None, None),
    "cost": (Stop(gradient_rtol=1e-4, cost=0.0, **QUIET), None, None),
    "decrease": (Stop(gradient_rtol=1e-4, decrease_atol=0.0, **QUIET), None, None),
    "recorded": (Stop(gradient_rtol=1e-4, **QUIET), Record(every=10), None),
    "no tests": (None, None, None),
}


@pytest.mark.parametrize("name", often(EVALUATED, ["gradient", "no tests"]))
def test_cost_is_evaluated_only_if_a_test_or_record_needs_it(name, x64):
    stop, record, expected = EVALUATED[name]
    cost, calls = counting(valley)
    rule = gradient_descent(0.1)
    solution = in_numpy(minimize(cost, START, rule, max_steps=100, stop=stop, record=record))
    plain = in_numpy(minimize(valley, START, rule, max_steps=100, stop=stop, record=record))
    assert len(calls) == (solution.steps + 1 if expected is None else expected)
    assert (solution.cost, solution.steps, solution.evaluations) == (valley(solution.v), plain.steps, plain.evaluations)


def test_a_gradient_test_alone_detects_values_that_are_not_finite(x64):
    def cliff(v):
        return jnp.sum(jnp.sqrt(v - 0.5))

    solution = minimize(
        cliff, START, gradient_descent(0.1), max_steps=100, stop=Stop(gradient_rtol=1e-4, **QUIET), record=None
    )
    assert solution.outcome.reason.name == "NOT_FINITE"
    assert solution.steps < 20

    # Each update doubles v and changes its sign. ‖∇C‖² overflows at step 512, while v and ∇C are still finite.
    solution = minimize(
        lambda v: jnp.sum(v**2), START, gradient_descent(1.5), max_steps=10_000,
        stop=Stop(gradient_rtol=1e-4, **QUIET), record=None,
    )  # fmt: skip
    assert solution.outcome.reason.name == "NOT_FINITE"
    assert solution.steps < 2000


@pytest.mark.slow
def test_a_gradient_test_in_a_batch_gives_the_same_outcomes_with_and_without_a_record(x64):
    starts = jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)))
    etas = jnp.linspace(1e-4, 1e-3, 20)

    def outcomes(stop, record):
        def one(v, eta):
            return minimize(rosenbrock, v, gradient_descent(eta), max_steps=3000, stop=stop, record=record)

        return in_numpy(jax.jit(jax.vmap(one))(starts, etas))

    quick = outcomes(Stop(gradient_rtol=1e-3, **QUIET), None)
    full = outcomes(Stop(gradient_rtol=1e-3, **QUIET), Record(every=1000))
    assert len(set(full.outcome.code.tolist())) >= 2
    np.testing.assert_array_equal(quick.outcome.code, full.outcome.code)
    np.testing.assert_array_equal(quick.steps, full.steps)
    well = np.isfinite(full.cost)
    np.testing.assert_allclose(quick.v[well], full.v[well], rtol=1e-12)
    np.testing.assert_allclose(quick.cost[well], full.cost[well], rtol=1e-12)


def test_step_test_stops_at_the_first_small_step(x64):
    solution, path = run(Stop(step_atol=0.1, step_rtol=0.1, **QUIET))
    v_norm = np.sqrt(path.cost)  # C of the valley is ‖v‖²
    met = path.step_norm <= 0.1 + 0.1 * v_norm
    # Without the relative tolerance, no step would be small enough.
    assert not (path.step_norm <= 0.1).any()
    assert solution.outcome.reason.name == "STEP"
    assert np.argmax(met) == len(met) - 1 == solution.steps


def test_cost_test_stops_at_the_first_cost_below_the_target(x64):
    solution, path = run(Stop(cost=1e-5, **QUIET))
    assert solution.outcome.reason.name == "COST"
    assert path.cost[-2] > 1e-5 >= path.cost[-1]
    exactly, _ = run(Stop(cost=float(path.cost[4]), **QUIET))
    assert exactly.steps == 4


def test_decrease_test_stops_at_the_first_small_change(x64):
    solution, path = run(Stop(decrease_atol=1e-7, decrease_rtol=1e-3, **QUIET))
    met = np.abs(path.actual) <= 1e-7 + 1e-3 * path.cost
    assert solution.outcome.reason.name == "DECREASE"
    assert np.argmax(met) == len(met) - 1 == solution.steps


def test_diverging_stops_at_the_first_cost_above_the_factor(x64):
    solution, path = run(Stop(diverging=1e3, stalled=False), eta=1.1)
    scale = max(path.cost[:2])
    assert solution.outcome.reason.name == "DIVERGING"
    assert path.cost[-2] <= 1e3 * scale < path.cost[-1]


def test_diverging_compares_with_the_larger_of_the_first_two_costs(x64):
    """C(v₀) is 5e-11 and C(v₁) is 0.46. Later costs of up to 2 do not count as divergence."""
    cost, v0 = lambda v: 1 - jnp.cos(v), jnp.array(1e-5)
    solution, path = run(Stop(stalled=False), eta=1e5, max_steps=50, v0=v0, cost=cost)
    assert solution.outcome.reason.name == "MAX_STEPS"
    assert path.cost[2:].max() > 1e6 * path.cost[0]


@pytest.mark.slow
def test_a_huge_but_falling_cost_does_not_diverge(x64):
    solution, _ = run(Stop(gradient_atol=1e90), v0=1e100 * START)
    assert solution.outcome.reason.name == "GRADIENT"


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=lambda d: d.__name__)
def test_steps_below_rounding_are_stalled(dtype):
    """v stays or alternates between neighboring floats. The run stalls, or the rounded gradient is 0."""
    v0 = jnp.asarray([1.5, -0.3, 2.2], dtype)

    def cost(v):
        return jnp.sum((v - jnp.asarray([0.1, 0.7, -1.3], dtype)) ** 2) + 1

    stop = Stop(gradient_rtol=1e-30)
    with pytest.warns(UserWarning, match="below the rounding"):
        solution = minimize(cost, v0, gradient_descent(0.03), max_steps=5000, stop=stop, record=None)
    assert solution.outcome.reason.name in ("STALLED", "GRADIENT")
    assert solution.steps < 5000


def test_a_far_too_small_eta_stalls_after_16_steps():
    v0 = jnp.array([-1.2, 1.0])
    solution = minimize(rosenbrock, v0, gradient_descent(1e-12), max_steps=10**6, record=None)
    assert (solution.outcome.reason.name, solution.steps) == ("STALLED", 16)


def test_rounding_is_relative_to_the_size_of_the_variables():
    """Float32 rounds numbers near 1e8 to multiples of 8, so a step of 1 does not move v."""
    v0 = jnp.full(2, 1e8, jnp.float32)
    solution = minimize(jnp.sum, v0, gradient_descent(1.0), max_steps=1000, stop=Stop(), record=None)
    assert (solution.outcome.reason.name, solution.steps) == ("STALLED", 16)


def test_a_cost_that_falls_with_every_step_is_not_stalled(x64):
    """v starts at 1e8, and each step moves it to the next smaller float. The step is below eps · |v|, but C falls."""
    solution = minimize(lambda v: v, jnp.array(1e8), gradient_descent(1.5e-8), max_steps=100, stop=Stop(), record=None)
    assert np.finfo(float).eps * 1e8 > 1.5e-8
    assert (solution.outcome.reason.name, float(solution.v)) == ("MAX_STEPS", 1e8 - 100 * 2**-26)


def test_stop_none_makes_all_updates():
    solution, _ = run(None, max_steps=300)
    assert (solution.steps, solution.outcome.reason.name) == (300, "COMPLETED")


def test_disabled_tests_do_not_end_a_run(x64):
    solution, _ = run(Stop(cost=-1.0, **QUIET), max_steps=300)
    assert (solution.steps, solution.outcome.reason.name) == (300, "MAX_STEPS")


@pytest.mark.slow
def test_a_rule_that_oscillates_runs_out_of_steps(x64):
    stop = Stop(gradient_rtol=1e-6, **QUIET)
    circling = minimize(valley, START, fixed_length(0.3), max_steps=300, stop=stop, record=None)
    assert circling.outcome.reason.name == "MAX_STEPS"


def test_the_default_tolerance_depends_on_the_dtype(x64):
    _, path = run("auto")
    assert path.gradient_norm[-1] <= np.finfo(float).eps ** 0.75 * path.gradient_norm[0] < path.gradient_norm[-2]


def zakharov(v):
    s = jnp.sum(0.5 * jnp.arange(1, 4) * v)
    return jnp.sum(v**2) + s**2 + s**4


@pytest.mark.parametrize("dtype", often([jnp.float32, jnp.float64], [jnp.float32]), ids=lambda d: d.__name__)
def test_a_small_gradient_far_from_a_minimum_does_not_stop_the_descent(dtype):
    """The far start has a large tolerance eps^¾ · ‖∇C(v₀)‖. Each batch element ends as a single run does."""
    with jax.enable_x64(dtype is jnp.float64):
        starts = jnp.array([[0.6, 0.7, 1.0], [600.0, 700.0, 1e4], [60.0, 70.0, 1e3]], dtype)
        run = lambda v: minimize(zakharov, v, backtracking(), max_steps=500, record=Record(every=5))  # noqa: E731
        near, far, _ = runs = [in_numpy(run(v)) for v in starts]
        batch = in_numpy(jax.vmap(run)(starts))
    for j, one in enumerate(runs):
        recorded = len(one.trajectory.cost)
        np.testing.assert_allclose(batch.trajectory.cost[j, :recorded], one.trajectory.cost, rtol=0.1)
        assert np.all(np.isnan(batch.trajectory.cost[j, recorded:]))
    assert near.outcome.reason.name == far.outcome.reason.name == "GRADIENT"
    assert np.linalg.norm(far.v) < 1e-2
    assert "(‖∇C‖ = " in far.outcome.message
    assert batch.outcome.code.tolist() == [one.outcome.code for one in runs]
    assert batch.steps.tolist() == [one.steps for one in runs]


def steep(v):
    return 1e8 * v[0] ** 2 + (v[1] - 3) ** 2


@jax.custom_jvp
def opaque(v):
    return steep(v)


@opaque.defjvp
def _(primals, tangents):
    """Compute the derivative of `steep` by a callback, which JAX cannot differentiate again."""
    (v,), (dv,) = primals, tangents
    slope = jax.pure_callback(lambda v: (np.array([2e8, 2]) * (np.asarray(v) - [0, 3])).astype(v.dtype), v, v)
    return steep(v), jnp.sum(slope * dv)


@pytest.mark.parametrize("cost", [pytest.param(steep, marks=pytest.mark.slow), opaque], ids=["exact", "quotients"])
def test_a_steep_variable_does_not_hide_a_flat_one(cost):
    """In float32, the derivative along the flat variable is below eps^¾ · ‖∇C(v₀)‖ from the start."""

    def run(x, stop):
        rule = gradient_descent(5e-9)
        return minimize(cost, jnp.array([1.0, x]), rule, max_steps=9, stop=stop, record=None)

    assert run(1.0, "auto").outcome.reason.name == "MAX_STEPS"
    assert run(3.0, "auto").outcome.ok
    assert run(1.0, Stop(gradient_atol=10.0)).outcome.ok  # The caller's tolerance alone decides.


@pytest.mark.parametrize("dtype", often([jnp.float32, jnp.float64], [jnp.float32]), ids=lambda d: d.__name__)
def test_a_saddle_that_a_symmetry_hides_is_not_ok(dtype):
    """C falls along (1, −1). If v[0] = v[1], ∇C and its Krylov space are multiples of (1, 1) and miss it."""

    def cost(v):
        return (v[0] + v[1] - 2) ** 2 - 0.1 * (v[0] - v[1]) ** 2 + (v[0] - v[1]) ** 4

    with jax.enable_x64(dtype is jnp.float64):
        saddle, minimum = (
            minimize(cost, jnp.asarray(v0, dtype), newton(), max_steps=100, record=None) for v0 in ([0, 0], [0, 0.5])
        )
    np.testing.assert_allclose(saddle.v, 1, rtol=1e-3)
    assert (saddle.outcome.ok, minimum.outcome.ok) == (False, True)


@pytest.mark.parametrize("dtype", often([jnp.float32, jnp.float64], [jnp.float32]), ids=lambda d: d.__name__)
def test_a_singular_minimum_is_confirmed(dtype):
    with jax.enable_x64(dtype is jnp.float64):
        v0 = jnp.array([3.0, -1.0, 0.0, 1.0], dtype)
        assert minimize(powell_singular, v0, newton(), max_steps=100, record=None).outcome.ok


def times_scale(v, scale):
    return jnp.sum(v * (v * scale))


@pytest.mark.parametrize("scale", often([1e-30, 1e-22, 1e-10, 1e10, 1e18, 1e30], [1e-22, 1e18]))
def test_squared_gradients_may_overflow_or_underflow(scale):
    """In float32 the run ends at the same update for every scale of C."""

    def steps(scale):
        rule = gradient_descent(0.1 / scale)
        return minimize(times_scale, START, rule, args=(scale,), max_steps=400, record=None).steps

    assert steps(scale) == steps(1.0) > 10


def test_an_infinite_gradient_stops_at_step_0():
    """At 0, √v is finite and its slope is infinite."""
    v0 = jnp.array([0.0, 1.0])
    solution = minimize(lambda v: jnp.sum(jnp.sqrt(v)), v0, gradient_descent(0.1), max_steps=10, record=None)
    assert (solution.outcome.reason.name, solution.steps) == ("START_NOT_FINITE", 0)


@pytest.mark.slow
def test_tolerances_may_be_traced(x64):
    def steps(rtol, cost):
        stop = Stop(gradient_rtol=rtol, cost=cost)
        return minimize(valley, START, gradient_descent(0.1), max_steps=100, stop=stop, record=None).steps

    batch = jax.jit(jax.vmap(steps))(jnp.array([1e-2, 1e-4, 1e-9]), jnp.array([0.0, 0.0, 0.5]))
    assert batch.tolist() == [steps(1e-2, 0.0), steps(1e-4, 0.0), steps(1e-9, 0.5)]
    assert len(set(batch.tolist())) == 3
