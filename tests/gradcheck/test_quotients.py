"""The slope of a function of one variable and the error of the slope, in NumPy alone."""

import math

import hypothesis
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st
from lines import LONG, SHORT, R, U, W, claim, judged, lines, slopes_of

from jaxgd.gradcheck import constants, core, quotients
from jaxgd.gradcheck.constants import EPS, SAFETY
from jaxgd.gradcheck.quotients import Lines, ladder, romberg, slopes, taylor
from jaxgd.gradcheck.verdicts import Cause


def within(q, derivative):
    return abs(q.value[0] - derivative) <= SAFETY * q.error[0] + 4 * EPS * abs(derivative)


# Smooth functions.

SMOOTH = {
    "sin": (lambda t: np.sin(1 + t), np.cos(1.0)),
    "exp": (lambda t: np.exp(3 * (1 + t)), 3 * np.exp(3.0)),
    "linear": (lambda t: 3 * t + 1, 3.0),
    "square at 0": (lambda t: t * t, 0.0),
    "log near 0": (lambda t: np.log(1e-3 + t), 1e3),
    "frequency 100": (lambda t: np.sin(100 * (1 + t)), 100 * np.cos(100.0)),
    "frequency 1e6": (lambda t: np.sin(1e6 * (1 + t)), 1e6 * np.cos(1e6)),
    "steeper for t below 1e-4": (lambda t: np.sin(1 + t) + t * np.exp(-((1e4 * t) ** 2)), 1 + np.cos(1.0)),
    "a rounded kink nearby": (lambda t: np.sqrt((t + 1e-4) ** 2 + 1e-8), 1 / np.sqrt(2)),
    "kink nearby": (lambda t: abs(t + 1e-3), 1.0),
    "tiny": (lambda t: 1e-200 * np.sin(1 + t), 1e-200 * np.cos(1.0)),
    "huge": (lambda t: 1e200 * np.sin(1 + t), 1e200 * np.cos(1.0)),
    "slope of 1e-6": (lambda t: 1 + 1e-6 * np.sin(1 + t), 1e-6 * np.cos(1.0)),
    "5e23 at the largest step": (lambda t: np.exp(np.exp(4 * t)), 4 * np.e),
    "not finite far away": (lambda t: np.log(1 + t), 1.0),
    "power 1.5 at 0": (lambda t: abs(t) ** 1.5, 0.0),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_the_derivative_is_within_the_estimated_error(name):
    F, derivative = SMOOTH[name]
    q = slopes_of(F)
    assert q.cause[0] is Cause.AGREES
    assert within(q, derivative)
    resolved = 1e-6 if name in ("slope of 1e-6", "frequency 1e6") else 2e-7
    assert SAFETY * q.error[0] <= resolved * abs(derivative)


@pytest.mark.parametrize("name", ["sin", "exp", "linear", "square at 0", "kink nearby", "not finite far away"])
def test_the_short_ladder_suffices_for_a_smooth_function(name):
    F, derivative = SMOOTH[name]
    q = slopes_of(F, SHORT)
    assert within(q, derivative)
    assert SAFETY * q.error[0] <= 1e-9 * abs(derivative)


@pytest.mark.parametrize("name", ["frequency 100", "frequency 1e6", "steeper for t below 1e-4"])
def test_the_short_ladder_gives_a_large_error_if_it_is_too_coarse(name):
    """The last step shows that F varies on a smaller scale, so a claim equal to the quotient is not called right.

    The frequency 100 is only slightly too high for the ladder. The relative error of its quotient is 7e-7, so the
    check may call a claim right.
    """
    F, derivative = SMOOTH[name]
    q = slopes_of(F, SHORT)
    assert SAFETY * q.error[0] > 1e-6 * abs(derivative)
    if name != "frequency 100":
        assert judged(F, q.value[0], SHORT).verdict is U


def fading(F, width):
    """Return F with slope 0 for steps far below the width."""
    return lambda t: F(t) * t**2 / (t**2 + width**2)


def test_a_slope_that_vanishes_below_the_noise_is_uncertain():
    """F has slope 1 for steps above 1e-5 but derivative 0. Rounding hides the transition."""
    q = slopes_of(lambda t: 1 + t / (1 + (1e-5 / t) ** 8) if t else 1.0)
    assert abs(q.value[0]) <= SAFETY * q.error[0]


@pytest.mark.parametrize("h", [LONG, SHORT], ids=["long", "short"])
def test_a_slope_that_only_large_steps_have_is_not_right(h):
    """F has slope 1 for steps above 1e-6 but derivative 0."""
    assert judged(fading(lambda t: t, 1e-6), 1.0, h).verdict is not R


@hypothesis.given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.floats(-2, 2))
def test_derivatives_of_polynomials_are_within_the_error(coefficients, x):
    """The rounding of F is at most the rounding of its terms."""
    polynomial = np.polynomial.Polynomial(coefficients)
    size = 5 * sum(abs(c) * max(1, abs(x)) ** k for k, c in enumerate(coefficients))
    for h in (ladder(0.25, 6), SHORT, LONG):
        q = slopes_of(lambda t: polynomial(x + t), h, size=size)
        assert abs(q.value[0] - polynomial.deriv()(x)) <= SAFETY * q.error[0] + 1e-15


# Hundreds of random functions, with and without noise. Each function random_… returns F, its derivative and its size. F
# takes an array of steps.


def random_polynomial(rng):
    p, x = np.polynomial.Polynomial(rng.normal(size=rng.integers(2, 7)) * 10 ** rng.uniform(-2, 2)), rng.uniform(-2, 2)
    return lambda t: p(x + t), p.deriv()(x), sum(abs(c) * max(1, abs(x)) ** k for k, c in enumerate(p.coef))


def random_rational(rng):
    """Return a quotient of polynomials whose denominator is at least 0.1."""
    p, q = (np.polynomial.Polynomial(rng.normal(size=3)) for _ in range(2))
    x, least = rng.uniform(-2, 2), rng.uniform(0.1, 2)
    below = q(x) ** 2 + least
    derivative = (p.deriv()(x) * below - 2 * p(x) * q(x) * q.deriv()(x)) / below**2
    return lambda t: p(x + t) / (q(x + t) ** 2 + least), derivative, (abs(p(x)) + 4 * sum(abs(p.coef))) / below


def random_sines(rng):
    """Return a sum of sines with frequencies from 0.1 to 1000."""
    n = rng.integers(1, 6)
    a, w, phase = rng.normal(size=n), 10 ** rng.uniform(-1, 3, n), rng.uniform(0, 7, n)
    return lambda t: np.sin(np.multiply.outer(t, w) + phase) @ a, np.sum(a * w * np.cos(phase)), np.sum(np.abs(a))


MADE = {"polynomial": random_polynomial, "rational": random_rational, "sines": random_sines}


def draw(make, n, h, noise=0.0, kink=0.0, seed=0):
    """Return n random functions as lines, and their derivatives.

    `noise` is relative to the size of F. `kink` is half the gap of the slope, relative to the larger of the
    slope and the size of F.
    """
    rng, rows = np.random.default_rng(seed), []
    for _ in range(n):
        F, derivative, size = make(rng)
        bend = kink * max(abs(derivative), size)
        rows.append((F(h) + bend * h, F(-h) + bend * h, F(0.0), size, derivative))
    plus, minus, zero, size, derivatives = map(np.array, zip(*rows, strict=True))
    plus, minus, zero = (x + noise * (size * rng.uniform(-1, 1, x.T.shape)).T for x in (plus, minus, zero))
    return Lines(h, plus, minus, zero, size, EPS, EPS), derivatives


def verdicts(given, derivatives, factor=1.0):
    q = slopes(given)
    smooth = np.array([cause is Cause.AGREES for cause in q.cause])
    beyond = np.abs(q.value - derivatives) > SAFETY * q.error + 4 * EPS * np.abs(derivatives)
    return np.mean(beyond & smooth), [x.verdict for x in core.judge(claim(*(factor * derivatives)), q, None, False)]


def share(verdict, found):
    return found.count(verdict) / len(found)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-8, 1e-4])
def test_the_derivatives_of_random_functions_with_noise_are_within_the_error(name, noise):
    """On the long ladder, all slopes are within ten errors for noise up to 1e-8, and 99.5% for noise of 1e-4.

    On the short ladder, at least 99% of the slopes are within ten errors.
    """
    beyond, found = verdicts(*draw(MADE[name], 400, LONG, noise))
    assert max(beyond, share(W, found)) <= (0.005 if noise > 1e-8 else 0)
    assert share(R, found) >= {0.0: 1, 1e-12: 0.95, 1e-8: 0.8, 1e-4: 0}[noise]
    assert verdicts(*draw(MADE[name], 400, SHORT, noise))[0] <= 0.01


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize(("noise", "factor"), [(0.0, 1 + 1e-6), (1e-12, 1.001), (1e-8, 2.0)])
def test_a_wrong_factor_of_the_slope_of_a_random_function_is_found(name, noise, factor):
    _, found = verdicts(*draw(MADE[name], 400, LONG, noise), factor)
    assert R not in found
    assert share(W, found) >= 0.95
    # On the short ladder, a slope may be known only to a thousandth.
    assert R not in verdicts(*draw(MADE[name], 400, SHORT, noise), max(factor, 1.01))[1]


def test_a_claim_may_equal_the_slope_of_small_or_of_large_steps():
    """F has slope 3 at steps up to 1e-4, and slope 3 + hidden at larger steps."""

    def verdict(hidden, claimed):
        return judged(lambda t: 3 * t + (hidden * t if abs(t) > 1e-4 else 0), claimed).verdict

    assert verdict(1e-6, 3.0) is verdict(1e-6, 3 + 1e-6) is R
    assert verdict(1e-6, 3 + 1e-4) is W
    # If the two slopes differ by more than a thousandth, the slope is unknown.
    assert verdict(1.0, 4.0) is U


def test_a_deviation_that_vanishes_at_the_smallest_steps_is_no_noise():
    off = np.where(LONG > 1e-7, 1e-11, 1e-15)[None, None] / LONG
    rounding, level = np.array([1e-15]), np.array([[1e-11]])
    assert quotients._structure(LONG, off, rounding, level)[0, 0] == off.max()
    # A deviation of the same size at all steps is noise. A deviation of a few roundings does not count.
    assert quotients._structure(LONG, 1e-11 / LONG[None, None], rounding, level)[0, 0] == 0
    assert quotients._structure(LONG, off, np.array([1e-13]), level)[0, 0] == 0


@pytest.mark.parametrize(("size", "varies"), [(1.0, False), (1e-7, True), (1e-30, False)])
def test_ripples_below_the_steps_of_the_short_ladder_are_detected(size, varies):
    assert slopes_of(lambda t: t + size * np.sin(t / size), SHORT).varies.tolist() == [varies]


# Points without a slope.

SINGULAR = {
    "relu": (lambda t: max(t, 0.0), Cause.KINK),
    "absolute value": (abs, Cause.KINK),
    "sine plus a kink of 1e-4": (lambda t: np.sin(1 + t) + 1e-4 * abs(t), Cause.KINK),
    "sine plus a kink of 1e-5": (lambda t: np.sin(1 + t) + 1e-5 * abs(t), Cause.KINK),
    "curved on both sides of a kink": (lambda t: np.exp(t) if t > 0 else np.cos(t), Cause.KINK),
    "step": (lambda t: float(t > 0), Cause.JUMP),
    "sine plus a step": (lambda t: np.sin(1 + t) + (t >= 0), Cause.JUMP),
    "1 at 0, otherwise 0": (lambda t: float(t == 0), Cause.JUMP),
    "cube root": (np.cbrt, Cause.STEEP),
    "root of the absolute value": (lambda t: np.sqrt(abs(t)), Cause.STEEP),
    "power 0.9": (lambda t: abs(t) ** 0.9, Cause.STEEP),
    "root": (np.sqrt, Cause.EDGE),
    "root of −t": (lambda t: np.sqrt(-t), Cause.EDGE),
    "logarithm": (np.log, Cause.NOT_FINITE),
    "NaN": (lambda t: math.nan, Cause.NOT_FINITE),
    "infinite at 0 only": (lambda t: 1 / t if t else math.inf, Cause.NOT_FINITE),
    "NaN at small steps": (lambda t: t if abs(t) > 1e-9 or t == 0 else math.nan, Cause.NOT_FINITE),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_each_singularity_is_named(name):
    F, cause = SINGULAR[name]
    assert slopes_of(F).cause[0] is cause
    if name != "NaN at small steps":
        assert slopes_of(F, SHORT).cause[0] is cause
    for claimed in (0.0, 1.0, -3.0):
        judgment = judged(F, claimed)
        assert (judgment.verdict, judgment.cause) == (U, cause)


@pytest.mark.parametrize(("size", "verdict", "cause"), [(3e-17, R, Cause.AGREES), (1e-6, U, Cause.STEEP)])
def test_a_change_that_grows_as_h_shrinks_is_a_pole_only_if_it_is_large(size, verdict, cause):
    j = judged(lambda t: np.sin(1 + t) + (size / t if t else 0.0), np.cos(1.0))
    assert (j.verdict, j.cause) == (verdict, cause), j


def test_a_kink_has_the_slopes_of_both_sides():
    q = slopes_of(lambda t: 3 * t if t > 0 else -2 * t)
    assert q.value[0] == pytest.approx(0.5)
    assert (q.value[0] - q.gap[0] / 2, q.value[0] + q.gap[0] / 2) == (pytest.approx(-2), pytest.approx(3))


@pytest.mark.parametrize("kink", [1.0, 1e-3, 1e-5])
@pytest.mark.parametrize("name", MADE)
def test_a_kink_of_a_random_function_is_found(name, kink):
    assert set(slopes(draw(MADE[name], 100, LONG, kink=kink)[0]).cause) == {Cause.KINK}


@pytest.mark.parametrize("noise", [1e-14, 1e-10, 1e-6])
def test_a_smooth_function_with_noise_is_rarely_called_singular(noise):
    causes = slopes(draw(random_rational, 400, LONG, noise)[0]).cause
    assert share(Cause.AGREES, causes) >= 0.97


@pytest.mark.parametrize(
    ("claimed", "outside"), [(-2.0, False), (3.0, False), (0.0, False), (-2.1, True), (3.1, True), (math.nan, False)]
)
def test_a_claim_at_a_kink_lies_between_the_slopes_of_both_sides_or_outside(claimed, outside):
    q = slopes_of(lambda t: 3 * t if t > 0 else -2 * t)
    assert core.outside_the_kink(claim(claimed), q) is outside


def test_a_claim_is_outside_a_kink_only_if_it_is_outside_along_all_lines():
    q = slopes(lines(abs, lambda t: 2 * abs(t)))
    assert core.outside_the_kink(claim(5.0, 5.0), q)
    assert not core.outside_the_kink(claim(5.0, 1.5), q)


def test_a_claim_that_equals_a_one_sided_slope_is_not_wrong():
    """A kink whose gap is 1e-7 of the slope counts as smooth, but a claim of a one-sided slope is undecided."""
    F = lambda t: t + 0.5e-7 * abs(t)  # noqa: E731
    assert slopes_of(F).cause[0] is Cause.AGREES
    for claimed, expected in ((1 + 0.5e-7, (U, Cause.KINK)), (1 + 1e-6, (W, Cause.DIFFERS)), (1.0, (R, Cause.AGREES))):
        judgment = judged(F, claimed)
        assert (judgment.verdict, judgment.cause) == expected


# Functions with few digits.

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def rounded(F, dtype):
    """Return F with its argument and its result rounded to a dtype."""
    return lambda t: float(dtype(F(dtype(t))))


@pytest.mark.parametrize(("name", "F"), [("sin", np.sin), ("exp", np.exp), ("cos", np.cos), ("sqrt", np.sqrt)])
def test_noise_of_float32_is_estimated(name, F):
    """The smallest steps do not change a float32, so their quotients are 0. These quotients must not count."""
    derivative = {"sin": np.cos(1.0), "exp": np.e, "cos": -np.sin(1.0), "sqrt": 0.5}[name]
    for h in (SHORT, LONG):
        q = slopes_of(rounded(lambda t: F(np.float32(1 + t)), np.float32), h)
        assert abs(q.value[0] - derivative) <= SAFETY * q.error[0]
        assert q.error[0] < 1e-3
    assert q.error[0] > 1e-8
    assert q.doubt[0] is Cause.NO_FLOAT64


def few_digits(dtype, h, factor, inner, fastest=10.0, n=1000):
    """Return the verdicts on `factor` times the derivatives of random sines, whose results are rounded to a dtype.

    `inner` is the dtype of the argument x + t, with x from 1 to 2. The frequencies go from 0.1 to `fastest`.
    """
    rng, eps = np.random.default_rng(0), float(ml_dtypes.finfo(dtype).eps)
    draws = rng.normal(size=n), 10 ** rng.uniform(-1, np.log10(fastest), n), rng.uniform(1, 2, n)
    a, w, x = (np.array(draw).astype(dtype).astype(float) for draw in draws)

    def F(t):  # noqa: N802
        return (
            (a[:, None] * np.sin(w[:, None] * (x[:, None] + t).astype(inner).astype(float))).astype(dtype).astype(float)
        )

    zero = F(np.zeros(1))[:, 0]
    q = slopes(Lines(h, F(h), F(-h), zero, np.abs(zero), EPS, eps))
    given = claim(*(factor * a * w * np.cos(w * x)), floor=4 * constants.EPS32)
    return [judgment.verdict for judgment in core.judge(given, q, None, True)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_slope_of_rounded_results_is_rarely_called_wrong(dtype):
    """In a narrow dtype, a few rounding steps may look like another slope. A doubled slope is not called right."""
    found = few_digits(DTYPES[dtype], LONG, 1.0, float)
    assert share(W, found) <= (0 if dtype == "float32" else 0.005)
    assert share(R, found) >= (0.9 if dtype == "float32" else 0)
    assert R not in few_digits(DTYPES[dtype], SHORT, 2.0, float)
    found = few_digits(DTYPES[dtype], LONG, 2.0, float)
    assert R not in found
    assert W in found


fast = pytest.mark.xfail(strict=True, reason="at frequency 300, a period spans at most 21 roundings of x")
FASTEST = [("float32", 300.0), ("float16", 10.0), ("bfloat16", 10.0)]
FASTEST += [pytest.param("float16", 300.0, marks=fast), pytest.param("bfloat16", 300.0, marks=fast)]


@pytest.mark.parametrize(("dtype", "fastest"), FASTEST)
def test_a_staircase_of_rounded_arguments_is_not_mistaken_for_a_constant(dtype, fastest):
    inner = DTYPES[dtype]
    found = few_digits(inner, LONG, 1.0, inner, fastest)
    assert share(W, found) <= (0 if dtype == "float32" else 0.005)
    assert share(R, found) >= (0.99 if dtype == "float32" else 0)
    for h in (LONG, SHORT):
        assert R not in few_digits(inner, h, 2.0, inner, fastest)


def test_a_step_function_far_from_its_steps_is_a_constant():
    """A jump that is large compared with rounding belongs to F: the derivative of floor is 0."""
    for F in (lambda t: np.floor(2.5 + t), lambda t: 0.1 * np.round(10 * (0.23 + t))):
        assert judged(F, 0.0).verdict is R
        assert judged(F, 1.0).verdict is W


def test_noise_is_estimated_per_line():
    q = slopes(lines(lambda t: np.sin(1 + t), rounded(lambda t: np.sin(np.float32(1 + t)), np.float32), h=SHORT))
    assert np.all(np.abs(q.value - np.cos(1.0)) <= SAFETY * q.error)
    assert q.error[0] < 1e-8 < q.error[1]
    assert q.noise[0] < 1e-13 < q.noise[1]


def test_a_constant_line_has_the_rounding_of_the_other_lines():
    """F may add the terms of all lines. Their rounding could hide a small slope along one line."""
    q = slopes(lines(lambda t: 1e15 * np.sin(t), lambda t: 1.0))
    assert not q.still[0]
    assert q.still[1]
    assert q.noise[1] >= 0.1


# The Romberg table.


def test_a_ladder_shrinks_by_a_quarter():
    assert ladder(2.0, 3).tolist() == [2.0, 0.5, 0.125]
    assert len(LONG) == constants.RUNGS
    assert quotients._geometric(LONG) == constants.RUNGS
    # The last step of the short ladder is far below the others, so it is not counted.
    assert quotients._geometric(SHORT) == len(SHORT) - 1


@pytest.mark.parametrize("power", [1, 2])
def test_romberg_removes_the_powers_of_h(power):
    """The gap of the slope at a kink has errors in h, h³ and h⁵, and a central difference in h², h⁴ and h⁶."""
    h = ladder(2.0**-4, 8)
    first = (7 + sum(c * h ** (power + 2 * k) for k, c in enumerate((3.0, -2.0, 5.0))))[None]
    value, error, *_ = romberg(h, first, np.full(1, 1e-15), np.zeros(1), power)
    assert abs(value[0] - 7) <= error[0]
    assert error[0] < 1e-4 * abs(first[0, 2] - 7)


def test_the_error_is_at_least_the_noise_divided_by_the_step():
    h = ladder(1.0, 6)
    _, error, rung, level, *_ = romberg(h, np.full((1, 6), 7.0), np.array([1e-6]), np.zeros(1), 2)
    assert level[0] == 1e-6
    assert error[0] == pytest.approx(1e-6 / h[rung[0]])
    # Rung 1 is the largest step that smaller steps confirm, so its error is the smallest.
    assert rung[0] == 1


def test_smaller_steps_measure_the_noise():
    """F deviates from a straight line by 1e-3 at every step, with mixed signs."""
    h = ladder(1.0, 8)
    first = 7 + 1e-3 / h * np.array([[1, -1, -1, 1, 1, -1, 1, -1]])
    value, error, _, level, *_ = romberg(h, first, np.zeros(1), np.zeros(1), 2)
    assert level[0] == pytest.approx(1e-3, rel=0.5)
    assert abs(value[0] - 7) <= SAFETY * error[0]


def test_quotients_that_agree_by_chance_at_the_smallest_steps_do_not_count():
    """The two last quotients are equal, so their table entry would have an error of 0."""
    h = ladder(1.0, 6)
    first = np.array([[7.1, 7.01, 7.001, 7.0001, 9.0, 9.0]])
    value, error, *_ = romberg(h, first, np.zeros(1), np.zeros(1), 2)
    assert abs(value[0] - 7) < 0.1
    assert error[0] > 0


def test_the_rounding_of_the_moved_point_counts():
    """Rounding moves the point, which changes F by the slope times the move, although F itself is exact."""
    q = slopes_of(lambda t: 3 * t, SHORT, size=0.0)
    assert q.noise[0] == pytest.approx(8 * 3 * EPS, rel=1e-9, abs=0)
    assert q.value[0] == pytest.approx(3, rel=1e-12)
    assert q.error[0] >= q.noise[0]


def test_known_noise_is_a_lower_limit():
    assert slopes(lines(np.sin), noise=1e-3).noise[0] == 1e-3


@pytest.mark.parametrize("factor", [1.0, 1.001, 0.0, -1.0])
def test_the_taylor_remainder_is_quadratic_only_for_the_right_derivative(factor):
    (slope,) = taylor(lines(lambda t: np.exp(1 + t), h=SHORT), np.array([factor * np.e]), np.array([3 * EPS]))
    assert slope == pytest.approx(2 if factor == 1 else 1, abs=0.3)


def test_a_linear_function_has_no_taylor_remainder():
    """For the right slope, the remainder is only rounding, which is below the noise of F."""
    both = lines(lambda t: 0.1 + 0.3 * t, lambda t: 0.1 + 0.3 * t, h=SHORT)
    right, wrong = taylor(both, np.array([0.3, 0.4]), np.full(2, EPS))
    assert math.isnan(right)
    assert wrong == pytest.approx(1)
