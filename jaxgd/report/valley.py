"""Draw the chapter's picture: a valley in three dimensions and in contours, with the path of a descent."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxgd.errors import MissingDependencyError, RangeError
from jaxgd.files import write_atomically
from jaxgd.report.figure import STILL, save_figure

Floats = NDArray[np.float64]

_INSTALL = "Run in the folder of jaxgd's sources: pip install -e '.[plot]'"
# The surface has one scale of colors from low to high. Red occurs nowhere in it, so the path stands out everywhere.
_PATH, _START, _END, _MINIMUM = "#d62728", "#ffffff", "#d62728", "#ffd92f"
_COLORS = "viridis"


@dataclasses.dataclass(frozen=True)
class Landscape:
    """A cost over a plane, and the path of a descent.

    Attributes:
        a: Coordinates of the grid along the first axis, (m,).
        b: Coordinates of the grid along the second axis, (n,).
        cost: The cost on the grid, (m, n). Values that are not finite leave a hole in the surface.
        path: Coordinates of the path, (k, 2). A path outside the plane is projected onto it.
        heights: The cost along the path, (k,).
        names: Labels of the two axes.
        title: Title of the picture.
        minima: Known minima, (p, 3): two coordinates and the cost. Those outside the grid are left out.
    """

    a: Floats
    b: Floats
    cost: Floats
    path: Floats
    heights: Floats
    names: tuple[str, str]
    title: str
    minima: Floats = dataclasses.field(default_factory=lambda: np.zeros((0, 3)))


def require_drawable(path: Path) -> None:
    """Raise unless the file has a known suffix and the library that draws it is installed."""
    if path.suffix == ".html":
        try:
            import plotly  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingDependencyError(f"a page needs plotly. {_INSTALL}") from error
    elif path.suffix in STILL:
        try:
            import matplotlib  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingDependencyError(f"a picture needs matplotlib. {_INSTALL}") from error
    else:
        raise RangeError(f"{path}: a picture's name must end in .png, .svg, .pdf or .html.")


def draw(landscape: Landscape, path: Path) -> None:
    """Draw a landscape into a file.

    Args:
        landscape: The cost over a plane, and the path.
        path: A PNG, SVG or PDF file, or an HTML page that the reader can turn and zoom.

    Raises:
        RangeError: If the file has another suffix.
        MissingDependencyError: If matplotlib (or plotly, for a page) is not installed.
        WriteError: If the file cannot be written.
    """
    require_drawable(path)
    (_page if path.suffix == ".html" else _still)(landscape, path)


@dataclasses.dataclass(frozen=True)
class _Scale:
    """The vertical scale: C, or the fourth root of C − lowest if C spans many powers of ten.

    A logarithm has no bottom, so a grid with a few points near the valley's floor would show spikes there.
    """

    lowest: float
    rooted: bool

    def __call__(self, c: Any) -> Floats:
        above = np.asarray(np.asarray(c, float) - self.lowest if self.rooted else c, float)
        return np.asarray(np.maximum(above, 0) ** 0.25 if self.rooted else above)

    def ticks(self, high: float) -> tuple[list[float], list[str]]:
        """Return the positions and the labels of the marks on an axis of fourth roots."""
        most = int(np.floor(np.log10(max(high, 1e-60) ** 4)))
        above = [0.0, *(10.0**p for p in range(most - 4, most + 1))]
        marks = [x**0.25 for x in above]
        # Marks closer than this would overlap.
        kept = [i for i in range(len(marks)) if i == 0 or marks[i] > 0.08 * high]
        return [marks[i] for i in kept], [f"{self.lowest + above[i]:.4g}" for i in kept]


def _scale(landscape: Landscape) -> _Scale:
    everything = np.concatenate([landscape.cost.ravel(), landscape.heights])
    finite = everything[np.isfinite(everything)]
    lowest = float(finite.min())
    if 0 <= lowest < 1e-3 * float(finite.max()):
        lowest = 0.0
    above = finite - lowest
    return _Scale(lowest, bool(above.max() > 20 * max(float(np.quantile(above, 0.4)), 1e-300)))


def _label(scale: _Scale) -> str:
    return "cost C, on a scale of fourth roots" if scale.rooted else "cost C"


def _still(landscape: Landscape, file: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    scale = _scale(landscape)
    # matplotlib leaves a hole where the surface is NaN.
    z, heights = scale(np.where(np.isfinite(landscape.cost), landscape.cost, np.nan)), scale(landscape.heights)
    x, y = landscape.path.T
    figure = Figure(figsize=(11, 4.8), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(1, 2, width_ratios=(1.1, 1))
    # Draw in the order of the calls: matplotlib's own estimate of depth would hide the path.
    solid: Any = figure.add_subplot(grid[0], projection="3d", computed_zorder=False)
    a, b = np.meshgrid(landscape.a, landscape.b, indexing="ij")
    solid.plot_surface(a, b, z, cmap=_COLORS, alpha=0.9, linewidth=0, antialiased=True, rcount=90, ccount=90)
    # On the surface itself, half of the line would disappear below it.
    heights = np.maximum(heights, _beneath(landscape, z, x, y))
    lift = 0.015 * float(np.nanmax(z) - np.nanmin(z))
    solid.plot(x, y, heights + lift, color=_PATH, linewidth=2, zorder=10)
    p, q, r = _minima(landscape, scale, z)
    # The star is larger than the end of the path and below it, so that both show where a descent has converged.
    solid.scatter(p, q, r + lift, c=_MINIMUM, marker="*", edgecolors="black", s=300, zorder=11, depthshade=False)
    solid.scatter(*_ends(x, y, heights + lift), c=[_START, _END], edgecolors="black", s=40, zorder=12, depthshade=False)
    solid.set(xlabel=landscape.names[0], ylabel=landscape.names[1], zlabel="C")
    if scale.rooted:
        solid.set_zticks(*scale.ticks(float(np.nanmax(z))))
    solid.tick_params(labelsize=8)
    solid.view_init(elev=42, azim=_azimuth(landscape))
    plane = figure.add_subplot(grid[1])
    low, high = float(np.nanmin(z)), float(np.nanmax(z))
    levels = np.linspace(low, high if high > low else low + 1, 24)
    filled = plane.contourf(
        landscape.a, landscape.b, np.ma.masked_invalid(z.T), levels=levels, cmap=_COLORS, alpha=0.85
    )
    plane.contour(
        landscape.a, landscape.b, np.ma.masked_invalid(z.T), levels=levels, colors="white", linewidths=0.4, alpha=0.7
    )
    plane.plot(x, y, color=_PATH, linewidth=2)
    if len(x) <= 60:
        plane.plot(x, y, ".", color=_PATH, markersize=5)
    (x0, x1), (y0, y1) = _ends(x, y)
    plane.scatter([x0], [y0], c=_START, edgecolors="black", s=45, zorder=5, label="start")
    plane.scatter([x1], [y1], c=_END, edgecolors="black", s=45, zorder=5, label="end")
    if len(p):
        label = _minimum_label(len(p))
        plane.scatter(p, q, c=_MINIMUM, marker="*", edgecolors="black", s=330, zorder=4, label=label)
    plane.set(xlabel=landscape.names[0], ylabel=landscape.names[1])
    plane.legend(loc="best", framealpha=0.9)
    bar = figure.colorbar(filled, ax=plane, label=_label(scale), pad=0.02)
    if scale.rooted:
        marks, texts = scale.ticks(float(np.nanmax(z)))
        inside = [i for i, mark in enumerate(marks) if mark >= levels[0]]
        bar.set_ticks([marks[i] for i in inside], labels=[texts[i] for i in inside])
    else:
        bar.ax.yaxis.set_major_locator(MaxNLocator(6))
    figure.suptitle(landscape.title.replace("$", r"\$"))
    save_figure("draw", figure, file, dpi=120)


def _beneath(landscape: Landscape, z: Floats, x: Floats, y: Floats) -> Floats:
    """Return the highest corner of the grid cell that holds each point.

    Between grid points the drawn surface can be higher than the cost.
    """
    i = np.clip(np.searchsorted(landscape.a, x) - 1, 0, len(landscape.a) - 2)
    j = np.clip(np.searchsorted(landscape.b, y) - 1, 0, len(landscape.b) - 2)
    corners = np.stack([z[i, j], z[i + 1, j], z[i, j + 1], z[i + 1, j + 1]])
    return np.asarray(np.max(np.where(np.isfinite(corners), corners, -np.inf), axis=0))


def _minima(landscape: Landscape, scale: _Scale, z: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the coordinates and the drawn heights of the known minima inside the grid."""
    x, y, cost = landscape.minima.T
    a, b = landscape.a, landscape.b
    inside = (a[0] <= x) & (x <= a[-1]) & (b[0] <= y) & (y <= b[-1])
    x, y, cost = x[inside], y[inside], cost[inside]
    return x, y, np.maximum(scale(cost), _beneath(landscape, z, x, y))


def _minimum_label(number: int) -> str:
    return "known minimum" if number == 1 else "known minima"


def _ends(*axes: Floats) -> tuple[Floats, ...]:
    return tuple(axis[[0, -1]] for axis in axes)


def _azimuth(landscape: Landscape) -> float:
    """Return the angle of view in degrees: across the path, from the side where the surface is lower."""
    extent = np.array([np.ptp(landscape.a), np.ptp(landscape.b)])
    along = (landscape.path[-1] - landscape.path[0]) / extent
    direction = np.degrees(np.arctan2(along[1], along[0])) if np.linalg.norm(along) > 1e-9 else 0.0
    x, y = np.meshgrid(np.linspace(-1, 1, len(landscape.a)), np.linspace(-1, 1, len(landscape.b)), indexing="ij")
    z = _scale(landscape)(landscape.cost)

    def wall(turn: float) -> float:
        angle = np.radians(turn)
        near = x * np.cos(angle) + y * np.sin(angle) > 0.7
        return float(np.nanmean(z[near]))

    return float(min((direction + 65, direction - 65), key=wall))


# The page follows the reader's light or dark theme.
_FOLLOW = """
const figure = document.getElementById('{plot_id}');
const dark = window.matchMedia('(prefers-color-scheme: dark)');
function follow() {
  const ink = dark.matches ? '#e8e8e8' : '#222222', paper = dark.matches ? '#161616' : '#ffffff';
  document.body.style.background = paper;
  document.body.style.margin = 0;
  const change = {'paper_bgcolor': paper, 'plot_bgcolor': paper, 'font.color': ink, 'scene.bgcolor': paper};
  for (const axis of ['xaxis', 'yaxis', 'zaxis']) {
    change[`scene.${axis}.gridcolor`] = dark.matches ? '#444444' : '#dddddd';
    change[`scene.${axis}.backgroundcolor`] = paper;
  }
  Plotly.relayout(figure, change);
}
follow();
dark.addEventListener('change', follow);
"""


def _page(landscape: Landscape, file: Path) -> None:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    scale = _scale(landscape)
    z, heights = scale(landscape.cost), scale(landscape.heights)
    x, y = landscape.path.T
    texts = [f"C = {c:.6g}" for c in landscape.heights]
    figure = make_subplots(
        rows=1, cols=2, specs=[[{"type": "scene"}, {"type": "xy"}]], column_widths=[0.58, 0.42], horizontal_spacing=0.06
    )
    marks, words = scale.ticks(float(np.nanmax(z))) if scale.rooted else (None, None)
    bar = {"title": {"text": _label(scale), "side": "right"}, "tickvals": marks, "ticktext": words}
    figure.add_surface(
        x=landscape.a, y=landscape.b, z=z.T, customdata=landscape.cost.T, colorscale=_COLORS,
        colorbar=bar, hovertemplate="%{x:.4g}, %{y:.4g}<br>C = %{customdata:.6g}<extra></extra>", row=1, col=1,
    )  # fmt: skip
    heights = np.maximum(heights, _beneath(landscape, z, x, y))
    lift = 0.02 * float(np.nanmax(z) - np.nanmin(z))
    line = {"color": _PATH, "width": 6}
    figure.add_trace(
        go.Scatter3d(x=x, y=y, z=heights + lift, mode="lines", line=line, text=texts, hoverinfo="text", name="path"),
        row=1, col=1,
    )  # fmt: skip
    figure.add_contour(
        x=landscape.a, y=landscape.b, z=z.T, colorscale=_COLORS, showscale=False, ncontours=24, hoverinfo="skip",
        row=1, col=2,
    )  # fmt: skip
    figure.add_scatter(
        x=x, y=y, mode="lines+markers" if len(x) <= 60 else "lines", line={"color": _PATH, "width": 3}, text=texts,
        hoverinfo="text+x+y", name="path", row=1, col=2,
    )  # fmt: skip
    for which, color, name in ((0, _START, "start"), (-1, _END, "end")):
        marker = {"color": color, "size": 11, "line": {"color": "black", "width": 1.5}}
        figure.add_scatter(x=[x[which]], y=[y[which]], mode="markers", marker=marker, name=name, row=1, col=2)
        small = marker | {"size": 6}
        # The marker's center is above the surface, so that the whole marker shows.
        at = {"x": [x[which]], "y": [y[which]], "z": [heights[which] + 2.5 * lift]}
        figure.add_trace(go.Scatter3d(**at, mode="markers", marker=small, name=name), row=1, col=1)
    p, q, r = _minima(landscape, scale, z)
    if len(p):
        star = {"color": _MINIMUM, "size": 15, "symbol": "star", "line": {"color": "black", "width": 1}}
        figure.add_scatter(x=p, y=q, mode="markers", marker=star, name=_minimum_label(len(p)), row=1, col=2)
        # Plotly has no star in three dimensions.
        diamond = star | {"size": 6, "symbol": "diamond"}
        at = {"x": list(p), "y": list(q), "z": list(r + 2.5 * lift)}
        figure.add_trace(
            go.Scatter3d(**at, mode="markers", marker=diamond, hoverinfo="name", name="minimum"), row=1, col=1
        )
    figure.update_traces(showlegend=False)
    figure.update_traces(showlegend=True, selector={"type": "scatter", "mode": "markers"})
    turn = np.radians(_azimuth(landscape))
    figure.update_layout(
        title={"text": landscape.title, "x": 0.5},
        showlegend=True,
        legend={"x": 0.93, "y": 0.98, "xanchor": "right", "bgcolor": "rgba(128,128,128,0.5)"},
        margin={"l": 10, "r": 10, "t": 60, "b": 50},
        scene={
            "xaxis_title": landscape.names[0],
            "yaxis_title": landscape.names[1],
            "zaxis": {"title": "C", "tickvals": marks, "ticktext": words},
            "camera": {"eye": {"x": 1.35 * np.cos(turn), "y": 1.35 * np.sin(turn), "z": 1.5}},
            "aspectmode": "manual",
            "aspectratio": {"x": 1, "y": 1, "z": 0.65},
        },
    )
    figure.update_xaxes(title_text=landscape.names[0], row=1, col=2)
    figure.update_yaxes(title_text=landscape.names[1], row=1, col=2)
    page = figure.to_html(
        include_plotlyjs=True,
        post_script=_FOLLOW,
        config={"displaylogo": False, "responsive": True},
        default_height="100vh",
    )
    write_atomically(file, page.encode())
