"""The figure of an assessment shows its counts, its rates and the images of its mistakes."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import jaxgd
from jaxgd.report.assessment import draw

LABELS = np.array([0, 0, 0, 1, 1, 2])
ANSWERS = np.array([0, 0, 1, 1, 2, 2])
IMAGES = np.arange(6 * 20).reshape(6, 5, 4).astype(np.uint8)


def assessed(answers=ANSWERS):
    """Return an assessment with these answers, each with an activation of its own."""
    x = np.eye(3)[answers] * np.arange(1, 7)[:, None]
    return jaxgd.assess((jaxgd.Layer(jnp.eye(3), jnp.zeros(3)),), x.astype(np.float32), LABELS)


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


def test_the_mistakes_have_their_images_in_the_order_of_confidence():
    """Index, label, answer and activation stand above each image. Classes are numbered from `labels_from`."""
    _, first, second = draw(assessed(), images=IMAGES, labels_from=1, figure=Figure())
    assert (first.get_title(), second.get_title()) == ("[4]  2 → 3, 0.993", "[2]  1 → 2, 0.953")
    np.testing.assert_array_equal(first.get_images()[0].get_array(), IMAGES[4])
    np.testing.assert_array_equal(second.get_images()[0].get_array(), IMAGES[2])
    assert len(jaxgd.plot(assessed(LABELS), images=IMAGES, figure=Figure())) == 1


def test_many_classes_have_colors_without_counts():
    k = 40
    network = (jaxgd.Layer(jnp.eye(k), jnp.zeros(k)),)
    (axes,) = draw(jaxgd.assess(network, np.eye(k, dtype=np.float32), np.arange(k)), figure=Figure())
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
    ids=str,
)
def test_unfit_options_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        jaxgd.plot(assessed(), **options)
