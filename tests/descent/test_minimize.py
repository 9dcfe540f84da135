"""minimize reproduces closed forms and reference costs, runs in batches, returns aux, and keeps dtypes and trees."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from costs import COSTS, in_numpy, powell_singular, quadratic, rosenbrock, valley
from hypothesis import given
from hypothesis import strategies as st
from support import often

from jaxgd import (
    Record,
    Stop,
    backtracking,
    gradient_descent,
    minimize,
    newton,
    wolfe,
)
from jaxgd.errors import DtypeError, ShapeError

START = (-1.2, 1.0)


def spectrum(rng, n, least=1.0, most=50.0):
    """Return a symmetric n×n matrix with eigenvalues from `least` to `most`, and return `most`."""
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    values = np.sort(rng.uniform(least, most, n))
    values[-1], values[0] = most, least
    return q * values @ q.T, most


# Closed forms.


@given(eta=st.floats(0.01, 0.99), start=st.tuples(*[st.floats(-5, 5)] * 2))
def test_the_valley_follows_the_closed_form(eta, start):
    """v_k = (1 − 2η)ᵏ v₀. Each of the 40 steps has a relative rounding error of at most 2 eps/|1 − 2η|."""
    with jax.enable_x64(True):
        v0 = jnp.array(start)
        solution = minimize(valley, v0, gradient_descent(eta), max_steps=40, stop=None, record=Record(v=True))
    k, eps, ratio = np.arange(41)[:, None], np.finfo(float).eps, 1 - 2 * eta
    rtol = 40 * 2 * eps / max(abs(ratio), eps)
    np.testing.assert_allclose(solution.trajectory.v, ratio**k * np.array(start), rtol=rtol, atol=1e-300)
    assert solution.outcome.reason.name == "COMPLETED"


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_quadratic_follows_the_closed_form(n, seed, x64):
    """v_k = (I − ηA)ᵏ v₀ for a random A. The rounding error of 30 steps is at most 1e-13 ‖v₀‖."""
    rng = np.random.default_rng(seed)
    a, most = spectrum(rng, n)
    v0, eta = rng.normal(size=n), 1.5 / most
    solution = minimize(
        quadratic, v0, gradient_descent(eta), args=(jnp.asarray(a),), max_steps=30, stop=None, record=None
    )
    expected = np.linalg.matrix_power(np.eye(n) - eta * a, 30) @ v0
    np.testing.assert_allclose(solution.v, expected, rtol=0, atol=1e-13 * np.linalg.norm(v0))


# C after k updates of gradient descent on Rosenbrock's function from START, for each (η, k).
FIGURES = {
    (1e-3, 100): 3.801889,
    (1e-3, 1_000): 0.4535290,
    (1e-3, 10_000): 5.85276e-5,
    (1.5e-3, 100): 3.592588,
    (1.5e-3, 1_000): 0.1576532,
    (1.5e-3, 10_000): 1.04354e-6,
}


@pytest.mark.parametrize(("eta", "k"), FIGURES)
def test_rosenbrock_reaches_the_reference_costs(eta, k, x64):
    solution = minimize(rosenbrock, jnp.array(START), gradient_descent(eta), max_steps=k, stop=None, record=None)
    assert solution.cost == pytest.approx(FIGURES[eta, k], rel=5e-6)  # the values in FIGURES have six digits
    assert (solution.steps, solution.evaluations) == (k, k + 1)


def test_the_first_step_on_rosenbrock_is_exact(x64):
    solution = minimize(rosenbrock, jnp.array(START), gradient_descent(1e-3), max_steps=1)
    np.testing.assert_allclose(solution.v, [-0.9844, 1.088], rtol=1e-12)
    np.testing.assert_allclose(solution.trajectory.predicted[1], -1e-3 * (215.6**2 + 88**2), rtol=1e-12)


@pytest.mark.parametrize("cost", often(COSTS, [powell_singular]), ids=lambda cost: cost.__name__)
@pytest.mark.parametrize("rule", often([backtracking, wolfe, newton], [wolfe]), ids=lambda rule: rule.__name__)
def test_each_rule_reaches_a_minimum_of_each_named_cost(cost, rule, x64):
    """The lowest C is within 1e-8 of C at a minimum, after at most 5,000 evaluations."""
    start, first, minima = COSTS[cost]
    v0 = jnp.array(start)
    assert cost(v0) == pytest.approx(first, rel=1e-12)
    solution = minimize(cost, v0, rule(), max_steps=2000, stop=Stop(gradient_atol=1e-7, cost=1e-8))
    assert min(abs(solution.best_cost - minimum) for minimum in minima) < 1e-8
    assert solution.evaluations <= 5000


@pytest.mark.slow
def test_both_minima_of_freudenstein_and_roth_are_found(x64):
    (cost,) = (cost for cost in COSTS if cost.__name__ == "freudenstein_roth")
    found = {
        float(minimize(cost, jnp.array(v0), newton(), max_steps=500).cost.round(3)) for v0 in ((0.5, -2.0), (6.0, 5.0))
    }
    assert found == {0.0, 48.984}


# Batches.


@pytest.mark.slow
def test_a_batch_converges_below_the_edge_of_stability_and_diverges_above(seed, x64):
    """Half of the η are 1% below 2/λ_max, the others 1% above.

    Every 97th element equals a single run up to rounding. A batch in another order gives the same bits.
    """
    rng = np.random.default_rng(seed)
    many, n = 1000, 4
    a = np.stack([spectrum(rng, n, 1.0, 20.0)[0] for _ in range(many)])
    below = np.arange(many) % 2 == 0
    eta = jnp.asarray(np.where(below, 0.99, 1.01) * 2 / 20.0)
    v0 = jnp.asarray(rng.normal(size=(many, n)))

    def run(v0, eta, a):
        return minimize(quadratic, v0, gradient_descent(eta), args=(a,), max_steps=5000, record=None)

    batched = jax.jit(jax.vmap(run))
    batch = in_numpy(batched(v0, eta, jnp.asarray(a)))
    assert np.all(batch.outcome.code[below] == 3)  # GRADIENT
    assert np.all(batch.outcome.code[~below] == 8)  # DIVERGING
    alone = jax.jit(run)
    for i in range(0, many, 97):
        one = in_numpy(alone(np.asarray(v0)[i], np.asarray(eta)[i], a[i]))
        assert (one.steps, one.outcome.code, one.evaluations) == tuple(
            x[i] for x in (batch.steps, batch.outcome.code, batch.evaluations)
        )
        # In a batch, XLA sums the four numbers in another order.
        np.testing.assert_allclose(one.v, batch.v[i], rtol=1e-12)
    order = rng.permutation(many)
    permuted = batched(np.asarray(v0)[order], np.asarray(eta)[order], a[order])
    np.testing.assert_array_equal(permuted.v, batch.v[order])


def test_batch_elements_do_not_affect_each_other(x64):
    """Reversing the batch keeps the bits of each element. Recording the path changes values only by rounding."""
    etas = jnp.array([0.1, 0.9, -1.0, 1.2, jnp.nan, 0.4, 0.001])

    def run(eta, record=None):
        return minimize(valley, jnp.array([1.0, 1.0]), gradient_descent(eta), max_steps=60, record=record)

    batched = jax.jit(jax.vmap(run))
    batch, permuted = in_numpy(batched(etas)), in_numpy(batched(etas[::-1]))
    recorded = in_numpy(jax.jit(jax.vmap(lambda eta: run(eta, Record(every=7))))(etas))
    for other, rtol in ((jax.tree.map(lambda x: x[::-1], permuted), 0), (recorded, 1e-13)):
        for name in ("v", "cost", "steps", "evaluations"):
            np.testing.assert_allclose(getattr(batch, name), getattr(other, name), rtol=rtol)
    reasons = [batch.at(i).outcome.reason.name for i in range(len(etas))]
    assert reasons == ["MAX_STEPS", "MAX_STEPS", "BAD_RULE", "DIVERGING", "BAD_RULE", "GRADIENT", "MAX_STEPS"]
    np.testing.assert_array_equal(recorded.trajectory.cost[5, 3:], np.nan)  # This element ended before update 21.
    assert np.isfinite(recorded.trajectory.cost[0]).all()


def test_at_returns_an_element_of_a_batch():
    """`batch[1]` is refused, because the index could mean a field or an element."""
    run = lambda v: minimize(valley, v, gradient_descent(0.25), max_steps=3, stop=None)  # noqa: E731
    batch = jax.jit(jax.vmap(run))(jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    for i in (2, -1, (2,)):
        jax.tree.map(np.testing.assert_array_equal, batch.at(i), jax.tree.map(lambda x: x[2], batch))
    assert batch.at(1).outcome.reason.name == "COMPLETED"
    with pytest.raises(DtypeError, match=r"solution\.at\(i\)"):
        batch[1]
    for i in (3, -4, (0, 0), ()):
        with pytest.raises(ShapeError, match=r"shape \(3,\)"):
            batch.at(i)
    with pytest.raises(ShapeError, match=r"shape \(\)"):
        batch.at(0).at(0)


@pytest.mark.slow
def test_nested_batches_equal_single_runs(x64):
    def run(eta, x):
        return minimize(valley, jnp.array([x, 1.0]), gradient_descent(eta), max_steps=60, record=Record(every=9)).steps

    etas, starts = jnp.array([0.1, 0.4, 0.3]), jnp.array([1.0, 5.0])
    both = jax.vmap(lambda eta: jax.vmap(lambda x: run(eta, x))(starts))(etas)
    assert both.tolist() == [[int(run(eta, x)) for x in starts] for eta in etas]


# Aux.


def test_aux_is_evaluated_once_for_each_solution(x64):
    """The callback gets solutions after 0, 2 and 4 updates, each with the aux at its v.

    The second run changes a value in the cost's closure, and its aux holds the new value.
    """
    calls, seen = [], []

    def note(v):
        calls.append(v)
        return v

    def make(target):
        def set_target(new):
            nonlocal target
            target = new

        def cost(v):
            aux = {"double": 2 * v, "target": target, "none": None}
            aux["v"] = jax.pure_callback(note, jax.ShapeDtypeStruct((), v.dtype), jax.lax.stop_gradient(v))
            return (v - target) ** 2, aux

        return cost, set_target

    def callback(solution):
        seen.append((float(solution.v), float(solution.aux["double"]), float(solution.aux["v"])))

    cost, set_target = make(9.0)
    options = {"max_steps": 4, "stop": None, "record": None, "bounds": (0, 3), "has_aux": True}
    solution = minimize(cost, 1.0, gradient_descent(0.05), **options, callback=callback, chunk=2)
    assert len(calls) == 4
    np.testing.assert_allclose(seen, [(v, 2 * v, v) for v in (1.0, 1.0 + 0.8 + 0.72, 3.0)])
    assert (solution.aux["double"], solution.aux["none"], solution.evaluations) == (6, None, 5)
    set_target(2.0)
    assert minimize(cost, 1.0, gradient_descent(0.5), **options).aux["target"] == 2


def test_aux_has_derivatives(x64):
    """C = (v − a)²/2 + v²/2 has its minimum at v = a/2, where aux = av equals a²/2 and has the derivative a."""

    def found(a):
        cost = lambda v, a: ((v - a) ** 2 / 2 + v**2 / 2, a * v)  # noqa: E731
        options = {"max_steps": 60, "stop": None, "record": None, "has_aux": True}
        return minimize(cost, 0.0, gradient_descent(0.4), args=(a,), **options).aux

    np.testing.assert_allclose(jax.jit(jax.value_and_grad(found))(-3.0), (4.5, -3), rtol=1e-10)


# Compilation.


def test_other_values_of_the_same_shapes_do_not_recompile():
    traces = []

    def cost(v, a):
        traces.append(v)
        return jnp.sum(a * v**2)

    def run(eta, a, start, rtol):
        rule = gradient_descent(eta)
        return minimize(cost, start, rule, args=(a,), max_steps=20, stop=Stop(gradient_rtol=rtol), record=None)

    run(0.1, jnp.ones(3), jnp.ones(3), 1e-3)
    first = len(traces)
    run(0.1, jnp.ones(3), jnp.ones(3), 1e-3)
    # Even without a compilation, each call traces the cost for its shapes and closed-over values.
    each = len(traces) - first
    before = len(traces)
    run(0.2, 2 * jnp.ones(3), jnp.zeros(3), 1e-2)
    run(0.3, 3 * jnp.ones(3), jnp.arange(3.0), 1e-2)
    assert len(traces) - before == 2 * each
    assert each < first


def test_an_optax_rule_compiles_once_per_object():
    traces = []

    def cost(v):
        traces.append(v)
        return jnp.sum(v**2)

    rule = optax.adam(0.1)
    counts = []
    for _ in range(3):
        before = len(traces)
        minimize(cost, jnp.ones(2), rule, max_steps=3, record=None)
        counts.append(len(traces) - before)
    assert counts[0] > counts[1] == counts[2]


# Pytrees, dtypes and devices.


@pytest.mark.parametrize(
    "dtype",
    often([jnp.float32, jnp.float64, jnp.bfloat16, jnp.float16], [jnp.float32, jnp.bfloat16]),
    ids=lambda d: d.__name__,
)
def test_dtypes_and_tree_structure_are_kept(dtype):
    with jax.enable_x64(dtype is jnp.float64):
        v0 = {"w": jnp.ones((2, 3), dtype), "b": [jnp.array(2.0, dtype)]}

        def cost(v):
            return jnp.sum(v["w"] ** 2) + v["b"][0] ** 2

        solution = minimize(cost, v0, gradient_descent(0.25), max_steps=20)
        assert jax.tree.structure(solution.v) == jax.tree.structure(v0)
        assert {x.dtype for x in jax.tree.leaves((solution.v, solution.gradient, solution.best_v))} == {
            jnp.dtype(dtype)
        }
        assert solution.cost < 0.05


def test_v0_may_be_a_number():
    assert minimize(lambda v: (v - 3) ** 2, 1.0, gradient_descent(0.5), max_steps=5).v == 3.0


def test_empty_leaves_and_integer_args_are_accepted():
    v0 = (jnp.ones(2), jnp.zeros((0, 3)))
    solution = minimize(
        lambda v, i, k: jnp.sum(v[0] ** 2) + jnp.sum(v[1]) + 0 * i[k],
        v0,
        gradient_descent(0.25),
        args=(jnp.arange(3), 1),
        max_steps=3,
    )
    assert solution.v[1].shape == (0, 3)
    np.testing.assert_array_equal(solution.v[0], 0.125)


def test_sharded_variables_are_minimized():
    """Shard v over all devices of the host."""
    mesh = jax.make_mesh((len(jax.devices()),), ("d",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    v0 = jax.device_put(jnp.arange(8.0), sharding)
    solution = minimize(lambda v: jnp.sum(v**2), v0, gradient_descent(0.25), max_steps=3)
    np.testing.assert_allclose(solution.v, np.arange(8.0) / 8)
    assert solution.v.sharding.is_equivalent_to(sharding, 1)


# Outcomes.


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_start_that_is_not_finite_stops_at_step_0(bad):
    solution = minimize(valley, jnp.array([bad, 1.0]), gradient_descent(0.1), max_steps=10)
    assert (solution.outcome.reason.name, solution.steps) == ("START_NOT_FINITE", 0)
    assert "eta" not in solution.outcome.message


def test_max_steps_0_evaluates_only_the_start():
    solution = minimize(valley, jnp.array([1.0, 2.0]), gradient_descent(0.1), max_steps=0)
    assert (solution.cost, solution.steps, solution.evaluations) == (5, 0, 1)
    assert solution.outcome.reason.name == "MAX_STEPS"
    assert minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=0, stop=None).outcome.ok
    np.testing.assert_array_equal(solution.trajectory.cost, [5])


def test_an_overflowing_cost_stops_the_run_and_the_best_v_is_kept():
    solution = minimize(lambda v: jnp.exp(v**2), 1.0, gradient_descent(1.0), max_steps=50, stop=None)
    assert solution.outcome.reason.name == "NOT_FINITE"
    assert solution.best_cost == jnp.exp(solution.best_v**2) == jnp.exp(1.0)


def test_a_cost_of_minus_infinity_is_not_finite():
    solution = minimize(jnp.log, 1.0, gradient_descent(0.9999999), max_steps=1000, stop=None)
    assert solution.outcome.reason.name == "NOT_FINITE"


def test_a_traced_eta_out_of_range_gives_the_outcome_bad_rule():
    steps = jax.jit(lambda eta: minimize(valley, jnp.ones(2), gradient_descent(eta), max_steps=5))
    for eta in (0.0, -1.0, jnp.nan, jnp.inf):
        assert (steps(eta).outcome.reason.name, steps(eta).steps) == ("BAD_RULE", 0)
    assert steps(0.1).steps == 5
