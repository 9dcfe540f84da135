"""The text and the JSON of an assessment, for `jaxgd evaluate`."""

import dataclasses
import json
import math
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxgd.assessment import Assessment

_SHOWN = 10  # mistakes
_FREQUENT = 3  # wrong answers per class
_WIDTH = 80  # columns, if standard output is not a terminal


def as_text(assessment: "Assessment", labels_from: int, width: int | None = None) -> str:
    """Return the confusion matrix with the accuracy of each class, and the most confident mistakes.

    The classes are numbered from `labels_from`. If the matrix is wider than `width`, show the most frequent wrong
    answers of each class instead. By default, `width` is that of the terminal.
    """
    width = shutil.get_terminal_size((_WIDTH, 24)).columns if width is None else width
    tables = [_matrix(assessment, labels_from, gap) for gap in (2, 1)]
    rows = next((rows for rows in tables if max(map(len, rows)) <= width), _list(assessment, labels_from))
    return "\n".join(["", *rows, *_unread(assessment), *_mistakes(assessment, labels_from)])


def _matrix(assessment: "Assessment", labels_from: int, gap: int) -> list[str]:
    """Return the lines of the confusion matrix, with `gap` spaces between its columns."""
    confusion, rates = assessment.confusion, assessment.class_accuracy
    names = [str(j + labels_from) for j in range(len(confusion))]
    cell = gap + max(map(len, (*names, *map(str, confusion.ravel()))))
    lines = ["label  answer", "     " + "".join(name.rjust(cell) for name in names) + "    right"]
    counts: list[list[int]] = confusion.tolist()
    for name, row, rate in zip(names, counts, rates.tolist(), strict=True):
        cells = "".join((str(count) if count else ".").rjust(cell) for count in row)
        lines.append(f"{name:>5}{cells}  {_percent(rate)}")
    return lines


def _list(assessment: "Assessment", labels_from: int) -> list[str]:
    """Return one line for each class with examples: their number, the accuracy, and the most frequent wrong answers."""
    lines = ["label  images    right  most frequent wrong answers"]
    counts: list[list[int]] = assessment.confusion.tolist()
    for j, (row, rate) in enumerate(zip(counts, assessment.class_accuracy.tolist(), strict=True)):
        count = int((assessment.labels == j).sum())
        wrong = sorted((i for i, images in enumerate(row) if i != j and images), key=lambda i: -row[i])[:_FREQUENT]
        words = ", ".join(f"{i + labels_from}: {row[i]}" for i in wrong)
        if count:
            lines.append(f"{j + labels_from:>5}  {count:>6}  {_percent(rate)}  {words}".rstrip())
    return lines


def _percent(rate: float) -> str:
    return "      –" if math.isnan(rate) else f"{rate:>7.2%}"


def _unread(assessment: "Assessment") -> list[str]:
    count = int((assessment.answers < 0).sum())
    return [f"images without an answer, because an output is NaN: {count}"] if count else []


def _mistakes(assessment: "Assessment", labels_from: int) -> list[str]:
    shown = [_mistake(assessment, i, labels_from) for i in assessment.mistakes[:_SHOWN].tolist()]
    if not shown:
        return []
    rows = [
        f"{one.index:>6}  {one.label:>5}  "
        + ("  none" if one.answer is None else f"{one.answer:>6}  {one.activation:>10.4f}")
        for one in shown
    ]
    return ["", "most confident mistakes", " index  label  answer  activation", *rows]


@dataclasses.dataclass(frozen=True)
class _Mistake:
    """One mistake. `answer` and `activation` are None for an example without an answer."""

    index: int
    label: int
    answer: int | None
    activation: float | None


def _mistake(assessment: "Assessment", i: int, labels_from: int) -> _Mistake:
    label, answer = int(assessment.labels[i]) + labels_from, int(assessment.answers[i])
    if answer < 0:
        return _Mistake(i, label, None, None)
    return _Mistake(i, label, answer + labels_from, float(assessment.outputs[i, answer]))


def as_json(assessment: "Assessment", labels_from: int, cost: float, about: dict[str, str]) -> str:
    """Return one JSON object on one line. It starts with the entries of `about`. NaN and infinity become null."""
    content = {
        **about,
        "images": len(assessment.labels),
        "right": int(assessment.confusion.trace()),
        "accuracy": assessment.accuracy,
        "cost": cost,
        "labels": [j + labels_from for j in range(len(assessment.confusion))],
        "confusion": assessment.confusion.tolist(),
        "class_accuracy": assessment.class_accuracy.tolist(),
        "mistakes": [dataclasses.asdict(_mistake(assessment, i, labels_from)) for i in assessment.mistakes.tolist()],
    }
    return json.dumps(_finite(content), ensure_ascii=False)


def _finite(x: object) -> object:
    """Return x with null in place of each number that JSON cannot hold."""
    if isinstance(x, dict):
        return {name: _finite(value) for name, value in x.items()}
    if isinstance(x, list):
        return [_finite(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x
