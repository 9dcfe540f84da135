"""Runs on mini-batches agree with hand-written loops, continue bit for bit, and reach the minimum on average."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from costs import in_numpy
from support import often

from jaxgd import Record, Stop, backtracking, gradient_descent, gradient_flow, heavy_ball, minimize, newton, wolfe
from jaxgd.descent.batching import updates_made
from jaxgd.descent.driver import _advance
from jaxgd.errors import DtypeError, RangeError, ShapeError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)), RNG.normal(size=20)
RULES = {
    "gradient descent": (lambda: gradient_descent(0.1), lambda: optax.sgd(0.1)),
    "heavy ball": (lambda: heavy_ball(0.1, 0.9), lambda: optax.sgd(0.1, 0.9)),
    "adam": (lambda: optax.adam(0.1), lambda: optax.adam(0.1)),
}
QUICK = [("heavy ball", False), ("adam", True)]


def regression(w, batch, scale=1.0):
    x, y = batch
    return scale * jnp.mean((x @ w - y) ** 2)


@pytest.mark.parametrize("case", often([(name, wide) for name in RULES for wide in (False, True)], QUICK), ids=str)
def test_a_run_agrees_with_a_hand_written_loop(case):
    """The path and the costs of 13 updates on five mini-batches agree with the loop up to rounding."""
    name, wide = case
    rule, by_hand = (make() for make in RULES[name])
    with jax.enable_x64(wide):
        batches = (jnp.asarray(X).reshape(5, 4, 3), jnp.asarray(Y).reshape(5, 4))
        solution = minimize(regression, jnp.zeros(3), rule, batches=batches, max_steps=13, record=Record(v=True))
        v, state, path = jnp.zeros(3), by_hand.init(jnp.zeros(3)), in_numpy(solution.trajectory)

        @jax.jit
        def update(v, state, k):
            c, g = jax.value_and_grad(regression)(v, jax.tree.map(lambda x: x[k % 5], batches))
            steps, state = by_hand.update(g, state, v)
            return c, v + steps, state

        for k in range(14):
            np.testing.assert_allclose(path.v[k], v, rtol=0, atol=1e-14 if wide else 1e-6)
            c, v, state = update(v, state, k)
            np.testing.assert_allclose(path.cost[k], c, rtol=1e-14 if wide else 1e-6)
    assert solution.outcome.reason.name == "COMPLETED"
    assert (float(solution.cost), int(solution.evaluations)) == (path.cost[-1], 14)
    assert float(solution.best_cost) == path.cost.min()


def test_runs_with_random_keys_continue_bit_for_bit_and_under_vmap(x64):
    """Two states continue under vmap as they do without vmap, up to rounding.

    The final cost and aux use the key of the next update.
    """
    keys = jax.random.split(jax.random.key(0), 5)

    def cost(v, key, scale):
        noise = jax.random.key_data(key) / 2**32  # This compiles faster than drawing a random number.
        return scale * jnp.sum((v - 2 - noise) ** 2), noise

    def run(k, state=None):
        v0, options = (jnp.zeros(2) if state is None else None), {"stop": None, "record": None, "has_aux": True}
        rule = heavy_ball(0.05, 0.9)
        return minimize(cost, v0, rule, args=(1.5,), batches=keys, max_steps=k, state=state, **options)

    early, late, whole = run(3), run(8), run(14)
    jax.tree.map(np.testing.assert_array_equal, in_numpy(run(11, early.state)), in_numpy(whole))
    np.testing.assert_allclose(whole.aux, jax.random.key_data(keys[14 % 5]) / 2**32, rtol=1e-14)
    both = jax.tree.map(lambda *x: jnp.stack(x), early.state, late.state)
    batch = jax.jit(jax.vmap(lambda state: run(6, state)))(both)
    for i, one in enumerate((run(6, early.state), whole)):
        for name in ("v", "cost", "aux"):
            np.testing.assert_allclose(getattr(batch, name)[i], getattr(one, name), rtol=1e-12, err_msg=name)


def test_each_run_under_vmap_has_its_own_number_of_updates():
    np.testing.assert_array_equal(jax.vmap(updates_made, (None, 0))(jnp.array(5), jnp.array([5, 3])), [5, 3])


@pytest.mark.slow
def test_each_recorded_sharpness_is_that_of_the_current_batch():
    """C = bv²/2 has the curvature b, which is 1, 3 and 5 in turn. The second run continues after update 2."""
    batches, options = jnp.array([1.0, 3.0, 5.0]), {"record": Record(sharpness=True)}
    state = None
    for k, want in ((2, [1, 3, 5]), (4, [5, 1, 3, 5, 1])):
        solution = minimize(
            lambda v, b: b * v**2 / 2, 1.0, gradient_descent(0.1), batches=batches, max_steps=k, state=state, **options
        )
        np.testing.assert_allclose(solution.trajectory.sharpness, want, rtol=1e-5)
        state = solution.state


def test_mini_batches_by_index_reach_the_minimum_on_average():
    """The mean of v over 200 runs equals the least-squares solution within 4 standard errors.

    Each update uses 8 random examples. The updates are affine in v with independent coefficients, so the mean of v
    follows gradient descent on all data.
    """
    indices = jax.random.randint(jax.random.key(1), (200, 300, 8), 0, 20)

    def by_index(w, i, x, y):
        return regression(w, (x[i], y[i]))

    @jax.jit
    @jax.vmap
    def runs(indices):
        options = {"args": (jnp.asarray(X), jnp.asarray(Y)), "max_steps": 300, "record": None}
        return minimize(by_index, jnp.zeros(3), gradient_descent(0.1), batches=indices, **options).v

    ends = np.asarray(runs(indices))
    error = ends.mean(0) - np.linalg.lstsq(X, Y)[0]
    assert ends.std(0).min() > 0.02
    np.testing.assert_array_less(np.abs(error), 4 * ends.std(0) / np.sqrt(200))


def test_new_batches_do_not_recompile_and_an_update_uses_one_batch():
    """For C = (v − b)²/2 and dt = 1, a Runge-Kutta step with a constant b multiplies v − b by 3/8."""
    cost, rule = lambda v, b: (v - b) ** 2 / 2, gradient_flow(1.0)
    for first, second in ((1.0, 5.0), (-2.0, 3.0)):
        size = _advance._cache_size()
        got = minimize(cost, 0.0, rule, batches=jnp.array([first, second]), max_steps=3, record=None).v
        v = 0.0
        for b in (first, second, first):
            v = b + 0.375 * (v - b)
        assert got == pytest.approx(v)
    assert _advance._cache_size() == size


def ending(a, differentiate="implicit"):
    """Minimize C = (v − a·b)² with b = 1, then b = 2, and return the aux a·b·v.

    The two updates give v = 0.64 + 0.56a. The aux uses the b of a third update, which is 1.
    """
    options = {"batches": jnp.array([1.0, 2.0]), "max_steps": 2, "differentiate": differentiate, "record": None}
    return minimize(lambda v, b: ((v - a * b) ** 2, a * b * v), 1.0, gradient_descent(0.1), has_aux=True, **options).aux


def test_derivatives_need_unroll():
    assert jax.jit(jax.grad(lambda a: ending(a, "unroll")))(1.0) == pytest.approx(0.64 + 2 * 0.56)
    for run in (
        ending,
        lambda x: minimize(regression, x * jnp.ones(3), gradient_descent(0.1), batches=(X[None], Y[None]), max_steps=1),
    ):
        with pytest.raises(RangeError, match=r'no implicit derivative\.\nUse differentiate="unroll"'):
            jax.jit(lambda x, run=run: jax.jvp(run, (x,), (x,)))(1.0)


BAD = {
    "arrays with 20 and 19 batches": (
        {"batches": (X, Y[:19])},
        ShapeError,
        r"batches must be .* got shapes \(20, 3\), \(19,\)",
    ),
    "an array with 0 batches": ({"batches": Y[:0]}, ShapeError, r"batches must be .* got shapes \(0,\)"),
    "a scalar": ({"batches": 1.0}, ShapeError, r"batches must be .* got shapes \(\)"),
    "no arrays": ({"batches": ()}, ShapeError, "batches must be .* got no arrays"),
    "text": ({"batches": ("x",)}, DtypeError, r"batches must hold .* got str at batches\[0\]"),
    "backtracking": ({"rule": backtracking()}, RangeError, "backtracking.* searches with C"),
    "newton": ({"rule": newton()}, RangeError, "newton.* searches with C"),
    "wolfe in optax.chain": ({"rule": optax.chain(wolfe())}, RangeError, "optax transformation searches with C"),
    "optax.lbfgs": ({"rule": optax.lbfgs()}, RangeError, "optax transformation searches with C"),
    "Stop()": ({"stop": Stop()}, RangeError, "stop must not set stalled: .*\nPass stop=None"),
    "stop with tests of cost and gradient": (
        {"stop": Stop(gradient_atol=1.0, cost=1.0, decrease_rtol=0.1, stalled=False)},
        RangeError,
        "stop must not set gradient_atol, cost, decrease_rtol:",
    ),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused(name):
    options, error, words = BAD[name]
    good = {"rule": gradient_descent(0.1), "batches": jnp.ones(3), "max_steps": 1}
    with pytest.raises(error, match=r"^minimize: .*" + words):
        minimize(lambda v, b: v * jnp.sum(b), 1.0, **good | options)
