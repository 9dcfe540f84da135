"""Draw a cost and a path with plotly, as a page in which the reader can rotate and zoom the picture."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from jaxgd.files import write_atomically
from jaxgd.report.landscape import Landscape
from jaxgd.report.scale import Floats
from jaxgd.report.valley import COLORS, DOTS, MINIMUM, PATH, azimuth, label, markers

_HEIGHT = 0.65  # height of the surface's box, if the sides of its base are 1
_RADIUS = 0.022  # radius of a ball on the surface, in the same unit


@runtime_checkable
class _Figure(Protocol):
    """The methods of a plotly figure that this module calls. plotly has no type annotations."""

    def add_scatter(self, **options: object) -> object: ...
    def add_surface(self, **options: object) -> object: ...
    def add_contour(self, **options: object) -> object: ...
    def add_trace(self, trace: object, **cell: int) -> object: ...
    def update_layout(self, **options: object) -> object: ...
    def update_traces(self, **options: object) -> object: ...
    def update_xaxes(self, **options: object) -> object: ...
    def update_yaxes(self, **options: object) -> object: ...
    def to_html(self, **options: object) -> str: ...


def draw(landscape: Landscape, title: str) -> _Figure:
    """Return a figure of plotly: the curve of C over one variable, or the surface and the contours over a plane."""
    figure = _curve(landscape) if len(landscape.axes) == 1 else _valley(landscape)
    figure.update_layout(
        title={"text": title.replace("\n", "<br>"), "x": 0.5},
        legend={"orientation": "h", "x": 0.95, "xanchor": "right", "y": -0.1, "yanchor": "top"},
        margin={"l": 10, "r": 10, "t": 60, "b": 50},
    )
    return figure


def save_page(figure: _Figure, path: Path) -> None:
    """Write a figure of plotly as a page that works offline. If the writing fails, an existing file stays unchanged."""
    text = figure.to_html(
        include_plotlyjs=True,
        post_script=_FOLLOW,
        config={"displaylogo": False, "responsive": True},
        default_height="100vh",
    )
    write_atomically(path, text.encode())


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


def _axis(landscape: Landscape, name: str) -> dict[str, object]:
    """Return the title of an axis of costs. If the scale is logarithmic, also return its marks."""
    if landscape.scale.floor is None:
        return {"title": {"text": name}}
    marks, texts = landscape.scale.ticks()
    return {"title": {"text": name}, "tickvals": landscape.scale(marks), "ticktext": texts}


def _flat(landscape: Landscape, figure: _Figure, **cell: int) -> None:
    """Add the path and the markers to a flat picture."""
    path = landscape.path
    figure.add_scatter(
        x=path[:, 0], y=path[:, 1], mode="lines+markers" if len(path) <= DOTS else "lines", name="path",
        line={"color": PATH, "width": 2}, text=[f"C = {c:.6g}" for c in landscape.costs], hoverinfo="text+x",
        showlegend=False, **cell,
    )  # fmt: skip
    for name, color, points in markers(landscape):
        symbol, size = ("star", 15) if color == MINIMUM else ("circle", 11)
        marker = {"color": color, "size": size, "symbol": symbol, "line": {"color": "black", "width": 1.5}}
        figure.add_scatter(x=points[:, 0], y=points[:, 1], mode="markers", marker=marker, name=name, **cell)


def _curve(landscape: Landscape) -> _Figure:
    import plotly.graph_objects as go

    figure: _Figure = go.Figure()
    figure.add_scatter(x=landscape.axes[0], y=landscape.cost, mode="lines", name="C", showlegend=False)
    _flat(landscape, figure)
    figure.update_xaxes(title_text=landscape.names[0])
    figure.update_yaxes(title_text="cost C", type="log" if landscape.curve_is_logarithmic else "linear")
    return figure


def _valley(landscape: Landscape) -> _Figure:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    scale, (a, b) = landscape.scale, landscape.axes
    # float32 shrinks a page with 301×301 points from 8.0 to 6.5 MB.
    z, cost = scale(landscape.cost).astype(np.float32), landscape.cost.astype(np.float32)
    figure: _Figure = make_subplots(
        rows=1, cols=2, specs=[[{"type": "scene"}, {"type": "xy"}]], column_widths=[0.58, 0.42], horizontal_spacing=0.06
    )
    figure.add_surface(
        x=a, y=b, z=z.T, customdata=cost.T, colorscale=COLORS,
        colorbar=_axis(landscape, label(landscape)),
        hovertemplate="%{x:.4g}, %{y:.4g}<br>C = %{customdata:.6g}<extra></extra>", row=1, col=1,
    )  # fmt: skip
    figure.update_traces(colorbar_title_side="right", selector={"type": "surface"})
    low, high = float(scale(scale.lowest)), float(scale(scale.high))
    # The surface would hide half of a line that lies on it, so raise the line by 1% of the range of heights.
    x, y, height = landscape.draped
    line = {"color": PATH, "width": 6}
    figure.add_trace(
        go.Scatter3d(x=x, y=y, z=height + 0.01 * (high - low), mode="lines", line=line, hoverinfo="skip", name="path",
                     showlegend=False),
        row=1, col=1,
    )  # fmt: skip
    for name, color, points in markers(landscape):
        for point in points:
            figure.add_trace(_ball(landscape, high - low, point, color, name), row=1, col=1)
            # A narrow valley may hide the ball, so a vertical pin marks its position.
            foot, share = float(scale(point[2])), 0.5 if color == MINIMUM else 1.0
            pin = {"x": point[[0, 0]], "y": point[[1, 1]], "z": [foot, foot + share * (high - foot)]}
            line = {"color": color, "width": 2}
            figure.add_trace(
                go.Scatter3d(**pin, mode="lines", line=line, hoverinfo="skip", showlegend=False), row=1, col=1
            )
    levels = scale.levels()
    contours = {"start": levels[1], "end": levels[-1], "size": levels[2] - levels[1]}
    figure.add_contour(
        x=a, y=b, z=z.T, colorscale=COLORS, showscale=False, contours=contours, hoverinfo="skip", row=1, col=2
    )
    _flat(landscape, figure, row=1, col=2)
    angle = np.radians(azimuth(landscape))
    figure.update_layout(
        scene={
            "xaxis_title": landscape.names[0],
            "yaxis_title": landscape.names[1],
            "zaxis": _axis(landscape, "C"),
            "camera": {"eye": {"x": 1.35 * np.cos(angle), "y": 1.35 * np.sin(angle), "z": 1.5}},
            "aspectmode": "manual",
            "aspectratio": {"x": 1, "y": 1, "z": _HEIGHT},
        },
    )
    figure.update_xaxes(title_text=landscape.names[0], row=1, col=2)
    figure.update_yaxes(title_text=landscape.names[1], row=1, col=2)
    return figure


def _ball(landscape: Landscape, height: float, point: Floats, color: str, name: str) -> object:
    """Return a ball with its center on the surface. The surface would hide half of a flat marker."""
    import plotly.graph_objects as go

    spans = [float(np.ptp(axis)) for axis in landscape.axes] + [(height or 1.0) / _HEIGHT]
    around, down = np.meshgrid(np.linspace(0, 2 * np.pi, 25), np.linspace(0, np.pi, 13))
    unit = (np.cos(around) * np.sin(down), np.sin(around) * np.sin(down), np.cos(down))
    center = (float(point[0]), float(point[1]), float(landscape.scale(point[2])))
    x, y, z = (c + _RADIUS * span * part for c, span, part in zip(center, spans, unit, strict=True))
    return go.Surface(
        x=x, y=y, z=z, colorscale=[[0, color], [1, color]], showscale=False, name=name, hoverinfo="text",
        text=f"{name}: C = {point[2]:.6g}", lighting={"ambient": 0.7, "specular": 0.1},
    )  # fmt: skip
