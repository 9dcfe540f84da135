"""The report as one screen of text."""

import math
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxgd.gradcheck.report import Check, Element, GradientReport, LeafReport

# The largest number of leaves in the table. A line below the table counts the other leaves.
_ROWS = 16
_WORST = 5
_WIDTH = 100


def render(report: "GradientReport", outermost: bool = True) -> str:
    """Return the report as text.

    It gives the verdict, up to five findings, a table of the leaves, details of up to four leaves whose verdict is not
    "right", the extent of the check, and the report on the second order if there is one.
    """
    title = f"check_gradients({report.name})" if outermost else f"second order, {report.name}"
    lines = [f"{title}: {report.verdict}", ""]
    lines += [f"  {finding}" for finding in report.findings[:_WORST]]
    if len(report.findings) > _WORST:
        lines.append(f"  … and {len(report.findings) - _WORST} more like these")
    lines += [""] if report.findings else []
    lines += _table(report)
    troubled = [leaf for leaf in report.leaves if leaf.verdict != "right"]
    for leaf in troubled[:4]:
        lines += ["", *_details(leaf)]
    if len(troubled) > 4:
        lines += ["", f"  … and {len(troubled) - 4} more leaves: {', '.join(leaf.name for leaf in troubled[4:12])}"]
    lines += [""]
    lines += _labeled("rests on", _grounds(report))
    lines += _labeled("consistency", [_consistency(report)] if report.consistency else [])
    lines += _labeled("precision", report.precision)
    lines += _labeled("checked", [report.checked])
    lines += _labeled("not checked", report.not_checked)
    text = "\n".join(line.rstrip() for line in lines)
    if report.second_order is not None:
        text += "\n\n" + render(report.second_order, outermost=False)
    return text


def _table(report: "GradientReport") -> list[str]:
    names = list(dict.fromkeys(check.name for leaf in report.leaves for check in leaf.checks))
    # The name of each comparison takes two lines, because four names side by side are too wide for the screen.
    heads = [name.split(" = ") if " = " in name else ("", name) for name in names]
    rows = [
        ["", "", *(first for first, _ in heads), "", ""],
        ["leaf", "shape", *(f"= {last}" if first else last for first, last in heads), "slope", "verdict"],
    ]
    # A table that is too long omits leaves with the verdict "right" first. It keeps the order of the arguments.
    by_verdict = sorted(range(len(report.leaves)), key=lambda i: report.leaves[i].verdict == "right")
    shown, hidden = sorted(by_verdict[:_ROWS]), by_verdict[_ROWS:]
    for i in shown:
        leaf = report.leaves[i]
        checks = {check.name: check for check in leaf.checks}
        shape = f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
        slope = "" if math.isnan(leaf.slope) else f"{leaf.slope:.1f}"
        rows.append([leaf.name, shape, *(_cell(checks.get(name)) for name in names), slope, str(leaf.verdict)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    if hidden:
        right = ", all right" if all(report.leaves[i].verdict == "right" for i in hidden) else ""
        lines.append(f"  … and {len(hidden)} more leaves{right}")
    return lines


def _cell(check: "Check | None") -> str:
    if check is None:
        return "–"
    number = f"{check.error:.0e}" if math.isfinite(check.error) else ""
    if check.verdict == "right":
        return number or "ok"
    return " ".join(filter(None, ("WRONG" if check.verdict == "wrong" else "?", number)))


def _details(leaf: "LeafReport") -> list[str]:
    lines = [
        f"  {leaf.name} {line}" if i == 0 else f"    {line}" for i, line in enumerate(leaf.explanation.split("\n"))
    ]
    if leaf.worst and leaf.verdict == "wrong":
        rows = [("element", "claimed", "reference", "ratio")]
        rows += [_element(leaf.name, element) for element in leaf.worst[:_WORST]]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines += ["    " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
        if leaf.searched < leaf.size:
            lines.append(f"    {leaf.searched} of {leaf.size} elements were searched")
    return lines


def _element(name: str, element: "Element") -> tuple[str, str, str, str]:
    index = f"[{', '.join(map(str, element.index))}]" if element.index else ""
    return name + index, _number(element.claimed), _number(element.reference), _number(element.ratio)


def _number(x: float | complex, digits: int = 6) -> str:
    if isinstance(x, complex) and (x.imag or math.isnan(x.imag)):
        return f"{x:.{digits}g}"
    return f"{x.real + 0.0:.{digits}g}"


def _grounds(report: "GradientReport") -> list[str]:
    """Return the notes that support verdicts of "right", such as "x: the gradient is 0 here"."""
    notes: dict[str, list[str]] = {}
    for leaf in report.leaves:
        for note in {check.note for check in leaf.checks if check.note and leaf.verdict == "right"}:
            notes.setdefault(note, []).append(leaf.name)
    more = {note: f" and {len(names) - _WORST} more" if len(names) > _WORST else "" for note, names in notes.items()}
    return [f"{', '.join(names[:_WORST])}{more[note]}: {note}" for note, names in notes.items()]


def _consistency(report: "GradientReport") -> str:
    bad = [f"{c.name}: {c.cause}, {c.error:.1e} apart" for c in report.consistency if c.verdict != "right"]
    if bad:
        return "; ".join(bad)
    largest = max((c.error for c in report.consistency), default=0.0)
    how = "the same bits" if largest == 0 else f"within {largest:.0e}"
    return f"{', '.join(c.name for c in report.consistency)}: {how}"


def _labeled(label: str, lines: "list[str] | tuple[str, ...]") -> list[str]:
    wrapped = [part for line in lines for part in textwrap.wrap(line, _WIDTH - 17)]
    return [f"  {label + ':' if i == 0 else '':13} {line}" for i, line in enumerate(wrapped)]
