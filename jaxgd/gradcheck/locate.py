"""The search for the wrong elements of a leaf."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxgd.gradcheck import constants, core, quotients
from jaxgd.gradcheck.derive import Derivative, points
from jaxgd.gradcheck.problem import evaluation
from jaxgd.gradcheck.programs import Value
from jaxgd.gradcheck.sample import Floats, Ints, Sampler
from jaxgd.gradcheck.verdicts import Cause
from jaxgd.mesh.processes import decided, on_host, spans_processes

# If f is fast and a leaf has up to ALL elements, the search compares every element with its quotient. Otherwise it
# compares up to SAMPLE random elements, and those that `_narrow_down` finds.
ALL = 1024
SAMPLE = 256
_BLOCKS = 64
_KEEP = 12
# If f adds elements, a gradient element below this fraction of the largest one may be pure rounding.
_NOTHING = 1e-14
# The approximate time limit in seconds for the search of one leaf with quotients.
_SECONDS = 20.0


@dataclasses.dataclass
class ElementSearch:
    """The searched elements of a leaf.

    Attributes:
        index: Flat indices of the elements.
        claimed: The claimed derivatives.
        reference: The reference derivatives.
        error: The sum of the uncertainties of the claim and the reference.
        kink: True for elements along which f has no slope.
        floor: Differences up to this fraction of the largest reference do not count.
    """

    index: Ints
    claimed: NDArray[Any]
    reference: NDArray[Any]
    error: Floats
    kink: NDArray[np.bool_]
    floor: float = 1e-9

    @property
    def allowed(self) -> Floats:
        """For each element, the largest difference that does not count."""
        largest = np.max(np.abs(self.reference[np.isfinite(self.reference)]), initial=0.0)
        return np.asarray(
            constants.SAFETY * self.error + constants.FLOOR * np.abs(self.reference) + self.floor * largest
        )

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """A mask of the elements that are certainly wrong, without elements at a kink."""
        off = ~(np.abs(self.claimed - self.reference) <= self.allowed)
        return np.asarray(off & ~self.kink & np.isfinite(self.allowed))


def against_derivative(
    claim: Derivative, reference: Derivative, leaf: int, sampler: Sampler, rng: np.random.Generator
) -> ElementSearch:
    """Compare elements with a right derivative. In forward mode, compare only up to ALL random elements."""
    size = reference.gradients[leaf][0].size
    index = np.arange(size)
    if not claim.gradients:
        index = np.sort(rng.choice(size, min(size, ALL), replace=False))
    r = flat(reference, leaf)[index]
    moved = [np.nan_to_num(x.moved[leaf].reshape(-1)[index]) for x in (claim, reference) if x.moved]
    error = 3 * np.sum(moved, axis=0)
    return ElementSearch(
        index, _elements(claim, leaf, index, sampler), r, error, np.zeros(len(index), bool), floor=_NOTHING
    )


def outliers(claim: Derivative, reference: Derivative, leaf: int) -> NDArray[np.bool_]:
    """Return a mask of the elements that differ by more than 1% and by far more than rounding.

    The norm of a leaf would hide an error in a small element. The noise of one element may be small by chance, so the
    rounding is estimated from all elements of similar size. The mask is empty in forward mode.
    """
    if not (claim.gradients and reference.gradients):
        return np.zeros(0, bool)
    c, g = flat(claim, leaf), flat(reference, leaf)
    moved = (claim.moved[leaf] + reference.moved[leaf]).reshape(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        size, off = np.abs(g), np.abs(c - g)
        # If an element does not change at the moved points, its rounding is unknown. Allow a larger difference.
        least = np.where(moved > 0, _NOTHING, max(claim.floor, reference.floor)) * np.max(size, initial=0.0)
        suspects = off > np.maximum.reduce([1e-2 * size, constants.NOISES * moved, least])
        noise = np.where(size > 0, moved / size, 0)
    # Compare only the first 64 suspects with the noise of similar elements, to save time.
    for i in np.flatnonzero(suspects)[:64]:
        like = (size >= size[i] / 10) & (size <= size[i] * 10)
        if off[i] <= 10 * size[i] * np.max(noise[like], initial=0.0):
            suspects[i] = False
    return np.asarray(suspects)


def flat(claim: Derivative, leaf: int) -> NDArray[Any]:
    """Return the claimed gradient of a leaf for the first cotangent, as a vector."""
    return on_host(claim.gradients[leaf][0].reshape(-1))


def _unit(sampler: Sampler, leaf: int, index: Ints) -> NDArray[Any]:
    return on_host(sampler.shared.directions[leaf][-1]).reshape(-1)[index].real.astype(float)


def _elements(claim: Derivative, leaf: int, index: Ints, sampler: Sampler) -> NDArray[Any]:
    """Return the claimed elements of the gradient, for the first cotangent."""
    if claim.gradients:
        return flat(claim, leaf)[index]
    last, unit = len(sampler.shared.directions[leaf]) - 1, _unit(sampler, leaf, index)
    c = _along(claim, leaf, last, index, index + 1, sampler) / unit
    if np.iscomplexobj(sampler.shared.v[leaf]):
        c = c - 1j * _along(claim, leaf, last, index, index + 1, sampler, 1j) / unit
    return np.asarray(c)


def _along(
    claim: Derivative,
    leaf: int,
    direction: int,
    starts: Ints,
    stops: Ints,
    sampler: Sampler,
    phase: float | complex = 1.0,
) -> Floats:
    """Return the claimed slopes along parts of a direction."""
    if claim.gradients:
        n = len(sampler.shared.cotangents[0])
        product = np.real(claim.gradients[leaf][direction % n] * np.asarray(sampler.shared.directions[leaf][direction]))
        flat = product.reshape(-1)
        return np.array([np.sum(flat[a:b]) for a, b in zip(starts, stops, strict=True)])
    assert claim.program is not None
    batch = points(sampler.shared, leaf, direction, starts, stops, 0.0, phase)
    with evaluation(sampler.in_float64):
        return np.asarray(sampler.runner(claim.program, sampler.shared, batch), np.float64)


def against_quotients(
    claim: Derivative, leaf: int, sampler: Sampler, slopes: quotients.Slopes, rng: np.random.Generator
) -> ElementSearch:
    """Compare single elements with difference quotients along these elements.

    Compare all elements of a small leaf. In a large leaf, compare random elements and those that `_narrow_down` finds.
    The quotients of the whole leaf determine the steps and the noise.
    """
    x = sampler.shared.v[leaf]
    size, is_complex = int(np.size(x)), np.iscomplexobj(x)
    known = np.isfinite(slopes.error)
    step = float(np.min(slopes.step[known], initial=np.inf)) if known.any() else 2.0**-8
    noise = float(np.max(slopes.noise[known], initial=0.0))
    h = quotients.ladder(min(16 * step, 0.25), constants.ORDERS)
    # A real element takes 6 evaluations of f. A complex element takes 12.
    seconds = decided(spans_processes(sampler.shared), sampler.runner.seconds.get(Value(sampler.problem), 0.0))
    affordable = int(_SECONDS / max(seconds, 1e-6))
    most = max(affordable // (12 if is_complex else 6), 4)
    if size <= min(ALL, most):
        index = np.arange(size)
    else:
        chosen = rng.choice(size, min(SAMPLE, most // 2, size), replace=False)
        index = np.unique(np.concatenate([chosen, _narrow_down(claim, leaf, sampler, h, noise, most // 2)]))
    last, unit = len(sampler.shared.directions[leaf]) - 1, _unit(sampler, leaf, index)

    def slopes_along(phase: float | complex) -> quotients.Slopes:
        return quotients.slopes(sampler.elements(leaf, index, index + 1, h, last, phase), noise)

    q = slopes_along(1.0)
    reference, error = q.value.astype(complex if is_complex else float), q.error
    claimed = _elements(claim, leaf, index, sampler)
    singular = np.array([cause is not Cause.AGREES for cause in q.cause])
    singular |= core.explained_by_kink(q, np.abs(np.real(claimed) * unit - q.value))
    if is_complex:
        other = slopes_along(1j)
        reference, error = reference - 1j * other.value, np.maximum(error, other.error)
        singular |= np.array([cause is not Cause.AGREES for cause in other.cause])
    error = error / unit
    if claim.moved:
        error = error + 3 * np.nan_to_num(claim.moved[leaf].reshape(-1)[index])
    return ElementSearch(index, claimed, reference / unit, error, singular)


def _narrow_down(claim: Derivative, leaf: int, sampler: Sampler, h: Floats, noise: float, most: int) -> Ints:
    """Return the indices of single elements where claim and quotient disagree.

    The search divides a leaf into blocks. It compares the claim with a quotient along each block, and then divides the
    blocks that disagree most. `most` limits the number of blocks. The result is empty if no block disagrees, or if the
    search reaches the limit before the blocks are single elements.
    """
    ranges = [(0, int(np.size(sampler.shared.v[leaf])))]
    singles: list[int] = []
    while ranges and len(singles) < 8 * _KEEP:
        parts = _BLOCKS if len(ranges) == 1 else 16
        cut = [np.unique(np.linspace(a, b, min(parts, b - a) + 1).astype(int)) for a, b in ranges]
        starts = np.concatenate([edges[:-1] for edges in cut])
        stops = np.concatenate([edges[1:] for edges in cut])
        most -= len(starts)
        if most < 0:
            break
        q = quotients.slopes(sampler.elements(leaf, starts, stops, h, 0), noise)
        difference = np.abs(q.value - _along(claim, leaf, 0, starts, stops, sampler))
        difference = np.where(np.isnan(difference), np.inf, difference)
        bad = np.flatnonzero(
            difference > constants.SAFETY * q.error + claim.floor * np.nanmax(np.abs(q.value), initial=0.0)
        )
        bad = bad[np.argsort(-difference[bad])][:_KEEP]
        singles += [int(starts[i]) for i in bad if stops[i] - starts[i] == 1]
        ranges = [(int(starts[i]), int(stops[i])) for i in bad if stops[i] - starts[i] > 1]
    return np.array(sorted(set(singles)), int)
