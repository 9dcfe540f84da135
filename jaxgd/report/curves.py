"""Draw numbers over the updates of a descent, or over the epochs of a training run."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jaxgd.report.figure import Axes, FigureBase, new_axes, new_figure

# Accuracies in percent. An axis that is logarithmic in the error has marks at some of them.
_TICKS = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)

_COLUMNS = 3  # of panels

Floats = NDArray[np.floating]
# The x values (updates or epochs), the y values and the label of a line.
Line = tuple[NDArray[np.number], Floats, str]
Panel = tuple[str, Sequence[Line]]


def curves(panels: Sequence[Panel], xlabel: str, title: str, figure: FigureBase | None = None) -> tuple[Axes, ...]:
    """Draw panels of lines, at most three in a row, and return their axes.

    Args:
        panels: For each panel, the label of its vertical axis, and its lines. A line is (x, y, label).
        xlabel: The label of the horizontal axes.
        title: Title of the figure.
        figure: The figure to draw in; by default a new one.

    Returns:
        The axes of each panel.
    """
    from matplotlib.ticker import MaxNLocator

    columns = min(len(panels), _COLUMNS)
    rows = -(-len(panels) // columns)
    figure = new_figure(figure, (4.5 * columns, 3.6 * rows))
    figure.suptitle(title.replace("$", r"\$"))
    grid = new_axes(figure, rows, columns)
    for unused in grid[len(panels) :]:
        unused.remove()
    drawn = tuple(grid[: len(panels)])
    for axes, (name, lines) in zip(drawn, panels, strict=True):
        for x, y, text in lines:
            # A single point would be an invisible line.
            axes.plot(x, y, "o" if len(x) == 1 else "-", linewidth=1.5 if len(lines) <= 10 else 0.7, label=text)
        if spans_decades(np.concatenate([y for _, y, _ in lines])):
            # A value of 0 has no logarithm. By default, matplotlib draws it far below the picture, so mask it.
            axes.set_yscale("log", nonpositive="mask")
        axes.set(xlabel=xlabel, ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if any(text for *_, text in lines):
            axes.legend(frameon=False)
    return drawn


def spans_decades(y: Floats) -> bool:
    """Return True if no value is negative and the positive values span two decades or more."""
    y = y[np.isfinite(y)]
    above = y[y > 0]
    return bool(len(above) and (y >= 0).all() and above.max() >= 100 * above.min())


def scale_accuracy(axes: Axes, accuracy: Floats) -> None:
    """Make the axis logarithmic in the error if the errors span a decade. Draw errors below 0.1% at 0.1%.

    On a linear axis, accuracies of 97% and 98% look alike.
    """
    error = 100 - accuracy
    floor = max(float(error.min()), 0.1) / 1.5
    if error.max() < 15 * floor:
        axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))
        return

    def height(accuracy: NDArray[np.number]) -> Floats:
        return np.asarray(-np.log10(np.maximum(100 - accuracy, floor)))

    def accuracy_at(height: NDArray[np.number]) -> Floats:
        return np.asarray(100 - 10.0**-height)

    axes.set_yscale("function", functions=(height, accuracy_at))
    low = 100 - float(error.max())
    ticks = [tick for tick in _TICKS if low - 5 <= tick <= 100 - floor]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_ylim(max(low - 5, 0), 100 - floor)
