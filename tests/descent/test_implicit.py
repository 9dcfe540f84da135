"""Implicit and unrolled derivatives equal the closed form. Implicit ones are NaN if a run ends at no minimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import often

from jaxgd import Stop, check_gradients, gradient_descent, minimize, newton

RNG = np.random.default_rng(0)
MODES = [("reverse", 0), ("reverse", 1), ("forward", 0), ("forward", 1)]
X, Y = RNG.normal(size=(20, 3)), RNG.normal(size=20)


def ridge(w, weight, y):
    """Return C = ½‖Xw − y‖² + ½ λ‖w‖² with λ = weight. Its minimum is at w = (XᵀX + λ)⁻¹ Xᵀy."""
    return jnp.sum((X @ w - y) ** 2) / 2 + weight * jnp.sum(w**2) / 2


@jax.jit
def closed(weight, y):
    return jnp.linalg.solve(X.T @ X + weight * jnp.eye(3), X.T @ y)


def solved(weight, y, **options):
    options = {"max_steps": 2000, "record": None} | options
    return minimize(ridge, jnp.zeros(3), gradient_descent(0.02), args=(weight, y), **options)


@pytest.mark.parametrize("mode_argument", often(MODES, [MODES[0]]), ids=str)
def test_implicit_derivatives_equal_the_closed_form(mode_argument, x64):
    """The derivatives equal the closed form to 1e-6. For λ, they also equal central differences to 1e-5."""
    mode, argument = mode_argument
    mode = {"reverse": jax.jacrev, "forward": jax.jacfwd}[mode]
    got = jax.jit(mode(lambda *args: solved(*args).v, argument))(0.7, jnp.asarray(Y))
    want = jax.jit(mode(closed, argument))(0.7, jnp.asarray(Y))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)
    if argument == 0:
        h = 1e-4
        exact = {"stop": None}
        difference = (solved(0.7 + h, Y, **exact).v - solved(0.7 - h, Y, **exact).v) / (2 * h)
        np.testing.assert_allclose(got, difference, rtol=1e-5)


@pytest.mark.slow
def test_unrolled_derivatives_equal_the_closed_form(x64):
    def v(weight, y):
        options = {"max_steps": 500, "differentiate": "unroll", "record": "auto"}
        return solved(weight, y, **options).v

    np.testing.assert_allclose(jax.jacrev(v)(0.7, Y), jax.jacrev(closed)(0.7, Y), rtol=1e-9)
    np.testing.assert_allclose(
        jax.jacrev(v, 1)(0.7, Y), jax.jacrev(closed, 1)(0.7, jnp.asarray(Y)), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("n", often([0, 1, 2, 3, 10, 17], [0, 1, 3, 10]))
def test_unrolled_derivatives_with_respect_to_start_and_eta_equal_the_closed_form(n, x64):
    """v_n = (1 − 2η)ⁿ v₀, so ∂v_n/∂v₀ = (1 − 2η)ⁿ and ∂v_n/∂η = −2n (1 − 2η)ⁿ⁻¹ v₀."""

    def v(v0, eta):
        return minimize(lambda v: v**2, v0, gradient_descent(eta), max_steps=n, differentiate="unroll").v

    by_v0, by_eta = jax.jit(jax.grad(v, (0, 1)))(3.0, 0.1)
    assert by_v0 == pytest.approx(0.8**n, rel=1e-12)
    assert by_eta == pytest.approx(-2 * n * 0.8 ** (n - 1) * 3.0 if n else 0.0, rel=1e-12)


def test_derivative_of_the_minimal_cost_is_the_explicit_partial_derivative(x64):
    got = jax.jit(jax.grad(lambda weight: solved(weight, Y).cost))(0.7)
    assert got == pytest.approx(float(np.sum(np.asarray(closed(0.7, Y)) ** 2)) / 2, rel=1e-6)


@pytest.mark.slow
def test_second_derivatives_equal_the_closed_form(x64):
    got = jax.hessian(lambda weight: solved(weight, Y).v[0])(0.7)
    assert got == pytest.approx(float(jax.hessian(lambda weight: closed(weight, Y)[0])(0.7)), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("through", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_derivatives_with_respect_to_values_in_the_closure_are_right(through, x64):
    def first(weight):
        return minimize(
            lambda w: ridge(w, weight, Y), jnp.zeros(3), gradient_descent(0.02), max_steps=2000, record=None
        ).v[0]

    want = jax.jit(jax.grad(lambda weight: closed(weight, Y)[0]))
    assert through(jax.grad(first))(0.7) == pytest.approx(float(want(0.7)), rel=1e-6)
    many = jnp.array([0.7, 2.0])
    np.testing.assert_allclose(through(jax.vmap(jax.grad(first)))(many), [want(w) for w in many], rtol=1e-6)


def test_implicit_derivatives_with_respect_to_start_and_eta_are_zero(x64):
    def first(v0, eta):
        return minimize(ridge, v0, gradient_descent(eta), args=(0.7, Y), max_steps=2000, record=None).v[0]

    by_v0, by_eta = jax.jit(jax.grad(first, (0, 1)))(jnp.ones(3), 0.02)
    np.testing.assert_array_equal(by_v0, 0)
    assert by_eta == 0


# The options of a run, and True if it ends at a minimum.
ENDS = {
    "diverged": ({"rule": gradient_descent(1.0)}, False),
    "out of steps": ({"max_steps": 5}, False),
    "5 updates without tests": ({"max_steps": 5, "stop": None}, False),
    "2,000 updates without tests": ({"stop": None}, True),
    "cost target reached": ({"stop": Stop(cost=12.0)}, False),
    "large tolerance": ({"stop": Stop(gradient_atol=10.0)}, False),
    "stalled": ({"stop": Stop()}, True),
}


@pytest.mark.parametrize("name", often(ENDS, ["5 updates without tests", "2,000 updates without tests"]))
def test_the_derivative_is_nan_unless_the_descent_ends_at_a_minimum(name, x64):
    options, ends = ENDS[name]
    run = {"rule": gradient_descent(0.02), "max_steps": 2000, "record": None, "v0": jnp.zeros(3)} | options
    v = jax.jit(lambda weight: minimize(ridge, args=(weight, Y), **run).v[0])
    got = np.array([jax.jvp(v, (0.7,), (1.0,))[1], jax.grad(v)(0.7)])
    np.testing.assert_array_equal(np.isfinite(got), ends)
    if ends:
        np.testing.assert_allclose(got, jax.grad(lambda weight: closed(weight, Y)[0])(0.7), rtol=1e-6)


@pytest.mark.slow
def test_check_gradients_confirms_implicit_derivatives(x64):
    """Check v of the solution as a function of the args.

    The derivatives have a relative residual of 10 eps, far below rtol.
    """

    def first(weight, y):
        return minimize(ridge, jnp.zeros(3), newton(), args=(weight, y), max_steps=50, record=None, stop=None).v

    report = check_gradients(first, jnp.array(0.7), jnp.asarray(Y), rtol=1e-6)
    assert report.verdict == "right", str(report)
