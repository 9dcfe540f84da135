"""jaxgd: gradient descent that can be trusted, at the speed of the machine.

Each public name is imported on first use, so `jaxgd --help` does not import JAX. This module reads the names from
`__init__.pyi`, as type checkers do, and the names of the rules from `jaxgd.rules.registry`.
"""

import importlib
import os

from jaxgd.rules.registry import RULES

__version__ = "0.2.0"


def _public_names() -> dict[str, str]:
    """Return the module of each public name."""
    stub = __loader__.get_data(os.path.join(os.path.dirname(__file__), "__init__.pyi")).decode()
    modules = {}
    for line in stub.splitlines():
        match line.split():
            case ["from", module, "import", name, "as", _] if module != "jaxgd":
                modules[name] = module
    return modules | dict.fromkeys(RULES, "jaxgd.rules")


_MODULE_OF = _public_names()

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name == "mesh":
        return importlib.import_module("jaxgd.mesh")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'jaxgd' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
