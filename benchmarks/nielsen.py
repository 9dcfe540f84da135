"""The runs of the book's chapter 1 over many seeds at once, compared with the book's numbers."""

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.case import DEFAULT_PRECISION, Case, Options
from benchmarks.rows import Row, sampled
from jaxgd import Dataset, load_dataset, sweep

SEEDS = 20


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One of the book's configurations: mini-batches of 10, quadratic cost, weights and biases from N(0, 1).

    Source: Nielsen, chapter 1, "Implementing our network to classify digits".

    Attributes:
        name: Name of the case.
        sizes: Neurons of each layer.
        eta: Learning rate.
        book: The book's counts of correct test images out of 10,000, for the best epoch, or for the first three and the
            final three epochs.
        independent: The 10th percentile, median and 90th percentile of the best count in 30 epochs, over 60 seeds of an
            independent implementation; None if not known.
    """

    name: str
    sizes: tuple[int, ...]
    eta: float
    book: str
    independent: tuple[int, int, int] | None = None


def measure(configuration: Configuration, options: Options) -> Iterator[Row]:
    """Yield one row: the count of correct test images at the best epoch of each seed."""
    start = time.perf_counter()
    data = load_dataset("mnist", options.data_dir)
    correct = correct_by_epoch(configuration, data, options.seeds or SEEDS, options.epochs)
    details = {
        "seconds": round(time.perf_counter() - start, 1),
        "sizes": list(configuration.sizes),
        "eta": configuration.eta,
        "batch_size": 10,
        "epochs": options.epochs,
        **comparison(correct.tolist(), configuration.book, configuration.independent),
    }
    best = correct.max(axis=1).tolist()
    yield sampled(configuration.name, "jaxgd", "correct", "images", best, precision=DEFAULT_PRECISION, details=details)


def comparison(correct: Sequence[Sequence[int]], book: str, independent: Sequence[int] | None) -> dict[str, object]:
    """Return the details of a row: the counts by epoch, their medians, and the counts of the book."""
    medians = [f"{x:.0f}" for x in np.median(correct, axis=0)]
    short = medians if len(medians) < 7 else [*medians[:3], "…", *medians[-3:]]
    percentiles = dict(zip(("10th percentile", "median", "90th percentile"), independent or (), strict=False))
    others = {"independent implementation": ", ".join(f"{name} {count}" for name, count in percentiles.items())}
    return {
        "median by epoch": " ".join(short),
        "the book": book,
        **(others if independent else {}),
        "correct_by_epoch": correct,
    }


def correct_by_epoch(configuration: Configuration, data: Dataset, seeds: int, epochs: int) -> np.ndarray:
    """Return the counts of correct test images after each epoch, (seeds, epochs)."""
    table = sweep(data, sizes=configuration.sizes, eta=configuration.eta, seeds=seeds, epochs=epochs).table
    accuracy = np.full((seeds, epochs + 1), np.nan)
    accuracy[table["seed"], table["epoch"]] = table["test_accuracy"]
    for k in range(1, epochs + 1):
        # A network that ended early has no rows for the later epochs. Its last count stands for them.
        accuracy[:, k] = np.where(np.isnan(accuracy[:, k]), accuracy[:, k - 1], accuracy[:, k])
    return np.asarray(np.rint(accuracy[:, 1:] * len(data.test.labels)), int)


CONFIGURATIONS = (
    Configuration("nielsen-30", (784, 30, 10), 3.0, "9129 9295 9348 … 9528 9542 9534", (9480, 9507, 9534)),
    Configuration("nielsen-30-eta-100", (784, 30, 10), 100.0, "1009 1009 1009 … 982 982 982"),
    Configuration("nielsen-100", (784, 100, 10), 3.0, "best 9659, “quite some variation”"),
    Configuration("nielsen-100-eta-0.001", (784, 100, 10), 0.001, "1139 1136 1135 … 2101 2123 2142"),
)
CASES = tuple(
    Case(c.name, "nielsen", f"{list(c.sizes)}, eta {c.eta:g}: correct test images over seeds",
         functools.partial(measure, c), needs_mnist=True)
    for c in CONFIGURATIONS
)  # fmt: skip
