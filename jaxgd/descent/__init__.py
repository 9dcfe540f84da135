"""Minimize any cost of many variables, and record the path of the descent."""

from jaxgd.descent.driver import Solution, minimize
from jaxgd.descent.record import Record, Trajectory
from jaxgd.descent.stepwise import Descent
from jaxgd.descent.stop import Stop
from jaxgd.descent.update import DescentState

__all__ = ["Descent", "DescentState", "Record", "Solution", "Stop", "Trajectory", "minimize"]
