"""Separate the strokes of a picture (ink) from its background (paper), also in uneven light.

The paper under dark strokes is found by a morphological closing: the largest value in each window, and then the
smallest of these in each window. Regions as wide as the window, such as a shadow or a table, keep their brightness and
their sharp edges. The pixels at the edge of the picture are repeated beyond it, so a region at the edge, such as the
line of a printed frame, counts as wide. Light strokes on dark paper are dark strokes in the inverted picture.

Source: P. Soille, Morphological Image Analysis, chapter 4 (closings and top-hats).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from jaxgd.data.image.frame import FAINT, border_median

Gray = UInt8[np.ndarray, "_ _"]  # axes without names, because one function may use several sizes

# Width of the window, as a share of the picture's shorter side. Strokes are narrower, and shadows wider.
_WINDOW = 0.4
_EDGE = 0.1  # the length ℓ in `_Guess.cost`, as a share of the picture's shorter side
# Even paper is plain if the ink covers at most this share of it: _DARK for dark ink, _LIGHT for light ink. With a
# higher _LIGHT, a sheet with a large digit on a dark table would count as light ink.
_DARK, _LIGHT = 0.5, 0.3
_LEAST_SIDE = 40  # pixels: in a smaller picture, a stroke may be as wide as a shadow, so the paper counts as even
# Paper is even if its values differ by at most this share of the strongest ink.
_EVEN = 0.15
# The paper and the digits are found in at most this number of pixels. A larger picture is reduced by averaging blocks.
_MOST_PIXELS = 2**20
_DIMMEST = 0.3  # share of the brightest paper: a division by darker paper would amplify its grain
_BLACK = 16  # gray levels added to dark paper, to avoid a division by 0


class Picture(NamedTuple):
    """A picture with its ink.

    Attributes:
        ink: From 0 (paper) to 255 (ink). If the paper is even, these are the gray values, inverted if the ink is dark.
            Gray paper is then above 0, and gray ink below 255. On uneven paper, ink is relative to the paper around it.
        gray: The gray values from 0 (black) to 255 (white).
        even: True if the paper is even.
        factor: A pixel of `ink` is a block of this many rows and columns of `gray`. It is 1 if the paper is even.
    """

    ink: Gray
    gray: Gray
    even: bool
    factor: int


class _Guess(NamedTuple):
    """The paper and the marks on it, on the assumption that the ink is dark, or that it is light."""

    paper: Gray
    marks: Gray

    @property
    def even(self) -> bool:
        return int(self.paper.max()) - int(self.paper.min()) <= _EVEN * int(self.marks.max())

    def plain(self, covered: float) -> bool:
        """Return True if the paper is even, and the ink covers at most this share of it."""
        return self.even and bool((self.marks > FAINT * self.marks.max()).mean() <= covered)

    @property
    def cost(self) -> float:
        """Σ marks + ℓ Σ |P − P′|, with the second sum over all pairs of neighboring pixels P, P′ of the paper.

        The cost is small for the correct polarity: there is little ink, and the paper has no edges of strokes. Take a
        stroke of width b and contrast c. Per unit of its length, it costs b c as a mark (correct polarity), and 2 ℓ c
        as two edges of the paper (wrong polarity). So ℓ is longer than b/2.
        """
        paper = self.paper.astype(np.int16)
        edges = sum(float(np.abs(np.diff(paper, axis=axis)).sum()) for axis in (0, 1))
        return float(self.marks.sum() + _EDGE * min(paper.shape) * edges)


def separate(gray: Gray) -> Picture:
    """Separate the ink in a picture from the paper.

    The polarity of the ink is dark or light. For dark ink, the paper is the closing of the picture. For light ink, it
    is the closing of the inverted picture. Paper is even if its values differ by at most 15% of the strongest ink. Even
    paper is plain if dark ink covers at most half of it, or light ink at most 30%. If only one polarity has plain
    paper, the ink has this polarity. Otherwise it has the polarity with the lower `_Guess.cost`. With the wrong
    polarity, edges of strokes remain in the closing, and gaps between strokes are marked as ink.

    If the paper of this polarity is even, or a side of the picture has fewer than 40 pixels, `_of_even_paper` chooses
    the polarity instead.

    Args:
        gray: Gray values from 0 (black) to 255 (white), `uint8` of shape (height, width).

    Returns:
        The picture with its ink. Uneven paper is divided out: dark ink is 255 (1 − v/paper) for the gray value v.
    """
    if min(gray.shape) < _LEAST_SIDE:
        return Picture(_of_even_paper(gray), gray, True, 1)
    factor = reduction(gray)
    small = reduced(gray, factor)
    dark, light = _guess(small), _guess(255 - small)
    dark_plain, light_plain = dark.plain(_DARK), light.plain(_LIGHT)
    is_dark = dark_plain if dark_plain != light_plain else dark.cost <= light.cost
    guess = dark if is_dark else light
    if guess.even:
        return Picture(_of_even_paper(gray), gray, True, 1)
    # Divide by the brightness of the paper, because it is proportional to the illumination.
    brightness = guess.paper.astype(np.float32) if is_dark else (255 + _BLACK) - guess.paper.astype(np.float32)
    brightest = float(brightness.max())
    ink = guess.marks / np.maximum(brightness, _DIMMEST * brightest) * (255 if is_dark else brightest)
    return Picture(np.rint(np.minimum(ink, 255)).astype(np.uint8), gray, False, factor)


def contrast(gray: Gray) -> float:
    """Smooth the marks. Return the strongest minus the median, for the polarity with the larger difference."""
    from scipy import ndimage

    strongest = 0.0
    for values in (gray, 255 - gray):
        smooth: NDArray[np.float32] = ndimage.uniform_filter(_guess(values).marks.astype(np.float32), 3)
        strongest = max(strongest, float(smooth.max() - np.median(smooth)))
    return strongest


def reduction(gray: Gray) -> int:
    """Return the factor of a reduction to at most about a million pixels."""
    return int(np.ceil(np.sqrt(gray.size / _MOST_PIXELS)))


def reduced(gray: Gray, factor: int) -> Gray:
    """Average blocks of `factor` rows and columns. Incomplete blocks at the bottom and right edges are left out."""
    if factor == 1:
        return gray
    rows, columns = (side // factor for side in gray.shape)
    blocks = gray[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
    # Average one row of blocks at a time, because the sum needs four bytes per pixel.
    return np.stack([np.rint(row.mean(axis=(0, 2), dtype=np.float32)).astype(np.uint8) for row in blocks])


def _of_even_paper(gray: Gray) -> Gray:
    """Return a picture on even paper, inverted if its ink is dark.

    The median b of the border is the paper. The ink is darker than the paper if Σ (v − b)³ < 0 over all pixels v.
    """
    paper = int(border_median(gray[None])[0])
    deviation = np.arange(256) - paper
    # Count one row at a time, because bincount makes a copy with eight bytes per pixel.
    dark = sum(np.bincount(row, minlength=256) for row in gray) @ deviation**3 < 0
    return 255 - gray if dark else gray


def _closing(values: Gray) -> Gray:
    """Return the brightness of the paper under dark strokes."""
    half = max(1, round(_WINDOW * min(values.shape) / 2))
    # An opening removes bright specks, which would raise the paper around them.
    paper = _extreme(_extreme(np.pad(values, half, mode="edge"), 3, np.minimum), 3, np.maximum)
    paper = _extreme(_extreme(paper, 2 * half + 1, np.maximum), 2 * half + 1, np.minimum)
    return paper[half:-half, half:-half]


def _extreme(values: Gray, width: int, extreme: np.ufunc) -> Gray:
    """Return the largest or smallest value in a square window around each pixel. `width` is odd."""
    for axis in (0, 1):
        values = np.pad(values, [(width // 2 * (axis == other),) * 2 for other in (0, 1)], mode="edge")
        covered = 1  # each value is the extreme of this many pixels: its own and those after it
        while covered < width:
            step = min(covered, width - covered)
            values = (
                extreme(values[:-step], values[step:]) if axis == 0 else extreme(values[:, :-step], values[:, step:])
            )
            covered += step
    return values


def _guess(values: Gray) -> _Guess:
    paper = _closing(values)
    return _Guess(paper, np.maximum(paper, values) - values)
