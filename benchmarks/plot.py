"""Plots of benchmark results: a dot plot of the times of each case, and line plots of time against a growing size."""

import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The name and the color of each variant, in all pictures. Seven colors come from the palette of Okabe and Ito, which
# color-blind readers can tell apart. Its yellow is too pale for a line, so scikit-learn has a darker one, and Flax is
# brown. Three variants are gray, because no panel shows two of them. Every dot and line is also labeled with the name.
VARIANTS = {
    "jaxgd": ("jaxgd", "#0072B2"),
    "jaxgd-xla": ("jaxgd, XLA", "#56B4E9"),
    "jaxgd-each": ("jaxgd, one by one", "#7F7F7F"),
    "jaxgd-first": ("jaxgd, first run", "#7F7F7F"),
    "scan": ("plain lax.scan", "#009E73"),
    "numpy": ("NumPy", "#E69F00"),
    "torch": ("PyTorch", "#D55E00"),
    "torch-compile": ("torch.compile", "#CC79A7"),
    "sklearn": ("scikit-learn", "#B59F00"),
    "flax": ("Flax", "#8C564B"),
    "jit-in-python": ("jit per step", "#000000"),
    "book": ("the book's loop", "#7F7F7F"),
}
TITLES = {
    "epoch-30": "Epoch, [784, 30, 10], batch 10",
    "epoch-100": "Epoch, [784, 100, 10], batch 10",
    "epoch-512-512": "Epoch, [784, 512, 512, 10], batch 128",
    "step-1000": "Full-batch step, 1,000 images",
    "step-10000": "Full-batch step, 10,000 images",
    "step-50000": "Full-batch step, 50,000 images",
    "networks-64": "Epoch of 64 networks, [784, 30, 10]",
    "start-up": "Whole process, 60 epochs of digits",
}
GROWING = ("batch size", "hidden neurons", "hidden layers", "examples of a full batch", "networks")
CAPTION = (
    "Median time; thin lines from the 10th to the 90th percentile; logarithmic axes. "
    "×: ratio to the baseline (no ×) in the same run."
)
GROWTH_CAPTION = (
    "Median time, logarithmic axes. Each panel\nvaries one size. The other sizes are the\n"
    "book's: [784, 30, 10], 10,000 images,\nbatch size 10 (or the full batch)."
)
# Width in inches. A README shows the picture about 830 pixels wide, so fonts appear at their nominal size. With
# DPI = 200, the file has two pixels for each pixel shown, in each direction.
WIDTH = 8.3
DPI = 200
FONT = 8.5


def draw(rows: Sequence[Row], out: Path) -> list[Path]:
    """Write speed.png and growth.png into a folder and return the paths written. Skip a picture that has no rows."""
    import matplotlib as mpl

    mpl.use("Agg")
    out.mkdir(parents=True, exist_ok=True)
    times = [row for row in rows if row.quantity == "time" and row.unit in ("s/epoch", "s/step", "s/process")]
    fixed = [row for row in times if not row.text("growing")]
    grown = [row for row in times if row.text("growing")]
    written = []
    with mpl.rc_context({
        "font.size": FONT, "axes.titlesize": FONT + 0.5, "axes.spines.top": False, "axes.spines.right": False,
    }):  # fmt: skip
        if fixed:
            written.append(_dots(fixed, out / "speed.png"))
        if grown:
            written.append(_growth(grown, out / "growth.png"))
    return written


def _save(figure: "Figure", path: Path) -> Path:
    """Write a figure as a PNG of 256 colors, about a third of the bytes of a PNG in full color, and return its path."""
    import matplotlib.pyplot as plt
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI)
    plt.close(figure)
    image = Image.open(buffer).convert("RGB")
    # Pillow's other methods drop a color that only one dot has.
    image.quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
    return path


def _name(variant: str) -> str:
    return VARIANTS.get(variant, (variant, ""))[0]


def _color(variant: str) -> str:
    return VARIANTS.get(variant, ("", "#7F7F7F"))[1]


def _dots(rows: Sequence[Row], path: Path) -> Path:
    """Draw one panel per case: a dot at each median, and a thin line from the 10th to the 90th percentile."""
    import matplotlib.pyplot as plt

    order = list(TITLES)
    cases = sorted({row.case for row in rows}, key=lambda case: (order.index(case) if case in order else 99, case))
    panels = [sorted((row for row in rows if row.case == case), key=lambda row: row.value or 0) for case in cases]
    columns = min(len(cases), 2)
    lines = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    # Heights in lines of text. A panel's title and axis take 2.6 lines.
    heights = [max(map(len, line)) + 2.6 for line in lines]
    height = 0.185 * sum(heights) + 0.6
    figure, axes = plt.subplots(len(lines), columns, figsize=(WIDTH, height), squeeze=False, height_ratios=heights)
    places: list[Axes] = list(axes.flat)
    for ax in places:
        ax.axis("off")
    for ax, panel in zip(places, panels, strict=False):
        ax.axis("on")
        _panel(ax, panel, max(len(other) for line in lines if panel in line for other in line))
    figure.text(0.01, 1 - 0.12 / height, CAPTION, va="top")
    figure.tight_layout(h_pad=0.8, w_pad=1.5, rect=(0, 0, 1, 1 - 0.32 / height))
    return _save(figure, path)


def _panel(ax: "Axes", rows: Sequence[Row], places: int) -> None:
    """Draw the dots of one case, the fastest at the top. The time and the ratio are to the right of each dot.

    The ratio is the median ratio to the baseline in the same run. The baseline has none.

    `places` is the largest number of dots in any panel of the same row of panels. It gives the dots the same spacing in
    all panels.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    lows: list[float] = []
    highs: list[float] = []
    for y, row in enumerate(rows):
        milliseconds = 1e3 * (row.value or 0)
        low, high = (1e3 * x for x in row.spread or (milliseconds / 1e3,) * 2)
        lows, highs = [*lows, low], [*highs, high]
        ax.plot([low, high], [y, y], color=_color(row.variant), lw=1.2)
        ax.plot(milliseconds, y, "o", ms=5.5, color=_color(row.variant))
        text, ratio = _time(milliseconds), row.numbers("ratio")
        if ratio and row.variant != row.text("baseline"):
            text += f"  {ratio[0]:.0f}×" if ratio[0] >= 10 else f"  {ratio[0]:.2g}×"
        ax.annotate(text, (high, y), (5, 0), textcoords="offset points", va="center")
    ax.set_xscale("log")
    low, high = min(lows), max(highs)
    # Leave more than a third of the panel for the texts at the right.
    ax.set_xlim(low / (high / low) ** 0.06 / 1.05, high * (high / low) ** 0.6 * 1.25)
    ax.set_ylim(places - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [_name(row.variant) for row in rows])
    for label, row in zip(ax.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.variant == "jaxgd" else "normal")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 10 else (1,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _time(x)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_title(TITLES.get(rows[0].case, rows[0].case), loc="left", fontweight="bold")
    ax.grid(axis="x", alpha=0.25, lw=0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _time(milliseconds: float) -> str:
    """Return a time in ms or s as text, with at most three significant digits."""
    if milliseconds >= 999.5:
        return f"{milliseconds / 1e3:.3g} s"
    return f"{milliseconds:.3g} ms"


def _growth(rows: Sequence[Row], path: Path) -> Path:
    """Draw one panel per growing size. The name of a variant is at the end of its line."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter

    things = sorted({row.text("growing") for row in rows}, key=lambda t: GROWING.index(t) if t in GROWING else 99)
    columns = min(len(things), 2)
    lines = -(-len(things) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(WIDTH, 2.5 * lines), squeeze=False)
    places: list[Axes] = list(axes.flat)
    for ax in places[len(things) :]:
        ax.axis("off")
    if len(places) > len(things):
        places[-1].text(0, 1, GROWTH_CAPTION, va="top", linespacing=1.5)
    for ax, thing in zip(places, things, strict=False):
        mine = [row for row in rows if row.text("growing") == thing]
        ends = []
        for variant in dict.fromkeys(row.variant for row in mine):
            points = sorted((row.numbers("size")[0], 1e3 * (row.value or 0)) for row in mine if row.variant == variant)
            ax.plot([x for x, _ in points], [y for _, y in points], "o-", ms=4, lw=1.4, color=_color(variant))
            ends.append((points[-1], variant))
        sizes = sorted({row.numbers("size")[0] for row in mine})
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.minorticks_off()
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _time(y)))
        unit = mine[0].unit.removeprefix("s/").capitalize()
        ax.set_title(f"{unit} time by {thing}", loc="left", fontweight="bold")
        ax.grid(alpha=0.25, lw=0.6)
        _label(ax, ends)
    figure.tight_layout(h_pad=1.2, w_pad=1.5)
    return _save(figure, path)


def _label(ax: "Axes", ends: Sequence[tuple[tuple[float, float], str]]) -> None:
    """Write the name of each variant at the end of its line. Move names apart that would overlap at the right edge."""
    low, high = (math.log(y) for y in ax.get_ylim())
    right = max(x for (x, _), _ in ends)
    last = sorted((math.log(y), variant) for (x, y), variant in ends if x == right)
    at = _apart([y for y, _ in last], (high - low) / 10)
    for y, (_, variant) in zip(at, last, strict=True):
        ax.annotate(
            _name(variant), (right, math.exp(y)), (7, 0), textcoords="offset points", va="center",
            color=_color(variant), annotation_clip=False,
        )  # fmt: skip
    for point, variant in (end for end in ends if end[0][0] < right):
        ax.annotate(_name(variant), point, (-3, 6), textcoords="offset points", color=_color(variant))


def _apart(places: Sequence[float], step: float) -> list[float]:
    """Move sorted places apart, and return them when no two are closer than 0.99 · step."""
    moved = list(places)
    while any(b - a < 0.99 * step for a, b in itertools.pairwise(moved)):
        for i in range(len(moved) - 1):
            overlap = max(step - (moved[i + 1] - moved[i]), 0) / 2
            moved[i], moved[i + 1] = moved[i] - overlap, moved[i + 1] + overlap
    return moved
