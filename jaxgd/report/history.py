"""Draw the history of a training run: cost, accuracy and recorded values over the epochs."""

import math

import numpy as np

from jaxgd.errors import RangeError
from jaxgd.history import History, TrainResult
from jaxgd.report.curves import Floats, Line, Panel, curves, scale_accuracy
from jaxgd.report.figure import Axes, FigureBase

_LEGEND = 10  # elements of a batch or of a recorded value; a legend does not name more elements
# This order gives the colors of `jaxgd train --plot`: training is blue, and test is orange.
_SPLITS = (("", "training"), ("test_", "test"), ("validation_", "validation"))


def draw(result: TrainResult | History, *, figure: FigureBase | None = None) -> tuple[Axes, ...]:
    """Draw the cost, the accuracy and each recorded value over the epochs. Leave out quantities without a known value.

    A point marks the best network of a single run if the run kept track of it. A batch gives one line per element,
    for only one kind of examples: the first known in the order validation, test, training.

    Args:
        result: The result of `train`, or its history.
        figure: The figure of matplotlib to draw in; by default a new one.

    Returns:
        The axes of each panel.

    Raises:
        RangeError: If no value is known.
    """
    run, history = (result, result.history) if isinstance(result, TrainResult) else (None, result)
    best = None if run is None or np.ndim(history.cost) > 1 else run.state.best
    panels: list[Panel] = []
    for name, label in (("cost", "cost C"), ("accuracy", "accuracy, %")):
        factor = 100 if name == "accuracy" else 1
        values = {split: factor * np.asarray(getattr(history, f"{prefix}{name}"), float) for prefix, split in _SPLITS}
        known = {split: y for split, y in values.items() if np.isfinite(y).any()}
        if not known:
            continue
        if np.ndim(history.cost) > 1:
            split = next(split for split in ("validation", "test", "training") if split in known)
            panels.append((f"{split} {label}", _lines(history, known[split], [])))
            continue
        lines = [line for split, y in known.items() for line in _lines(history, y, [split])]
        if best is not None and best.by == name and best.epoch >= 0:
            lines.append((np.array([int(best.epoch)]), np.array([factor * float(best.value)]), "best"))
        panels.append((label, lines))
    for name, recorded in history.records.items():
        entries = np.shape(history.cost)
        values_of = np.asarray(recorded, float).reshape(*entries, -1)
        count, shape = values_of.shape[-1], np.shape(recorded)[len(entries) :]
        names = [str(list(i)) if shape and 1 < count <= _LEGEND else "" for i in np.ndindex(shape)]
        lines = [line for i in range(count) for line in _lines(history, values_of[..., i], names[i : i + 1])]
        if any(len(x) for x, _, _ in lines):
            panels.append((name, lines))
    if not panels:
        raise RangeError("plot: a history must have a known value, got only NaN.\nTrain without evaluate=False.")
    drawn = curves(panels, "epochs", _words(run), figure)
    for axes, (label, own) in zip(drawn, panels, strict=True):
        if label.endswith("accuracy, %"):
            axes.set_yscale("linear")
            scale_accuracy(axes, np.concatenate([y for _, y, _ in own]))
    return drawn


def _lines(history: History, y: Floats, names: list[str]) -> list[Line]:
    """Return one line per element of the batch. Leave out its unknown points."""
    batch = y.shape[:-1]
    epochs = np.broadcast_to(np.asarray(history.epoch), y.shape)
    named = 0 < math.prod(batch) <= _LEGEND and bool(batch)
    lines: list[Line] = []
    for element in np.ndindex(batch):
        values: Floats = y[element]
        known = np.isfinite(values)
        words = [*names, ", ".join(map(str, element)) if named else ""]
        lines.append((epochs[element][known], values[known], " ".join(filter(None, words))))
    return lines


def _words(run: TrainResult | None) -> str:
    """Return the outcome in words, such as "completed after 30 epochs"."""
    if run is None:
        return ""
    outcome = run.outcome
    if np.ndim(outcome.code):
        return f"{int(np.sum(outcome.ok)):,} of {np.size(outcome.code):,} runs completed or ran out of patience"
    epochs = int(run.state.epoch)
    return f"{outcome.message.split(':')[0]} after {epochs:,} epoch{'s' * (epochs != 1)}"
