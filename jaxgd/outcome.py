"""The reason a run stopped, as data: an Outcome works under jit and vmap, with one code per batch element."""

import dataclasses
import enum

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxgd.typed import Field


class Reason(enum.IntEnum):
    """The reason a run stopped. The numbers are fixed, because checkpoints hold them.

    Attributes:
        COMPLETED: Every requested update was made.
        NOT_FINITE: The cost, its gradient or a variable became infinite or NaN after the start. Or `train` with
            `keep="best"` or `patience` found no finite value on the validation examples.
        STOPPED: A callback ended the run.
        GRADIENT: The norm of the gradient is within its tolerance.
        STEP: The length of the step is within its tolerance.
        COST: The cost reached its target.
        DECREASE: The change of the cost is within its tolerance.
        STALLED: The next step is below the rounding of the variables, and the cost no longer falls.
        DIVERGING: The cost grew far above its value at the start.
        MAX_STEPS: The run made `max_steps` updates and met no stopping test.
        SECONDS: The time limit passed before a stopping test was met.
        BAD_RULE: A number of the rule or a bound is out of range.
        RUNNING: The run has not ended yet.
        UNCHANGED: The last epoch of `train` changed no weight. With an optimizer or a schedule, no epoch changed a
            weight. The cost is unknown, or not near 0 in the sense of `train`.
        SATURATED: After the last epoch of `train`, all outputs are at the limits of their activation within rounding.
            For sigmoid, the limits are 0 and 1. The cost is not near 0.
        START_NOT_FINITE: The cost, its gradient or a variable was infinite or NaN at the start, or a traced label of
            `train` was out of range.
        ZERO_GRADIENT: The gradient is 0, and the curvature does not show a minimum.
        PATIENCE: `train` made `patience` epochs in a row without a new best network.
    """

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
    UNCHANGED = 13
    SATURATED = 14
    START_NOT_FINITE = 15
    ZERO_GRADIENT = 16
    PATIENCE = 17


_MESSAGES = {
    Reason.COMPLETED: "completed: every requested update was made",
    Reason.NOT_FINITE: "not finite: the cost or a variable became infinite or NaN",
    Reason.STOPPED: "stopped: the callback ended the run early",
    Reason.GRADIENT: "converged: the norm of the gradient is within its tolerance",
    Reason.STEP: "converged: the length of the step is within its tolerance",
    Reason.COST: "converged: the cost reached its target",
    Reason.DECREASE: "converged: the change of the cost is within its tolerance",
    Reason.STALLED: "stalled: steps are below the rounding of the variables and the cost no longer falls",
    Reason.DIVERGING: "diverging: the cost has grown far above its value at the start",
    Reason.MAX_STEPS: "out of steps: max_steps updates were made and no stopping test was met",
    Reason.SECONDS: "out of time: the time limit passed and no stopping test was met",
    Reason.BAD_RULE: "not started: a number of the rule or a bound is out of range",
    Reason.RUNNING: "running: the run has not ended yet",
    Reason.UNCHANGED: "unchanged: no weight changed in the last epoch. Eta is too small for the dtype, or the gradient "
    "is 0, as in a saturated network",
    Reason.SATURATED: "saturated: all outputs are at the limits of their activation (0 and 1 for sigmoid) within "
    "rounding, although the cost is not near 0. "
    "Try a smaller eta, or scaled initial weights",
    Reason.START_NOT_FINITE: "not started: the cost, its gradient or a variable is infinite or NaN at the start. "
    "Check the start and the data",
    Reason.ZERO_GRADIENT: "zero gradient: the gradient is 0 at v, but the curvature does not show a minimum. Does the "
    "cost depend on v? Try another start",
    Reason.PATIENCE: "out of patience: no new best network on the validation examples within the epochs that "
    "`patience` allows",
}
# The advice for a rule with a step size, and for a rule without one. The name of the step size replaces {}.
_ADVICE = {
    Reason.NOT_FINITE: ("Try a smaller {}", "Check the cost near the last v"),
    Reason.STALLED: (
        "The dtype allows no more progress, or the {} is far too small",
        "The dtype allows no more progress",
    ),
    Reason.DIVERGING: ("Try a smaller {}", "Check the cost near the last v"),
    Reason.MAX_STEPS: ("Try more steps, a larger {} or a looser tolerance", "Try more steps or a looser tolerance"),
    Reason.BAD_RULE: ("Check the {} and any bounds", "Check the rule and any bounds"),
}


def _sentence(reason: Reason, step_size: str | None, numbers: str = "") -> str:
    # The message, with the numbers at the end of its first sentence, and the advice.
    first, stop, rest = _MESSAGES[reason].partition(". ")
    with_size, without = _ADVICE.get(reason, ("", ""))
    advice = without if step_size is None else with_size.format(step_size)
    return f"{first}{numbers}{stop}{rest}" + (f". {advice}" if advice else "")


_OK = (Reason.COMPLETED, Reason.GRADIENT, Reason.STEP, Reason.COST, Reason.DECREASE, Reason.PATIENCE)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Outcome:
    """The reason a run stopped, as an integer code that is stored on the device.

    Attributes:
        code: A `Reason` as an integer: a scalar, or one code per batch element under vmap.
        gradient_norm: ‖∇C‖ at the end, in the shape of `code`; None if no stopping test needs it. With bounds, the norm
            of the reduced gradient.
        gradient_tolerance: The tolerance of ‖∇C‖, in the shape of `code`; None if no stopping test needs it.
        step_size: The name of the rule's step size, for the advice in `message`; by default "eta". None if the rule has
            no step size.

    Example:
        >>> outcome = Outcome(jnp.array([0, 1]))  # two batch elements
        >>> outcome
        Outcome(1 × COMPLETED, 1 × NOT_FINITE)
        >>> jax.tree.map(lambda code: code[1], outcome).reason.name
        'NOT_FINITE'
    """

    code: Field
    gradient_norm: Field | None = None
    gradient_tolerance: Field | None = None
    step_size: str | None = dataclasses.field(default="eta", metadata={"static": True})

    def __repr__(self) -> str:
        """Show the names of the reasons, such as Outcome(GRADIENT), if the code is not traced."""
        if isinstance(self.code, jax.core.Tracer) or not isinstance(self.code, jax.Array | np.ndarray | np.generic):
            return f"Outcome(code={self.code})"
        reasons, counts = np.unique(np.asarray(self.code), return_counts=True)
        names = [Reason(r).name for r in reasons]
        if np.ndim(self.code):
            names = [f"{n} × {name}" for name, n in zip(names, counts, strict=True)]
        return f"Outcome({', '.join(names)})"

    @property
    def reason(self) -> Reason:
        """The reason, if the code is a single number and not traced.

        Example:
            >>> Outcome(jnp.array(0)).reason.name
            'COMPLETED'
        """
        return Reason(int(self.code))

    @property
    def ok(self) -> bool | Bool[Array, "*batch"]:
        """True if the run reached its goal: COMPLETED, GRADIENT, STEP, COST, DECREASE or PATIENCE.

        A single code gives a bool. A batch, or a code under jit, gives an array of bools.

        Example:
            >>> Outcome(jnp.array([0, 1])).ok.tolist()
            [True, False]
        """
        if isinstance(self.code, jax.core.Tracer) or np.ndim(self.code):
            return jnp.isin(jnp.asarray(self.code), jnp.array([int(reason) for reason in _OK]))
        return self.reason in _OK

    @property
    def message(self) -> str:
        """A text for the user, with ‖∇C‖ and its tolerance if known.

        A batch gives the count and the text of each reason, without ‖∇C‖.
        """
        if np.ndim(self.code) == 0:
            numbers = ""
            if self.gradient_norm is not None and self.gradient_tolerance is not None:
                norm, tolerance = float(self.gradient_norm), float(self.gradient_tolerance)
                numbers = f" (‖∇C‖ = {norm:.3g}, tolerance {tolerance:.3g})"
            return _sentence(self.reason, self.step_size, numbers)
        reasons, counts = np.unique(np.asarray(self.code), return_counts=True)
        return "; ".join(f"{n} × {_sentence(Reason(r), self.step_size)}" for r, n in zip(reasons, counts, strict=True))
