"""Functions with right or wrong derivatives. They influenced no decision about the checker.

The author of these cases had not read the checker. Difference quotients in float64 confirm each case.
"""

from .fresh_right import FRESH_RIGHT
from .fresh_wrong import FRESH_WRONG

FRESH = (*FRESH_RIGHT, *FRESH_WRONG)
