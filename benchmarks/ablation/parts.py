"""The constants and the optional parts of the gradient checker. A new one is one row."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from jaxgd.gradcheck import check, core, derive, examine, locate
from jaxgd.gradcheck.derive import EVEN
from jaxgd.gradcheck.examine import Examination
from jaxgd.gradcheck.report import Cause, GradientReport, Verdict

# A module or class, the name of an attribute, and another value for it.
Patch = tuple[Any, str, Any]


class Constant(NamedTuple):
    """A constant, and other values for it: smaller ones from the nearest on, and larger ones."""

    place: Any
    name: str
    down: tuple[float, ...] = ()
    up: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        return float(getattr(self.place, self.name))


def _scaled(place: Any, name: str) -> Constant:
    down, up = (0.5, 0.33, 0.2, 0.1), (2, 3, 5, 10)
    value = getattr(place, name)
    return Constant(place, name, tuple(x * value for x in down), tuple(x * value for x in up))


# The recorded steps fix RATIO and SHORT, and EPS and EPS32 are facts.
_FIXED = {"RATIO", "EPS", "EPS32"}
_OTHERS = {
    "STEEPEST": ((0.9, 0.8, 0.65, 0.5, 0.3), (0.97, 0.99, 1.0, 1.1)),
    "ORDERS": ((2, 1), (4, 5)),
    "RUNGS": ((17, 16, 15, 14, 12, 10, 8), ()),
    "STAIRS": ((3, 2, 1), (5, 6, 8, 10)),
}
CONSTANTS = (
    *(
        Constant(core, name, *_OTHERS[name]) if name in _OTHERS else _scaled(core, name)
        for name, value in vars(core).items()
        if name.isupper() and isinstance(value, int | float) and name not in _FIXED
    ),
    _scaled(examine, "_SUSPICIOUS"),
    _scaled(examine, "_ROUNDED"),
)


class Part(NamedTuple):
    """An optional part, and how to remove it.

    Attributes:
        name: The name in the table.
        patches: Attributes to replace.
        without: A pattern of the names of checks to drop from the report.
        change: A function that changes a recorded examination, or None.
        decides: None if a replay can remove the part. Otherwise a function of the reports and the examinations that
            returns True if the part matters to them, so that the case must be checked again.
    """

    name: str
    patches: tuple[Patch, ...] = ()
    without: str = ""
    change: Callable[[Examination], None] | None = None
    decides: Callable[[Sequence[GradientReport], Sequence[Examination]], bool] | None = None


_slopes, _resolution, __judge, _combine = core.slopes, core._resolution, core._judge, core.combine


def _slopes_without_gap(lines: core.Lines, noise: float = 0.0) -> core.Slopes:
    with mock.patch.object(core, "SMALL_GAP", 1e100):
        return _slopes(lines, noise)


def _judge_with(**fields: Any) -> Patch:
    """Replace fields of the slopes before a claim is judged, each by one value for all lines."""

    def judge(claim: core.Claim, found: core.Slopes, i: int, *others: Any) -> core.Judgment:
        changed = {name: np.full(len(found.value), value) for name, value in fields.items()}
        return __judge(claim, dataclasses.replace(found, **changed), i, *others)

    return core, "_judge", judge


def _combine_without_rough(each: list[core.Judgment]) -> core.Judgment:
    return _combine([j._replace(cause=Cause.NOISE) if j.cause is Cause.ROUGH else j for j in each])


def _all_directions(each: list[core.Judgment]) -> core.Judgment:
    unknown = [j for j in each if j.verdict is Verdict.CANNOT_TELL]
    judgment = _combine(each)
    return unknown[0] if unknown and judgment.verdict is Verdict.RIGHT else judgment


def _one_direction(each: list[core.Judgment]) -> core.Judgment:
    judgment = _combine(each)
    right = [j for j in each if j.verdict is Verdict.RIGHT]
    open_question = judgment.verdict is Verdict.CANNOT_TELL and judgment.cause not in (Cause.ROUGH, *core.SINGULAR)
    return right[0] if right and open_question else judgment


def _drop_even(exam: Examination) -> None:
    """Drop the direction of small elements."""
    for i in exam.d.even:
        for lines in (exam.lines, exam.sampler.long):  # type: ignore[attr-defined]
            kept = {name: np.delete(getattr(lines[i], name), EVEN, 0) for name in ("plus", "minus", "zero", "size")}
            lines[i] = lines[i]._replace(**kept)
        for claim in (*exam.d.claims, exam.d.reverse, exam.d.forward):
            for x in () if claim is None else (claim.along, claim.size, claim.noise):
                x[i] = np.append(np.delete(x[i], EVEN), x[i, 0])
    exam.d.even.clear()


def _as_float64(exam: Examination) -> None:
    """Forget that f computes in a narrow dtype."""
    exam.sampler.coarse = False  # type: ignore[misc]
    for lines in (exam.lines, exam.sampler.long):  # type: ignore[attr-defined]
        lines |= {i: x._replace(narrow=core.EPS) for i, x in lines.items()}


def _consistency(name: str) -> Part:
    """Return the part that compares two ways to run f."""
    run, rule = check.run_in_users_dtype, check._value_of_the_rule

    def agreed(*args: Any) -> Any:
        found = run(*args)
        lines = [dataclasses.replace(c, verdict=Verdict.RIGHT) if c.name == name else c for c in found.consistency]
        return dataclasses.replace(found, consistency=lines)

    def decides(reports: Sequence[GradientReport], exams: Sequence[Examination]) -> bool:
        return any(c.name == name and c.verdict is not Verdict.RIGHT for x in reports for c in x.consistency)

    return Part(name, ((check, "run_in_users_dtype", agreed),), f"^{name}$", decides=decides)


def _none(*args: Any) -> None:
    return None


PARTS = (
    # The core.
    Part("structure", ((core, "_structure", lambda h, first, *others: np.zeros(len(first))),)),
    Part("resolution of a still F", ((core, "_resolution", lambda *x: (np.zeros_like(_resolution(*x)[0]), _resolution(*x)[1])),)),
    Part("resolution of a coarse F", ((core, "_resolution", lambda *x: (_resolution(*x)[0], np.zeros_like(_resolution(*x)[1]))),)),
    Part("jumps and infinite slopes", ((core, "_broken", lambda *x: Cause.AGREES),)),
    Part("gap test", ((core, "slopes", _slopes_without_gap),)),
    Part("a small kink explains the difference", (_judge_with(gap=0.0),)),
    Part("gap test and small kinks", ((core, "slopes", _slopes_without_gap), _judge_with(gap=0.0))),
    Part("a claim of 0 where F is still", (_judge_with(still=False),)),
    Part("a claim of 0 where the slope is negligible", ((core, "NEGLIGIBLE", -math.inf),)),
    Part("F that varies within the smallest step", ((core, "combine", _combine_without_rough),)),
    Part("two directions suffice: all must be right", ((core, "combine", _all_directions),)),
    Part("two directions suffice: one suffices", ((core, "combine", _one_direction),)),
    Part("outside the kink", ((core, "outside_the_kink", lambda *x: False),)),
    Part("the direction of small elements", change=_drop_even),
    Part("the narrowest dtype in f", change=_as_float64),
    Part("four roundings of float32 agree", ((derive.Derivatives, "floor", property(lambda self: max(core.FLOOR, self.nondeterminism))),)),
    Part("the long ladder", ((Examination, "_settled", lambda *x: True),)),
    Part("the noise of a claim", ((core, "NOISES", 0.0),)),
    # The other comparisons.
    Part("linear in the cotangent", ((Examination, "_linear", _none),)),
    Part("claim = autodiff", ((Examination, "_autodiff", _none),)),
    Part("claim = autodiff in single elements", ((locate, "outliers", lambda *x: np.zeros(0, bool)),)),
    Part("forward = reverse", ((Examination, "_modes", _none),)),
    Part("search of suspicious leaves", ((Examination, "_suspicious", lambda *x: False),)),
    Part("verdict by single elements", ((Examination, "_after", lambda self, claim, i, check, direct, look: (check, direct)),)),
    Part("an iteration in f", ((core, "ITERATION", -math.inf),)),
    Part("a rule with an absolute error", ((derive, "_APPROXIMATE", 0.0),),
         decides=lambda reports, exams: any(x.approximate for exam in exams for x in exam.d.claims)),
    Part("autodiff in the user's dtype = float64", without=r"^[a-z0-9]+ = float64$|^in its own dtype$"),
    Part("claim in the user's dtype = float64", without=r" in \w+ = float64$"),
    Part("tree, shapes and dtypes of a claim", without="findings| fits$"),
    *map(_consistency, (
        *("second run", "eager = jit", "f = its value under jax.vjp", "jit = vmap", "autodiff's second run"),
        *("autodiff's jit = vmap", "⟨u, Hv⟩ = ⟨v, Hu⟩"),
    )),
)  # fmt: skip
