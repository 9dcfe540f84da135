"""A rule must be linear in its cotangent. Its results are compared only up to their noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import often

from jaxgd import check_gradients
from jaxgd.gradcheck.derive import derive, first_line, points
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


def test_an_exception_is_one_line():
    assert first_line(ValueError("a\nb")) == "ValueError: a"
    assert first_line(ValueError()) == "ValueError: "
    assert len(first_line(ValueError("x" * 999))) == 160


def test_single_elements_use_the_first_cotangent():
    shared = Shared([X], [], [np.ones((4, 3))], [np.ones((3, 1))])
    batch = points(shared, 0, np.arange(4), 0, 3, 0.5, 1j)
    # Directions 0, 1 and 2 use cotangents 0, 1 and 2. Direction 3, for single elements, uses cotangent 0.
    assert batch.cotangent.tolist() == [0, 1, 2, 0]
    assert batch.phase.dtype == complex
    assert batch.t.tolist() == [0.5] * 4


# Derivatives.


def derived(f, x, **options):
    prepared = with_outputs(prepare(f, (x,), None, False), f(x))
    return derive(prepared, [], [np.array([1.0, -0.6, 1.7, 0.3])], Runner(), 4, np.random.default_rng(0), **options)


def test_autodiff_is_projected_on_the_directions():
    """The gradient of Σx² is 2x times the cotangent. If x moves by one rounding, the gradient moves as little."""
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


def test_a_rule_that_clips_large_cotangents_is_wrong_even_if_f_passes_only_small_ones():
    clipped = with_rule(lambda x: x * 1.0, lambda _, g: (jnp.clip(g, -10, 10),))
    for factor in (1, 100):
        report = check_gradients(lambda x, factor: factor * clipped(x), X, traced(factor))
        assert report.verdict == "wrong"
        assert any(check.name == "autodiff is linear" for check in report.leaves[0].checks)


def test_a_rule_that_takes_the_modulus_of_its_cotangent_is_wrong_with_one_direction():
    rule = with_rule(lambda x: jnp.sum(x**2), lambda args, g: (2 * args[0] * jnp.abs(g),))
    assert check_gradients(rule, X, directions=1).verdict == "wrong"


def by_iteration(g, tolerance):
    """Return g/2 by an iteration that halves its error. It stops when the change is at most `tolerance`."""
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
    """Return Σx² with a custom rule, and the arguments.

    The rule returns `factor` times the gradient, with random relative errors of at most `size`.
    """

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
