"""The verdict on a difference, from the size of the difference and the uncertainty of both sides."""

import math

import numpy as np

from jaxgd.gradcheck.quotient import SAFETY, Quotient, Shape
from jaxgd.gradcheck.report import CAUSE_OF, Cause, Verdict

# The noise of a gradient is the change of the gradient when the point moves by one rounding, a factor of 1 + eps or
# 1 − eps for each element. A difference may have this multiple of the noise.
NOISES = 30.0
# A difference below this, relative to the leaf's own gradient, is rounding in float64.
FLOOR = 1e-8
# A gradient is right only if its uncertainty, relative to the leaf's own gradient, is at most RESOLUTION, or at most
# COARSE_RESOLUTION if f computes with fewer digits than float64 for arguments of any dtype.
RESOLUTION, COARSE_RESOLUTION = 1e-3, 1e-2


def judge(
    difference: float, error: float, scale: float, floor: float, rtol: float | None, resolution: float = RESOLUTION
) -> tuple[Verdict, float]:
    """Return the verdict on a difference, and the tolerance: max(floor, rtol) · scale + SAFETY · error.

    `error` is the uncertainty of the difference. Wrong: the difference exceeds the tolerance. Right: the difference is
    within the tolerance, and SAFETY · error ≤ (rtol or resolution) · scale. Otherwise cannot tell. NaN is never right.
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
    """Compare one claimed directional derivative with a quotient. Return the verdict, the cause and the tolerance.

    `noise` is the noise of the claim.
    """
    if quotient.shape not in (Shape.SMOOTH, Shape.KINK):
        return Verdict.CANNOT_TELL, CAUSE_OF[quotient.shape], math.inf
    error = quotient.error + NOISES / SAFETY * noise
    if quotient.shape is Shape.KINK:
        return Verdict.CANNOT_TELL, Cause.KINK, SAFETY * error + abs(quotient.gap) / 2
    if math.isnan(claimed):
        return Verdict.WRONG, Cause.GRADIENT_NOT_FINITE, SAFETY * error
    # If F is 0 everywhere, F gives no scale, and a claim of a few roundings is too small to judge.
    hidden = quotient.hidden or float(np.finfo(float).eps)
    if quotient.value == 0 and quotient.error == 0 and 0 < abs(claimed) <= SAFETY * hidden:
        return Verdict.CANNOT_TELL, Cause.NOISE, SAFETY * hidden
    verdict, tolerance = judge(abs(claimed - quotient.value), error, scale, floor, rtol, resolution)
    if verdict is Verdict.WRONG and SAFETY * quotient.gap_error < abs(quotient.gap) >= abs(claimed - quotient.value):
        # The kink is too small to set the quotient's shape, but large enough to explain the difference.
        return Verdict.CANNOT_TELL, Cause.KINK, abs(quotient.gap)
    if verdict is Verdict.WRONG and abs(claimed - quotient.value) <= SAFETY * quotient.fine:
        return Verdict.CANNOT_TELL, Cause.ROUGH, SAFETY * quotient.fine
    cause = {Verdict.RIGHT: Cause.AGREES, Verdict.WRONG: Cause.DIFFERS, Verdict.CANNOT_TELL: Cause.NOISE}[verdict]
    return verdict, cause, tolerance


def outside_the_kink(claimed: float, quotient: Quotient, scale: float, floor: float) -> bool:
    """Return True if a claim at a kink is clearly outside the range of the one-sided derivatives."""
    low, high = sorted((quotient.left, quotient.right))
    slack = SAFETY * (quotient.error + quotient.gap_error) + max(floor, 1e-6) * max(scale, abs(quotient.gap))
    return not low - slack <= claimed <= high + slack


def combined(results: list[tuple[Verdict, Cause]]) -> tuple[Verdict, Cause]:
    """Return one verdict for all directions, and the cause.

    Cannot tell if f is rough along one direction. Otherwise wrong if one direction is wrong. Right if all are right, or
    if two are right and no other shows a kink, a jump or an infinite slope. Otherwise cannot tell.
    """
    if any(cause is Cause.ROUGH for _, cause in results):
        # If F is not resolved along one line, agreement along another may be chance.
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
