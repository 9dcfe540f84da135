"""The figure of an assessment: the confusion matrix, and the most confident mistakes with their images."""

import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from jaxgd.assessment import Assessment
from jaxgd.errors import ShapeError, as_array, describe
from jaxgd.report.figure import Axes, FigureBase, new_axes, new_figure

_ROWS, _COLUMNS = 5, 4  # the grid of pictures
# The figure shows counts, accuracies and every class name only up to these numbers of classes.
_COUNTED, _RATED, _NAMED = 16, 30, 36
# Smaller shares have the color of this share, so that even one wrong answer in a large class is visible.
_FAINT = 1e-3


def draw(
    assessment: Assessment, *, images: ArrayLike | None = None, labels_from: int = 0, figure: FigureBase | None = None
) -> tuple[Axes, ...]:
    """Draw the confusion matrix, and the most confident mistakes with their images.

    A row of the matrix counts the images of one class, and a column counts the images with one answer. The color shows
    the share of the class: blue for right answers, and orange on a logarithmic scale for wrong answers. The title of a
    picture shows the image's index and label, the answer, and the answer's activation.

    Args:
        assessment: The result of `assess`.
        images: The images that were assessed, (n, height, width). By default none, and only the matrix is drawn.
        labels_from: The label of the first class in the figure. Default 0.
        figure: A matplotlib Figure or SubFigure to draw in; by default a new one of pyplot.

    Returns:
        The axes of the matrix, then the axes of each picture, the most confident mistake first.

    Raises:
        ShapeError: If images does not have one image for each example.
    """
    n = len(assessment.labels)
    if images is None:
        return (_draw_matrix(assessment, labels_from, new_figure(figure, (6.4, 5.6))),)
    shown = as_array("plot", "images", images)
    if shown.ndim != 3 or len(shown) != n:
        raise ShapeError(
            f"plot: images must be ({n}, height, width), one for each example, got {describe(shown)}.\n"
            "Pass the images that were assessed."
        )
    figure = new_figure(figure, (11.0, 5.6))
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.25, 1), wspace=0.03).ravel()
    return _draw_matrix(assessment, labels_from, left), *_draw_mistakes(assessment, shown, labels_from, right)


def _draw_matrix(assessment: Assessment, labels_from: int, figure: FigureBase) -> Axes:
    from matplotlib.colors import LogNorm

    confusion, k = assessment.confusion, len(assessment.confusion)
    of_class = np.bincount(assessment.labels, minlength=k)[:, None]
    share = np.divide(confusion, of_class, out=np.zeros((k, k)), where=of_class > 0)
    right = np.eye(k, dtype=bool)
    axes = figure.add_subplot()
    axes.imshow(np.ma.masked_where(~right, share), cmap="Blues", vmin=0, vmax=1.6)  # light enough for dark text
    wrong = np.ma.masked_where(right | (confusion == 0), np.maximum(share, _FAINT))
    axes.imshow(wrong, cmap="Oranges", norm=LogNorm(_FAINT / 3, 1))
    if k <= _COUNTED:
        size = 8 if k <= 12 else 6
        for i, j in np.argwhere(confusion).tolist():
            axes.text(j, i, f"{confusion[i, j]}", ha="center", va="center", fontsize=size)
    ticks = np.arange(0, k, -(-k // _NAMED))
    names = [str(tick + labels_from) for tick in ticks]
    small = 9 if k <= _COUNTED else 6
    axes.set_xticks(ticks, names, fontsize=small)
    axes.set_yticks(ticks, names, fontsize=small)
    axes.set(xlabel="answer", ylabel="label")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"{(assessment.answers == assessment.labels).sum():,} of {len(assessment.labels):,} right", fontsize=11
    )
    if k <= _RATED:
        rates = axes.secondary_yaxis("right")
        words = ["" if np.isnan(rate) else f"{rate:.1%}" for rate in assessment.class_accuracy.tolist()]
        rates.set_yticks(np.arange(k), words, fontsize=small)
        rates.tick_params(length=0)
        rates.spines[:].set_visible(False)
        rates.set_ylabel("right", rotation=0, va="bottom")
        rates.yaxis.set_label_coords(1.06, 1.0)
    return axes


def _draw_mistakes(
    assessment: Assessment, images: NDArray[np.generic], labels_from: int, figure: FigureBase
) -> list[Axes]:
    shown = assessment.mistakes[: _ROWS * _COLUMNS]
    figure.suptitle(
        f"the {len(shown)} most confident of {len(assessment.mistakes):,} mistakes"
        if len(shown) < len(assessment.mistakes)
        else f"all {len(shown)} mistakes"
        if len(shown)
        else "no mistakes",
        fontsize=11,
    )
    grid = new_axes(figure, _ROWS, _COLUMNS)
    for axes in grid:
        axes.axis("off")
    for axes, i in zip(grid, shown.tolist(), strict=False):
        label, answer = int(assessment.labels[i]) + labels_from, int(assessment.answers[i])
        axes.imshow(images[i], cmap="gray_r")
        words = f"{answer + labels_from}, {float(assessment.outputs[i, answer]):.3f}" if answer >= 0 else "no answer"
        axes.set_title(f"[{i}]  {label} → {words}", fontsize=7, pad=3)
    return grid[: len(shown)]
