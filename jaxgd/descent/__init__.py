"""Minimize any cost of many variables, and record the path of the descent."""

from jaxgd.descent.driver import minimize
from jaxgd.descent.record import Record, Trajectory
from jaxgd.descent.solution import Solution
from jaxgd.descent.state import DescentState
from jaxgd.descent.stepwise import Descent
from jaxgd.descent.stop import Stop

__all__ = ["Descent", "DescentState", "Record", "Solution", "Stop", "Trajectory", "minimize"]
