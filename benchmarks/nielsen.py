"""The book's runs, over many seeds at once, beside the book's numbers: `python -m benchmarks.nielsen`."""

import dataclasses
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from jaxgd import Dataset, init_network, load_dataset, train
from jaxgd.files import write_atomically


@dataclasses.dataclass(frozen=True)
class Run:
    """One of the book's configurations: mini-batches of 10, 30 epochs, quadratic cost, Gaussian(0, 1) start.

    `book` and `independent` are numbers of test images read correctly, of 10,000: best epoch, or by epoch.
    Source: Nielsen, chapter 1, "Implementing our network to classify digits".
    """

    name: str
    sizes: tuple[int, ...]
    eta: float
    book: str
    # Best of 30 epochs over 60 seeds of another implementation: tenth percentile, median, ninetieth percentile.
    independent: tuple[int, int, int] | None = None


RUNS = (
    Run("784-30-10, eta 3", (784, 30, 10), 3.0, "9129 9295 9348 … 9528 9542 9534", (9480, 9507, 9534)),
    Run("784-30-10, eta 100", (784, 30, 10), 100.0, "1009 1009 1009 … 982 982 982"),
    Run("784-100-10, eta 3", (784, 100, 10), 3.0, "best 9659, “quite some variation”"),
    Run("784-100-10, eta 0.001", (784, 100, 10), 0.001, "1139 1136 1135 … 2101 2123 2142"),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Train the book's configurations over many seeds at once and print each beside the book's number."""

    data_dir: Path | None = None
    """Where MNIST is; else JAXGD_DATA_DIR, else ~/.cache/jaxgd."""
    seeds: int = 20
    """How many networks of each configuration."""
    epochs: int = 30
    """Epochs of each run; the book's numbers are for 30."""
    only: tuple[str, ...] = tuple(run.name for run in RUNS)
    """Names of the configurations to run."""
    out: Path = Path("benchmarks/results/nielsen.jsonl")
    """Where results are kept, one line a configuration."""


def correct_by_epoch(run: Run, data: Dataset, seeds: int, epochs: int) -> np.ndarray:
    """Test images read correctly, (seeds, epochs): all seeds in one vmapped call."""

    def accuracies(key: jax.Array) -> jax.Array:
        network_key, order_key = jax.random.split(key)
        network = init_network(network_key, run.sizes)
        result = train(network, data, epochs=epochs, batch_size=10, eta=run.eta, key=order_key)
        return result.history.test_accuracy[1:]

    keys = jax.vmap(jax.random.key)(np.arange(seeds))
    accuracy = np.asarray(jax.jit(jax.vmap(accuracies))(keys))
    return np.asarray(np.rint(accuracy * len(data.test.labels)), int)


def measure(run: Run, data: Dataset, seeds: int, epochs: int) -> dict[str, Any]:
    """One line of results."""
    start = time.perf_counter()
    correct = correct_by_epoch(run, data, seeds, epochs)
    best = correct.max(axis=1)
    return {
        "name": run.name,
        "sizes": run.sizes,
        "eta": run.eta,
        "batch_size": 10,
        "epochs": epochs,
        "seeds": seeds,
        "best_p10_median_p90": np.percentile(best, [10, 50, 90]).tolist(),
        "best_min_max": [int(best.min()), int(best.max())],
        "median_by_epoch": np.median(correct, axis=0).tolist(),
        "correct": correct.tolist(),
        "book": run.book,
        "independent_p10_median_p90": run.independent,
        "seconds": round(time.perf_counter() - start, 1),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "dtype": "float32",
        "date": time.strftime("%Y-%m-%d"),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows beside the book's numbers, as a person reads them."""
    lines = []
    for row in rows:
        p10, median, p90 = row["best_p10_median_p90"]
        path = [f"{x:.0f}" for x in row["median_by_epoch"]]
        ends = " ".join(path) if len(path) < 7 else " ".join([*path[:3], "…", *path[-3:]])
        lines += [
            f"{row['name']}  ({row['seeds']} seeds, {row['epochs']} epochs, {row['seconds']} s)",
            f"  best epoch     p10 {p10:.0f}   median {median:.0f}   p90 {p90:.0f}   (of 10,000)",
            f"  by epoch       {ends}   (medians)",
            f"  the book       {row['book']}",
        ]
        if row["independent_p10_median_p90"]:
            p10, median, p90 = row["independent_p10_median_p90"]
            lines.append(f"  independent    p10 {p10}   median {median}   p90 {p90}   (best epoch, 60 seeds)")
    return "\n".join(lines)


def main(options: Options) -> int:
    """Run, print and keep; a configuration's line replaces its earlier one."""
    if unknown := set(options.only) - {run.name for run in RUNS}:
        print(f"no configuration is called {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    data = load_dataset("mnist", options.data_dir)
    kept = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    for run in RUNS:
        if run.name not in options.only:
            continue
        row = measure(run, data, options.seeds, options.epochs)
        print(table([row]), flush=True)
        kept = [old for old in kept if old["name"] != run.name] + [row]
        write_atomically(options.out, "".join(json.dumps(line) + "\n" for line in kept).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m benchmarks.nielsen")))
