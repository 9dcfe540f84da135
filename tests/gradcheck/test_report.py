"""The verdict of a report, and the report as text, JSON and exception, for made-up and real checks."""

import dataclasses
import json
import math

import jax.numpy as jnp
import pytest

from jaxgd import GradientError, check_gradients
from jaxgd.gradcheck.report import Check, Consistency, Element, GradientReport, LeafReport
from jaxgd.gradcheck.verdicts import ADVICE, Cause, Verdict

A = jnp.arange(1.0, 7.0).reshape(2, 3)
R, W, U = Verdict.RIGHT, Verdict.WRONG, Verdict.CANNOT_TELL

right = Check("autodiff = quotient", R, Cause.AGREES, 1e-12, 1e-7)
wrong = Check("autodiff = quotient", W, Cause.DIFFERS, 0.5, 1e-7)
other = Check("forward = reverse", W, Cause.DIFFERS, 0.25, 1e-7)
kink = Check("autodiff = quotient", U, Cause.KINK, math.nan, math.inf, "at [2]")
same = Consistency("eager = jit", R, Cause.AGREES, 1e-8)


def square(x):
    return jnp.sum(x**2)


def leaf(*checks, name="x", shape=(3,), **fields):
    return LeafReport(name, shape, "float32", checks, **fields)


def report(*leaves, consistency=(same,), **fields):
    fields = {"precision": (), "checked": "1 point", "not_checked": ("second derivatives",)} | fields
    values = {"evaluations": 10, "directions": 3, "seed": 0, "dtype": "float64"}
    return GradientReport("f", leaves, consistency, **fields, **values)


@pytest.mark.parametrize(
    ("checks", "deciding"),
    [
        ((right, right), right),
        ((right, kink), kink),
        ((kink, wrong), wrong),
        ((wrong, other), wrong),
        ((other, wrong), other),
    ],
)
def test_the_worst_check_decides_a_leaf(checks, deciding):
    found = leaf(*checks)
    assert found.deciding is deciding
    assert (found.verdict, found.cause) == (deciding.verdict, deciding.cause)


def test_an_empty_leaf_without_checks_is_right():
    found = leaf(shape=(0, 3))
    assert (found.verdict, found.cause, found.explanation, found.size) == (R, "agrees", "empty", 0)


differs = Consistency("jit = vmap", U, Cause.NOT_ONE_FUNCTION, 0.5)
value = Consistency("f = its value under jax.vjp", W, Cause.OTHER_VALUE, 0.5)
second = report(leaf(wrong))

# A report, its verdict, and the start of its reason.
REASONS = [
    (report(leaf(right)), R, "all checks agree"),
    (report(leaf(right), leaf(wrong, name="y")), W, "y: wrong: autodiff = quotient: differs by 0.5 relative"),
    (report(leaf(kink), leaf(right, name="y")), U, "x: cannot tell: autodiff = quotient: kink, at [2]"),
    (report(leaf(kink), leaf(wrong, name="y")), W, "y: wrong"),
    (
        report(leaf(right), consistency=(same, differs)),
        U,
        "jit = vmap: f depends on how it is run, by 0.5 relative. The",
    ),
    (report(leaf(right), consistency=(differs, value)), W, "f = its value under jax.vjp: the rule returns a different"),
    (report(leaf(right), findings=("gradient has no leaf for x",)), W, "gradient has no leaf for x"),
    (report(leaf(right), second_order=second), W, "second order: x: wrong: autodiff = quotient"),
    (report(leaf(kink), second_order=second), W, "second order: x: wrong"),
]


@pytest.mark.parametrize(("given", "verdict", "reason"), REASONS, ids=[reason for *_, reason in REASONS])
def test_the_worst_part_decides_the_report_and_gives_its_reason(given, verdict, reason):
    assert given.verdict is verdict
    assert given.reason.startswith(reason)
    plain = json.loads(given.to_json())
    assert (plain["verdict"], plain["reason"], plain["cause"]) == (verdict, given.reason, given.cause)


def test_only_a_wrong_report_raises_unless_strict():
    for given, raises, strictly in (
        (report(leaf(right)), False, False),
        (report(leaf(kink)), False, True),
        (report(leaf(wrong)), True, True),
    ):
        for strict, expected in ((False, raises), (True, strictly)):
            if expected:
                with pytest.raises(GradientError) as caught:
                    given.raise_if_wrong(strict=strict)
                assert caught.value.report is given
                assert str(given) in str(caught.value)
            else:
                assert given.raise_if_wrong(strict=strict) is given


def test_a_report_has_no_truth_value_and_returns_a_leaf_by_name():
    given = report(leaf(right), leaf(wrong, name="p['w']"))
    with pytest.raises(TypeError, match="has no truth value"):
        bool(given)
    assert given.leaf("p['w']").verdict is W
    with pytest.raises(KeyError, match=r"no leaf z; the leaves are x, p\['w'\]"):
        given.leaf("z")


small = dataclasses.replace(wrong, error=1e-5)
EXPLANATIONS = [
    (leaf(right), "right"),
    (leaf(wrong), "wrong: autodiff = quotient: differs by 0.5 relative, 1e-07 allowed."),
    (leaf(dataclasses.replace(wrong, note="in single elements")), "1e-07 allowed, in single elements."),
    (leaf(wrong, pattern="the leaf is transposed"), "allowed.\nThe leaf is transposed."),
    (leaf(wrong, pattern="3 is its length: is it a sum"), "allowed.\n3 is its length: is it a sum?"),
    (leaf(small), "such as an iteration to a tolerance, pass rtol."),
    (leaf(kink), f"cannot tell: autodiff = quotient: kink, at [2].\n{ADVICE[Cause.KINK]}."),
]


@pytest.mark.parametrize(("given", "words"), EXPLANATIONS, ids=[words for _, words in EXPLANATIONS])
def test_a_leaf_is_explained_in_words(given, words):
    assert given.explanation.endswith(words)


@pytest.mark.parametrize("cause", [c for c in Cause if c not in (Cause.AGREES, Cause.DIFFERS, Cause.STRUCTURE)])
def test_every_cause_but_four_has_advice(cause):
    assert cause is Cause.GRADIENT_NOT_FINITE or ADVICE[cause]


@pytest.mark.parametrize(
    ("claimed", "reference", "ratio"),
    [(3.0, 2.0, 1.5), (1j, 2.0, 0.5j), (1.0, 0.0, math.inf), (0.0, 0.0, math.nan), (math.nan, 0.0, math.nan)],
)
def test_the_ratio_of_an_element_may_be_complex_infinite_or_nan(claimed, reference, ratio):
    found = Element((0,), claimed, reference).ratio
    assert found == ratio or (math.isnan(found) and math.isnan(ratio))


# Text.


def test_the_table_has_sixteen_rows_and_omits_right_leaves_first():
    names = [f"w{i}" for i in range(20)]
    text = str(report(*(leaf(wrong if name in ("w17", "w3") else right, name=name) for name in names)))
    rows = [line.split()[0] for line in text.splitlines() if "float32[3]" in line]
    # The rows keep the order of the arguments. The wrong leaf w17 replaces the right leaf w15.
    assert rows == [*names[:15], "w17"]
    assert "… and 4 more leaves, all right" in text
    some = str(report(*(leaf(wrong, name=name) for name in names)))
    assert "… and 4 more leaves\n" in some
    assert "… and 16 more leaves: w4, w5, w6, w7, w8, w9, w10, w11" in some
    assert "more leaves" not in str(report(*(leaf(right, name=name) for name in names[:16])))


def test_the_notes_that_a_right_verdict_rests_on_are_shown():
    zero = dataclasses.replace(right, note="the gradient is 0 here")
    text = str(report(leaf(zero, zero), leaf(zero, name="y"), leaf(right, name="z")))
    assert "rests on:     x, y: the gradient is 0 here" in text
    assert "rests on" not in str(report(leaf(right)))
    many = str(report(*(leaf(zero, name=f"w{i}") for i in range(7))))
    assert "w0, w1, w2, w3, w4 and 2 more: the gradient is 0 here" in many
    # The note of a leaf that is not right is part of its explanation.
    text = str(report(leaf(kink)))
    assert "rests on" not in text
    assert "kink, at [2]" in text


def test_the_cells_show_verdict_and_error():
    text = str(report(leaf(right), leaf(wrong, name="y"), leaf(kink, name="z"), leaf(other, name="v")))
    rows = {line.split()[0]: line.split()[2:] for line in text.splitlines() if "float32[3]" in line}
    assert rows["x"] == ["1e-12", "–", "right"]
    assert rows["y"] == ["WRONG", "5e-01", "–", "wrong"]
    assert rows["z"] == ["?", "–", "cannot", "tell"]
    assert rows["v"] == ["–", "WRONG", "2e-01", "wrong"]


def test_the_worst_elements_are_listed():
    worst = tuple(Element((i, 0), 2.0 + i, 1.0) for i in range(8))
    text = str(report(leaf(wrong, shape=(50, 2), worst=worst, searched=64)))
    assert "x[4, 0]  6        1          6" in text
    assert "x[5, 0]" not in text
    assert "64 of 100 elements were searched" in text


@pytest.mark.parametrize(
    ("consistency", "words"),
    [
        ((same,), "consistency:  eager = jit: within 1e-08"),
        ((dataclasses.replace(same, error=0.0),), "consistency:  eager = jit: the same bits"),
        ((same, differs), "consistency:  jit = vmap: f depends on how it is run, 5.0e-01 apart"),
    ],
)
def test_the_consistency_of_f_is_one_line(consistency, words):
    assert words in str(report(leaf(right), consistency=consistency))


def test_a_second_order_report_follows_the_first_order_report():
    text = str(report(leaf(right), second_order=second))
    assert text.index("check_gradients(f): wrong") < text.index("second order, f: wrong")


def test_only_five_findings_are_listed():
    text = str(report(leaf(right), findings=tuple(f"finding {i}" for i in range(7))))
    assert "finding 4" in text
    assert "finding 5" not in text
    assert "… and 2 more like these" in text


def test_json_writes_infinite_nan_and_complex_numbers():
    elements = (Element((0,), math.nan, 1.0), Element((1,), 1 + 2j, 1j), Element((), 2 + 0j, math.inf))
    plain = json.loads(report(leaf(kink, worst=elements)).to_json())
    found = plain["leaves"][0]
    assert (found["verdict"], found["cause"], found["slope"]) == ("cannot tell", "kink", "nan")
    assert found["checks"][0]["tolerance"] == "inf"
    assert [e["claimed"] for e in found["worst"]] == ["nan", [1.0, 2.0], 2.0]
    assert [e["reference"] for e in found["worst"]] == [1.0, [0.0, 1.0], "inf"]
    assert plain["second_order"] is None


# Real checks.


def test_the_report_names_the_fault_and_fits_a_screen():
    report = check_gradients(square, A, gradient=lambda x: 2 * x.at[1, 2].multiply(1.5))
    text = str(report)
    assert len(text.splitlines()) < 25
    for words in (
        "check_gradients(square): wrong",
        "x[1, 2]",
        "18",
        "12",
        "1.5",
        "evaluations of f in float64",
        "seed 0",
    ):
        assert words in text
    assert "second derivatives" in text


def test_json_holds_verdict_leaves_and_evaluations():
    report = check_gradients(square, A, gradient=lambda x: jnp.full_like(x, jnp.nan))
    plain = json.loads(report.to_json())
    assert plain["verdict"] == "wrong"
    assert plain["leaves"][0]["name"] == "x"
    assert plain["leaves"][0]["worst"][0]["claimed"] == "nan"
    assert plain["evaluations"] == report.evaluations
