"""The search for the wrong elements of a leaf and for the pattern of the error."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxgd.gradcheck.measure import Floats, Ints, Measure, ReverseValues, Values
from jaxgd.gradcheck.quotient import SAFETY, ladder
from jaxgd.gradcheck.report import Element

# The search compares every element of a leaf of up to ALL elements. In a larger leaf it compares up to SAMPLE random
# elements, and the elements that it finds by dividing the leaf into blocks.
ALL = 1024
SAMPLE = 256
_BLOCKS = 64
_KEEP = 12
# An element below this part of the largest element may be rounding only, if f adds elements.
_NOTHING = 1e-14
# The approximate time limit for the search of one leaf, which matters for a slow f.
_SECONDS = 20.0


@dataclasses.dataclass
class Looked:
    """The searched elements of a leaf.

    Attributes:
        index: Flat indices of the elements.
        claimed: The claimed derivatives.
        reference: The reference derivatives.
        error: The sum of the uncertainties of the claim and the reference.
        kink: True for elements along which f has a kink.
        floor: A smaller difference, relative to the largest element, does not count.
    """

    index: Ints
    claimed: NDArray[Any]
    reference: NDArray[Any]
    error: Floats
    kink: NDArray[np.bool_]
    floor: float = 1e-9

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """A mask of the elements that are certainly wrong. Elements at a kink are not included."""
        largest = np.max(np.abs(self.reference[np.isfinite(self.reference)]), initial=0.0)
        allowed = SAFETY * self.error + 1e-8 * np.abs(self.reference) + self.floor * largest
        with np.errstate(invalid="ignore"):
            off = ~(np.abs(self.claimed - self.reference) <= allowed)
        return np.asarray(off & ~self.kink & np.isfinite(allowed))


def against_values(claim: Values, reference: ReverseValues, leaf: int, size: int, candidates: Ints) -> Looked:
    """Compare elements with another derivative that was found right: all of them, or the candidates for a jvp."""
    index = np.arange(size) if isinstance(claim, ReverseValues) else candidates
    r = reference.elements(leaf)[index]
    c = elements(claim, leaf, index, np.iscomplexobj(r), reference)
    error = 3 * reference.moved[leaf].reshape(-1)[index]
    if isinstance(claim, ReverseValues):
        error = error + 3 * claim.moved[leaf].reshape(-1)[index]
    return Looked(index, c, r, error, np.zeros(len(index), bool), floor=_NOTHING)


def outliers(claim: ReverseValues, reference: ReverseValues, leaf: int) -> NDArray[np.bool_]:
    """Return a mask of the elements that differ by more than 1% and by far more than rounding.

    The norm of a leaf hides small elements: an element that is wrong by a fifth may be 1e-12 of the norm. The measure
    of rounding is the noise of the element and of all elements of similar size, because the noise of one element may be
    small by luck.
    """
    c, g = claim.elements(leaf), reference.elements(leaf)
    moved = (claim.moved[leaf] + reference.moved[leaf]).reshape(-1)
    size = np.abs(g)
    off = np.abs(c - g)
    suspects = off > np.maximum(np.maximum(1e-2 * size, 30 * moved), _NOTHING * np.max(size, initial=0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = np.where(size > 0, moved / size, 0)
    # If many elements are suspect, the comparison of the whole leaf finds them.
    few = np.flatnonzero(suspects)[:64]
    for i in few:
        like = (size >= size[i] / 10) & (size <= size[i] * 10)
        if off[i] <= 10 * size[i] * np.max(noise[like], initial=0.0):
            suspects[i] = False
    return np.asarray(suspects)


def elements(claim: Values, leaf: int, index: Ints, is_complex: bool, other: Any) -> NDArray[Any]:
    """Return the claimed elements of the gradient, for the first cotangent."""
    if isinstance(claim, ReverseValues):
        return claim.elements(leaf)[index]
    last = len(other.shared.directions[leaf]) - 1
    unit = np.asarray(other.shared.directions[leaf][last]).reshape(-1)[index].real
    c = claim.along(leaf, last, index, index + 1) / unit
    if is_complex:
        c = c - 1j * claim.along(leaf, last, index, index + 1, 1j) / unit
    return np.asarray(c)


def against_quotients(
    claim: Values, measure: Measure, leaf: int, step: float, noise: float, rng: np.random.Generator
) -> Looked:
    """Compare single elements with difference quotients along these elements.

    Compare all elements of a small leaf. In a large leaf, compare random elements and those that `_narrow_down` finds.
    """
    x = measure.shared.v[leaf]
    size, is_complex = int(np.size(x)), np.iscomplexobj(x)
    h = ladder(min(16 * step, 0.25), 3)
    # A real element takes 6 evaluations of f, a complex one 12.
    most = max(measure.affordable(_SECONDS) // (12 if is_complex else 6), 4)
    if size <= min(ALL, most):
        index = np.arange(size)
    else:
        chosen = rng.choice(size, min(SAMPLE, most // 2, size), replace=False)
        found = _narrow_down(claim, measure, leaf, h, noise, most // 2)
        index = np.unique(np.concatenate([chosen, found]))
    last = len(measure.shared.directions[leaf]) - 1
    unit = np.asarray(measure.shared.directions[leaf][last]).reshape(-1)[index].real
    value, error, gap, gap_error = measure.parts(leaf, last, index, index + 1, h, 1.0, noise)
    reference: NDArray[Any] = value
    if is_complex:
        other, other_error, other_gap, other_gap_error = measure.parts(leaf, last, index, index + 1, h, 1j, noise)
        reference, error = value - 1j * other, np.maximum(error, other_error)
        gap, gap_error = np.maximum(np.abs(gap), np.abs(other_gap)), np.maximum(gap_error, other_gap_error)
    with np.errstate(invalid="ignore"):
        kink = (np.abs(gap) > SAFETY * gap_error) & (np.abs(gap) > 1e-6 * np.abs(reference))
    error = error / unit
    if isinstance(claim, ReverseValues):
        error = error + 3 * claim.moved[leaf].reshape(-1)[index]
    return Looked(index, elements(claim, leaf, index, is_complex, measure), reference / unit, error, kink)


def _narrow_down(claim: Values, measure: Measure, leaf: int, h: Floats, noise: float, most: int) -> Ints:
    """Return single elements where claim and quotient disagree.

    The search divides a leaf into blocks, then divides again the blocks where the claim and a quotient along the block
    disagree most. `most` limits the number of blocks. The result is empty if no block stands out.
    """
    size = int(np.size(measure.shared.v[leaf]))
    ranges = [(0, size)]
    singles: list[int] = []
    while ranges and len(singles) < 8 * _KEEP:
        parts = _BLOCKS if len(ranges) == 1 else 16
        cut = [np.unique(np.linspace(a, b, min(parts, b - a) + 1).astype(int)) for a, b in ranges]
        starts = np.concatenate([edges[:-1] for edges in cut])
        stops = np.concatenate([edges[1:] for edges in cut])
        most -= len(starts)
        if most < 0:
            break
        direction = 0
        value, error, _, _ = measure.parts(leaf, direction, starts, stops, h, 1.0, noise)
        difference = np.abs(value - claim.along(leaf, direction, starts, stops))
        difference = np.where(np.isnan(difference), np.inf, difference)
        bad = np.flatnonzero(difference > SAFETY * error + claim.floor * np.max(np.abs(value), initial=0.0))
        bad = bad[np.argsort(-difference[bad])][:_KEEP]
        singles += [int(starts[i]) for i in bad if stops[i] - starts[i] == 1]
        ranges = [(int(starts[i]), int(stops[i])) for i in bad if stops[i] - starts[i] > 1]
    return np.array(sorted(set(singles)), int)


def worst(looked: Looked, shape: tuple[int, ...], k: int = 8) -> tuple[Element, ...]:
    """Return the k wrong elements with the largest difference."""
    with np.errstate(invalid="ignore"):
        off = np.abs(looked.claimed - looked.reference)
    off = np.where(np.isnan(off), np.inf, off)
    wrong = np.flatnonzero(looked.wrong)
    order = wrong[np.argsort(-off[wrong])][:k]
    return tuple(
        Element(
            tuple(int(i) for i in np.unravel_index(looked.index[j], shape)),
            looked.claimed[j].item(),
            looked.reference[j].item(),
        )
        for j in order
    )


def pattern(looked: Looked, whole: NDArray[Any] | None, shape: tuple[int, ...], axes: Sequence[tuple[str, int]]) -> str:
    """Return the pattern of the error in words; "" if no pattern is recognized.

    `whole` is the claimed gradient of the leaf, flat, or None. `axes` are the names and lengths of the axes of the
    arguments of f: a wrong gradient may be the right one times the length of an axis.
    """
    c, r = looked.claimed, looked.reference
    wrong = looked.wrong
    if not np.any(wrong):
        return ""
    size = int(np.prod(shape))
    if np.any(bad := ~np.isfinite(c)):
        which = "the whole leaf is" if np.all(bad) else f"{bad.sum()} of {len(c)} elements are"
        return f"{which} {'NaN' if np.any(np.isnan(c)) else 'infinite'}"
    largest = np.max(np.abs(r))
    known = (SAFETY * looked.error < 1e-2 * np.abs(r)) & (np.abs(r) > 10 * looked.floor * largest)
    allowed = SAFETY * looked.error + 1e-5 * np.abs(r) + looked.floor * largest

    def all_like(candidate: NDArray[Any], where: NDArray[np.bool_]) -> bool:
        return bool(np.any(where) and np.all(np.abs(candidate - r)[where] <= allowed[where]))

    if (size > 1 and wrong.sum() < 0.9 * known.sum()) or (size > 1 and len(c) == 1):
        return (
            _some(looked, shape)
            or _moved(looked, whole, shape, allowed)
            or f"{wrong.sum()} of {len(c)} searched elements are wrong"
        )
    if not np.any(np.abs(r) > SAFETY * looked.error):
        return "the whole leaf should be zero"
    if not np.any(c[known]):
        return "the whole leaf is zero"
    ratio = np.real(np.vdot(r[known], c[known]) / np.vdot(r[known], r[known])) if np.any(known) else np.nan
    if ratio and np.all(np.abs(c - ratio * r)[known] <= allowed[known] * max(1, abs(ratio))):
        return _factor(float(ratio), axes)
    if np.iscomplexobj(r) and all_like(np.conj(c), known):
        return "the whole leaf is the complex conjugate of the reference"
    if moved := _moved(looked, whole, shape, allowed):
        return moved
    offset = c - r
    if size > 1 and np.ptp(np.real(offset)) <= 1e-4 * np.max(np.abs(offset)) and np.all(looked.error < np.abs(offset)):
        return f"every element is off by the same {np.real(offset.mean()):.4g}"
    return ""


def _factor(ratio: float, axes: Sequence[tuple[str, int]]) -> str:
    if abs(ratio + 1) < 1e-4:
        return "the whole leaf has its sign flipped"
    sign = "with its sign flipped, " if ratio < 0 else ""
    # A factor of 2 has simpler explanations than an axis of length 2.
    for name, n in axes:
        hint = f"{sign}{n} times too {{}}, and {n} is the length of {name}"
        if n > 2 and abs(abs(ratio) / n - 1) < 1e-4:
            return f"the whole leaf is {hint.format('large')}: is it a sum instead of a mean"
        if n > 2 and abs(abs(ratio) * n - 1) < 1e-4:
            return f"the whole leaf is {hint.format('small')}: is it divided once too often"
    if abs(ratio - 1) < 1e-5:
        return f"the whole leaf is too {'large' if ratio > 1 else 'small'} by {abs(ratio - 1):.1g} relative"
    return f"the whole leaf is {ratio:.6g} times the reference"


def _some(looked: Looked, shape: tuple[int, ...]) -> str:
    """Return a sentence if one element is wrong, two are swapped or one row is wrong; "" otherwise."""
    at = np.flatnonzero(looked.wrong)
    places = np.array(np.unravel_index(looked.index[at], shape)).T
    c, r = looked.claimed[at], looked.reference[at]
    if len(at) == 1:
        return f"one element is wrong, {_index(places[0])}"
    allowed = SAFETY * np.max(looked.error[at]) + 1e-5 * np.max(np.abs(r))
    if len(at) == 2 and abs(c[0] - r[1]) <= allowed and abs(c[1] - r[0]) <= allowed:
        return f"two elements are swapped, {_index(places[0])} and {_index(places[1])}"
    for axis in range(len(shape)):
        if len(shape) > 1 and len(set(places[:, axis])) == 1:
            row = int(places[0, axis])
            here = np.array(np.unravel_index(looked.index, shape))[axis] == row
            how = "zero" if not np.any(looked.claimed[here & looked.wrong]) else "wrong"
            return f"the leaf is {how} only at index {row} of axis {axis}"
    return ""


def _moved(looked: Looked, whole: NDArray[Any] | None, shape: tuple[int, ...], allowed: Floats) -> str:
    """Return a sentence if the leaf is transposed, or shifted or reversed along an axis; "" otherwise."""
    if whole is None:
        return ""
    array = whole.reshape(shape)
    largest = np.max(np.abs(looked.reference))
    seen = np.abs(looked.reference) > 1e-6 * largest
    allowed = allowed + 1e-8 * largest

    def share(candidate: NDArray[Any]) -> float:
        close = np.abs(candidate.reshape(-1)[looked.index] - looked.reference) <= allowed
        return float(np.mean(close[seen])) if np.any(seen) else 0.0

    before = share(array)

    def fits(candidate: NDArray[Any]) -> bool:
        return share(candidate) >= max(0.75, before + 0.2)

    if len(shape) == 2 and min(shape) > 1 and fits(array.reshape(shape[::-1]).T):
        return "the leaf is transposed"
    for axis, n in enumerate(shape):
        for k in (1, -1, 2, -2, 3, -3):
            if n > abs(k) and fits(np.roll(array, -k, axis)):
                return f"the leaf is shifted by {k} along axis {axis}"
        if n > 2 and fits(np.flip(array, axis)):
            return f"the leaf is reversed along axis {axis}"
    return ""


def places(index: Ints, shape: tuple[int, ...], most: int = 3) -> str:
    """Return the indices of a few elements as text: [0, 1], [0, 2] and 5 more."""
    named = [_index(np.unravel_index(i, shape)) for i in index[:most]]
    more = f" and {len(index) - most} more" if len(index) > most else ""
    return ", ".join(named) + more


def _index(place: Any) -> str:
    return f"[{', '.join(str(int(i)) for i in place)}]"
