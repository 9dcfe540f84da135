"""Rules that choose a step from a gradient. Each is an optax transformation, and any optax transformation is a rule.

Each name is imported on first use, so the command line can read `jaxgd.rules.registry` without JAX.
"""

import importlib
from typing import TYPE_CHECKING

from jaxgd.rules.registry import RULES

if TYPE_CHECKING:
    from jaxgd.rules.first_order import update as update
    from jaxgd.rules.registry import *  # noqa: F403
    from jaxgd.rules.rule import Rule as Rule

_MODULE_OF = {"Rule": "jaxgd.rules.rule", "update": "jaxgd.rules.first_order"}


def __getattr__(name: str) -> object:
    if name in RULES:
        return RULES[name].load()
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'jaxgd.rules' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
