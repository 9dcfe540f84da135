"""The registry of rules. `import jaxgd` and the command line read it, so it imports no other module of jaxgd."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple


class Hyperparam(NamedTuple):
    """A number that a rule takes.

    Attributes:
        name: The name of the argument, and of the option of `jaxgd minimize`.
        default: The default of that option.
        help: The help of that option, without the names of the rules and the default.
        fraction: True if the number must lie in [0, 1), and False if it must be above 0.
    """

    name: str
    default: float
    help: str
    fraction: bool = False


class Entry(NamedTuple):
    """One rule.

    Attributes:
        name: The name of the function that makes the rule.
        module: The module of that function. It may import JAX.
        hyperparams: The numbers that the function takes.
    """

    name: str
    module: str
    hyperparams: tuple[Hyperparam, ...] = ()

    @property
    def word(self) -> str:
        """The value of --rule."""
        return self.name.replace("_", "-")

    def load(self) -> Callable[..., Any]:
        """Import the module, and return the function."""
        function: Callable[..., Any] = getattr(importlib.import_module(self.module), self.name)
        return function


_ETA = Hyperparam("eta", 1e-3, "Learning rate η")
_MU = Hyperparam("mu", 0.9, "Momentum μ", fraction=True)

RULES = {
    rule.name: rule
    for rule in (
        Entry("gradient_descent", "jaxgd.rules.first_order", (_ETA,)),
        Entry("fixed_length", "jaxgd.rules.first_order", (Hyperparam("epsilon", 1e-2, "Length of each step"),)),
        Entry("heavy_ball", "jaxgd.rules.first_order", (_ETA, _MU)),
        Entry("nesterov", "jaxgd.rules.first_order", (_ETA, _MU)),
        Entry("backtracking", "jaxgd.rules.evaluating"),
        Entry("wolfe", "jaxgd.rules.lbfgs"),
        Entry("newton", "jaxgd.rules.evaluating"),
        Entry("gradient_flow", "jaxgd.rules.evaluating", (Hyperparam("dt", 1e-3, "Time step"),)),
    )
}
