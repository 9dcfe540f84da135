"""Each leaf of a function with many kinds of leaves gets its own verdict, cause and pattern."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import DtypeError, ShapeError, check_gradients
from jaxgd.gradcheck import check

X = jnp.array([0.3, 1.2, 2.5])


def with_rule(f, backward):
    """Return f with a custom reverse rule: backward(x, g) is the cotangent of x."""
    wrapped = jax.custom_vjp(lambda x: f(x))
    wrapped.defvjp(lambda x: (f(x), x), lambda x, g: (backward(x, g),))
    return wrapped


def traced(number):
    """Return a number as an array, so that a check with another number runs the same programs."""
    return jnp.asarray(np.float32(number))


def power(p):
    return lambda x: jnp.abs(x) ** p


# A function of one leaf, the leaf, its verdict, its cause and its note.
LEAVES = {
    "power 0.5": (power(0.5), [0.0, 2.0], "cannot tell", "infinite slope", "autodiff is infinite or NaN"),
    "power 0.9": (power(0.9), 0.0, "cannot tell", "infinite slope", "autodiff is infinite or NaN"),
    "power 1": (power(1.0), 0.0, "cannot tell", "kink", ""),
    "power 1.5": (power(1.5), 0.0, "right", "agrees", "the gradient is 0 here"),
    "cube root": (jnp.cbrt, 0.0, "cannot tell", "infinite slope", "autodiff is infinite or NaN"),
    "root": (jnp.sqrt, 0.0, "cannot tell", "edge of the domain", "autodiff is infinite or NaN"),
    "norm": (jnp.linalg.norm, [0.0, 0.0, 0.0], "cannot tell", "kink", "at [0], [1], [2]; autodiff is infinite or NaN"),
    "relu": (jax.nn.relu, [0.0, 1.0, -1.0], "cannot tell", "kink", "at [0]"),
    "jump": (lambda x: jnp.floor(x) + x, [1.0, 2.5], "cannot tell", "jump", ""),
    "floor": (jnp.floor, 2.5, "right", "agrees", "the gradient is 0 here"),
    "square": (jnp.square, [1.0, 2.0], "right", "agrees", ""),
    "ignored": (lambda x: 0.0, 1.0, "right", "agrees", "f does not depend on it"),
}


def test_each_leaf_has_its_own_verdict_and_cause():
    def f(p):
        return sum(jnp.sum(part(p[name])) for name, (part, *_) in LEAVES.items())

    report = check_gradients(f, {name: jnp.array(x) for name, (_, x, *_) in LEAVES.items()})
    found = {name: report.leaf(f"p['{name}']") for name in LEAVES}
    assert {name: (leaf.verdict, leaf.cause) for name, leaf in found.items()} == {
        name: expected for name, (_, _, *expected, _) in LEAVES.items() for expected in [tuple(expected)]
    }
    for name, (*_, note) in LEAVES.items():
        assert found[name].deciding.note == note, name
    # The text shows the facts behind a right verdict.
    assert "rests on:     p['floor'], p['power 1.5']: the gradient is 0 here" in str(report)
    assert "p['ignored']: f does not depend on it" in str(report)


def test_one_leaf_at_the_edge_of_its_domain_leaves_the_other_one_right():
    report = check_gradients(lambda x, y: jnp.sqrt(x) + y**2, 0.0, 1.0)
    assert (report.leaf("x").verdict, report.leaf("x").cause) == ("cannot tell", "edge of the domain")
    assert report.leaf("y").verdict == "right"


# A function, an infinite or NaN value for its gradient, the leaf, its verdict and its cause.
NOT_FINITE = {
    "NaN": (jnp.sin, jnp.nan, [0.3, 1.2], "wrong", "the gradient is not finite where f is smooth"),
    "infinite": (jnp.sin, jnp.inf, 0.3, "wrong", "the gradient is not finite where f is smooth"),
    "NaN at a jump": (lambda x: jnp.floor(x) + x, jnp.nan, [1.0, 2.5], "cannot tell", "jump"),
    "NaN at a kink": (jnp.abs, jnp.nan, [0.0, 0.0], "cannot tell", "kink"),
    "infinite at an infinite slope": (jnp.cbrt, jnp.inf, 0.0, "cannot tell", "infinite slope"),
}


def test_a_gradient_that_is_not_finite_is_wrong_only_where_f_is_smooth():
    parts = {name: with_rule(f, lambda x, g, bad=bad: bad * g) for name, (f, bad, *_) in NOT_FINITE.items()}
    report = check_gradients(
        lambda p: sum(jnp.sum(part(p[name])) for name, part in parts.items()),
        {name: jnp.array(x) for name, (_, _, x, *_) in NOT_FINITE.items()},
    )
    for name, (*_, verdict, cause) in NOT_FINITE.items():
        leaf = report.leaf(f"p['{name}']")
        assert (leaf.verdict, leaf.cause) == (verdict, cause), name
    assert report.leaf("p['NaN']").pattern == "the whole leaf is NaN"


def test_a_nan_gradient_of_a_number_at_a_kink_is_undecided():
    report = check_gradients(lambda x: jnp.sqrt(x**2), 0.0)
    assert (report.verdict, report.cause) == ("cannot tell", "kink")


# References.

# Each case: f, its rule, and a reference, whose derivative is the rule.
MEANT = {
    "straight through": (jnp.round, lambda x, g: g, lambda x: x),
    "reversed": (jnp.sin, lambda x, g: -g * jnp.cos(x), lambda x: -jnp.sin(x)),
    "clipped": (lambda x: x**2 / 2, lambda x, g: g * jnp.minimum(x, 2), lambda x: jnp.where(x < 2, x**2 / 2, 2 * x)),
    "semi-gradient": (lambda x: x**2, lambda x, g: g * x, lambda x: x * X.astype(x.dtype)),
}


def test_a_rule_is_compared_with_the_derivative_of_the_reference():
    parts = {name: with_rule(f, rule) for name, (f, rule, _) in MEANT.items()}
    references = {name: meant for name, (*_, meant) in MEANT.items()}

    def f(p, factor):
        return {name: part(p[name]) for name, part in parts.items()}

    def reference(p, factor):
        return {name: factor.astype(p[name].dtype) * part(p[name]) for name, part in references.items()}

    point = dict.fromkeys(MEANT, X)
    for factor, verdict, pattern in ((1, "right", ""), (2, "wrong", "the whole leaf is 0.5 times the reference")):
        report = check_gradients(f, point, traced(factor), argnums=0, reference=reference)
        expected = dict.fromkeys(MEANT, (verdict, pattern))
        found = {name: (report.leaf(f"p['{name}']").verdict, report.leaf(f"p['{name}']").pattern) for name in MEANT}
        assert found == expected


OTHERS = [
    jnp.sum,
    lambda x: 1,
    lambda x: [],
    lambda x: (x, x),
    lambda x: x + 0j,
    pytest.param(lambda x: x.astype(int), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("reference", OTHERS)
def test_a_reference_with_another_result_is_refused(reference):
    with pytest.raises((ShapeError, DtypeError), match="reference must return floats"):
        check_gradients(lambda x: 2 * x, X, reference=reference)


# Precision.


def doubled(k):
    """Return x ↦ 2x with a transpose that is too large by the factor 1 + k."""
    return lambda x: jax.custom_derivatives.linear_call(lambda _, x: 2 * x, lambda k, ct: 2 * (1 + k) * ct, k, x)


def test_rtol_applies_to_the_comparison_of_forward_and_reverse_mode():
    def f(x, k):
        return doubled(k.astype(x.dtype))(x)

    for k, rtol, verdict in ((1e-3, None, "wrong"), (1e-3, 1e-2, "right")):
        report = check_gradients(f, X, traced(k), argnums=0, rtol=rtol)
        assert report.verdict == verdict, str(report)
        (check,) = [c for c in report.leaf("x").checks if c.name == "forward = reverse"]
        assert check.verdict == verdict
        assert check.error <= 2.5 * k + 1e-6
        assert check.error >= k / 2


def bfloat16_product(x, factor):
    return jnp.sum((x.astype(jnp.bfloat16) * jnp.bfloat16(1.7)).astype(jnp.float32))


mixed = jax.custom_vjp(bfloat16_product)
mixed.defvjp(
    lambda x, factor: (bfloat16_product(x, factor), (x, factor)),
    lambda args, g: (jnp.full_like(args[0], 1.703125) * args[1].astype(g.dtype).astype(args[0].dtype) * g, None),
)


@pytest.mark.parametrize(("factor", "verdicts"), [(1, ("right", "cannot tell")), (2, ("wrong",))])
def test_a_product_in_bfloat16_inside_f_is_judged_by_its_rounding(factor, verdicts):
    report = check_gradients(mixed, X, traced(factor), argnums=0)
    assert report.verdict in verdicts, str(report)
    if report.verdict == "cannot tell":
        assert report.cause == "f does not compute in float64"
        assert "f computes in bfloat16" in report.reason


def test_a_change_that_float32_hides_at_every_step_is_not_wrong():
    """One rounding of 10⁹ is 64 in float32, so f has one value at all steps."""
    report = check_gradients(lambda x: 1e9 + jnp.sum(x.astype(jnp.float32) ** 2), X)
    assert report.verdict == "cannot tell", str(report)
    assert "f computes in float32" in report.reason


@pytest.mark.parametrize(
    ("f", "x"),
    [
        pytest.param(lambda x: jnp.sin(300 * x.astype(jnp.float32)), 2.0, marks=pytest.mark.slow),
        pytest.param(lambda x: jnp.log(x.astype(jnp.float16)), 1.05, marks=pytest.mark.slow),
        pytest.param(lambda x: jnp.sin(30 * x.astype(jnp.float16)), 1.637, marks=pytest.mark.slow),
    ],
    ids=["sine of 300 x in float32", "logarithm in float16", "sine of 30 x in float16"],
)
def test_autodiff_is_not_wrong_where_f_rounds_its_argument(f, x):
    assert check_gradients(f, jnp.array(x)).verdict != "wrong"


@pytest.mark.slow
def test_an_argument_that_f_ignores_is_right_in_spite_of_noise():
    report = check_gradients(lambda x, y: 1e3 * jnp.sum(x.astype(jnp.bfloat16)), X, X)
    assert report.leaf("y").verdict == "right", str(report)


# Patterns.

M = jnp.array([[4.0, 1, 2], [1, 5, 3], [2, 3, 6]])
WEIGHTS = np.arange(8) - 1j * np.sin(np.arange(8) ** 2)


@pytest.mark.slow
def test_patterns_of_several_leaves_are_named_in_one_check():
    """The function reads one triangle of m, and uses the real part of ⟨w, FFT(z)⟩."""

    def f(p):
        spectrum = jnp.sum(jnp.real(jnp.fft.fft(p["z"]) * WEIGHTS))
        return jnp.sum(jnp.sin(p["x"]) * jnp.exp(p["y"])) + spectrum + jnp.sum(jnp.tril(p["m"]) ** 2)

    def gradient(p):
        x, y, m = p["x"], p["y"], jnp.tril(p["m"])
        z = jnp.real(jnp.fft.ifft(WEIGHTS)).astype(x.dtype)
        return {"x": jnp.sin(x) * jnp.exp(y), "y": jnp.cos(x) * jnp.exp(y), "z": z, "m": m + m.T}

    report = check_gradients(f, {"x": X, "y": X[::-1], "z": jnp.sin(jnp.arange(8.0)), "m": M}, gradient=gradient)
    words = "the leaf is mirrored around index 0 of axis 0 and divided by its length 8: is it the inverse transform"
    assert [leaf.pattern for leaf in report.leaves] == [
        "the leaf is right in symmetric directions: f may read one triangle of a symmetric matrix",
        "the leaf holds the gradient of p['y']",
        "the leaf holds the gradient of p['x']",
        words,
    ]
    assert f"{words[0].upper()}{words[1:]}?" in str(report)


def test_steps_that_are_too_large_for_one_element_leave_the_gradient_undecided():
    """Each element agrees with the quotient that moves this element alone."""
    report = check_gradients(lambda x: 1e-6 * x[0] + x[1] ** 2 / (x[1] + 1e-6), jnp.array([1e6, 1e-6]))
    assert (report.verdict, report.cause) == ("cannot tell", "f varies within the smallest step")
    assert "every element agrees" in report.reason


def test_a_right_claim_next_to_a_wrong_rule_is_reported_as_right():
    rule = jax.custom_vjp(lambda x: jnp.sum(jnp.sin(x)))
    rule.defvjp(lambda x: (rule(x), x), lambda x, g: (-g * jnp.cos(x),))
    report = check_gradients(rule, X, gradient=jnp.cos)
    assert {check.name: str(check.verdict) for check in report.leaf("x").checks} == {
        "gradient = quotient": "right",
        "autodiff = quotient": "wrong",
    }
    assert "autodiff = quotient: differs by 2 relative" in report.reason
    assert "gradient agrees" in report.reason


def test_a_leaf_is_wrong_without_a_search_of_elements_if_the_time_is_over(monkeypatch):
    over = itertools.chain([False] * 3, itertools.repeat(True))
    monkeypatch.setattr(check.Clock, "over", lambda clock: next(over))
    report = check_gradients(lambda x: jnp.sum(x**2), X, gradient=lambda x: 3 * x)
    assert (report.verdict, report.leaves[0].worst) == ("wrong", ())
    assert "single elements of x: out of time" in str(report)
