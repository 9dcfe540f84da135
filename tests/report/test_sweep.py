"""The summary and the figure of a sweep, from tables made by hand."""

import itertools

import numpy as np
import pyarrow
import pytest
from matplotlib.figure import Figure

import jaxgd
from jaxgd.report.sweep import summarize
from jaxgd.sweeps import Sweep


def sweep_of(*networks, measure="validation_accuracy"):
    """Return a sweep from (sizes, η, outcome, accuracies at epochs 0, 1, …) of each network.

    Networks of equal sizes and η get different seeds.
    """
    rows, seeds = [], {}
    for sizes, eta, outcome, *accuracies in networks:
        seed = seeds[sizes, eta] = seeds.get((sizes, eta), -1) + 1
        for epoch, accuracy in enumerate(accuracies):
            row = dict.fromkeys(("accuracy", "validation_accuracy", "test_accuracy"), float("nan"))
            row |= {"sizes": sizes, "eta": eta, "seed": seed, "epoch": epoch, "outcome": outcome, measure: accuracy}
            rows.append(row)
    return Sweep(pyarrow.Table.from_pylist(rows), (), None, {}, True)


GOOD = [("64-30-10", 1.0, "COMPLETED", 0.1, 0.8 + 0.1 * seed) for seed in (1, 0, 2)]
BAD = [
    ("64-8-10", 1.0, "NOT_FINITE", 0.1),
    ("64-8-10", 1.0, "SATURATED", 0.1, 0.2),
    ("64-8-10", 1.0, "SATURATED", 0.1, 0.3),
    ("64-8-10", 1.0, "COMPLETED", 0.1, 0.9),
]
MORE = [("64-30-10", 0.1, "UNCHANGED", 0.5, 0.5)]


@pytest.mark.parametrize(
    ("measure", "name"),
    [("validation_accuracy", "validation accuracy"), ("test_accuracy", "test accuracy"),
     ("accuracy", "training accuracy")],
)  # fmt: skip
def test_the_summary_has_the_quartiles_of_the_last_epoch_and_the_shares_of_the_failures(measure, name):
    label, (good, more, bad) = summarize(sweep_of(*GOOD, *MORE, *BAD, measure=measure))
    assert label == name
    assert good[:3] == ("64-30-10", 1.0, 3)
    np.testing.assert_allclose((*good.quartiles, good.best), (0.85, 0.9, 0.95, 1.0))
    assert good.shares == {"diverged": 0, "saturated": 0, "unchanged": 0}
    assert more.shares["unchanged"] == 1
    # A diverged network has the accuracy of its last finite epoch.
    np.testing.assert_allclose((*bad.quartiles, bad.best), np.quantile([0.1, 0.2, 0.3, 0.9], (0.25, 0.5, 0.75, 1)))
    assert bad.shares == {"diverged": 0.25, "saturated": 0.5, "unchanged": 0}


def test_the_figure_shows_the_medians_the_quartiles_and_the_failures():
    above, below = jaxgd.plot(sweep_of(*GOOD, *MORE, *BAD), figure=Figure())
    lines = [line.get_xydata().tolist() for line in above.get_lines()]
    np.testing.assert_allclose(lines[0], [[0.1, 50], [1, 90]])  # sorted by η
    np.testing.assert_allclose(lines[1], [[1, 25]])
    band = above.collections[0].get_paths()[0].vertices
    assert {95.0, 85.0} <= set(band[:, 1].round(6))
    assert [text.get_text() for text in above.texts] == ["64-8-10", "64-30-10"]  # from the bottom up
    # One bar of unchanged networks at η = 0.1, then the bars of diverged and of saturated networks right of η = 1.
    bars = [(bar.get_x() >= 1, bar.get_y(), bar.get_height()) for bar in below.patches]
    assert bars == [(False, 0, 100), (True, 0, 25), (True, 25, 50)]
    assert [text.get_text() for text in below.get_legend().get_texts()] == ["diverged", "saturated", "unchanged"]
    assert [text.get_text() for text in below.get_xticklabels()] == ["0.1", "1"]
    assert above.figure.get_suptitle() == "8 networks, at most 1 epoch"


@pytest.mark.parametrize(
    ("networks", "scale"),
    [
        (GOOD[:1], "linear"),
        (BAD[:1], "linear"),  # the only network diverged
        ([(f"64-{n}-10", 3.0, "COMPLETED", 0.1, 0.9) for n in range(20)], "linear"),
        ([(f"64-{n}-10", 3.0, "COMPLETED", 0.1, a) for n, a in enumerate((0.6, 0.8, 0.8, 0.8))], "linear"),
        ([("64-10", eta, "COMPLETED", 0.1, accuracy) for eta, accuracy in ((1.0, 0.5), (2.0, 0.99))], "function"),
        ([("64-10", eta, "COMPLETED", 0.1, accuracy) for eta, accuracy in ((1.0, 0.5), (1e30, 1.0))], "function"),
    ],
    ids=[
        "one network",
        "diverged",
        "twenty sizes",
        "three sizes of one accuracy",
        "errors of 50% and 1%",
        "errors of 50% and 0%",
    ],
)
def test_unusual_sweeps_are_drawn(networks, scale):
    figure = Figure()
    above, _ = jaxgd.plot(sweep_of(*networks), figure=figure)
    figure.draw_without_rendering()
    assert above.get_yscale() == scale
    labels = [text for text in above.texts if text.get_text().startswith("64-")]
    heights = sorted(text.xyann[1] for text in labels)
    assert all(b - a > 0.04 for a, b in itertools.pairwise(heights))
    assert all(-0.01 <= height <= 1.01 for height in heights)


def test_a_sweep_without_accuracies_and_an_interactive_figure_are_refused():
    with pytest.raises(jaxgd.RangeError, match="must have an accuracy, got none"):
        jaxgd.plot(sweep_of(("64-1", 1.0, "COMPLETED", float("nan"))))
    with pytest.raises(jaxgd.RangeError, match="a Sweep takes no interactive"):
        jaxgd.plot(sweep_of(*GOOD), interactive=True)
