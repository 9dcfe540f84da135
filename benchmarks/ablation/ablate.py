"""Replay the recorded checks with another value of a constant, or without a part of the checker."""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.ablation.parts import CONSTANTS, PARTS, Constant, Part, Patch, everywhere
from benchmarks.ablation.record import Outcome, Record, Stage, outcome_of, patched
from jaxgd.gradcheck import constants, locate, patterns
from jaxgd.gradcheck.derive import Derivative
from jaxgd.gradcheck.examine import Examination
from jaxgd.gradcheck.report import Check, GradientReport

Row = dict[str, Any]
_search = Examination._search


def _no_search(*args: Any) -> locate.ElementSearch:
    empty: Any = np.zeros(0)
    return locate.ElementSearch(np.zeros(0, int), empty, empty, empty, np.zeros(0, bool))


def _known_search(self: Examination, claim: Derivative, i: int, checks: dict[str, Check]) -> locate.ElementSearch:
    """Return the recorded search of single elements. If none is recorded, search now if the claim has gradients."""
    search = _search if claim.gradients else _no_search
    recorded: Any = self.sampler
    return recorded.searches.get((claim.name, i)) or search(self, claim, i, checks)


# A replay cannot evaluate f. These patches replace the functions that evaluate f or only add details to the report.
REPLAY: tuple[Patch, ...] = (
    (Examination, "_search", _known_search),
    (Examination, "_taylor", lambda *x: math.nan),
    (Examination, "_ignores_cotangent", lambda *x: ""),
    (locate, "against_quotients", _no_search),
    (patterns, "pattern", lambda *x: ""),
    (patterns, "exchanged", lambda *x: {}),
)


def _again(stage: Stage, report: GradientReport) -> GradientReport:
    """Run the examination again, and return the report with the new checks."""
    exam = dataclasses.replace(stage.exam, lines=dict(stage.exam.lines), slopes={}, unfinished=set())
    for claim, own in stage.floors:
        claim.floor = max(exam.d.floor, own)
    leaves = (
        dataclasses.replace(x, checks=(*x.checks, *later)) for x, later in zip(exam.run(), stage.checks, strict=True)
    )
    return dataclasses.replace(report, leaves=tuple(leaves))


def replayed(record: Record, without: str = "") -> Outcome:
    """Return the verdict and its cause after a replay. Leave out the checks whose names match `without`."""
    report = record.report
    if report is None:
        return record.outcome
    second = report.second_order
    if record.stages:
        report = _again(record.stages[0], report)
    if second is not None and len(record.stages) > 1:
        report = dataclasses.replace(report, second_order=_again(record.stages[1], second))
    return outcome_of(report, without)


def without(part: Part, record: Record) -> Outcome:
    """Return the outcome of a check without a part. The patches of the part must be active."""
    if part.decides is not None:
        return record.reruns.get(part.name, record.outcome)
    if part.change is not None:
        record = copy.deepcopy(record)
        for stage in record.stages:
            part.change(stage.exam)
    return replayed(record, part.without)


def changes(records: Sequence[Record], base: Sequence[Outcome], outcomes: Sequence[Outcome]) -> Row:
    """Return the cases whose outcome changes, and the cases that fail. A case fails if its grade gets worse."""
    row: Row = {"changed": {}, "failed": {}}
    for record, old, new in zip(records, base, outcomes, strict=True):
        name, words = f"{record.part}: {record.name}", f"{': '.join(old)} → {': '.join(new)}"
        if old != new:
            row["changed"][name] = words
        if record.grade(new) > record.grade(old):
            row["failed"][name] = words
    return row


def ablate_constant(records: Sequence[Record], base: Sequence[Outcome], constant: Constant) -> Row:
    """Return the nearest smaller and the nearest larger value with which a case fails, and the cases that fail."""
    name, *sides = constant
    row: Row = {"constant": name, "value": getattr(constants, name)}
    for side, values in zip(("down", "up"), sides, strict=True):
        row[side] = {"tried": list(values)}
        for value in values:
            with patched((*REPLAY, *everywhere(name, value))):
                failed = changes(records, base, [replayed(record) for record in records])["failed"]
            if failed:
                row[side] |= {"value": value, "failed": failed}
                break
    return row


def ablate_part(records: Sequence[Record], base: Sequence[Outcome], part: Part) -> Row:
    """Return the cases whose outcome changes without a part, and the cases that fail without it."""
    with patched((*REPLAY, *part.patches)):
        outcomes = [without(part, record) for record in records]
    return {"part": part.name, **changes(records, base, outcomes)}


def unexpected(records: Sequence[Record]) -> None:
    """Print the cases with an unexpected verdict or cause."""
    for record in records:
        if record.grade(record.outcome):
            expected = " or ".join(record.expected) + (f": {record.cause}" if record.cause else "")
            print(f"{record.part}: {record.name}: {': '.join(filter(None, record.outcome))}, expected {expected}")
    good = sum(not record.grade(record.outcome) for record in records)
    print(f"{good} of {len(records)} checks are as expected")


def ablate(records: Sequence[Record]) -> list[Row]:
    """Change each of CONSTANTS, remove each of PARTS, print the cases that fail or change, and return the rows."""
    with patched(REPLAY):
        base = [replayed(record) for record in records]
    others = [f"{x.part}: {x.name}" for x, outcome in zip(records, base, strict=True) if outcome != x.outcome]
    counts = {part: sum(x.part == part for x in records) for part in dict.fromkeys(x.part for x in records)}
    rows: list[Row] = [{"checks": counts, "replays that differ": others}]
    print(f"{len(records) - len(others)} of {len(records)} replays give the recorded verdict and cause")
    print("".join(f"  differs: {name}\n" for name in others))
    print(f"{'constant':18}{'value':>9}        nearest value with which a case fails")
    for constant in CONSTANTS:
        rows.append(row := ablate_constant(records, base, constant))
        for side in ("down", "up"):
            print(f"{row['constant']:18}{row['value']:>9}  {side:4}  {_nearest(row, side)}", flush=True)
    print(f"\n{'without':44}{'changed':>8}{'failed':>8}  cases that fail, or that change if none fails")
    for part in PARTS:
        rows.append(row := ablate_part(records, base, part))
        names = list(row["failed"] or row["changed"])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        words = "; ".join(names[:3]) + more
        print(f"{row['part']:44}{len(row['changed']):8}{len(row['failed']):8}  {words}", flush=True)
    return rows


def _nearest(row: Row, side: str) -> str:
    found = row[side]
    if "value" in found:
        names = list(found["failed"])
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return f"{found['value']:.3g} (× {found['value'] / row['value']:.3g}): {names[0]}{more}"
    return f"tried as far as {found['tried'][-1]:.3g}: no case fails" if found["tried"] else "not tried"
