"""Difference quotients with an estimate of their error, in NumPy, for one direction or many at once.

F(t) = ⟨w, f(x + t u)⟩ is known at t = 0 and at t = ±h for a ladder of steps h, each a quarter of the one before. A rung
is the index of a step on the ladder. The shape of F tells if F is smooth around t = 0 or has a kink, a jump and so on.
"""

import dataclasses
import enum
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RATIO = 4.0
_EPS = float(np.finfo(float).eps)
# The error of a quotient is an estimate. Two numbers count as different only if they differ by more than this multiple.
SAFETY = 10.0


class Shape(enum.Enum):
    """The shape of F around t = 0."""

    SMOOTH = "smooth"
    KINK = "kink"
    JUMP = "jump"
    STEEP = "the quotient grows without bound"
    EDGE = "not finite on one side"
    NOT_FINITE = "not finite"
    ROUGH = "varies within the smallest step"


@dataclasses.dataclass(frozen=True)
class Quotient:
    """The derivative of F at 0 in one direction, from F's values.

    Attributes:
        value: The derivative.
        error: The estimated error of `value`.
        left: The one-sided derivative from below.
        right: The one-sided derivative from above.
        gap: right − left.
        gap_error: The estimated error of `gap`.
        shape: The shape of F around 0.
        step: The step that gave `value`.
        noise: The uncertainty of F's values.
        hidden: If F does not change at small steps, the slope that rounding may hide; otherwise 0.
        fine: The difference between `value` and F's slope on a scale far below `step`.
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
    """Return steps from the largest down, each a quarter of the previous one.

    `probe` is appended if it is given: a far smaller step, which only measures noise.
    """
    h = largest * RATIO ** -np.arange(rungs, dtype=float)
    return h if probe is None else np.append(h, probe)


def central(
    h: Floats, plus: Floats, minus: Floats, rounding: Floats
) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """Return F′(0), its estimated error, the noise in the values of F, and the rung used, for many directions at once.

    F′(0) is the entry of Romberg's table on (F(h) − F(−h))/2h with the smallest estimated error. The estimate is the
    larger of two numbers: the distance of the entry from the two entries that it combines, and the effect of noise in
    the values of F. The noise is the deviation of the quotients at smaller steps, where truncation is negligible, but
    at least `rounding`. Without the noise, an F that computes in float32 would seem exact to every digit that agrees by
    chance.

    `h` is (rungs,), `plus` and `minus` are (rungs, directions), `rounding` is (directions,).

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
            # Stop once the assumed noise is at least a quarter of the measured noise.
            if np.all(measured <= 4 * noise):
                break
            noise = measured
        error = np.maximum(error, measured / h[rung])
        # Smaller steps that agree with each other but not with the larger steps show that F varies at a small scale.
        moves = np.where((plus - minus)[:rungs] != 0, table[:rungs], np.nan)
        local, local_error, local_rung = _contradiction(moves, rounding / h[:rungs, None], value, error, rung)
        local_noise = np.maximum(rounding, _deviation(h, table, finer, local, local_rung))
        local_error = np.maximum(local_error, local_noise / h[local_rung])
        other = local_error < 1e-2 * np.abs(local - value)
        value, error = np.where(other, local, value), np.where(other, local_error, error)
        noise, rung = np.where(other, local_noise, noise), np.where(other, local_rung, rung)
    return value, error, noise, rung


def _deviation(h: Floats, table: Floats, finer: Floats, value: Floats, rung: NDArray[np.int64]) -> Floats:
    """Return the noise in the values of F, from quotients at far smaller steps, if `value` is the derivative."""
    small = h[:, None] <= h[rung] / RATIO**2
    deviation = np.minimum(np.abs(table - value), np.abs(finer - value)) * h[:, None]
    return np.asarray(np.nanmax(np.where(small, deviation, 0), axis=0))


def gap(h: Floats, plus: Floats, minus: Floats, zero: Floats, rounding: Floats) -> tuple[Floats, Floats]:
    """Return the gap F′(0+) − F′(0−), which is 0 where F is smooth, and its estimated error.

    The gap is an entry of Romberg's table on (F(h) + F(−h) − 2F(0))/h, which is J + hF″ + O(h³) for a gap J.
    """
    rungs = _geometric(h)
    with np.errstate(all="ignore"):
        table = (plus + minus - 2 * zero)[:rungs] / h[:rungs, None]
        best, error, _ = _extrapolate(table, 4 * rounding / h[:rungs, None], RATIO, RATIO**2)
    return best, error


def _geometric(h: Floats) -> int:
    """Return the number of rungs with the ratio RATIO. A step after them only measures noise."""
    return int(np.argmax(np.append(h[:-1] / h[1:], np.inf) > 1.01 * RATIO)) + 1


def _entries(first: Floats, noise: Floats, factor: float, growth: float) -> Iterator[tuple[int, Floats, Floats]]:
    """Yield the orders of Richardson's table, each with its entries and their estimated errors."""
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
    """Return, for each column of `first`, the entry of Richardson's table with the smallest estimated error.

    The results are the entries, their estimated errors and their rungs.
    """
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
    """Return the entry of Richardson's table that contradicts `value` most clearly, with its error and its rung.

    Only entries from steps smaller than the step of `rung` count. The error is infinite if no entry contradicts
    `value`. The entries of at least three steps must agree to 1% of their distance from `value`, which is rare by
    chance.
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
    """Return the derivative along one direction and the shape of F.

    `rounding` is the rounding error of a value of F. `size` is the largest change of F along all directions.
    """
    both = np.isfinite(plus) & np.isfinite(minus)
    if not np.isfinite(zero) or both.sum() < 2:
        sides = [np.isfinite(side).sum() >= 2 for side in (plus, minus)]
        edge = np.isfinite(zero) and any(sides) and not all(sides)
        return _nothing(Shape.EDGE if edge else Shape.NOT_FINITE)
    # Keep only the steps that are smaller than every step with an infinite or NaN value.
    first = int(np.max(np.flatnonzero(~both), initial=-1)) + 1
    if first > _geometric(h) - 2:
        return _nothing(Shape.NOT_FINITE)
    h, plus, minus = h[first:], plus[first:], minus[first:]
    own = rounding
    even = np.abs(plus + minus - 2 * zero)[-6:]
    if len(h) > 8 and even[-1] >= 0.1 * even[0]:
        # The even part of a smooth F shrinks with the step. An even part that does not shrink is noise.
        rounding = max(rounding, float(np.max(even)))
    level = np.array([rounding])
    (value,), (error,), noise, (rung,) = central(h, plus[:, None], minus[:, None], level)
    if _fades_out(h, plus, minus, float(value)):
        error = max(error, abs(value))
    # Search for a gap of the slope near the step that gave the slope, because F may look different at other steps.
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
        # F does not change at small steps. A change as large as the rounding of F at larger steps may be hidden.
        hidden = _EPS * max(size, _largest(plus, minus, zero))
    left, right = value - jump / 2, value + jump / 2
    fine = _fine_structure(h, plus, minus, float(value), float(h[rung]), own) if len(h) > 8 else 0.0
    return Quotient(value, error, left, right, jump, jump_error, shape, float(h[rung]), float(noise[0]), hidden, fine)


def _fine_structure(h: Floats, plus: Floats, minus: Floats, value: float, step: float, rounding: float) -> float:
    """Return the largest distance of the quotients at far smaller steps from `value`; 0 if rounding explains it."""
    table = (plus - minus) / (2 * h)
    finer = table.copy()
    # Extrapolate, so that the truncation of a plain quotient does not look like structure.
    finer[1:] += (table[1:] - table[:-1]) / ((h[:-1] / h[1:]) ** 2 - 1)
    off = np.minimum(np.abs(table - value), np.abs(finer - value))
    real = (h <= step / RATIO**2) & (off > SAFETY * rounding / h)
    return float(np.max(off[real], initial=0.0))


def _fades_out(h: Floats, plus: Floats, minus: Floats, value: float) -> bool:
    """Return True if F is constant at small steps, and its first slopes are below a tenth of `value`.

    Then `value` comes from large steps only. A coarsely rounded F is constant at small steps too, but its first slopes
    are as large as `value`.
    """
    moving = np.flatnonzero(plus != minus)
    if not len(moving) or moving[-1] >= len(h) - 4:
        return False
    first = moving[-2:]
    return bool(np.max(np.abs(plus - minus)[first] / (2 * h[first])) < 0.1 * abs(value))


def _is_rough(h: Floats, plus: Floats, minus: Floats, noise: float, rounding: float) -> bool:
    """Return True if the apparent noise is variation of F.

    F then changes by far more than rounding, and the noise is over 1e-4 of that change.
    """
    if np.all(plus[-4:] == minus[-4:]):
        return False
    near = h <= 1
    variation = _largest(plus[near], minus[near], 0.0)
    return variation > 1e6 * max(rounding, _EPS) and noise > 1e-4 * variation


def _largest(plus: Floats, minus: Floats, zero: float) -> float:
    """Return the largest finite |F| on the ladder."""
    both = np.abs(np.concatenate([plus, minus, [zero]]))
    return float(np.max(both[np.isfinite(both)], initial=0.0))


def _rounded_off(h: Floats, plus: Floats, minus: Floats, zero: float, jump: float, noise: float) -> int | None:
    """Return the rung after which the kink is no longer visible, or None if the smallest steps show it too.

    √(x² + ε), for instance, seems to have a kink at large steps only.
    """
    there = np.flatnonzero(4 * noise / h < 0.1 * abs(jump))
    if not len(there):
        return None
    last = int(there[-1])
    here = abs(plus[last] + minus[last] - 2 * zero) / h[last]
    return last - 2 if here < 0.5 * abs(jump) and 2 < last - 2 <= _geometric(h) - 3 else None


def _break(h: Floats, plus: Floats, minus: Floats, zero: float, rounding: float) -> Shape | None:
    """Return JUMP if F jumps at 0, STEEP if its quotients grow without bound as the step shrinks, otherwise None."""
    rungs = _geometric(h)
    if rungs < 3:
        return None
    for side in (plus - zero, zero - minus, plus - minus):
        last = side[rungs - 3 : rungs]
        if np.any(np.abs(last) <= 1e3 * rounding) or len(set(np.sign(last))) > 1:
            continue
        # F(h) − F(0) grows like hᵖ. The power p is 1 if F has a derivative, 0 at a jump, and 1/2 for a square root.
        powers = np.log(last[:-1] / last[1:]) / np.log(RATIO)
        if np.all(np.abs(powers) < 0.02):
            return Shape.JUMP
        if np.all(powers < 0.95) and np.ptp(powers) < 0.02:
            return Shape.STEEP
    return None


def flat(h: Floats, plus: Floats, minus: Floats, zero: float, rounding: float) -> bool:
    """Return True if F is constant around 0, bit for bit, and not just saturated.

    F must be constant over at least the four smallest steps. At the next larger step F must change by far more than
    rounding, as a piecewise constant function does at its next piece. The first change of a smooth, saturated F is a
    few roundings: rounding hides its slope, which is not 0.
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
    """Return the power p for which the Taylor remainder |F(h) − F(0) − h·claimed| shrinks like hᵖ.

    p is 2 for a right derivative and 1 for a wrong one. It is the median over the three smallest pairs of steps whose
    remainder is above the noise, and NaN if no pair is, as for a linear F with the right derivative.
    """
    with np.errstate(all="ignore"):
        remainder = np.abs(plus - zero - h * claimed)
        seen = np.isfinite(remainder) & (remainder > 50 * rounding)
        powers = np.log(remainder[:-1] / remainder[1:]) / np.log(h[:-1] / h[1:])
        powers = powers[seen[:-1] & seen[1:]]
    return float(np.median(powers[-3:])) if len(powers) else float("nan")
