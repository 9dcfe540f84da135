"""The comparisons for each leaf: claims with quotients, claims with autodiff, and forward mode with reverse mode."""

import dataclasses
import math

import numpy as np

from jaxgd.gradcheck import constants, core, locate, patterns, quotients
from jaxgd.gradcheck.claims import Claim, misfits
from jaxgd.gradcheck.clock import Clock
from jaxgd.gradcheck.derive import EVEN, Derivative, Derivatives
from jaxgd.gradcheck.draws import norm
from jaxgd.gradcheck.report import Check, LeafReport
from jaxgd.gradcheck.sample import Sampler
from jaxgd.gradcheck.verdicts import Cause, Verdict


@dataclasses.dataclass
class Examination:
    """The examination of all leaves at one point.

    Attributes:
        d: The derivatives.
        sampler: The evaluation of f.
        misfits: All claims of the caller, each with its misfits.
        rtol: The user's tolerance, or None.
        rng: The random generator of the search.
        lines: For each leaf, the values of F(t) = ⟨w, f(x + t u)⟩ along its directions u.
        clock: The time that is left.
        slopes: The quotients of each leaf.
        unfinished: The leaves for which the time ran out before the quotients at many steps.
    """

    d: Derivatives
    sampler: Sampler
    misfits: list[Claim]
    rtol: float | None
    rng: np.random.Generator
    lines: dict[int, quotients.Lines]
    clock: Clock
    slopes: dict[int, quotients.Slopes] = dataclasses.field(default_factory=dict)
    unfinished: set[int] = dataclasses.field(default_factory=set)

    @np.errstate(all="ignore")
    def run(self) -> tuple[LeafReport, ...]:
        """Examine every leaf."""
        self.slopes = {i: quotients.slopes(lines) for i, lines in self.lines.items()}
        if doubtful := [i for i in self.lines if not self._settled(i)]:
            if self.clock.over():
                self.unfinished = set(doubtful)
            else:
                n = len(self.d.shared.directions[0]) - 1
                self.lines |= self.sampler.lines(doubtful, n, quotients.ladder())
                self.slopes |= {i: quotients.slopes(self.lines[i]) for i in doubtful}
        searches: dict[tuple[str, int], locate.ElementSearch] = {}
        reports = [self._report(i, searches) for i in range(len(self.d.prepared.v))]
        exchanged = patterns.exchanged(searches, [leaf.name for leaf in self.d.prepared.leaves])
        return tuple(dataclasses.replace(r, pattern=exchanged.get(i, r.pattern)) for i, r in enumerate(reports))

    def _claims(self, leaf: int) -> list[Derivative]:
        absent = {claim.name for claim in self.misfits if leaf in claim.absent}
        return [x for x in self.d.claims if x.name not in absent]

    def _settled(self, leaf: int) -> bool:
        """Return True if the quotients at a few steps show that all claims are right.

        If F computes in float64, its variation at smaller steps must also be rounding only.
        """
        still = self.sampler.coarse or not self.slopes[leaf].varies.any()
        return still and all(self._quotient(claim, leaf).verdict is Verdict.RIGHT for claim in self._claims(leaf))

    def _quotient(self, claim: Derivative, leaf: int) -> Check:
        """Compare a claim with the quotients in all directions."""
        slopes, name = self.slopes[leaf], f"{claim.name} = quotient"
        claimed = claim.claim(leaf, len(slopes.value))
        if leaf in self.sampler.ignored and not claimed.value.any():
            return Check(name, Verdict.RIGHT, Cause.AGREES, 0.0, 0.0, "f does not depend on it")
        each = core.judge(claimed, slopes, self.rtol, self.sampler.coarse)
        judgment = self._deciding(claim, leaf, each)
        verdict, cause, value = judgment.verdict, judgment.cause, abs(judgment.value)
        if leaf in self.unfinished and verdict is not Verdict.RIGHT:
            note = "in the quotients at many steps"
            return Check(name, Verdict.CANNOT_TELL, Cause.OUT_OF_TIME, math.nan, math.inf, note)
        if verdict is Verdict.WRONG and (claim.iterates or self.sampler.iterates):
            # The result of an iteration is only as accurate as the tolerance of the iteration.
            small = judgment.difference <= constants.ITERATION * judgment.size
            verdict, cause = (Verdict.CANNOT_TELL, Cause.APPROXIMATE) if small else (verdict, cause)
        if cause is Cause.UNSTEADY and leaf in claim.approximate:
            cause = Cause.APPROXIMATE
        notes = []
        if verdict is Verdict.RIGHT and not claimed.value.any():
            notes.append("f is constant here" if slopes.still.all() else "the gradient is 0 here")
        if cause is Cause.NO_FLOAT64 and self.sampler.coarse:
            notes.append(f"f computes in {self.sampler.narrowest}")
        if cause in (Cause.NOISE, Cause.NO_FLOAT64, Cause.ROUGH):
            notes.append(f"the derivative of f along a direction is {value:.1e}, known to ±{judgment.tolerance:.1e}")
        if verdict is Verdict.CANNOT_TELL and not np.isfinite(claimed.value).all():
            notes.append(f"{claim.name} is infinite or NaN")
        # By chance, a slope may be far smaller than its terms. Errors are then relative to the terms.
        size = value if value > 0.1 * judgment.size else judgment.size
        error, tolerance = _ratio(judgment.difference, size), _ratio(judgment.tolerance, size)
        return Check(name, verdict, cause, error, tolerance, "; ".join(notes))

    def _deciding(self, claim: Derivative, leaf: int, each: list[core.Judgment]) -> core.Judgment:
        """Return the judgment that decides a leaf, from the judgments along all directions."""
        judgment = core.combine(each)
        if judgment.verdict is not Verdict.RIGHT:
            return judgment
        if leaf in self.d.even and len(each) > EVEN:
            # Direction EVEN moves only elements that contribute little to the slope. If the other directions are right,
            # they decide about the leaf.
            others = core.combine([j for k, j in enumerate(each) if k != EVEN])
            judgment = others if others.verdict is Verdict.RIGHT else judgment
            words = f"elements of {self.d.prepared.leaves[leaf].name} with a far smaller gradient: rounding hides them"
            hidden = each[EVEN].verdict is Verdict.CANNOT_TELL and self.slopes[leaf].variation[EVEN] > 0
            if hidden and words not in self.d.notes:
                self.d.notes.append(words)
        if leaf in claim.approximate:
            # The rule iterates to an absolute tolerance. If its error is too large along one direction (UNSTEADY),
            # that direction decides.
            judgment = next((j for j in each if j.cause is Cause.UNSTEADY), judgment)
        return judgment

    def _autodiff(self, claim: Derivative, leaf: int) -> Check | None:
        """Compare a claim with autodiff directly, without a quotient."""
        reference = self.d.reverse or self.d.forward
        if reference is None or claim is reference:
            return None
        name = f"{claim.name} = autodiff"
        floor = max(claim.floor, reference.floor)
        if claim.gradients and reference.gradients:
            pairs = list(zip(claim.gradients[leaf], reference.gradients[leaf], strict=True))
            off, a, b = (np.array([norm(x) for x in xs]) for xs in zip(*((a - b, a, b) for a, b in pairs), strict=True))
            # The noise was measured for the first cotangent only. Assume the same relative noise for the others.
            moved = norm(claim.moved[leaf]) + norm(reference.moved[leaf])
            noise = constants.NOISES * moved * (b / b[0] if b[0] else np.ones_like(b))
        else:
            off, a, b = (np.abs(x[leaf]) for x in (claim.along - reference.along, claim.along, reference.along))
            a, noise = np.maximum(a, reference.size[leaf]), np.zeros_like(a)
        scale = np.maximum(a, b)
        if not np.isfinite(scale).all():
            return None
        k = int(np.argmax(np.where(scale > 0, off / scale, 0)))
        check = self._checked(name, off[k], noise[k], scale[k], b[k], floor)
        if check.verdict is not Verdict.WRONG and self.rtol is None and locate.outliers(claim, reference, leaf).any():
            check = dataclasses.replace(check, verdict=Verdict.WRONG, cause=Cause.DIFFERS, note="in single elements")
        return check

    def _modes(self, leaf: int, quotients: dict[str, Check]) -> Check | None:
        """Compare forward mode with reverse mode: ⟨w, Ju⟩ = ⟨Jᵀw, u⟩.

        JAX derives reverse mode from the rules of forward mode. If only reverse mode agrees with the quotients, the
        difference comes from rounding in forward mode. In forward mode, an infinite derivative in another leaf, times
        its tangent of 0, gives NaN. This is no error of this leaf.
        """
        forward, reverse = self.d.forward, self.d.reverse
        if forward is None or reverse is None:
            return None
        a, b = forward.along[leaf], reverse.along[leaf]
        if not np.isfinite(b).all() or not (np.isfinite(a).all() or np.isfinite(reverse.along).all()):
            return None
        scale, slopes = np.maximum(np.nan_to_num(np.abs(a), posinf=0), reverse.size[leaf]), self.slopes[leaf]
        # The noise of forward mode is not measured. Assume the largest relative noise of reverse mode.
        noise = constants.NOISES * np.nanmax(reverse.noise[leaf] / scale, initial=0.0) * scale
        unclear = np.nanmin(slopes.error / scale[: len(slopes.error)], initial=np.inf)
        noise += constants.SAFETY * (unclear if np.isfinite(unclear) else 0.0) * scale
        off = np.nan_to_num(np.abs(a - b), nan=np.inf)
        # Skip EVEN: rounding in forward mode may be as large as the small elements that move along it.
        off[EVEN : EVEN + 1] *= leaf not in self.d.even
        k = int(np.argmax(np.where(off > 0, off / (noise + scale), 0)))
        check = self._checked(
            "forward = reverse", off[k], noise[k], scale[k], abs(b[k]), max(forward.floor, reverse.floor)
        )
        by_quotient = self._quotient(forward, leaf)
        if not np.isfinite(a).all() and by_quotient.verdict is Verdict.CANNOT_TELL:
            return None
        if check.verdict is by_quotient.verdict is Verdict.WRONG and quotients[reverse.name].verdict is Verdict.RIGHT:
            note = f"forward mode differs from the quotient by {by_quotient.error:.2g} relative; reverse mode agrees"
            return dataclasses.replace(check, verdict=Verdict.CANNOT_TELL, note=note)
        # If this comparison cannot decide, the comparison with the quotients already reports the uncertainty.
        return None if check.verdict is Verdict.CANNOT_TELL else check

    def _linear(self, claim: Derivative, leaf: int) -> Check | None:
        """Return a check if a rule is not linear in its cotangent, otherwise None."""
        if not claim.gradients:
            return None
        difference, noise, size, floor = claim.linear[leaf]
        verdict, tolerance = core.agree(difference, noise, size, max(floor, self.d.nondeterminism), self.rtol)
        if verdict is not Verdict.WRONG:
            return None
        note = "Jᵀ(cw) is not cJᵀw for a large or a negative c"
        return Check(f"{claim.name} is linear", verdict, Cause.DIFFERS, difference / size, tolerance / size, note)

    def _checked(self, name: str, difference: float, noise: float, scale: float, size: float, floor: float) -> Check:
        """Judge a difference relative to the larger derivative. Report it relative to a reference that is not small."""
        size = size if size > 0.1 * scale else scale
        if scale == 0 and difference == 0:
            return Check(name, Verdict.RIGHT, Cause.AGREES, 0.0, 0.0)
        verdict, tolerance = core.agree(difference, noise, scale, floor, self.rtol)
        cause = {Verdict.RIGHT: Cause.AGREES, Verdict.WRONG: Cause.DIFFERS, Verdict.CANNOT_TELL: Cause.NOISE}[verdict]
        return Check(name, verdict, cause, _ratio(difference, size), _ratio(tolerance, size))

    def _report(self, i: int, searches: dict[tuple[str, int], locate.ElementSearch]) -> LeafReport:
        leaf = self.d.prepared.leaves[i]
        report = LeafReport(leaf.name, leaf.shape, leaf.dtype, ())
        fits = misfits(self.misfits, leaf.name)
        if i not in self.lines:
            return dataclasses.replace(report, checks=fits)
        checks: list[Check] = []
        quotients = {claim.name: self._quotient(claim, i) for claim in self._claims(i)}
        for claim in self._claims(i):
            direct, check = self._autodiff(claim, i), quotients[claim.name]
            if direct is not None and check.verdict is Verdict.RIGHT and self._autodiff_is_wrong(quotients):
                # The quotient shows that the claim is right and autodiff is wrong.
                direct = None
            verdicts = {c.verdict for c in (direct, check) if c is not None}
            if (Verdict.WRONG in verdicts or check.cause is Cause.KINK) and self.clock.over():
                self.d.notes.append(f"single elements of {leaf.name}: out of time")
            elif Verdict.WRONG in verdicts or check.cause is Cause.KINK:
                search = searches[claim.name, i] = self._search(claim, i, quotients)
                check, direct = self._after(claim, i, check, direct, search)
                if not report.worst and Verdict.WRONG in (check.verdict, direct.verdict if direct else None):
                    pattern = self._ignores_cotangent(claim, i) or patterns.pattern(search, claim, i, self.d.prepared)
                    worst = patterns.worst(search, leaf.shape)
                    report = dataclasses.replace(report, worst=worst, pattern=pattern, searched=len(search.index))
            if check.verdict is Verdict.WRONG and claim is self.d.reverse:
                right = [name for name, other in quotients.items() if other.verdict is Verdict.RIGHT]
                check = dataclasses.replace(check, note=f"{' and '.join(right)} agrees") if right else check
            checks += [c for c in (self._linear(claim, i), direct, check) if c is not None]
        checks += [c for c in (self._modes(i, quotients),) if c is not None]
        return dataclasses.replace(report, checks=(*checks, *fits), slope=self._taylor(i))

    def _autodiff_is_wrong(self, quotients: dict[str, Check]) -> bool:
        check = quotients.get(self.d.claims[-1].name)
        return self.d.reverse is self.d.claims[-1] and check is not None and check.verdict is Verdict.WRONG

    def _search(self, claim: Derivative, i: int, quotients: dict[str, Check]) -> locate.ElementSearch:
        """Compare single elements with another derivative that is right, or with quotients if no other one is."""
        right = [
            other
            for other in self._claims(i)
            if other is not claim and other.gradients and quotients[other.name].verdict is Verdict.RIGHT
        ]
        if right:
            return locate.against_derivative(claim, right[0], i, self.sampler, self.rng)
        return locate.against_quotients(claim, i, self.sampler, self.slopes[i], self.rng)

    def _after(
        self, claim: Derivative, i: int, check: Check, direct: Check | None, search: locate.ElementSearch
    ) -> tuple[Check, Check | None]:
        """Return the two checks of a claim, corrected by the search of single elements.

        A kink explains only differences in elements that have a kink. If the search covers one element only, the claim
        must also be between the one-sided slopes. If every element is right, the steps along the whole leaf were too
        large for some elements.
        """
        wrong = Verdict.WRONG
        if check.cause is Cause.DIFFERS and self._every_element_is_right(claim, i, search):
            note = "every element agrees with its own quotient"
            check = dataclasses.replace(check, verdict=Verdict.CANNOT_TELL, cause=Cause.ROUGH, note=note)
        elif check.cause is Cause.KINK:
            n = len(self.slopes[i].value)
            if search.wrong.any():
                check = dataclasses.replace(check, verdict=wrong, cause=Cause.DIFFERS)
            elif len(search.index) == 1 and core.outside_the_kink(claim.claim(i, n), self.slopes[i]):
                note = "outside the range of the one-sided slopes at a kink"
                check = dataclasses.replace(check, verdict=wrong, cause=Cause.DIFFERS, note=note)
            elif search.kink.any() and len(search.index) > 1:
                places = patterns.places(search.index[search.kink], self.d.prepared.leaves[i].shape)
                check = dataclasses.replace(check, note="; ".join(filter(None, (f"at {places}", check.note))))
            if direct and direct.verdict is wrong and check.cause is Cause.KINK:
                # Several subgradients are right at a kink, and autodiff returns only one of them.
                direct = dataclasses.replace(direct, verdict=Verdict.CANNOT_TELL, cause=Cause.KINK)
        return check, direct

    def _every_element_is_right(self, claim: Derivative, i: int, search: locate.ElementSearch) -> bool:
        """Return True if all elements are right, and their errors are too small to explain the error of the leaf."""
        slopes, unit = self.slopes[i], np.abs(self.d.shared.directions[i][-1]).reshape(-1)
        # Take the error along direction 0, because direction 0 and the search both use the first cotangent.
        difference = np.abs(claim.along[i, 0] - slopes.value[0])
        if len(search.index) < unit.size or (search.wrong | search.kink).any():
            return False
        off = np.sum(np.abs(search.claimed - search.reference) * unit)
        return bool(off < 0.1 * difference and np.sum(search.allowed * unit) < difference)

    def _ignores_cotangent(self, claim: Derivative, i: int) -> str:
        """Return a sentence if the rule of a scalar f ignores its cotangent, otherwise ""."""
        w = self.d.shared.cotangents
        if not claim.gradients or len(w) > 1 or w[0].ndim > 1 or np.iscomplexobj(w[0]):
            return ""
        first, *others = claim.gradients[i]
        same = np.any(first) and np.isfinite(first).all() and all(norm(g - first) <= 1e-6 * norm(first) for g in others)
        return "the rule ignores its cotangent: is the cotangent missing as a factor" if same else ""

    def _taylor(self, i: int) -> float:
        """Return the power with which the first claim's Taylor remainder shrinks, the smallest over the directions."""
        claims = self._claims(i)
        if not claims:
            return math.nan
        powers = quotients.taylor(self.lines[i], claims[0].along[i], self.slopes[i].noise)
        return min((p for p in powers if math.isfinite(p)), default=math.nan)


def _ratio(x: float, scale: float) -> float:
    return x / scale if scale else (0.0 if x == 0 else math.inf)
