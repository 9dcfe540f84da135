"""Replay the recorded checks with other constants and without parts of the checker."""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.ablation.parts import CONSTANTS, PARTS, Patch
from benchmarks.ablation.record import Outcome, Record, Stage, outcome_of, patched
from jaxgd.gradcheck import locate
from jaxgd.gradcheck.derive import Derivative
from jaxgd.gradcheck.examine import Examination
from jaxgd.gradcheck.report import GradientReport

Row = dict[str, Any]


def _no_search(*args: Any) -> locate.Look:
    nothing: Any = np.zeros(0)
    return locate.Look(np.zeros(0, int), nothing, nothing, nothing, np.zeros(0, bool))


_look = Examination._look


def _recorded_look(self: Examination, claim: Derivative, i: int, quotients: Any) -> locate.Look:
    """Return the recorded search, otherwise a comparison with a right gradient, otherwise a search that finds nothing."""
    known: Any = self.sampler
    search = _look if claim.gradients else _no_search
    return known.looks.get((claim.name, i)) or search(self, claim, i, quotients)


# A replay makes no pictures of the error, and evaluates f nowhere else than at the recorded points.
REPLAY: tuple[Patch, ...] = (
    (Examination, "_look", _recorded_look),
    (Examination, "_taylor", lambda *x: math.nan),
    (Examination, "_forgets", lambda *x: ""),
    (locate, "against_quotients", _no_search),
    (locate, "pattern", lambda *x: ""),
    (locate, "exchanged", lambda *x: {}),
)


def _again(stage: Stage, report: GradientReport) -> GradientReport:
    """Return the report with the checks of a second run of the examination."""
    exam = stage.exam
    for claim, own in stage.floors:
        claim.floor = max(exam.d.floor, own)
    exam.slopes, exam.unfinished, short = {}, set(), exam.lines
    leaves = exam.run()
    exam.lines = short
    leaves = tuple(
        dataclasses.replace(x, checks=(*x.checks, *later)) for x, later in zip(leaves, stage.checks, strict=True)
    )
    return dataclasses.replace(report, leaves=leaves)


def replayed(record: Record, without: str = "") -> Outcome:
    """Return the verdict and cause that follow from the recorded numbers."""
    if record.report is None or not record.stages:
        return record.outcome if record.report is None else outcome_of(record.report, without)
    report = _again(record.stages[0], record.report)
    if report.second_order is not None and len(record.stages) > 1:
        report = dataclasses.replace(report, second_order=_again(record.stages[1], report.second_order))
    return outcome_of(report, without)


class Ablation:
    """The replays of a list of records.

    Attributes:
        records: The recorded checks.
        base: The outcome of each replay without a change.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        with patched(REPLAY):
            self.base = [replayed(record) for record in records]

    def same(self) -> Row:
        """Return the count of replays with the recorded verdict and cause, and the names of the others."""
        others = [r.name for r, outcome in zip(self.records, self.base, strict=True) if outcome != r.outcome]
        return {"replays": len(self.records), "as recorded": len(self.records) - len(others), "others": others}

    def constant(self, row: Any) -> Row:
        """Return the nearest smaller and larger value of a constant with which a case fails, and these cases."""
        out: Row = {"constant": row.name, "value": row.value}
        for side, values in (("down", row.down), ("up", row.up)):
            for value in values:
                with patched((*REPLAY, (row.place, row.name, value))):
                    outcomes = map(replayed, self.records)
                    failed = self._changes(outcomes)["failed"]
                if failed:
                    out |= {side: value, f"{side} factor": value / row.value, f"{side} failed": failed}
                    break
            else:
                out |= {side: None, f"{side} tried": values[-1] if values else None}
        return out

    def part(self, row: Any) -> Row:
        """Return the cases that change without a part, and those that fail."""

        def outcome(record: Record) -> Outcome:
            if row.decides is not None:
                return record.reruns.get(row.name, record.outcome)
            if row.change is not None:
                record = copy.deepcopy(record)
                for stage in record.stages:
                    row.change(stage.exam)
            return replayed(record, row.without)

        with patched((*REPLAY, *(() if row.decides else row.patches))):
            outcomes = list(map(outcome, self.records))
        return {"part": row.name, **self._changes(outcomes)}

    def _changes(self, outcomes: Any) -> Row:
        changed, failed = {}, {}
        for record, old, new in zip(self.records, self.base, outcomes, strict=True):
            words = f"{': '.join(old)} → {': '.join(new)}"
            if old != new:
                changed[f"{record.part}: {record.name}"] = words
            if record.grade(new) > record.grade(old):
                failed[f"{record.part}: {record.name}"] = words
        return {"changed": changed, "failed": failed}


def unexpected(records: Sequence[Record]) -> None:
    """Print the cases with an unexpected verdict or cause."""
    for record in records:
        if record.grade(record.outcome):
            expected = " or ".join(record.expected) + (f": {record.cause}" if record.cause else "")
            print(f"{record.part}: {record.name}: {': '.join(filter(None, record.outcome))}, expected {expected}")
    good = sum(not record.grade(record.outcome) for record in records)
    print(f"{good} of {len(records)} checks are as expected")


def ablate(records: Sequence[Record]) -> list[Row]:
    """Change every constant and remove every part, print a line for each, and return the rows."""
    found = Ablation(records)
    rows = [found.same()]
    print(f"{rows[0]['as recorded']} of {rows[0]['replays']} replays give the recorded verdict and cause")
    for name in rows[0]["others"]:
        print(f"  not: {name}")
    print(f"\n{'constant':18}{'value':>9}  nearest value with which a case fails")
    for constant in CONSTANTS:
        rows.append(found.constant(constant))
        print("\n".join(_lines_of_constant(rows[-1])), flush=True)
    print(f"\n{'without':46}{'changed':>8}{'failed':>8}  the first that fail, otherwise that change")
    for part in PARTS:
        rows.append(found.part(part))
        row = rows[-1]
        names = list(row["failed"] or row["changed"])[:3]
        print(f"{row['part']:46}{len(row['changed']):8}{len(row['failed']):8}  {'; '.join(names)}", flush=True)
    return rows


def _lines_of_constant(row: Row) -> list[str]:
    lines = []
    for side in ("down", "up"):
        if row[side] is not None:
            failed = row[f"{side} failed"]
            words = f"{row[side]:.3g} (× {row[f'{side} factor']:.3g}): {len(failed)}, {next(iter(failed))}"
        elif row[f"{side} tried"] is None:
            continue
        else:
            words = f"none up to {row[f'{side} tried']:.3g}"
        lines.append(
            f"{row['constant'] if not lines else '':18}{row['value'] if not lines else '':>9}  {side:5}{words}"
        )
    return lines
