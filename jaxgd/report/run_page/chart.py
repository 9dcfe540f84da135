"""Curves over the epochs as SVG. The style sheet of the page sets their colors and fonts."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_WIDTH, _HEIGHT = 480, 280
LEFT, _RIGHT, _TOP, _BOTTOM = 60, _WIDTH - 12, 12, _HEIGHT - 40
_MOST_TICKS = 6
_EXACT = 1e-9  # an error of at most this size counts as 0
_MOST_POINTS = 500  # a curve with more points is thinned


class Curve(NamedTuple):
    """A line of a chart: the CSS class that colors it, and its value at each epoch. It skips infinity and NaN."""

    name: str
    y: Float[np.ndarray, " epochs"]


def chart(
    label: str,
    epochs: Float[np.ndarray, " epochs"],
    curves: Sequence[Curve],
    *,
    accuracy: bool = False,
    mark: int | None = None,
) -> str:
    """Draw curves over the epochs, and return the SVG.

    By default, the axis is logarithmic if all finite values are above 0 and the largest is at least twice the smallest.
    With `accuracy=True`, an accuracy a is drawn as its error 1 − a, on a reversed logarithmic axis with accuracies as
    labels. On a linear axis, all good accuracies would look the same.

    Args:
        label: Name of the vertical axis, for screen readers.
        epochs: Epoch of each entry.
        curves: Lines, each with one value per entry.
        accuracy: True for accuracies from 0 to 1. Default: False.
        mark: Epoch to mark with a vertical line; by default none.

    Returns:
        The SVG element; an empty text if no value is finite.

    Example:
        >>> chart("cost C", np.arange(3.0), [Curve("train", np.array([2.0, 1.0, 0.5]))]).count("<path")
        1
    """
    values = np.concatenate([curve.y for curve in curves])
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    axis = _accuracies(values) if accuracy else _costs(values)
    low, high = axis.low, axis.high
    first, last = float(epochs[0]), float(epochs[-1])
    span = max(last - first, 1e-9)

    def x_of(epoch: float) -> float:
        share = (epoch - first) / span if len(epochs) > 1 else 0.5
        return LEFT + share * (_RIGHT - LEFT)

    def y_of(value: float) -> float:
        share = (axis.place(value) - low) / (high - low)
        return _BOTTOM - share * (_BOTTOM - _TOP)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label} over the epochs" '
        f'data-left="{LEFT}" data-right="{_RIGHT}">'
    ]
    for value, text in axis.ticks:
        y = y_of(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for epoch in _epoch_ticks(first, last):
        parts.append(f'<text x="{x_of(epoch):.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{epoch:g}</text>')
    parts.append(f'<text x="{(LEFT + _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">epochs</text>')
    if mark is not None:
        x = x_of(float(mark))
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_BOTTOM}"/>')
    for curve in curves:
        known = np.flatnonzero(np.isfinite(curve.y))
        rows = known[thinned(len(known), _MOST_POINTS)]
        parts.append(_path(curve.name, [(x_of(float(epochs[k])), y_of(float(curve.y[k]))) for k in rows]))
    parts.append(f'<line class="cursor" x1="-9" x2="-9" y1="{_TOP}" y2="{_BOTTOM}"/></svg>')
    return "".join(parts)


def thinned(count: int, most: int) -> list[int]:
    """Return at most `most` indices of `count` entries, evenly spaced from the first to the last.

    >>> thinned(9, 4)
    [0, 3, 5, 8]
    """
    return sorted({round(k) for k in np.linspace(0, max(count - 1, 0), min(count, most))})


class _Axis(NamedTuple):
    """The vertical axis. `floor` is the error that is drawn in place of an error of 0."""

    low: float
    high: float
    ticks: list[tuple[float, str]]
    kind: str
    floor: float = 0.0

    def place(self, value: float) -> float:
        if self.kind == "error":
            return -math.log10(1 - value if value < 1 - _EXACT else self.floor)
        return math.log10(value) if self.kind == "log" else value


def _costs(values: Float[np.ndarray, " n"]) -> _Axis:
    least, most = float(values.min()), float(values.max())
    if least <= 0 or most < 2 * least:
        return _linear(least, most)
    low, high = _padded(math.log10(least), math.log10(most))
    marks = _log_marks(10**low, 10**high)
    return _Axis(low, high, [(mark, f"{mark:g}") for mark in marks], "log") if marks else _linear(least, most)


def _linear(least: float, most: float) -> _Axis:
    low, high = _padded(least, most)
    step = _nice((high - low) / 4)
    marks = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return _Axis(low, high, [(mark, f"{mark:.6g}") for mark in marks], "linear")


def _accuracies(values: Float[np.ndarray, " n"]) -> _Axis:
    errors = np.sort(1 - values)
    positive = errors[errors > _EXACT]
    # An error of 0 has no logarithm: draw it at half of the smallest positive error, or at 0.001 if all errors are 0.
    reached = bool(errors[0] <= _EXACT)
    floor = float(positive[0]) / (2 if reached else 1) if len(positive) else 1e-3
    low, high = _padded(-math.log10(max(float(errors[-1]), floor)), -math.log10(floor))
    marks = _log_marks(10**-high, min(10**-low, 1.0))
    ticks = [(1 - mark, f"{100 * (1 - mark):.6g}%") for mark in marks if not reached or mark > 1.5 * floor]
    if reached:
        ticks.append((1.0, "100%"))
    return _Axis(low, high, ticks, "error", floor)


def _padded(low: float, high: float) -> tuple[float, float]:
    """Return the limits of an axis with a margin around its values."""
    margin = 0.04 * (high - low) or abs(high) / 10 or 1.0
    return low - margin, high + margin


def _log_marks(low: float, high: float) -> list[float]:
    """Return a few round numbers in an interval, for a logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1,)):
        marks = [float(f"{digit}e{k}") for k in decades for digit in digits]
        marks = [mark for mark in marks if low <= mark <= high]
        if len(marks) <= _MOST_TICKS + 1:
            return marks
    return marks[:: -(-len(marks) // _MOST_TICKS)]


def _nice(step: float) -> float:
    """Round a step up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= step * (1 - 1e-9))


def _epoch_ticks(first: float, last: float) -> list[float]:
    if last == first:
        return [first]
    step = max(_nice((last - first) / _MOST_TICKS), 1.0)
    return [k * step for k in range(math.ceil(first / step), math.floor(last / step) + 1)]


def _path(name: str, points: list[tuple[float, float]]) -> str:
    """Return a line through the points, or a dot for one point."""
    dot = "".join(f'<circle class="curve {name}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points[:1])
    text = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="curve {name}" d="M{text}"/>' if len(points) > 1 else dot
