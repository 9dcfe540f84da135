"""How a run ended, as data: an Outcome survives jit and vmap, one per lane."""

import enum
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Int


class Reason(enum.IntEnum):
    """Why a run stopped."""

    COMPLETED = 0
    NOT_FINITE = 1
    STOPPED = 2


_MESSAGES = {
    Reason.COMPLETED: "completed: all the epochs asked for were run",
    Reason.NOT_FINITE: "not finite: the cost or a weight became infinite or NaN; the last finite network is kept. "
    "Try a smaller eta",
    Reason.STOPPED: "stopped: before the end, as asked",
}


class Outcome(NamedTuple):
    """The reason a run stopped, as an integer code that lives on the device.

    Shapes: `code` is a scalar, or one per lane under vmap; then use `jax.tree.map` or index it to read a lane.
    """

    code: Int[Array, "*lanes"]

    @property
    def reason(self) -> Reason:
        """The reason by name; for one lane whose value is known.

        >>> import jax.numpy as jnp
        >>> Outcome(jnp.array(0)).reason.name
        'COMPLETED'
        """
        return Reason(int(self.code))

    @property
    def ok(self) -> bool:
        """Whether everything that was asked for was done; for one lane whose value is known."""
        return self.reason is Reason.COMPLETED

    @property
    def message(self) -> str:
        """One sentence for a person; for many lanes, how many ended in which way."""
        if np.ndim(self.code) == 0:
            return _MESSAGES[self.reason]
        reasons, counts = np.unique(np.asarray(self.code), return_counts=True)
        return "; ".join(f"{n} × {_MESSAGES[Reason(r)]}" for r, n in zip(reasons, counts, strict=True))
