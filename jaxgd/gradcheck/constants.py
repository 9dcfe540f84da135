"""The constants of the method that the module core describes.

`python -m benchmarks gradcheck --ablate` multiplies most of them by factors, usually from 0.1 to 10. The brackets hold
the largest factor below 1 and the smallest factor above 1 with which a case of the benchmark fails. A dash means
that no case fails.
"""

import numpy as np

RATIO = 4.0  # each step divided by the next one; a power of two, so that steps are exact
RUNGS = 18  # [0.889, –] the ladder 1, 1/4, … 6e-11 covers functions that vary on the scale of x and of x/10⁶
SHORT = (*(2.0**-k for k in (6, 8, 10, 12)), 2.0**-20)  # enough for a smooth f; the last step only measures noise
FAR = 16.0  # [–, 5] a step is far smaller than h if it is at most h/FAR
NEARBY = 2.0**18  # [–, 6.55e+04] the noise at h is measured at steps down to h/NEARBY; noise may grow as h falls
ORDERS = 3  # [0.333, –] columns of the table; a fourth column would amplify noise more than it removes truncation
SAFETY = 10.0  # [0.1, 2] errors are estimates, so only a difference above ten errors counts
NOISES = 30.0  # [–, 2] a claim moves by a sum of roundings; one sample of that sum can be too small by this factor
FLOOR = 1e-8  # [–, 2] two derivatives in float64 that agree to this part of the gradient count as equal
RESOLUTION = 1e-3  # [0.1, –] without rtol, the largest uncertainty of a right claim, as a part of the gradient
COARSE_RESOLUTION = 1e-2  # [0.5, –] RESOLUTION for an f that does not compute in float64 everywhere
UNCERTAIN = 0.5  # [0.33, –] no claim is wrong if its uncertainty is above this part of the gradient
SMALL_GAP = 1e-6  # [–, –] a smaller gap, relative to the slope, is rounding
STEEPEST = 0.95  # [0.842, 1.05] F has no slope if F(h) − F(0) ~ hᵖ with p below this
JUMP = 0.02  # [–, –] F has a jump if |p| is below this
SMALL_JUMP = 1e-7  # [–, –] a smaller jump, relative to the variation of F, is rounding inside f
POWER = 0.02  # [–, –] F(h) − F(0) is a power of h if p varies by less than this on the last rungs
RIVAL = 0.03  # [–, 10] an entry may support a claim if its error is at most this part of the claim's difference
STEADY = 0.3  # [–, –] three quotients are not noise if their distances from an entry differ by at most this part
SMOOTH = 0.01  # [–, –] deviations are not noise if those at the smallest steps are at most this part of the noise
ROUGH = 1e-4  # [–, –] F varies within the smallest step if it changes there by more than this part of its variation
ITERATION = 1e-4  # [–, –] a smaller relative difference may come from an iteration in f that stops at a tolerance
MANY = 1e3  # [–, –] a change of F by more roundings than this is not rounding
NARROW = 1e-10  # [–, –] an f with a relative rounding above this computes in a dtype narrower than float64
STAIRS = 4  # [–, 1.5] a coarse F changes at this number of steps or more; a function such as floor at one or two
CLEAR = 50.0  # [–, –] a Taylor remainder shows its power if it is above this multiple of the noise
NEGLIGIBLE = 1e-6  # [–, –] a claim of 0 is right if the slope is known to this part of F's variation

EPS, EPS32 = float(np.finfo(float).eps), float(np.finfo(np.float32).eps)
