"""A gradient checker with three verdicts: right, wrong and cannot tell."""

from jaxgd.gradcheck.check import check_gradients
from jaxgd.gradcheck.report import (
    Cause,
    Check,
    Consistency,
    Element,
    GradientError,
    GradientReport,
    LeafReport,
    Verdict,
)

__all__ = [
    "Cause",
    "Check",
    "Consistency",
    "Element",
    "GradientError",
    "GradientReport",
    "LeafReport",
    "Verdict",
    "check_gradients",
]
