"""The figure of an assessment shows its counts, its rates and the images of its mistakes."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import jaxgd
from jaxgd.report.assessment import draw

LABELS = np.array([0, 0, 0, 1, 1, 2])
ANSWERS = np.array([0, 0, 1, 1, 2, 2])
IMAGES = np.arange(6 * 20).reshape(6, 5, 4).astype(np.uint8)


def assessed(answers=ANSWERS, labels=LABELS):
    """Build an assessment by hand, with the activation (i + 4)/10 for the answer to example i."""
    n, k = len(labels), 1 + max(*labels, *answers)
    confusion, outputs = np.zeros((k, k), int), np.zeros((n, k), np.float32)
    np.add.at(confusion, (labels, answers), 1)
    outputs[np.arange(n), answers] = np.arange(4, n + 4) / 10
    mistakes = np.flatnonzero(answers != labels)[::-1]
    rates = confusion.diagonal() / confusion.sum(1)
    return jaxgd.Assessment(confusion, (answers == labels).mean(), rates, mistakes, answers, labels, outputs)


def words(axes):
    return [text.get_text() for text in axes.texts]


def test_the_matrix_has_the_counts_and_the_accuracies():
    (axes,) = jaxgd.plot(assessed(), figure=Figure())
    assert words(axes) == ["2", "1", "1", "1", "1"]
    assert [text.get_position() for text in axes.texts] == [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)]
    right, wrong = axes.get_images()
    np.testing.assert_allclose(right.get_array().compressed(), [2 / 3, 1 / 2, 1])
    np.testing.assert_allclose(wrong.get_array().compressed(), [1 / 3, 1 / 2])
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("answer", "label", "4 of 6 right")
    (rates,) = axes.child_axes
    assert [label.get_text() for label in rates.get_yticklabels()] == ["66.7%", "50.0%", "100.0%"]


def test_the_images_of_mistakes_are_drawn_in_the_order_of_the_mistakes():
    """The title of an image has its example's index, label, answer and activation. Classes count from `labels_from`."""
    _, first, second = draw(assessed(), images=IMAGES, labels_from=1, figure=Figure())
    assert (first.get_title(), second.get_title()) == ("[4]  2 → 3, 0.800", "[2]  1 → 2, 0.600")
    np.testing.assert_array_equal(first.get_images()[0].get_array(), IMAGES[4])
    np.testing.assert_array_equal(second.get_images()[0].get_array(), IMAGES[2])
    assert len(jaxgd.plot(assessed(LABELS), images=IMAGES, figure=Figure())) == 1


def test_many_classes_have_colors_without_counts():
    (axes,) = draw(assessed(np.arange(40), np.arange(40)), figure=Figure())
    assert words(axes) == []
    assert [label.get_text() for label in axes.get_xticklabels()[:3]] == ["0", "2", "4"]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"images": IMAGES[:5]}, jaxgd.ShapeError, r"plot: images must be \(6, height, width\), one for each example"),
        ({"images": IMAGES[0]}, jaxgd.ShapeError, "plot: images must be"),
        ({"images": "x"}, jaxgd.DtypeError, "plot: images must be an array of numbers"),
        ({"interactive": True}, jaxgd.RangeError, "an Assessment takes no interactive"),
        ({"cost": lambda v: 0.0}, jaxgd.RangeError, "an Assessment takes no cost"),
    ],
    ids=["five images", "one image", "a text", "interactive", "a cost"],
)
def test_unfit_options_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        jaxgd.plot(assessed(), **options)
