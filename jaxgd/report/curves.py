"""Draw numbers over the updates of a descent."""

from typing import Any

import numpy as np

from jaxgd.report.figure import new_figure

Panel = tuple[str, list[tuple[Any, Any, str]]]


def curves(panels: list[Panel], xlabel: str, title: str, figure: Any = None) -> tuple[Any, ...]:
    """Draw panels of lines next to each other, and return their axes.

    Args:
        panels: The label of each panel's vertical axis, and its lines: x, y and the label of each.
        xlabel: The label of the horizontal axes.
        title: Title of the figure.
        figure: The figure to draw in; by default a new one.

    Returns:
        The axes of each panel.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(figure, (4.5 * len(panels), 3.6))
    figure.suptitle(title.replace("$", r"\$"))
    drawn = tuple(figure.subplots(1, len(panels), squeeze=False)[0])
    for axes, (name, lines) in zip(drawn, panels, strict=True):
        for x, y, text in lines:
            # A single point would be an invisible line.
            axes.plot(x, y, "o" if len(x) == 1 else "-", linewidth=1.5 if len(lines) <= 10 else 0.7, label=text)
        if spans_decades(np.concatenate([np.asarray(y, float) for _, y, _ in lines])):
            # The logarithm of 0 is no point of the line. By default, matplotlib draws it far below the picture.
            axes.set_yscale("log", nonpositive="mask")
        axes.set(xlabel=xlabel, ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if any(text for *_, text in lines):
            axes.legend(frameon=False)
    return drawn


def spans_decades(y: Any) -> bool:
    """Return True if a logarithmic axis suits: no value is negative, and the positive ones span two decades or more."""
    y = y[np.isfinite(y)]
    above = y[y > 0]
    return bool(len(above) and (y >= 0).all() and above.max() >= 100 * above.min())
