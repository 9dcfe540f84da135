"""Each check passes good values. Its message names the caller, the expected value and the actual value."""

import inspect

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
def test_each_exception_derives_from_jaxgds_and_a_builtin(error, builtin):
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


def test_require_same_shape():
    errors.require_same_shape("f", a=jnp.zeros(3), y=np.ones(3))
    with pytest.raises(
        errors.ShapeError, match=r"^f: a and y .* got a float32\[3\], y float32\[3,1\]\.\nNothing is broad"
    ):
        errors.require_same_shape("f", a=jnp.zeros(3), y=jnp.zeros((3, 1)))


def test_require_examples():
    errors.require_examples("f", 1)
    with pytest.raises(errors.ShapeError, match=r"^f: .* at least one example, got none"):
        errors.require_examples("f", 0)


@pytest.mark.parametrize(
    "x", [1.0, jnp.zeros(2), jnp.zeros(2, jnp.bfloat16), np.zeros(2, np.float16)], ids=errors.describe
)
def test_floats_pass(x):
    errors.require_float("f", "x", x)


@pytest.mark.parametrize("x", [1, True, jnp.zeros(2, jnp.uint8), np.zeros(2, bool), jnp.array(1j)], ids=errors.describe)
def test_other_dtypes_are_refused(x):
    with pytest.raises(errors.DtypeError, match=r"^f: x must be real floating point, got"):
        errors.require_float("f", "x", x)


@pytest.mark.bad_input
def test_the_remedy_fits_the_leaf():
    with pytest.raises(errors.DtypeError, match=r"Pass v\['w'\]\.astype\(float\)"):
        errors.require_variables("f", "v", {"w": jnp.ones(2, int), "b": jnp.ones(2)})
    with pytest.raises(errors.DtypeError, match="Pass its real and imaginary parts") as caught:
        errors.require_variables("f", "v", {"w": jnp.ones(2, complex)})
    assert "astype" not in str(caught.value)


def test_a_scalar_cost_passes_and_is_not_computed():
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


def test_is_traced():
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
def test_other_numbers_are_out_of_range(x):
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


def test_require_sizes():
    errors.require_sizes("f", (784, 30, 10))
    errors.require_sizes("f", [1, 1])
    for sizes in ((), (5,), (0, 1), (1, -2), (2, 0, 1)):
        with pytest.raises(errors.RangeError, match=r"^f: .*sizes"):
            errors.require_sizes("f", sizes)
    for sizes in ((2.0, 1), (True, 2), (2, None)):
        with pytest.raises(errors.DtypeError, match=r"^f: .*sizes"):
            errors.require_sizes("f", sizes)
