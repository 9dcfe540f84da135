"""Helpers for matplotlib: check that it is installed, create a figure and its axes, and save a figure."""

import importlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxgd.errors import MissingDependencyError, RangeError
from jaxgd.files import as_path, write_atomically

# matplotlib is an optional dependency, so import its types only for type checkers.
if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure
    from matplotlib.figure import FigureBase as FigureBase
else:
    Axes = Figure = FigureBase = Any

STILL = (".png", ".svg", ".pdf")


def require_library(who: str, name: str) -> None:
    """Raise MissingDependencyError unless the plotting library `name`, matplotlib or plotly, is installed."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{who}: expected {name} to be installed, got no such module.\n"
            "Run in the folder of jaxgd's sources: pip install -e '.[plot]'"
        ) from error


def new_figure(figure: FigureBase | None, size: tuple[float, float]) -> FigureBase:
    """Return the given figure, or a new one of pyplot with this size in inches."""
    if figure is not None:
        return figure
    from matplotlib import pyplot

    return pyplot.figure(figsize=size, layout="constrained")


def new_axes(figure: FigureBase, rows: int, columns: int, **options: Any) -> list[Axes]:
    """Return a grid of new axes in a figure, row by row. The options are those of matplotlib's `subplots`."""
    return list(figure.subplots(rows, columns, squeeze=False, **options).ravel())


def save_figure(who: str, figure: Figure, path: str | Path, dpi: int) -> None:
    """Write a figure of matplotlib to a file. If the writing fails, an existing file stays unchanged.

    Args:
        who: Name of the calling function, for messages.
        figure: The figure.
        path: Path of the file, which ends in .png, .svg or .pdf.
        dpi: Pixels per inch of a PNG file, and of the images inside an SVG or PDF file.

    Raises:
        RangeError: If the path has another ending.
        WriteError: If the file cannot be written.
    """
    path = as_path(who, path)
    if path.suffix.lower() not in STILL:
        raise RangeError(f"{who}: path must end in {', '.join(STILL)}, got {path.name!r}.\nName it {path.stem}.png.")
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower(), dpi=dpi)
    write_atomically(path, content.getvalue())
