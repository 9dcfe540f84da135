"""The examination of each leaf in float64: quotients first a few, then many where a few do not settle it."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgd.gradcheck import locate
from jaxgd.gradcheck.claims import Claim
from jaxgd.gradcheck.judge import FLOOR, against_quotient, judge, outside_the_kink
from jaxgd.gradcheck.lanes import Lanes
from jaxgd.gradcheck.measure import ForwardValues, Measure, ReverseValues, Sample, Values
from jaxgd.gradcheck.measure import directions as random_directions
from jaxgd.gradcheck.native import NOISES, Native, jittered, stacked
from jaxgd.gradcheck.problem import Prepared, in_float64, narrowest, raised
from jaxgd.gradcheck.programs import Forward, Reverse, Shared, Value
from jaxgd.gradcheck.quotient import SAFETY, Quotient, Shape, ladder
from jaxgd.gradcheck.report import Cause, Check, Element, LeafReport, Verdict

# Two derivatives by formulas, no quotient between them, agree to this and to their measured noise.
_DIRECT = 1e-9
_SINGLE_EPS = float(np.finfo(np.float32).eps)


@dataclasses.dataclass
class _Leaf:
    """What is known of one leaf so far."""

    index: int
    samples: list[Sample]
    quotients: list[Quotient]
    long: bool = False


class Examination:
    """One point, all its leaves."""

    def __init__(
        self,
        prepared: Prepared,
        claims: Sequence[Claim],
        w: list[np.ndarray],
        native: Native,
        directions: int,
        rtol: float | None,
        rng: np.random.Generator,
    ) -> None:
        self.prepared, self.claims, self.native, self.rtol, self.rng = prepared, claims, native, rtol, rng
        self.problem, self.n = prepared.problem, directions
        self.w = w
        self.lanes = Lanes(without_vmap=native.vmap_differs)
        self.notes: list[str] = []
        self.reverse: ReverseValues | None = None
        self.values: list[Values] = []
        self.not_finite: dict[tuple[str, int], np.ndarray] = {}
        self.in_float64 = True
        self.dtype = "float64"

    # The order of things.

    def run(self) -> tuple[LeafReport, ...]:
        """Examine every leaf."""
        with in_float64():
            self.wide = raised(self.prepared.v), raised(self.prepared.traced)
        self._derive()
        self._measure_ready()
        states = self._quotients([(i, d) for i in range(len(self.prepared.v)) for d in range(self.n)], long=False)
        open_ = [s.index for s in states if not self._settled(s)]
        if open_:
            last = len(self.shared.directions[0]) - 1
            longer = self._quotients([(i, d) for i in open_ for d in range(last)], long=True)
            by_index = {s.index: s for s in longer}
            states = [by_index.get(s.index, s) for s in states]
        return tuple(self._report(s) for s in states)

    @property
    def evaluations(self) -> int:
        """How often f was evaluated, natively and in float64; gradients are not counted."""
        here = sum(n for fn, n in self.lanes.runs.items() if isinstance(fn, Value))
        return here + 2 + len(self.native.consistency)

    def summary(self, seed: int) -> str:
        """What was done, in a line."""
        words = f"1 point, {self.n} directions a leaf, {self.evaluations} evaluations of f in {self.dtype}, seed {seed}"
        names = [v.name for v in self.values]
        return words + (f"; {', '.join(names)} against difference quotients" if names else "")

    # Derivatives: by autodiff and as claimed.

    def _derive(self) -> None:
        tried: list[Exception] = []
        with in_float64():
            v, traced = self.wide
            drawn = [random_directions(np.asarray(x), max(self.n, 4), self.rng) for x in v]
        self.shared = Shared(v, traced, drawn, self.w)
        try:
            self.reverse = self._reverse_values("autodiff", Reverse(self.problem))
        except Exception as error:
            tried.append(error)
            self.notes.append(f"reverse mode: {_first_line(error)}")
        claimed: list[Values] = []
        for claim in self.claims:
            if claim.reverse is not None:
                claimed.append(self._reverse_values(claim.name, claim.reverse))
        blank = [np.zeros(np.shape(x), bool) for x in v]
        for (_, i), where in self.not_finite.items():
            blank[i] |= where
        self.shared = self.shared._replace(
            directions=[np.where(b, 0, d) if b.any() else d for b, d in zip(blank, drawn, strict=True)]
        )
        for values in (self.reverse, *claimed):
            if isinstance(values, ReverseValues):
                values.shared = self.shared
        for claim in self.claims:
            if claim.forward is not None:
                claimed.append(ForwardValues(claim.name, claim.forward, self.shared, self.lanes, FLOOR))
        self.forward: ForwardValues | None = ForwardValues(
            "forward mode", Forward(self.problem), self.shared, self.lanes, FLOOR
        )
        try:
            with in_float64():
                self._along(self.forward, 0, 0)
        except Exception as error:
            self.forward = None
            self.notes.append(f"forward mode: {_first_line(error)}")
            if self.reverse is None and not claimed:
                # f has no derivative at all: what the user's own code raised says it best.
                raise tried[0] from None
        if self.reverse is not None:
            self.values = [*claimed, self.reverse]
        elif self.forward is not None:
            self.values = [*claimed, self.forward]
        else:
            self.values = claimed

    def _reverse_values(self, name: str, fn: Callable[..., Any]) -> ReverseValues:
        """A derivative's values in float64; where it cannot run in float64, in the user's dtype."""
        try:
            with in_float64():
                return self._reverse_values_at(name, fn, *self.wide)
        except Exception:
            with jax.default_matmul_precision("highest"):
                values = self._reverse_values_at(name, fn, self.prepared.v, self.prepared.traced)
        self.notes.append(f"{name} in float64: it cannot run there, its values are {self.prepared.leaves[0].dtype}")
        return values

    def _reverse_values_at(self, name: str, fn: Callable[..., Any], v: list[Any], traced: list[Any]) -> ReverseValues:
        n = len(self.w[0])
        points = jittered(v, self.rng)
        at = stacked([points[0]] * n + points[1:])
        w = [np.concatenate([x, x[:1], x[:1]]) for x in self.w]
        _, stack = self.lanes(fn, traced, (at, w))
        eps = max((float(jnp.finfo(g.dtype).eps) for g in stack), default=0.0)
        one = [x[0] for x in self.w]
        eps = max(eps, _narrow_eps(lambda v: fn(traced, (v, one))[1], v))
        wide = [g.astype(complex if np.iscomplexobj(g) else float) for g in stack]
        noise = []
        for i, g in enumerate(wide):
            bad = ~np.isfinite(g).all(axis=0)
            if bad.any():
                self.not_finite[name, i] = bad
            wide[i] = g = np.where(bad, 0, g)
            moved = max(_norm(g[n] - g[0]), _norm(g[n + 1] - g[0]))
            noise.append(moved + 10 * eps * _norm(g[0]))
        floor = max(FLOOR, 100 * eps)
        return ReverseValues(name, [g[:n] for g in wide], self.shared, floor, noise)

    # Difference quotients.

    def _measure_ready(self) -> None:
        """Evaluate f once in float64; where it cannot, in the user's dtype."""
        v, traced = self.wide
        with in_float64():
            eps = _narrow_eps(lambda v: self.problem(v, traced), v)
            self.measure = Measure(self.problem, self.shared, self.lanes, eps)
            try:
                self.measure.samples([(0, 0)], ladder(2.0**-6, 2))
            except Exception as error:
                self.in_float64 = False
                self.dtype = str(self.prepared.v[0].dtype)
                self.notes.append(f"f in float64: {_first_line(error)}")
        if self.in_float64:
            if eps > 1e-10:
                self.notes.append("f in float64 throughout: it computes in a narrower dtype inside")
            return
        native_v = self.prepared.v
        self.shared = self.shared._replace(
            v=native_v,
            traced=self.prepared.traced,
            directions=[d.astype(x.dtype) for d, x in zip(self.shared.directions, native_v, strict=True)],
        )
        for values in (*self.values, self.forward):
            if values is not None:
                values.shared = self.shared  # type: ignore[attr-defined]
        eps = max(float(jnp.finfo(x.dtype).eps) for x in native_v)
        self.measure = Measure(self.problem, self.shared, self.lanes, eps)

    def _quotients(self, which: list[tuple[int, int]], long: bool) -> list[_Leaf]:
        fine = self.measure.eps < 1e-10
        if long:
            h = ladder(1.0, 15 if fine else 8)
        else:
            h = ladder(2.0**-6, 4, 2.0**-22) if fine else ladder(2.0**-3, 4, 2.0**-13)
        with self._precisely():
            samples = self.measure.samples(which, h)
        states: dict[int, _Leaf] = {}
        for (i, _), sample in zip(which, samples, strict=True):
            state = states.setdefault(i, _Leaf(i, [], [], long))
            state.samples.append(sample)
            state.quotients.append(sample.analyse())
        return list(states.values())

    def _precisely(self) -> Any:
        return in_float64() if self.in_float64 else jax.default_matmul_precision("highest")

    def _along(self, values: Values, leaf: int, direction: int) -> float:
        start, stop = np.array([0]), np.array([int(np.size(self.shared.v[leaf]))])
        return float(values.along(leaf, direction, start, stop)[0])

    def _projections(self, values: Values, state: _Leaf) -> list[float]:
        with self._precisely():
            return [self._along(values, state.index, d) for d in range(len(state.quotients))]

    # Verdicts.

    def _settled(self, state: _Leaf) -> bool:
        if any(i == state.index for _, i in self.not_finite):
            return False
        return all(self._against_quotients(values, state).verdict is Verdict.RIGHT for values in self.values)

    def _against_quotients(self, values: Values, state: _Leaf) -> Check:
        """One claim on one leaf against all directions' quotients."""
        name = f"{values.name} = quotient"
        p = self._projections(values, state)
        finite = [abs(q.value) for q in state.quotients if math.isfinite(q.value)]
        scale = max(_rms(p), _rms(finite))
        if not any(p) and all(s.constant for s in state.samples):
            # Nothing moves f: certain once steps as large as the leaf itself were tried.
            if state.long:
                return Check(name, Verdict.RIGHT, Cause.AGREES, 0.0, 0.0, "f does not depend on it")
            return Check(name, Verdict.CANNOT_TELL, Cause.NOISE, 0.0, math.inf)
        results = [
            against_quotient(claimed, q, scale, values.floor, self.rtol)
            for claimed, q in zip(p, state.quotients, strict=True)
        ]
        errors = [abs(a - q.value) for a, q in zip(p, state.quotients, strict=True) if math.isfinite(q.value)]
        error = max(errors, default=math.nan) / scale if scale else 0.0
        tolerance = max((t for _, _, t in results if math.isfinite(t)), default=math.inf)
        tolerance = tolerance / scale if scale else 0.0
        verdict, cause = _combined([(v, c) for v, c, _ in results])
        if verdict is Verdict.CANNOT_TELL and cause is Cause.NOISE and not self.in_float64:
            cause = Cause.NO_FLOAT64
        note = ""
        if verdict is Verdict.CANNOT_TELL and cause in (Cause.NOISE, Cause.NO_FLOAT64):
            note = f"its derivative along a direction is {scale:.1e}, known to ±{tolerance * scale:.1e}"
        return Check(name, verdict, cause, error, tolerance, note)

    def _directly(self, values: Values, state: _Leaf) -> Check | None:
        """A claim against autodiff, no quotient between them."""
        reference = self.reverse if self.reverse is not None else self.forward
        if reference is None or values is reference:
            return None
        name, i = f"{values.name} = autodiff", state.index
        if isinstance(values, ReverseValues) and isinstance(reference, ReverseValues):
            pairs = list(zip(values.cotangents[i], reference.cotangents[i], strict=True))
            difference = max(_norm(a - b) for a, b in pairs)
            scale = max(max(_norm(a), _norm(b)) for a, b in pairs)
            noise = NOISES / SAFETY * (values.noise[i] + reference.noise[i])
        else:
            p, q = self._projections(values, state), self._projections(reference, state)
            difference, scale = max(abs(a - b) for a, b in zip(p, q, strict=True)), max(_rms(p), _rms(q))
            noise = 0.0
        floor = max(_DIRECT, *(x.floor for x in (values, reference) if x.floor > FLOOR), 0.0)
        if scale == 0:
            return Check(name, Verdict.RIGHT, Cause.AGREES, 0.0, 0.0)
        verdict, tolerance = judge(difference, noise, scale, floor, self.rtol)
        cause = {Verdict.RIGHT: Cause.AGREES, Verdict.WRONG: Cause.DIFFERS, Verdict.CANNOT_TELL: Cause.NOISE}[verdict]
        return Check(name, verdict, cause, difference / scale, tolerance / scale)

    def _modes(self, state: _Leaf) -> Check | None:
        """Forward mode against reverse mode."""
        if self.forward is None or self.reverse is None:
            return None
        a, b = self._projections(self.forward, state), self._projections(self.reverse, state)
        scale = max(_rms(a), _rms(b))
        difference = max(abs(x - y) for x, y in zip(a, b, strict=True))
        name = "forward = reverse"
        if scale == 0:
            return Check(name, Verdict.RIGHT, Cause.AGREES, 0.0, 0.0)
        error = self.reverse.noise[state.index] * self._step_length(state.index)
        error += max((q.error for q in state.quotients if math.isfinite(q.error)), default=0.0) / SAFETY
        verdict, tolerance = judge(difference, error, scale, self.reverse.floor, self.rtol)
        if verdict is Verdict.CANNOT_TELL:
            # Nothing contradicts; how far both are off is for the quotients to say.
            return None
        cause = Cause.AGREES if verdict is Verdict.RIGHT else Cause.DIFFERS
        return Check(name, verdict, cause, difference / scale, tolerance / scale)

    def _step_length(self, leaf: int) -> float:
        return float(np.max(np.abs(self.shared.directions[leaf][0]), initial=0.0))

    # Reports.

    def _report(self, state: _Leaf) -> LeafReport:
        leaf = self.prepared.leaves[state.index]
        if not math.prod(leaf.shape):
            return LeafReport(leaf.name, leaf.shape, leaf.dtype, ())
        checks: list[Check] = []
        pattern, worst, searched = "", (), 0
        by_quotient = {v.name: self._against_quotients(v, state) for v in self.values}
        for values in self.values:
            direct = self._directly(values, state)
            check = by_quotient[values.name]
            infinite = self._where_not_finite(values, state)
            if infinite is not None:
                check, worst, pattern, searched = infinite
            elif check.cause is Cause.KINK or Verdict.WRONG in (check.verdict, direct.verdict if direct else None):
                looked = self._look(values, state, by_quotient)
                check = self._after_looking(values, state, check, looked)
                if not worst and (check.verdict is Verdict.WRONG or (direct and direct.verdict is Verdict.WRONG)):
                    whole = values.elements(state.index) if isinstance(values, ReverseValues) else None
                    worst, searched = locate.worst(looked, leaf.shape), len(looked.index)
                    pattern = locate.pattern(looked, whole, leaf.shape, self.prepared.axes)
            checks += [c for c in (direct, check) if c is not None]
        if (modes := self._modes(state)) is not None:
            checks.append(modes)
        checks += self._misfits(leaf.name)
        slope = self._slope(state)
        return LeafReport(leaf.name, leaf.shape, leaf.dtype, tuple(checks), slope, pattern, worst, searched)

    def _look(self, values: Values, state: _Leaf, checks: dict[str, Check]) -> locate.Looked:
        """Elements of a leaf: against another derivative that is right if there is one, else against quotients."""
        i = state.index
        size = int(np.size(self.shared.v[i]))
        right = [
            other
            for other in self.values
            if other is not values and isinstance(other, ReverseValues) and checks[other.name].verdict is Verdict.RIGHT
        ]
        with self._precisely():
            if right:
                n = min(size, locate.ALL)
                candidates = np.sort(self.rng.choice(size, n, replace=False))
                return locate.against_values(values, right[0], i, size, candidates)
            settled = [q for q in state.quotients if math.isfinite(q.step)]
            step = min((q.step for q in settled), default=2.0**-8)
            noise = max((q.noise for q in settled), default=0.0)
            return locate.against_quotients(values, self.measure, i, step, noise, self.rng)

    def _after_looking(self, values: Values, state: _Leaf, check: Check, looked: locate.Looked) -> Check:
        """A kink explains a difference, but not one in elements where there is no kink, nor one beyond both sides."""
        if check.cause is not Cause.KINK:
            return check
        if looked.wrong.any():
            return Check(check.name, Verdict.WRONG, Cause.DIFFERS, check.error, check.tolerance)
        p = self._projections(values, state)
        size = int(np.size(self.shared.v[state.index]))
        if size == 1 and all(
            outside_the_kink(a, q, abs(q.value), values.floor) for a, q in zip(p, state.quotients, strict=True)
        ):
            note = "beyond the slopes on both sides of a kink"
            return Check(check.name, Verdict.WRONG, Cause.DIFFERS, check.error, check.tolerance, note)
        return check

    def _where_not_finite(
        self, values: Values, state: _Leaf
    ) -> tuple[Check, tuple[Element, ...], str, int] | None:
        """A claim's elements that are infinite or NaN: wrong where f is smooth in them."""
        where = self.not_finite.get((values.name, state.index))
        if where is None:
            return None
        name, leaf = f"{values.name} = quotient", self.prepared.leaves[state.index]
        index = np.flatnonzero(where)[:8]
        x = np.asarray(self.shared.v[state.index])
        own = random_directions(x, 1, np.random.default_rng(0))[-1]
        shared = self.shared._replace(directions=list(self.shared.directions))
        units = []
        for i in index:
            unit = np.zeros(x.size, own.dtype)
            unit[i] = own.reshape(-1)[i]
            units.append(unit.reshape(x.shape))
        shared.directions[state.index] = np.stack([*units, *units[:1]])
        for i in range(len(shared.directions)):
            if i != state.index:
                shared.directions[i] = np.zeros((len(units) + 1, *np.shape(shared.v[i])))
        measure = Measure(self.problem, shared, self.lanes, self.measure.eps)
        with self._precisely():
            samples = measure.samples([(state.index, d) for d in range(len(units))], ladder(1.0, 15))
        quotients = [s.analyse() for s in samples]
        smooth = [
            (i, q)
            for i, q in zip(index, quotients, strict=True)
            if q.shape is Shape.SMOOTH and SAFETY * q.error <= max(1e-3 * abs(q.value), 100 * q.noise)
        ]
        many = f"{int(where.sum())} of {x.size} elements are infinite or NaN" if x.size > 1 else "it is infinite or NaN"
        if smooth:
            worst = tuple(
                Element(tuple(int(k) for k in np.unravel_index(i, x.shape)), math.nan, q.value / abs(own.reshape(-1)[i]))
                for i, q in smooth
            )
            check = Check(name, Verdict.WRONG, Cause.GRADIENT_NOT_FINITE, math.nan, 0.0)
            return check, worst, many, len(index)
        shapes = [q.shape for q in quotients]
        for shape, cause in (
            (Shape.KINK, Cause.KINK),
            (Shape.STEEP, Cause.STEEP),
            (Shape.JUMP, Cause.JUMP),
            (Shape.EDGE, Cause.EDGE),
            (Shape.NOT_FINITE, Cause.NOT_FINITE),
        ):
            if shape in shapes:
                return Check(name, Verdict.CANNOT_TELL, cause, math.nan, math.inf, f"and {many}"), (), "", 0
        return Check(name, Verdict.CANNOT_TELL, Cause.NOISE, math.nan, math.inf, f"and {many}"), (), "", 0

    def _misfits(self, name: str) -> list[Check]:
        return [
            Check(f"{claim.name} fits", Verdict.WRONG, Cause.STRUCTURE, math.nan, 0.0, text)
            for claim in self.claims
            for leaf, text in claim.findings
            if leaf == name
        ]

    def _slope(self, state: _Leaf) -> float:
        """The smallest Taylor slope over the directions, for the claim that is checked first."""
        if not self.values:
            return math.nan
        p = self._projections(self.values[0], state)
        slopes = [s.slope(a, q.noise) for s, q, a in zip(state.samples, state.quotients, p, strict=True)]
        slopes = [s for s in slopes if math.isfinite(s)]
        return min(slopes, default=math.nan)


def _combined(results: list[tuple[Verdict, Cause]]) -> tuple[Verdict, Cause]:
    """One verdict from the directions': wrong if one is; right if all are, or two and what is left is out of reach."""
    for verdict, cause in results:
        if verdict is Verdict.WRONG:
            return verdict, cause
    causes = [cause for verdict, cause in results if verdict is Verdict.CANNOT_TELL]
    if not causes:
        return Verdict.RIGHT, Cause.AGREES
    for cause in (Cause.KINK, Cause.JUMP, Cause.STEEP):
        if cause in causes:
            return Verdict.CANNOT_TELL, cause
    if len(results) - len(causes) >= 2:
        return Verdict.RIGHT, Cause.AGREES
    for cause in (Cause.EDGE, Cause.NOT_FINITE):
        if cause in causes:
            return Verdict.CANNOT_TELL, cause
    return Verdict.CANNOT_TELL, Cause.NOISE


def _narrow_eps(fn: Callable[[list[Any]], Any], v: list[Any]) -> float:
    """The relative rounding of the narrowest dtype that fn computes with; float64's where that cannot be traced."""
    try:
        return max(float(np.finfo(float).eps), float(jnp.finfo(narrowest(fn, v)).eps))
    except Exception:
        return float(np.finfo(float).eps)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]


def _rms(x: Sequence[float]) -> float:
    values = np.abs(np.asarray([y for y in x if math.isfinite(y)], float))
    largest = float(np.max(values, initial=0.0))
    return largest * float(np.sqrt(np.mean((values / largest) ** 2))) if largest else 0.0


def _norm(x: np.ndarray) -> float:
    """Euclidean length, with squares kept in range; infinite if x is not finite."""
    size = np.abs(x)
    largest = float(np.max(size, initial=0.0))
    if not 0 < largest < math.inf:
        return 0.0 if largest == 0 else math.inf
    return largest * float(np.sqrt(np.sum((size / largest) ** 2)))
