"""Minimize any cost of many variables, and see how the ball rolled."""

from jaxgd.descent.driver import Solution, minimize
from jaxgd.descent.record import Record, Trajectory
from jaxgd.descent.stop import Stop
from jaxgd.descent.update import DescentState

__all__ = ["DescentState", "Record", "Solution", "Stop", "Trajectory", "minimize"]
