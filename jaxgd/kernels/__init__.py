"""The backends that run an epoch, and the choice between them. They differ only in rounding."""

from jaxgd.kernels.choice import BackendChoice, select_backend
from jaxgd.kernels.order import random_order

__all__ = ["BackendChoice", "random_order", "select_backend"]
