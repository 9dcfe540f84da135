"""Difference quotients with an estimate of their own error; NumPy alone, for one direction or many at once.

F(t) = ⟨w, f(x + t u)⟩ is known at t = 0 and at ±h on a ladder of steps, each a quarter of the one before.
"""

import dataclasses
import enum
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RATIO = 4.0
_EPS = float(np.finfo(float).eps)
# A quotient's error is estimated, not known: this many estimates are allowed before two numbers differ.
SAFETY = 10.0


class Shape(enum.Enum):
    """What F looks like around t = 0."""

    SMOOTH = "smooth"
    KINK = "kink"
    JUMP = "jump"
    STEEP = "the quotient grows without bound"
    EDGE = "not finite on one side"
    NOT_FINITE = "not finite"
    ROUGH = "varies within the smallest step"


@dataclasses.dataclass(frozen=True)
class Quotient:
    """The derivative of F at 0 in one direction, as far as F's values show it.

    `value` with the estimate `error`; `left` and `right` are the one-sided derivatives, `gap` their difference with
    the estimate `gap_error`; `step` the step it was found with, `noise` what F's values are uncertain by. Where the
    value is 0 because F does not move, `hidden` is the slope that it may have all the same; `fine` is by how much
    F's slope differs from the value on a scale below the step.
    """

    value: float
    error: float
    left: float
    right: float
    gap: float
    gap_error: float
    shape: Shape
    step: float
    noise: float
    hidden: float = 0.0
    fine: float = 0.0


def ladder(largest: float, rungs: int, probe: float | None = None) -> Floats:
    """Steps from the largest down, each a quarter of the one before; then, perhaps, one far smaller to see noise by."""
    h = largest * RATIO ** -np.arange(rungs, dtype=float)
    return h if probe is None else np.append(h, probe)


def central(
    h: Floats, plus: Floats, minus: Floats, rounding: Floats
) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """F′(0), an estimate of its error, the noise in F's values, and the rung it came from; for many directions at once.

    Romberg's table on (F(h) − F(−h))/2h, of which the entry with the smallest estimated error is taken: what it differs
    by from the two it was made of, and what noise in F's values does to it. The noise is measured: it is what the
    quotients of the smaller steps, where truncation is negligible, deviate by; at least `rounding`. Without it, an F
    that computes in float32 inside seems to be known to as many digits as happen to agree.

    Shapes: `h` is (rungs,), `plus` and `minus` are (rungs, directions), `rounding` is (directions,).
    Source: Ridders, Advances in Engineering Software 4 (1982) 75–76, for the table.
    """
    with np.errstate(all="ignore"):
        table = (plus - minus) / (2 * h[:, None])
        finer = table.copy()
        finer[1:] += (table[1:] - table[:-1]) / ((h[:-1] / h[1:]) ** 2 - 1)[:, None]
        rungs, noise = _geometric(h), rounding
        for _ in range(4):
            value, error, rung = _extrapolate(table[:rungs], noise / h[:rungs, None], RATIO**2, RATIO**2)
            measured = np.maximum(noise, _deviation(h, table, finer, value, rung))
            # Within what was allowed for already, or new?
            if np.all(measured <= 4 * noise):
                break
            noise = measured
        error = np.maximum(error, measured / h[rung])
        # Smaller steps that agree among themselves and not with the larger are no noise: F varies on their scale.
        moves = np.where((plus - minus)[:rungs] != 0, table[:rungs], np.nan)
        local, local_error, local_rung = _contradiction(moves, rounding / h[:rungs, None], value, error, rung)
        local_noise = np.maximum(rounding, _deviation(h, table, finer, local, local_rung))
        local_error = np.maximum(local_error, local_noise / h[local_rung])
        other = local_error < 1e-2 * np.abs(local - value)
        value, error = np.where(other, local, value), np.where(other, local_error, error)
        noise, rung = np.where(other, local_noise, noise), np.where(other, local_rung, rung)
    return value, error, noise, rung


def _deviation(h: Floats, table: Floats, finer: Floats, value: Floats, rung: NDArray[np.int64]) -> Floats:
    """What F's values are uncertain by if `value` is right, going by the quotients of far smaller steps."""
    small = h[:, None] <= h[rung] / RATIO**2
    deviation = np.minimum(np.abs(table - value), np.abs(finer - value)) * h[:, None]
    return np.asarray(np.nanmax(np.where(small, deviation, 0), axis=0))


def gap(h: Floats, plus: Floats, minus: Floats, zero: Floats, rounding: Floats) -> tuple[Floats, Floats]:
    """F′(0+) − F′(0−) with an estimate of its error: 0 where F is smooth.

    Romberg's table on (F(h) + F(−h) − 2F(0))/h, which is J + hF″ + O(h³) for a jump J of the slope.
    """
    rungs = _geometric(h)
    with np.errstate(all="ignore"):
        table = (plus + minus - 2 * zero)[:rungs] / h[:rungs, None]
        best, error, _ = _extrapolate(table, 4 * rounding / h[:rungs, None], RATIO, RATIO**2)
    return best, error


def _geometric(h: Floats) -> int:
    """How many rungs follow each other by RATIO; what comes after them only serves to measure noise."""
    return int(np.argmax(np.append(h[:-1] / h[1:], np.inf) > 1.01 * RATIO)) + 1


def _entries(first: Floats, noise: Floats, factor: float, growth: float) -> Iterator[tuple[int, Floats, Floats]]:
    """Richardson's table, order by order: the order, the entries, and an estimate of the error of each."""
    previous, column = first, factor
    for order in range(1, min(len(first), 4)):
        current = previous[1:] + (previous[1:] - previous[:-1]) / (column - 1)
        estimate = np.maximum(np.abs(current - previous[1:]), np.abs(current - previous[:-1]))
        estimate = np.maximum(estimate, noise[order:])
        yield order, current, np.where(np.isfinite(estimate), estimate, np.inf)
        previous, column = current, column * growth


def _extrapolate(
    first: Floats, noise: Floats, factor: float, growth: float
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Of Richardson's table, the entry with the smallest estimated error, for each column of `first`."""
    n = first.shape[1]
    value, error, rung = np.full(n, np.nan), np.full(n, np.inf), np.zeros(n, int)
    for order, current, estimate in _entries(first, noise, factor, growth):
        i = np.argmin(estimate, axis=0)
        at = i, np.arange(n)
        better = estimate[at] < error
        value, error = np.where(better, current[at], value), np.where(better, estimate[at], error)
        rung = np.where(better, i + order, rung)
    return value, error, rung


def _contradiction(
    first: Floats, noise: Floats, value: Floats, error: Floats, rung: NDArray[np.int64]
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """The entry made of steps smaller than that of `rung` which contradicts `value` most clearly.

    Its error is infinite where there is none. Three steps at least have to agree, to a hundredth of what they
    contradict by: by chance that is rare.
    """
    n = first.shape[1]
    found, found_error, found_rung = np.full(n, np.nan), np.full(n, np.inf), np.zeros(n, int)
    clearest = np.zeros(n)
    for order, current, estimate in _entries(first, noise, RATIO**2, RATIO**2):
        apart = np.abs(current - value)
        smaller = np.arange(len(current))[:, None] > rung
        clear = (order >= 2) & smaller & (SAFETY * (estimate + error) < apart) & (estimate < 1e-2 * apart)
        clarity = np.where(clear, apart / estimate, 0)
        i = np.argmax(clarity, axis=0)
        at = i, np.arange(n)
        better = clarity[at] > clearest
        found, found_error = np.where(better, current[at], found), np.where(better, estimate[at], found_error)
        found_rung, clearest = np.where(better, i + order, found_rung), np.where(better, clarity[at], clearest)
    return found, found_error, found_rung


def analyse(h: Floats, plus: Floats, minus: Floats, zero: float, rounding: float, size: float = 0.0) -> Quotient:
    """One direction: its derivative, and what F looks like around 0. `size` is how large F is in other directions."""
    both = np.isfinite(plus) & np.isfinite(minus)
    if not np.isfinite(zero) or both.sum() < 2:
        sides = [np.isfinite(side).sum() >= 2 for side in (plus, minus)]
        edge = np.isfinite(zero) and any(sides) and not all(sides)
        return _nothing(Shape.EDGE if edge else Shape.NOT_FINITE)
    # Only what is finite from some step on down to the smallest.
    first = int(np.max(np.flatnonzero(~both), initial=-1)) + 1
    if first > _geometric(h) - 2:
        return _nothing(Shape.NOT_FINITE)
    h, plus, minus = h[first:], plus[first:], minus[first:]
    own = rounding
    even = np.abs(plus + minus - 2 * zero)[-6:]
    if len(h) > 8 and even[-1] >= 0.1 * even[0]:
        # The even part of F shrinks with the step, unless it is noise.
        rounding = max(rounding, float(np.max(even)))
    level = np.array([rounding])
    (value,), (error,), noise, (rung,) = central(h, plus[:, None], minus[:, None], level)
    if _fades_out(h, plus, minus, float(value)):
        error = max(error, abs(value))
    # The slope's jump is looked for near the step that the slope was found with: far from it F may be anything.
    near = slice(max(0, rung - 3), rung + 4)
    (jump,), (jump_error,) = gap(h[near], plus[near, None], minus[near, None], np.array([zero]), noise)
    shape = Shape.SMOOTH
    one_sided = max(abs(value), abs(jump))
    if abs(jump) > SAFETY * jump_error and abs(jump) > 1e-6 * one_sided:
        if (finer := _rounded_off(h, plus, minus, zero, float(jump), float(noise[0]))) is not None:
            return analyse(h[finer:], plus[finer:], minus[finer:], zero, rounding, size)
        shape = Shape.KINK
    elif broken := _break(h, plus, minus, zero, own):
        shape = broken
    elif len(h) > 8 and noise[0] > 1e3 * own and _is_rough(h, plus - zero, minus - zero, float(noise[0]), own):
        shape = Shape.ROUGH
    hidden = 0.0
    if np.all(plus[-8:] == minus[-8:]):
        # F does not move: what that may hide is as large as rounding is where it does.
        hidden = _EPS * max(size, _largest(plus, minus, zero))
    left, right = value - jump / 2, value + jump / 2
    fine = _fine_structure(h, plus, minus, float(value), float(h[rung]), own) if len(h) > 8 else 0.0
    return Quotient(value, error, left, right, jump, jump_error, shape, float(h[rung]), float(noise[0]), hidden, fine)


def _fine_structure(h: Floats, plus: Floats, minus: Floats, value: float, step: float, rounding: float) -> float:
    """How far quotients of far smaller steps are from `value`, where that is more than rounding explains."""
    table = (plus - minus) / (2 * h)
    finer = table.copy()
    # Extrapolated, lest the truncation of a plain quotient be taken for structure.
    finer[1:] += (table[1:] - table[:-1]) / ((h[:-1] / h[1:]) ** 2 - 1)
    off = np.minimum(np.abs(table - value), np.abs(finer - value))
    real = (h <= step / RATIO**2) & (off > SAFETY * rounding / h)
    return float(np.max(off[real], initial=0.0))


def _fades_out(h: Floats, plus: Floats, minus: Floats, value: float) -> bool:
    """Whether F does not move at small steps and begins to with far smaller slopes than `value`, found at large ones.

    A coarsely rounded F does not move either, but begins with slopes as large as that.
    """
    moving = np.flatnonzero(plus != minus)
    if not len(moving) or moving[-1] >= len(h) - 4:
        return False
    first = moving[-2:]
    return bool(np.max(np.abs(plus - minus)[first] / (2 * h[first])) < 0.1 * abs(value))


def _is_rough(h: Floats, plus: Floats, minus: Floats, noise: float, rounding: float) -> bool:
    """Whether what seems to be noise is F itself: as large at the smallest step as F's variation around the point."""
    if np.all(plus[-4:] == minus[-4:]):
        return False
    near = h <= 1
    variation = _largest(plus[near], minus[near], 0.0)
    return variation > 1e6 * max(rounding, _EPS) and noise > 1e-4 * variation


def _largest(plus: Floats, minus: Floats, zero: float) -> float:
    """The largest finite |F| on the ladder."""
    both = np.abs(np.concatenate([plus, minus, [zero]]))
    return float(np.max(both[np.isfinite(both)], initial=0.0))


def _rounded_off(h: Floats, plus: Floats, minus: Floats, zero: float, jump: float, noise: float) -> int | None:
    """Where a ladder begins on which the kink is gone, as √(x² + ε) has one for large steps only; None if it stays."""
    there = np.flatnonzero(4 * noise / h < 0.1 * abs(jump))
    if not len(there):
        return None
    last = int(there[-1])
    here = abs(plus[last] + minus[last] - 2 * zero) / h[last]
    return last - 2 if here < 0.5 * abs(jump) and 2 < last - 2 <= _geometric(h) - 3 else None


def _break(h: Floats, plus: Floats, minus: Floats, zero: float, rounding: float) -> Shape | None:
    """Whether F jumps at 0, or is so steep there that its quotients grow as the step shrinks."""
    rungs = _geometric(h)
    if rungs < 3:
        return None
    for side in (plus - zero, zero - minus, plus - minus):
        last = side[rungs - 3 : rungs]
        if np.any(np.abs(last) <= 1e3 * rounding) or len(set(np.sign(last))) > 1:
            continue
        # How F(h) − F(0) grows with h: 1 where F has a derivative, 0 at a jump, between them at a root.
        powers = np.log(last[:-1] / last[1:]) / np.log(RATIO)
        if np.all(np.abs(powers) < 0.02):
            return Shape.JUMP
        if np.all(powers < 0.95) and np.ptp(powers) < 0.02:
            return Shape.STEEP
    return None


def flat(h: Floats, plus: Floats, minus: Floats, zero: float, rounding: float) -> bool:
    """Whether F is constant around 0, to the bit, and does not merely fade out there.

    At least over the four smallest steps; and where it begins to change, from one step to the next one larger, it
    changes at once by far more than rounding, as at the next piece of a piecewise function. A smooth F that saturates
    begins with a few roundings: its slope is not 0 but hidden.
    """
    change = np.maximum(np.abs(plus - zero), np.abs(minus - zero))
    changed = np.flatnonzero(~(change == 0))
    if not len(changed):
        return True
    last = int(changed[-1])
    hidden = max(rounding, _EPS * _largest(plus, minus, zero))
    return last < len(h) - 4 and not change[last] <= 1e6 * hidden


def _nothing(shape: Shape) -> Quotient:
    nan, inf = float("nan"), float("inf")
    return Quotient(nan, inf, nan, nan, nan, inf, shape, nan, inf)


def taylor_slope(h: Floats, plus: Floats, zero: float, claimed: float, rounding: float) -> float:
    """The power of h that the Taylor remainder |F(h) − F(0) − h·claimed| follows: 2 when right, 1 when wrong.

    The median over the smallest three pairs of steps whose remainder is above the noise; NaN if there are none, as for
    a linear F with the right derivative.
    """
    with np.errstate(all="ignore"):
        remainder = np.abs(plus - zero - h * claimed)
        seen = np.isfinite(remainder) & (remainder > 50 * rounding)
        powers = np.log(remainder[:-1] / remainder[1:]) / np.log(h[:-1] / h[1:])
        powers = powers[seen[:-1] & seen[1:]]
    return float(np.median(powers[-3:])) if len(powers) else float("nan")
