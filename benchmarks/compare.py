"""Compare two files of results, and find the changes that are larger than the noise."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.rows import QUANTITIES, Key, Row

# A smaller relative change of a time never counts as better or worse. A new build alone can change a time this much,
# because the layout of code and data in memory changes.
LEAST = 0.05
# A smaller relative change of a sampled value counts as rounding, even if the samples have no noise.
ROUNDING = 1e-9
# A change is real only if it exceeds this number of standard errors.
SIGMAS = 3
# The lower quartile of n normal samples has the standard error 1.36 σ/√n. The factor of the median is 1.25. The code
# uses the larger factor for both.
QUANTILE_ERROR = 1.36
# The tenth and ninetieth percentiles of a normal distribution are 2.56 σ apart.
SPREAD_SIGMAS = 2.56


class Change(NamedTuple):
    """The change of one figure.

    Attributes:
        old: The earlier row.
        new: The later row.
        factor: The new value divided by the old value. The factor of a time is also divided by the drift of the host.
            The factor is infinity if only the old value is 0, or if only the old program reached its target. It is 0 if
            only the new program reached its target.
        noise: The relative change that chance can cause. Infinity if it is unknown; 0 for an exact count.
    """

    old: Row
    new: Row
    factor: float
    noise: float

    @property
    def text(self) -> str:
        """Both values of an exact count. For other quantities, the factor and its noise."""
        if QUANTITIES[self.new.quantity].noise == "none":
            old, new = ("–" if row.value is None else f"{row.value:,}" for row in (self.old, self.new))
            return f"{old} → {new}"
        return f"{self.factor:.3f} × (noise {self.noise:.3f})"

    @property
    def real(self) -> bool:
        """True if the change exceeds the noise. A time must also exceed LEAST, and a sampled value ROUNDING."""
        floor = {"host": LEAST, "sample": ROUNDING, "none": 0.0}[QUANTITIES[self.new.quantity].noise]
        return abs(self.factor - 1) > max(floor, self.noise)

    @property
    def word(self) -> str:
        """The verdict: better, worse, changed, unchanged, within the noise or noise unknown."""
        if self.noise == float("inf"):
            return "noise unknown"
        if not self.real:
            return "within the noise" if self.noise else "unchanged"
        if self.new.better == "neither":
            return "changed"
        return "better" if (self.factor < 1) == (self.new.better == "lower") else "worse"


def changes(old: Sequence[Row], new: Sequence[Row]) -> list[Change]:
    """Return the change of every figure that is in both files with the same settings.

    Times are compared by the lower quartile of the samples, and rates by the upper quartile, because other programs on
    the host make samples slower but never faster. The host itself may be faster on one day than on another. Each factor
    is therefore divided by the drift: the median factor of the other variants, which ran in the same minutes. The noise
    is three standard errors of the quartiles plus the median deviation of the other variants from the drift.

    Other samples, such as the numbers of correct images over several seeds, are compared by the median. The noise is
    three standard errors. A standard error is computed by the bootstrap, or from the spread if a row has no samples.

    Counts of evaluations and verdicts are exact, so every difference is a change. Counts of verdicts are compared only
    if the numbers of checks are equal. Runs of the book are compared only if the numbers of epochs are equal.
    """
    before = {row.key: row for row in old}
    pairs = [(before[row.key], row) for row in new if row.key in before and _comparable(before[row.key], row)]
    factors = {b.key: _factor(a, b) for a, b in pairs}
    return [_change(a, b, factors) for a, b in pairs]


def lost(old: Sequence[Row], new: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each figure that is in both files with different settings. The line states the settings."""
    before = {row.key: row for row in old}
    for row in new:
        if row.key in before and not _comparable(before[row.key], row):
            settings = (", ".join(map(str, _settings(a, row))) for a in (before[row.key], row))
            yield f"{row.case}, {row.variant}, {row.quantity}: {' against '.join(settings)}"


def _comparable(a: Row, b: Row) -> bool:
    return _settings(a, b) == _settings(b, b)


def _settings(row: Row, new: Row) -> tuple[object, ...]:
    """Return the settings that must be equal: the unit, and the epochs of a run of the book.

    For an exact count, add n, such as the number of checks.
    """
    counted = QUANTITIES[new.quantity].noise == "none"
    epochs = [f"{row.details['epochs']} epochs"] if "epochs" in row.details else []
    return (row.unit, *epochs, *([f"n = {row.n}"] if counted else []))


def _change(old: Row, new: Row, factors: dict[Key, float]) -> Change:
    factor, noise = factors[new.key], QUANTITIES[new.quantity].noise
    if noise == "none":
        return Change(old, new, factor, 0.0)
    error = SIGMAS * sum(_error(row) ** 2 for row in (old, new)) ** 0.5
    if noise == "sample":
        return Change(old, new, factor, error)
    same = [key for key in factors if (key[0], *key[2:]) == (new.case, new.quantity, new.precision)]
    # Leave out factors of 0 and infinity. They arise if a value is 0, such as a compile time below the resolution.
    others = [factors[key] for key in same if key[1] != new.variant and 0 < factors[key] < float("inf")]
    drift = statistics.median(others) if others else 1.0
    doubt = statistics.median(abs(f / drift - 1) for f in others) if others else 0.0
    return Change(old, new, factor / drift, error + doubt)


def _factor(old: Row, new: Row) -> float:
    """Return the new value divided by the old value. If both rows have samples, use their statistics as the values."""
    if old.value is None or new.value is None:
        return 1.0 if old.value == new.value else 0.0 if old.value is None else float("inf")
    both = bool(old.samples) and bool(new.samples)
    a, b = (_statistic(row)(row.samples) if both else row.value or 0.0 for row in (old, new))
    if a == 0:
        return 1.0 if b == 0 else float("inf")
    return float(b / a)


def _statistic(row: Row) -> Callable[..., float]:
    """Return a function of the samples: the better quartile of times and rates, or the median of other samples."""
    quantity = QUANTITIES[row.quantity]
    quantile = 0.5 if quantity.noise != "host" else 0.25 if quantity.better == "lower" else 0.75
    return lambda samples, **axis: np.quantile(samples, quantile, **axis)


def _error(row: Row) -> float:
    """Return the relative standard error of the statistic; infinity if the error is unknown."""
    if not row.value:
        return float("inf")
    if row.samples:
        # The variation of one or two samples is unknown.
        if len(row.samples) < 3:
            return float("inf")
        statistic = _statistic(row)
        drawn = np.random.default_rng(0).choice(row.samples, (1000, len(row.samples)))
        return float(np.std(statistic(drawn, axis=1)) / abs(statistic(row.samples)))
    if row.spread is None or row.n < 3:
        return float("inf")
    deviation = (row.spread[1] - row.spread[0]) / SPREAD_SIGMAS
    return float(QUANTILE_ERROR * deviation / row.n**0.5 / abs(row.value))
