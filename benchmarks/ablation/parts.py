"""The constants and the optional parts of the gradient checker, and how to change them.

To add a part, add a row to `PARTS`.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from jaxgd.gradcheck import check, consistency, constants, core, derive, locate, quotients
from jaxgd.gradcheck.derive import EVEN
from jaxgd.gradcheck.examine import Examination
from jaxgd.gradcheck.report import GradientReport
from jaxgd.gradcheck.verdicts import Cause, Verdict

# A module or class, the name of an attribute, and another value for it.
Patch = tuple[object, str, object]


class Constant(NamedTuple):
    """A constant, and the smaller and larger values to try instead, the nearest first."""

    name: str
    down: tuple[float, ...]
    up: tuple[float, ...]


_FACTORS = (0.5, 0.33, 0.2, 0.1), (2, 3, 5, 10)
# No ablation changes these: RATIO is the ratio of the recorded steps, and EPS and EPS32 are properties of dtypes.
_FIXED = {"RATIO", "EPS", "EPS32"}
_RANGES = {
    "STEEPEST": ((0.9, 0.8, 0.65, 0.5, 0.3), (0.97, 0.99, 1.0, 1.1)),
    "ORDERS": ((2, 1), (4, 5)),
    "NEARBY": ((2.0**16, 2.0**14, 2.0**12, 2.0**10), (2.0**20, 2.0**22, 2.0**24, 2.0**34)),
    "RUNGS": ((17, 16, 15, 14, 12, 10, 8), ()),
    "STAIRS": ((3, 2, 1), (5, 6, 8, 10)),
}
CONSTANTS = tuple(
    Constant(name, *_RANGES.get(name, [tuple(x * value for x in side) for side in _FACTORS]))
    for name, value in vars(constants).items()
    if name.isupper() and isinstance(value, int | float) and name not in _FIXED
)


def everywhere(name: str, value: float) -> tuple[Patch, ...]:
    """Return the patches that replace a constant in every module that has it."""
    return tuple((module, name, value) for module in (constants, quotients, core) if hasattr(module, name))


class Part(NamedTuple):
    """An optional part of the gradient checker, and how to remove it.

    Attributes:
        name: The name in the table.
        patches: Attributes to replace.
        without: A regular expression. Checks with a matching name are dropped from the report. Empty to drop none.
        change: A function that changes a recorded examination, or None.
        decides: None if a replay, which does not evaluate f again, can remove the part. Otherwise a function of the
            reports and the examinations. It returns True if the part may have changed them. The case is then checked
            again without the part.
    """

    name: str
    patches: tuple[Patch, ...] = ()
    without: str = ""
    change: Callable[[Examination], None] | None = None
    decides: Callable[[Sequence[GradientReport], Sequence[Examination]], bool] | None = None


_slopes, _resolution, _judged, _combine = quotients.slopes, quotients._resolution, core._judge, core.combine


def _half(kept: int) -> tuple[Patch, ...]:
    """Return the patch that keeps one result of `_resolution`, and sets the other result to 0."""

    def resolution(*args: Any) -> list[Any]:
        return [x if i == kept else np.zeros_like(x) for i, x in enumerate(_resolution(*args))]

    return ((quotients, "_resolution", resolution),)


def _slopes_without_gap(lines: quotients.Lines, noise: float = 0.0) -> quotients.Slopes:
    with mock.patch.object(quotients, "SMALL_GAP", 1e100):
        return _slopes(lines, noise)


def _slopes_without_variation(lines: quotients.Lines, noise: float = 0.0) -> quotients.Slopes:
    slopes = _slopes(lines, noise)
    return dataclasses.replace(slopes, varies=np.zeros_like(slopes.varies))


def _judge_with(**fields: Any) -> Patch:
    """Return the patch that sets fields of the slopes before every judgment. All lines get the same value."""

    def judge(claim: core.Claim, slopes: quotients.Slopes, *others: Any) -> core.Judgment:
        changed: dict[str, Any] = {name: np.full(len(slopes.value), value) for name, value in fields.items()}
        return _judged(claim, dataclasses.replace(slopes, **changed), *others)

    return core, "_judge", judge


def _combine_without_rough(each: list[core.Judgment]) -> core.Judgment:
    return _combine([j._replace(cause=Cause.NOISE) if j.cause is Cause.ROUGH else j for j in each])


def _all_directions(each: list[core.Judgment]) -> core.Judgment:
    """Combine the judgments. The result is right only if the judgments along all lines are right."""
    judgment = _combine(each)
    unknown = [j for j in each if j.verdict is Verdict.CANNOT_TELL]
    return unknown[0] if unknown and judgment.verdict is Verdict.RIGHT else judgment


def _one_direction(each: list[core.Judgment]) -> core.Judgment:
    """Combine the judgments. One right line suffices if no line is wrong, rough or singular.

    F varies within the smallest step on a rough line. F has a kink, a jump or an infinite slope on a singular line.
    """
    judgment = _combine(each)
    right = [j for j in each if j.verdict is Verdict.RIGHT]
    noisy = judgment.verdict is Verdict.CANNOT_TELL and judgment.cause not in (Cause.ROUGH, *core.SINGULAR)
    return right[0] if right and noisy else judgment


def _lines_of(exam: Examination) -> tuple[dict[int, quotients.Lines], dict[int, quotients.Lines]]:
    """Return the recorded lines of the short ladder and of the long ladder."""
    recorded: Any = exam.sampler
    return exam.lines, recorded.long


def _drop_even(exam: Examination) -> None:
    """Drop the direction that moves only elements that contribute little to the slope."""
    for i in exam.d.even:
        for lines in _lines_of(exam):
            kept = {name: np.delete(getattr(lines[i], name), EVEN, 0) for name in ("plus", "minus", "zero", "size")}
            lines[i] = lines[i]._replace(**kept)
        claims = (x for x in (*exam.d.claims, exam.d.reverse, exam.d.forward) if x is not None)
        for claim in claims:
            for x in (claim.along, claim.size, claim.noise):
                # Repeat the value of the first direction to keep the shape.
                x[i] = np.append(np.delete(x[i], EVEN), x[i, 0])
        exam.d.even = set()


def _as_float64(exam: Examination) -> None:
    """Treat f as if it computed in float64."""
    recorded: Any = exam.sampler
    recorded.coarse = False
    for lines in _lines_of(exam):
        lines |= {i: x._replace(narrow=constants.EPS) for i, x in lines.items()}


def _consistency(name: str) -> Part:
    """Return the part that is one comparison in `run_in_users_dtype`, such as eager = jit."""
    run = consistency.run_in_users_dtype

    def agreed(*args: Any) -> Any:
        found = run(*args)
        lines = [dataclasses.replace(c, verdict=Verdict.RIGHT) if c.name == name else c for c in found.consistency]
        return dataclasses.replace(found, consistency=lines)

    def decides(reports: Sequence[GradientReport], exams: Sequence[Examination]) -> bool:
        return any(c.name == name and c.verdict is not Verdict.RIGHT for x in reports for c in x.consistency)

    return Part(name, ((check, "run_in_users_dtype", agreed),), f"^{name}$", decides=decides)


def _approximate(reports: Sequence[GradientReport], exams: Sequence[Examination]) -> bool:
    return any(x.approximate for exam in exams for x in exam.d.claims)


def _same_floor(self: derive.Derivatives) -> float:
    return max(constants.FLOOR, self.nondeterminism)


def _nothing(*args: Any) -> None:
    return None


_NOT_EXPLAINED: Patch = (core, "explained_by_kink", lambda slopes, difference: np.zeros(len(slopes.value), bool))
PARTS = (
    # The comparison of claims with quotients.
    Part("structure", ((quotients, "_structure", lambda h, off, *others: np.zeros(off.shape[:2])),)),
    Part("rounding that may hide changes of F", _half(1)),
    Part("smallest change of F in a narrow dtype", _half(0)),
    Part("jumps and infinite slopes", ((quotients, "_singularity", lambda *x: Cause.AGREES),)),
    Part("gap test", ((quotients, "slopes", _slopes_without_gap),)),
    Part("a small kink explains the difference", (_NOT_EXPLAINED,)),
    Part("gap test and small kinks", ((quotients, "slopes", _slopes_without_gap), _NOT_EXPLAINED)),
    Part("a claim of 0 where F does not change", (_judge_with(still=False),)),
    Part("a claim of 0 where the slope is negligible", everywhere("NEGLIGIBLE", -math.inf)),
    Part("another estimate of the quotient supports the claim", everywhere("RIVAL", 0.0)),
    Part("F that varies within the smallest step", ((core, "combine", _combine_without_rough),)),
    Part("two right directions suffice → all must be right", ((core, "combine", _all_directions),)),
    Part("two right directions suffice → one suffices", ((core, "combine", _one_direction),)),
    Part("a claim outside the one-sided slopes of a kink", ((core, "outside_the_kink", lambda *x: False),)),
    Part("the direction of small elements", change=_drop_even),
    Part("the narrowest dtype in f", change=_as_float64),
    Part("a tolerance of four roundings of float32", ((derive.Derivatives, "floor", property(_same_floor)),)),
    Part("the long ladder", ((Examination, "_settled", lambda *x: True),)),
    Part("the long ladder where F varies", ((quotients, "slopes", _slopes_without_variation),)),
    Part("the noise of a claim", everywhere("NOISES", 0.0)),
    # Other comparisons, the search of single elements, and the allowances for iterations.
    Part("linear in the cotangent", ((Examination, "_linear", _nothing),)),
    Part("claim = autodiff", ((Examination, "_autodiff", _nothing),)),
    Part("claim = autodiff in single elements", ((locate, "outliers", lambda *x: np.zeros(0, bool)),)),
    Part("forward = reverse", ((Examination, "_modes", _nothing),)),
    Part("every element is right", ((Examination, "_every_element_is_right", lambda *x: False),)),
    Part("verdict by single elements", ((Examination, "_after", lambda self, claim, i, *checks: checks[:2]),)),
    Part("an iteration in f", everywhere("ITERATION", -math.inf)),
    Part("a rule that iterates to an absolute tolerance", ((derive, "_APPROXIMATE", 0.0),), decides=_approximate),
    Part("autodiff in the user's dtype = float64", without=r"^[a-z0-9]+ = float64$|^in its own dtype$"),
    Part("claim in the user's dtype = float64", without=r" in \w+ = float64$"),
    Part("tree, shapes and dtypes of a claim", without=r"^findings$| fits$"),
    _consistency("second run"),
    _consistency("eager = jit"),
    _consistency("f = its value under jax.vjp"),
    _consistency("jit = vmap"),
    _consistency("autodiff's second run"),
    _consistency("autodiff's jit = vmap"),
    _consistency("⟨u, Hv⟩ = ⟨v, Hu⟩"),
)
