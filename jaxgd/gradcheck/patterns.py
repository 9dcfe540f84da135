"""Describe the error of a leaf in words, from the elements that were searched."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxgd.gradcheck import constants
from jaxgd.gradcheck.derive import Derivative
from jaxgd.gradcheck.locate import ElementSearch, flat
from jaxgd.gradcheck.problem import Prepared
from jaxgd.gradcheck.report import Element
from jaxgd.gradcheck.sample import Floats, Ints


def exchanged(searches: Mapping[tuple[str, int], ElementSearch], names: Sequence[str]) -> dict[int, str]:
    """Return a sentence for each leaf whose claimed gradient equals the reference of another leaf."""
    wrong = {key: search for key, search in searches.items() if search.wrong.any()}
    patterns = {}
    for (name, i), a in wrong.items():
        for (other, j), b in wrong.items():
            if i != j and name == other and np.array_equal(a.index, b.index):
                allowed = constants.SAFETY * b.error + 1e-5 * np.abs(b.reference)
                if np.all(np.abs(a.claimed - b.reference) <= allowed):
                    patterns[i] = f"the leaf holds the gradient of {names[j]}"
    return patterns


def worst(search: ElementSearch, shape: tuple[int, ...], k: int = 8) -> tuple[Element, ...]:
    """Return the k wrong elements with the largest difference."""
    with np.errstate(invalid="ignore"):
        off = np.abs(search.claimed - search.reference)
    off = np.where(np.isnan(off), np.inf, off)
    wrong = np.flatnonzero(search.wrong)
    order = wrong[np.argsort(-off[wrong])][:k]
    return tuple(
        Element(
            tuple(int(i) for i in np.unravel_index(search.index[j], shape)),
            search.claimed[j].item(),
            search.reference[j].item(),
        )
        for j in order
    )


def pattern(search: ElementSearch, claim: Derivative, leaf: int, prepared: Prepared) -> str:
    """Return the pattern of the error in words; "" if no pattern is recognized."""
    whole = flat(claim, leaf) if claim.gradients else None
    return pattern_of(search, whole, prepared.leaves[leaf].shape, prepared.axes)


def pattern_of(
    search: ElementSearch, whole: NDArray[Any] | None, shape: tuple[int, ...], axes: Sequence[tuple[str, int]]
) -> str:
    """Return the pattern of the error in words; "" if no pattern is recognized.

    `whole` is the claimed gradient of the leaf, flat; None in forward mode. `axes` are the names and lengths of the
    axes of f's arguments: a wrong gradient may be the right one, multiplied or divided by the length of an axis.
    """
    c, r = search.claimed, search.reference
    wrong = search.wrong
    if not np.any(wrong):
        return ""
    size = int(np.prod(shape))
    if np.any(bad := ~np.isfinite(c)):
        some = f"{bad.sum()} of {len(c)} elements {'is' if bad.sum() == 1 else 'are'}"
        which = "the whole leaf is" if np.all(bad) else some
        return f"{which} {'NaN' if np.any(np.isnan(c)) else 'infinite'}"
    largest = np.max(np.abs(r))
    known = (constants.SAFETY * search.error < 1e-2 * np.abs(r)) & (np.abs(r) > 10 * search.floor * largest)
    allowed = constants.SAFETY * search.error + 1e-5 * np.abs(r) + search.floor * largest

    def all_like(candidate: NDArray[Any], where: NDArray[np.bool_]) -> bool:
        return bool(np.any(where) and np.all(np.abs(candidate - r)[where] <= allowed[where]))

    if (size > 1 and wrong.sum() < 0.9 * known.sum()) or (size > 1 and len(c) == 1):
        return (
            _some(search, shape)
            or _moved(search, whole, shape, allowed)
            or f"{wrong.sum()} of {len(c)} searched elements are wrong"
        )
    if not np.any(np.abs(r) > constants.SAFETY * search.error):
        return "the whole leaf should be zero"
    if np.any(known) and not np.any(c[known]):
        return "the whole leaf is zero"
    ratio = np.real(np.vdot(r[known], c[known]) / np.vdot(r[known], r[known])) if np.any(known) else np.nan
    if (
        ratio
        and abs(ratio - 1) > constants.FLOOR
        and np.all(np.abs(c - ratio * r)[known] <= allowed[known] * max(1, abs(ratio)))
    ):
        return _factor(float(ratio), axes)
    if np.iscomplexobj(r) and all_like(np.conj(c), known):
        return "the whole leaf is the complex conjugate of the reference"
    if moved := _moved(search, whole, shape, allowed):
        return moved
    if len(shape) == 2 and shape[0] == shape[1] > 1 and len(c) == size:
        both = [(x + x.T).reshape(-1) for x in (c.reshape(shape), r.reshape(shape))]
        if np.all(np.abs(both[0] - both[1]) <= 2 * allowed):
            return "the leaf is right in symmetric directions: f may read one triangle of a symmetric matrix"
    offset = c - r
    if size > 1 and np.ptp(np.real(offset)) <= 1e-4 * np.max(np.abs(offset)) and np.all(search.error < np.abs(offset)):
        return f"every element is off by the same amount, {np.real(offset.mean()):.4g}"
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


def _some(search: ElementSearch, shape: tuple[int, ...]) -> str:
    """Return a sentence if one element is wrong, or two are swapped, or all wrong ones have the same index on an axis.

    Otherwise return "".
    """
    at = np.flatnonzero(search.wrong)
    places = np.array(np.unravel_index(search.index[at], shape)).T
    c, r = search.claimed[at], search.reference[at]
    if len(at) == 1:
        return f"one element is wrong, {_index(places[0])}"
    allowed = constants.SAFETY * np.max(search.error[at]) + 1e-5 * np.max(np.abs(r))
    if len(at) == 2 and abs(c[0] - r[1]) <= allowed and abs(c[1] - r[0]) <= allowed:
        return f"two elements are swapped, {_index(places[0])} and {_index(places[1])}"
    for axis in range(len(shape)):
        if len(shape) > 1 and len(set(places[:, axis])) == 1:
            row = int(places[0, axis])
            in_row = np.array(np.unravel_index(search.index, shape))[axis] == row
            how = "zero" if not np.any(search.claimed[in_row & search.wrong]) else "wrong"
            return f"the leaf is {how} only at index {row} of axis {axis}"
    return ""


def _moved(search: ElementSearch, whole: NDArray[Any] | None, shape: tuple[int, ...], allowed: Floats) -> str:
    """Return a sentence if the leaf is transposed, or shifted, reversed or mirrored along an axis; "" otherwise."""
    if whole is None:
        return ""
    array = whole.reshape(shape)
    largest = np.max(np.abs(search.reference))
    seen = np.abs(search.reference) > 1e-6 * largest
    allowed = allowed + 1e-8 * largest

    def share(candidate: NDArray[Any]) -> float:
        close = np.abs(candidate.reshape(-1)[search.index] - search.reference) <= allowed
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
        mirrored = np.roll(np.flip(array, axis), 1, axis)
        for factor, words in ((1, ""), (n, f" and divided by its length {n}"), (1 / n, f" and multiplied by {n}")):
            if n > 2 and fits(factor * mirrored):
                return f"the leaf is mirrored around index 0 of axis {axis}{words}: is it the inverse transform"
    return ""


def places(index: Ints, shape: tuple[int, ...], most: int = 3) -> str:
    """Return the first `most` indices as text, and the number of the others: [0, 1], [0, 2], [0, 3] and 5 more."""
    named = [_index(np.unravel_index(i, shape)) for i in index[:most]]
    more = f" and {len(index) - most} more" if len(index) > most else ""
    return ", ".join(named) + more


def _index(place: Any) -> str:
    return f"[{', '.join(str(int(i)) for i in place)}]"
