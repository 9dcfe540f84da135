"""minimize continues from a state. A callback or a time limit can stop a run, and an exception carries its state."""

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
from costs import in_numpy, rosenbrock, valley
from support import often

from jaxgd import (
    Record,
    Stop,
    backtracking,
    gradient_descent,
    heavy_ball,
    load_state,
    minimize,
    newton,
    save_state,
    wolfe,
)

START = (-1.2, 1.0)


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
    """7 updates, a saved state and 12 more equal 19 updates. A callback after every 4 updates changes nothing."""
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
    """The minimum moves from v = 1 to v = 5.

    For rules with a line search, the second run also scales C by 10⁷ or 10⁻⁷.
    """
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
    """Each update is Δv = μ Δv′ − η∇C, with the previous step Δv′ and the cost C of its mini-batch."""
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


def test_a_run_that_updates_v_in_place_keeps_the_callers_v0(monkeypatch):
    """A run with at least WIDE variables updates v in place. best_v is v, because nothing is recorded."""
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


# Exceptions, Ctrl-C, compilations and the progress line.


class OwnError(Exception):
    pass


def fail():
    raise OwnError


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


WATCHED = {"max_steps": 10**9, "stop": None, "record": None}


def until(k, state=None):
    """Return the state after k updates from `state`, or from START."""
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
    """The exception keeps its class. Its `state`, and a run that continues from it, equal an uninterrupted run."""

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
        # JAX registers a callback of the garbage collector, which would swallow a KeyboardInterrupt.
        gc.disable()
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


def test_an_exception_in_a_chunk_carries_the_state_before_the_chunk():
    """The cost raises at v = 0.5, in the third update or at the start. At the start, `state` is None."""

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
    """Return a list that grows by one entry at each compilation during the test."""
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


def test_later_callbacks_compile_nothing_and_progress_is_one_line(compiled, monkeypatch):
    """After the second callback, nothing is compiled. The progress line is shown only on a terminal."""
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


def test_progress_shows_the_norm_that_the_gradient_test_uses(monkeypatch):
    """At the bound 0.5, the gradient points out of the box, so the reduced gradient is 0."""
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    options = {"max_steps": 9, "bounds": (0.5, None), "stop": None, "record": None, "progress": True}
    solution = minimize(valley, jnp.ones(2), gradient_descent(0.25), **options)
    assert solution.gradient.tolist() == [1, 1]
    assert stream.getvalue().strip().endswith("‖∇C‖ = 0]")
