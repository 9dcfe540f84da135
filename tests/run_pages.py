"""Facts for the pages of runs, made without training, and strokes that draw the ten digits."""

import itertools

import numpy as np

from jaxgd.assessment import Assessment
from jaxgd.network import Layer
from jaxgd.report.run_page import Examined, RunFacts

FRAME = {
    **{"height": 8, "width": 8, "box_height": 8, "box_width": 7, "centering": "box", "center_row": 3.5},
    **{"center_column": 3.5, "peak": 255, "slack": 1.0},
}


def network(sizes=(64, 30, 10)):
    rng = np.random.default_rng(0)
    return tuple(
        Layer(rng.normal(size=(n_out, n_in)).astype(np.float32), rng.normal(size=n_out).astype(np.float32))
        for n_in, n_out in itertools.pairwise(sizes)
    )


def assessed(answers, labels, classes=10):
    """Return an assessment with the given answers, each with the activation 0.9. The answer −1 means no answer."""
    answers, labels = np.asarray(answers), np.asarray(labels)
    outputs = np.where(answers[:, None] == np.arange(classes), 0.9, 0.1).astype(np.float32)
    outputs[answers < 0] = np.nan
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (labels[answers >= 0], answers[answers >= 0]), 1)
    of_class = np.bincount(labels, minlength=classes)
    accuracy = np.divide(confusion.diagonal(), of_class, out=np.full(classes, np.nan), where=of_class > 0)
    wrong = np.flatnonzero(answers != labels)
    return Assessment(confusion, float((answers == labels).mean()), accuracy, wrong, answers, labels, outputs)


def facts(**changes):
    config = {
        **{"data": "digits", "data_dir": None, "data_sha256": "ab" * 32, "frame": FRAME, "sizes": [64, 30, 10]},
        **{"scheme": "scaled", "eta": 3.0, "batch_size": 10, "epochs": 2, "seed": 0, "kernel": "auto"},
        "made_with": {"jaxgd": "0.2.0", "jax": "0.10.2", "jaxlib": "0.10.2", "device": "cpu", "float": "float32"},
    }
    metrics = {"epoch": np.arange(3.0), "cost": np.array([1.5, 0.2, 0.1]), "accuracy": np.array([0.1, 0.9, 0.95])}
    metrics |= {f"{part}_{name}": metrics[name] for part in ("validation", "test") for name in ("cost", "accuracy")}
    images = np.arange(5 * 64, dtype=np.uint8).reshape(5, 8, 8)
    examined = Examined("digits", "test", images, assessed([0, 1, 7, 3, -1], [0, 1, 2, 4, 4]))
    values = {
        **{
            "name": "run",
            "config": config,
            "network": network(),
            "network_sha256": "cd" * 32,
            "command": "jaxgd train",
        },
        **{"resume": "jaxgd train --resume run", "metrics": metrics, "examined": examined, "notes": []},
    }
    values["config"] = config | changes.pop("config", {})
    return RunFacts(**values | changes)


def arc(column, row, across, down, start, end):
    """Return points on an ellipse from one angle to another. Angles are in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, end, 24))
    return list(zip(column + across * np.cos(angles), row + down * np.sin(angles), strict=True))


# The strokes of each digit, as points (x, y) from 0 to 1 across and down the drawing area.
DIGITS = {
    0: [arc(0.5, 0.5, 0.2, 0.3, -90, 270)],
    1: [[(0.52, 0.2), (0.48, 0.8)]],
    2: [[*arc(0.48, 0.35, 0.2, 0.15, -160, 30), (0.3, 0.78), (0.72, 0.78)]],
    3: [arc(0.46, 0.35, 0.18, 0.15, -150, 80) + arc(0.46, 0.65, 0.2, 0.16, -80, 140)],
    4: [[(0.36, 0.22), (0.32, 0.5), (0.68, 0.5)], [(0.66, 0.2), (0.62, 0.8)]],
    5: [[(0.68, 0.22), (0.4, 0.22), (0.37, 0.47), *arc(0.48, 0.62, 0.2, 0.17, -110, 130)]],
    6: [[(0.58, 0.2), (0.42, 0.4)], arc(0.5, 0.65, 0.16, 0.15, -160, 200)],
    7: [[(0.3, 0.22), (0.7, 0.22), (0.46, 0.8)]],
    8: [arc(0.5, 0.36, 0.15, 0.15, 90, -270) + arc(0.5, 0.66, 0.17, 0.15, -90, 270)],
    9: [arc(0.48, 0.37, 0.16, 0.16, 0, -360), [(0.64, 0.4), (0.58, 0.8)]],
}
