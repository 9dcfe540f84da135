"""minimize reproduces closed forms and reference figures, runs in batches, continues runs and refuses bad arguments."""

import gc
import io
import os
import re
import signal
import sys
import threading

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
    fixed_length,
    gradient_descent,
    heavy_ball,
    load_state,
    minimize,
    nesterov,
    newton,
    save_state,
    wolfe,
)
from jaxgd.errors import DtypeError, JaxgdError, RangeError, ShapeError

START = (-1.2, 1.0)


def spectrum(rng, n, least=1.0, most=50.0):
    """Return a symmetric matrix with eigenvalues from `least` to `most`, and `most`."""
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    values = np.sort(rng.uniform(least, most, n))
    values[-1], values[0] = most, least
    return q * values @ q.T, most


# Closed forms.


@given(eta=st.floats(0.01, 0.99), start=st.tuples(*[st.floats(-5, 5)] * 2))
def test_the_valley_follows_the_closed_form(eta, start):
    """v_k = (1 − 2η)ᵏ v₀; each step rounds a few times."""
    with jax.enable_x64(True):
        v0 = jnp.array(start)
        solution = minimize(valley, v0, gradient_descent(eta), max_steps=40, stop=None, record=Record(v=True))
    k = np.arange(41)[:, None]
    np.testing.assert_allclose(solution.trajectory.v, (1 - 2 * eta) ** k * np.array(start), rtol=1e-12, atol=1e-300)
    assert solution.outcome.reason.name == "COMPLETED"


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_quadratic_follows_the_closed_form(n, seed, x64):
    """v_k = (I − ηA)ᵏ v₀ for a random A. The rounding of 30 steps of n products is at most 1e-13 ‖v₀‖."""
    rng = np.random.default_rng(seed)
    a, most = spectrum(rng, n)
    v0, eta = rng.normal(size=n), 1.5 / most
    solution = minimize(
        quadratic, v0, gradient_descent(eta), args=(jnp.asarray(a),), max_steps=30, stop=None, record=None
    )
    expected = np.linalg.matrix_power(np.eye(n) - eta * a, 30) @ v0
    np.testing.assert_allclose(solution.v, expected, rtol=0, atol=1e-13 * np.linalg.norm(v0))


# C after k updates of gradient descent on Rosenbrock's function, by (η, k).
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
    assert solution.cost == pytest.approx(FIGURES[eta, k], rel=5e-6)  # the figures have six digits
    assert (solution.steps, solution.evaluations) == (k, k + 1)


def test_the_first_step_on_rosenbrock_is_exact(x64):
    solution = minimize(rosenbrock, jnp.array(START), gradient_descent(1e-3), max_steps=1)
    np.testing.assert_allclose(solution.v, [-0.9844, 1.088], rtol=1e-12)
    np.testing.assert_allclose(solution.trajectory.predicted[1], -1e-3 * (215.6**2 + 88**2), rtol=1e-12)


@pytest.mark.parametrize("cost", often(COSTS, [powell_singular]), ids=lambda cost: cost.__name__)
@pytest.mark.parametrize("rule", often([backtracking, wolfe, newton], [wolfe]), ids=lambda rule: rule.__name__)
def test_each_rule_reaches_a_minimum_of_each_named_cost(cost, rule, x64):
    """C reaches a minimum to 1e-8 within 5,000 evaluations, for Freudenstein and Roth's function either of two."""
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
    """Half of the η are 1% below 2/λ_max, half 1% above. Each batch element ends as its own run does."""
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
        # Equal only to rounding, because XLA sums four numbers in another order in a batch.
        np.testing.assert_allclose(one.v, batch.v[i], rtol=1e-12)
    order = rng.permutation(many)
    permuted = batched(np.asarray(v0)[order], np.asarray(eta)[order], a[order])
    np.testing.assert_array_equal(permuted.v, batch.v[order])


def test_batch_elements_do_not_affect_each_other(x64):
    """An element has the same bits in a reversed batch, and the same values within rounding with a recorded path."""
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
    np.testing.assert_array_equal(recorded.trajectory.cost[5, 3:], np.nan)  # it ended before update 21
    assert np.isfinite(recorded.trajectory.cost[0]).all()


def test_an_element_of_a_batch_is_named_by_at():
    """A solution is a pytree. An index without `at` is refused, because it could mean a field or an element."""
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


# Continued runs.


RULES = {
    "gradient descent": lambda: gradient_descent(1e-3),
    "schedule": lambda: gradient_descent(optax.linear_schedule(1e-3, 1e-4, 100)),
    "heavy ball": lambda: heavy_ball(1e-3, 0.9),
    "backtracking": backtracking,
    "wolfe": wolfe,
    "newton": newton,
    "adam": lambda: optax.adam(1e-2),
}


QUICK = ("adam",)


@pytest.mark.parametrize("wide", often([False, True], [False]), ids=["float32", "float64"])
@pytest.mark.parametrize("name", often(RULES, QUICK))
def test_a_continued_run_equals_one_run_bit_for_bit(name, wide, tmp_path):
    """7 updates, a file and 12 updates equal 19 updates. So do 19 updates with a callback after every 4."""
    with jax.enable_x64(wide):
        continued(RULES[name](), tmp_path / "run.state")


def continued(rule, path):
    options = {"stop": None, "record": Record(every=3)}
    v0 = {"a": jnp.array(START[0]), "b": jnp.array([START[1]])}

    def cost(v):
        return rosenbrock(jnp.stack([v["a"], v["b"][0]]))

    whole = minimize(cost, v0, rule, max_steps=19, **options)
    first = minimize(cost, v0, rule, max_steps=7, **options)
    save_state(path, first.state)
    second = minimize(cost, v0, rule, max_steps=12, state=load_state(path, v0, rule), **options)
    seen = []
    watched = minimize(cost, v0, rule, max_steps=19, callback=lambda s: seen.append(int(s.steps)), chunk=4, **options)
    for other in (second, watched):
        jax.tree.map(np.testing.assert_array_equal, in_numpy(whole.state), in_numpy(other.state))
    assert seen == [0, 4, 8, 12, 16, 19]
    assert second.trajectory.step.tolist() == [7, 10, 13, 16, 19]


def apart(v, a, b):
    return a * jnp.sum((v - b) ** 2)


@pytest.mark.parametrize("name", often([*RULES], ["backtracking"]))
def test_a_state_continues_with_other_args(name, x64):
    """The first run ends at b = 1, the second at b = 5 with a cost 10⁷ times larger or smaller."""
    rule = {"gradient descent": lambda: gradient_descent(0.1), "heavy ball": lambda: heavy_ball(0.1, 0.5)}
    rule = rule.get(name, RULES[name])()
    first = minimize(apart, jnp.zeros(2), rule, args=(1.0, 1.0), max_steps=3000, record=None)
    scales = (1.0,) if name in ("gradient descent", "heavy ball", "schedule", "adam") else (1e7, 1e-7)
    for a in scales:
        second = minimize(apart, None, rule, args=(a, 5.0), max_steps=3000, record=None, state=first.state)
        assert second.steps > first.steps
        assert second.outcome.ok or name in ("schedule", "adam")
        if second.outcome.ok:
            np.testing.assert_allclose(second.v, 5.0, rtol=1e-7)
        np.testing.assert_allclose(second.cost, apart(second.v, a, 5.0), rtol=1e-9)


def test_states_carry_the_velocity_through_mini_batches(x64):
    """One update for each batch equals heavy ball by hand, Δv = μ Δv′ − η∇C of that batch."""
    rule, targets = heavy_ball(0.05, 0.5), [1.0, -3.0, 5.0, 0.0]
    state, v, velocity = None, np.zeros(2), np.zeros(2)
    for target in targets:
        v0 = jnp.zeros(2) if state is None else None
        solution = minimize(apart, v0, rule, args=(1.0, target), max_steps=1, stop=None, record=None, state=state)
        state = solution.state
        velocity = 0.5 * velocity - 0.05 * 2 * (v - target)
        v = v + velocity
        np.testing.assert_allclose(solution.v, v, rtol=1e-12)
        np.testing.assert_allclose(solution.gradient, 2 * (v - target), rtol=1e-12)


def test_a_wide_problem_is_minimized_in_place(monkeypatch):
    """The caller's start stays, and best_v is v if nothing is recorded."""
    v0, rule = jnp.array([-1.2, 1.0], jnp.float32), gradient_descent(1e-3)
    want = minimize(rosenbrock, v0, rule, max_steps=9, record=None)
    monkeypatch.setattr("jaxgd.pytree.WIDE", 0)
    got = minimize(rosenbrock, v0, rule, max_steps=9, record=None)
    again = minimize(rosenbrock, None, rule, max_steps=9, record=None, state=got.state)
    assert (int(got.steps), int(again.steps)) == (9, 18)
    assert v0.tolist() == pytest.approx([-1.2, 1.0])
    assert got.v.tolist() == got.best_v.tolist() == want.v.tolist()
    assert again.cost < got.cost


def test_a_converged_state_makes_no_updates_unless_the_tolerance_is_tighter(x64):
    first = minimize(valley, jnp.array([1.0, 1.0]), gradient_descent(0.1), max_steps=500)
    second = minimize(valley, None, gradient_descent(0.1), max_steps=500, state=first.state)
    assert (second.steps, second.outcome.reason.name) == (first.steps, "GRADIENT")
    third = minimize(
        valley, None, gradient_descent(0.1), max_steps=500, state=first.state, stop=Stop(gradient_rtol=1e-12)
    )
    assert third.steps > first.steps


def test_a_callback_sees_the_path_and_can_stop_the_run(x64):
    seen = []

    def callback(solution):
        seen.append(len(solution.trajectory.cost))
        return solution.cost < 1e-3

    solution = minimize(valley, jnp.array([1.0, 1.0]), gradient_descent(0.1), max_steps=500, callback=callback, chunk=5)
    assert solution.outcome.reason.name == "STOPPED"
    assert solution.steps == 20
    assert seen == [1, 6, 11, 16, 21]


def test_a_time_limit_stops_the_run(x64):
    solution = minimize(rosenbrock, jnp.array(START), gradient_descent(1e-6), max_steps=10**9, record=None, seconds=0.2)
    assert solution.outcome.reason.name == "SECONDS"
    assert 0 < solution.steps < 10**9


# The host.


class OwnError(Exception):
    pass


def fail():
    raise OwnError


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


WATCHED = {"max_steps": 10**9, "stop": None, "record": None}


def until(k, state=None):
    """Return the state after k updates."""
    return minimize(
        rosenbrock, jnp.array(START), gradient_descent(1e-6), **WATCHED | {"max_steps": k}, state=state
    ).state


@pytest.mark.parametrize(
    ("end", "error"),
    [(fail, OwnError), (interrupt, KeyboardInterrupt), (None, KeyboardInterrupt)],
    ids=["exception", "Ctrl-C in the callback", "Ctrl-C in a chunk"],
)
@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
def test_an_interrupted_run_keeps_its_state(end, error, wide):
    """The exception keeps its class. Its state is on the path, and a run that continues from it has the same bits."""

    def callback(solution):
        if solution.steps >= 10:
            end()

    def run():
        if end is None:
            threading.Timer(0.1, interrupt).start()
        options = {"callback": callback, "chunk": 4} if end else {"seconds": 60.0}
        minimize(rosenbrock, jnp.array(START), gradient_descent(1e-6), **WATCHED, **options)

    with jax.enable_x64(wide):
        until(1)  # compile
        gc.disable()  # Python ignores a KeyboardInterrupt in a callback of the garbage collector, and JAX has one.
        try:
            with pytest.raises(error) as caught:
                run()
        finally:
            gc.enable()
        state = caught.value.state
        k = int(state.step)
        assert k == 12 if end else k > 0
        jax.tree.map(np.testing.assert_array_equal, state, until(k))
        jax.tree.map(np.testing.assert_array_equal, until(7, state), until(k + 7))


def test_a_chunk_that_fails_leaves_the_state_before_it():
    """The cost raises on the device at v = 0.5, in the third update. An error before the first update has no state."""

    def check(v):
        if v == 0.5:
            raise OwnError
        return np.float32(0)

    def cost(v):
        return v**2 / 2 + jax.pure_callback(check, jax.ShapeDtypeStruct((), jnp.float32), jax.lax.stop_gradient(v))

    for start, step, v in ((4.0, 2, 1.0), (0.5, None, None)):
        with pytest.raises(Exception, match="OwnError") as caught:
            minimize(cost, start, gradient_descent(0.5), max_steps=9, chunk=1, seconds=60.0, record=None)
        state = caught.value.state
        assert state is None if step is None else (state.step, state.v) == (step, v)


@pytest.fixture
def compiled():
    """Return a list of the compilations during the test."""
    events = []

    def note(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield events
    jax.monitoring.unregister_event_duration_listener(note)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_callbacks_compile_nothing_and_progress_is_one_line(compiled, monkeypatch):
    """A callback compiles in its first two calls at most. The progress line is shown on a terminal only."""
    counts = []

    def run(**options):
        return minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=40, record=Record(v=True), **options)

    solution = run(callback=lambda solution: counts.append(len(compiled)), chunk=5)
    assert counts[0] > 0
    assert counts[2:] == [counts[1]] * (len(counts) - 2)
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        shown = run(progress=True, chunk=5)
        jax.tree.map(np.testing.assert_array_equal, shown, solution)
        *_, last = stream.getvalue().strip().split("\r")
        if stream.isatty():
            assert re.search(rf"40/40 .*C = {solution.cost:.4g}, ‖∇C‖ = ", last)
            assert "\n" not in last
        else:
            assert last == ""


# The cost's second result.


def test_aux_is_evaluated_once_for_each_solution(x64):
    """The box ends at 3. The callback gets a solution at 0, 2 and 4 updates, and the aux has its v."""
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
    """C = (v − a)²/2 + v²/2 has the minimum a/2, and aux = av the derivative a."""

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
    each = len(traces) - first  # abstract evaluations, for shapes and closed-over values
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


def test_a_number_may_be_the_variables():
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


def test_a_traced_eta_out_of_range_is_an_outcome():
    steps = jax.jit(lambda eta: minimize(valley, jnp.ones(2), gradient_descent(eta), max_steps=5))
    for eta in (0.0, -1.0, jnp.nan, jnp.inf):
        assert (steps(eta).outcome.reason.name, steps(eta).steps) == ("BAD_RULE", 0)
    assert steps(0.1).steps == 5


# Bad arguments.


def sides(v):
    return v**2


def with_aux(aux):
    return lambda v: (jnp.sum(v), aux)


BAD = {
    "cost is not a function": (
        lambda: minimize(3.0, jnp.ones(2), gradient_descent(0.1), max_steps=1),
        DtypeError,
        "cost",
    ),
    "not a scalar": (
        lambda: minimize(sides, jnp.ones(2), gradient_descent(0.1), max_steps=1),
        ShapeError,
        "one real scalar",
    ),
    "complex": (
        lambda: minimize(lambda v: jnp.sum(v) * 1j, jnp.ones(2), gradient_descent(0.1), max_steps=1),
        ShapeError,
        "one real scalar",
    ),
    "integers": (lambda: minimize(valley, jnp.array([1, 2]), gradient_descent(0.1), max_steps=1), DtypeError, "v0"),
    "integers in a tree": (
        lambda: minimize(lambda v: v["x"], {"x": 1.0, "n": jnp.array(3)}, gradient_descent(0.1), max_steps=1),
        DtypeError,
        r"v0\['n'\]",
    ),
    "no variables": (
        lambda: minimize(valley, {}, gradient_descent(0.1), max_steps=1),
        ShapeError,
        "at least one variable",
    ),
    "v0 is text": (lambda: minimize(valley, "v", gradient_descent(0.1), max_steps=1), DtypeError, "v0"),
    "eta is text": (lambda: gradient_descent("0.1"), DtypeError, "eta"),
    "eta is 0": (lambda: gradient_descent(0.0), RangeError, "eta"),
    "eta below 0": (lambda: gradient_descent(-0.1), RangeError, "eta"),
    "mu is 1": (lambda: heavy_ball(0.1, 1.0), RangeError, "mu"),
    "mu is an array": (lambda: nesterov(0.1, jnp.ones(2)), DtypeError, "mu"),
    "epsilon below 0": (lambda: fixed_length(-1.0), RangeError, "epsilon"),
    "memory 0": (lambda: backtracking(0), RangeError, "memory"),
    "rule is a number": (lambda: minimize(valley, jnp.ones(2), 0.1, max_steps=1), DtypeError, "rule"),
    "steps below 0": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=-1),
        RangeError,
        "max_steps",
    ),
    "half a step": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=1.5),
        DtypeError,
        "max_steps",
    ),
    "args is not a tuple": (
        lambda: minimize(quadratic, jnp.ones(2), gradient_descent(0.1), args=jnp.eye(2), max_steps=1),
        DtypeError,
        "args must be a tuple",
    ),
    "args holds text": (
        lambda: minimize(lambda v, s: v**2, 1.0, gradient_descent(0.1), args=("s",), max_steps=1),
        DtypeError,
        "args",
    ),
    "stop is a number": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=1, stop=1e-3),
        DtypeError,
        "stop",
    ),
    "stop below 0": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=1, stop=Stop(gradient_rtol=-1.0)),
        RangeError,
        "gradient_rtol",
    ),
    "record is True": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=1, record=True),
        DtypeError,
        "record",
    ),
    "every 0": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=1, record=Record(every=0)),
        RangeError,
        "every",
    ),
    "callback under jit": (
        lambda: jax.jit(lambda v: minimize(valley, v, gradient_descent(0.1), max_steps=1, callback=print))(jnp.ones(2)),
        RangeError,
        "callback",
    ),
    "progress under jit": (
        lambda: jax.jit(lambda v: minimize(valley, v, gradient_descent(0.1), max_steps=1, progress=True))(jnp.ones(2)),
        RangeError,
        "callback, seconds and progress need the host",
    ),
    "seconds below 0": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=1, seconds=-1),
        RangeError,
        "seconds",
    ),
    "state is a number": (
        lambda: minimize(valley, None, gradient_descent(0.1), max_steps=1, state=3),
        DtypeError,
        "state",
    ),
    "unknown differentiate": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=1, differentiate="magic"),
        RangeError,
        "differentiate",
    ),
    "a pair without has_aux": (
        lambda: minimize(with_aux(1.0), jnp.ones(2), gradient_descent(0.1), max_steps=1),
        ShapeError,
        "one real scalar, got a pair.\nPass has_aux=True",
    ),
    "has_aux without a pair": (
        lambda: minimize(lambda v: (1.0, 2.0, v), jnp.ones(2), gradient_descent(0.1), max_steps=1, has_aux=True),
        ShapeError,
        "with has_aux=True the cost must return a pair",
    ),
    "has_aux with text": (
        lambda: minimize(with_aux({"a": "x"}), jnp.ones(2), gradient_descent(0.1), max_steps=1, has_aux=True),
        DtypeError,
        r"aux must hold arrays and numbers, got str at aux\['a'\]",
    ),
    "unrolled with a stopping test": (
        lambda: minimize(
            valley, jnp.ones(2), gradient_descent(0.1), max_steps=1, differentiate="unroll", stop=Stop(cost=0.1)
        ),
        RangeError,
        "unroll",
    ),
}

RUN = {
    "cost": (DtypeError, ("x", None, jnp.ones(2))),
    "v0": (
        DtypeError,
        (
            *(np.array([None]), np.array(["a"]), np.array(["2020-01-01"], "datetime64[D]"), np.zeros(2, [("a", "f4")])),
            *(np.ma.ones(2), np.ones(2, ">f4"), jnp.ones(2, jnp.float8_e4m3fn), jax.random.key(0), range(3)),
            jax.ShapeDtypeStruct((2,), jnp.float32),
        ),
    ),
    "rule": (DtypeError, (gradient_descent, None, "x", int)),
    "max_steps": (RangeError, (2**40, -1)),
    "stop": (
        DtypeError,
        ("x", 3, Stop(cost="x"), Stop(stalled=1), Stop(step_atol=np.ones(2)), Stop(cost=None, diverging=1j)),
    ),
    "record": (DtypeError, ("x", Record(function=lambda v: "x"))),
    "args": (DtypeError, ([1.0], None, (np.array(["a"]),), (object(),), (np.ma.ones(2),))),
    "callback": (DtypeError, (3, "x")),
    "chunk": (DtypeError, (0.5, "x")),
    "seconds": (RangeError, ("x", 0, np.nan, np.ones(2))),
    "progress": (DtypeError, (None, 1, np.array([True]))),
    "has_aux": (DtypeError, (None, 1, np.array([True]))),
    "differentiate": (RangeError, (None, np.array(["implicit", "unroll"]))),
}


@pytest.mark.bad_input
@pytest.mark.parametrize(("name", "i"), [(name, i) for name, (_, values) in RUN.items() for i in range(len(values))])
def test_arguments_of_other_types_are_refused(name, i):
    error, values = RUN[name]
    arguments = {"cost": valley, "v0": jnp.ones(2), "rule": gradient_descent(0.1), "max_steps": 2} | {name: values[i]}
    with pytest.raises(error, match=r"^minimize: .*" + name) as caught:
        minimize(**arguments)
    assert len(str(caught.value)) < 400


@pytest.mark.bad_input
@pytest.mark.parametrize("result", ["x", None, np.array([None]), np.ma.ones(()), 10**30], ids=repr)
def test_a_cost_that_returns_no_number_is_refused(result):
    with pytest.raises(ShapeError, match="the cost must return one real scalar, got"):
        minimize(lambda v: result, jnp.ones(2), gradient_descent(0.1), max_steps=1)


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [10**30, "x", np.ones(2), jax.random.key(0), np.ma.ones(()), None], ids=repr)
@pytest.mark.parametrize(
    "rule", [gradient_descent, fixed_length, lambda x: heavy_ball(x, 0.5), lambda x: nesterov(0.1, x)]
)
def test_hyperparameters_of_other_types_are_refused(rule, value):
    with pytest.raises((DtypeError, RangeError), match=r"must be one real number|must fit int32"):
        rule(value)


@pytest.mark.bad_input
@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused(name):
    call, error, words = BAD[name]
    with pytest.raises(error, match=words) as caught:
        call()
    assert isinstance(caught.value, JaxgdError)
    assert re.match(r"\w+: ", str(caught.value))  # the message starts with the name of the function


def test_an_exception_of_the_cost_reaches_the_caller():
    def cost(v):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        minimize(cost, jnp.ones(2), gradient_descent(0.1), max_steps=1)
