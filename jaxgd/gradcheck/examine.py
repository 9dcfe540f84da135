"""The examination of each leaf: quotients from a few steps, then from many if in doubt, then of single elements."""

import dataclasses
import math
from typing import Any

import numpy as np

from jaxgd.gradcheck import locate
from jaxgd.gradcheck.claims import Claim
from jaxgd.gradcheck.derive import AUTODIFF, MINOR, Derivatives, norm, rms
from jaxgd.gradcheck.judge import (
    COARSE_RESOLUTION,
    FLOOR,
    NOISES,
    RESOLUTION,
    against_quotient,
    combined,
    judge,
    outside_the_kink,
)
from jaxgd.gradcheck.ladders import Ladders, State
from jaxgd.gradcheck.measure import ReverseValues, Values
from jaxgd.gradcheck.quotient import SAFETY, Shape
from jaxgd.gradcheck.report import Cause, Check, LeafReport, Verdict
from jaxgd.gradcheck.singular import where_not_finite

# The relative difference, above the measured noise, that two derivatives by formulas may have. It is far below the
# limit for quotients, which add an error.
_DIRECT = 1e-9
# A gradient is not continuous if it changes by more than this relative part when the point moves by one rounding.
_JUMPY = 1e-2
# A claimed gradient of 0 is right if the uncertainty of the slope is below this part of the variation of f.
_NEGLIGIBLE = 1e-6


class Examination:
    """The examination of all leaves at one point."""

    def __init__(
        self, derivatives: Derivatives, claims: list[Claim], n: int, rtol: float | None, rng: np.random.Generator
    ) -> None:
        self.d, self.claims, self.n, self.rtol, self.rng = derivatives, claims, n, rtol, rng
        self.notes = derivatives.notes
        self.ladders = Ladders(derivatives)
        self.along: dict[str, Any] = {}
        self.forward_along: Any = None

    def run(self) -> tuple[LeafReport, ...]:
        """Examine every leaf."""
        states = self.ladders.short(self.n)
        with self.ladders.precisely():
            self.along = {values.name: values.along_all() for values in self.d.values}
            if self.d.forward is not None:
                self.forward_along = self.d.forward.along_all()
        if unsettled := [s.index for s in states if not self._settled(s)]:
            longer = self.ladders.long(unsettled)
            by_index = {s.index: s for s in longer}
            states = [by_index.get(s.index, s) for s in states]
        return tuple(self._report(s) for s in states)

    def _projections(self, values: Values, state: State) -> list[float]:
        """Return the claimed derivatives along the directions tried in a leaf."""
        return [float(x) for x in self.along[values.name][state.index][: len(state.quotients)]]

    # Comparisons.

    def _settled(self, state: State) -> bool:
        if any(i == state.index for _, i in self.d.not_finite):
            return False
        return all(
            self._against_quotients(values, state).verdict is Verdict.RIGHT and not self._suspicious(values, state)
            for values in self.d.saying(state.index)
        )

    def _against_quotients(self, values: Values, state: State) -> Check:
        """Compare one claim on one leaf with the quotients in all directions."""
        name = f"{values.name} = quotient"
        p = self._projections(values, state)
        scale = max(rms(p), rms([q.value for q in state.quotients]))
        if state.long and not any(p) and all(s.flat for s in state.samples):
            return Check(name, Verdict.RIGHT, Cause.AGREES, 0.0, 0.0, "f is constant here")
        quotients = list(state.quotients)
        if state.index in self.d.with_minor and len(quotients) > MINOR:
            # The other elements contribute a thousand times more, so the estimate of rounding within f is too low here.
            quotients[MINOR] = dataclasses.replace(quotients[MINOR], error=10 * quotients[MINOR].error)
        pairs = list(zip(p, quotients, strict=True))
        sizes, noises = self._sizes_along(values, state, p)
        noise = max(noises)
        resolution = COARSE_RESOLUTION if self.ladders.narrow else RESOLUTION
        results = [
            against_quotient(a, q, own_noise, max(size, abs(q.value)), values.floor, self.rtol, resolution)
            for (a, q), size, own_noise in zip(pairs, sizes, noises, strict=True)
        ]
        known = [(a, q.value) for a, q in pairs if math.isfinite(q.value)]
        error = rms([a - b for a, b in known]) if known else math.nan
        size = _told(rms([b for _, b in known]), scale)
        tolerance = max((t for _, _, t in results if math.isfinite(t)), default=math.inf)
        verdict, cause = combined([(v, c) for v, c, _ in results])
        if verdict is Verdict.WRONG and error <= tolerance:
            # Report the one wrong direction: its error is too small to show in the mean of all.
            k = next(k for k, (v, _, _) in enumerate(results) if v is Verdict.WRONG)
            error, size, tolerance = abs(pairs[k][0] - pairs[k][1].value), abs(pairs[k][1].value), results[k][2]
        if verdict is Verdict.RIGHT and state.index in self.d.with_minor and len(results) > MINOR:
            hidden = results[MINOR][:2] == (Verdict.CANNOT_TELL, Cause.NOISE)
            note = (
                f"elements of {self.d.prepared.leaves[state.index].name} with a far smaller gradient: "
                "rounding in f hides them"
            )
            if hidden and pairs[MINOR][1].error > 0 and note not in self.notes:
                self.notes.append(note)
        if cause is Cause.NOISE and not any(p) and SAFETY * state.error <= _NEGLIGIBLE * state.variation:
            # The claim is 0, and any hidden slope is negligible compared with the variation of f.
            return Check(name, Verdict.RIGHT, Cause.AGREES, 0.0, 0.0, "the gradient is 0 here")
        note = ""
        if (
            cause is Cause.NOISE
            and not self.ladders.narrow
            and noise > _JUMPY * rms(p)
            and SAFETY * state.error <= 0.1 * scale
        ):
            # The claim is noisy here, although f is not.
            return Check(name, verdict, Cause.UNSTEADY, _ratio(error, size), _ratio(tolerance, size))
        if cause is Cause.NOISE:
            cause = Cause.NO_FLOAT64 if self.ladders.narrow else cause
            note = f"its derivative along a direction is {scale:.1e}, known to ±{tolerance:.1e}"
        return Check(name, verdict, cause, _ratio(error, size), _ratio(tolerance, size), note)

    def _sizes_along(self, values: Values, state: State, p: list[float]) -> tuple[list[float], list[float]]:
        """Return the typical size and the noise of a claim along each direction."""
        if not isinstance(values, ReverseValues):
            return [max(rms(p), rms([q.value for q in state.quotients]))] * len(p), [0.0] * len(p)
        sizes, noises = values.sizes_along(state.index)
        return [float(x) for x in sizes[: len(p)]], [float(x) for x in noises[: len(p)]]

    def _suspicious(self, values: Values, state: State) -> bool:
        """Return True if a claim differs from the quotients by more than rounding explains, in enough directions.

        The difference may be too small to fail the leaf, if only one small element is wrong.
        """
        if values.floor > self.d.floor or self.rtol is not None or not isinstance(values, ReverseValues):
            return False
        p = self._projections(values, state)
        sizes, noises = self._sizes_along(values, state, p)
        off = [
            abs(a - q.value) > 2 * SAFETY * q.error + NOISES * noise + 1e-11 * size
            for a, q, size, noise in zip(p, state.quotients, sizes, noises, strict=True)
            if q.shape is Shape.SMOOTH
        ]
        # One of a few directions is enough to try more; one of many may be chance.
        return bool(sum(off) >= (2 if state.long else 1))

    def _directly(self, values: Values, state: State) -> Check | None:
        """Compare a claim with autodiff directly, without a quotient."""
        reference: Values | None = self.d.reverse or self.d.forward
        if reference is None or values is reference or (values.name, state.index) in self.d.not_finite:
            return None
        name, i = f"{values.name} = autodiff", state.index
        noise, single = 0.0, False
        if isinstance(values, ReverseValues) and isinstance(reference, ReverseValues):
            pairs = list(zip(values.cotangents[i], reference.cotangents[i], strict=True))
            difference, size = max((norm(a - b), norm(b)) for a, b in pairs)
            scale = max(max(norm(a), norm(b)) for a, b in pairs)
            noise = NOISES / SAFETY * (values.noise[i] + reference.noise[i])
            single = self.rtol is None and bool(locate.outliers(values, reference, i).any())
        else:
            p = self._projections(values, state)
            q = [float(x) for x in self._autodiff_along(i)[: len(p)]]
            difference, size = rms([a - b for a, b in zip(p, q, strict=True)]), rms(q)
            scale = max(rms(p), size)
        floor = max([_DIRECT, *(x.floor for x in (values, reference) if x.floor > FLOOR)])
        check = self._checked(name, difference, noise, (scale, size), floor)
        return _in_elements(check) if single and check.verdict is not Verdict.WRONG else check

    def _autodiff_along(self, leaf: int) -> Any:
        return self.along[AUTODIFF][leaf] if AUTODIFF in self.along else self.forward_along[leaf]

    def _modes(self, state: State) -> Check | None:
        """Compare forward mode with reverse mode: ⟨w, Ju⟩ = ⟨Jᵀw, u⟩."""
        i = state.index
        if self.forward_along is None or self.d.reverse is None or (AUTODIFF, i) in self.d.not_finite:
            return None
        a, b = self.forward_along[i], self.along[AUTODIFF][i]
        error = float(np.max(self.d.reverse.sizes_along(i)[1])) + state.error / SAFETY
        size = rms(list(b))
        sizes = max(rms(list(a)), size), size
        check = self._checked("forward = reverse", float(np.max(np.abs(a - b))), error, sizes, self.d.reverse.floor)
        # If the uncertainty is as large as the derivatives, the comparison with the quotients reports this.
        return None if check.verdict is Verdict.CANNOT_TELL else check

    def _checked(self, name: str, difference: float, error: float, sizes: tuple[float, float], floor: float) -> Check:
        """Judge a difference relative to the larger of the two derivatives; report it relative to the reference."""
        scale, size = sizes[0], _told(sizes[1], sizes[0])
        if scale == 0 and difference == 0:
            return Check(name, Verdict.RIGHT, Cause.AGREES, 0.0, 0.0)
        verdict, tolerance = judge(difference, error, scale, floor, self.rtol)
        cause = {Verdict.RIGHT: Cause.AGREES, Verdict.WRONG: Cause.DIFFERS, Verdict.CANNOT_TELL: Cause.NOISE}[verdict]
        return Check(name, verdict, cause, _ratio(difference, size), _ratio(tolerance, size))

    # Reports.

    def _report(self, state: State) -> LeafReport:
        i = state.index
        leaf = self.d.prepared.leaves[i]
        if not math.prod(leaf.shape):
            return LeafReport(leaf.name, leaf.shape, leaf.dtype, ())
        report = LeafReport(leaf.name, leaf.shape, leaf.dtype, (), slope=self._slope(state))
        checks: list[Check] = []
        saying = self.d.saying(i)
        by_quotient = {values.name: self._against_quotients(values, state) for values in saying}
        for values in saying:
            direct, check = self._directly(values, state), by_quotient[values.name]
            where = self.d.not_finite.get((values.name, i))
            if where is not None:
                with self.ladders.precisely():
                    check, worst, pattern = where_not_finite(check.name, where, self.ladders.measure, i)
                report = dataclasses.replace(report, worst=worst, pattern=pattern, searched=min(8, int(where.sum())))
            elif self._needs_a_look(values, state, direct, check):
                looked = self._look(values, state, by_quotient)
                check = self._after_looking(values, state, check, looked)
                if direct and direct.verdict is Verdict.WRONG and check.cause is Cause.KINK:
                    # Several subgradients are right at a kink, and autodiff returns only one of them.
                    direct = dataclasses.replace(direct, verdict=Verdict.CANNOT_TELL, cause=Cause.KINK)
                if not report.worst and Verdict.WRONG in (check.verdict, direct.verdict if direct else None):
                    whole = values.elements(i) if isinstance(values, ReverseValues) else None
                    forgotten = self._forgets(values, i)
                    report = dataclasses.replace(
                        report,
                        worst=locate.worst(looked, leaf.shape),
                        pattern=forgotten or locate.pattern(looked, whole, leaf.shape, self.d.prepared.axes),
                        searched=len(looked.index),
                    )
            checks += [c for c in (direct, check) if c is not None]
            if isinstance(values, ReverseValues) and not values.linear[i]:
                note = "Jᵀ(cw) is not cJᵀw for large and small c"
                checks.append(Check(f"{values.name} is linear", Verdict.WRONG, Cause.DIFFERS, math.nan, 0.0, note))
        if (modes := self._modes(state)) is not None:
            checks.append(modes)
        return dataclasses.replace(report, checks=(*checks, *self._misfits(leaf.name)))

    def _needs_a_look(self, values: Values, state: State, direct: Check | None, check: Check) -> bool:
        if check.cause is Cause.KINK or Verdict.WRONG in (check.verdict, direct.verdict if direct else None):
            return True
        return check.verdict is Verdict.RIGHT and self._suspicious(values, state)

    def _look(self, values: Values, state: State, checks: dict[str, Check]) -> locate.Looked:
        """Compare single elements of a leaf with another derivative that is right, or with quotients if none is."""
        i = state.index
        size = int(np.size(self.d.shared.v[i]))
        right = [
            other
            for other in self.d.saying(i)
            if other is not values and isinstance(other, ReverseValues) and checks[other.name].verdict is Verdict.RIGHT
        ]
        with self.ladders.precisely():
            if right:
                candidates = np.sort(self.rng.choice(size, min(size, locate.ALL), replace=False))
                return locate.against_values(values, right[0], i, size, candidates)
            settled = [q for q in state.quotients if math.isfinite(q.step)]
            step = min((q.step for q in settled), default=2.0**-8)
            noise = max((q.noise for q in settled), default=0.0)
            return locate.against_quotients(values, self.ladders.measure, i, step, noise, self.rng)

    def _after_looking(self, values: Values, state: State, check: Check, looked: locate.Looked) -> Check:
        """Return the check after the search of single elements.

        A kink explains a difference only in elements that have a kink, and only if the claim is between the one-sided
        slopes. A leaf with a small difference is wrong if a single element is off by more than 1% of that element.
        """
        if check.verdict is Verdict.RIGHT and looked.wrong.any():
            c, r = looked.claimed[looked.wrong], looked.reference[looked.wrong]
            return _in_elements(check) if np.any(np.abs(c - r) > 1e-2 * np.abs(r)) else check
        if check.cause is not Cause.KINK:
            return check
        if looked.wrong.any():
            return dataclasses.replace(check, verdict=Verdict.WRONG, cause=Cause.DIFFERS)
        if looked.kink.any() and len(looked.index) > 1:
            shape = self.d.prepared.leaves[state.index].shape
            check = dataclasses.replace(check, note=f"at {locate.places(looked.index[looked.kink], shape)}")
        if len(looked.index) == 1:
            pairs = zip(self._projections(values, state), state.quotients, strict=True)
            if all(outside_the_kink(a, q, abs(q.value), values.floor) for a, q in pairs):
                note = "outside the range of the one-sided slopes at a kink"
                return dataclasses.replace(check, verdict=Verdict.WRONG, cause=Cause.DIFFERS, note=note)
        return check

    def _forgets(self, values: Values, leaf: int) -> str:
        """Return a sentence if the rule of a scalar f ignores its cotangent, otherwise ""."""
        w = self.d.shared.cotangents
        if not isinstance(values, ReverseValues) or len(w) > 1 or w[0].ndim > 1 or np.iscomplexobj(w[0]):
            return ""
        first, *others = values.cotangents[leaf]
        same = np.any(first) and all(norm(g - first) <= 1e-6 * norm(first) for g in others)
        return "the rule ignores its cotangent: is a factor of it missing" if same else ""

    def _misfits(self, name: str) -> list[Check]:
        return [
            Check(f"{claim.name} fits", Verdict.WRONG, Cause.STRUCTURE, math.nan, 0.0, text)
            for claim in self.claims
            for leaf, text in claim.findings
            if leaf == name
        ]

    def _slope(self, state: State) -> float:
        """Return the smallest Taylor slope over the directions, for the first claim."""
        saying = self.d.saying(state.index)
        if not saying:
            return math.nan
        p = self._projections(saying[0], state)
        slopes = [s.slope(a, q.noise) for s, q, a in zip(state.samples, state.quotients, p, strict=True)]
        return min((s for s in slopes if math.isfinite(s)), default=math.nan)


def _told(size: float, scale: float) -> float:
    """Return the size that divides a difference in the report: the reference's, or the claim's if far larger."""
    return size if size > 1e-3 * scale else scale


def _in_elements(check: Check) -> Check:
    return dataclasses.replace(check, verdict=Verdict.WRONG, cause=Cause.DIFFERS, note="in single elements")


def _ratio(x: float, scale: float) -> float:
    return x / scale if scale else (0.0 if x == 0 else math.inf)
