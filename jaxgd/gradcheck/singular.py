"""Elements in which a claimed gradient is infinite or NaN: the fault of the gradient, or of f itself."""

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
    """Return the check, the elements and the pattern: wrong if f is smooth in an element, otherwise f's shape there."""
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
    """Return quotients along single elements, on the long ladder; the usual directions are zero in these elements."""
    shape = np.shape(measure.shared.v[leaf])
    units = np.zeros((len(index) + 1, own.size), own.dtype)
    units[np.arange(len(index)), index] = own[index]
    directions = [
        units.reshape(-1, *shape) if i == leaf else np.zeros((len(units), *np.shape(x)))
        for i, x in enumerate(measure.shared.v)
    ]
    # The gradient belongs to the first cotangent, so its elements do too.
    first = [w[:1] for w in measure.shared.cotangents]
    shared = measure.shared._replace(directions=directions, cotangents=first)
    alone = Measure(measure.problem, shared, measure.lanes, measure.eps)
    return [s.analyse() for s in alone.samples([(leaf, k) for k in range(len(index))], ladder(1.0, 18))]
