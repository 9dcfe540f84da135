"""The confusion matrix and the misread images of a run, as HTML."""

import numpy as np
from jaxtyping import Float, Int

from jaxgd.report.run_page.facts import RunFacts, why_no_drawing
from jaxgd.report.run_page.pixels import ink_url
from jaxgd.report.run_page.words import SPLITS, class_name, section, text, thing

MOST_EXAMPLES = 60
_MOST_CLASSES = 20  # a confusion matrix of more classes is omitted


def confusion(facts: RunFacts) -> str:
    """Return the confusion matrix and the most frequent mistakes. Omit the matrix if it has more than 20 classes."""
    if facts.examined is None:
        return ""
    assessment, first = facts.examined.assessment, facts.first
    matrix = assessment.confusion
    k = len(matrix)
    off = matrix * (1 - np.eye(k, dtype=int))
    frequent = [divmod(int(cell), k) for cell in np.argsort(-off, axis=None, kind="stable")[:20] if off.flat[cell]]
    several = ", ".join(
        f"{i + first} read as {j + first} ({off[i, j]:,})" for i, j in frequent[: 5 if k <= _MOST_CLASSES else 20]
    )
    words = (
        f"<p>The most frequent mistakes, with their counts: {several}.</p>" if several else "<p>No answer is wrong.</p>"
    )
    if unread := len(assessment.labels) - int(matrix.sum()):
        words += f"<p>Images without an answer, because an output is NaN: {unread:,}.</p>"
    table = _matrix(matrix, assessment.class_accuracy, first) if k <= _MOST_CLASSES else ""
    return section("confusion", "Confusion matrix", f"<p>{_examined(facts)}</p>{table}{words}")


def _examined(facts: RunFacts) -> str:
    assert facts.examined is not None
    n = len(facts.examined.assessment.labels)
    return f"The {n:,} {SPLITS[facts.examined.split]} images of {text(facts.examined.data)}."


def _matrix(matrix: Int[np.ndarray, "k k"], class_accuracy: Float[np.ndarray, " k"], first: int) -> str:
    k = len(matrix)
    off = max(int((matrix * (1 - np.eye(k, dtype=int))).max()), 1)
    rows = []
    counts: list[list[int]] = matrix.tolist()
    for i, (line, share) in enumerate(zip(counts, class_accuracy.tolist(), strict=True)):
        cells = "".join(_cell(i == j, count, sum(line), off) for j, count in enumerate(line))
        accuracy = "–" if np.isnan(share) else f"{100 * share:.1f}"
        rows.append(f'<tr><th scope="row">{i + first}</th>{cells}<td class="accuracy">{accuracy}</td></tr>')
    heads = "".join(f'<th scope="col">{j + first}</th>' for j in range(k))
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Counts of answers"><table class="matrix">'
        "<caption>rows: label; columns: answer; last column: accuracy of the class in percent</caption>"
        f'<thead><tr><td></td>{heads}<th scope="col">%</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _cell(right: bool, count: int, of_class: int, most: int) -> str:
    """Return a table cell, whose color shows the size of its count.

    The color of a right count shows its share of the class. The color of a wrong count compares it with the largest
    wrong count of the matrix.
    """
    if count == 0:
        return '<td class="zero">0</td>'
    share = 0.5 * count / of_class if right else 0.12 + 0.48 * count / most
    return f'<td class="{"right" if right else "wrong"}" style="--share: {share:.2f}">{count}</td>'


def mistakes(facts: RunFacts) -> str:
    """Return up to 60 misread images, the most confident mistakes first."""
    if facts.examined is None or not len(facts.examined.assessment.mistakes):
        return ""
    assessment, images = facts.examined.assessment, facts.examined.images
    shown, clickable = assessment.mistakes[:MOST_EXAMPLES], not why_no_drawing(facts.network)
    items = []
    for place, k in enumerate(shown.tolist()):
        answer = int(assessment.answers[k])
        label, read = class_name(facts, int(assessment.labels[k])), class_name(facts, answer)
        activation = f"{float(assessment.outputs[k, answer]):.2f}" if answer >= 0 else "NaN"
        height, width = images.shape[1:]
        content = (
            f'<img class="ink" src="{ink_url(images[k])}" width="{width}" height="{height}" '
            f'alt="{label} read as {read}">'
            f'<span class="caption"><span aria-hidden="true">{label} → {read}</span><br>'
            f'<span class="soft">{activation}</span></span>'
        )
        button = f'<button type="button" data-example="{place}">{content}</button>' if clickable else content
        items.append(f"<li>{button}</li>")
    total = len(assessment.mistakes)
    which = f"All {total:,}" if total == len(shown) else f"The {len(shown)} most confident of {total:,}"
    more = " Press an image to see the network's activations." if clickable else ""
    return section(
        "mistakes",
        f"Misread {thing(facts)}s",
        f"<p>{which}: label → answer, and the activation of the answer.{more}</p>"
        f'<ul class="gallery">{"".join(items)}</ul>',
    )
