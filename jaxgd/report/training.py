"""The figure of a training run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxgd.history import History
from jaxgd.report.figure import new_axes, save_figure


def plot_history(entries: Sequence[History], path: str | Path, title: str = "") -> None:
    """Draw the cost and the error rate after each epoch, for the training and the test examples.

    Both vertical axes are logarithmic: on linear axes, the large values of the first epochs would hide later progress.
    Error rates below 0.1% are drawn at 0.1%, because a logarithmic axis cannot show 0.
    Needs matplotlib: run `pip install -e '.[plot]'` in the folder of jaxgd's sources.

    Args:
        entries: Entries of the history, in the order of the epochs.
        path: Path of the figure, which ends in .png, .svg or .pdf.
        title: Title of the figure.

    Raises:
        RangeError: If the path has another ending.
        WriteError: If the file cannot be written. An existing file then stays as it was.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    epoch = np.array([entry.epoch for entry in entries])
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    cost, error = new_axes(figure, 1, 2)
    for field, label, color in (("", "training", "#1f77b4"), ("test_", "test", "#d95f02")):
        cost.plot(epoch, [getattr(entry, f"{field}cost") for entry in entries], label=label, color=color)
        rate = 100 * (1 - np.array([getattr(entry, f"{field}accuracy") for entry in entries], float))
        error.plot(epoch, np.maximum(rate, 0.1), label=label, color=color)
    cost.set(xlabel="epochs", ylabel="cost C")
    error.set(xlabel="epochs", ylabel="error rate, %")
    for axes, unit in ((cost, ""), (error, " %")):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _, unit=unit: f"{y:g}{unit}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(title.replace("$", r"\$"))
    save_figure("plot_history", figure, path, dpi=150)
