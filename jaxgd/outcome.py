"""How a run ended, as data: an Outcome survives jit and vmap, one per lane."""

import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int


class Reason(enum.IntEnum):
    """Why a run stopped."""

    COMPLETED = 0
    NOT_FINITE = 1
    STOPPED = 2
    GRADIENT = 3
    STEP = 4
    COST = 5
    DECREASE = 6
    STALLED = 7
    DIVERGING = 8
    MAX_STEPS = 9
    SECONDS = 10
    BAD_RULE = 11
    RUNNING = 12


_MESSAGES = {
    Reason.COMPLETED: "completed: everything that was asked for was done",
    Reason.NOT_FINITE: "not finite: the cost or a variable became infinite or NaN. Try a smaller eta",
    Reason.STOPPED: "stopped: before the end, as asked",
    Reason.GRADIENT: "converged: the gradient is as small as was asked for",
    Reason.STEP: "converged: the step is as short as was asked for",
    Reason.COST: "converged: the cost is as low as was asked for",
    Reason.DECREASE: "converged: the cost changes by as little as was asked for",
    Reason.STALLED: "stalled: steps are below the rounding of the variables and the cost no longer falls. "
    "This is as far as the dtype goes, or eta is far too small",
    Reason.DIVERGING: "diverging: the cost has grown far beyond where it began. Try a smaller eta",
    Reason.MAX_STEPS: "out of steps: max_steps updates were made and no stopping test was met",
    Reason.SECONDS: "out of time: the seconds are over and no stopping test was met",
    Reason.BAD_RULE: "not begun: a number of the rule is out of range, as an eta that is not above 0",
    Reason.RUNNING: "running: not ended yet",
}

_GOOD = (Reason.COMPLETED, Reason.GRADIENT, Reason.STEP, Reason.COST, Reason.DECREASE)


class Outcome(NamedTuple):
    """The reason a run stopped, as an integer code that lives on the device.

    Shapes: `code` is a scalar, or one per lane under vmap; then use `jax.tree.map` or index it to read a lane.
    """

    code: Int[Array, "*lanes"]

    def __repr__(self) -> str:
        """By name, where it is known: Outcome(GRADIENT)."""
        if isinstance(self.code, jax.core.Tracer) or not isinstance(self.code, jax.Array | np.ndarray | np.generic):
            return f"Outcome(code={self.code})"
        reasons, counts = np.unique(np.asarray(self.code), return_counts=True)
        names = [Reason(r).name for r in reasons]
        if np.ndim(self.code):
            names = [f"{n} × {name}" for name, n in zip(names, counts, strict=True)]
        return f"Outcome({', '.join(names)})"

    @property
    def reason(self) -> Reason:
        """The reason by name; for one lane whose value is known.

        >>> Outcome(jnp.array(0)).reason.name
        'COMPLETED'
        """
        return Reason(int(self.code))

    @property
    def ok(self) -> bool | Bool[Array, "*lanes"]:
        """Whether what was asked for was done or reached: a bool, or for many lanes or under jit an array of them.

        >>> Outcome(jnp.array([0, 1])).ok.tolist()
        [True, False]
        """
        if isinstance(self.code, jax.core.Tracer) or np.ndim(self.code):
            return jnp.isin(jnp.asarray(self.code), jnp.array([int(reason) for reason in _GOOD]))
        return self.reason in _GOOD

    @property
    def message(self) -> str:
        """One sentence for a person; for many lanes, how many ended in which way."""
        if np.ndim(self.code) == 0:
            return _MESSAGES[self.reason]
        reasons, counts = np.unique(np.asarray(self.code), return_counts=True)
        return "; ".join(f"{n} × {_MESSAGES[Reason(r)]}" for r, n in zip(reasons, counts, strict=True))
