"""An entry of the registry of rules, with the hyperparameters of the rule."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple


class Hyperparam(NamedTuple):
    """A number that a rule takes, such as η, and that may change without a recompilation.

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
        hyperparams: The hyperparameters that the function takes. They do not include arguments such as
            memory, which fix the compiled program.
    """

    name: str
    module: str
    hyperparams: tuple[Hyperparam, ...] = ()

    @property
    def word(self) -> str:
        """The value of --rule that selects this rule."""
        return self.name.replace("_", "-")

    def load(self) -> Callable[..., Any]:
        """Import the module, and return the function."""
        function: Callable[..., Any] = getattr(importlib.import_module(self.module), self.name)
        return function
