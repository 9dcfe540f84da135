"""How many generated photographs of each kind `jaxgd predict` reads, and how many wrong answers it is sure of."""

import contextlib
import io
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.case import DEFAULT_PRECISION, Case, Options
from benchmarks.pictures.photographs import KINDS, photograph
from benchmarks.rows import Row

COUNT = 400
# The thresholds of the warnings and the reader's constants were chosen on photographs of seed 1, which is left out.
SEED = 2
# A wrong answer with more activation than this and without a warning is a confident error.
CONFIDENT = 0.5
# MNIST in 30 epochs; its choice of the first weights is the same for all numbers of hidden neurons.
TRAINING = ("--sizes", "784", "100", "10", "--scheme", "scaled", "--epochs", "30", "--seed", "0")


class Reading(NamedTuple):
    """What the command printed about one photograph.

    Attributes:
        digits: The digits from left to right; empty if the photograph was not read.
        activations: The activation of each digit.
        warned: True if the command printed a warning or an error about the photograph.
    """

    digits: tuple[int, ...]
    activations: tuple[float, ...]
    warned: bool


class Counts(NamedTuple):
    """Counts of photographs of a kind.

    Attributes:
        correct: Photographs with every digit right, in their order.
        confident: Photographs with a wrong answer, an activation above 0.5 for it and no warning.
        warned: Photographs with a warning or an error.
    """

    correct: int
    confident: int
    warned: int


def train(folder: Path, data_dir: Path | None) -> Path:
    """Train the network of the benchmark, and return its run folder."""
    from jaxgd.cli import main

    run = folder / "run"
    place = () if data_dir is None else ("--data-dir", str(data_dir))
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        status = main(["train", "--data", "mnist", *place, *TRAINING, "--run-dir", str(run)])
    if status:
        raise RuntimeError(errors.getvalue())
    return run


def read(run: Path, kind: str, data_dir: Path | None, seed: int = SEED, count: int = COUNT) -> dict[int, Reading]:
    """Make photographs of a kind, read them with `jaxgd predict`, and return what it printed about each."""
    from jaxgd.cli import main

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        names = [name for name, _ in _photographs(kind, data_dir, seed, count)]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(["predict", str(run), *names])
    return readings(out.getvalue(), err.getvalue(), count)


def readings(out: str, err: str, count: int) -> dict[int, Reading]:
    """Return the readings from the command's standard output and standard error."""
    digits: dict[int, list[tuple[int, float]]] = {}
    for line in out.splitlines():
        name, digit, *activations = line.split("\t")
        digits.setdefault(_index(name), []).append((int(digit), max(map(float, activations))))
    warned = {_index(found[0]) for line in err.splitlines() if (found := re.search(r"\d+\.jpg", line))}
    return {
        i: Reading(
            tuple(digit for digit, _ in digits.get(i, [])), tuple(a for _, a in digits.get(i, [])), i in warned
        )
        for i in range(count)
    }


def counts(found: dict[int, Reading], labels: dict[int, tuple[int, ...]]) -> Counts:
    """Compare readings with the labels."""
    correct = confident = warned = 0
    for i, (digits, activations, doubted) in found.items():
        right = digits == labels[i]
        correct += right
        warned += doubted
        confident += not right and not doubted and bool(digits) and max(activations) > CONFIDENT
    return Counts(correct, confident, warned)


def labels_of(kind: str, data_dir: Path | None, seed: int = SEED, count: int = COUNT) -> dict[int, tuple[int, ...]]:
    """Return the digits of each photograph of a kind."""
    return {i: labels for i, labels in enumerate(_labels(kind, data_dir, seed, count))}


def measure(options: Options) -> Iterator[Row]:
    """Yield three rows for each kind: photographs read correctly, confident errors, and warnings."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(Path(folder), options.data_dir)
        for kind in KINDS:
            found = read(run, kind, options.data_dir)
            result = counts(found, labels_of(kind, options.data_dir))
            for quantity, value in zip(("correct", "confident errors", "warned"), result, strict=True):
                yield Row(
                    case=f"pictures/{kind}", variant="jaxgd", quantity=quantity, value=value, unit="pictures",
                    n=COUNT, precision=DEFAULT_PRECISION, details={"seed": SEED},
                )  # fmt: skip
