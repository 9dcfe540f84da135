"""The verdict on a derivative: right, wrong or cannot tell. Read this module to know how jaxgd checks a gradient.

The modules sample and derive make the numbers of sentences 1 to 3 and 7, and this module judges them.

1. A point x, a random direction u in one leaf and a random cotangent w turn f into F(t) = ⟨w, f(x + t u)⟩.
2. A claim is a number for F′(0): ⟨Jᵀw, u⟩ by reverse mode or ⟨w, Ju⟩ by forward mode, with J the Jacobian of f.
3. F is evaluated, in float64 if possible, at 0 and at ±h. The steps h are the rungs of a ladder, each a quarter of the
   one before: four at first, and eighteen if these do not show that the claim is right or if F varies below them.
4. Three columns of Romberg's table extrapolate the quotients (F(h) − F(−h))/2h to h = 0. The error of an entry is its
   distance to the two entries it combines, or the noise of F divided by h, whichever is larger.
5. The noise is measured: it is the rounding of F, or the largest difference between this entry and a quotient at a far
   smaller step, times that step, whichever is larger. If three far smaller steps agree on another slope, or if F
   deviates at far smaller steps but not at the smallest ones, then this difference is no noise, and it is the error.
   The entry with the smallest error is the quotient.
6. The same table of (F(h) + F(−h) − 2F(0))/h gives F′(0+) − F′(0−). If this gap exceeds ten of its errors, F has a
   kink. If F(h) − F(0) shrinks like hᵖ with p below 0.95, F has an infinite slope, and a jump if p is 0.
7. A claim has noise too: its change when x moves by one rounding.
8. The claim is wrong if it differs from the quotient by more than the tolerance: ten errors of the quotient, thirty
   noises of the claim, and the relative difference that rounding or the user's rtol allows. Errors and noises above
   half of the gradient decide nothing. If another accurate entry of the table or the quotients at the smallest steps
   support the claim, the distance between claim and quotient is the error.
9. It is right if it differs by less, and the errors and noises in the tolerance are below a thousandth of the gradient
   or below rtol. Otherwise, and at a kink, jump or edge of the domain, the check cannot tell.
10. A leaf is wrong if it is wrong along one direction, unless F varies within the smallest step along another one. It
    is right if all directions show it, or two of them and no other one shows a kink, a jump or an infinite slope.

Source: Ridders, Advances in Engineering Software 4 (1982) 75–76, for the table and its error.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxgd.gradcheck.report import Cause, Verdict

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# The constants. `python -m benchmarks gradcheck --ablate` multiplies most by factors down to 0.1 and up to 10. The
# brackets hold the nearest factors, down and up, with which a case of the corpus fails; a dash if none does.
RATIO = 4.0  # each step divided by the next one; a power of two, so that steps are exact
RUNGS = 18  # [0.889, –] the ladder 1, 1/4, … 6e-11 covers functions that vary on the scale of x and of x/10⁶
SHORT = (*(2.0**-k for k in (6, 8, 10, 12)), 2.0**-20)  # enough for a smooth f; the last step only measures noise
FAR = 16.0  # [–, 5] a step is far smaller than another below this part of it
NEARBY = 2.0**18  # [–, 6.55e+04] the noise of a step is measured down to this part of it; it may grow as h shrinks
ORDERS = 3  # [0.333, –] columns of the table; a fourth amplifies noise more than it removes truncation
SAFETY = 10.0  # [0.1, 2] errors are estimates, so only a difference above ten errors counts
NOISES = 30.0  # [–, 2] a claim moves by a sum of roundings; one sample of the sum can be too small by this factor
FLOOR = 1e-8  # [–, 2] two derivatives in float64 that agree to this part of the gradient are equal
RESOLUTION = 1e-3  # [0.1, –] a right claim is known to this part of the gradient
COARSE_RESOLUTION = 1e-2  # [0.5, –] the same if f does not compute in float64 everywhere
UNCERTAIN = 0.5  # [0.33, –] an uncertainty above this part of the gradient is itself uncertain: nothing is wrong
SMALL_GAP = 1e-6  # [–, –] a smaller gap, relative to the slope, is rounding
STEEPEST = 0.95  # [0.842, 1.05] F has no slope if F(h) − F(0) ~ hᵖ with p below this
JUMP = 0.02  # [–, –] p below this is a jump
SMALL_JUMP = 1e-7  # [–, –] a smaller jump, relative to the variation of F, is rounding inside f
POWER = 0.02  # [–, –] F(h) − F(0) is a power of h if p varies by less than this on the last rungs
RIVAL = 0.03  # [–, 10] an entry whose error is below this part of the difference may support a claim
STEADY = 0.3  # [–, –] three slopes at the same distance from the quotient, up to this part, are not noise
SMOOTH = 0.01  # [–, –] deviations that are smaller by this factor at the smallest steps are no noise
ROUGH = 1e-4  # [–, –] F that changes by this part of its variation at the smallest step varies within that step
ITERATION = 1e-4  # [–, –] a smaller difference may come from an iteration in f that stops at a tolerance
MANY = 1e3  # [–, –] a change of F by more roundings than this is not rounding
NARROW = 1e-10  # [–, –] f with a rounding above this computes in a dtype narrower than float64
STAIRS = 4  # [–, 1.5] a coarse F changes at this number of steps or more; a step function such as floor, at one or two
CLEAR = 50.0  # [–, –] a Taylor remainder above this number of noises shows its power
NEGLIGIBLE = 1e-6  # [–, –] a claim of 0 is right if the slope is known to this part of F's variation

# The causes for which F has no slope.
SINGULAR = (Cause.KINK, Cause.JUMP, Cause.STEEP)
EPS, EPS32 = float(np.finfo(float).eps), float(np.finfo(np.float32).eps)


class Lines(NamedTuple):
    """Values of F along several directions.

    Attributes:
        h: The steps, largest first, (rungs,).
        plus: F(h), (lines, rungs).
        minus: F(−h), (lines, rungs).
        zero: F(0), (lines,).
        size: Σ |wᵢfᵢ(x)|, the scale of the rounding of F, (lines,).
        eps: The relative rounding of the dtype in which f was evaluated.
        narrow: The largest relative rounding among the dtypes that f computes with.
    """

    h: Floats
    plus: Floats
    minus: Floats
    zero: Floats
    size: Floats
    eps: float
    narrow: float


@dataclasses.dataclass(frozen=True)
class Slopes:
    """F′(0) along several directions, each field (lines,).

    Attributes:
        value: The quotient.
        error: Its estimated error.
        gap: F′(0+) − F′(0−).
        gap_error: The estimated error of the gap.
        step: The step that gave the quotient.
        noise: The noise of F.
        variation: The largest |F(h) − F(0)|.
        varies: True if the noise of F exceeds MANY roundings.
        still: True if F in float64 changed at no step up to the size of x.
        cause: AGREES where F has a slope, otherwise KINK, JUMP, STEEP, EDGE or NOT_FINITE.
        doubt: The cause to report if the error is too large: NOISE, NO_FLOAT64 or ROUGH.
        values: All entries of the table, (lines, entries).
        errors: Their errors, without slopes that far smaller steps show.
        h: The steps, (rungs,).
        quotients: The quotients, (lines, rungs).
        rounding: The rounding of F, (lines,).
    """

    value: Floats
    error: Floats
    gap: Floats
    gap_error: Floats
    step: Floats
    noise: Floats
    variation: Floats
    varies: Mask
    still: Mask
    cause: list[Cause]
    doubt: list[Cause]
    values: Floats
    errors: Floats
    h: Floats
    quotients: Floats
    rounding: Floats


def ladder(largest: float = 1.0, rungs: int = RUNGS) -> Floats:
    """Return steps from the largest down, each a quarter of the one before."""
    return largest * RATIO ** -np.arange(rungs, dtype=float)


def slopes(lines: Lines, noise: float = 0.0) -> Slopes:
    """Return the slope of each line at 0, its error, and the shape of F there. `noise` is known noise of F."""
    h, zero, end = lines.h, lines.zero[:, None], _geometric(lines.h)
    with np.errstate(all="ignore"):
        # Only the steps below every step with an infinite or NaN value show the neighborhood of x.
        finite = np.isfinite(lines.plus) & np.isfinite(lines.minus)
        inside: Mask = np.cumsum(~finite[:, ::-1], axis=1)[:, ::-1] == 0
        plus, minus = np.where(inside, lines.plus, np.nan), np.where(inside, lines.minus, np.nan)
        change = np.maximum(np.abs(plus - zero), np.abs(minus - zero))
        variation: Floats = np.nan_to_num(np.nanmax(np.where(inside, change, 0), axis=1))
        quotients = (plus - minus) / (2 * h)
        # The point x + hu is rounded too, which moves F by a rounding times its slope.
        usual: Floats = np.median(np.where(inside, np.abs(quotients), 0), axis=1)
        rounding = 2 * lines.eps * (lines.size + 4 * usual)
        hidden, coarse = _resolution(lines, change)
        least = np.maximum(2 * lines.eps * lines.size, coarse)
        table = romberg(
            h, quotients, np.maximum.reduce([rounding, hidden, coarse, np.full(len(usual), noise)]), least, 2
        )
        # The second difference adds four values of F.
        gap, gap_error, *_ = romberg(h, (plus + minus - 2 * zero) / h, 4 * table.noise, 4 * table.noise, 1)
        kink = np.abs(gap) > np.maximum(SAFETY * gap_error, SMALL_GAP * np.abs(table.value))
    varies = table.noise > MANY * rounding
    stairs = (coarse > MANY * rounding) & (np.count_nonzero(change, axis=1) >= STAIRS)
    rough = varies & (change[:, -1] > ROUGH * variation)
    few = (lines.narrow > NARROW) | stairs
    doubt = [Cause.NO_FLOAT64 if a else Cause.ROUGH if b else Cause.NOISE for a, b in zip(few, rough, strict=True)]
    # Rounding to a dtype narrower than float64 looks like a jump.
    least_jump = np.maximum(rounding, lines.narrow * lines.size if lines.narrow > NARROW else 0.0)
    causes = []
    for i in range(len(zero)):
        if not np.isfinite(zero[i]) or inside[i].sum() < min(4, len(h)):
            sides = [np.isfinite(side[i]).any() for side in (lines.plus, lines.minus)]
            causes.append(Cause.EDGE if np.isfinite(zero[i]) and sum(sides) == 1 else Cause.NOT_FINITE)
        else:
            broken = _broken(
                plus[i, :end] - zero[i], zero[i] - minus[i, :end], least_jump[i], SMALL_JUMP * variation[i]
            )
            causes.append(Cause.KINK if kink[i] and broken is Cause.AGREES else broken)
    # A narrow dtype hides small changes, and so do steps that are small compared with x.
    still = (variation == 0) & (h[0] >= 1) & (lines.narrow <= NARROW)
    return Slopes(
        table.value,
        table.error,
        gap,
        gap_error,
        h[table.at],
        table.noise,
        variation,
        varies,
        still,
        causes,
        doubt,
        table.values,
        table.errors,
        h,
        quotients,
        least,
    )


class Table(NamedTuple):
    """Romberg's table.

    Attributes:
        value: The entry with the smallest error, (lines,).
        error: Its error.
        at: Its rung.
        noise: The noise of F that it measured.
        values: All entries, (lines, entries).
        errors: Their errors, without slopes that far smaller steps show.
    """

    value: Floats
    error: Floats
    at: NDArray[np.int64]
    noise: Floats
    values: Floats
    errors: Floats


def romberg(h: Floats, first: Floats, noise: Floats, rounding: Floats, power: int) -> Table:
    """Return Romberg's table and its entry with the smallest error.

    `first` holds the quotients, (lines, rungs). Their error is a series in h^power, h^(power + 2), … The noise of F is
    at least `noise`, and a part of it that is at most `rounding` is no structure of F.
    """
    rungs = _geometric(h)
    finer = first.copy()  # without truncation, so that truncation at small steps does not look like noise
    finer[:, 1:] += (first[:, 1:] - first[:, :-1]) / ((h[:-1] / h[1:]) ** power - 1)
    column, growth, parts = first[:, :rungs], RATIO**power, []
    for order in range(1, min(rungs, ORDERS + 1)):
        entry = column[:, 1:] + (column[:, 1:] - column[:, :-1]) / (growth - 1)
        parents = np.maximum(np.abs(entry - column[:, 1:]), np.abs(entry - column[:, :-1]))
        steps = h[order:rungs]
        smaller = h <= steps[:, None] / FAR
        near = smaller & (h >= steps[:, None] / NEARBY)
        far = first[:, None] - entry[..., None]
        off = np.minimum(np.abs(far), np.abs(finer[:, None] - entry[..., None]))
        level: Floats = np.maximum(noise[:, None], np.nanmax(np.where(near, off * h, 0), axis=2))
        error: Floats = np.maximum(parents, level / steps)
        # An entry may agree with its neighbors by chance. Only smaller steps show that.
        known = np.isfinite(error) & (smaller.any(axis=1) | (len(h) <= ORDERS))
        error = np.where(known, error, np.inf)
        structure = _structure(h, np.where(smaller, far, np.nan), rounding, level)
        rung = np.broadcast_to(np.arange(order, rungs), entry.shape)
        parts.append((np.where(known, entry, np.nan), error, np.maximum(error, structure), rung, level))
        column, growth = entry, growth * RATIO**2
    values, errors, total, rung, level = (np.concatenate(x, axis=1) for x in zip(*parts, strict=True))
    best = np.arange(len(first)), np.argmin(total, axis=1)
    return Table(values[best], total[best], rung[best], level[best], values, errors)


def _structure(h: Floats, off: Floats, rounding: Floats, level: Floats) -> Floats:
    """Return the distance to another slope that far smaller steps show, (lines, entries); 0 if none do.

    Three steps show it steadily. Or F deviates at some steps by far more than rounding, and not at the smallest ones:
    then the deviation is no noise. `off` is the distance of each quotient, (lines, entries, rungs), and NaN at steps
    that are not far smaller. A distance that the rounding of F explains does not count. `level` is the noise.
    """
    n = _geometric(h) - 2
    three = np.stack([off[..., k : k + n] for k in range(3)])
    low: Floats = np.min(np.abs(three), axis=0)
    high: Floats = np.max(np.abs(three), axis=0)
    steady = (high <= (1 + STEADY) * low) & (np.abs(np.sum(np.sign(three), axis=0)) == 3)
    seen = low > rounding[:, None, None] / h[2 : n + 2]
    slope = np.max(np.where(steady & seen, low, 0.0), axis=2, initial=0.0)
    resolved = np.where(np.abs(off) > rounding[:, None, None] / h, np.abs(off), 0.0)
    smallest: Floats = np.max(np.nan_to_num(np.abs(off) * h)[..., -4:], axis=2)
    smooth = (level > MANY * rounding[:, None]) & (smallest <= SMOOTH * level)
    return np.asarray(np.maximum(slope, np.where(smooth, np.max(resolved, axis=2), 0.0)))


def _geometric(h: Floats) -> int:
    """Return the number of rungs with the ratio RATIO. A step after them only measures noise."""
    return int(np.argmax(np.append(h[:-1] / h[1:], np.inf) > 1.01 * RATIO)) + 1


def _resolution(lines: Lines, change: Floats) -> tuple[Floats, Floats]:
    """Return two resolutions of F on each line where F does not change at the smallest step; 0 on the others.

    The first is the rounding of numbers as large as the variation of F along any line: F may compute with them. The
    second is the smallest change of an F that computes in float32 or narrower. A larger change at few steps is a step
    of f itself.
    """
    constant: Mask = change[:, -1] == 0
    least: Floats = np.min(np.where(change > 0, change, np.inf), axis=1)
    stairs = (lines.narrow > NARROW) & (np.count_nonzero(change, axis=1) >= STAIRS)
    coarse = constant & (stairs | (least <= 4 * np.maximum(EPS32, lines.narrow) * lines.size))
    rounded = lines.eps * np.max(change, initial=0.0, where=np.isfinite(change))
    return np.where(constant, rounded, 0.0), np.where(coarse, least, 0.0)


def _broken(up: Floats, down: Floats, rounding: float, small: float) -> Cause:
    """Return JUMP or STEEP if F(h) − F(0), F(0) − F(−h) or their sum shrinks like hᵖ with p below STEEPEST.

    Otherwise return AGREES. A jump up to `small` does not count.
    """
    for side in (up, down, up + down):
        last, more = side[-3:], side[-6:][np.isfinite(side[-6:])]
        if np.all(np.abs(last) > MANY * rounding) and len(set(np.sign(last))) == 1:
            powers: Floats = np.log(last[:-1] / last[1:]) / np.log(RATIO)
            # On three rungs, rounding may look like a power. It does not on six.
            steep = np.log(np.abs(more[0] / last[-1])) < STEEPEST * (len(more) - 1) * np.log(RATIO)
            # A change that grows as h shrinks, but stays below the changes at larger steps, is noise.
            noise = powers[-1] < -JUMP and np.abs(last[-1]) < np.nanmax(np.abs(side))
            if steep and np.all(powers < STEEPEST) and np.ptp(powers) < POWER and not noise:
                if np.any(np.abs(powers) >= JUMP):
                    return Cause.STEEP
                if np.all(np.abs(last) > small):
                    return Cause.JUMP
    return Cause.AGREES


class Claim(NamedTuple):
    """A claimed slope of each line, each field (lines,).

    Attributes:
        value: The claimed slopes.
        noise: Their change when x moves by one rounding.
        size: √Σ(gᵢuᵢ)², with g the claimed gradient. By chance ⟨g, u⟩ may be far smaller.
        floor: A difference up to this part of the size does not count.
    """

    value: Floats
    noise: Floats
    size: Floats
    floor: float


class Judgment(NamedTuple):
    """The verdict on one claimed slope.

    Attributes:
        verdict: Right, wrong or cannot tell.
        cause: The reason.
        difference: The distance from the quotient.
        tolerance: The largest distance that is not wrong.
        size: The size of the slope, for relative numbers.
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

    Wrong if the difference exceeds the tolerance, and the uncertainty is at most UNCERTAIN · size. Right if the
    difference does not exceed it, and the uncertainty is at most (rtol or resolution) · size. Otherwise cannot tell.
    NaN is never right.
    """
    tolerance = uncertainty + max(floor, rtol or 0.0) * size
    if not np.isfinite(tolerance):
        return Verdict.CANNOT_TELL, tolerance
    if not difference <= tolerance:
        return (Verdict.WRONG if uncertainty <= UNCERTAIN * size else Verdict.CANNOT_TELL), tolerance
    known = uncertainty <= (rtol or resolution) * size
    return (Verdict.RIGHT if known else Verdict.CANNOT_TELL), tolerance


def judge(claim: Claim, found: Slopes, rtol: float | None, coarse: bool) -> list[Judgment]:
    """Return the verdict on the claimed slope of each line. `coarse` is True if f computes with few digits."""
    return [_judge(claim, found, i, rtol, coarse) for i in range(len(found.value))]


def _judge(claim: Claim, found: Slopes, i: int, rtol: float | None, coarse: bool) -> Judgment:
    claimed, value = float(claim.value[i]), float(found.value[i])
    difference, resolution = float(abs(claimed - value)), COARSE_RESOLUTION if coarse else RESOLUTION
    size = float(np.nanmax([claim.size[i], abs(value)]))
    if found.cause[i] is not Cause.AGREES:
        return Judgment(Verdict.CANNOT_TELL, found.cause[i], difference, np.inf, size, value)
    error, noise = SAFETY * float(found.error[i]), NOISES * float(claim.noise[i])
    if not np.isfinite(claimed):
        if np.isfinite(error):
            return Judgment(Verdict.WRONG, Cause.GRADIENT_NOT_FINITE, np.nan, error, size, value)
        return Judgment(Verdict.CANNOT_TELL, found.doubt[i], np.nan, error, size, value)
    if claimed == 0 and (found.still[i] or error <= NEGLIGIBLE * found.variation[i]) and difference <= error:
        return Judgment(Verdict.RIGHT, Cause.AGREES, difference, error, size, value)
    verdict, tolerance = agree(difference, error + noise, size, claim.floor, rtol, resolution)
    if verdict is Verdict.WRONG and explained_by_kink(found, difference)[i]:
        return Judgment(Verdict.CANNOT_TELL, Cause.KINK, difference, abs(found.gap[i]), size, value)
    if verdict is Verdict.WRONG and _supported(claimed, found, i, difference):
        # F has one slope at large steps and another at small steps. Their distance is the error of both.
        error = SAFETY * difference
        verdict, tolerance = agree(difference, error + noise, size, claim.floor, rtol, resolution)
    unsteady = error <= (rtol or resolution) * size < noise and not coarse
    doubt = Cause.UNSTEADY if unsteady else found.doubt[i]
    cause = {Verdict.RIGHT: Cause.AGREES, Verdict.WRONG: Cause.DIFFERS, Verdict.CANNOT_TELL: doubt}[verdict]
    return Judgment(verdict, cause, difference, tolerance, size, value)


def explained_by_kink(found: Slopes, difference: Floats | float) -> Mask:
    """Return True for each line with a difference that errors do not explain, but that a certain kink explains."""
    gap = np.abs(found.gap)
    return np.asarray((gap > SAFETY * found.gap_error) & (gap >= difference) & (difference > SAFETY * found.error))


def _supported(claimed: float, found: Slopes, i: int, difference: float) -> bool:
    """Return True if another certain entry of the table supports a claim, or the quotients at all small steps do."""
    values: Floats = found.values[i]
    errors: Floats = found.errors[i]
    quotients: Floats = found.quotients[i]
    entries = np.abs(values - claimed) <= SAFETY * errors
    # From some step on, rounding explains the distance of every quotient from the claim, but not from the value.
    limit: Floats = 2 * float(found.rounding[i]) / found.h
    below: Mask = np.cumsum(~(np.abs(quotients - claimed) <= limit)[::-1])[::-1] == 0
    contradicts = np.abs(quotients - float(found.value[i])) > limit
    return bool(np.any(entries & (errors <= RIVAL * difference)) or np.any(below & contradicts))


def combine(each: list[Judgment]) -> Judgment:
    """Return the judgment that decides a leaf, from the judgments along all directions."""
    wrong, right, unknown = (
        [j for j in each if j.verdict is verdict] for verdict in (Verdict.WRONG, Verdict.RIGHT, Verdict.CANNOT_TELL)
    )
    singular = [j for cause in (Cause.ROUGH, *SINGULAR) for j in unknown if j.cause is cause]
    # If F is not resolved along one line, the quotient along another is not certain. An infinite or NaN claim may be
    # right where f has no slope.
    if wrong and not (singular and (singular[0].cause is Cause.ROUGH or wrong[0].cause is Cause.GRADIENT_NOT_FINITE)):
        return max(wrong, key=lambda j: np.inf if np.isnan(j.difference) else (j.difference - j.tolerance) / j.size)
    if singular:
        return singular[0]
    if not unknown or len(right) >= 2:
        return max(right, key=lambda j: j.difference / j.size if j.size else 0.0)
    return next((j for j in unknown if j.cause in (Cause.EDGE, Cause.NOT_FINITE)), unknown[0])


def outside_the_kink(claim: Claim, found: Slopes) -> bool:
    """Return True if the claim lies outside the one-sided slopes of F at a kink, along every line."""
    middle, half = found.value, np.abs(found.gap) / 2
    slack = SAFETY * (found.error + found.gap_error) + np.maximum(claim.floor, SMALL_GAP) * np.maximum(
        np.abs(middle), np.abs(found.gap)
    )
    return bool(np.all(np.abs(claim.value - middle) > half + slack))


def taylor(lines: Lines, claimed: Floats, noise: Floats) -> list[float]:
    """Return, for each line, the power p for which the Taylor remainder |F(h) − F(0) − h·claimed| shrinks like hᵖ.

    p is 2 for a right claim and 1 for a wrong one: the median over the three smallest pairs of steps whose remainder is
    above the noise. It is NaN without such a pair, as for a linear F with the right claim.
    """
    powers = []
    with np.errstate(all="ignore"):
        for plus, zero, slope, level in zip(lines.plus, lines.zero, claimed, noise, strict=False):
            remainder: Floats = np.abs(plus - zero - lines.h * slope)
            seen = np.isfinite(remainder) & (remainder > CLEAR * level)
            each: Floats = np.log(remainder[:-1] / remainder[1:]) / np.log(lines.h[:-1] / lines.h[1:])
            each = each[seen[:-1] & seen[1:]]
            powers.append(float(np.median(each[-3:])) if len(each) else float("nan"))
    return powers
