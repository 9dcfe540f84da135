"""Decide, where a claimed gradient is infinite or NaN, whether the gradient or f is at fault."""

import math

import numpy as np

from jaxgd.gradcheck.measure import Measure
from jaxgd.gradcheck.measure import directions as random_directions
from jaxgd.gradcheck.quotient import SAFETY, Quotient, Shape, ladder
from jaxgd.gradcheck.report import CAUSE_OF, Cause, Check, Element, Verdict

_MOST = 8


def where_not_finite(
    name: str, where: np.ndarray, measure: Measure, leaf: int
) -> tuple[Check, tuple[Element, ...], str]:
    """Return the check of one leaf, the wrong elements and a sentence about them.

    The verdict is WRONG if the quotients show that f is smooth along one of the first eight elements. Otherwise it is
    CANNOT_TELL, with the shape of f as the cause: a kink, a jump, an edge of the domain and so on.
    """
    x = np.asarray(measure.shared.v[leaf])
    index = np.flatnonzero(where)[:_MOST]
    own = random_directions(x, 1, np.random.default_rng(0))[-1].reshape(-1)
    quotients = _one_by_one(measure, leaf, index, own)
    count = int(where.sum())
    many = f"{count} of {x.size} elements {'is' if count == 1 else 'are'} infinite or NaN"
    many = many if x.size > 1 else "the gradient is infinite or NaN"
    smooth = [(int(i), q) for i, q in zip(index, quotients, strict=True) if _known(q)]
    if smooth:
        elements = tuple(
            Element(tuple(int(k) for k in np.unravel_index(i, x.shape)), math.nan, q.value / abs(own[i]))
            for i, q in smooth
        )
        return Check(name, Verdict.WRONG, Cause.GRADIENT_NOT_FINITE, math.nan, 0.0), elements, many
    shapes = {q.shape for q in quotients} - {Shape.SMOOTH}
    cause = next((cause for shape, cause in CAUSE_OF.items() if shape in shapes), Cause.NOISE)
    return Check(name, Verdict.CANNOT_TELL, cause, math.nan, math.inf, f"and {many}"), (), ""


def _known(q: Quotient) -> bool:
    return bool(q.shape is Shape.SMOOTH and SAFETY * q.error <= max(1e-3 * abs(q.value), 100 * q.noise))


def _one_by_one(measure: Measure, leaf: int, index: np.ndarray, own: np.ndarray) -> list[Quotient]:
    """Return one quotient per element, from 18 steps. The directions of the other checks are 0 in these elements."""
    shape = np.shape(measure.shared.v[leaf])
    units = np.zeros((len(index) + 1, own.size), own.dtype)
    units[np.arange(len(index)), index] = own[index]
    directions = [
        units.reshape(-1, *shape) if i == leaf else np.zeros((len(units), *np.shape(x)))
        for i, x in enumerate(measure.shared.v)
    ]
    # The elements under test come from the gradient for the first cotangent. Keep only that cotangent.
    first = [w[:1] for w in measure.shared.cotangents]
    shared = measure.shared._replace(directions=directions, cotangents=first)
    alone = Measure(measure.problem, shared, measure.lanes, measure.eps)
    return [s.analyse() for s in alone.samples([(leaf, k) for k in range(len(index))], ladder(1.0, 18))]
