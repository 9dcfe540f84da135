"""The picture of a training run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxgd.files import writing
from jaxgd.training import History


def plot_history(entries: Sequence[History], path: str | Path, title: str = "") -> None:
    """Draw the cost and the share read wrongly after each epoch, of the training and the test examples.

    Both on logarithmic scales: what is learned late would vanish beside the first epoch.

    `path` ends in .png, .svg or .pdf. Needs matplotlib: pip install 'jaxgd[plot]'.
    Raises: WriteError if the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    epoch = np.array([entry.epoch for entry in entries])
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    cost, wrong = figure.subplots(1, 2)
    for field, label, color in (("", "training", "#1f77b4"), ("test_", "test", "#d95f02")):
        cost.plot(epoch, [getattr(entry, f"{field}cost") for entry in entries], label=label, color=color)
        share = 100 * (1 - np.array([getattr(entry, f"{field}accuracy") for entry in entries], float))
        # A logarithm cannot show zero: what is read without an error stands at 0.1%.
        wrong.plot(epoch, np.maximum(share, 0.1), label=label, color=color)
    cost.set(xlabel="epochs", ylabel="cost C")
    wrong.set(xlabel="epochs", ylabel="read wrongly, %")
    for axes, unit in ((cost, ""), (wrong, " %")):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _, unit=unit: f"{y:g}{unit}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(title.replace("$", r"\$"))
    with writing(Path(path)):
        figure.savefig(path, dpi=150)
