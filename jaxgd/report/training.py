"""The picture of a training run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxgd.files import writing
from jaxgd.training import History


def plot_history(entries: Sequence[History], path: str | Path, title: str = "") -> None:
    """Draw the cost and the accuracy after each epoch, of the training and the test examples.

    `path` ends in .png, .svg or .pdf. Needs matplotlib: pip install 'jaxgd[plot]'.
    Raises: WriteError if the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epoch = np.array([entry.epoch for entry in entries])
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    cost, accuracy = figure.subplots(1, 2)
    for field, label, color in (("", "training", "#1f77b4"), ("test_", "test", "#d95f02")):
        for axes, name in ((cost, f"{field}cost"), (accuracy, f"{field}accuracy")):
            values = np.array([getattr(entry, name) for entry in entries], float)
            axes.plot(epoch, 100 * values if axes is accuracy else values, label=label, color=color)
    cost.set(xlabel="epochs", ylabel="cost C", yscale="log")
    accuracy.set(xlabel="epochs", ylabel="read correctly, %")
    for axes in (cost, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3, which="both")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(title)
    with writing(Path(path)):
        figure.savefig(path, dpi=150)
