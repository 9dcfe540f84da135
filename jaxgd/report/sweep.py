"""The summary and the figure of a sweep: accuracy against η, and the share of networks that failed."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxgd.errors import RangeError
from jaxgd.outcome import Reason
from jaxgd.report.curves import Floats, scale_accuracy
from jaxgd.report.figure import Axes, FigureBase, new_axes, new_figure
from jaxgd.sweeps import Sweep

# The kinds of failure, in the order of the printed columns and of the bars from the bottom up. The hatches distinguish
# the kinds in a print without colors.
FAILURES = {
    "diverged": (Reason.NOT_FINITE, Reason.START_NOT_FINITE),
    "saturated": (Reason.SATURATED,),
    "unchanged": (Reason.UNCHANGED,),
}
_HATCHES = ("", "////", "....")
# Colors of Okabe and Ito, which color-blind readers can distinguish. Markers and dashes distinguish the lines too.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
_MARKERS, _DASHES = "osD^vPX", ("-", "--", "-.", ":")


class Point(NamedTuple):
    """A summary of the networks with the same sizes and η, from each network's last row in the table of the sweep.

    Attributes:
        sizes: Neurons per layer, such as "784-30-10".
        eta: The learning rate η.
        networks: Number of networks.
        quartiles: The lower quartile, the median and the upper quartile of the accuracy.
        best: The largest accuracy.
        shares: For each kind of failure, the share of the networks that failed, from 0 to 1.
    """

    sizes: str
    eta: float
    networks: int
    quartiles: tuple[float, float, float]
    best: float
    shares: dict[str, float]


def summarize(sweep: Sweep) -> tuple[str, list[Point]]:
    """Return the name of the accuracy, and one `Point` for each pair of sizes and η, in the order of the table.

    It is the first known accuracy in the order validation, test, training. A diverged network has the accuracy of its
    last finite epoch.
    """
    rows = sweep.last()
    names = [f"{part}accuracy" for part in ("validation_", "test_", "")]
    columns = {name: np.asarray(rows[name].to_numpy(), float) for name in names}
    chosen = next((name for name in names if np.isfinite(columns[name]).any()), None)
    if chosen is None:
        raise RangeError(
            "plot: the networks of a sweep must have an accuracy, got none. A network with one output has none.\n"
            "Draw the costs in sweep.table."
        )
    every_sizes: list[str] = rows["sizes"].to_pylist()
    every_eta: list[float] = rows["eta"].to_pylist()
    sizes, eta, outcome = np.array(every_sizes), np.array(every_eta), np.array(rows["outcome"].to_pylist())
    points = []
    for key in dict.fromkeys(zip(every_sizes, every_eta, strict=True)):
        own = (sizes == key[0]) & (eta == key[1])
        accuracy = columns[chosen][own]
        low, median, high = (float(np.quantile(accuracy, q)) for q in (0.25, 0.5, 0.75))
        shares = {
            name: float(np.isin(outcome[own], [reason.name for reason in reasons]).mean())
            for name, reasons in FAILURES.items()
        }
        points.append(Point(*key, int(own.sum()), (low, median, high), float(accuracy.max()), shares))
    return chosen.replace("_", " ") if chosen != "accuracy" else "training accuracy", points


def draw(sweep: Sweep, figure: FigureBase | None = None) -> tuple[Axes, Axes]:
    """Draw the median and the quartiles of the accuracy against η, and the share of failed networks below.

    Args:
        sweep: The sweep.
        figure: The figure of matplotlib to draw in; by default a new one.

    Returns:
        The axes of the accuracies, and the axes of the failures.

    Raises:
        RangeError: If the networks have no accuracy.
    """
    label, points = summarize(sweep)
    figure = new_figure(figure, (7.0, 5.6))
    above, below = new_axes(figure, 2, 1, sharex=True, height_ratios=(2.2, 1))
    by_sizes: dict[str, list[Point]] = {}
    for point in points:
        by_sizes.setdefault(point.sizes, []).append(point)
    every_eta = sorted({point.eta for point in points})
    edges = _edges(every_eta, len(by_sizes))
    ends = []
    for i, (sizes, some) in enumerate(by_sizes.items()):
        some.sort(key=lambda point: point.eta)
        color = _COLORS[i % len(_COLORS)]
        marker = _MARKERS[i % len(_MARKERS)]
        quartiles = 100 * np.array([point.quartiles for point in some])
        low, median, high = quartiles[:, 0], quartiles[:, 1], quartiles[:, 2]
        eta = np.array([point.eta for point in some])
        if len(every_eta) == 1:
            # A single η gives no line, so put the points of the network sizes side by side, above their bars.
            left, right = edges[every_eta[0]][i : i + 2]
            eta = np.array([math.sqrt(left * right)])
            above.errorbar(
                eta, median, (median - low, high - median), color=color, marker=marker, markersize=5, capsize=4
            )
        else:
            above.fill_between(eta, low, high, color=color, alpha=0.18, linewidth=0)
            above.plot(eta, median, linestyle=_DASHES[i % len(_DASHES)], color=color, marker=marker, markersize=5)
        ends.append((sizes, float(eta[-1]), float(median[-1]), color))
        _bars(below, some, i, edges, color, marker)
    most = max(point.networks for point in points)
    above.set(ylabel=f"{label}, %", xscale="log")
    above.set_title(f"median and quartiles of {most:,} seeds" if most > 1 else "one seed", fontsize=9)
    scale_accuracy(above, 100 * np.array([point.quartiles for point in points]))
    _label(above, ends)
    below.set(xlabel="learning rate η", ylabel="failed networks, %", ylim=(0, 100))
    below.minorticks_off()
    ticks = _spread(every_eta)
    below.set_xticks(ticks, [f"{eta:g}" for eta in ticks])
    _explain(below, points)
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    every_epoch: list[int] = sweep.table["epoch"].to_pylist()
    epochs = max(every_epoch)
    networks = sum(point.networks for point in points)
    figure.suptitle(f"{networks:,} network{'s' * (networks > 1)}, at most {epochs} epoch{'s' * (epochs > 1)}")
    return above, below


def _edges(every_eta: Sequence[float], count: int) -> dict[float, list[float]]:
    """Return the edges of the bars at each η.

    The bars of one η together fill 84% of the smallest distance between two η on the axis. A single η fills 84% of a
    decade.
    """
    logs = np.log10(every_eta)
    half = 0.42 * (float(np.diff(logs).min()) if len(logs) > 1 else 1.0)
    factors = 10 ** np.linspace(-half, half, count + 1)
    return {eta: (eta * factors).tolist() for eta in every_eta}


def _bars(
    axes: Axes, points: Sequence[Point], i: int, edges: dict[float, list[float]], color: str, marker: str
) -> None:
    """Draw the i-th bar at each η. The bar stacks the shares of the kinds of failure."""
    for point in points:
        left, right = edges[point.eta][i : i + 2]
        bottom = 0.0
        for share, hatch in zip(point.shares.values(), _HATCHES, strict=True):
            if share:
                axes.bar(
                    left, 100 * share, right - left, bottom, align="edge", hatch=hatch, edgecolor=color, linewidth=0.8,
                    facecolor="white" if hatch else color,
                )  # fmt: skip
            bottom += 100 * share
        if bottom:
            axes.plot(math.sqrt(left * right), bottom, clip_on=False, color=color, marker=marker, markersize=5)


def _explain(axes: Axes, points: Sequence[Point]) -> None:
    """Add a legend of the hatches that occur, or write that no network failed."""
    from matplotlib.patches import Patch

    kinds = [
        Patch(label=name, hatch=hatch, edgecolor="#444444", facecolor="white" if hatch else "#444444")
        for name, hatch in zip(FAILURES, _HATCHES, strict=True)
        if any(point.shares[name] for point in points)
    ]
    if kinds:
        # The legend is next to the axes, so that it cannot hide a bar.
        axes.legend(handles=kinds, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
    else:
        axes.text(0.5, 0.5, "no network failed", transform=axes.transAxes, ha="center", va="center")


def _label(axes: Axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Write the sizes to the right of the axes, with a thin line to the end of each curve.

    The distance between labels is at least 7.5% of the height of the axes. More than 14 labels are closer and may
    overlap.
    """
    in_pixels = axes.transData.transform([(eta, y) for _, eta, y, _ in ends])
    heights: Floats = axes.transAxes.inverted().transform(in_pixels)[:, 1]
    gap = min(0.075, 1 / max(len(ends) - 1, 1))
    order = np.argsort(heights, kind="stable")
    # First, from the bottom up, push each label above its lower neighbor. Then move the top one into the axes. Finally,
    # from the top down, push each label below its upper neighbor.
    placed = heights[order].clip(0, 1)
    for k in range(1, len(placed)):
        placed[k] = max(placed[k], placed[k - 1] + gap)
    placed[-1] = min(placed[-1], 1)
    for k in range(len(placed) - 2, -1, -1):
        placed[k] = min(placed[k], placed[k + 1] - gap)
    for y, (sizes, eta, end, color) in zip(placed, [ends[k] for k in order], strict=True):
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkB": 4, "relpos": (0, 0.5)}
        axes.annotate(
            sizes, (eta, end), (1.03, y), textcoords="axes fraction", va="center", color=color, annotation_clip=False,
            arrowprops=line, fontsize=9,
        )  # fmt: skip


def _spread(every_eta: Sequence[float]) -> list[float]:
    """Return the η to mark: all of them, or as many as fit next to each other on the logarithmic axis."""
    logs = np.log10(every_eta)
    kept = [0]
    for k in range(1, len(logs)):
        if logs[k] - logs[kept[-1]] >= 0.075 * (logs[-1] - logs[0]):
            kept.append(k)
    return [every_eta[k] for k in kept]
