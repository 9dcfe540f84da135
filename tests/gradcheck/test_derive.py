"""Directions and cotangents are random and scaled; a rule is linear in its cotangent and known up to its noise."""

import math

import hypothesis
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st
from support import often

from jaxgd import check_gradients
from jaxgd.gradcheck.derive import (
    cotangents,
    derive,
    directions,
    evenly,
    first_line,
    jittered,
    norm,
    points,
    rms,
    scale_of,
    stacked,
)
from jaxgd.gradcheck.problem import prepare, with_outputs
from jaxgd.gradcheck.programs import Shared
from jaxgd.gradcheck.run import Runner

X = jnp.array([0.3, 1.2, 2.5])


def with_rule(f, backward):
    rule = jax.custom_vjp(f)
    rule.defvjp(lambda *args: (f(*args), args), backward)
    return rule


def traced(number):
    """Return an integer as an array, so that a check with another integer runs the same programs."""
    return jnp.asarray(np.int32(number))


def squares(x):
    return jnp.sum(x * x)


# Random numbers.


def generator():
    return np.random.default_rng(0)


def test_directions_have_the_size_of_the_leaf_or_of_each_element():
    x = np.array([1e-6, 0.0, -1.0, 1e6, np.nan])
    whole, own, again, _, fixed = directions(x, 4, generator())
    scale = scale_of(x)
    # The root mean square is a power of two, so that steps are exact; a zero or NaN takes the size of the leaf.
    assert scale == 2.0**19
    for u in (whole, again):
        assert np.all((0.5 * scale <= np.abs(u)) & (np.abs(u) <= 1.5 * scale))
    assert not np.array_equal(whole, again)
    sizes = np.array([2.0**-20, scale, 1, 2.0**20, scale])
    np.testing.assert_array_equal(fixed, sizes)
    assert np.all((0.5 * sizes <= np.abs(own)) & (np.abs(own) <= 1.5 * sizes))
    assert len(set(np.sign(directions(np.ones(50), 1, generator())[0]))) == 2


def test_complex_directions_have_all_phases():
    u = directions(np.ones(200) * 1j, 2, generator())
    assert u.dtype == complex
    quadrants = {(a, b) for a, b in zip(u[0].real > 0, u[0].imag > 0, strict=True)}
    assert len(quadrants) == 4


def test_a_direction_moves_only_small_contributions_about_evenly():
    g, x = np.array([1e6, 1.0, 1e-3, 0.0, 900.0, 1e5]), np.ones(6)
    u = directions(x, 3, generator())
    even = evenly(g, u)
    np.testing.assert_array_equal(even[[0, 5]], 0)
    share = np.abs(g * even)
    # The contribution 900 shrinks to about the median of 1e-3, 1 and 900.
    assert share[4] < 4
    assert 0.2 < share[1] < 2
    assert evenly(np.ones(6), u) is None
    assert evenly(np.zeros(6), u) is None


def test_cotangents_are_inversely_proportional_to_the_output_or_its_change():
    y = np.array([100.0, 1.0, 0.0, np.inf], np.float32)
    whole, own, *_ = cotangents(y, y + np.float32([1, 1e-3, 0, 0]), 1e-7, 4, generator())
    assert np.all((64 * np.abs(whole) >= 0.5) & (64 * np.abs(whole) <= 1.5))
    share = np.abs(own[:2]) * [1, 1e-3]
    assert np.all((share >= 0.499) & (share <= 1.501))
    # A change is at least 1e-5 of the largest element.
    assert np.all(np.abs(own[2:]) <= 1.5e3)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_a_cotangent_of_a_tiny_output_stays_in_the_range_of_its_dtype(dtype):
    tiny = np.full(3, 1e-7).astype(dtype)
    assert np.all(np.isfinite(cotangents(tiny, tiny, 1e-2, 4, generator()).astype(dtype)))
    assert np.all(np.isfinite(cotangents(np.zeros(3, dtype), np.zeros(3, dtype), 1e-2, 4, generator()).astype(dtype)))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, float, complex])
def test_points_are_moved_by_one_rounding(dtype):
    x = np.array([1.0, 0.0, -3.0, 100.0]).astype(dtype)
    point, *moved = jittered([x], generator())
    assert len(moved) == 2
    eps = float(ml_dtypes.finfo(np.real(x).dtype).eps)
    for (y,) in moved:
        assert y.dtype == dtype
        off = np.abs(y.astype(complex) - x.astype(complex))
        assert np.all(off <= 1.5 * eps * np.abs(x.astype(complex)))
        assert np.all((off > 0) == (x != 0))
    assert stacked([point, *moved])[0].shape == (3, 4)


@hypothesis.given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9), st.sampled_from([1.0, 1e-200, 1e200]))
def test_the_norm_keeps_squares_in_range(values, scale):
    x = np.array(values) * scale
    assert norm(x) == pytest.approx(scale * math.hypot(*values))
    assert rms(x) == pytest.approx(scale * math.hypot(*values) / math.sqrt(len(values)))


def test_norms_of_numbers_that_are_not_finite():
    assert norm([1.0, np.inf]) == math.inf
    assert rms([3.0, np.nan, np.inf, -3.0]) == 3
    assert rms([np.nan]) == rms([]) == norm([]) == 0
    assert scale_of(np.zeros(3)) == scale_of(np.zeros(0)) == 1
    assert scale_of(np.array([5.0, np.inf, 0.0])) == 4


def test_an_exception_is_one_line():
    assert first_line(ValueError("a\nb")) == "ValueError: a"
    assert first_line(ValueError()) == "ValueError: "
    assert len(first_line(ValueError("x" * 999))) == 160


def test_single_elements_use_the_first_cotangent():
    shared = Shared([X], [], [np.ones((4, 3))], [np.ones((3, 1))])
    batch = points(shared, 0, np.arange(4), 0, 3, 0.5, 1j)
    # The last of the directions moves one element at a time.
    assert batch.cotangent.tolist() == [0, 1, 2, 0]
    assert batch.phase.dtype == complex
    assert batch.t.tolist() == [0.5] * 4


# Derivatives.


def derived(f, x, **options):
    prepared = with_outputs(prepare(f, (x,), None, False), f(x))
    return derive(prepared, [], [np.array([1.0, -0.6, 1.7, 0.3])], Runner(), 4, generator(), **options)


def test_autodiff_is_projected_on_the_directions():
    """The gradient of Σx² is 2x. It moves by a rounding when x does, and is linear in w."""
    d = derived(squares, X)
    assert [x.name for x in d.claims] == ["autodiff"]
    x = np.asarray(X, float)
    (u,) = d.shared.directions
    w = d.shared.cotangents[0]
    np.testing.assert_allclose(d.reverse.gradients[0], 2 * np.outer(w, x))
    expected = [np.sum(2 * x * u[k]) * w[k] for k in range(4)]
    np.testing.assert_allclose(d.reverse.along[0], expected)
    np.testing.assert_allclose(d.forward.along[0], expected)
    np.testing.assert_allclose(d.reverse.size[0], [np.linalg.norm(2 * x * u[k] * w[k]) for k in range(4)])
    assert np.all(d.reverse.noise < 1e-13)
    difference, _, size, _ = d.reverse.linear[0]
    assert difference == 0
    assert size == pytest.approx(np.linalg.norm(2 * x))
    assert not d.reverse.approximate
    np.testing.assert_allclose(d.outputs[0], np.sum(x**2))
    assert derived(squares, X, nondeterminism=1e-3).reverse.floor == 1e-3


NOT_LINEAR = {
    "positive": lambda g: jnp.maximum(g, 0),
    "at most 1": lambda g: jnp.minimum(g, 1),
    "size": jnp.abs,
    "cube": lambda g: g**3,
    "sign": jnp.sign,
    "forgotten": jnp.ones_like,
}


@pytest.mark.parametrize("seed", often(range(2), [0]))
def test_a_rule_that_is_not_linear_in_its_cotangent_is_wrong(seed):
    """One leaf has the right rule, and each other leaf applies a nonlinear function to the cotangent."""
    factors = {"right": lambda g: g, **NOT_LINEAR}
    rules = {
        name: with_rule(squares, lambda inputs, g, of=of: (2 * inputs[0] * of(g),)) for name, of in factors.items()
    }

    def f(p):
        return sum(rule(p[name]) for name, rule in rules.items())

    report = check_gradients(f, dict.fromkeys(rules, X), seed=seed)
    assert {leaf.name: leaf.verdict for leaf in report.leaves} == {
        f"p['{name}']": "right" if name == "right" else "wrong" for name in rules
    }
    assert "the rule ignores its cotangent" in report.leaf("p['forgotten']").pattern


def test_rtol_allows_a_rule_that_is_nearly_linear():
    rule = with_rule(squares, lambda inputs, g: (2 * inputs[0] * g * (1 + 3e-3 * jnp.tanh(jnp.abs(g) - 1)),))
    for rtol, verdict in ((None, "wrong"), (2e-2, "right")):
        report = check_gradients(rule, X, rtol=rtol)
        assert report.verdict == verdict, str(report)
        checks = [c for c in report.leaf("x").checks if c.name == "autodiff is linear"]
        assert len(checks) == (rtol is None)
        assert all(c.error == pytest.approx(3e-3, rel=0.3) and c.tolerance < 1e-4 for c in checks)


def test_a_clipped_cotangent_is_wrong_even_if_none_is_clipped():
    clipped = with_rule(lambda x: x * 1.0, lambda _, g: (jnp.clip(g, -10, 10),))
    for factor in (1, 100):
        report = check_gradients(lambda x, factor: factor * clipped(x), X, traced(factor))
        assert report.verdict == "wrong"
        assert any(check.name == "autodiff is linear" for check in report.leaves[0].checks)


def test_a_rule_that_takes_the_modulus_of_its_cotangent_is_wrong_along_one_direction():
    rule = with_rule(lambda x: jnp.sum(x**2), lambda args, g: (2 * args[0] * jnp.abs(g),))
    assert check_gradients(rule, X, directions=1).verdict == "wrong"


def by_iteration(g, tolerance):
    """Return g/2 by an iteration that halves its error, until it moves by less than an absolute tolerance."""
    start = jnp.zeros_like(g), jnp.full_like(g, jnp.inf)
    return jax.lax.while_loop(
        lambda s: jnp.max(jnp.abs(s[0] - s[1])) > tolerance, lambda s: (s[0] / 2 + g / 4, s[0]), start
    )[0]


@pytest.mark.parametrize("power", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_rule_that_iterates_to_an_absolute_tolerance_is_right_with_rtol(power):
    """The rule of x² (power 1) depends on x, and the rule of x (power 0) only on the cotangent."""

    def iterated(args, g):
        x, factor = args
        return 2 * by_iteration((power + 1) * g * x**power, 1e-4) * factor.astype(g.dtype), None

    rule = with_rule(lambda x, factor: x ** (power + 1), iterated)
    x = jnp.array([1.0, 2.0])
    assert check_gradients(rule, x, traced(1), rtol=1e-2).verdict == "right"
    assert check_gradients(rule, x, traced(2), rtol=1e-2).verdict == "wrong"
    report = check_gradients(rule, x, traced(1))
    assert (report.verdict, report.cause) == ("cannot tell", "f iterates to a tolerance"), str(report)
    assert "pass rtol" in report.reason


# Backward passes that differ between runs.


def jittering(size, factor, state=np.random.default_rng(0)):  # noqa: B008
    """Return Σx² with a rule whose result differs between runs by this relative size."""

    def backward(args, g):
        x, factor = args
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        draw = jax.pure_callback(
            lambda y: state.uniform(-1, 1, np.shape(y)).astype(y.dtype), shape, x, vmap_method="sequential"
        )
        return (1 + size * draw) * factor.astype(g.dtype) * g * 2 * x, None

    return with_rule(lambda x, factor: squares(x), backward), X, traced(factor)


def test_a_backward_pass_that_differs_between_runs_is_right_within_its_nondeterminism():
    assert check_gradients(*jittering(1e-5, 1), nondeterminism=1e-4).verdict == "right"
    report = check_gradients(*jittering(1e-5, 2), nondeterminism=1e-4)
    assert report.verdict == "wrong", str(report)
    assert report.leaf("x").pattern == "the whole leaf is 2 times the reference"


def test_a_backward_pass_that_differs_between_runs_is_not_deterministic():
    report = check_gradients(*jittering(1e-3, 1))
    assert (report.verdict, report.cause) == ("cannot tell", "not deterministic")


@pytest.mark.slow
def test_a_large_nondeterminism_is_allowed():
    assert check_gradients(*jittering(1e-3, 1), nondeterminism=1e-2).verdict == "right"
