"""The core judges claimed slopes of functions of one variable, in NumPy alone."""

import math

import numpy as np
import pytest
from lines import LONG, R, U, W, claim, judged, slopes_of

from jaxgd.gradcheck import constants, core
from jaxgd.gradcheck.constants import EPS, EPS32
from jaxgd.gradcheck.core import Judgment
from jaxgd.gradcheck.quotients import ladder
from jaxgd.gradcheck.verdicts import Cause


@pytest.mark.parametrize(
    ("F", "verdict"),
    [
        (lambda t: 5.0, R),
        (lambda t: float(np.floor(2.5 + t)), R),
        (lambda t: max(1.0, 0.9 + t), R),
        (lambda t: t**4, R),
        (lambda t: 1 / (1 + np.exp(-38 - t)), R),
        (lambda t: float(t > LONG[-2]), U),
        (lambda t: 1 + 1e-14 * np.sin(t), U),
        (np.sin, W),
        (lambda t: 1 + 1e-10 * t, W),
    ],
    ids=[
        "constant",
        "floor",
        "maximum",
        "power",
        "saturated",
        "constant over the two smallest steps",
        "hidden by rounding",
        "sin",
        "slope 1e-10",
    ],
)
def test_a_claim_of_0_is_right_only_if_the_slope_is_known_to_be_0(F, verdict):
    assert judged(F, 0.0, size=1.0).verdict is verdict


def test_a_slope_hidden_by_rounding_of_float64_is_noise():
    assert judged(lambda t: 1 + 1e-14 * np.sin(t), 0.0).cause is Cause.NOISE


# In float32, the rounding of 10⁹ is taken as eps × 10⁹ = 119.
@pytest.mark.parametrize(("claimed", "narrow", "verdict"), [(2.0, EPS32, U), (200.0, EPS32, W), (2.0, EPS, W)])
def test_a_claim_that_the_rounding_of_float32_hides_at_every_step_is_not_wrong(claimed, narrow, verdict):
    judgment = judged(lambda t: float(np.float32(1e9 + 2 * t)) if narrow == EPS32 else 1e9, claimed, narrow=narrow)
    assert judgment.verdict is verdict
    assert judgment.cause is (Cause.NO_FLOAT64 if verdict is U else Cause.DIFFERS)


# Each case: difference, uncertainty, rtol and verdict. The gradient has size 1, and the floor is 1e-8.
AGREE = {
    "equal": (0.0, 0.0, None, R),
    "below the floor": (0.9e-8, 0.0, None, R),
    "above the floor": (1.1e-8, 0.0, None, W),
    "within the uncertainty": (0.9e-4, 1e-4, None, R),
    "above the uncertainty": (1.1e-4, 1e-4, None, W),
    "uncertainty below the limit of 1e-3": (0.0, 0.9e-3, None, R),
    "uncertainty above the limit of 1e-3": (0.0, 1.1e-3, None, U),
    "wrong in spite of a large uncertainty": (0.5, 1e-1, None, W),
    "allowed by rtol": (0.9e-2, 0.0, 1e-2, R),
    "not allowed by rtol": (1.1e-2, 0.0, 1e-2, W),
    "rtol and uncertainty add": (1.4e-2, 0.5e-2, 1e-2, R),
    "uncertainty below rtol": (0.0, 0.9e-2, 1e-2, R),
    "uncertainty above rtol": (0.0, 1.1e-2, 1e-2, U),
    "uncertainty above a small rtol": (0.0, 0.9e-4, 1e-5, U),
    "NaN": (math.nan, 1e-4, None, W),
    "infinite": (math.inf, 1e-4, None, W),
    "infinite uncertainty": (0.0, math.inf, None, U),
    "uncertainty NaN": (0.0, math.nan, None, U),
    "difference and uncertainty NaN": (math.nan, math.nan, None, U),
}


@pytest.mark.parametrize(("difference", "uncertainty", "rtol", "expected"), AGREE.values(), ids=AGREE)
def test_the_verdict_depends_on_difference_uncertainty_and_rtol(difference, uncertainty, rtol, expected):
    verdict, tolerance = core.agree(difference, uncertainty, 1.0, 1e-8, rtol)
    assert verdict is expected
    assert tolerance == pytest.approx(uncertainty + max(rtol or 0, 1e-8), nan_ok=True)


@pytest.mark.parametrize(
    ("resolution", "expected"),
    [(constants.RESOLUTION, U), (constants.COARSE_RESOLUTION, R)],
    ids=["float64", "float32"],
)
def test_a_coarse_function_may_have_a_larger_uncertainty(resolution, expected):
    assert core.agree(0.0, 0.5e-2, 1.0, 1e-8, None, resolution)[0] is expected


# Each case: the claimed slope of sin at 1 divided by the right slope, the claim's noise, rtol, verdict and cause.
CLAIMS = {
    "right": (1.0, 0.0, None, R, Cause.AGREES),
    "too large by 1e-7": (1 + 1e-7, 0.0, None, W, Cause.DIFFERS),
    "too large by 1e-9": (1 + 1e-9, 0.0, None, R, Cause.AGREES),
    "within thirty times the noise": (1 + 2e-5, 1e-6, None, R, Cause.AGREES),
    "beyond thirty times the noise": (1 + 8e-5, 1e-6, None, W, Cause.DIFFERS),
    "right but noisy": (1.0, 1e-3, None, U, Cause.UNSTEADY),
    "wrong and noisy": (2.0, 1e-3, None, W, Cause.DIFFERS),
    "noisy but allowed by rtol": (1.001, 1e-3, 0.1, R, Cause.AGREES),
    "NaN": (math.nan, 0.0, None, W, Cause.GRADIENT_NOT_FINITE),
    "infinite": (math.inf, 0.0, None, W, Cause.GRADIENT_NOT_FINITE),
    "zero": (0.0, 0.0, None, W, Cause.DIFFERS),
}


@pytest.mark.parametrize(("factor", "noise", "rtol", "verdict", "cause"), CLAIMS.values(), ids=CLAIMS)
def test_a_claim_is_judged_by_quotient_and_noise(factor, noise, rtol, verdict, cause):
    q = slopes_of(lambda t: np.sin(1 + t))
    given = claim(factor * np.cos(1.0), noise=noise, size=np.cos(1.0))
    (judgment,) = core.judge(given, q, rtol, False)
    assert (judgment.verdict, judgment.cause) == (verdict, cause)


def test_a_difference_is_relative_to_the_size_of_the_claim():
    """The size is √Σ(gᵢuᵢ)², because ⟨g, u⟩ may be small by chance."""
    q = slopes_of(lambda t: 1e-9 * t)
    for size, verdict in ((1.0, R), (1e-9, W)):
        assert core.judge(claim(2e-9, size=size), q, None, False)[0].verdict is verdict


def test_an_infinite_claim_is_undecided_if_the_quotient_is_unknown():
    q = slopes_of(lambda t: 1 / (1 - t) if t < 1 else math.nan, ladder(1e3, 4))
    (judgment,) = core.judge(claim(math.inf), q, None, False)
    assert judgment.verdict is U


right, close = Judgment(R, Cause.AGREES, 1e-9, 1e-8), Judgment(R, Cause.AGREES, 1e-10, 1e-8)
wrong, worse = Judgment(W, Cause.DIFFERS, 0.1, 1e-8), Judgment(W, Cause.DIFFERS, 0.5, 1e-8)
not_finite = Judgment(W, Cause.GRADIENT_NOT_FINITE, math.nan, 1e-8)
noise, unsteady, rough, kink, jump, steep, edge, nowhere = (
    Judgment(U, cause, 1e-3, 1e-2)
    for cause in (
        Cause.NOISE,
        Cause.UNSTEADY,
        Cause.ROUGH,
        Cause.KINK,
        Cause.JUMP,
        Cause.STEEP,
        Cause.EDGE,
        Cause.NOT_FINITE,
    )
)

# Each case: the judgments along all directions, and the judgment that decides.
COMBINED = {
    "right": ([close, right, close], right),
    "one wrong among right ones": ([right, wrong, close], wrong),
    "the worst": ([wrong, worse, right], worse),
    "NaN decides before a finite error": ([worse, not_finite], not_finite),
    "two right, one noise: right": ([right, noise, close], right),
    "one right, one noise: noise": ([noise, right], noise),
    "noise alone": ([noise, unsteady], noise),
    "two right, one kink: kink": ([right, close, kink], kink),
    "two right, one jump: jump": ([right, close, jump], jump),
    "two right, one infinite slope: infinite slope": ([right, close, steep], steep),
    "two right, one rough line: rough line": ([right, close, rough], rough),
    "two right, one edge: right": ([right, close, edge], right),
    "an edge decides before noise": ([noise, edge, right], edge),
    "a point that is not finite decides before noise": ([noise, nowhere, right], nowhere),
    "a rough line decides before a wrong line": ([wrong, rough, right], rough),
    "a kink decides before a jump": ([jump, kink], kink),
    "wrong in spite of a kink": ([wrong, kink, right], wrong),
    "wrong in spite of noise": ([wrong, noise, noise], wrong),
    "NaN at a kink": ([not_finite, kink], kink),
    "NaN at a jump": ([not_finite, not_finite, jump], jump),
    "NaN at an infinite slope": ([not_finite, steep], steep),
    "NaN at an edge": ([not_finite, edge], not_finite),
}


@pytest.mark.parametrize(("each", "decides"), COMBINED.values(), ids=COMBINED)
def test_the_judgments_along_all_directions_decide_a_leaf(each, decides):
    assert core.combine(each) is decides
