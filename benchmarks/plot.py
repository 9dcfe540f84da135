"""The pictures of a file of results: bars of ratios, and one log–log plot for each thing that grows."""

from pathlib import Path
from typing import Any

from benchmarks.cases import CASES

# Each peer keeps its color from picture to picture: the palette of Okabe and Ito, for every kind of eye.
COLORS = {
    "jaxgd": "#0072B2",
    "jaxgd-xla": "#56B4E9",
    "jaxgd-each": "#999999",
    "scan": "#009E73",
    "numpy": "#E69F00",
    "torch": "#D55E00",
    "torch-compile": "#CC79A7",
    "sklearn": "#F0E442",
    "flax": "#777777",
    "jit-in-python": "#000000",
    "book": "#AAAAAA",
}


def draw(rows: list[dict[str, Any]], out: Path) -> list[Path]:
    """Write speed.png and, where something grows, growth.png into a folder."""
    import matplotlib as mpl

    mpl.use("Agg")
    out.mkdir(parents=True, exist_ok=True)
    fixed = [row for row in rows if "growing" not in row]
    grown = [row for row in rows if "growing" in row]
    written = []
    if fixed:
        written.append(_bars(fixed, out / "speed.png"))
    if grown:
        written.append(_growth(grown, out / "growth.png"))
    return written


def _bars(rows: list[dict[str, Any]], path: Path) -> Path:
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    order = [case.name for case in CASES]
    cases = sorted({row["case"] for row in rows}, key=lambda name: (order.index(name) if name in order else -1, name))
    columns = min(len(cases), 3)
    lines = -(-len(cases) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.4 * columns, 2.7 * lines), squeeze=False)
    for ax in axes.flat[len(cases) :]:
        ax.axis("off")
    for ax, case in zip(axes.flat, cases, strict=False):
        found = sorted((row for row in rows if row["case"] == case), key=lambda row: row["seconds"][0])
        names = [row["peer"] for row in found]
        medians = [1e3 * row["seconds"][0] for row in found]
        spread = [
            [1e3 * abs(row["seconds"][0] - row["seconds"][k]) for row in found]
            for k in (1, 2)
        ]  # fmt: skip
        ax.barh(names, medians, xerr=spread, color=[COLORS.get(n, "#999999") for n in names], height=0.7)
        for y, row in enumerate(found):
            ax.annotate(f"{row['ratio'][0]:.3g} ×", (1e3 * row["seconds"][2], y), (4, 0), textcoords="offset points",
                        va="center", fontsize=8)  # fmt: skip
        ax.set_xscale("log")
        low, high = min(medians) / 2, max(medians) * 6
        ax.set_xlim(low, high)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 50 else (1,)))
        ax.xaxis.set_major_formatter("{x:,g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.invert_yaxis()
        ax.set_title(case, fontsize=10)
        ax.set_xlabel(f"ms for one {found[0]['unit']}", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _growth(rows: list[dict[str, Any]], path: Path) -> Path:
    import matplotlib.pyplot as plt

    what = list(dict.fromkeys(row["growing"] for row in rows))
    figure, axes = plt.subplots(1, len(what), figsize=(3.4 * len(what), 3.2), squeeze=False)
    for ax, growing in zip(axes.flat, what, strict=True):
        here = [row for row in rows if row["growing"] == growing]
        for peer in dict.fromkeys(row["peer"] for row in here):
            points = sorted((row["size"], 1e3 * row["seconds"][0]) for row in here if row["peer"] == peer)
            ax.plot(*zip(*points, strict=True), "o-", ms=3, lw=1.2, label=peer, color=COLORS.get(peer, "#999999"))
        ax.set_xscale("log")
        ax.set_yscale("log")
        sizes = sorted({row["size"] for row in here})
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.minorticks_off()
        ax.set_xlabel(growing, fontsize=9)
        ax.set_ylabel(f"ms for one {here[0]['unit']}", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.3)
    # One for all, where it covers no line.
    found = {name: line for ax in axes.flat for line, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="upper center", ncol=len(found), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
