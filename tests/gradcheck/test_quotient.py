"""Difference quotients of functions with a known derivative and of functions without one."""

import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxgd.gradcheck.ladders import State
from jaxgd.gradcheck.measure import Sample
from jaxgd.gradcheck.quotient import SAFETY, Shape, analyse, central, flat, ladder, taylor_slope

EPS = float(np.finfo(float).eps)
SHORT = ladder(2.0**-6, 4, 2.0**-22)
LONG = ladder(2.0**8, 22)


def values(F, h):
    with np.errstate(all="ignore"):
        return np.array([F(t) for t in h]), np.array([F(-t) for t in h]), float(F(0.0))


def look(F, h=LONG, rounding=None):
    plus, minus, zero = values(F, h)
    return analyse(h, plus, minus, zero, EPS * abs(zero) if rounding is None else rounding)


SMOOTH = {
    "sin": (lambda t: np.sin(1 + t), np.cos(1.0)),
    "exp": (lambda t: np.exp(3 * (1 + t)), 3 * np.exp(3.0)),
    "linear": (lambda t: 3 * t + 1, 3.0),
    "square at 0": (lambda t: t * t, 0.0),
    "log near 0": (lambda t: np.log(1e-3 + t), 1e3),
    "a hundred oscillations": (lambda t: np.sin(100 * (1 + t)), 100 * np.cos(100.0)),
    "a million oscillations": (lambda t: np.sin(1e6 * (1 + t)), 1e6 * np.cos(1e6)),
    "steeper within small steps": (lambda t: np.sin(1 + t) + t * np.exp(-((1e4 * t) ** 2)), 1 + np.cos(1.0)),
    "rounded off at a kink": (lambda t: np.sqrt((t + 1e-4) ** 2 + 1e-8), 1 / np.sqrt(2)),
    "kink nearby": (lambda t: abs(t + 1e-3), 1.0),
    "tiny": (lambda t: 1e-200 * np.sin(1 + t), 1e-200 * np.cos(1.0)),
    "huge": (lambda t: 1e200 * np.sin(1 + t), 1e200 * np.cos(1.0)),
    "on a plateau": (lambda t: 1 + 1e-6 * np.sin(1 + t), 1e-6 * np.cos(1.0)),
    "overflows far away": (lambda t: np.exp(np.exp(4 * t)), 4 * np.e),
    "not finite far away": (lambda t: np.log(1 + t), 1.0),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_the_derivative_is_within_the_estimated_error(name):
    F, derivative = SMOOTH[name]
    q = look(F)
    assert q.shape is Shape.SMOOTH
    assert abs(q.value - derivative) <= SAFETY * q.error + 4 * EPS * abs(derivative)
    resolved = 1e-5 if name == "on a plateau" else 1e-7
    assert SAFETY * q.error <= resolved * abs(derivative) or derivative == 0


def test_a_slope_that_vanishes_below_the_noise_is_uncertain():
    """F has slope 1 for steps above 1e-5 but derivative 0. Rounding hides the transition."""
    q = look(lambda t: 1 + t / (1 + (1e-5 / t) ** 8) if t else 1.0)
    assert abs(q.value) <= SAFETY * q.error


@pytest.mark.parametrize("name", ["sin", "exp", "linear", "square at 0"])
def test_four_steps_suffice_for_a_smooth_function(name):
    F, derivative = SMOOTH[name]
    q = look(F, SHORT)
    assert abs(q.value - derivative) <= SAFETY * q.error + 4 * EPS * abs(derivative)
    assert SAFETY * q.error <= 1e-8 * abs(derivative) or derivative == 0


@pytest.mark.parametrize("name", ["a hundred oscillations", "a million oscillations"])
def test_four_steps_estimate_a_large_error_for_fast_oscillations(name):
    F, derivative = SMOOTH[name]
    q = look(F, SHORT)
    assert SAFETY * q.error > 1e-6 * abs(derivative)


@hypothesis.given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.floats(-2, 2))
def test_derivatives_of_polynomials_are_within_the_error(coefficients, x):
    """The rounding of F is at most the rounding of its terms."""
    polynomial = np.polynomial.Polynomial(coefficients)
    rounding = 10 * EPS * sum(abs(c) * max(1, abs(x)) ** k for k, c in enumerate(coefficients))
    q = look(lambda t: polynomial(x + t), ladder(2.0**-2, 6), rounding)
    assert abs(q.value - polynomial.deriv()(x)) <= SAFETY * q.error + 1e-15


SINGULAR = {
    "relu": (lambda t: max(t, 0.0), Shape.KINK),
    "absolute value": (abs, Shape.KINK),
    "a small kink in a smooth function": (lambda t: np.sin(1 + t) + 1e-4 * abs(t), Shape.KINK),
    "a kink of a curved function": (lambda t: np.exp(t) if t > 0 else np.cos(t), Shape.KINK),
    "step": (lambda t: float(t > 0), Shape.JUMP),
    "step in a smooth function": (lambda t: np.sin(1 + t) + (t >= 0), Shape.JUMP),
    "cube root": (np.cbrt, Shape.STEEP),
    "root of the absolute value": (lambda t: np.sqrt(abs(t)), Shape.STEEP),
    "root": (np.sqrt, Shape.EDGE),
    "logarithm": (np.log, Shape.NOT_FINITE),
    "NaN": (lambda t: math.nan, Shape.NOT_FINITE),
    "infinite at 0 alone": (lambda t: 1 / t if t else math.inf, Shape.NOT_FINITE),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_each_singularity_is_named(name):
    F, shape = SINGULAR[name]
    assert look(F).shape is shape


@pytest.mark.parametrize("name", ["relu", "absolute value", "a small kink in a smooth function", "step", "cube root"])
def test_four_steps_suffice_to_name_a_singularity(name):
    F, shape = SINGULAR[name]
    assert look(F, SHORT).shape is shape


def test_a_kink_has_the_slopes_of_both_sides():
    q = look(lambda t: 3 * t if t > 0 else -2 * t)
    assert (q.left, q.right) == (pytest.approx(-2), pytest.approx(3))


def single(F):
    """Return F computed in float32 with float64 results, so that the dtype does not show the rounding."""
    return lambda t: float(np.float32(F(np.float32(1 + np.float32(t)))))


@pytest.mark.parametrize(("name", "F"), [("sin", np.sin), ("exp", np.exp), ("cos", np.cos), ("sqrt", np.sqrt)])
def test_noise_of_float32_is_estimated(name, F):
    """The smallest steps do not change a float32, so their quotients agree on 0. They must not count."""
    derivative = {"sin": np.cos(1.0), "exp": np.e, "cos": -np.sin(1.0), "sqrt": 0.5}[name]
    for h in (SHORT, LONG):
        q = look(single(F), h)
        assert abs(q.value - derivative) <= SAFETY * q.error
    assert 1e-8 < q.error < 1e-3


def test_noise_is_estimated_per_direction():
    F = [np.sin, single(np.sin)]
    plus, minus = (np.array([[F[0](1 + s * t), F[1](s * t)] for t in SHORT]) for s in (1, -1))
    value, error, noise, _ = central(SHORT, plus, minus, np.array([EPS, EPS]))
    assert np.all(np.abs(value - np.cos(1.0)) <= SAFETY * error)
    assert error[0] < 1e-10 < error[1]
    assert noise[0] < 1e-14 < noise[1]


@pytest.mark.parametrize("factor", [1.0, 1.001, 0.0, -1.0])
def test_the_taylor_remainder_is_quadratic_only_for_the_right_derivative(factor):
    def F(t):  # noqa: N802
        return np.exp(1 + t)

    plus, _, zero = values(F, SHORT)
    slope = taylor_slope(SHORT, plus, zero, factor * np.e, EPS * zero)
    assert slope == pytest.approx(2 if factor == 1 else 1, abs=0.3)


def test_a_linear_function_has_no_taylor_remainder():
    plus, _, zero = values(lambda t: 1 + 2 * t, SHORT)
    assert math.isnan(taylor_slope(SHORT, plus, zero, 2.0, EPS))
    assert taylor_slope(SHORT, plus, zero, 2.1, EPS) == pytest.approx(1)


@pytest.mark.parametrize(
    ("F", "expected"),
    [
        (lambda t: 5.0, True),
        (lambda t: float(np.floor(2.5 + t)), True),
        (lambda t: max(1.0, 0.9 + t), True),
        (lambda t: float(t > LONG[-2]), False),
        (lambda t: 1 / (1 + np.exp(-38 - t)), False),
        (lambda t: 1 + 1e-14 * np.sin(t), False),
        (lambda t: np.sin(t), False),
    ],
    ids=["constant", "floor", "maximum", "constant over two steps", "saturated", "hidden", "sin"],
)
def test_a_constant_is_distinguished_from_a_hidden_slope(F, expected):
    plus, minus, zero = values(F, LONG)
    assert flat(LONG, plus, minus, zero, 4 * EPS * abs(zero)) == expected


def test_the_rounding_of_the_moved_point_counts():
    """The point moves by a rounding, and F by that times its slope, although F itself is exact."""
    sample = Sample(SHORT, *values(lambda t: 3 * t, SHORT), rounding=0.0)
    state = State(0, [sample], [], long=False)
    state.analyse(EPS)
    assert sample.rounding == pytest.approx(8 * 3 * EPS)
    assert state.quotients[0].value == pytest.approx(3, rel=1e-12)
    assert state.quotients[0].error >= sample.rounding
