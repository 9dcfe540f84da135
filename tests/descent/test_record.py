"""Entry k is after k updates and entry 0 is the start; what is remembered is what was there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from costs import in_numpy, rosenbrock, rosenbrock_along, rosenbrock_gradient
from support import often

from jaxgd import Record, gradient_descent, heavy_ball, minimize, newton

START = np.array([-1.2, 1.0])


def by_hand(eta, n):
    """The path as a loop of Python makes it."""
    v, path = START, [START]
    for _ in range(n):
        v = v - eta * np.asarray(rosenbrock_gradient(v))
        path.append(v)
    return np.array(path)


@pytest.mark.parametrize("every", often([1, 7, 50], [1, 7]))
def test_entries_are_what_a_loop_by_hand_finds(every, x64):
    eta, n = 1e-3, 30
    record = Record(every=every, v=True, function=lambda v: {"sum": jnp.sum(v), "twice": 2 * v})
    solution = minimize(rosenbrock, START, gradient_descent(eta), max_steps=n, stop=None, record=record)
    path, v = in_numpy(solution.trajectory), by_hand(eta, n)
    at = np.arange(0, n + 1, every)
    assert path.step.tolist() == at.tolist()
    np.testing.assert_allclose(path.v, v[at], rtol=1e-12)
    np.testing.assert_allclose(path.value["sum"], v[at].sum(1), rtol=1e-11)
    np.testing.assert_allclose(path.value["twice"], 2 * v[at], rtol=1e-12)
    costs, gradients = map(np.asarray, rosenbrock_along(v))
    np.testing.assert_allclose(path.cost, costs[at], rtol=1e-11)
    np.testing.assert_allclose(path.gradient_norm, np.linalg.norm(gradients, axis=1)[at], rtol=1e-11)
    step = np.diff(v, axis=0)
    np.testing.assert_allclose(path.step_norm[1:], np.linalg.norm(step, axis=1)[at[1:] - 1], rtol=1e-10)
    np.testing.assert_allclose(path.predicted[1:], np.sum(gradients[:-1] * step, 1)[at[1:] - 1], rtol=1e-10)
    np.testing.assert_allclose(path.actual[1:], np.diff(costs)[at[1:] - 1], rtol=1e-8)
    assert np.isnan([path.step_norm[0], path.predicted[0], path.actual[0]]).all()


@pytest.mark.parametrize("n", often([1024, 1025, 123_456], [1025]))
def test_the_length_is_bounded_and_short_runs_are_whole(n, x64):
    """Every second entry is let go whenever there are more than 1,025: what is left is what `every` would keep."""
    rule = gradient_descent(1e-4)
    solution = minimize(rosenbrock, START, rule, max_steps=n, stop=None, record=Record(v=True))
    path = in_numpy(solution.trajectory)
    every = int(path.step[1])
    assert path.step.tolist() == list(range(0, n + 1, every))
    assert n <= 1024 or 512 < len(path.step) <= 1025
    same = minimize(rosenbrock, START, rule, max_steps=n, stop=None, record=Record(v=True, every=every)).trajectory
    jax.tree.map(np.testing.assert_array_equal, path, in_numpy(same))


@pytest.mark.slow
def test_a_short_run_of_many_allowed_steps_is_remembered_whole(x64):
    solution = minimize(rosenbrock, START, newton(), max_steps=10**6)
    assert solution.trajectory.step.tolist() == list(range(int(solution.steps) + 1))
    lanes = jax.vmap(lambda eta: minimize(rosenbrock, START, gradient_descent(eta), max_steps=3000))(
        jnp.array([1e-3, 1e-2])
    )
    assert lanes.trajectory.step.tolist() == [[4 * k for k in range(1025)]] * 2
    assert jnp.isfinite(lanes.trajectory.cost).sum(1).tolist() == [751, int(lanes.steps[1]) // 4 + 1]


def test_nothing_is_remembered_of_none(x64):
    solution = minimize(rosenbrock, START, heavy_ball(2e-3, 0.9), max_steps=5, stop=None, record=None)
    assert solution.trajectory is None
    np.testing.assert_array_equal(solution.best_v, solution.v)
    assert solution.best_cost == solution.cost == rosenbrock(solution.v)


def test_the_best_is_where_c_was_lowest(x64):
    record = Record(v=True)
    solution = in_numpy(minimize(rosenbrock, START, heavy_ball(5e-3, 0.9), max_steps=8, stop=None, record=record))
    k = np.argmin(solution.trajectory.cost)
    assert 0 < k < 8
    np.testing.assert_array_equal(solution.best_v, solution.trajectory.v[k])
    assert solution.best_cost == solution.trajectory.cost[k]


@pytest.mark.slow
def test_sharpness_beside_the_edge_of_stability(x64):
    """On ¼v⁴ λ_max = 3v², which falls on the way down and never reaches 2/η = 20."""
    falling = minimize(
        lambda v: jnp.sum(v**4) / 4,
        jnp.array([1.0, 2.0]),
        gradient_descent(0.1),
        max_steps=20,
        record=Record(sharpness=True, v=True),
    ).trajectory
    np.testing.assert_allclose(falling.sharpness, 3 * np.max(np.abs(falling.v), 1) ** 2, rtol=1e-6)
    np.testing.assert_allclose(falling.stability, 20)
    assert falling.crossed == -1


def test_the_crossing_is_told(x64):
    """On eᵛ from 3.5 λ_max = e³·⁵ = 33 is above 2/η = 20 at first, and below it afterwards."""
    path = minimize(
        lambda v: jnp.sum(jnp.exp(v)),
        jnp.array([3.5]),
        gradient_descent(0.1),
        max_steps=30,
        record=Record(sharpness=True),
    ).trajectory
    assert path.crossed == 0
    assert path.sharpness[0] == pytest.approx(np.exp(3.5))
    assert path.sharpness[-1] < 20


@pytest.mark.slow
def test_a_rule_without_an_eta_has_no_edge(x64):
    import optax

    path = minimize(
        lambda v: jnp.sum(jnp.exp(v)), jnp.array([3.5]), optax.sgd(1e-3), max_steps=3, record=Record(sharpness=True)
    ).trajectory
    assert np.isnan(path.stability).all()
    assert path.crossed == -1


@pytest.mark.slow
def test_memory_does_not_grow_with_lanes_times_steps():
    """Ten thousand lanes, a thousand entries each: as large as its numbers, no more, and quick."""

    def run(v0):
        return minimize(
            rosenbrock, v0, gradient_descent(1e-3), max_steps=1000, record=Record(every=100)
        ).trajectory.cost

    costs = jax.jit(jax.vmap(run))(jnp.tile(START, (10_000, 1)))
    assert costs.shape == (10_000, 11)
    assert jnp.unique(costs[:, -1]).size == 1
