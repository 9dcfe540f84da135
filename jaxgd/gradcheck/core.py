"""The verdict on a derivative: right, wrong or cannot tell. Read this module to know how jaxgd checks a gradient.

1. A point x, a random direction u in one leaf and a cotangent w make f a function of one variable:
   F(t) = ⟨w, f(x + t u)⟩. The cotangent is random unless f is a real scalar.
2. A claim is a number for F′(0): ⟨Jᵀw, u⟩ by reverse mode or ⟨w, Ju⟩ by forward mode, with J the Jacobian of f.
3. The check evaluates F at 0 and at ±h, in float64 if f can run in float64. The steps h form a ladder: each step is a
   quarter of the one before. The short ladder has four steps, and a far smaller one that only measures noise. The long
   ladder has eighteen steps. The check uses the long ladder if the short one does not show that the claim is right. It
   also uses the long ladder if F computes in float64 and varies at the smaller steps by far more than rounding.
4. Three columns of Romberg's table extrapolate the quotients (F(h) − F(−h))/2h to h = 0. Each entry combines two
   entries of the column before. The error of an entry is the larger of its distances to these two entries. The error is
   at least the noise of F divided by h.
5. Each step far smaller than h gives an estimate of the noise: the step, times the distance of its quotient from the
   entry. The noise is the largest estimate, and at least the rounding of F. The distances are not noise if three far
   smaller steps agree on another slope, or if the estimates nearly vanish at the smallest steps. The error of the entry
   is then at least the distance itself. The entry with the smallest error is "the quotient" below.
6. The same table of (F(h) + F(−h) − 2F(0))/h gives the gap F′(0+) − F′(0−). F has a kink if the gap exceeds ten times
   its error and a millionth of the slope. If F(h) − F(0) is proportional to hᵖ, F has a jump for p = 0, and an infinite
   slope for any other p below 0.95. In these three cases, F has no slope.
7. The noise of a claim is twice its typical change when x moves by one rounding, plus up to ten roundings of the claim.
   In forward mode, the noise is not measured and counts as 0.
8. The uncertainty is ten times the error of the quotient plus thirty times the noise of the claim. The tolerance is the
   uncertainty plus the fraction of the gradient that rounding or the user's rtol allows. A claim is wrong if it differs
   from the quotient by more than the tolerance, and the uncertainty is at most half of the gradient. An infinite or NaN
   claim is wrong if the error of the quotient is finite. If F computes in a dtype narrower than float64 and changes at
   no step, rounding may hide a small slope. A claim small enough to be hidden is not wrong. Another accurate entry of
   the table, or the quotients at the smallest steps, may support the claim. The distance of the claim from the quotient
   then counts as the error of the quotient.
9. A claim is right if it differs from the quotient by at most the tolerance, and the uncertainty is at most a
   thousandth of the gradient. The limit is a hundredth if F computes in a narrower dtype. A user's rtol replaces both
   limits. For a claim of 0, let e be ten times the error of the quotient. The claim is also right if it differs from
   the quotient by at most e, and e is at most a millionth of the largest change of F. If F in float64 changes at no
   step of the long ladder, e may be larger. If a claim is neither wrong nor right, the check cannot tell. It cannot
   tell either if F has no slope, or if x is at an edge of the domain.
10. A leaf is wrong if the claim is wrong along one direction, with two exceptions. The check cannot tell if F varies
    within the smallest step along another direction. It cannot tell either if the wrong claim is infinite or NaN, and F
    has no slope along another direction. A leaf is right if the claim is right along all directions. Two right
    directions suffice if the claim is wrong along no direction, and F has a slope and does not vary within the smallest
    step along all directions.

The module derive makes the claims, sample evaluates F, and quotients implements items 4 to 6. This module judges the
claims.

Source: Ridders, Advances in Engineering Software 4 (1982) 75–76, for the table and its error.
"""

from typing import NamedTuple

import numpy as np

from jaxgd.gradcheck.constants import (
    COARSE_RESOLUTION,
    NEGLIGIBLE,
    NOISES,
    RESOLUTION,
    RIVAL,
    SAFETY,
    SMALL_GAP,
    UNCERTAIN,
)
from jaxgd.gradcheck.quotients import Floats, Mask, Slopes
from jaxgd.gradcheck.verdicts import Cause, Verdict

# The causes for which F has no slope.
SINGULAR = (Cause.KINK, Cause.JUMP, Cause.STEEP)


class Claim(NamedTuple):
    """The claimed slopes of one leaf. Each array has one element for each direction.

    Attributes:
        value: The claimed slopes.
        noise: The noise of each slope, defined in item 7 of the module's docstring.
        size: √Σ(gᵢuᵢ)², with g the claimed gradient. By chance, ⟨g, u⟩ may be far smaller.
        floor: Differences up to this fraction of the size do not count.
    """

    value: Floats
    noise: Floats
    size: Floats
    floor: float


class Judgment(NamedTuple):
    """The verdict on one claimed slope.

    Attributes:
        verdict: Right, wrong or cannot tell.
        cause: The reason for the verdict.
        difference: The distance of the claim from the quotient.
        tolerance: The largest distance that is not wrong.
        size: The size of the slope. Relative numbers refer to it.
        value: The quotient.
    """

    verdict: Verdict
    cause: Cause
    difference: float
    tolerance: float
    size: float = 1.0
    value: float = 1.0


def agree(
    difference: float, uncertainty: float, size: float, floor: float, rtol: float | None, resolution: float = RESOLUTION
) -> tuple[Verdict, float]:
    """Return the verdict on a difference, and the tolerance: max(floor, rtol) · size + uncertainty.

    The verdict is wrong if the difference exceeds the tolerance, and the uncertainty is at most UNCERTAIN · size. It is
    right if the difference does not exceed the tolerance, and the uncertainty is at most (rtol or resolution) · size.
    Otherwise it is "cannot tell". A difference of NaN is never right.
    """
    tolerance = uncertainty + max(floor, rtol or 0.0) * size
    if not np.isfinite(tolerance):
        return Verdict.CANNOT_TELL, tolerance
    if not difference <= tolerance:
        return (Verdict.WRONG if uncertainty <= UNCERTAIN * size else Verdict.CANNOT_TELL), tolerance
    known = uncertainty <= (rtol or resolution) * size
    return (Verdict.RIGHT if known else Verdict.CANNOT_TELL), tolerance


def judge(claim: Claim, slopes: Slopes, rtol: float | None, coarse: bool) -> list[Judgment]:
    """Return the verdict on each claimed slope. `coarse` is True if f computes with fewer digits than float64."""
    return [_judge(claim, slopes, i, rtol, coarse) for i in range(len(slopes.value))]


def _judge(claim: Claim, slopes: Slopes, i: int, rtol: float | None, coarse: bool) -> Judgment:
    claimed, value = float(claim.value[i]), float(slopes.value[i])
    difference, resolution = float(abs(claimed - value)), COARSE_RESOLUTION if coarse else RESOLUTION
    size = float(np.nanmax([claim.size[i], abs(value)]))
    if slopes.cause[i] is not Cause.AGREES:
        return Judgment(Verdict.CANNOT_TELL, slopes.cause[i], difference, np.inf, size, value)
    error, noise = SAFETY * float(slopes.error[i]), NOISES * float(claim.noise[i])
    if not np.isfinite(claimed):
        if np.isfinite(error):
            return Judgment(Verdict.WRONG, Cause.GRADIENT_NOT_FINITE, np.nan, error, size, value)
        return Judgment(Verdict.CANNOT_TELL, slopes.doubt[i], np.nan, error, size, value)
    if claimed == 0 and (slopes.still[i] or error <= NEGLIGIBLE * slopes.variation[i]) and difference <= error:
        return Judgment(Verdict.RIGHT, Cause.AGREES, difference, error, size, value)
    verdict, tolerance = agree(difference, error + noise, size, claim.floor, rtol, resolution)
    if verdict is Verdict.WRONG and abs(claimed) < slopes.hidden[i]:
        return Judgment(Verdict.CANNOT_TELL, Cause.NO_FLOAT64, difference, float(slopes.hidden[i]), size, value)
    if verdict is Verdict.WRONG and explained_by_kink(slopes, difference)[i]:
        return Judgment(Verdict.CANNOT_TELL, Cause.KINK, difference, abs(slopes.gap[i]), size, value)
    if verdict is Verdict.WRONG and _supported(claimed, slopes, i, difference):
        # F has one slope at large steps and another one at small steps, so the error is their distance.
        error = SAFETY * difference
        verdict, tolerance = agree(difference, error + noise, size, claim.floor, rtol, resolution)
    unsteady = error <= (rtol or resolution) * size < noise and not coarse
    doubt = Cause.UNSTEADY if unsteady else slopes.doubt[i]
    cause = {Verdict.RIGHT: Cause.AGREES, Verdict.WRONG: Cause.DIFFERS, Verdict.CANNOT_TELL: doubt}[verdict]
    return Judgment(verdict, cause, difference, tolerance, size, value)


def explained_by_kink(slopes: Slopes, difference: Floats | float) -> Mask:
    """Return True for each line with a difference that a clear kink explains and the error does not."""
    gap = np.abs(slopes.gap)
    return np.asarray((gap > SAFETY * slopes.gap_error) & (gap >= difference) & (difference > SAFETY * slopes.error))


def _supported(claimed: float, slopes: Slopes, i: int, difference: float) -> bool:
    """Return True if another accurate entry of the table, or the quotients at the smallest steps, support a claim."""
    values: Floats = slopes.values[i]
    errors: Floats = slopes.errors[i]
    quotients: Floats = slopes.quotients[i]
    entries = np.abs(values - claimed) <= SAFETY * errors
    # `below`: at this step and all smaller ones, rounding explains the distance of the quotient from the claim.
    # `contradicts`: rounding does not explain the distance of the quotient from `slopes.value`.
    limit: Floats = 2 * float(slopes.rounding[i]) / slopes.h
    below: Mask = np.cumsum(~(np.abs(quotients - claimed) <= limit)[::-1])[::-1] == 0
    contradicts = np.abs(quotients - float(slopes.value[i])) > limit
    return bool(np.any(entries & (errors <= RIVAL * difference)) or np.any(below & contradicts))


def combine(each: list[Judgment]) -> Judgment:
    """Return the judgment that decides a leaf, from the judgments along all directions."""
    wrong, right, unknown = (
        [j for j in each if j.verdict is verdict] for verdict in (Verdict.WRONG, Verdict.RIGHT, Verdict.CANNOT_TELL)
    )
    singular = [j for cause in (Cause.ROUGH, *SINGULAR) for j in unknown if j.cause is cause]
    # If F is rough along one direction, the quotients along the other directions are not certain. An infinite or NaN
    # claim may be right where f has no slope.
    if wrong and not (singular and (singular[0].cause is Cause.ROUGH or wrong[0].cause is Cause.GRADIENT_NOT_FINITE)):
        return max(wrong, key=lambda j: np.inf if np.isnan(j.difference) else (j.difference - j.tolerance) / j.size)
    if singular:
        return singular[0]
    if not unknown or len(right) >= 2:
        return max(right, key=lambda j: j.difference / j.size if j.size else 0.0)
    return next((j for j in unknown if j.cause in (Cause.EDGE, Cause.NOT_FINITE)), unknown[0])


def outside_the_kink(claim: Claim, slopes: Slopes) -> bool:
    """Return True if, along every line, the claim is outside the range of the one-sided slopes of F."""
    middle, half = slopes.value, np.abs(slopes.gap) / 2
    slack = SAFETY * (slopes.error + slopes.gap_error) + np.maximum(claim.floor, SMALL_GAP) * np.maximum(
        np.abs(middle), np.abs(slopes.gap)
    )
    return bool(np.all(np.abs(claim.value - middle) > half + slack))
