"""The checker on hundreds of functions of which it is known whether their derivatives are right."""

import jax
import numpy as np
import pytest

from benchmarks.corpus.correct import CORRECT
from benchmarks.corpus.wrong import KINKS, WRONG
from jaxgd import check_gradients

SEEDS = range(2)

# Correct functions at points where nothing can be told, and why.
UNDECIDED = {
    # JAX's derivative of sinc is a difference of nearly equal numbers there, and uncertain by a thousandth in float64.
    "sinc × 1e-06": "noise above the signal",
    # The same for 1 − 2x·dawsn(x).
    "dawsn × 1e+06": "noise above the signal",
    # Gradients of 1e-12 of f, of which rounding in f leaves one digit.
    "cos × 1e-06": "noise above the signal",
    "cosh × 1e-06": "noise above the signal",
    "i0 × 1e-06": "noise above the signal",
    "1 + sum of squares × 1e-06": "noise above the signal",
    # In float32 its derivative is a difference of nearly equal numbers, off by a fifteenth.
    "i1e × 1e+06": "far off only in the dtype of the arguments",
    # Two scales, 1e-6 and 1, in one sum.
    "where × 1e+06": "f varies within the smallest step",
    # NaN in float32, and not in float64.
    "bessel_jn": "not finite here",
}
UNDECIDED_SHARE = 0.02
# Wrong by less than f resolves, which computes in bfloat16 inside.
HIDDEN = {"quotient: rounded to bfloat16"}
# No gradient either, but for another reason than a kink.
NO_KINK = {
    "jump": "jump",
    "jump beside a slope": "jump",
    "root at 0": "infinite slope",
    "cube root at 0": "infinite slope",
    # Linear along every line, and not linear: only the gradient shows it, which differs with the order of the ties.
    "median of three ties": "a rounding of the point changes the gradient",
}


def check_correct(case, dtype, seed):
    with jax.enable_x64(dtype == "float64"):
        report = check_gradients(case.f, *case.draw(np.random.default_rng(seed), dtype), seed=seed)
    assert report.verdict != "wrong", str(report)
    if report.verdict == "cannot tell":
        assert report.cause == UNDECIDED.get(case.name), str(report)


def check_wrong(case):
    report = check_gradients(case.f, *case.draw(np.random.default_rng(0), "float32"))
    assert report.verdict == ("cannot tell" if case.name in HIDDEN else "wrong"), str(report)


def names(cases):
    return [case.name for case in cases]


def few(cases, *chosen):
    """Parametrize a quick test with a few cases that compile fast; the slow tests below run all of them."""
    by_name = dict(zip(names(cases), cases, strict=True))
    return pytest.mark.parametrize("case", [by_name[name] for name in chosen], ids=chosen)


def test_there_are_as_many_as_it_takes():
    assert len(CORRECT) >= 60
    assert len({case.kind for case in WRONG}) >= 60
    assert len({case.name.split(":")[0] for case in WRONG}) >= 15
    for cases in (CORRECT, WRONG, KINKS):
        assert len(set(names(cases))) == len(cases)
    assert len(UNDECIDED) < UNDECIDED_SHARE * len(CORRECT)
    assert len(HIDDEN) < 0.02 * len(WRONG)


@few(CORRECT, "cbrt × 1e-06", "einsum")
def test_no_false_alarm(case):
    check_correct(case, "float32", 0)


@few(WRONG, "sine: zero", "length: zero")
def test_what_is_wrong_is_called_wrong(case):
    check_wrong(case)


@few(KINKS, "max of two ties")
def test_a_kink_is_called_a_kink(case):
    check_kink(case)


def check_kink(case):
    report = check_gradients(case.f, *case.draw(np.random.default_rng(0), "float32"))
    assert (report.verdict, report.cause) == ("cannot tell", NO_KINK.get(case.name, "kink")), str(report)


@pytest.mark.slow
@pytest.mark.parametrize("case", CORRECT, ids=names(CORRECT))
def test_no_false_alarm_anywhere(case):
    for dtype in ("float32", "float64"):
        for seed in SEEDS:
            check_correct(case, dtype, seed)


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG, ids=names(WRONG))
def test_all_that_is_wrong_is_called_wrong(case):
    check_wrong(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", KINKS, ids=names(KINKS))
def test_every_kink_is_called_a_kink(case):
    check_kink(case)
