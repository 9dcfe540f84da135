"""A claimed derivative must fit f and its arguments; the report lists each misfit as a finding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import DtypeError, ShapeError, check_gradients
from jaxgd.gradcheck.claims import claimed_gradient, claimed_jvp, claimed_vjp
from jaxgd.gradcheck.problem import prepare, with_outputs

A = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
ONE = np.float32(1)
POINT = {"a": A, "b": ONE}


def cost(p):
    return np.sum(p["a"] ** 2) + p["b"]


def product(x, y):
    return np.asarray(x) * np.asarray(y)


def prepared(f, *args, argnums=None):
    out = f(*args)
    return with_outputs(prepare(f, args, argnums, False), out), out


def texts(claim):
    return [text for _, text in claim.findings]


def of_gradient(gradient, f=cost, args=(POINT,), argnums=0, single=True):
    point, out = prepared(f, *args, argnums=argnums)
    return claimed_gradient(point, out, gradient, single)


def low(x):
    return np.asarray(x).astype(jnp.bfloat16)


MISFITS = {
    "a list": (lambda p: [2 * A, ONE], ["gradient has no leaf for p['a']", "gradient has no leaf for p['b']"]),
    "no leaf b": (lambda p: {"a": 2 * A}, ["gradient has no leaf for p['b']"]),
    "a leaf too many": (
        lambda p: {"a": A, "b": ONE, "c": ONE},
        ["gradient has a leaf at ['c'], where the arguments have none"],
    ),
    "transposed": (lambda p: {"a": A.T, "b": ONE}, ["gradient for p['a'] is float32[3,2], the leaf is float32[2,3]"]),
    "bfloat16": (lambda p: {"a": low(A), "b": ONE}, ["gradient for p['a'] is bfloat16, the leaf is float32"]),
    "integers": (lambda p: {"a": A.astype(int), "b": ONE}, ["gradient for p['a'] is int64[2,3], not floating point"]),
    "text": (lambda p: {"a": "2x", "b": ONE}, ["gradient for p['a'] is str, not an array of numbers"]),
    "objects": (lambda p: {"a": A, "b": np.array(None)}, ["gradient for p['b'] is object[], not an array of numbers"]),
    "masked": (lambda p: {"a": np.ma.array(A), "b": ONE}, ["not an array of numbers"]),
    "right": (lambda p: {"a": 2 * A, "b": 1.0}, []),
}


@pytest.mark.parametrize(("gradient", "words"), MISFITS.values(), ids=MISFITS)
def test_misfits_of_a_gradient_are_findings(gradient, words):
    found = texts(of_gradient(gradient))
    for text in words:
        assert any(text in x for x in found), found
    assert bool(found) == bool(words)


def test_a_claimed_leaf_of_another_shape_is_left_out():
    claim = of_gradient(lambda p: {"a": A.T, "b": low(ONE)})
    assert claim.absent == {0}
    assert claim.values[0] is None
    assert claim.values[1] == 1
    assert claim.reverse.places == (None, 1)
    assert [leaf for leaf, _ in claim.findings] == ["p['a']", "p['b']"]


def test_a_list_in_place_of_a_tuple_is_a_misfit():
    claim = of_gradient(lambda p: [2 * p[0], ONE], lambda p: np.sum(p[0] ** 2) + p[1], ((A, ONE),))
    assert texts(claim) == ["gradient has the containers [*, *], expected (*, *)"]


def test_a_gradient_with_respect_to_all_arguments_needs_argnums():
    def f(x, y):
        return np.sum(x * y)

    claim = of_gradient(lambda x, y: (y, x), f, (A, A))
    assert "for the gradient with respect to all 2 arguments, pass argnums=(0, 1)" in texts(claim)
    assert texts(of_gradient(lambda x, y: (y, x), f, (A, A), argnums=(0, 1), single=False)) == []
    assert texts(of_gradient(lambda x, y: (x, y), f, (A, A), argnums=(1, 0), single=False)) == []


def test_a_gradient_needs_a_scalar_function():
    for f, got in ((lambda x: x, "float32[2,3]"), (lambda x: (x[0, 0], x[0, 1]), "float32[], float32[]")):
        with pytest.raises(ShapeError, match="must return one scalar") as caught:
            of_gradient(lambda x: x, f, (A,))
        assert got in str(caught.value)


def vjp(x, y):
    return product(x, y), lambda w: (np.asarray(w) * y, np.asarray(w) * x)


VJPS = {
    "right": (vjp, []),
    "other values": (lambda x, y: (x * y + 1, vjp(x, y)[1]), ["vjp returns different values than f: the largest"]),
    "other shape": (lambda x, y: ((x * y)[0], lambda w: (x, y)), ["vjp returns float32[3], f returns float32[2,3]"]),
    "other tree": (lambda x, y: ([x * y], lambda w: (x, y)), ["vjp returns [*], f returns *"]),
    "no tuple": (lambda x, y: (x * y, lambda w: x), ["the pullback of vjp must return a tuple, got float32[2,3]"]),
    "one cotangent": (lambda x, y: (x * y, lambda w: (x,)), ["vjp has no leaf for y"]),
    "a cotangent of another shape": (lambda x, y: (x * y, lambda w: (x, y[0])), ["vjp for y is float32[3], the leaf"]),
}


@pytest.mark.parametrize(("claimed", "words"), VJPS.values(), ids=VJPS)
def test_misfits_of_a_vjp_are_findings(claimed, words):
    point, out = prepared(product, A, A + 1)
    claim = claimed_vjp(point, out, claimed, [np.ones_like(A)])
    for text in words:
        assert any(text in x for x in texts(claim)), texts(claim)
    assert bool(claim.findings) == bool(words)


JVPS = {
    "right": (lambda p, t: (product(*p), p[0] * t[1] + t[0] * p[1]), []),
    "other values": (lambda p, t: (product(*p) + 1, p[0]), ["jvp returns different values than f"]),
    "tangents of another shape": (lambda p, t: (product(*p), t[0][0]), ["jvp, as tangents, returns float32[3]"]),
    "tangents of another dtype": (lambda p, t: (product(*p), low(t[0])), ["jvp, as tangents, returns bfloat16[2,3]"]),
}


@pytest.mark.parametrize(("claimed", "words"), JVPS.values(), ids=JVPS)
def test_misfits_of_a_jvp_are_findings(claimed, words):
    point, out = prepared(product, A, A + 1)
    claim = claimed_jvp(point, out, claimed)
    for text in words:
        assert any(text in x for x in texts(claim)), texts(claim)
    # A jvp with a misfit gets no forward program.
    assert bool(claim.findings) == bool(words) == (claim.forward is None)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "result", "words"),
    [
        (claimed_vjp, A, "vjp(*args) must return (f(*args), pullback) as jax.vjp(f, *args) does, got float32[2,3]"),
        (claimed_vjp, (A, A), "got (float32[2,3], float32[2,3])"),
        (
            claimed_jvp,
            A,
            "jvp(primals, tangents) must return (f(*primals), tangents) as jax.jvp does, got float32[2,3]",
        ),
        (claimed_jvp, (A, A, A), "got (float32[2,3], float32[2,3], float32[2,3])"),
    ],
)
def test_a_vjp_or_jvp_with_a_result_of_another_form_is_refused(make, result, words):
    point, out = prepared(product, A, A + 1)
    rest = ([np.ones_like(A)],) if make is claimed_vjp else ()
    with pytest.raises(ShapeError) as caught:
        make(point, out, lambda *args: result, *rest)
    assert words in str(caught.value)


def test_a_traced_gradient_is_refused():
    kept = []
    jax.jit(lambda x: kept.append(x) or x)(A)
    with pytest.raises(DtypeError, match="gradient must return arrays with values, got a traced one"):
        of_gradient(lambda p: {"a": kept[0], "b": ONE})


def test_a_misfit_makes_a_check_wrong():
    """The leaf that fits is still checked."""
    report = check_gradients(
        lambda p: jnp.sum(p["a"] ** 2) + p["b"], POINT, gradient=lambda p: {"a": 2 * p["a"], "b": jnp.ones(2)}
    )
    assert (report.verdict, report.cause) == ("wrong", "tree, shape or dtype differs")
    assert "gradient for p['b'] is float32[2], the leaf is float32[]" in str(report)
    assert [leaf.verdict for leaf in report.leaves] == ["right", "wrong"]
