"""C and ∇C of a solution belong to its v. Planned steps of 0 are no stall. Bad input is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from costs import rosenbrock, rosenbrock_along
from support import often

from jaxgd import Record, Stop, backtracking, gradient_descent, minimize, wolfe
from jaxgd.errors import RangeError, ShapeError

START = np.array([-1.2, 1.0])

OPTIMIZERS = {
    "clipped lbfgs": lambda: optax.chain(optax.lbfgs(), optax.clip(0.1)),
    "halved wolfe": lambda: optax.chain(wolfe(), optax.scale(0.5)),
    "line search without a cached gradient": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15)
    ),
    "MultiSteps of lbfgs": lambda: optax.MultiSteps(optax.lbfgs(), 2),
    "MultiSteps of backtracking": lambda: optax.MultiSteps(backtracking(), 2),
    "adam": lambda: optax.adam(1e-2),
    "noise": lambda: optax.chain(optax.add_noise(1e-3, 0.5, 0), optax.sgd(1e-3)),
}


@pytest.mark.parametrize("name", often(OPTIMIZERS, ["clipped lbfgs", "MultiSteps of backtracking", "noise"]))
def test_cost_and_gradient_belong_to_v(name, x64):
    """The C and ∇C that an optimizer caches may belong to another point."""
    s = minimize(rosenbrock, START, OPTIMIZERS[name](), max_steps=12, stop=None, record=Record(v=True))
    want = rosenbrock_along(s.trajectory.v)
    np.testing.assert_allclose(s.trajectory.cost, want[0], rtol=1e-12)
    np.testing.assert_allclose(s.trajectory.gradient_norm, np.linalg.norm(want[1], axis=1), rtol=1e-9)
    np.testing.assert_allclose(s.cost, rosenbrock(np.asarray(s.v)), rtol=1e-12)
    np.testing.assert_allclose(s.best_cost, rosenbrock(np.asarray(s.best_v)), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda d: d.__name__)
def test_low_precision_v_is_rounded_before_the_cost_is_evaluated(dtype):
    """XLA may keep more digits of v than its dtype has. C and ∇C would then belong to another point."""

    def cost(v):
        a, b = v["a"], v["b"].astype(jnp.float32)
        return jnp.sum(100 * (b - a**2) ** 2 + (1 - a) ** 2)

    v0 = {"a": jnp.array([-1.2, 0.3]), "b": jnp.array([1.0, -0.5], dtype)}
    s = minimize(cost, v0, gradient_descent(1e-3), max_steps=20, stop=None)
    c, want = jax.jit(jax.value_and_grad(cost))(s.v)
    np.testing.assert_allclose(s.cost, c, rtol=1e-5)
    np.testing.assert_allclose(s.gradient["a"], want["a"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rule", [
    gradient_descent(optax.linear_schedule(0.0, 1e-3, 10, transition_begin=40)),
    optax.sgd(optax.linear_schedule(0.0, 1e-3, 10, transition_begin=40)),
    optax.MultiSteps(optax.sgd(1e-3), 32),
], ids=["schedule", "optax schedule", "MultiSteps"])  # fmt: skip
def test_planned_steps_of_zero_do_not_count_as_stalled(rule):
    s = minimize(rosenbrock, START, rule, max_steps=200, record=None)
    assert s.outcome.reason.name == "MAX_STEPS"
    assert s.cost < rosenbrock(START)


def above_one(v):
    return jnp.maximum(jnp.sum(v**2) - 1, 0.0)


@pytest.mark.parametrize("target", [0.0, 1e-310, -0.0])
def test_a_cost_equal_to_the_target_stops_the_run(target, x64):
    s = minimize(above_one, START, gradient_descent(0.1), max_steps=100, stop=Stop(cost=target), record=None)
    assert s.outcome.reason.name == "COST"


# ∇C = 0 at the start. The outcome is GRADIENT only if the Hessian is positive definite.
AT_ZERO = {
    "constant": (lambda v: jnp.asarray(7.0), "ZERO_GRADIENT"),
    "saddle": (lambda v: (v[0] * v[1] - 1) ** 2 + v[2] ** 2, "ZERO_GRADIENT"),
    "unused variable": (lambda v: v[0] ** 2 + v[1] ** 2, "ZERO_GRADIENT"),
    "maximum": (lambda v: -jnp.sum(v**2), "ZERO_GRADIENT"),
    "minimum": (lambda v: jnp.sum(v**2) + v[0] * v[1] + 1e-3 * v[2] ** 2, "GRADIENT"),
    # The negative curvature is along (1, −1), so a search from a vector with equal leaves would miss it.
    "saddle of two leaves": (lambda v: (v[0] * v[1] + 1) ** 2, "ZERO_GRADIENT", (0.0, 0.0)),
    "50 variables": (lambda v: jnp.sum(jnp.geomspace(1e-2, 1, 50) * v**2), "GRADIENT", jnp.zeros(50)),
}


@pytest.mark.parametrize("name", often(AT_ZERO, ["constant", "minimum", "saddle of two leaves", "50 variables"]))
def test_a_zero_gradient_at_the_start_is_ok_only_at_a_minimum(name):
    cost, reason, v0 = (*AT_ZERO[name], jnp.zeros(3))[:3]
    record = Record(function=lambda v: 2.0)
    s = minimize(cost, v0, gradient_descent(0.1), max_steps=5, record=record)
    assert (s.steps, s.outcome.reason.name, s.outcome.ok) == (0, reason, reason == "GRADIENT")
    assert s.trajectory.value.tolist() == [2]


@pytest.mark.bad_input
def test_numpy_integers_are_accepted_as_counts(x64):
    s = minimize(rosenbrock, START, gradient_descent(1e-3), max_steps=np.int64(4), record=Record(every=np.int32(2)))
    assert s.trajectory.step.tolist() == [0, 2, 4]


def test_a_cost_may_be_unhashable():
    class Cost:
        __hash__ = None

        def __call__(self, v):
            return jnp.sum(v**2)

    assert minimize(Cost(), jnp.ones(2), gradient_descent(0.25), max_steps=1, stop=None).cost == 0.5


@pytest.mark.bad_input
def test_a_state_of_another_rule_or_shape_is_refused():
    state = minimize(rosenbrock, START, backtracking(3), max_steps=2).state
    for rule in (backtracking(10), wolfe(), optax.adam(0.1)):
        with pytest.raises(RangeError, match="another rule"):
            minimize(rosenbrock, None, rule, max_steps=2, state=state)
    with pytest.raises(ShapeError, match="v0"):
        minimize(rosenbrock, np.ones(3), backtracking(3), max_steps=2, state=state)
    with pytest.raises(ShapeError, match=r"batch of shape \(2,\).*\n.*at\(i\)"):
        minimize(rosenbrock, None, backtracking(3), max_steps=2, state=jax.tree.map(lambda x: jnp.stack([x, x]), state))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("stop", "words"),
    [
        (Stop(cost=float("nan")), "stop.cost"),
        (Stop(diverging=0), "above 0"),
        (Stop(stalled=1), "stalled"),
        (Stop(cost="x"), "stop.cost"),
    ],
)
def test_invalid_stop_settings_are_refused(stop, words):
    with pytest.raises((RangeError, TypeError), match=words):
        minimize(rosenbrock, START, gradient_descent(1e-3), max_steps=2, stop=stop)


@pytest.mark.bad_input
def test_unrolling_a_line_search_is_refused():
    with pytest.raises(RangeError, match="cannot be unrolled"):
        minimize(rosenbrock, START, wolfe(), max_steps=2, differentiate="unroll")
