"""The vertical scale of a surface: linear, or logarithmic above the lowest cost."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Scale:
    """The vertical scale of a surface: C, or log₁₀(1 + (C − lowest)/floor) if the costs span decades.

    Attributes:
        lowest: The lowest C of the picture, or 0 if that C lies between 0 and `high`/1000.
        floor: The distance above `lowest` from which the scale is logarithmic; None for a linear scale.
        high: The highest C of the picture.
    """

    lowest: float
    floor: float | None
    high: float

    def __call__(self, c: Floats | Sequence[float] | float) -> Floats:
        """Return the drawn height of a cost, NaN where the cost is not finite."""
        known = np.asarray(c, np.float64)
        known = np.where(np.isfinite(known), known, np.nan)
        if self.floor is None:
            return known
        return np.asarray(np.log10(1 + np.maximum(known - self.lowest, 0) / self.floor))

    def ticks(self) -> tuple[list[float], list[str]]:
        """Return the costs to mark on a logarithmic axis, and their labels."""
        assert self.floor is not None
        powers = range(int(np.ceil(np.log10(self.floor))), int(np.floor(np.log10(self.high - self.lowest))) + 1)
        marks = [self.lowest, *(self.lowest + 10.0**p for p in powers)]
        z, kept = self(marks), [0]
        for i in range(1, len(marks)):
            # Closer marks would overlap.
            if float(z[i] - z[kept[-1]]) > 0.08 * float(self(self.high)):
                kept.append(i)
        # Label a mark with its distance above the lowest cost, such as +10. A cost such as 58.98425 would be long.
        words = [f"{self.lowest:.4g}", *(f"{'+' if self.lowest else ''}{10.0**p:.4g}" for p in powers)]
        return [marks[i] for i in kept], [words[i] for i in kept]

    def levels(self) -> Floats:
        """Return the heights of the contours, which are equally spaced from the second one on."""
        low, high = (float(self(c)) for c in (self.lowest, self.high))
        levels = np.linspace(low, high if high > low else low + 1, 24)
        # Contours close to the bottom of a narrow valley would break into islands, so leave them out.
        return levels if self.floor is None else levels[(levels == low) | (levels > np.log10(3))]

    @classmethod
    def of(cls, grid: Floats, others: Floats) -> "Scale":
        """Choose the scale of a picture from the costs on its grid and the costs of its path and minima."""
        finite = np.concatenate([grid.ravel(), others])
        finite = finite[np.isfinite(finite)]
        if not finite.size:
            return cls(0.0, None, 1.0)
        lowest, high = float(finite.min()), float(finite.max())
        if 0 <= lowest < 1e-3 * high:
            lowest = 0.0
        above = np.where(np.isfinite(grid), grid - lowest, np.nan)
        middle = float(np.nanquantile(above, 0.4)) if np.isfinite(above).any() else np.inf
        if not 10 * middle < high - lowest < np.inf:
            return cls(lowest, None, high)
        # At the bottom of a valley, the second differences measure how far C rises between neighboring points of the
        # grid. The grid cannot show smaller differences of C.
        bends = np.sum([np.abs(np.diff(above, 2, axis=i, prepend=np.nan, append=np.nan)) for i in (0, 1)], axis=0)
        bends = bends[np.isfinite(bends) & (above <= middle / 4)]
        floor = float(np.quantile(bends, 0.75)) if bends.size else 0.0
        return cls(lowest, max(floor, 1e-6 * (high - lowest)), high)
