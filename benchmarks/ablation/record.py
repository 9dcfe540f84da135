"""Check every case once, and record the numbers that its verdict depends on."""

import contextlib
import dataclasses
import pickle
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jax
import numpy as np

import jaxgd
from benchmarks.ablation.parts import PARTS, Patch
from benchmarks.corpus.adversarial import ADVERSARIAL
from benchmarks.corpus.case import Case
from benchmarks.corpus.fresh_right import FRESH_RIGHT
from benchmarks.corpus.fresh_wrong import FRESH_WRONG
from benchmarks.gradcheck import CORPUS, FUNCTIONS_AT_ONCE, Digits, functions_of
from jaxgd.gradcheck import constants, quotients
from jaxgd.gradcheck.clock import Clock
from jaxgd.gradcheck.derive import Derivative
from jaxgd.gradcheck.examine import Examination
from jaxgd.gradcheck.locate import ElementSearch
from jaxgd.gradcheck.report import Check, GradientReport, LeafReport
from jaxgd.gradcheck.sample import Sampler

TABLES = {**CORPUS, "adversarial": ADVERSARIAL, "fresh-right": FRESH_RIGHT, "fresh-wrong": FRESH_WRONG}
NETWORKS = tuple(f"network-{x}" for x in ("right", "random", "random-claimed", "trained", "trained-claimed"))
# The verdict and its cause. After an exception, the name of the exception and "".
Outcome = tuple[str, str]


@dataclasses.dataclass
class Recorded:
    """Recorded evaluations of f. A replay uses them in place of the sampler."""

    long: dict[int, quotients.Lines]
    searches: dict[tuple[str, int], ElementSearch]
    coarse: bool
    narrowest: str
    iterates: bool
    ignored: set[int]

    def lines(self, leaves: Sequence[int], n: int, h: quotients.Floats) -> dict[int, quotients.Lines]:
        """Return F at the first RUNGS steps of the long ladder. An ablation changes RUNGS."""
        return {i: _part(self.long[i], slice(constants.RUNGS)) for i in leaves}


@dataclasses.dataclass
class Stage:
    """The examination of the first derivatives or of the second derivatives.

    Attributes:
        exam: The examination, with recorded evaluations.
        floors: Each claim with its floor, or with 0 if its floor is the common one.
        checks: For each leaf, the checks that were added after the examination.
    """

    exam: Examination
    floors: list[tuple[Derivative, float]]
    checks: list[tuple[Check, ...]]


@dataclasses.dataclass
class Record:
    """The check of one case at one seed and in one dtype.

    Attributes:
        part: The part of the corpus.
        name: The name of the case, the dtype if it is not float32, and the seed if it is not 0.
        expected: The allowed verdicts.
        cause: The expected cause of "cannot tell". Empty if any cause is allowed.
        outcome: The outcome of the check.
        report: The report, or None after an exception.
        stages: One stage for the first derivatives, and one for the second derivatives if they were checked.
        reruns: The outcomes of the checks that were repeated without a part, by the name of the part.
    """

    part: str
    name: str
    expected: tuple[str, ...]
    cause: str
    outcome: Outcome
    report: GradientReport | None
    stages: list[Stage]
    reruns: dict[str, Outcome] = dataclasses.field(default_factory=dict)

    def grade(self, outcome: Outcome) -> int:
        """Return the grade of an outcome, from 0 (best) to 2.

        The grade is 0 for an expected verdict with the expected cause. It is 1 for an unexpected "cannot tell" or an
        unexpected cause. It is 2 for any other outcome.
        """
        verdict, cause = outcome
        if verdict in self.expected:
            return int(verdict == "cannot tell" and self.cause not in ("", cause))
        return 1 if verdict == "cannot tell" else 2


@contextlib.contextmanager
def patched(patches: Sequence[Patch]) -> Iterator[None]:
    """Replace attributes during a `with` block."""
    with contextlib.ExitStack() as stack:
        for place, name, value in patches:
            stack.enter_context(mock.patch.object(place, name, value))
        yield


def outcome_of(report: GradientReport, without: str = "") -> Outcome:
    """Return the verdict of a report and its cause. Leave out the checks whose names match `without`."""
    report = _without(report, re.compile(without)) if without else report
    return str(report.verdict), str(report.cause)


def _without(report: GradientReport, name: re.Pattern[str]) -> GradientReport:
    leaves = [
        dataclasses.replace(x, checks=tuple(c for c in x.checks if not name.search(c.name))) for x in report.leaves
    ]
    second = report.second_order
    return dataclasses.replace(
        report,
        leaves=tuple(leaves),
        consistency=tuple(c for c in report.consistency if not name.search(c.name)),
        findings=() if name.search("findings") else report.findings,
        second_order=None if second is None else _without(second, name),
    )


def checked(case: Case, dtype: str, seed: int, without: str = "") -> tuple[Outcome, GradientReport | None]:
    """Check a case, and return the outcome and the report."""
    try:
        with jax.enable_x64(dtype == "float64"), case.configured():
            args = case.draw(np.random.default_rng(seed), dtype)
            report = jaxgd.check_gradients(case.f, *args, **case.keywords(), seed=seed)
    except Exception as error:
        return (type(error).__name__, ""), None
    return outcome_of(report, without), report


def recorded(part: str, case: Case, dtype: str, seed: int) -> Record:
    """Check a case, and return the record.

    Some parts cannot be removed by a replay. If such a part may have changed the report, check again without it.
    """
    stages: list[tuple[Examination, tuple[LeafReport, ...]]] = []
    name = f"{case.name}{'' if dtype == 'float32' else ', ' + dtype}{f', seed {seed}' if seed else ''}"
    with _recording(stages):
        outcome, report = checked(case, dtype, seed)
    record = Record(part, name, case.expected, case.cause, outcome, report, [])
    if report is None:
        return record
    reports = [report] if report.second_order is None else [report, report.second_order]
    for (exam, leaves), whole in zip(stages, reports, strict=False):
        d = exam.d
        floors = [(x, x.floor if x.floor > d.floor else 0.0) for x in (*d.claims, d.reverse, d.forward) if x]
        later = [y.checks[len(x.checks) :] for x, y in zip(leaves, whole.leaves, strict=True)]
        record.stages.append(Stage(exam, floors, later))
    for row in PARTS:
        if row.decides and row.decides(reports, [stage.exam for stage in record.stages]):
            with patched(row.patches):
                record.reruns[row.name], _ = checked(case, dtype, seed, row.without)
    return record


@contextlib.contextmanager
def _recording(stages: list[tuple[Examination, tuple[LeafReport, ...]]]) -> Iterator[None]:
    """Record every examination in `stages`. Evaluate F once, at the steps of both ladders and along every direction."""
    run, search, evaluate = Examination.run, Examination._search, Sampler.lines

    long: dict[int, quotients.Lines] = {}
    searches: dict[tuple[str, int], ElementSearch] = {}

    def lines(self: Sampler, leaves: Sequence[int], n: int, h: quotients.Floats) -> dict[int, quotients.Lines]:
        if len(h) == constants.RUNGS:
            return {i: long[i] for i in leaves}
        both = evaluate(self, leaves, len(self.shared.directions[0]) - 1, np.concatenate([h, quotients.ladder()]))
        long.clear()
        long.update({i: _part(x, slice(len(h), None)) for i, x in both.items()})
        return {i: _part(x, slice(len(h)), slice(n)) for i, x in both.items()}

    def recorded_search(self: Examination, claim: Derivative, i: int, checks: dict[str, Check]) -> ElementSearch:
        searches[claim.name, i] = search(self, claim, i, checks)
        return searches[claim.name, i]

    def recorded_run(self: Examination) -> tuple[LeafReport, ...]:
        x, short = self.sampler, dict(self.lines)
        searches.clear()
        leaves = run(self)
        known = Recorded(dict(long), dict(searches), x.coarse, x.narrowest, x.iterates, x.ignored)
        stages.append((_plain(self, known, short), leaves))
        return leaves

    replaced = (Sampler, "lines", lines), (Examination, "_search", recorded_search), (Examination, "run", recorded_run)
    with patched(replaced):
        yield


def _part(lines: quotients.Lines, steps: slice, directions: slice = slice(None)) -> quotients.Lines:
    """Return F at some steps along some directions."""
    return lines._replace(
        h=lines.h[steps],
        **{name: getattr(lines, name)[directions, steps] for name in ("plus", "minus")},
        **{name: getattr(lines, name)[directions] for name in ("zero", "size")},
    )


def _plain(exam: Examination, known: Recorded, short: dict[int, quotients.Lines]) -> Examination:
    """Return an examination that pickle can save. It has no functions, and only the arrays that a replay reads."""
    for x in (*exam.d.claims, exam.d.reverse, exam.d.forward):
        if x is not None:
            x.program = None
    prepared: Any = SimpleNamespace(
        v=[np.zeros(0, x.dtype) for x in exam.d.prepared.v],
        leaves=[dataclasses.replace(leaf, path=()) for leaf in exam.d.prepared.leaves],
    )
    # A replay reads only the number of directions and the last direction.
    shared: Any = SimpleNamespace(directions=[[None] * (len(x) - 1) + [x[-1]] for x in exam.d.shared.directions])
    nothing: Any = None
    d = dataclasses.replace(exam.d, prepared=prepared, shared=shared, runner=nothing, outputs=[], notes=[])
    misfits = [dataclasses.replace(x, reverse=None, forward=None, values=()) for x in exam.misfits]
    sampler: Any = known
    return Examination(d, sampler, misfits, exam.rtol, exam.rng, short, Clock(None))


def records(
    parts: Sequence[str], dtypes: Sequence[str], seeds: int, cache: Path, data_dir: Path | None
) -> list[Record]:
    """Return the records of parts of the corpus. Read them from `cache`, and make the files that are missing there."""
    found, digits = [], Digits(data_dir)
    cache.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for dtype in dtypes:
            for seed in range(seeds):
                path = cache / f"{part}-{dtype}-{seed}.pickle"
                if not path.exists():
                    some = []
                    cases = TABLES[part] if part in TABLES else functions_of(part, digits)
                    for i, case in enumerate(cases):
                        if i % FUNCTIONS_AT_ONCE == 0:
                            jax.clear_caches()  # type: ignore[no-untyped-call]
                        print(f"\r{path.stem}: {i + 1} of {len(cases)} ", end="", file=sys.stderr, flush=True)
                        some.append(recorded(part, case, dtype, seed))
                    print(file=sys.stderr)
                    path.write_bytes(pickle.dumps(some))
                found += pickle.loads(path.read_bytes())
    return found
