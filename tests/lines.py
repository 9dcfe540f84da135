"""Helpers of the gradient checker's tests: the values of functions F(t), and claims about their slopes at 0."""

import numpy as np

from jaxgd.gradcheck import constants, core
from jaxgd.gradcheck.constants import EPS
from jaxgd.gradcheck.core import Claim
from jaxgd.gradcheck.quotients import Lines, ladder, slopes
from jaxgd.gradcheck.verdicts import Verdict

LONG, SHORT = ladder(), np.array(constants.SHORT)
R, W, U = Verdict.RIGHT, Verdict.WRONG, Verdict.CANNOT_TELL


def lines(*functions, h=LONG, size=None, narrow=EPS):
    """Return the values of functions F(t) at 0 and at the steps ±h, as `Lines`. The default of `size` is |F(0)|."""
    with np.errstate(all="ignore"):
        plus, minus = (np.array([[float(F(s * t)) for t in h] for F in functions]) for s in (1, -1))
        zero = np.array([float(F(0.0)) for F in functions])
    size = np.abs(zero) if size is None else np.full(len(functions), size)
    return Lines(h, plus, minus, zero, size, EPS, narrow)


def slopes_of(F, h=LONG, **options):
    return slopes(lines(F, h=h, **options))


def claim(*values, noise=0.0, size=None, floor=1e-8):
    values = np.array(values)
    return Claim(values, np.full(len(values), noise), np.abs(values) if size is None else np.full(1, size), floor)


def judged(F, claimed, h=LONG, rtol=None, coarse=False, **options):
    return core.judge(claim(claimed), slopes_of(F, h, **options), rtol, coarse)[0]
