"""The time limit of a check."""

import math
import time

from jaxgd.mesh.processes import decided


class Clock:
    """A time limit of `seconds` from now on. None means no limit.

    With `together`, all processes of a job use the clock of process 0.
    """

    def __init__(self, seconds: float | None, together: bool = False) -> None:
        self.together = together and seconds is not None
        self.end = math.inf if seconds is None else time.perf_counter() + seconds

    def over(self) -> bool:
        """Return True if the time limit has passed."""
        return bool(decided(self.together, time.perf_counter() > self.end))

    def left(self) -> float | None:
        """Return the seconds left, at least 1e-9, or None if there is no limit."""
        if math.isinf(self.end):
            return None
        return float(decided(self.together, max(self.end - time.perf_counter(), 1e-9)))
