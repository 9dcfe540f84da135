"""A loop over the steps of a Descent ends as `minimize` does."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from costs import quadratic, valley
from jax import lax
from support import often

from jaxgd import Descent, Reason, Stop, backtracking, gradient_descent, heavy_ball, minimize, newton, wolfe
from jaxgd.errors import DtypeError, RangeError, ShapeError

START = np.array([-1.2, 1.0])
A = np.diag([1.0, 3.0])


def ended(descent, most, state, *args):
    """Make steps from a state until the descent is done or at step `most`. Return the state and the outcome."""
    going = lambda s: ~descent.done(s, *args) & (s.step < most)  # noqa: E731
    end = lax.while_loop(going, lambda s: descent.step(s, *args), state)
    return end, descent.outcome(end, *args)


def above(v, a):
    return quadratic(v - 3, a) + 1


# The cost, the rule and the stop. The first word of a case's name is the expected reason.
CASES = {
    "GRADIENT": (quadratic, lambda: heavy_ball(0.2, 0.3), "auto"),
    "GRADIENT by newton": (quadratic, newton, "auto"),
    "GRADIENT by wolfe": (quadratic, wolfe, "auto"),
    "GRADIENT by backtracking": (quadratic, backtracking, "auto"),
    "GRADIENT by adam": (quadratic, lambda: optax.adam(0.1), Stop(gradient_rtol=1e-2)),
    "GRADIENT without C": (quadratic, lambda: gradient_descent(0.2), Stop(gradient_rtol=1e-3, diverging=None)),
    "STALLED": (above, lambda: gradient_descent(0.3), Stop(cost=0.0)),
    "STEP": (above, lambda: gradient_descent(0.3), Stop(step_rtol=1e-3)),
    "DECREASE": (above, lambda: gradient_descent(0.3), Stop(decrease_atol=1e-3)),
    "DIVERGING": (quadratic, lambda: gradient_descent(1e5), "auto"),  # an update multiplies C by over 10¹⁰
    "MAX_STEPS": (quadratic, lambda: gradient_descent(1e-4), "auto"),
    "NOT_FINITE": (lambda v, a: jnp.log(-v[0]), lambda: gradient_descent(10.0), None),
}


@pytest.mark.parametrize("wide", often([False, True], [False]), ids=["float32", "float64"])
@pytest.mark.parametrize("name", often(CASES, ["GRADIENT", "STALLED"]))
def test_a_loop_over_steps_ends_as_minimize_does(name, wide):
    """The loop and `minimize` end with the same bits, and can continue each other's states."""
    cost, rule, stop = CASES[name]
    rule, most = rule(), 300
    with jax.enable_x64(wide):
        descent, v0, a = Descent(cost, rule, stop), jnp.array(START), jnp.asarray(A)
        loop = jax.jit(lambda most, state, a: ended(descent, most, state, a))
        run = lambda n, state=None: minimize(  # noqa: E731
            cost, v0, rule, args=(a,), max_steps=n, stop=stop, record=None, state=state
        )
        solution, first = run(most), descent.init(v0, a)
        end, outcome = loop(most, first, a)
        middle, _ = loop(3, first, a)
        crossed = run(most - int(middle.step), middle)
        for state, code in (
            (end, outcome.code),
            loop(most, run(int(middle.step)).state, a),
            (crossed.state, crossed.outcome.code),
        ):
            code = getattr(code, "code", code)
            assert int(code) in (solution.outcome.code, Reason.RUNNING)
            # At its end, `minimize` also checks for a stall, which changes these two fields.
            state = state._replace(next_look=solution.state.next_look, cost_seen=solution.state.cost_seen)
            jax.tree.map(np.testing.assert_array_equal, state, solution.state)
        reason = "RUNNING" if name == "MAX_STEPS" else name.split()[0]
        assert outcome.reason.name == reason
        assert solution.outcome.reason.name == name.split()[0]
        if reason == "GRADIENT":
            assert outcome.message == solution.outcome.message


@pytest.mark.slow
def test_steps_under_vmap_keep_batch_elements_that_are_done():
    """Steps do not change a batch element that is done, so a scan gives the same states as a loop.

    The cost closes over a traced number.
    """
    starts = jnp.array([[1.0, 2.0], [0.0, 0.0], [jnp.nan, 1.0], [1.0, 2.0]])

    @jax.jit
    @jax.vmap
    def both(v0, scale):
        descent = Descent(lambda v: scale * valley(v), gradient_descent(0.4))
        first = descent.init(v0)
        end, outcome = ended(descent, 20, first)
        return end, lax.scan(lambda s, _: (descent.step(s), None), first, length=20)[0], outcome

    looped, scanned, outcome = both(starts, jnp.array([1.0, 1.0, 1.0, 2.0]))
    jax.tree.map(np.testing.assert_array_equal, looped, scanned)
    assert [Reason(code).name for code in outcome.code] == ["GRADIENT", "GRADIENT", "START_NOT_FINITE", "RUNNING"]
    # A step multiplies v by 0.2, and by −0.6 in the last element, so that 20 steps are too few for it.
    assert looped.step.tolist() == [8, 0, 0, 20]
    np.testing.assert_allclose(looped.v[3], (-0.6) ** 20 * starts[3], rtol=1e-5)


def test_each_step_may_have_its_own_mini_batch():
    """The steps equal a hand-written heavy ball. Each step uses the gradient of the previous mini-batch."""
    descent, targets = Descent(lambda v, b: jnp.sum((v - b) ** 2), heavy_ball(0.05, 0.5), None), [1.0, -3.0, 5.0, 0.0]
    state, v, velocity = descent.init(jnp.zeros(2), targets[0]), np.zeros(2), np.zeros(2)
    for before, target in itertools.pairwise(targets):
        state = descent.step(state, target)
        velocity = 0.5 * velocity - 0.05 * 2 * (v - before)
        v = v + velocity
        np.testing.assert_allclose(state.v, v, rtol=1e-5)
        np.testing.assert_allclose(state.cost, np.sum((v - target) ** 2), rtol=1e-5)


def test_a_step_keeps_the_types_of_its_state():
    """With equal dtypes and weak types, a second call of `step` compiles nothing."""
    descent = Descent(valley, backtracking())
    before = jax.eval_shape(descent.init, jnp.ones(2))
    after = jax.eval_shape(descent.step, before)
    assert [(x.dtype, x.weak_type) for x in jax.tree.leaves(before)] == [
        (x.dtype, x.weak_type) for x in jax.tree.leaves(after)
    ]


BAD = {
    "cost is a number": (lambda: Descent(3.0, wolfe()), DtypeError, "cost must be a function"),
    "rule is a function": (lambda: Descent(valley, wolfe), DtypeError, "rule must be"),
    "stop is text": (lambda: Descent(valley, wolfe(), "never"), DtypeError, "stop must be"),
    "NaN in stop": (lambda: Descent(valley, wolfe(), Stop(cost=jnp.nan)).init(jnp.ones(2)), RangeError, "stop.cost"),
    "v0 is text": (lambda: Descent(valley, wolfe()).init("x"), DtypeError, "v0 must be"),
    "args hold text": (lambda: Descent(quadratic, wolfe()).init(jnp.ones(2), "x"), DtypeError, "args must hold"),
    "cost returns two numbers": (lambda: Descent(jnp.square, wolfe()).init(jnp.ones(2)), ShapeError, "one real scalar"),
    "state is an array": (lambda: Descent(valley, wolfe()).step(jnp.ones(2)), DtypeError, "state must be"),
    "state of a batch": (lambda: Descent(valley, RULE).step(batch()), ShapeError, r"a batch of shape \(2,\)"),
    "state of another rule": (lambda: Descent(valley, wolfe()).done(state()), RangeError, "another rule made it"),
}
RULE = gradient_descent(0.1)


def state():
    return minimize(valley, jnp.ones(2), RULE, max_steps=0, record=None).state


def batch():
    return jax.tree.map(lambda x: jnp.stack([x, x]), state())


@pytest.mark.bad_input
@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused(name):
    call, error, words = BAD[name]
    with pytest.raises(error, match="^Descent: .*" + words):
        call()
