"""The constants of the method that the module core describes.

`python -m benchmarks gradcheck --ablate` multiplies most of them by factors, usually from 0.1 to 10. The brackets hold
two factors with which a case of the benchmark fails: the largest below 1 and the smallest above 1. A dash means that no
case fails.
"""

import numpy as np

RATIO = 4.0  # the ratio of each step to the next one; a power of two, so that steps are exact
RUNGS = 18  # [0.889, –] the ladder 1, 1/4, … 6e-11 covers functions that vary on the scale of x and of x/10⁶
SHORT = (*(2.0**-k for k in (6, 8, 10, 12)), 2.0**-20)  # enough for a smooth f; the last step only measures noise
FAR = 16.0  # [–, 5] a step is far smaller than h if it is at most h/FAR
NEARBY = 2.0**18  # [–, 6.55e+04] the noise at h is measured at steps down to h/NEARBY; noise may grow as h falls
ORDERS = 3  # [0.333, –] columns of the table; a fourth column would amplify noise more than it removes truncation
SAFETY = 10.0  # [0.1, 2] errors are estimates, so only a difference above ten errors counts
NOISES = 30.0  # [–, 2] a claim moves by a sum of roundings; one sample of that sum can be too small by this factor
FLOOR = 1e-8  # [–, 2] derivatives in float64 count as equal if they differ by at most this fraction of the gradient
RESOLUTION = 1e-3  # [0.1, –] without rtol, the largest uncertainty of a right claim, as a fraction of the gradient
COARSE_RESOLUTION = 1e-2  # [0.5, –] replaces RESOLUTION if f does not compute in float64 everywhere
UNCERTAIN = 0.5  # [0.33, –] no claim is wrong if its uncertainty exceeds this fraction of the gradient
SMALL_GAP = 1e-6  # [–, –] a gap between one-sided slopes is rounding below this fraction of the slope
STEEPEST = 0.95  # [0.842, 1.05] F has no slope if F(h) − F(0) ~ hᵖ with p below this
JUMP = 0.02  # [–, –] F has a jump if |p| is below this
SMALL_JUMP = 1e-7  # [–, –] a jump below this fraction of the variation of F is rounding inside f
POWER = 0.02  # [–, –] F(h) − F(0) ~ hᵖ if p varies by less than this over the last steps
RIVAL = 0.03  # [–, 10] an entry may support a claim if its error is at most this fraction of |claim − quotient|
STEADY = 0.3  # [–, –] three quotients are not noise if their distances to an entry differ by at most this fraction
SMOOTH = 0.01  # [–, –] there is no noise if the estimates at the smallest steps are below this fraction of the largest
ROUGH = 1e-4  # [–, –] F is rough if it changes within the smallest step by more than this fraction of its variation
ITERATION = 1e-4  # [–, –] a smaller relative difference may come from an iteration in f that stops at a tolerance
MANY = 1e3  # [–, –] a change of F by more than this number of roundings is not rounding
NARROW = 1e-10  # [–, –] above this relative rounding, f computes in a dtype narrower than float64
STAIRS = 4  # [–, 1.5] an F in a narrow dtype changes at this number of steps or more, but floor at one or two
CLEAR = 50.0  # [–, –] the power of a Taylor remainder is measured only above this multiple of the noise
NEGLIGIBLE = 1e-6  # [–, –] a claim of 0 is right if the error of the slope is at most this fraction of F's variation

EPS, EPS32 = float(np.finfo(float).eps), float(np.finfo(np.float32).eps)
