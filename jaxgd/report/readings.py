"""The figure of `jaxgd predict --show`: pictures, the images that the network saw, and its activations."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxgd.data.image import Digit, Picture
from jaxgd.report.figure import Axes, new_axes, save_figure

_MOST_PIXELS = 600  # most pixels per side of a drawn picture; more would make the file large
_ANSWER, _OTHER = "#d95f02", "#1f77b4"

# Name, picture, digit, and the image that the network saw.
Row = tuple[str, Picture | None, Digit | None, NDArray[np.uint8]]


def plot_readings(rows: Sequence[Row], outputs: NDArray[np.floating], path: str | Path, labels_from: int = 0) -> None:
    """Draw a row for each digit: the picture with the digit's box, the network's input, and the activations as bars.

    Needs matplotlib: run `pip install -e '.[plot]'` in the folder of jaxgd's sources.

    Args:
        rows: For each digit: a name, the picture or None, the `Digit` in it or None, and the image for the network.
        outputs: Activations, (n, classes), in the order of `rows`. n may be larger than the number of rows.
        path: Path of the figure, which ends in .png, .svg or .pdf.
        labels_from: Label of the first class.

    Raises:
        RangeError: If the path has another ending.
        WriteError: If the file cannot be written. An existing file then stays as it was.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.7 * len(rows)), layout="constrained")
    panels = new_axes(figure, len(rows), 3, width_ratios=(1.2, 1, 1.8))
    for i, (name, picture, digit, framed) in enumerate(rows):
        a, (left, middle, right) = np.asarray(outputs[i], float), panels[3 * i : 3 * i + 3]
        _draw_picture(left, framed if picture is None else picture.gray, None if digit is None else digit.box)
        left.set_title(_short(name).replace("$", r"\$"), fontsize=9)
        middle.imshow(framed, cmap="gray_r", vmin=0, vmax=255)
        middle.set_title(f"network input, {framed.shape[0]}×{framed.shape[1]}", fontsize=9)
        middle.set(xticks=[], yticks=[])
        best = int(a.argmax())
        classes = range(labels_from, labels_from + len(a))
        right.bar(classes, a, color=[_ANSWER if k == best else _OTHER for k in range(len(a))])
        right.set_title(f"read as {classes[best]}, activation {a.max():.2f}", fontsize=9)
        right.set(xticks=classes, ylabel="activation", ylim=(min(0.0, float(a.min())), max(1.0, float(a.max()))))
        right.spines[["top", "right"]].set_visible(False)
    save_figure("plot_readings", figure, path, dpi=110)


def _draw_picture(axes: Axes, gray: NDArray[np.uint8], box: tuple[int, int, int, int] | None) -> None:
    from matplotlib.patches import Rectangle

    step = max(1, -(-max(gray.shape) // _MOST_PIXELS))
    height, width = gray.shape
    axes.imshow(gray[::step, ::step], cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    axes.set(xticks=[], yticks=[])
    if box is not None:
        top, left, bottom, right = box
        margin = 0.01 * max(gray.shape)
        corner = (left - margin, top - margin)
        size = (right - left + 2 * margin, bottom - top + 2 * margin)
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=_ANSWER, linewidth=1.5))


def _short(name: str) -> str:
    """Shorten a long name at its start, where the folders are."""
    return name if len(name) <= 32 else "…" + name[-31:]
