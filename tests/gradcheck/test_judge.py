"""The verdict on a difference follows from its size, its uncertainty and rtol."""

import math

import pytest

from jaxgd.gradcheck.judge import judge

# Difference, uncertainty, rtol, and the verdict for a gradient of size 1 and a floor of 1e-8. A difference of up to ten
# times its uncertainty is allowed.
CASES = {
    "equal": (0.0, 0.0, None, "right"),
    "rounding": (0.9e-8, 0.0, None, "right"),
    "above the floor": (1.1e-8, 0.0, None, "wrong"),
    "within the uncertainty": (0.9e-4, 1e-5, None, "right"),
    "above the uncertainty": (1.1e-4, 1e-5, None, "wrong"),
    "just resolved": (0.0, 0.9e-4, None, "right"),
    "just not resolved": (0.0, 1.1e-4, None, "cannot tell"),
    "wrong in spite of a large uncertainty": (0.5, 1e-2, None, "wrong"),
    "allowed by rtol": (0.9e-2, 0.0, 1e-2, "right"),
    "not allowed by rtol": (1.1e-2, 0.0, 1e-2, "wrong"),
    "resolved for rtol": (0.0, 0.9e-3, 1e-2, "right"),
    "not resolved for rtol": (0.0, 1.1e-3, 1e-2, "cannot tell"),
    "NaN": (math.nan, 1e-5, None, "wrong"),
    "infinite": (math.inf, 1e-5, None, "wrong"),
    "unknown uncertainty": (0.0, math.inf, None, "cannot tell"),
    "NaN as the uncertainty": (0.0, math.nan, None, "cannot tell"),
}


@pytest.mark.parametrize(("difference", "error", "rtol", "expected"), CASES.values(), ids=CASES)
def test_the_verdict_depends_on_difference_uncertainty_and_rtol(difference, error, rtol, expected):
    verdict, _ = judge(difference, error, 1.0, 1e-8, rtol)
    assert verdict == expected
