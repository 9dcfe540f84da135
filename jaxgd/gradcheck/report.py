"""What a check found, for a person, for a test and for a program."""

import dataclasses
import enum
import json
import math
from typing import Any

from jaxgd.errors import JaxgdError
from jaxgd.gradcheck.quotient import Shape


class Verdict(enum.StrEnum):
    """What can be said of a gradient; equal to its text."""

    RIGHT = "right"
    WRONG = "wrong"
    CANNOT_TELL = "cannot tell"


class Cause(enum.StrEnum):
    """Why a verdict is what it is."""

    AGREES = "agrees"
    DIFFERS = "differs"
    STRUCTURE = "tree, shape or dtype differs"
    GRADIENT_NOT_FINITE = "the gradient is not finite where f is smooth"
    KINK = "kink"
    JUMP = "jump"
    STEEP = "infinite slope"
    EDGE = "edge of the domain"
    NOT_FINITE = "not finite here"
    NOISE = "noise above the signal"
    ROUGH = "f varies within the smallest step"
    APPROXIMATE = "f iterates to a tolerance"
    UNSTEADY = "the gradient is another one a rounding away"
    NOT_DETERMINISTIC = "not deterministic"
    NOT_ONE_FUNCTION = "f depends on how it is run"
    OTHER_VALUE = "the rule returns another value than f"
    NO_FLOAT64 = "f cannot run in float64"
    ONLY_NATIVE = "far off in the dtype of the arguments only"
    ASYMMETRIC = "the Hessian is not symmetric"


# In the order in which they are told where there are several.
CAUSE_OF = {
    Shape.KINK: Cause.KINK,
    Shape.STEEP: Cause.STEEP,
    Shape.JUMP: Cause.JUMP,
    Shape.EDGE: Cause.EDGE,
    Shape.NOT_FINITE: Cause.NOT_FINITE,
    Shape.ROUGH: Cause.ROUGH,
}

ADVICE = {
    Cause.KINK: "There is no gradient here, or a kink within the smallest step: check at another point",
    Cause.JUMP: "The value of f jumps here: check at another point",
    Cause.STEEP: "The slope of f grows without bound here: check at another point",
    Cause.EDGE: "f is not finite on one side of this point: check inside its domain",
    Cause.NOT_FINITE: "f is infinite or NaN here: check at another point, or in a dtype with more range",
    Cause.NOISE: "Rounding in f hides a gradient this small: check at another point, or a part of f alone",
    Cause.ROUGH: "The smallest steps are too large for f here: check at smaller arguments, or a part of f alone",
    Cause.APPROXIMATE: "Its derivative is as rough as its tolerance: tighten that, or pass rtol",
    Cause.UNSTEADY: "There is a kink at this point, or the gradient is computed coarsely: check at another point",
    Cause.NOT_DETERMINISTIC: "Two runs of f differ: fix its random key",
    Cause.NOT_ONE_FUNCTION: "Its values differ between eager, jit and vmap: make f pure, or mend its rule for vmap",
    Cause.OTHER_VALUE: "Let the rule's forward pass return what f returns",
    Cause.NO_FLOAT64: "Its values are too coarse for a quotient: let f follow the dtype of its arguments, or pass rtol",
    Cause.ONLY_NATIVE: "Rounding, or a rule that is wrong in that dtype alone: look at its formula there",
    Cause.ASYMMETRIC: "What is given as a gradient is the gradient of no function",
}


# A difference smaller than this may be that of an iteration that stopped.
_APPROXIMATE = 1e-3


class GradientError(JaxgdError, AssertionError):
    """A gradient is wrong; the message is the report's text, and `report` is the report."""

    def __init__(self, report: "GradientReport") -> None:
        super().__init__(f"\n{report}")
        self.report = report


@dataclasses.dataclass(frozen=True)
class Element:
    """One element of a leaf: its index, the claimed derivative and the reference."""

    index: tuple[int, ...]
    claimed: float | complex
    reference: float | complex

    @property
    def ratio(self) -> float | complex:
        """Claimed over reference; infinite or NaN where the reference is 0."""
        if self.reference == 0:
            return math.nan if self.claimed == 0 or self.claimed != self.claimed else math.inf
        return self.claimed / self.reference


@dataclasses.dataclass(frozen=True)
class Check:
    """One comparison on one leaf.

    `error` is the largest relative difference found, `tolerance` what was allowed: both relative to the leaf's own
    gradient. A difference above the tolerance would have been seen.
    """

    name: str
    verdict: Verdict
    cause: Cause
    error: float
    tolerance: float
    note: str = ""


@dataclasses.dataclass(frozen=True)
class LeafReport:
    """All that was found out about one leaf; `pattern`, `worst` and `searched` only where something is wrong."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    checks: tuple[Check, ...]
    slope: float = math.nan
    pattern: str = ""
    worst: tuple[Element, ...] = ()
    searched: int = 0

    @property
    def size(self) -> int:
        """How many elements the leaf has."""
        return math.prod(self.shape)

    @property
    def deciding(self) -> Check | None:
        """The check that decides: the first that is wrong, else the first that cannot tell, else the first."""
        for verdict in (Verdict.WRONG, Verdict.CANNOT_TELL):
            for check in self.checks:
                if check.verdict is verdict:
                    return check
        return self.checks[0] if self.checks else None

    @property
    def verdict(self) -> Verdict:
        """Wrong if any check is; right if all are."""
        return self.deciding.verdict if self.deciding else Verdict.RIGHT

    @property
    def cause(self) -> Cause:
        """Why the verdict is what it is."""
        return self.deciding.cause if self.deciding else Cause.AGREES

    @property
    def explanation(self) -> str:
        """One or two sentences for a person."""
        check = self.deciding
        if check is None:
            return "empty"
        if check.verdict is Verdict.RIGHT:
            return "right"
        words = f"{check.verdict}: {check.name}: {check.cause}"
        if check.note:
            words += f", {check.note}"
        elif check.verdict is Verdict.WRONG and math.isfinite(check.error):
            words += f" by {check.error:.2g} relative, {check.tolerance:.1g} allowed"
        if check.verdict is Verdict.WRONG and self.pattern:
            words += f".\n{self.pattern[0].upper()}{self.pattern[1:]}"
        if check.verdict is Verdict.WRONG and check.error < _APPROXIMATE and check.cause is Cause.DIFFERS:
            words += (
                ".\nIf f or its derivative is meant to be approximate, as with an iteration to a tolerance, pass rtol"
            )
        if check.verdict is Verdict.CANNOT_TELL and check.cause in ADVICE:
            words += f".\n{ADVICE[check.cause]}"
        return words + ("?" if ": is " in words.rsplit("\n", 1)[-1] else ".")


@dataclasses.dataclass(frozen=True)
class Consistency:
    """Two ways to run the same thing, and the largest relative difference between their results."""

    name: str
    verdict: Verdict
    cause: Cause
    error: float


@dataclasses.dataclass(frozen=True)
class GradientReport:
    """The result of `check_gradients`: a verdict for each leaf and over all, with what it rests on."""

    name: str
    leaves: tuple[LeafReport, ...]
    consistency: tuple[Consistency, ...]
    precision: tuple[str, ...]
    checked: str
    not_checked: tuple[str, ...]
    evaluations: int
    directions: int
    seed: int
    dtype: str
    findings: tuple[str, ...] = ()
    second_order: "GradientReport | None" = None

    @property
    def verdict(self) -> Verdict:
        """Wrong if anything is wrong; right if nothing is and nothing had to be left open."""
        verdicts = [leaf.verdict for leaf in self.leaves] + [c.verdict for c in self.consistency]
        if self.findings:
            verdicts.append(Verdict.WRONG)
        if self.second_order is not None:
            verdicts.append(self.second_order.verdict)
        for verdict in (Verdict.WRONG, Verdict.CANNOT_TELL):
            if verdict in verdicts:
                return verdict
        return Verdict.RIGHT

    @property
    def cause(self) -> Cause:
        """Why the verdict is what it is."""
        if self.findings:
            return Cause.STRUCTURE
        parts: list[LeafReport | Consistency | GradientReport] = [*self.leaves, *self.consistency]
        if self.second_order is not None:
            parts.append(self.second_order)
        return next((part.cause for part in parts if part.verdict is self.verdict), Cause.AGREES)

    @property
    def reason(self) -> str:
        """The first thing that decides the verdict, in words."""
        if self.findings:
            return self.findings[0]
        for leaf in self.leaves:
            if leaf.verdict is self.verdict is not Verdict.RIGHT:
                return f"{leaf.name}: {leaf.explanation}"
        for c in self.consistency:
            if c.verdict is self.verdict is not Verdict.RIGHT:
                return f"{c.name}: {c.cause}. {ADVICE[c.cause]}."
        if self.second_order is not None and self.second_order.verdict is self.verdict is not Verdict.RIGHT:
            return f"second order: {self.second_order.reason}"
        return "everything that was checked agrees"

    def __bool__(self) -> bool:
        raise TypeError(
            "A GradientReport is neither true nor false, since it may be that nothing can be told. "
            "Use report.raise_if_wrong(), or compare report.verdict."
        )

    def leaf(self, name: str) -> LeafReport:
        """The report of one leaf, by its name."""
        for leaf in self.leaves:
            if leaf.name == name:
                return leaf
        raise KeyError(f"no leaf {name}; there are {', '.join(leaf.name for leaf in self.leaves)}")

    def raise_if_wrong(self, strict: bool = False) -> "GradientReport":
        """Raise GradientError with this report if the verdict is wrong; with strict, unless it is right.

        Otherwise the result is the report itself.
        """
        if self.verdict is Verdict.WRONG or (strict and self.verdict is not Verdict.RIGHT):
            raise GradientError(self)
        return self

    def as_dict(self) -> dict[str, Any]:
        """The report as plain numbers, texts and lists; complex numbers as [real, imaginary]."""
        out: dict[str, Any] = {"verdict": str(self.verdict), "cause": str(self.cause), "reason": self.reason}
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        out |= {name: _plain(value) for name, value in fields.items()}
        return out

    def to_json(self) -> str:
        """The report as JSON; what is not finite stands as the text "inf" or "nan"."""
        return json.dumps(self.as_dict(), allow_nan=False, ensure_ascii=False)

    def __str__(self) -> str:
        from jaxgd.gradcheck.text import render

        return render(self)


def _plain(value: Any) -> Any:
    if isinstance(value, GradientReport):
        return value.as_dict()
    if isinstance(value, enum.Enum):
        return str(value)
    if dataclasses.is_dataclass(value):
        out = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, LeafReport):
            out |= {"verdict": str(value.verdict), "cause": str(value.cause), "explanation": value.explanation}
        if isinstance(value, Element):
            out["ratio"] = _plain(value.ratio)
        return out
    if isinstance(value, tuple | list):
        return [_plain(x) for x in value]
    if isinstance(value, complex):
        return [_plain(value.real), _plain(value.imag)] if value.imag else _plain(value.real)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
