"""What changed between two files of results, beyond the noise."""

import json
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# What is smaller than this is never called a change: code and data come to lie elsewhere in memory from run to run.
LEAST = 0.05


class Change(NamedTuple):
    """How one peer's time in one case changed: `factor` is new over old, and `noise` what it may be off by chance."""

    case: str
    peer: str
    factor: float
    noise: float

    @property
    def real(self) -> bool:
        """Whether it is more than chance."""
        return abs(self.factor - 1) > max(LEAST, self.noise)


def changes(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[Change]:
    """For every case and peer in both, how its time changed.

    What others do on a machine makes some turns slower, and none faster: a peer's time is its lower quartile. A machine
    is faster on one day than on another, for all alike: each is held against the median change of the other peers of
    its case, which ran in the same turns. The noise is three standard errors of the quartiles, by the bootstrap.
    """
    before = {(row["case"], row["peer"]): row["times"] for row in old}
    after = {(row["case"], row["peer"]): row["times"] for row in new}
    both = [key for key in before if key in after]
    factors = {key: _quartile(after[key]) / _quartile(before[key]) for key in both}
    found = []
    for case, peer in both:
        others = [factors[key] for key in both if key[0] == case and key[1] != peer]
        drift = statistics.median(others) if others else 1.0
        # The machine's own change is only known as well as the other peers agree on it.
        doubt = statistics.median(abs(f / drift - 1) for f in others) if others else 0.0
        error = sum(_error(times) ** 2 for times in (before[case, peer], after[case, peer])) ** 0.5
        found.append(Change(case, peer, factors[case, peer] / drift, 3 * error + doubt))
    return found


def _quartile(times: list[float]) -> float:
    return float(np.quantile(times, 0.25))


def _error(times: list[float]) -> float:
    """The relative standard error of the lower quartile; of one or two times nothing is known."""
    if len(times) < 3:
        return float("inf")
    drawn = np.random.default_rng(0).choice(times, (1000, len(times)))
    return float(np.quantile(drawn, 0.25, axis=1).std() / _quartile(times))


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of results."""
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            named = isinstance(row["case"], str) and isinstance(row["peer"], str)
            if not named or not row["times"] or not all(0 < time < float("inf") for time in row["times"]):
                raise ValueError(f"a case, a peer and times above 0 are wanted, got {str(row)[:80]}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{path} is no file of results: {error!r}", file=sys.stderr)
        raise SystemExit(2) from error
    return rows
