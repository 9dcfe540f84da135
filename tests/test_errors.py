"""The checks in jaxgd.errors accept valid values. Their messages name the caller, the expected and the given value."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import errors

pytestmark = pytest.mark.bad_input


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.ShapeError, ValueError),
        (errors.DtypeError, TypeError),
        (errors.RangeError, ValueError),
        (errors.DataError, ValueError),
        (errors.CheckpointError, ValueError),
        (errors.WriteError, OSError),
        (errors.MissingDependencyError, ImportError),
    ],
)
def test_each_exception_derives_from_jaxgderror_and_a_builtin(error, builtin):
    assert issubclass(error, errors.JaxgdError)
    assert issubclass(error, builtin)


def test_the_list_of_exceptions_is_complete():
    ours = {x for _, x in inspect.getmembers(errors, inspect.isclass) if issubclass(x, errors.JaxgdError)}
    assert len(ours - {errors.JaxgdError}) == 7


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (jnp.zeros((2, 3)), "float32[2,3]"),
        (np.zeros((), np.uint8), "uint8[]"),
        (jax.ShapeDtypeStruct((10,), jnp.bfloat16), "bfloat16[10]"),
        (1.5, "float"),
        (None, "NoneType"),
    ],
)
def test_describe_gives_dtype_and_shape(x, text):
    assert errors.describe(x) == text


class Bomb:
    """An object that raises when it is converted to an array or to text."""

    def __array__(self, *args, **kwargs):
        raise ZeroDivisionError("bomb")

    def __repr__(self):
        raise ZeroDivisionError("bomb")


# Objects that JAX cannot take as arrays of numbers, or whose numbers it would misread.
NOT_NUMBERS = {
    "None": None,
    "text": "3",
    "objects": np.array([None, 1]),
    "array of text": np.array(["a"]),
    "dates": np.array(["2020-01-01"], "datetime64[D]"),
    "records": np.zeros(2, [("a", "f4")]),
    "mask": np.ma.masked_array([1.0, 2.0], [0, 1]),
    "generator": (x for x in ()),
    "shape": jax.ShapeDtypeStruct((2,), jnp.float32),
    "key": jax.random.key(0),
    "bomb": Bomb(),
}


@pytest.mark.parametrize("name", NOT_NUMBERS)
def test_objects_that_are_not_arrays_of_numbers_are_refused(name):
    x = NOT_NUMBERS[name]
    checks = {
        "be an array of numbers": lambda: errors.as_array("f", "x", x),
        "be real floating point": lambda: errors.require_float("f", "x", x),
        "at least one variable|an array of floats|a tree of arrays": lambda: errors.require_variables("f", "x", x),
        "be one real number": lambda: errors.require_real("f", "x", x),
        "be a whole number known": lambda: errors.require_count("f", "x", x),
        "whole number|at least one layer": lambda: errors.require_sizes("f", x),
        "be True or False": lambda: errors.require_bool("f", "x", x),
        "be 'a' or 'b'": lambda: errors.require_choice("f", "x", x, ("a", "b")),
        "be a function": lambda: errors.require_callable("f", "x", x),
        "be a rule such as": lambda: errors.require_rule("f", "x", x),
        "be a tuple": lambda: errors.require_args("f", x),
    }
    for words, check in checks.items():
        with pytest.raises(errors.JaxgdError, match=words) as caught:
            check()
        assert str(caught.value).startswith("f: ")
        assert len(str(caught.value)) < 300


def test_arrays_of_different_shapes_are_refused():
    errors.require_same_shape("f", a=jnp.zeros(3), y=np.ones(3))
    with pytest.raises(
        errors.ShapeError, match=r"^f: a and y .* got a float32\[3\], y float32\[3,1\]\.\nNothing is broad"
    ):
        errors.require_same_shape("f", a=jnp.zeros(3), y=jnp.zeros((3, 1)))


def test_a_batch_without_examples_is_refused():
    errors.require_examples("f", 1)
    with pytest.raises(errors.ShapeError, match=r"^f: .* at least one example, got none"):
        errors.require_examples("f", 0)


@pytest.mark.parametrize(
    "x", [1.0, jnp.zeros(2), jnp.zeros(2, jnp.bfloat16), np.zeros(2, np.float16)], ids=errors.describe
)
def test_floats_pass(x):
    errors.require_float("f", "x", x)


@pytest.mark.parametrize("x", [1, True, jnp.zeros(2, jnp.uint8), np.zeros(2, bool), jnp.array(1j)], ids=errors.describe)
def test_dtypes_that_are_not_real_floats_are_refused(x):
    with pytest.raises(errors.DtypeError, match=r"^f: x must be real floating point, got"):
        errors.require_float("f", "x", x)


@pytest.mark.bad_input
def test_the_advice_depends_on_the_dtype_of_the_leaf():
    with pytest.raises(errors.DtypeError, match=r"Pass v\['w'\]\.astype\(float\)"):
        errors.require_variables("f", "v", {"w": jnp.ones(2, int), "b": jnp.ones(2)})
    with pytest.raises(errors.DtypeError, match="Pass its real and imaginary parts") as caught:
        errors.require_variables("f", "v", {"w": jnp.ones(2, complex)})
    assert "astype" not in str(caught.value)


def test_a_scalar_cost_passes_and_is_only_traced():
    def cost(v):
        assert errors.is_traced(v)
        return jnp.sum(v)

    errors.require_scalar("f", cost, jnp.zeros(3))
    errors.require_scalar("f", lambda v: 1.0, jnp.zeros(3))


@pytest.mark.parametrize(
    ("cost", "got"),
    [
        (lambda v: v, r"float32\[3\]"),
        (lambda v: v[:1], r"float32\[1\]"),
        (lambda v: 1, r"int32\[\]"),
        (lambda v: jnp.sum(v) * 1j, r"complex64\[\]"),
        (lambda v: (jnp.sum(v), v), "tuple"),
        (lambda v: None, "NoneType"),
    ],
)
def test_a_cost_that_is_not_a_real_scalar_is_refused(cost, got):
    with pytest.raises(errors.ShapeError, match=rf"^f: the cost must return one real scalar, got {got}\.\nAverage"):
        errors.require_scalar("f", cost, jnp.zeros(3))


def test_is_traced_is_true_inside_transformations_only():
    seen = []
    jax.jit(lambda x: seen.append(errors.is_traced(x)))(1.0)
    jax.grad(lambda x: seen.append(errors.is_traced(x)) or x)(1.0)
    assert seen == [True, True]
    assert not any(map(errors.is_traced, (1.0, jnp.ones(()), np.ones(3), None)))


@pytest.mark.parametrize("x", [1, 0.5, 1e-300, np.float32(3), jnp.array(0.1), jnp.array(2, jnp.bfloat16)], ids=str)
def test_positive_numbers_pass(x):
    errors.require_positive("f", "eta", x)


@pytest.mark.parametrize(
    "x", [0, 0.0, -0.0, -3.0, float("nan"), float("inf"), jnp.array(-jnp.inf), jnp.array(0)], ids=str
)
def test_numbers_that_are_not_positive_and_finite_are_refused(x):
    with pytest.raises(errors.RangeError, match=r"^f: eta must be a finite number above 0, got .*\n"):
        errors.require_positive("f", "eta", x)


@pytest.mark.parametrize(
    "x", [True, np.True_, jnp.array(True), [0.1], jnp.ones(1), np.ones((2, 2))], ids=errors.describe
)
def test_bools_and_arrays_are_not_one_number(x):
    with pytest.raises(errors.DtypeError, match=r"^f: eta must be one real number, got"):
        errors.require_positive("f", "eta", x)


@pytest.mark.parametrize("x", [1j, np.complex64(1), jnp.array(1 + 0j)], ids=str)
def test_complex_numbers_are_refused(x):
    with pytest.raises(errors.JaxgdError, match=r"^f: eta must be"):
        errors.require_positive("f", "eta", x)


@pytest.mark.parametrize("x", ["0.1", None], ids=repr)
def test_text_and_none_are_not_one_number(x):
    with pytest.raises(errors.DtypeError, match=r"^f: eta must be one real number, got"):
        errors.require_positive("f", "eta", x)


def test_a_traced_number_passes():
    jax.jit(lambda eta: errors.require_positive("f", "eta", eta))(-1.0)


@pytest.mark.parametrize("x", [1, 5, np.int64(3), np.array(2), jnp.array(4)], ids=repr)
def test_counts_pass(x):
    errors.require_count("f", "n", x, least=1, most=5)


@pytest.mark.parametrize("x", [1.0, np.float64(2), True, np.True_, None, "3", (1,)], ids=repr)
def test_counts_that_are_not_integers_are_refused(x):
    with pytest.raises(errors.DtypeError, match=r"^f: n must be a whole number"):
        errors.require_count("f", "n", x)


@pytest.mark.parametrize("x", [np.array(2.5), jnp.array(2.5), np.array(2.0)], ids=repr)
def test_counts_in_float_arrays_are_refused(x):
    with pytest.raises(errors.DtypeError, match=r"^f: n must be a whole number"):
        errors.require_count("f", "n", x)


def test_a_traced_count_is_refused():
    with pytest.raises(errors.DtypeError, match=r"^f: n must be a whole number known before tracing, got int32\[\]"):
        jax.jit(lambda n: errors.require_count("f", "n", n))(1)


@pytest.mark.parametrize("x", [0, -1, 6])
def test_counts_out_of_range_are_refused(x):
    with pytest.raises(errors.RangeError, match=rf"^f: n must be between 1 and 5, got {x}\."):
        errors.require_count("f", "n", x, least=1, most=5)
    if x < 1:
        with pytest.raises(errors.RangeError, match=r"^f: n must be at least 1, got"):
            errors.require_count("f", "n", x)


def test_bad_sizes_are_refused():
    errors.require_sizes("f", (784, 30, 10))
    errors.require_sizes("f", [1, 1])
    for sizes in ((), (5,), (0, 1), (1, -2), (2, 0, 1)):
        with pytest.raises(errors.RangeError, match=r"^f: .*sizes"):
            errors.require_sizes("f", sizes)
    for sizes in ((2.0, 1), (True, 2), (2, None)):
        with pytest.raises(errors.DtypeError, match=r"^f: .*sizes"):
            errors.require_sizes("f", sizes)


@pytest.mark.parametrize("precision", ["fast", 10**30, [], print, np.zeros(2)], ids=lambda x: type(x).__name__)
def test_an_unknown_precision_is_refused(precision):
    with pytest.raises(errors.RangeError, match=r'^f: precision must be .*\n.*"highest"'):
        errors.require_precision("f", precision)


@pytest.mark.parametrize("precision", ["TF32_TF32_F32_X3", jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3], ids=str)
def test_an_algorithm_that_the_device_lacks_is_refused(precision):
    """XLA's own error comes later and names no remedy. The algorithms in the message depend on the CPU."""
    with pytest.raises(errors.RangeError) as caught:
        errors.require_precision("f", precision)
    first, second = str(caught.value).split("\n")
    assert first == f"f: precision must be an algorithm that the cpu has for float32, got {precision}."
    assert re.fullmatch(r"Use ('\w+', )*'F32_F32_F32' or \"highest\", or None for the default of the device\.", second)
    assert "TF32" not in second
    with jax.default_matmul_precision("TF32_TF32_F32_X3"):
        errors.require_precision("f", "highest")
        with pytest.raises(errors.RangeError, match=r"^f: JAX's setting jax_default_matmul_precision must be an alg"):
            errors.require_precision("f", None)


def test_known_precisions_pass():
    algorithms = ("F32_F32_F32", jax.lax.DotAlgorithmPreset.F32_F32_F32)
    for precision in (None, "highest", "bfloat16", jax.lax.Precision.HIGH, ("default", "highest"), *algorithms):
        errors.require_precision("f", precision)


NOT_SIZES = ["345", b"345", {3: 1, 4: 2}, {3, 4}, 3, np.array(3), (x for x in (3, 4))]


@pytest.mark.parametrize("sizes", NOT_SIZES, ids=lambda sizes: type(sizes).__name__)
def test_sizes_of_other_types_are_refused(sizes):
    with pytest.raises(errors.DtypeError, match=r"^f: .*sizes"):
        errors.require_sizes("f", sizes)


def test_sizes_become_ints():
    assert errors.require_sizes("f", np.array([3, 2], np.uint8)) == errors.require_sizes("f", range(3, 1, -1)) == (3, 2)


@pytest.mark.parametrize("sizes", [(2**31, 1), (2**40, 2**40), (1, 10**5000)], ids=["2³¹", "2⁸⁰", "5,001 digits"])
def test_a_layer_that_is_too_wide_is_refused(sizes):
    errors.require_sizes("f", (2**31 - 1, 2**20))
    with pytest.raises(errors.RangeError, match=r"must be between 1 and 2147483647, got") as caught:
        errors.require_sizes("f", sizes)
    assert len(str(caught.value)) < 300


def test_keys_pass():
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        errors.require_key("f", key)
        jax.vmap(lambda key: errors.require_key("f", key))(key[None])


@pytest.mark.parametrize(
    "key", [0, None, "key", jnp.array(0), np.zeros(2, np.uint32), jnp.zeros(2)], ids=errors.describe
)
def test_objects_that_are_not_random_keys_are_refused(key):
    with pytest.raises(errors.DtypeError, match=r"^f: key must be a random key of JAX, got .*\nPass jax\.random\.key"):
        errors.require_key("f", key)


@pytest.mark.parametrize("key", [jax.random.key(0)[None], jnp.zeros((3, 2), jnp.uint32), jnp.zeros(3, jnp.uint32)])
def test_several_keys_are_refused(key):
    with pytest.raises(errors.ShapeError, match="f: key must be one random key, got"):
        errors.require_key("f", key)


def test_numbers_that_jax_cannot_hold_are_refused():
    for check in (lambda: errors.require_real("f", "x", 2**40), lambda: errors.require_args("f", (10**5000,))):
        with pytest.raises(errors.RangeError, match=r"must fit int32, got .*\nWrite it as a float"):
            check()
    errors.require_real("f", "x", float(2**40))


@pytest.mark.parametrize("shape", [(2,), (1,)])
def test_a_traced_array_is_not_one_number(shape):
    with pytest.raises(errors.DtypeError, match="must be one real number"):
        jax.eval_shape(lambda x: errors.require_positive("f", "eta", x), jax.ShapeDtypeStruct(shape, jnp.float32))


def test_a_numpy_matrix_is_refused_or_converted():
    """In a numpy.matrix, * is the matrix product, not the elementwise product."""
    x = np.ones((2, 2)).view(np.matrix)
    with pytest.raises(errors.DtypeError, match=r"got matrix float64\[2,2\]"):
        errors.require_float("f", "x", x)
    assert type(errors.as_array("f", "x", x)) is np.ndarray


def test_arrays_of_the_other_byte_order_are_converted():
    x = errors.as_array("f", "x", np.array([1.0, 2.0], ">f4"))
    assert x.tolist() == [1.0, 2.0]
    assert x.dtype == np.float32


def test_an_exception_in_the_cost_reaches_the_caller():
    def cost(v):
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        errors.require_scalar("f", cost, jnp.ones(2))
