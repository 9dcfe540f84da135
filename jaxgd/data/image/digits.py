"""Find the digits in a picture: groups of connected ink, without lines along the edges and without dust."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from jaxgd.data.image.frame import FAINT, LEAST_CONTRAST, SPECK, border_median
from jaxgd.data.image.paper import Gray, Picture, reduced, reduction
from jaxgd.errors import DataError

# A group is a line along the edges of the picture if it spans at least the share _LONG of the height or width, and
# nearly all of its ink lies in a band along the edges. The band takes the share _BAND of the height or width.
_BAND, _LONG = 0.06, 0.5
_TALL = 0.5  # share of the tallest group's height: a shorter group may be a part of a digit, such as the bar of a 5
# Two tall groups are parts of one digit if the gap between their columns is below _GAP, and the gap between their rows
# is below _BREAK. Both limits are shares of the taller group's height. Groups that overlap have no gap.
_GAP, _BREAK = 0.08, 0.5
_NEAR = 0.5  # share of a digit's height: a short group at a larger distance is not a part of the digit
_STAIN = 0.1  # share of the strongest group's ink: a short group far from every digit is dust if it has less
_MOST = 100  # digits in a picture, at most
_SMOOTH_SIDE = 40  # a smaller picture is not smoothed: its strokes may be one pixel wide


_Labels = Int[np.ndarray, "_ _"]


class Digit(NamedTuple):
    """A digit in a picture.

    Attributes:
        image: The digit alone, from 0 (paper) to 255 (ink), for `fit_to_frame`.
        box: The box of its ink in pixels of `Picture.gray`: (top, left, bottom, right), bottom and right exclusive.
        touches: True if its ink touches the edge of the picture.
        parts: The number of its separate parts that are tall enough for a digit, at least 1.
    """

    image: Gray
    box: tuple[int, int, int, int]
    touches: bool
    parts: int = 1


class _Group(NamedTuple):
    """Connected ink: its number in the array of labels, its box and the sum of its ink."""

    number: int
    box: Int[np.ndarray, " 4"]  # top, left, bottom, right
    mass: float

    @property
    def height(self) -> int:
        return int(self.box[2] - self.box[0])


def find_digits(picture: Picture) -> list[Digit]:
    """Find the digits in a picture, from left to right.

    A pixel is ink if it has more than a third of the strongest ink. Connected ink is a group. A long group along the
    edges of the picture is a frame, and is removed if at least 0.5% of the ink remains. A group with less than 0.5% of
    the strongest group's ink is dust. A group at least half as tall as the tallest group is tall. Tall groups are parts
    of one digit if their columns and rows overlap or are close; otherwise each is a digit. A shorter group belongs to
    the nearest digit if its distance is at most half of the digit's height. Otherwise it is a digit if it has at least
    a tenth of the strongest group's ink, and dust if it has less.

    Args:
        picture: The picture with its ink.

    Returns:
        The digits, at least one. If the paper is even and one digit has all the ink, its image is the whole picture.

    Raises:
        DataError: If the picture is blank, or has more than 100 digits.
    """
    factor = reduction(picture.ink)
    ink = reduced(picture.ink, factor)
    paper = np.uint8(border_median(ink[None])[0])
    ink = np.maximum(ink, paper) - paper
    if ink.max() < LEAST_CONTRAST:
        raise DataError(
            f"find_digits: expected a picture with a digit, got a blank one: its ink differs from its border by "
            f"{ink.max()} of 255.\nLeave empty paper around the digit."
        )
    labels, groups, removed = _groups(ink)
    # Grain as strong as the ink gives many groups. The time to merge them grows with the square of their number.
    digits = _digits(groups) if len(groups) <= 10 * _MOST else [[group] for group in groups]
    if len(digits) > _MOST:
        raise DataError(
            f"find_digits: expected at most {_MOST} digits, got {len(digits)} separate shapes.\n"
            "Crop the picture to the digits."
        )
    alone = picture.even and not removed and len(digits) == 1 and len(digits[0]) == len(groups)
    results, tallest = [], max(group.height for group in groups)
    for members in sorted(digits, key=lambda members: int(_joined(members)[1])):
        box = _joined(members)
        image = picture.ink if alone else _cut(ink, labels, members, box)
        touches = bool((box[:2] <= 0).any() or (box[2:] >= ink.shape).any())
        top, left, bottom, right = (x * factor * picture.factor for x in box.tolist())
        parts = sum(group.height >= _TALL * tallest for group in members)
        results.append(Digit(image, (top, left, bottom, right), touches, max(1, parts)))
    return results


def _groups(
    ink: Gray,
) -> tuple[Int[np.ndarray, "height width"], list[_Group], bool]:
    """Return the labels of the pixels, the groups that may be digits, and True if groups were left out."""
    from scipy import ndimage

    removed = False
    ink = ink.copy()
    while True:
        values = ink.astype(np.float32)
        smooth: NDArray[np.float32] = ndimage.uniform_filter(values, 3) if min(ink.shape) >= _SMOOTH_SIDE else values
        labels: _Labels = ndimage.label(smooth > FAINT * smooth.max(), np.ones((3, 3)))[0]
        parts: list[tuple[slice, slice]] = ndimage.find_objects(labels)
        masses = np.bincount(labels.ravel(), weights=ink.ravel(), minlength=len(parts) + 1)[1:]
        boxes = [np.array([rows.start, columns.start, rows.stop, columns.stop]) for rows, columns in parts]
        groups = [_Group(i + 1, box, float(masses[i])) for i, box in enumerate(boxes)]
        frames = [group for group in groups if _is_frame(labels, group)]
        rest = sum(group.mass for group in groups) - sum(group.mass for group in frames)
        if not frames or rest < SPECK * masses.sum():
            break
        # The ink may be paler than the frame, so look for groups again.
        for frame in frames:
            ink[_near(labels == frame.number)] = 0
        removed = True
    total = max(group.mass for group in groups)
    kept = [group for group in groups if group.mass >= SPECK * total]
    return labels, kept, removed or len(kept) < len(groups)


def _is_frame(labels: _Labels, group: _Group) -> bool:
    """Return True if a group is a long line along the edges of the picture."""
    shape = np.array(labels.shape)
    if not ((group.box[2:] - group.box[:2]) >= _LONG * shape).any():
        return False
    band = np.maximum(2, np.ceil(_BAND * shape)).astype(int)
    whole = int((labels == group.number).sum())
    inside = labels[band[0] : -band[0], band[1] : -band[1]]
    return bool((inside == group.number).sum() <= 0.02 * whole)


def _near(mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Add the pixels within two pixels of a mask, to include soft edges."""
    from scipy import ndimage

    return np.asarray(ndimage.maximum_filter(mask, 5))


def _digits(groups: list[_Group]) -> list[list[_Group]]:
    """Return the groups of each digit."""
    tallest = max(group.height for group in groups)
    whole = max(group.mass for group in groups)
    digits = _merged([[group] for group in groups if group.height >= _TALL * tallest])
    for group in (g for g in groups if g.height < _TALL * tallest):
        nearest = min(digits, key=lambda members: _distance(_joined(members), group.box))
        box = _joined(nearest)
        if _distance(box, group.box) <= _NEAR * (box[2] - box[0]):
            nearest.append(group)
        elif group.mass >= _STAIN * whole:
            digits.append([group])
    # The short groups enlarge the digits, so two digits may now be close enough to merge.
    return _merged(digits)


def _merged(digits: list[list[_Group]]) -> list[list[_Group]]:
    """Merge entries whose boxes belong to one digit, until each digit is one entry."""
    from scipy.sparse.csgraph import connected_components

    while True:
        boxes = np.stack([_joined(members) for members in digits])
        count: int
        label: NDArray[np.int32]
        count, label = connected_components(_are_one(boxes[:, None], boxes[None]), directed=False)
        if count == len(digits):
            return digits
        merged: list[list[_Group]] = [[] for _ in range(count)]
        for members, k in zip(digits, label.tolist(), strict=True):
            merged[k] += members
        digits = merged


def _are_one(a: Int[np.ndarray, "... 4"], b: Int[np.ndarray, "... 4"]) -> Bool[np.ndarray, "..."]:
    """Return True if the gaps between the columns and between the rows of two boxes are small."""
    # The gaps between rows and columns, negative if they overlap.
    apart = np.maximum(a[..., :2], b[..., :2]) - np.minimum(a[..., 2:], b[..., 2:])
    height = np.maximum(a[..., 2] - a[..., 0], b[..., 2] - b[..., 0])
    return np.asarray((apart[..., 1] < _GAP * height) & (apart[..., 0] < _BREAK * height))


def _distance(a: Int[np.ndarray, " 4"], b: Int[np.ndarray, " 4"]) -> float:
    """Return the distance between two boxes."""
    return float(np.hypot(*np.maximum(0, np.maximum(a[:2] - b[2:], b[:2] - a[2:]))))


def _joined(members: list[_Group]) -> Int[np.ndarray, " 4"]:
    """Return the box around several groups."""
    boxes = np.stack([group.box for group in members])
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def _cut(
    ink: Gray,
    labels: _Labels,
    members: list[_Group],
    box: Int[np.ndarray, " 4"],
) -> Gray:
    """Return the digit alone, with an empty margin. Ink of other groups is erased."""
    margin = 3
    top, left, bottom, right = box.tolist()
    part = np.s_[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin]
    mine = _near(np.isin(labels[part], [group.number for group in members]))
    return np.pad(np.where(mine, ink[part], np.uint8(0)), margin)
