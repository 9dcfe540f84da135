"""The slope of F at 0 from its values at the steps of a ladder, as items 4 to 6 of core.py describe."""

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxgd.gradcheck.constants import (
    CLEAR,
    EPS32,
    FAR,
    JUMP,
    MANY,
    NARROW,
    NEARBY,
    ORDERS,
    POWER,
    RATIO,
    ROUGH,
    RUNGS,
    SAFETY,
    SMALL_GAP,
    SMALL_JUMP,
    SMOOTH,
    STAIRS,
    STEADY,
    STEEPEST,
)
from jaxgd.gradcheck.verdicts import Cause

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


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
    """F′(0) along several directions. A field has the shape (lines,) if no other shape is given.

    Attributes:
        value: The quotient.
        error: Its estimated error.
        gap: F′(0+) − F′(0−).
        gap_error: The estimated error of the gap.
        step: The step that gave the quotient.
        noise: The noise of F.
        variation: The largest |F(±h) − F(0)|.
        varies: True if the noise of F exceeds MANY times its rounding.
        still: True if F changed at no step. False if F computes in a dtype narrower than float64, or if all steps are
            small compared with x.
        hidden: The slope below which rounding may hide every change of F. It is 0 if F computes in float64 or changed
            at a step.
        cause: AGREES where F has a slope, otherwise KINK, JUMP, STEEP, EDGE or NOT_FINITE.
        doubt: The cause to report if the error is too large: NOISE, NO_FLOAT64 or ROUGH.
        values: All entries of the table, (lines, entries).
        errors: The errors of all entries. Unlike `error`, they ignore another slope at far smaller steps.
        h: The steps, (rungs,).
        quotients: (F(h) − F(−h))/2h at each step, (lines, rungs).
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
    hidden: Floats
    cause: list[Cause]
    doubt: list[Cause]
    values: Floats
    errors: Floats
    h: Floats
    quotients: Floats
    rounding: Floats


def ladder(largest: float = 1.0, rungs: int = RUNGS) -> Floats:
    """Return steps from the largest down, each a quarter of the previous one."""
    return largest * RATIO ** -np.arange(rungs, dtype=float)


def slopes(lines: Lines, noise: float = 0.0) -> Slopes:
    """Return the slope of each line at 0, its error, and the singularity of F if it has one.

    `noise` is a lower limit of the noise of F.
    """
    h, zero, end = lines.h, lines.zero[:, None], _geometric(lines.h)
    with np.errstate(all="ignore"):
        # If F is infinite or NaN at a step, this step and all larger ones do not show the neighborhood of x.
        finite = np.isfinite(lines.plus) & np.isfinite(lines.minus)
        inside: Mask = np.cumsum(~finite[:, ::-1], axis=1)[:, ::-1] == 0
        plus, minus = np.where(inside, lines.plus, np.nan), np.where(inside, lines.minus, np.nan)
        change = np.maximum(np.abs(plus - zero), np.abs(minus - zero))
        variation: Floats = np.nan_to_num(np.nanmax(np.where(inside, change, 0), axis=1))
        quotients = (plus - minus) / (2 * h)
        # Rounding the point x + hu changes F too, in proportion to its slope.
        usual: Floats = np.median(np.where(inside, np.abs(quotients), 0), axis=1)
        rounding = 2 * lines.eps * (lines.size + 4 * usual)
        hidden, coarse = _resolution(lines, change)
        least = np.maximum(2 * lines.eps * lines.size, coarse)
        table = romberg(
            h, quotients, np.maximum.reduce([rounding, hidden, coarse, np.full(len(usual), noise)]), least, 2
        )
        # The second difference adds four values of F, so its noise is four times the noise of F.
        gap, gap_error, *_ = romberg(h, (plus + minus - 2 * zero) / h, 4 * table.noise, 4 * table.noise, 1)
        kink = np.abs(gap) > np.maximum(SAFETY * gap_error, SMALL_GAP * np.abs(table.value))
    varies = table.noise > MANY * rounding
    stairs = (coarse > MANY * rounding) & (np.count_nonzero(change, axis=1) >= STAIRS)
    rough = varies & (change[:, -1] > ROUGH * variation)
    few = (lines.narrow > NARROW) | stairs
    doubt = [Cause.NO_FLOAT64 if a else Cause.ROUGH if b else Cause.NOISE for a, b in zip(few, rough, strict=True)]
    # Rounding to a dtype narrower than float64 looks like a jump, so a jump must be far larger than this rounding.
    least_jump = np.maximum(rounding, lines.narrow * lines.size if lines.narrow > NARROW else 0.0)
    causes = []
    for i in range(len(zero)):
        if not np.isfinite(zero[i]) or inside[i].sum() < min(4, len(h)):
            sides = [np.isfinite(side[i]).any() for side in (lines.plus, lines.minus)]
            causes.append(Cause.EDGE if np.isfinite(zero[i]) and sum(sides) == 1 else Cause.NOT_FINITE)
        else:
            singularity = _singularity(
                plus[i, :end] - zero[i], zero[i] - minus[i, :end], least_jump[i], SMALL_JUMP * variation[i]
            )
            causes.append(Cause.KINK if kink[i] and singularity is Cause.AGREES else singularity)
    # A narrow dtype may hide changes of F, and so may steps that are small compared with x.
    still = (variation == 0) & (h[0] >= 1) & (lines.narrow <= NARROW)
    hidden_slope = np.where((variation == 0) & (lines.narrow > NARROW), lines.narrow * lines.size / h[0], 0.0)
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
        hidden_slope,
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
        error: The error of that entry.
        at: The rung of that entry.
        noise: The noise of F that the entry measured.
        values: All entries, (lines, entries).
        errors: The errors of all entries. Unlike `error`, they ignore another slope at far smaller steps.
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
    at least `noise`. A deviation of F up to `rounding` does not count as another slope.
    """
    rungs = _geometric(h)
    finer = first.copy()  # extrapolated once, so that the truncation error of small steps does not look like noise
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
        # An entry may be close to its neighbors by chance. Only far smaller steps reveal this, so an entry without such
        # steps does not count. A ladder of at most ORDERS steps is too short for this rule.
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
    """Return the distance from each entry to another slope that far smaller steps show, or 0, (lines, entries).

    `off` is the quotient at each step minus the entry, (lines, entries, rungs). It is NaN at steps that are not far
    smaller. The steps show another slope in two cases: three steps in a row agree on it, or off·h is far above rounding
    at some steps but nearly vanishes at the smallest ones. `level` is the noise.
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
    """Return the number of steps at the start of the ladder whose ratio is RATIO. Later steps only measure noise."""
    return int(np.argmax(np.append(h[:-1] / h[1:], np.inf) > 1.01 * RATIO)) + 1


def _resolution(lines: Lines, change: Floats) -> tuple[Floats, Floats]:
    """Return two resolutions of F for each line. Both are 0 on a line where F changes at the smallest step.

    The first is the rounding of the largest change of F along any line, because F may compute with numbers of this
    size. The second is the smallest change of F, if F seems to compute in float32 or narrower, otherwise 0.
    """
    constant: Mask = change[:, -1] == 0
    least: Floats = np.min(np.where(change > 0, change, np.inf), axis=1)
    stairs = (lines.narrow > NARROW) & (np.count_nonzero(change, axis=1) >= STAIRS)
    coarse = constant & (stairs | (least <= 4 * np.maximum(EPS32, lines.narrow) * lines.size))
    rounded = lines.eps * np.max(change, initial=0.0, where=np.isfinite(change))
    return np.where(constant, rounded, 0.0), np.where(coarse, least, 0.0)


def _singularity(up: Floats, down: Floats, rounding: float, small: float) -> Cause:
    """Return JUMP or STEEP if F(h) − F(0), F(0) − F(−h) or F(h) − F(−h) shrinks like hᵖ with p below STEEPEST.

    Otherwise return AGREES. A jump up to `small` does not count.
    """
    for side in (up, down, up + down):
        last, more = side[-3:], side[-6:][np.isfinite(side[-6:])]
        if np.all(np.abs(last) > MANY * rounding) and len(set(np.sign(last))) == 1:
            powers: Floats = np.log(last[:-1] / last[1:]) / np.log(RATIO)
            # Rounding may look like a power on three rungs, but not on six.
            steep = np.log(np.abs(more[0] / last[-1])) < STEEPEST * (len(more) - 1) * np.log(RATIO)
            # A change that grows as h shrinks, but stays below the largest change over all steps, is noise.
            noise = powers[-1] < -JUMP and np.abs(last[-1]) < np.nanmax(np.abs(side))
            if steep and np.all(powers < STEEPEST) and np.ptp(powers) < POWER and not noise:
                if np.any(np.abs(powers) >= JUMP):
                    return Cause.STEEP
                if np.all(np.abs(last) > small):
                    return Cause.JUMP
    return Cause.AGREES


def taylor(lines: Lines, claimed: Floats, noise: Floats) -> list[float]:
    """Return, for each line, the power p for which the Taylor remainder |F(h) − F(0) − h·claimed| shrinks like hᵖ.

    p is about 2 for a right claim and about 1 for a wrong one. It is computed from neighboring steps whose remainders
    are both far above the noise, as the median over the three smallest pairs. It is NaN if there is no such pair.
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
