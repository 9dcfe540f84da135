"""All cases, and their choice by name or family."""

from collections.abc import Iterable

from benchmarks import gradcheck, nielsen
from benchmarks.case import Case
from benchmarks.minimize import batch, evaluations, steps
from benchmarks.minimize.classical import logistic, table
from benchmarks.pictures import reading
from benchmarks.training import memory, sweep, timing

CASES: tuple[Case, ...] = (
    *timing.CASES, *steps.CASES, *batch.CASES, *evaluations.CASES, *table.CASES, *logistic.CASES, *gradcheck.CASES,
    *nielsen.CASES, *memory.CASES, *sweep.CASES, *reading.CASES,
)  # fmt: skip
FAMILIES = tuple(dict.fromkeys(case.family for case in CASES))


class UnknownCaseError(Exception):
    """A name that is neither a case nor a family."""


def chosen(names: Iterable[str]) -> list[Case]:
    """Return the cases of these names and families, each once, in the order of the names."""
    cases: dict[str, Case] = {}
    for name in names:
        matches = [case for case in CASES if name in (case.name, case.family)]
        if not matches:
            raise UnknownCaseError(
                f"run: expected names of cases or families, got {name!r}.\n"
                f"Families: {', '.join(FAMILIES)}. `python -m benchmarks list` prints the cases."
            )
        cases |= {case.name: case for case in matches}
    return list(cases.values())
