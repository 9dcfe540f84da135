"""The numbers of correct readings, confident errors and warnings of `jaxgd predict` on each kind of photograph."""

import contextlib
import io
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.case import DEFAULT_PRECISION, Case, Options
from benchmarks.pictures.photographs import KINDS, photograph
from benchmarks.rows import Row

COUNT = 400
# The constants of `jaxgd predict` and of its warnings were chosen on photographs of seeds 1 and 2.
SEED = 3
# A wrong answer with an activation above this, and without a warning, is a confident error.
CONFIDENT = 0.5
TRAINING = ("--sizes", "784", "100", "10", "--scheme", "scaled", "--epochs", "30", "--seed", "0")

Labels = tuple[int, ...]


class Reading(NamedTuple):
    """The output of `jaxgd predict` for one photograph.

    Attributes:
        digits: The digits from left to right; empty if the photograph was not read.
        activations: The activation of each digit.
        warned: True if the command printed a warning or an error about the photograph.
    """

    digits: Labels
    activations: tuple[float, ...]
    warned: bool


class Counts(NamedTuple):
    """The result for one kind of photograph.

    Attributes:
        correct: The number of photographs with all digits right and in order.
        confident: The number of photographs with a wrong answer, an activation above 0.5 and no warning.
        warned: The number of photographs with a warning or an error.
    """

    correct: int
    confident: int
    warned: int


def train(folder: Path, data_dir: Path | None) -> Path:
    """Train the network of the benchmark, and return its run folder."""
    place = () if data_dir is None else ("--data-dir", str(data_dir))
    _command("train", "--data", "mnist", *place, *TRAINING, "--run-dir", str(folder / "run"))
    return folder / "run"


def photographs(folder: Path, kind: str, data_dir: Path | None, seed: int = SEED, count: int = COUNT) -> list[Labels]:
    """Write photographs of one kind into a folder if it has none, and return their digits."""
    from jaxgd import load_dataset

    place = folder / kind.replace(" ", "_")
    if not (place / "labels.json").exists():
        place.mkdir(parents=True)
        test = load_dataset("mnist", data_dir).test
        labels = []
        for i in range(count):
            made = photograph(kind, test.images, test.labels, seed, i)
            (place / f"{i}.jpg").write_bytes(made.content)
            labels.append(made.labels)
        (place / "labels.json").write_text(json.dumps(labels))
    return [tuple(digits) for digits in json.loads((place / "labels.json").read_text())]


def read(run: Path, folder: Path, kind: str, count: int) -> list[Reading]:
    """Read all photographs of one kind with `jaxgd predict`."""
    with contextlib.chdir(folder / kind.replace(" ", "_")):
        out, err = _command("predict", str(run.absolute()), *(f"{i}.jpg" for i in range(count)))
    return readings(out, err, count)


def readings(out: str, err: str, count: int) -> list[Reading]:
    """Return the reading of each photograph from the command's standard output and standard error."""
    digits: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for line in out.splitlines():
        name, digit, *activations = line.split("\t")
        digits[int(name.split(".")[0])].append((int(digit), max(map(float, activations))))
    warned = {int(found[1]) for found in re.finditer(r"(?m)^jaxgd predict: .*?(\d+)\.jpg", err)}
    return [
        Reading(tuple(digit for digit, _ in found), tuple(a for _, a in found), i in warned)
        for i, found in enumerate(digits)
    ]


def counts(found: Sequence[Reading], labels: Sequence[Labels]) -> Counts:
    """Count the correct readings, the confident errors and the warnings."""
    wrong = [reading.digits != right for reading, right in zip(found, labels, strict=True)]
    confident = [
        w and not reading.warned and max(reading.activations, default=0.0) > CONFIDENT
        for w, reading in zip(wrong, found, strict=True)
    ]
    return Counts(len(wrong) - sum(wrong), sum(confident), sum(reading.warned for reading in found))


def rows(kind: str, result: Counts, count: int = COUNT) -> list[Row]:
    """Return three rows, one for each count of a kind of photograph."""
    quantities = ("correct", "confident errors", "warned")
    return [
        Row(
            case=f"photographs/{kind}", variant="jaxgd", quantity=quantity, value=value, unit="pictures", n=count,
            precision=DEFAULT_PRECISION, details={"seed": SEED, "training": " ".join(TRAINING)},
        )
        for quantity, value in zip(quantities, result, strict=True)
    ]  # fmt: skip


def measure(options: Options) -> Iterator[Row]:
    """Train a network, and yield the rows of every kind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = train(folder, options.data_dir)
        for kind in KINDS:
            labels = photographs(folder, kind, options.data_dir)
            yield from rows(kind, counts(read(run, folder, kind, COUNT), labels))


def _command(*words: str) -> tuple[str, str]:
    """Run a command of jaxgd, and return its standard output and standard error."""
    from jaxgd.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    # `predict` exits with 1 if it refuses a photograph. Such a photograph counts as wrong.
    if status and not (words[0] == "predict" and status == 1):
        raise RuntimeError(err.getvalue())
    return out.getvalue(), err.getvalue()


CASES = (
    Case("photographs", "photographs", f"{COUNT} generated photographs of each of {len(KINDS)} kinds", measure, True),
)
