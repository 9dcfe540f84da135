"""Right functions and wrong derivatives that served in no decision about the checker.

They were written by an author who had not read the checker. Differences in float64 confirm each of them.
"""

from .fresh_right import FRESH_RIGHT
from .fresh_wrong import FRESH_WRONG

FRESH = (*FRESH_RIGHT, *FRESH_WRONG)
