"""Verdicts, their causes, and advice for each cause."""

import enum


class Verdict(enum.StrEnum):
    """A verdict on a gradient; each member equals its text.

    Attributes:
        RIGHT: Every check agrees within its tolerance.
        WRONG: A difference exceeds rounding and the uncertainty of the check.
        CANNOT_TELL: The check cannot decide; the cause says why.
    """

    RIGHT = "right"
    WRONG = "wrong"
    CANNOT_TELL = "cannot tell"


class Cause(enum.StrEnum):
    """The reason for a verdict; each member equals its text."""

    AGREES = "agrees"
    DIFFERS = "differs"
    STRUCTURE = "tree, shape or dtype differs"
    GRADIENT_NOT_FINITE = "the gradient is not finite where f is smooth"
    KINK = "kink"
    JUMP = "jump"
    STEEP = "infinite slope"
    EDGE = "edge of the domain"
    NOT_FINITE = "not finite here"
    NOISE = "noise above the signal"
    ROUGH = "f varies within the smallest step"
    APPROXIMATE = "f iterates to a tolerance"
    UNSTEADY = "a rounding of the point changes the gradient"
    NOT_DETERMINISTIC = "not deterministic"
    NOT_ONE_FUNCTION = "f depends on how it is run"
    OTHER_VALUE = "the rule returns a different value than f"
    NO_FLOAT64 = "f does not compute in float64"
    ONLY_IN_USER_DTYPE = "far off only in the dtype of the arguments"
    ONLY_NATIVE = ONLY_IN_USER_DTYPE  # the former name of ONLY_IN_USER_DTYPE
    ASYMMETRIC = "the Hessian is not symmetric"
    OUT_OF_TIME = "out of time"


ADVICE = {
    Cause.KINK: "f has no gradient here, or it has a kink within the smallest step: check at another point",
    Cause.JUMP: "The value of f jumps here: check at another point",
    Cause.STEEP: "The slope of f grows without bound here: check at another point",
    Cause.EDGE: "f is not finite on one side of this point: check inside its domain",
    Cause.NOT_FINITE: "f is infinite or NaN here: check at another point, or in a dtype with more range",
    Cause.NOISE: "Rounding in f hides a gradient this small: check at another point, or check only a part of f",
    Cause.ROUGH: "The smallest steps are too large for f here: check at smaller arguments, or check only a part of f",
    Cause.APPROXIMATE: "The derivative is only as accurate as the tolerance of f: tighten the tolerance, or pass rtol",
    Cause.UNSTEADY: "f has a kink at this point, or its gradient is computed coarsely: check at another point",
    Cause.NOT_DETERMINISTIC: "Two runs differ: fix the random key, or pass nondeterminism for a derivative that varies",
    Cause.NOT_ONE_FUNCTION: "The values of f differ between eager, jit and vmap: make f pure, or fix its vmap rule",
    Cause.OTHER_VALUE: "Let the rule's forward pass return the value of f",
    Cause.NO_FLOAT64: (
        "The values of f are too coarse for a quotient: compute f in the dtype of its arguments, or pass rtol"
    ),
    Cause.ONLY_IN_USER_DTYPE: (
        "Rounding is large, or a rule is wrong in this dtype alone: check its formula in this dtype"
    ),
    Cause.OUT_OF_TIME: "The check stopped before this stage: pass more seconds, or check a part of f",
    Cause.ASYMMETRIC: "No function has the claimed gradient: correct the rule for the gradient",
}
