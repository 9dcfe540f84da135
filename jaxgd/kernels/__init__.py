"""The ways to run an epoch, which all compute the same, and the choice between them."""

from jaxgd.kernels.choice import Kernel, choose
from jaxgd.kernels.order import random_order

__all__ = ["Kernel", "choose", "random_order"]
