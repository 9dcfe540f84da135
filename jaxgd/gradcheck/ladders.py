"""Evaluate F(h) = ⟨w, f(x + h u)⟩ along random directions u in each leaf.

F is evaluated at a few steps h first, then at many for leaves in doubt. A ladder is a sequence of steps h, each a
quarter of the one before. The short ladder ends in a far smaller probe step.
"""

import dataclasses
import math
from typing import Any

import jax

from jaxgd.gradcheck.derive import Derivatives, first_line
from jaxgd.gradcheck.dtypes import coarsest_eps, eps_of
from jaxgd.gradcheck.measure import Measure, Sample
from jaxgd.gradcheck.problem import in_float64
from jaxgd.gradcheck.quotient import Quotient, ladder

# Time limit, in seconds, for all long ladders together. Only a slow f reaches it.
_SECONDS = 60.0
# An eps above this limit means that f computes in a dtype narrower than float64.
_NARROW = 1e-10


@dataclasses.dataclass
class State:
    """F along the directions of one leaf, on the long ladder of steps if `long` is true, otherwise on the short one."""

    index: int
    samples: list[Sample]
    quotients: list[Quotient]
    long: bool

    def analyse(self, eps: float) -> None:
        """Compute the quotients. Repeat those for which the rounding of x + hu exceeds the known rounding.

        That rounding grows with the slope of F.
        """
        size = max(sample.variation for sample in self.samples)
        for sample in self.samples:
            sample.size = size
        self.quotients = [sample.analyse() for sample in self.samples]
        moved = 8 * eps * max((abs(q.value) for q in self.quotients if math.isfinite(q.value)), default=0.0)
        for k, sample in enumerate(self.samples):
            if moved > sample.rounding:
                sample.rounding += moved
                self.quotients[k] = sample.analyse()

    @property
    def variation(self) -> float:
        """The variation of F for steps h ≤ 1, along the direction where the variation is smallest."""
        return min(sample.variation for sample in self.samples)

    @property
    def error(self) -> float:
        """The largest estimated error of the quotients in this leaf."""
        return max((max(q.error, q.hidden) for q in self.quotients if math.isfinite(q.error)), default=0.0)


class Ladders:
    """The evaluation of f around the point: in float64, or in the user's dtype if f does not run in float64.

    `measure` evaluates f. `eps` is the largest eps of the dtypes that f computes with.
    """

    def __init__(self, derivatives: Derivatives) -> None:
        self.d = derivatives
        self.in_float64 = True
        v, traced = self.d.shared.v, self.d.shared.traced
        with in_float64():
            self.eps = coarsest_eps(lambda v: self.d.prepared.problem(v, traced), v)
        if self.narrow:
            self.d.notes.append("f in float64: f itself casts to a narrower dtype, for arguments of any dtype")
        self.measure = Measure(self.d.prepared.problem, self.d.shared, self.d.lanes, self.eps)

    @property
    def narrow(self) -> bool:
        """True if f computes with fewer digits than float64."""
        return self.eps > _NARROW

    def precisely(self) -> Any:
        """Return the context manager in which to evaluate f."""
        return in_float64() if self.in_float64 else jax.default_matmul_precision("highest")

    def short(self, n: int) -> list[State]:
        """Evaluate F at a few steps along n directions in every leaf."""
        which = [(i, k) for i in range(len(self.d.shared.v)) for k in range(n)]
        try:
            return self._states(which, long=False)
        except Exception as error:
            self._fall_back(error)
        return self._states(which, long=False)

    def long(self, leaves: list[int]) -> list[State]:
        """Evaluate F at many steps along all directions, in the given leaves.

        If the time limit is too short for all, use as many of the first ones as it allows.
        """
        directions = len(self.d.shared.directions[0]) - 1
        most = max(self.measure.affordable(_SECONDS) // (36 * directions), 1)
        if most < len(leaves):
            self.d.notes.append(f"{len(leaves) - most} leaves at more than a few steps: f is too slow")
        return self._states([(i, k) for i in leaves[:most] for k in range(directions)], long=True)

    def _states(self, which: list[tuple[int, int]], long: bool) -> list[State]:
        if self.narrow:
            h = ladder(1.0, 8) if long else ladder(2.0**-3, 4, 2.0**-13)
        else:
            h = ladder(1.0, 18) if long else ladder(2.0**-6, 4, 2.0**-22)
        with self.precisely():
            samples = self.measure.samples(which, h)
        states: dict[int, State] = {}
        for (i, _), sample in zip(which, samples, strict=True):
            states.setdefault(i, State(i, [], [], long)).samples.append(sample)
        for state in states.values():
            state.analyse(self.eps)
        return list(states.values())

    def _fall_back(self, error: Exception) -> None:
        """Continue in the user's dtype."""
        self.in_float64 = False
        self.d.notes.append(f"f in float64: {first_line(error)}")
        prepared = self.d.prepared
        kept = [d.astype(x.dtype) for d, x in zip(self.d.shared.directions, prepared.v, strict=True)]
        self.d.move_to(self.d.shared._replace(v=prepared.v, traced=prepared.traced, directions=kept))
        if self.d.forward is not None and self.d.forward not in self.d.values:
            self.d.forward = None
        self.eps = max(eps_of(x.dtype) for x in prepared.v)
        self.measure = Measure(prepared.problem, self.d.shared, self.d.lanes, self.eps)
