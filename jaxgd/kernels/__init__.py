"""The backends that run an epoch, and the choice between them. Their results differ only by rounding.

Each name is imported on first use, so the command line can read `jaxgd.kernels.registry` without JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxgd.kernels.choice import BackendChoice, select_backend
    from jaxgd.kernels.order import random_order
    from jaxgd.kernels.protocol import Job

__all__ = ["BackendChoice", "Job", "random_order", "select_backend"]

_MODULE_OF = {"BackendChoice": "choice", "Job": "protocol", "random_order": "order", "select_backend": "choice"}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'jaxgd.kernels' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxgd.kernels.{_MODULE_OF[name]}"), name)
