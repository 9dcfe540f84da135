"""Draw a cost with matplotlib as a curve, or as a surface and contours, with the path of a descent."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from jaxgd.report.figure import Axes, FigureBase, new_figure
from jaxgd.report.landscape import Landscape
from jaxgd.report.scale import Floats

# The color scale of the surface contains no red, so the red path stands out everywhere.
PATH, START, END, MINIMUM = "#d62728", "#ffffff", "#d62728", "#ffd92f"
COLORS = "viridis"
DOTS = 60  # the longest path whose points are drawn as dots; the surface shows no dots


@runtime_checkable
class _Axes3D(Protocol):
    """The methods of matplotlib's 3D axes that this module calls. matplotlib does not annotate them."""

    def plot_surface(self, *surface: Floats, **options: object) -> object: ...
    def plot(self, *line: Floats, **options: object) -> object: ...
    def scatter(self, *points: Floats, **options: object) -> object: ...
    def set(self, **options: object) -> object: ...
    def set_zticks(self, ticks: Floats, labels: Sequence[str]) -> object: ...
    def tick_params(self, **options: object) -> object: ...
    def view_init(self, **options: float) -> object: ...


def draw(landscape: Landscape, title: str, figure: FigureBase | None = None) -> tuple[Axes] | tuple[_Axes3D, Axes]:
    """Draw the curve of C over one variable, or the surface and the contours over a plane, and return the axes."""
    figure = new_figure(figure, (7.0, 4.2) if len(landscape.axes) == 1 else (11.0, 4.8))
    figure.suptitle(title.replace("$", r"\$"))
    if len(landscape.axes) == 1:
        return (_curve(landscape, figure.add_subplot()),)
    grid = figure.add_gridspec(1, 2, width_ratios=(1.1, 1))
    # Draw in the order of `zorder`: matplotlib's own estimate of depth would hide the path.
    surface: _Axes3D = figure.add_subplot(grid[0], projection="3d", computed_zorder=False)
    return _surface(landscape, surface), _contours(landscape, figure.add_subplot(grid[1]))


def label(landscape: Landscape) -> str:
    """Return the label of the color scale."""
    scale = landscape.scale
    lowest = f"{scale.lowest:.4g} + " if scale.lowest else ""
    return "cost C" if scale.floor is None else f"cost C, logarithmic above {lowest}{scale.floor:.1g}"


def azimuth(landscape: Landscape) -> float:
    """Return the angle of view in degrees: 65° from the path's direction, on the side where the surface is lower."""
    direction, (x, y) = 0.0, np.meshgrid(*(np.linspace(-1, 1, len(axis)) for axis in landscape.axes), indexing="ij")
    if len(landscape.path):
        along = (landscape.path[-1, :2] - landscape.path[0, :2]) / [np.ptp(axis) for axis in landscape.axes]
        direction = float(np.degrees(np.arctan2(along[1], along[0])))
    z = landscape.scale(landscape.cost)

    def wall(angle: float) -> float:
        near = x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle)) > 0.7
        return float(np.nanmean(z[near])) if np.isfinite(z[near]).any() else 0.0

    return min((direction + 65, direction - 65), key=wall)


def markers(landscape: Landscape) -> list[tuple[str, str, Floats]]:
    """Return the label, the color and the points of each kind of marker, in drawing order."""
    # After convergence, the path ends in the star of a minimum. Draw the larger star first, so that both markers show.
    kinds = [("known minimum" if len(landscape.minima) == 1 else "known minima", MINIMUM, landscape.minima)]
    kinds += [("start", START, landscape.path[:1]), (landscape.end, END, landscape.path[-1:])]
    return [marker for marker in kinds if len(marker[2])]


def _mark(
    scatter: Callable[..., object],
    landscape: Landscape,
    columns: Callable[[Floats], Sequence[Floats]],
    size: int,
    **options: object,
) -> None:
    for name, color, points in markers(landscape):
        star = color == MINIMUM
        scatter(
            *columns(points), c=[color] * len(points), marker="*" if star else "o", s=size * (7 if star else 1),
            edgecolors="black", label=name, **{"zorder": 4 if star else 5} | options,
        )  # fmt: skip


def _columns(points: Floats) -> Sequence[Floats]:
    return [points[:, i] for i in range(points.shape[1])]


def _curve(landscape: Landscape, axes: Axes) -> Axes:
    path = landscape.path
    axes.plot(landscape.axes[0], np.where(np.isfinite(landscape.cost), landscape.cost, np.nan), color="#1f77b4")
    axes.plot(*path.T, ".-" if len(path) <= DOTS else "-", color=PATH)
    _mark(axes.scatter, landscape, _columns, 45)
    axes.set(xlabel=landscape.names[0], ylabel="cost C", yscale="log" if landscape.curve_is_logarithmic else "linear")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", framealpha=0.9)
    return axes


def _surface(landscape: Landscape, axes: _Axes3D) -> _Axes3D:
    scale = landscape.scale
    z, (a, b) = scale(landscape.cost), np.meshgrid(*landscape.axes, indexing="ij")
    # matplotlib leaves a hole where the surface is NaN, so z needs no mask.
    # Rasterize the surface: in an SVG file, each face would be one element. A coarser surface would have jagged edges.
    axes.plot_surface(
        a, b, z, cmap=COLORS, linewidth=0, antialiased=False, rcount=a.size, ccount=a.size, rasterized=True
    )
    axes.plot(*landscape.draped, color=PATH, linewidth=2, zorder=10)

    def on_surface(points: Floats) -> tuple[Floats, ...]:
        return points[:, 0], points[:, 1], scale(points[:, 2])

    _mark(axes.scatter, landscape, on_surface, 40, depthshade=False, zorder=11)
    axes.set(xlabel=landscape.names[0], ylabel=landscape.names[1], zlabel="C")
    if scale.floor is not None:
        marks, texts = scale.ticks()
        axes.set_zticks(scale(marks), texts)
    axes.tick_params(labelsize=8)
    axes.view_init(elev=42, azim=azimuth(landscape))
    return axes


def _contours(landscape: Landscape, axes: Axes) -> Axes:
    from matplotlib.ticker import MaxNLocator

    scale = landscape.scale
    z = np.ma.masked_invalid(scale(landscape.cost).T)
    levels, (a, b) = scale.levels(), landscape.axes
    filled = axes.contourf(a, b, z, levels=levels, cmap=COLORS, alpha=0.85)
    axes.contour(a, b, z, levels=levels, colors="white", linewidths=0.4, linestyles="solid", alpha=0.7)
    x, y = landscape.path[:, 0], landscape.path[:, 1]
    axes.plot(x, y, ".-" if len(x) <= DOTS else "-", color=PATH, linewidth=2, markersize=5)
    _mark(axes.scatter, landscape, lambda points: _columns(points[:, :2]), 45)
    axes.set(xlabel=landscape.names[0], ylabel=landscape.names[1])
    if len(x):
        axes.legend(loc="best", framealpha=0.9)
    bar = axes.figure.colorbar(filled, ax=axes, label=label(landscape), pad=0.02, spacing="proportional")
    if scale.floor is None:
        bar.ax.yaxis.set_major_locator(MaxNLocator(6))
    else:
        marks, texts = scale.ticks()
        bar.set_ticks(scale(marks).tolist(), labels=texts)
    return axes
