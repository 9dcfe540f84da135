"""Evaluate F(t) = ⟨w, f(x + t u)⟩ along directions in one leaf, in float64 or in the dtype of the arguments."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxgd.gradcheck import constants, quotients
from jaxgd.gradcheck.derive import Derivatives, first_line, narrowed, points
from jaxgd.gradcheck.problem import Prepared, Problem, evaluation
from jaxgd.gradcheck.programs import Shared, Value
from jaxgd.gradcheck.run import Runner, eps_of, ignored, traits

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_NAMES = {eps_of(name): name for name in ("float16", "bfloat16", "float32")}


@dataclasses.dataclass
class Sampler:
    """The evaluation of f around the point.

    Attributes:
        problem: The function to evaluate: f, or the function passed as `reference`.
        shared: The point, directions and cotangents.
        runner: The runner of batches.
        eps: The relative rounding of the dtype in which f is evaluated.
        narrow: The largest relative rounding among the dtypes that f computes with.
        in_float64: True if f is evaluated in float64.
        iterates: True if f iterates until a condition holds.
        ignored: The leaves that f does not depend on, as its jaxpr shows.
        zeros: F(0) and Σ |wᵢfᵢ| for each cotangent evaluated so far. The sum is the scale of the rounding of F(0).
    """

    problem: Problem
    shared: Shared
    runner: Runner
    eps: float = constants.EPS
    narrow: float = constants.EPS
    in_float64: bool = True
    iterates: bool = False
    ignored: set[int] = dataclasses.field(default_factory=set)
    zeros: dict[int, tuple[float, float]] = dataclasses.field(default_factory=dict)

    @property
    def coarse(self) -> bool:
        """True if f computes with fewer digits than float64."""
        return self.narrow > constants.NARROW

    @property
    def narrowest(self) -> str:
        """The name of the coarsest dtype that f computes with."""
        return _NAMES.get(self.narrow, "float64")

    def lines(self, leaves: Sequence[int], n: int, h: Floats) -> dict[int, quotients.Lines]:
        """Evaluate F along the first n directions of each of the given leaves, in one batch."""
        leaf, direction = (x.reshape(-1) for x in np.meshgrid(leaves, np.arange(n), indexing="ij"))
        sizes = np.array([np.size(x) for x in self.shared.v])
        every = self._evaluate(leaf, direction, 0, sizes[leaf], h)
        return {
            i: every._replace(**{name: getattr(every, name)[leaf == i] for name in ("plus", "minus", "zero", "size")})
            for i in leaves
        }

    def elements(
        self, leaf: int, index: Ints, stops: Ints, h: Floats, direction: int, phase: float | complex = 1.0
    ) -> quotients.Lines:
        """Evaluate F along parts of a direction. Part i moves the elements index[i] to stops[i] − 1 of the leaf."""
        n = len(index)
        return self._evaluate(np.full(n, leaf), np.full(n, direction), index, stops, h, phase)

    def _evaluate(
        self, leaf: Ints, direction: Ints, start: Any, stop: Any, h: Floats, phase: float | complex = 1.0
    ) -> quotients.Lines:
        n, last = len(self.shared.cotangents[0]), len(self.shared.directions[0]) - 1
        cotangent = np.where(direction < last, direction % n, 0)
        wanted = sorted({*cotangent.tolist()} - self.zeros.keys())
        start, stop = (np.broadcast_to(x, leaf.shape)[:, None] for x in (start, stop))
        t = np.concatenate([h, -h])
        batch = points(self.shared, leaf[:, None], direction[:, None], start, stop, t, phase)
        origin = points(self.shared, 0, np.array(wanted, int), 0, 0, 0.0)
        both = type(batch)(*(np.concatenate(pair) for pair in zip(origin, batch, strict=True)))
        with evaluation(self.in_float64):
            value, size = self.runner(Value(self.problem), self.shared, both)
        for k, w in enumerate(wanted):
            self.zeros[w] = float(value[k]), float(size[k])
        value = np.asarray(value[len(wanted) :], float).reshape(len(leaf), 2, len(h))
        zero = np.array([self.zeros[int(w)] for w in cotangent])
        return quotients.Lines(h, value[:, 0], value[:, 1], zero[:, 0], zero[:, 1], self.eps, self.narrow)


def first_lines(
    d: Derivatives, prepared: Prepared, problem: Problem, n: int
) -> tuple[Sampler, dict[int, quotients.Lines]]:
    """Return a sampler of `problem`, and F at the steps SHORT along n directions of each non-empty leaf.

    If f fails in float64, evaluate f in the dtype of the arguments.
    """
    leaves = [i for i, x in enumerate(prepared.v) if np.size(x)]
    with evaluation(float64=True):
        narrow, iterates, _ = traits(lambda v: problem(v, d.shared.traced), d.shared.v)
        unused = ignored(lambda v: problem(v, d.shared.traced), d.shared.v)
    sampler = Sampler(problem, d.shared, d.runner, narrow=narrow, iterates=iterates, ignored=unused)
    if sampler.coarse:
        d.notes.append(f"f in float64: f itself computes in {sampler.narrowest}, even for arguments in float64")
    try:
        return sampler, sampler.lines(leaves, n, np.array(constants.SHORT))
    except Exception as error:
        d.notes.append(f"f in float64: {first_line(error)}")
    eps = max(eps_of(x.dtype) for x in prepared.v)
    sampler = Sampler(problem, narrowed(d), d.runner, eps, eps, in_float64=False, iterates=iterates, ignored=unused)
    return sampler, sampler.lines(leaves, n, np.array(constants.SHORT))
