"""The result of a check, as text, as an exception and as JSON."""

import dataclasses
import enum
import json
import math
from typing import Any

from jaxgd.errors import JaxgdError
from jaxgd.gradcheck.text import render
from jaxgd.gradcheck.verdicts import ADVICE, Cause, Verdict

# Advice, by the first words of a pattern.
_PATTERNS = {
    "the whole leaf should be zero": "To check another derivative, pass a function with that derivative as reference=",
    "the leaf is right in symmetric directions": "To check these alone, check f((a + a.T)/2) as a function of a",
}
# Below this relative difference, the cause may be an iteration that stopped at its tolerance.
_APPROXIMATE = 1e-3


class GradientError(JaxgdError, AssertionError):
    """A gradient is wrong, or undecided under `strict=True`; the message is the report's text.

    Attributes:
        report: The report of the failed check.

    Args:
        report: The report of the failed check.
    """

    report: "GradientReport"

    def __init__(self, report: "GradientReport") -> None:
        super().__init__(f"\n{report}")
        self.report = report


@dataclasses.dataclass(frozen=True)
class Element:
    """One element of a leaf.

    Attributes:
        index: The position of the element in the leaf, one number per axis.
        claimed: The claimed derivative.
        reference: The value to compare with: a derivative that passed its own checks, or a quotient.
    """

    index: tuple[int, ...]
    claimed: float | complex
    reference: float | complex

    @property
    def ratio(self) -> float | complex:
        """The claimed derivative divided by the reference; infinite or NaN if the reference is 0."""
        if self.reference == 0:
            return math.nan if self.claimed == 0 or self.claimed != self.claimed else math.inf
        return self.claimed / self.reference


@dataclasses.dataclass(frozen=True)
class Check:
    """One comparison on one leaf.

    Attributes:
        name: The comparison, for instance "gradient = autodiff" or "vjp is linear".
        verdict: The verdict of this comparison alone.
        cause: The reason for the verdict.
        error: The difference found, relative to the leaf's own gradient; NaN if none was measured.
        tolerance: The largest difference allowed, relative to the leaf's own gradient.
        note: Details in words, or "".
    """

    name: str
    verdict: Verdict
    cause: Cause
    error: float
    tolerance: float
    note: str = ""


@dataclasses.dataclass(frozen=True)
class LeafReport:
    """The checks of one leaf of the arguments.

    Attributes:
        name: The leaf's name, as in f's signature: "network[0].w".
        shape: The shape of the leaf.
        dtype: The dtype of the leaf.
        checks: The comparisons made on this leaf. An empty leaf has a check only if a claim does not fit it.
        slope: The power p for which the Taylor remainder shrinks like stepᵖ. It is about 2 if the derivative is right,
            and about 1 if it is wrong. It is NaN if no two neighboring steps have remainders above the noise.
        pattern: The pattern of the error, for instance "the leaf is transposed"; "" if no pattern was recognized.
        worst: At most 8 wrong elements, the largest difference first; empty if the search found none.
        searched: The number of elements that were compared to find the wrong ones; 0 if none were.
    """

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
        """The number of elements in the leaf."""
        return math.prod(self.shape)

    @property
    def deciding(self) -> Check | None:
        """The check that decides: the first wrong check, otherwise the first undecided one, otherwise the first one."""
        for verdict in (Verdict.WRONG, Verdict.CANNOT_TELL):
            for check in self.checks:
                if check.verdict is verdict:
                    return check
        return self.checks[0] if self.checks else None

    @property
    def verdict(self) -> Verdict:
        """Wrong if any check is wrong, right if every check is right, otherwise cannot tell."""
        return self.deciding.verdict if self.deciding else Verdict.RIGHT

    @property
    def cause(self) -> Cause:
        """The cause of the check that decides."""
        return self.deciding.cause if self.deciding else Cause.AGREES

    @property
    def explanation(self) -> str:
        """The word "right" or "empty"; otherwise the verdict, its cause and advice, in one to four sentences."""
        check = self.deciding
        if check is None:
            return "empty"
        if check.verdict is Verdict.RIGHT:
            return "right"
        words = f"{check.verdict}: {check.name}: {check.cause}"
        if check.cause in (Cause.DIFFERS, Cause.ONLY_IN_USER_DTYPE) and math.isfinite(check.error):
            words += f" by {check.error:.2g} relative"
            words += f", {check.tolerance:.1g} allowed" if math.isfinite(check.tolerance) else ""
        if check.note:
            words += f", {check.note}"
        if check.verdict is Verdict.WRONG and self.pattern:
            words += f".\n{self.pattern[0].upper()}{self.pattern[1:]}"
            words += "".join(f".\n{advice}" for start, advice in _PATTERNS.items() if self.pattern.startswith(start))
        if check.verdict is Verdict.WRONG and check.error < _APPROXIMATE and check.cause is Cause.DIFFERS:
            words += ".\nIf f or its derivative is approximate, such as an iteration to a tolerance, pass rtol"
        if check.verdict is Verdict.CANNOT_TELL and check.cause in ADVICE:
            words += f".\n{ADVICE[check.cause]}"
        return words + ("?" if ": is " in words.rsplit("\n", 1)[-1] else ".")


@dataclasses.dataclass(frozen=True)
class Consistency:
    """A comparison of two ways to compute one value.

    Attributes:
        name: The two ways, for instance "eager = jit".
        verdict: Right if they agree up to rounding or the caller's tolerance.
        cause: The reason for the verdict.
        error: The largest relative difference between the two results.
    """

    name: str
    verdict: Verdict
    cause: Cause
    error: float


@dataclasses.dataclass(frozen=True)
class GradientReport:
    """The result of `check_gradients`: one verdict per leaf, one overall, and the evidence.

    `str(report)` is one screen of text. A report has no truth value: compare `verdict`, or call `raise_if_wrong`.

    Attributes:
        name: The name of f.
        leaves: One report per differentiated leaf of the arguments.
        consistency: Comparisons of two runs of f or of its gradient, for instance eager and under jit. The report on
            the second order also has a comparison for the symmetry of the Hessian.
        precision: Sentences on the accuracy in the dtype of the arguments, compared with float64.
        checked: The work done, in words: points, directions, evaluations, seed.
        not_checked: The parts that were left out, each with its reason.
        evaluations: The approximate number of evaluations of f, or of `reference` if it is given.
        directions: The number of random directions per leaf that the caller asked for.
        seed: The seed of the random directions and cotangents.
        dtype: The dtype in which f was evaluated for the difference quotients; "" if no quotient was made.
        findings: Misfits that concern a whole claim, such as a wrong tree or a wrong value of f. A misfit in one leaf
            is in the checks of that leaf. Any misfit makes the verdict wrong.
        second_order: The check of the gradient's own derivative, with `order=2` only; otherwise None.
    """

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
        """The worst verdict of any part. Wrong is the worst, then cannot tell, then right."""
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
        """The cause of the first part that decides the verdict."""
        if self.findings:
            return Cause.STRUCTURE
        parts: list[LeafReport | Consistency | GradientReport] = [*self.leaves, *self.consistency]
        if self.second_order is not None:
            parts.append(self.second_order)
        return next((part.cause for part in parts if part.verdict is self.verdict), Cause.AGREES)

    @property
    def reason(self) -> str:
        """The first part that decides the verdict, in words."""
        if self.findings:
            return self.findings[0]
        for leaf in self.leaves:
            if leaf.verdict is self.verdict is not Verdict.RIGHT:
                return f"{leaf.name}: {leaf.explanation}"
        for c in self.consistency:
            if c.verdict is self.verdict is not Verdict.RIGHT:
                return f"{c.name}: {c.cause}, by {c.error:.2g} relative. {ADVICE[c.cause]}."
        if self.second_order is not None and self.second_order.verdict is self.verdict is not Verdict.RIGHT:
            return f"second order: {self.second_order.reason}"
        return "all checks agree"

    def __bool__(self) -> bool:
        raise TypeError(
            'A GradientReport has no truth value, because its verdict may be "cannot tell".\n'
            "Use report.raise_if_wrong(), or compare report.verdict."
        )

    def leaf(self, name: str) -> LeafReport:
        """Return the report of one leaf.

        Args:
            name: The name of the leaf, as in the report's table.

        Returns:
            The report of that leaf.

        Raises:
            KeyError: If no leaf has this name.
        """
        for leaf in self.leaves:
            if leaf.name == name:
                return leaf
        raise KeyError(f"no leaf {name}; the leaves are {', '.join(leaf.name for leaf in self.leaves)}")

    def raise_if_wrong(self, strict: bool = False) -> "GradientReport":
        """Raise an error if the verdict is wrong.

        Args:
            strict: If True, "cannot tell" raises too. Default False.

        Returns:
            This report, if it does not raise.

        Raises:
            GradientError: If the verdict is wrong, or with `strict` any verdict except right.
        """
        if self.verdict is Verdict.WRONG or (strict and self.verdict is not Verdict.RIGHT):
            raise GradientError(self)
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dict of numbers, texts, None, lists and dicts.

        Infinite and NaN numbers become the texts "inf", "-inf" and "nan". A complex number becomes [real, imaginary],
        or its real part alone if the imaginary part is 0.
        """
        out: dict[str, Any] = {"verdict": str(self.verdict), "cause": str(self.cause), "reason": self.reason}
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        out |= {name: _plain(value) for name, value in fields.items()}
        return out

    def to_json(self) -> str:
        """Return the report as JSON text, with infinite and NaN numbers as the texts "inf", "-inf" and "nan"."""
        return json.dumps(self.as_dict(), allow_nan=False, ensure_ascii=False)

    def __str__(self) -> str:
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
