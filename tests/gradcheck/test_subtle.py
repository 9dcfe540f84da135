"""Wrong derivatives that a check could miss, and right ones that it could reject."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import often

from jaxgd import check_gradients

X = jnp.array([0.3, 1.2, 2.5])


def with_rule(f, backward, forward=None):
    rule = jax.custom_vjp(f)
    rule.defvjp(forward or (lambda *args: (f(*args), args)), backward)
    return rule


def traced(number):
    """Return an integer as an array, so that a check with another integer reuses the compiled programs."""
    return jnp.asarray(np.int32(number))


def squares(x):
    return jnp.sum(x * x)


def only_first(f):
    """Return f with a forward rule that uses only the first element of the gradient."""
    rule = jax.custom_jvp(f)

    @rule.defjvp
    def _(primals, tangents):
        gradient = jax.grad(f)(*primals)
        return f(*primals), gradient[0] * tangents[0][0]

    return rule


# Hidden elements.


@pytest.mark.parametrize("seed", often(range(3), [0]))
@pytest.mark.parametrize("n", often([2, 50], [2]))
def test_a_large_element_does_not_hide_a_wrong_small_one(n, seed):
    """The derivative of 1/x at 1e-4 is 1e8 times the derivative at 1, where the rule is wrong."""
    x = jnp.array([1e-4] + [1.0] * n)
    wrong = only_first(lambda y: jnp.sum(1 / y))
    report = check_gradients(lambda x, y: jnp.sum(1 / x) + wrong(y), x, x, seed=seed)
    assert (report.leaf("x").verdict, report.leaf("y").verdict) == ("right", "wrong")


def test_elements_hidden_by_rounding_are_listed_as_not_checked():
    """f is about 1e12, so its rounding hides changes of the terms of the second and third element."""
    report = check_gradients(lambda r: jnp.sum(r**-12.0 - r**-6.0), jnp.array([0.1, 1.0, 3.0]))
    assert report.verdict == "right"
    assert any("elements of r with a far smaller gradient" in note for note in report.not_checked)


@pytest.mark.slow
def test_a_float32_constant_in_a_rule_hides_no_wrong_element():
    table = jnp.ones(3)

    def backward(inputs, g):
        x, least = inputs
        return g * 4 * jnp.where(x > least, x**3, 0) * table, None

    rule = with_rule(lambda x, least: jnp.sum(x**4), backward)
    for least, verdict in ((0, "right"), (50, "wrong")):
        report = check_gradients(rule, jnp.array([100.0, 1.0, 2.0]), traced(least))
        assert report.verdict == verdict, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("power", [3, 4])
def test_a_factor_of_1_00001_is_wrong(power):
    """The truncation error of a quotient must not count as variation of f on a small scale."""

    def backward(inputs, g):
        x, millionths = inputs
        return g * power * x ** (power - 1) * (1 + millionths.astype(x.dtype) / 1_000_000), None

    rule = with_rule(lambda x, millionths: jnp.sum(x**power), backward)
    for millionths in (0, 10, 1000):
        assert check_gradients(rule, X, traced(millionths)).verdict == ("wrong" if millionths else "right")


# Rules with another value than f.


def test_a_rule_with_another_value_than_f_is_wrong():
    rule = with_rule(
        lambda x, off: squares(x),
        lambda inputs, g: (2 * inputs[0] * g, None),
        lambda x, off: ((1 + off.astype(x.dtype) / 100_000) * squares(x), (x,)),
    )
    assert check_gradients(rule, X, traced(0)).verdict == "right"
    for off in (100_000, 5):
        report = check_gradients(rule, X, traced(off))
        assert (report.verdict, report.cause) == ("wrong", "the rule returns a different value than f")


# Dtypes.


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_rules_for_low_precision_arguments_are_judged(dtype):
    def f(x, halves):
        return jnp.sum(jnp.sin(x.astype(jnp.float32)))

    def backward(inputs, g):
        x, halves = inputs
        return (halves / 2 * g * jnp.cos(x.astype(jnp.float32))).astype(x.dtype), None

    for halves, verdict in ((2, "right"), (3, "wrong")):
        assert check_gradients(with_rule(f, backward), X.astype(dtype), traced(halves)).verdict == verdict


@pytest.mark.slow
def test_outputs_with_an_overflowing_reciprocal_are_right():
    x = jnp.array([0.5, 1.0, 2.0], jnp.float16)
    assert check_gradients(lambda x: x * jnp.float16(1e-5), x).verdict == "right"
