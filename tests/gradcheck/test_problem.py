"""Each leaf is differentiated, traced or static, and f runs under the settings of the check, not the user's."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import check_gradients
from jaxgd.gradcheck.problem import evaluation, prepare, upcast, with_outputs

A = jnp.arange(1.0, 7.0).reshape(2, 3)
X = jnp.array([0.3, 1.2, 2.5])


def with_rule(f, backward):
    """Return f with a custom reverse rule: backward(x, g) is the cotangent of x."""
    wrapped = jax.custom_vjp(lambda x: f(x))
    wrapped.defvjp(lambda x: (f(x), x), lambda x, g: (backward(x, g),))
    return wrapped


def traced(number):
    """Return an integer as an array, so that a check with another integer runs the same programs."""
    return jnp.asarray(np.int32(number))


# Leaves.


def mixed(p, k, z):
    return {"y": p["w"] * k, "n": 3, "z": z, "empty": p["w"][:, :0]}


ARGS = {"w": A, "i": jnp.array(1), "h": np.ones(2, np.float16), "none": None, "flag": True}, 2.0, np.ones(2, complex)


def test_the_leaves_are_differentiated_traced_or_static():
    found = prepare(mixed, ARGS, (0, 2), False)
    assert [(x.name, x.shape, x.dtype) for x in found.leaves] == [
        ("p['h']", (2,), "float16"),
        ("p['w']", (2, 3), "float32"),
        ("z", (2,), "complex64"),
    ]
    # A fixed float is listed by its name, and any other fixed leaf by its name and type.
    assert found.fixed == ("p['flag'] (bool)", "p['i'] (int32[])", "k")
    assert [x.shape for x in found.traced] == [(), ()]
    assert [opaque.value for _, opaque in found.problem.static] == [True]
    assert found.argnums == (0, 2)
    assert ("axis 1 of p['w']", 3) in found.axes
    assert found.name == "mixed"
    args = found.problem.args(found.v, found.traced)
    assert args[0]["flag"] is True
    assert args[0]["none"] is None
    assert args[0]["w"] is found.v[1]


def test_a_problem_is_hashable_and_equal_only_for_the_same_function():
    one, same, another = (prepare(f, (A,), None, False).problem for f in (jnp.sin, jnp.sin, jnp.cos))
    assert one == same
    assert hash(one) == hash(same)
    assert one != another


def test_only_results_with_floats_are_outputs():
    found = with_outputs(prepare(mixed, ARGS, None, False), mixed(*ARGS))
    # JAX sorts the keys of a dictionary: empty, n, y, z.
    assert found.problem.outputs == (2, 3)
    assert [y.shape for y in found.problem(found.v, found.traced)] == [(2, 3), (2,)]
    aux = with_outputs(prepare(lambda x: (jnp.sum(x), {"n": x}), (A,), None, True), 1.0)
    assert [y.shape for y in aux.problem(aux.v, aux.traced)] == [()]


def test_tangents_have_float0_for_leaves_without_a_derivative():
    found = prepare(mixed, ARGS, 0, False)
    p, k, z = found.problem.tangents(found.v, found.traced, [x + 1 for x in found.v])
    assert p["i"].dtype == p["flag"].dtype == jax.dtypes.float0
    assert not np.any(k)
    assert not np.any(z)
    np.testing.assert_array_equal(p["w"], A + 1)


NAMES = [
    (lambda x, y: x, ["x", "y"]),
    (lambda *xs: xs, ["args[0]", "args[1]"]),
    (lambda x, *xs: xs, ["x", "args[1]"]),
    (functools.partial(lambda k, x, y: x, 1), ["x", "y"]),
    (max, ["args[0]", "args[1]"]),
    (jax.jit(lambda a, b: a), ["a", "b"]),
]


@pytest.mark.parametrize(("f", "names"), NAMES)
def test_leaves_have_the_names_of_the_signature(f, names):
    assert [x.name for x in prepare(f, (1.0, 2.0), None, False).leaves] == names


def test_upcast_widens_floats_and_keeps_integers(x64):
    given = map(jnp.asarray, [np.float32(1), jnp.bfloat16(1), np.complex64(1j), np.int32(3), np.True_, 2.0])
    assert [str(jnp.result_type(x)) for x in upcast([*given])] == [
        "float64",
        "float64",
        "complex128",
        "int32",
        "bool",
        "float64",
    ]


# Settings.


def test_the_settings_of_a_check_end_with_the_check():
    callbacks, record = logging.getLogger("jax._src.callback"), logging.makeLogRecord({})
    names = ("enable_x64", "debug_nans", "debug_infs", "numpy_dtype_promotion", "numpy_rank_promotion")

    def settings():
        return *(getattr(jax.config, f"jax_{name}") for name in names), not callbacks.filter(record)

    with jax.debug_nans(True), jax.numpy_dtype_promotion("strict"):
        before = settings()
        assert before == (False, True, False, "strict", "raise", False)
        with evaluation(float64=False):
            assert settings() == (False, True, False, "standard", "allow", False)
            assert jax.config.jax_default_matmul_precision == "highest"
        with evaluation(float64=True):
            assert settings() == (True, False, False, "standard", "allow", True)
            with evaluation(float64=True):
                pass
            # Callbacks still log nothing after the inner evaluation has ended.
            assert settings()[-1]
        assert settings() == before


def test_strict_promotion_of_dtypes_and_ranks_is_no_obstacle():
    """The check runs f on float64 inputs, which meet a float32 constant. In float32, no dtypes are mixed."""
    constant = jnp.array([1, 2, 3], jnp.float32)
    rule = jax.custom_vjp(lambda x, factor: jnp.sum(jnp.sin(x) * constant))
    rule.defvjp(
        lambda x, factor: (rule(x, factor), (x, factor)),
        lambda inputs, g: (g * inputs[1].astype(jnp.float32) * jnp.cos(inputs[0]) * constant, None),
    )
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for factor, verdict in ((1, "right"), (2, "wrong")):
            report = check_gradients(rule, X, traced(factor))
            assert report.verdict == verdict, str(report)
            assert report.dtype == "float64"
        # If f raises under the user's settings, the check raises the same exception.
        with pytest.raises(jax.dtypes.TypePromotionError):
            check_gradients(lambda x: jnp.sum(x * jnp.arange(3)), X)


EMPTY = {
    "no elements": (lambda x: jnp.sum(x), jnp.zeros((1, 0))),
    "an empty result": (lambda x: x[:0], X),
    "two empty leaves": (lambda p: p["a"], {"a": jnp.zeros((0, 2)), "b": jnp.zeros(0)}),
}


@pytest.mark.parametrize(("f", "x"), EMPTY.values(), ids=EMPTY)
@pytest.mark.parametrize("order", [1, 2])
def test_a_check_without_elements_is_right(f, x, order):
    report = check_gradients(f, x, order=order)
    assert report.verdict == "right"
    assert report.checked == "nothing: all arguments or results are empty"
    assert all(leaf.checks == () for leaf in report.leaves)
    assert "nothing" in str(report)


def test_a_gradient_of_another_shape_than_its_empty_leaf_is_wrong():
    def gradient(p):
        return [p[0], jnp.zeros(3)]

    report = check_gradients(lambda p: jnp.sum(p[0]) + jnp.sum(p[1]), [jnp.zeros(0)] * 2, gradient=gradient)
    assert (report.leaf("p[1]").verdict, report.verdict) == ("wrong", "wrong")
    assert "gradient for p[1] is float32[3], the leaf is float32[0]" in report.reason


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "verdict"), [(1, "right"), (2, "wrong")])
def test_a_callback_that_refuses_float64_logs_nothing(caplog, capfd, factor, verdict):
    def by_numpy(z):
        if z.dtype != np.float32:
            raise TypeError("float32 only")
        return np.sin(np.asarray(z))

    def sine(x, factor):
        return jnp.sum(
            jax.pure_callback(by_numpy, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="expand_dims")
        )

    rule = jax.custom_vjp(sine)
    rule.defvjp(
        lambda *args: (sine(*args), args), lambda args, g: (g * args[1].astype(X.dtype) * jnp.cos(args[0]), None)
    )
    report = check_gradients(rule, X, traced(factor))
    assert report.verdict == verdict, str(report)
    assert report.dtype == "float32"
    assert any("f in float64: " in note for note in report.not_checked)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_check_restores_the_users_settings():
    before = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision

    def breaks(x):
        if x.dtype == jnp.float64:
            raise KeyboardInterrupt
        return jnp.sum(x)

    with pytest.raises(KeyboardInterrupt):
        check_gradients(breaks, A)
    assert (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision) == before


def test_products_use_the_highest_precision():
    """On a CPU every run uses the highest precision. Other devices also run once with their default precision."""
    seen = set()

    def f(x):
        seen.add(jax.config.jax_default_matmul_precision)
        return jnp.sum(x @ x.T)

    check_gradients(f, A, gradient=jax.jit(jax.grad(lambda x: jnp.sum(x @ x.T))))
    assert seen == {"highest"} if jax.default_backend() == "cpu" else "highest" in seen


def test_partials_methods_and_callable_objects_are_accepted():
    class Cost:
        scale = 2.0
        __hash__ = None

        def __call__(self, x):
            return self.scale * jnp.sum(x**2)

        def method(self, x):
            return self(x)

    for f in (Cost(), Cost().method, functools.partial(lambda k, x: k * jnp.sum(x**2), 2.0)):
        assert check_gradients(f, A, gradient=lambda x: 4 * x).verdict == "right"
