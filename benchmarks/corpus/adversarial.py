"""Cases that are hard for a checker, each with its allowed verdicts."""

import dataclasses

from .claims import CLAIMS
from .edges import EDGES
from .handwritten import HANDWRITTEN
from .inputs import INPUTS
from .narrow import NARROW
from .scales import SCALES
from .second import SECOND

# These functions broadcast, as users' functions do. Each case allows rank promotion, unless its settings forbid it.
ADVERSARIAL = tuple(
    dataclasses.replace(case, settings={"numpy_rank_promotion": "allow", **case.settings})
    for case in (*INPUTS, *CLAIMS, *HANDWRITTEN, *NARROW, *EDGES, *SECOND, *SCALES)
)
