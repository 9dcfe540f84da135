"""A trajectory holds the values at the recorded steps, from the start on. By default its length is limited."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from costs import in_numpy, rosenbrock, rosenbrock_along, rosenbrock_gradient
from support import often

from jaxgd import Record, Trajectory, gradient_descent, heavy_ball, minimize, newton

START = np.array([-1.2, 1.0])


def by_hand(eta, n):
    """Return the path of a plain Python loop, including the start."""
    v, path = START, [START]
    for _ in range(n):
        v = v - eta * np.asarray(rosenbrock_gradient(v))
        path.append(v)
    return np.array(path)


@pytest.mark.parametrize("every", often([1, 7, 50], [1, 7]))
def test_entries_equal_those_of_a_python_loop(every, x64):
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
def test_the_length_is_bounded_and_short_runs_are_complete(n, x64):
    """A record drops every second entry whenever it is full.

    The remaining entries equal those of a run with `every` set to their spacing.
    """
    rule = gradient_descent(1e-4)
    solution = minimize(rosenbrock, START, rule, max_steps=n, stop=None, record=Record(v=True))
    path = in_numpy(solution.trajectory)
    every = int(path.step[1])
    assert path.step.tolist() == list(range(0, n + 1, every))
    assert n <= 1024 or 512 < len(path.step) <= 1025
    same = minimize(rosenbrock, START, rule, max_steps=n, stop=None, record=Record(v=True, every=every)).trajectory
    jax.tree.map(np.testing.assert_array_equal, path, in_numpy(same))


@pytest.mark.slow
def test_a_run_that_ends_long_before_max_steps_is_recorded_completely(x64):
    solution = minimize(rosenbrock, START, newton(), max_steps=10**6)
    assert solution.trajectory.step.tolist() == list(range(int(solution.steps) + 1))
    batch = jax.vmap(lambda eta: minimize(rosenbrock, START, gradient_descent(eta), max_steps=3000))(
        jnp.array([1e-3, 1e-2])
    )
    assert batch.trajectory.step.tolist() == [[4 * k for k in range(1025)]] * 2
    assert jnp.isfinite(batch.trajectory.cost).sum(1).tolist() == [751, int(batch.steps[1]) // 4 + 1]


def test_record_none_has_no_trajectory(x64):
    solution = minimize(rosenbrock, START, heavy_ball(2e-3, 0.9), max_steps=5, stop=None, record=None)
    assert solution.trajectory is None
    np.testing.assert_array_equal(solution.best_v, solution.v)
    assert solution.best_cost == solution.cost == rosenbrock(solution.v)


def test_best_v_is_the_v_of_the_lowest_cost(x64):
    record = Record(v=True)
    solution = in_numpy(minimize(rosenbrock, START, heavy_ball(5e-3, 0.9), max_steps=8, stop=None, record=record))
    k = np.argmin(solution.trajectory.cost)
    assert 0 < k < 8
    np.testing.assert_array_equal(solution.best_v, solution.trajectory.v[k])
    assert solution.best_cost == solution.trajectory.cost[k]


@pytest.mark.slow
def test_sharpness_below_the_edge_of_stability_has_no_crossing(x64):
    """For C = ¼ Σ v⁴, λ_max = 3 max v² decreases along the path and stays below 2/η = 20."""
    falling = minimize(
        lambda v: jnp.sum(v**4) / 4,
        jnp.array([1.0, 2.0]),
        gradient_descent(0.1),
        max_steps=20,
        record=Record(sharpness=True, v=True),
    ).trajectory
    np.testing.assert_allclose(falling.sharpness, 3 * np.max(np.abs(falling.v), 1) ** 2, rtol=1e-6)
    np.testing.assert_allclose(falling.stability, 20)
    assert (falling.crossed, falling.started_above) == (-1, False)


def test_a_start_above_the_edge_of_stability_is_reported(x64):
    """For C = eᵛ, λ_max = eᵛ. It is 33 at the start v = 3.5, above 2/η = 20, and below 20 at the end."""
    path = minimize(
        lambda v: jnp.sum(jnp.exp(v)),
        jnp.array([3.5]),
        gradient_descent(0.1),
        max_steps=30,
        stop=None,
        record=Record(sharpness=True),
    ).trajectory
    assert (path.crossed, path.started_above) == (-1, True)  # λ_max never rises from below 2/η to above it
    assert path.sharpness[0] == pytest.approx(np.exp(3.5))
    assert path.sharpness[-1] < 20


# Each row: λ_max at steps 10, 20 and 30, and the expected `crossed` and `started_above`.
CROSSINGS = {
    "always below": ([1, 1, 1], -1, False),
    "below, above, below": ([1, 3, 1], 20, False),
    "above, below": ([3, 1, 1], -1, True),
    "above, below, above": ([3, 1, 3], 30, True),
    "below, NaN, above": ([1, np.nan, 3], 30, False),
    "NaN, above, below": ([np.nan, 3, 1], -1, False),
}


def test_a_crossing_is_from_below_to_above():
    """The threshold 2/η is 2. All cases form one batch."""
    sharpness = np.array([values for values, _, _ in CROSSINGS.values()], np.float32)
    nothing = np.zeros_like(sharpness)
    steps = np.tile([10, 20, 30], (len(sharpness), 1))
    path = Trajectory(steps, *[nothing] * 5, None, None, jnp.asarray(sharpness), jnp.asarray(nothing + 2))
    assert path.crossed.tolist() == [crossed for _, crossed, _ in CROSSINGS.values()]
    assert path.started_above.tolist() == [above for _, _, above in CROSSINGS.values()]


@pytest.mark.slow
def test_an_optax_rule_has_no_stability_threshold(x64):
    import optax

    path = minimize(
        lambda v: jnp.sum(jnp.exp(v)), jnp.array([3.5]), optax.sgd(1e-3), max_steps=3, record=Record(sharpness=True)
    ).trajectory
    assert np.isnan(path.stability).all()
    assert path.crossed == -1


@pytest.mark.slow
def test_a_large_batch_keeps_only_the_recorded_entries():
    """Run 10,000 batch elements for 1,000 steps each, with 11 entries per element."""

    def run(v0):
        return minimize(
            rosenbrock, v0, gradient_descent(1e-3), max_steps=1000, record=Record(every=100)
        ).trajectory.cost

    costs = jax.jit(jax.vmap(run))(jnp.tile(START, (10_000, 1)))
    assert costs.shape == (10_000, 11)
    assert jnp.unique(costs[:, -1]).size == 1
