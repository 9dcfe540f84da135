"""check_gradients as a whole: verdicts and causes, arguments, claimed gradients, reports and bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import often

from jaxgd import DtypeError, GradientError, RangeError, ShapeError, Verdict, check_gradients
from jaxgd.gradcheck import check

A = jnp.arange(1.0, 7.0).reshape(2, 3)
V = jnp.array([1.0, -2.0, 3.0])
Z = jnp.array([1 + 2j, 0.5 - 1j])


def square(x):
    return jnp.sum(x**2)


def product(x, y):
    return x * y


def with_rule(f, backward):
    """Return f with a custom reverse rule: backward(x, g) is the cotangent of x."""
    wrapped = jax.custom_vjp(lambda x: f(x))
    wrapped.defvjp(lambda x: (f(x), x), lambda x, g: (backward(x, g),))
    return wrapped


def in_single(x):
    return jnp.sum(jnp.sin(x.astype(jnp.float32)))


def single_only(x):
    if x.dtype != jnp.float32:
        raise TypeError("float32 only")
    return jnp.sum(jnp.sin(x))


def sine_by_numpy(x):
    return jnp.sum(jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x))


def sine_twice(x):
    return jax.lax.while_loop(lambda c: c[1] < 2, lambda c: (jnp.sin(c[0]), c[1] + 1), (x, 0))[0]


def drawn(x, key):
    return jnp.sum(x * jax.random.normal(key, x.shape))


def branching(x):
    return square(x) if jnp.sum(x) > 0 else jnp.sum(x)


TREE = {"w": A, "i": jnp.array(1), "none": None, "flag": True, "k": 3, "text": "sum"}

RIGHT = {
    "integers, None, flags and text among the arguments": lambda: check_gradients(
        lambda p: square(p["w"][p["i"]]), TREE
    ),
    "gradient with float0": lambda: check_gradients(
        lambda p: square(p["w"]),
        {"w": A, "i": jnp.arange(3)},
        gradient=jax.grad(lambda p: square(p["w"]), allow_int=True),
    ),
    "an empty leaf": lambda: check_gradients(lambda p: square(p[0]) + jnp.sum(p[1]), (A, jnp.zeros((0, 3)))),
    "a float": lambda: check_gradients(jnp.sin, 1.5),
    "holomorphic": lambda: check_gradients(lambda z: jnp.exp(z) * z, Z),
    "not holomorphic": lambda: check_gradients(lambda z: jnp.abs(z) ** 3 + jnp.real(z), Z),
    "holomorphic gradient": lambda: check_gradients(
        lambda z: jnp.sum(z**3), Z, gradient=jax.grad(lambda z: jnp.sum(z**3), holomorphic=True)
    ),
    "gradient of a squared modulus": lambda: check_gradients(
        lambda z: jnp.sum(jnp.abs(z) ** 2), Z, gradient=lambda z: 2 * jnp.conj(z)
    ),
    "leaves of 1e-30, 1 and 1e30": lambda: check_gradients(
        lambda p: jnp.sum(jnp.sin(p["a"] * 1e30)) + jnp.sum(jnp.log(p["b"])) + square(p["c"]),
        {"a": A * 1e-30, "b": A * 1e30, "c": A},
    ),
    "elements of 1e-6 and 1e6": lambda: check_gradients(lambda x: jnp.sum(jnp.log(x)), jnp.array([1e-6, 1.0, 1e6])),
    "aux": lambda: check_gradients(lambda x: (square(x), {"n": 3, "name": "x"}), A, has_aux=True),
    "integers among the results": lambda: check_gradients(lambda x: {"y": x**2, "n": jnp.argmax(x)}, A),
    "vjp": lambda: check_gradients(product, A, A + 1, vjp=functools.partial(jax.vjp, product)),
    "jvp": lambda: check_gradients(product, A, A + 1, jvp=functools.partial(jax.jvp, product)),
    "gradient by NumPy": lambda: check_gradients(square, A, gradient=lambda x: 2 * np.asarray(x)),
    "precomputed gradient": lambda: check_gradients(square, A, gradient=lambda x: 2 * A),
    "gradient in two arguments": lambda: check_gradients(
        lambda x, y: jnp.sum(x * y), A, A + 1, gradient=lambda x, y: (y, x), argnums=(0, 1)
    ),
    "gradient in the second argument": lambda: check_gradients(
        lambda x, y: jnp.sum(x * y), A, A + 1, gradient=lambda x, y: x, argnums=-1
    ),
    "float32 inside": lambda: check_gradients(in_single, A),
    "float32 only": lambda: check_gradients(with_rule(single_only, lambda x, g: g * jnp.cos(x)), A),
    "bfloat16": lambda: check_gradients(lambda x: jnp.sum(jnp.sin(x)), A.astype(jnp.bfloat16)),
    "forward mode only": lambda: check_gradients(sine_twice, A),
    "no autodiff": lambda: check_gradients(sine_by_numpy, A, gradient=jnp.cos),
    "Python if": lambda: check_gradients(branching, A),
    "a random key": lambda: check_gradients(drawn, A, jax.random.key(0)),
    "lists": lambda: check_gradients(lambda xs: xs[0] * xs[1], [1.0, 2.0]),
    "an argument that f ignores": lambda: check_gradients(lambda x, y: square(x), A, A),
    "piecewise constant": lambda: check_gradients(lambda x: jnp.floor(x) + x, A + 0.5),
    "sine of 1e6 x": lambda: check_gradients(lambda x: jnp.sum(jnp.sin(1e6 * x)), A),
    "where with a safe branch": lambda: check_gradients(
        lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)), V
    ),
    "second order": lambda: check_gradients(lambda x, y: jnp.sum(jnp.sin(x) * y), A, A, order=2),
}


# Each case compiles its own function, so only these are quick tests. test_consistency.py checks a random key.
QUICKLY_RIGHT = [
    "integers, None, flags and text among the arguments",
    "holomorphic",
    "leaves of 1e-30, 1 and 1e30",
    "vjp",
    "sine of 1e6 x",
]


@pytest.mark.parametrize("name", often(RIGHT, QUICKLY_RIGHT))
def test_a_right_gradient_is_reported_as_right(name):
    report = RIGHT[name]()
    assert report.verdict is Verdict.RIGHT, str(report)
    assert report.verdict == "right"
    assert report.cause == "agrees"
    assert report.raise_if_wrong(strict=True) is report


WRONG = {
    "sign": (lambda: check_gradients(square, A, gradient=lambda x: -2 * x), "x", "sign flipped"),
    "factor": (lambda: check_gradients(square, A, gradient=lambda x: 2.0001 * x), "x", "1.00005 times"),
    "precomputed gradient": (lambda: check_gradients(square, A, gradient=lambda x: 2.001 * A), "x", "1.0005 times"),
    "gradient by NumPy": (lambda: check_gradients(square, A, gradient=lambda x: 3 * np.asarray(x)), "x", "1.5 times"),
    "conjugate": (
        lambda: check_gradients(lambda z: jnp.sum(jnp.abs(z) ** 2), Z, gradient=lambda z: 2 * z),
        "z",
        "complex conjugate",
    ),
    "vjp wrong in one argument": (
        lambda: check_gradients(product, A, A + 1, vjp=lambda x, y: (x * y, lambda w: (w * y, w * x * 3))),
        "y",
        "3 times",
    ),
    "jvp that ignores one argument": (
        lambda: check_gradients(product, A, A + 1, jvp=lambda p, t: (p[0] * p[1], p[0] * t[1])),
        "x",
        "the whole leaf is zero",
    ),
    "custom_vjp × 0.5": (lambda: check_gradients(with_rule(square, lambda x, g: g * x), A), "x", "0.5 times"),
    "custom_vjp that ignores g": (
        lambda: check_gradients(with_rule(square, lambda x, g: 2 * x), A),
        "x",
        "the rule ignores its cotangent",
    ),
    "a leaf of 1e-30, its gradient × 1.01": (
        lambda: check_gradients(
            lambda p: jnp.sum(jnp.sin(p["a"] * 1e30)) + square(p["c"]),
            {"a": A * 1e-30, "c": A},
            gradient=lambda p: {"a": 1.01e30 * jnp.cos(p["a"] * 1e30), "c": 2 * p["c"]},
        ),
        "p['a']",
        "1.01 times",
    ),
    "gradient × 1.5 at an element of 1e-6, right at 1e6": (
        lambda: check_gradients(square, jnp.array([1e-6, 1.0, 1e6]), gradient=lambda x: jnp.array([3.0, 2, 2]) * x),
        "x",
        "one element is wrong, [0]",
    ),
    "float32 only": (
        lambda: check_gradients(with_rule(single_only, lambda x, g: 1.01 * g * jnp.cos(x)), A),
        "x",
        "1.01 times",
    ),
    "NaN from the branch not taken": (
        lambda: check_gradients(lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0)), V),
        "x",
        "1 of 3 elements is NaN",
    ),
    "one element at a kink, another element × 2": (
        lambda: check_gradients(
            lambda x: jnp.sum(jax.nn.relu(x)), jnp.array([0.0, 1, -1]), gradient=lambda x: jnp.array([0.0, 2, 0])
        ),
        "x",
        "one element is wrong, [1]",
    ),
    "slope 5 claimed at a kink with slopes −1 and 1": (
        lambda: check_gradients(with_rule(jnp.abs, lambda x, g: 5 * g), jnp.array(0.0)),
        "x",
        "",
    ),
    "nonzero for an argument that f ignores": (
        lambda: check_gradients(lambda x, y: square(x), A, A, gradient=lambda x, y: x, argnums=1),
        "y",
        "should be zero",
    ),
}


QUICKLY_WRONG = [
    "conjugate",
    "jvp that ignores one argument",
    "gradient × 1.5 at an element of 1e-6, right at 1e6",
    "NaN from the branch not taken",
]


@pytest.mark.parametrize("name", often(WRONG, QUICKLY_WRONG))
def test_a_wrong_gradient_is_reported_with_leaf_and_pattern(name):
    check, leaf, words = WRONG[name]
    report = check()
    assert report.verdict is Verdict.WRONG, str(report)
    assert [x.name for x in report.leaves if x.verdict is Verdict.WRONG] == [leaf]
    assert words in report.leaf(leaf).pattern
    with pytest.raises(GradientError, match="wrong"):
        report.raise_if_wrong()


OPEN = {
    "relu at 0": (lambda: check_gradients(lambda x: jnp.sum(jax.nn.relu(x)), jnp.array([0.0, 1, -1])), "kink"),
    "norm at 0": (lambda: check_gradients(jnp.linalg.norm, jnp.zeros(3)), "kink"),
    "a claimed gradient at a kink": (lambda: check_gradients(jnp.abs, jnp.array(0.0), gradient=jnp.sign), "kink"),
    "floor at 1": (lambda: check_gradients(lambda x: jnp.floor(x) + x, jnp.array([1.0, 2.5])), "jump"),
    "cube root at 0": (lambda: check_gradients(jnp.cbrt, jnp.array([0.0, 2.0])), "infinite slope"),
    "root at 0": (lambda: check_gradients(jnp.sqrt, jnp.array([0.0, 2.0])), "edge of the domain"),
    "log at -1": (lambda: check_gradients(jnp.log, jnp.array([-1.0, 2.0])), "not finite here"),
    "reciprocal at 0": (lambda: check_gradients(lambda x: 1 / x, jnp.array([0.0, 2.0])), "not finite here"),
    "saturated": (
        lambda: check_gradients(lambda z: -jax.nn.log_softmax(z)[0], jnp.array([60.0, 0, 0])),
        "noise above the signal",
    ),
    "sum of softmax": (
        lambda: check_gradients(lambda x: jnp.sum(jax.nn.softmax(x)), V),
        "noise above the signal",
    ),
    "bfloat16 inside": (
        lambda: check_gradients(lambda x: jnp.sum(jnp.sin(x.astype(jnp.bfloat16))), A),
        "f does not compute in float64",
    ),
}


# test_examine.py checks further points of these kinds.
QUICKLY_OPEN = ["a claimed gradient at a kink", "saturated"]


@pytest.mark.parametrize("name", often(OPEN, QUICKLY_OPEN))
def test_undecided_gradients_give_their_cause(name):
    check, cause = OPEN[name]
    report = check()
    assert (report.verdict, report.cause) == ("cannot tell", cause), str(report)
    assert report.raise_if_wrong() is report
    with pytest.raises(GradientError, match=cause):
        report.raise_if_wrong(strict=True)


BAD = {
    "no float results": (lambda: check_gradients(jnp.argmax, A), DtypeError, "f must return floats, got int32"),
    "no float arguments": (
        lambda: check_gradients(jnp.sin, jnp.arange(3)),
        DtypeError,
        "must hold a floating-point leaf",
    ),
    "no arguments": (lambda: check_gradients(lambda: 1.0), DtypeError, "got nothing"),
    "under jit": (lambda: jax.jit(lambda x: check_gradients(jnp.sin, x))(1.0), DtypeError, "cannot run inside jit"),
    "rtol below 1e-9": (lambda: check_gradients(square, A, rtol=1e-20), RangeError, "rtol must be at least 1e-09"),
    "rtol above 1": (lambda: check_gradients(square, A, rtol=2.0), RangeError, "below 1"),
    "order 3": (lambda: check_gradients(square, A, order=3), RangeError, "order must be between 1 and 2"),
    "no directions": (
        lambda: check_gradients(square, A, directions=0),
        RangeError,
        "directions must be between 1 and 1000",
    ),
    "argnums too large": (
        lambda: check_gradients(square, A, argnums=2),
        RangeError,
        "below 1, the number of arguments",
    ),
    "gradient for an f that returns an array": (
        lambda: check_gradients(jnp.sin, A, gradient=jnp.cos),
        ShapeError,
        "must return one scalar",
    ),
    "has_aux without a pair": (
        lambda: check_gradients(square, A, has_aux=True),
        ShapeError,
        r"must return \(value, aux\)",
    ),
    "gradient is an array": (lambda: check_gradients(square, A, gradient=2 * A), DtypeError, "lambda"),
    "vjp returns only a gradient": (lambda: check_gradients(square, A, vjp=lambda x: 2 * x), ShapeError, "as jax.vjp"),
    "jvp returns no values": (lambda: check_gradients(square, A, jvp=lambda x, t: 2 * t[0]), ShapeError, "as jax.jvp"),
    "f raises": (lambda: check_gradients(lambda x: x @ x, A), TypeError, "dot_general requires"),
    "no derivative": (lambda: check_gradients(sine_by_numpy, A), ValueError, "do not support JVP"),
    "f is None": (lambda: check_gradients(None, A), DtypeError, "f must be a function, got NoneType"),
    "order True": (lambda: check_gradients(square, A, order=True), DtypeError, "order must be a whole number"),
    "rtol [1, 1]": (lambda: check_gradients(square, A, rtol=np.ones(2)), DtypeError, "rtol must be one real number"),
    "seed 0.5": (lambda: check_gradients(square, A, seed=0.5), DtypeError, "seed must be a whole number"),
    "argnums text": (lambda: check_gradients(square, A, argnums="a" * 999), DtypeError, "argnums must be .*a…"),
    "has_aux 1": (lambda: check_gradients(square, A, has_aux=1), DtypeError, "has_aux must be True or False"),
    "a masked array": (lambda: check_gradients(square, np.ma.ones(3)), DtypeError, r"got MaskedArray float64\[3\]"),
    "a ShapeDtypeStruct": (
        lambda: check_gradients(square, jax.ShapeDtypeStruct((2,), jnp.float32)),
        DtypeError,
        r"got ShapeDtypeStruct float32\[2\]",
    ),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    check, error, words = BAD[name]
    with pytest.raises(error, match=words):
        check()


def test_rtol_decides_the_verdict_of_an_approximate_gradient():
    """With rtol = 1e-2, an error of 0.5% is right and one of 2% is wrong. With rtol = 1e-3, 0.5% is wrong."""
    for factor, rtol, verdict in ((1.005, 1e-2, "right"), (1.02, 1e-2, "wrong"), (1.005, 1e-3, "wrong")):
        report = check_gradients(
            lambda x, factor: square(x), A, np.float32(factor), gradient=lambda x, factor: factor * 2 * x, rtol=rtol
        )
        assert report.verdict == verdict, str(report)


def test_the_seed_determines_the_directions():
    first, again, other = (check_gradients(square, A, seed=seed).leaves[0].checks[0].error for seed in (0, 0, 1))
    assert first == again != other


# Options.


def test_a_check_out_of_time_names_its_stage():
    """A check starts no stage after its time limit."""
    report = check_gradients(square, A, seconds=1e-9)
    assert (report.verdict, report.cause) == ("cannot tell", "out of time")
    assert "out of time, in the derivatives" in report.reason
    assert report.checked == "only the consistency of f"
    assert "pass more seconds" in str(report)
    assert check_gradients(square, A, seconds=1e3).verdict == "right"


@pytest.mark.parametrize(
    ("stage", "words"), [(1, "in the quotients at a few steps"), (2, "in the quotients at many steps")]
)
def test_each_stage_checks_the_clock(monkeypatch, stage, words):
    """The first `stage` checks of the clock find time left. The later ones find none."""
    calls = iter(range(100))
    monkeypatch.setattr(check.Clock, "over", lambda self: next(calls) >= stage)
    report = check_gradients(square, A, gradient=lambda x: 3 * x)
    assert any(words in c.note for c in report.leaf("x").checks), str(report)
    calls = iter(range(100))
    # With stage = 1, the check has no time for a quotient. With stage = 2, quotients at a few steps confirm the claim.
    assert check_gradients(square, A).verdict == ("right" if stage == 2 else "cannot tell")


def test_a_clock_returns_the_time_left_and_is_over_after_its_limit():
    unlimited, short = check.Clock(None), check.Clock(1e-9)
    assert not unlimited.over()
    assert unlimited.left() is None
    assert 0 < check.Clock(100.0).left() <= 100
    assert short.over()
    assert short.left() == 1e-9


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"seconds": 0}, RangeError, "seconds must be above 0, got 0"),
        ({"seconds": -1.0}, RangeError, "Leave it out for no limit"),
        ({"seconds": "1"}, DtypeError, "seconds must be one real number"),
        ({"nondeterminism": 1.0}, RangeError, "nondeterminism must be at least 0 and below 1, got 1.0"),
        ({"nondeterminism": -1e-9}, RangeError, "nondeterminism must be at least 0"),
        ({"nondeterminism": None}, DtypeError, "nondeterminism must be one real number"),
        ({"reference": 3}, DtypeError, "reference must be a function"),
    ],
)
def test_bad_options_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        check_gradients(square, A, **options)
