"""Train networks of many sizes, η and seeds in groups, and return a table of every epoch."""

from jaxgd.sweeps.driver import merge_sweep, sweep
from jaxgd.sweeps.table import Sweep

__all__ = ["Sweep", "merge_sweep", "sweep"]
