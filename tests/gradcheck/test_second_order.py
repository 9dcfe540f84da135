"""The second derivative is checked, and the Hessian must be symmetric."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import check_gradients

A = jnp.arange(1.0, 7.0).reshape(2, 3)
X = jnp.array([0.3, 1.2, 2.5])


def with_rule(f, backward):
    """Return f with a custom reverse rule: backward(x, g) is the cotangent of x."""
    wrapped = jax.custom_vjp(lambda x: f(x))
    wrapped.defvjp(lambda x: (f(x), x), lambda x, g: (backward(x, g),))
    return wrapped


def sine_with(second):
    """Return x ↦ Σ sin x. The first derivative is right, and the second derivative is `second`."""
    derivative = jax.custom_jvp(jnp.cos)
    derivative.defjvp(lambda x, t: (derivative(x[0]), second(x[0]) * t[0]))
    sine = jax.custom_jvp(lambda x: jnp.sin(x))
    sine.defjvp(lambda x, t: (sine(x[0]), derivative(x[0]) * t[0]))
    return lambda x: jnp.sum(sine(x))


def swirl(x):
    """Return a vector field without a potential. It equals the gradient of ‖x‖²/2 only at (1, 2)."""
    away = x - jnp.array([1.0, 2.0])
    return x + jnp.array([away[1], -away[0]])


field = with_rule(lambda x: jnp.sum(x**2) / 2, lambda x, g: g * swirl(x))


@jax.jit
def bend(x, c):
    return jnp.sum(x**2) / 2


@jax.jit
def bend_backward(inputs, g):
    """Return the right gradient g x at x = (1, 2). Its derivative is wrong for c = 1, 2 and 3."""
    x, c = inputs
    hide = jax.lax.stop_gradient
    away = x - jnp.array([1.0, 2.0])
    flipped, swirl = 2 * (hide(x) - x), jnp.array([away[1], -away[0]])
    slope = x + jnp.where(c == 1, flipped, 0) + jnp.where(c == 3, swirl, 0)
    return jnp.where(c == 2, hide(g), g) * slope, None


def test_order_2_finds_wrong_second_derivatives():
    """The first derivative is always right. One program holds a right and three wrong second derivatives."""
    rule = jax.custom_vjp(bend)
    rule.defvjp(lambda x, c: (bend(x, c), (x, c)), bend_backward)
    x = jnp.array([1.0, 2.0])
    right, flipped, cut_off, swirl = (check_gradients(rule, x, jnp.asarray(np.int32(c)), order=2) for c in range(4))
    for report in (right, flipped, cut_off, swirl):
        assert report.leaf("x").verdict == "right", str(report)
    assert right.verdict == "right", str(right)
    assert [report.verdict for report in (flipped, cut_off, swirl)] == ["wrong"] * 3
    assert flipped.second_order.leaf("x").pattern == "the whole leaf has its sign flipped"
    assert cut_off.second_order.leaf("cotangent[0]").verdict == "wrong"
    assert swirl.cause == "the Hessian is not symmetric"
    assert "⟨u, Hv⟩ = ⟨v, Hu⟩" in str(swirl)


@pytest.mark.slow
def test_order_2_finds_a_wrong_derivative_of_a_jvp_rule():
    report = check_gradients(sine_with(jnp.sin), A, order=2)
    assert check_gradients(sine_with(jnp.sin), A).verdict == "right"
    assert report.verdict == "wrong"
    assert report.second_order.leaf("x").pattern == "the whole leaf has its sign flipped"
    assert check_gradients(sine_with(lambda x: -jnp.sin(x)), A, order=2).verdict == "right"


@pytest.mark.slow
def test_a_field_without_a_potential_has_an_asymmetric_hessian():
    x = jnp.array([1.0, 2.0])
    assert check_gradients(field, x).verdict == "right"
    report = check_gradients(field, x, order=2)
    assert (report.verdict, report.cause) == ("wrong", "the Hessian is not symmetric")
    assert "⟨u, Hv⟩ = ⟨v, Hu⟩" in str(report)


@jax.jit
def hidden(x, c):
    """Return a value with the gradient cos x. For c = 1, the second derivative is 0."""
    hide = jax.lax.stop_gradient
    return jnp.sum(jnp.where(c == 1, x * hide(jnp.cos(x)), hide(x) + jnp.sin(x)))


@pytest.mark.slow
def test_order_2_takes_the_second_derivative_of_the_reference():
    for c, verdict in ((0, "right"), (1, "wrong")):
        report = check_gradients(
            hidden, X, jnp.asarray(np.int32(c)), reference=lambda x, c: jnp.sum(jnp.sin(x)), order=2
        )
        assert report.leaf("x").verdict == "right", str(report)
        assert report.verdict == verdict, str(report)
    assert report.second_order.leaf("x").pattern == "the whole leaf is zero"


@pytest.mark.slow
def test_order_2_of_a_saturated_tanh_is_not_wrong():
    """A compiler may round the derivative of tanh at −1e8 to 1e-16 instead of 0, so eager, jit and vmap may differ."""
    with jax.enable_x64(True):
        report = check_gradients(lambda v: jnp.tanh(-1e8 * v) * (1e8 * v) ** 2, jnp.asarray(1.0, "float64"), order=2)
    assert report.verdict in ("right", "cannot tell"), str(report)


@pytest.mark.slow
def test_order_2_finds_a_rule_that_stops_the_gradient_of_its_cotangent():
    rule = with_rule(jnp.sin, lambda x, g: jnp.cos(x) * jax.lax.stop_gradient(g))
    assert check_gradients(rule, X).verdict == "right"
    assert check_gradients(rule, X, order=2).verdict == "wrong"
    assert check_gradients(jnp.sin, X, order=2).verdict == "right"
