"""The checker gives the known verdict on hundreds of functions in benchmarks/corpus."""

import jax
import numpy as np
import pytest

from benchmarks.corpus.adversarial import ADVERSARIAL
from benchmarks.corpus.correct import CORRECT
from benchmarks.corpus.fresh import FRESH_RIGHT, FRESH_WRONG
from benchmarks.corpus.kinks import KINKS
from benchmarks.corpus.wrong import WRONG
from jaxgd import check_gradients

SEEDS = range(2)

# Correct functions at points where the checker cannot tell, with the cause.
UNDECIDED = {
    # JAX's derivative of sinc is a difference of nearly equal numbers, so its error is up to 0.05% even in float64.
    "sinc, arguments × 1e-06": "noise above the signal",
    # The slope along a direction is about 1e-12 of f, so rounding of f leaves one or two digits of the slope.
    "cos, arguments × 1e-06": "noise above the signal",
    "cosh, arguments × 1e-06": "noise above the signal",
    "i0, arguments × 1e-06": "noise above the signal",
    "1 + sum of squares, x near 1e-06": "noise above the signal",
    # At one of five seeds, the slope is only 1e-8 of the value.
    "sigmoid of jaxgd, saturated": "noise above the signal",
    # At two of five seeds, all results and their derivatives are differences of nearly equal numbers.
    "nn.squareplus, arguments × 1e+06": "a rounding of the point changes the gradient",
    # At one of five seeds, the compiled and the eager f differ by more than thirty times the measured noise.
    "difference of large numbers": "f depends on how it is run",
    # The function is NaN in float32 only.
    "bessel_jn": "not finite here",
    # The gradient is right in float64, but off by more than 5% in float32.
    "Bessel's function by recurrence": "far off only in the dtype of the arguments",
}
UNDECIDED_SHARE = 0.02
# f or its rule computes in bfloat16, which hides the error.
HIDDEN = {"quotient: rounded to bfloat16", "product: backward pass in bfloat16"}

# The adversarial cases whose verdict is not as expected, each with its actual verdict, cause or error.
PENDING = {
    "second order: softplus at 37": "right",
}


def checked(case, dtype, seed):
    with jax.enable_x64(dtype == "float64"), case.configured():
        args = case.draw(np.random.default_rng(seed), dtype)
        return check_gradients(case.f, *args, **case.keywords(), seed=seed)


def check_correct(case, dtype, seed):
    report = checked(case, dtype, seed)
    assert report.verdict != "wrong", str(report)
    if report.verdict == "cannot tell":
        assert report.cause == UNDECIDED.get(case.name), str(report)


def check_wrong(case):
    report = checked(case, "float32", 0)
    assert report.verdict == ("cannot tell" if case.name in HIDDEN else "wrong"), str(report)


def names(cases):
    return [case.name for case in cases]


def few(cases, *chosen):
    """Parametrize a quick test with a few cases that compile fast; the slow tests below run all of them."""
    by_name = dict(zip(names(cases), cases, strict=True))
    return pytest.mark.parametrize("case", [by_name[name] for name in chosen], ids=chosen)


def test_the_corpus_is_large_enough_and_names_are_unique():
    assert len(CORRECT) >= 60
    assert len({case.kind for case in WRONG}) >= 60
    assert len({case.name.split(":")[0] for case in WRONG}) >= 15
    assert (len(FRESH_RIGHT), len(FRESH_WRONG)) == (100, 100)
    for cases in (CORRECT, WRONG, KINKS, ADVERSARIAL, (*FRESH_RIGHT, *FRESH_WRONG)):
        assert len(set(names(cases))) == len(cases)
    assert len(UNDECIDED) < UNDECIDED_SHARE * len((*CORRECT, *FRESH_RIGHT))
    assert len(HIDDEN) < 0.02 * len((*WRONG, *FRESH_WRONG))


@few(CORRECT, "cbrt, arguments × 1e-06", "einsum")
def test_a_right_derivative_is_not_called_wrong(case):
    check_correct(case, "float32", 0)


@few(WRONG, "sine: zero")
def test_a_wrong_derivative_is_called_wrong(case):
    check_wrong(case)


@few(KINKS, "max of two ties")
def test_a_kink_is_called_a_kink(case):
    check_kink(case)


def check_kink(case):
    report = checked(case, "float32", 0)
    assert (report.verdict, report.cause) == ("cannot tell", case.cause), str(report)


@pytest.mark.slow
@pytest.mark.parametrize("case", CORRECT, ids=names(CORRECT))
def test_no_right_derivative_is_called_wrong(case):
    for dtype in ("float32", "float64"):
        for seed in SEEDS:
            check_correct(case, dtype, seed)


@pytest.mark.slow
@pytest.mark.parametrize("case", FRESH_RIGHT, ids=names(FRESH_RIGHT))
def test_no_right_derivative_of_the_fresh_cases_is_called_wrong(case):
    check_correct(case, "float32", 0)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*WRONG, *FRESH_WRONG], ids=names((*WRONG, *FRESH_WRONG)))
def test_every_wrong_derivative_is_called_wrong(case):
    check_wrong(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", KINKS, ids=names(KINKS))
def test_every_kink_is_called_a_kink(case):
    check_kink(case)


def unexpected(case, dtype):
    """Return the unexpected verdict, cause or error, or "" if all is as expected."""
    try:
        report = checked(case, dtype, 0)
    except Exception as error:
        return f"raised {type(error).__name__}"
    if report.verdict not in case.expected:
        return str(report.verdict)
    if report.verdict == "cannot tell" and case.cause not in ("", report.cause):
        return f"cannot tell: {report.cause}"
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("case", ADVERSARIAL, ids=names(ADVERSARIAL))
def test_an_adversarial_case_gets_its_expected_verdict(case):
    found = {unexpected(case, dtype) for dtype in ("float32", "float64")} - {""}
    assert ", ".join(sorted(found)) == PENDING.get(case.name, "")
