"""From a difference and its uncertainty to a verdict."""

import math

import numpy as np

from jaxgd.gradcheck.quotient import SAFETY, Quotient, Shape
from jaxgd.gradcheck.report import CAUSE_OF, Cause, Verdict

# What a gradient moves by when its point moves by a rounding is its noise; this many times that is allowed.
NOISES = 30.0
# A difference below this, relative to the leaf's own gradient, is rounding in float64 and no finding.
FLOOR = 1e-8
# To be called right, a gradient must have been resolved to this, relative to the leaf's own gradient; and where f
# computes in float32 whatever its arguments are, to that.
RESOLUTION, COARSE_RESOLUTION = 1e-3, 1e-2


def judge(
    difference: float, error: float, scale: float, floor: float, rtol: float | None, resolution: float = RESOLUTION
) -> tuple[Verdict, float]:
    """The verdict on a difference whose uncertainty is `error`, and the tolerance it was held to.

    Wrong beyond rtol·scale and SAFETY times the uncertainty; right if it could have been seen to be; else there is no
    telling. NaN is never right.
    """
    allowed = max(floor, rtol or 0.0) * scale
    tolerance = SAFETY * error + allowed
    if not math.isfinite(tolerance):
        return Verdict.CANNOT_TELL, tolerance
    if not difference <= tolerance:
        return Verdict.WRONG, tolerance
    if SAFETY * error <= (rtol or resolution) * scale:
        return Verdict.RIGHT, tolerance
    return Verdict.CANNOT_TELL, tolerance


def against_quotient(
    claimed: float,
    quotient: Quotient,
    noise: float,
    scale: float,
    floor: float,
    rtol: float | None,
    resolution: float = RESOLUTION,
) -> tuple[Verdict, Cause, float]:
    """The verdict on one claimed directional derivative, whose own rounding is `noise`; why, and the tolerance."""
    if quotient.shape not in (Shape.SMOOTH, Shape.KINK):
        return Verdict.CANNOT_TELL, CAUSE_OF[quotient.shape], math.inf
    error = quotient.error + NOISES / SAFETY * noise
    if quotient.shape is Shape.KINK:
        return Verdict.CANNOT_TELL, Cause.KINK, SAFETY * error + abs(quotient.gap) / 2
    if math.isnan(claimed):
        return Verdict.WRONG, Cause.GRADIENT_NOT_FINITE, SAFETY * error
    # Where F is 0 everywhere there is no scale, but a claim like that is nothing anybody would notice.
    hidden = quotient.hidden or float(np.finfo(float).eps)
    if quotient.value == 0 and quotient.error == 0 and 0 < abs(claimed) <= SAFETY * hidden:
        return Verdict.CANNOT_TELL, Cause.NOISE, SAFETY * hidden
    verdict, tolerance = judge(abs(claimed - quotient.value), error, scale, floor, rtol, resolution)
    if verdict is Verdict.WRONG and SAFETY * quotient.gap_error < abs(quotient.gap) >= abs(claimed - quotient.value):
        # A kink too small beside the rest to be one, and large enough to explain the difference.
        return Verdict.CANNOT_TELL, Cause.KINK, abs(quotient.gap)
    if verdict is Verdict.WRONG and abs(claimed - quotient.value) <= SAFETY * quotient.fine:
        return Verdict.CANNOT_TELL, Cause.ROUGH, SAFETY * quotient.fine
    cause = {Verdict.RIGHT: Cause.AGREES, Verdict.WRONG: Cause.DIFFERS, Verdict.CANNOT_TELL: Cause.NOISE}[verdict]
    return verdict, cause, tolerance


def outside_the_kink(claimed: float, quotient: Quotient, scale: float, floor: float) -> bool:
    """Whether a claim at a kink lies clearly beyond both one-sided derivatives."""
    low, high = sorted((quotient.left, quotient.right))
    slack = SAFETY * (quotient.error + quotient.gap_error) + max(floor, 1e-6) * max(scale, abs(quotient.gap))
    return not low - slack <= claimed <= high + slack


def combined(results: list[tuple[Verdict, Cause]]) -> tuple[Verdict, Cause]:
    """One verdict from the directions': wrong if one is; right if all are, or two and the rest is out of reach."""
    if any(cause is Cause.ROUGH for _, cause in results):
        # Where F cannot be resolved along one line, it may seem to be along another.
        return Verdict.CANNOT_TELL, Cause.ROUGH
    for verdict, cause in results:
        if verdict is Verdict.WRONG:
            return verdict, cause
    causes = [cause for verdict, cause in results if verdict is Verdict.CANNOT_TELL]
    if not causes:
        return Verdict.RIGHT, Cause.AGREES
    for cause in (Cause.KINK, Cause.JUMP, Cause.STEEP):
        if cause in causes:
            return Verdict.CANNOT_TELL, cause
    if len(results) - len(causes) >= 2:
        return Verdict.RIGHT, Cause.AGREES
    return Verdict.CANNOT_TELL, next((c for c in (Cause.EDGE, Cause.NOT_FINITE) if c in causes), Cause.NOISE)
