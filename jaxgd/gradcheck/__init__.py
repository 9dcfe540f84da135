"""A gradient checker with three verdicts: right, wrong and cannot tell.

The module `check` runs a check, in this order:

- `problem` separates the arguments to differentiate from the fixed ones, and `claims` reads the derivatives to check.
- `consistency` compares repeated runs of f, and its runs under jit and vmap. It does the same for the gradient.
- `derive` runs autodiff and the claims along random directions, which `draws` makes.
- `sample` evaluates f along these directions, and `quotients` estimates the slopes from the values.
- `core` judges the derivatives by the slopes. Its docstring describes the method.
- `examine` combines all comparisons of a leaf. `locate` searches for the wrong elements, and `patterns` names the
  pattern of the error.
- `consistency` compares the gradients in the dtype of the arguments with those in float64.
- `second_order` checks the derivative of the gradient in the same way.
- `report` holds the result with its `verdicts`, and `text` shows it.

`programs` has the functions for the device, and `run` compiles and batches them.
"""

from jaxgd.gradcheck.check import check_gradients
from jaxgd.gradcheck.report import Check, Consistency, Element, GradientError, GradientReport, LeafReport
from jaxgd.gradcheck.verdicts import Cause, Verdict

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
