"""Activations and their derivatives are right to rounding, and copies and gradients of a layer keep its activation."""

import copy
import decimal
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import exact_sigmoid, swish

from jaxgd.activations import ACTIVATIONS, activate, at_limit, backward, sigmoid, sigmoid_prime, softmax, tanh
from jaxgd.errors import DtypeError, RangeError, ShapeError
from jaxgd.network import Layer, feedforward, init_network

# σ rounds to 1 from about 16.6 in float32 and from about 36.7 in float64. exp overflows at 89 in float32 and at 710 in
# float64.
WEIGHTED_INPUTS = np.array(
    [0, 1e-6, 0.1, 1, 3, 10, 17, 18, 20, 37, 40, 80, 87, 88, 89, 100, 700, 708, 709, 750, 1e3, 1e4]
)
WEIGHTED_INPUTS = np.concatenate([-WEIGHTED_INPUTS[:0:-1], WEIGHTED_INPUTS])

# The rounding error is about 5 units in the last place, and ULPS is three times that. XLA flushes values below the
# smallest normal number to 0, so the tolerance there is absolute.
ULPS = 16


def assert_digits(got, want, dtype):
    got, want, info = np.asarray(got, np.float64), np.asarray(want), jnp.finfo(dtype)
    assert np.all(np.isfinite(got))
    with np.errstate(under="ignore"):
        allowed = ULPS * float(info.eps) * np.abs(want) + float(info.tiny)
    bad = np.abs(got - want) > allowed
    assert not bad.any(), f"{got[bad]} should be {want[bad]}"


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16], ids=lambda d: d.__name__)
def test_sigmoid_and_its_slope_have_full_precision(dtype, x64):
    z = jnp.asarray(WEIGHTED_INPUTS, dtype)
    want = np.array([exact_sigmoid(x) for x in np.asarray(z, np.float64)])  # at z rounded to its dtype
    assert sigmoid(z).dtype == sigmoid_prime(z).dtype == dtype
    assert_digits(sigmoid(z), want[:, 0], dtype)
    assert_digits(sigmoid_prime(z), want[:, 1], dtype)
    assert_digits(jax.vmap(jax.grad(sigmoid))(z), want[:, 1], dtype)
    assert_digits(jax.jit(sigmoid_prime)(z), want[:, 1], dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16], ids=lambda d: d.__name__)
def test_the_textbook_slope_fails_the_comparison(dtype, x64):
    """The formula a(1 − a) loses its digits where the neuron saturates."""
    z = jnp.asarray(WEIGHTED_INPUTS, dtype)
    want = np.array([exact_sigmoid(x) for x in np.asarray(z, np.float64)])
    with pytest.raises(AssertionError, match="should be"):
        assert_digits(sigmoid(z) * (1 - sigmoid(z)), want[:, 1], dtype)


def nested(f, order):
    for _ in range(order):
        f = jax.grad(f)
    return f


# Products keep their relative precision in the tails. Only the difference 1 − 6σ(z)σ(−z) loses a digit, at z = ±1. The
# tolerance 1e-14 is 45 units in the last place.
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("z", [0.0, 1.0, -1.0, 20.0, -20.0, 40.0, -40.0])
def test_derivatives_of_sigmoid_up_to_third_order_have_full_precision(z, order, x64):
    want = exact_sigmoid(z)[order]
    assert float(nested(sigmoid, order)(jnp.array(z))) == pytest.approx(want, rel=1e-14, abs=0)
    assert float(nested(sigmoid_prime, order - 1)(jnp.array(z))) == pytest.approx(want, rel=1e-14, abs=0)


def test_the_textbook_derivative_is_wrong_in_saturation(x64):
    def textbook(z):
        return 1 / (1 + jnp.exp(-z))

    for z in (20.0, 40.0):
        assert float(textbook(z) * (1 - textbook(z))) != pytest.approx(exact_sigmoid(z)[1], rel=1e-10, abs=0)


def test_a_saturated_neuron_has_a_slope_in_float32():
    a = sigmoid(jnp.array(20.0))
    assert float(a * (1 - a)) == 0, "the textbook slope should be 0, because a rounds to 1"
    # 16 units in the last place of float32, as in ULPS, are 2e-6.
    assert float(jax.grad(sigmoid)(jnp.array(20.0))) == pytest.approx(exact_sigmoid(20.0)[1], rel=2e-6)


def test_sigmoid_works_under_jit_vmap_and_derivatives(x64):
    z, dz = jnp.array([-2.0, 0.0, 3.0]), jnp.array([1.0, 2.0, -1.0])
    _, slope, bend, _ = np.array([exact_sigmoid(x) for x in z]).T
    close = functools.partial(np.testing.assert_allclose, rtol=1e-14, atol=1e-300)
    value, tangent = jax.jvp(sigmoid, (z,), (dz,))
    close(value, sigmoid(z))
    close(tangent, slope * dz)
    close(jax.vjp(sigmoid, z)[1](dz)[0], slope * dz)
    close(jax.vmap(sigmoid)(z), sigmoid(z))
    close(jax.jit(jax.vmap(jax.grad(sigmoid)))(z), slope)
    close(jax.jacfwd(sigmoid)(z), np.diag(slope))
    close(jax.jacrev(sigmoid)(z), np.diag(slope))
    close(jax.hessian(lambda z: jnp.sum(sigmoid(z)))(z), np.diag(bend))


def test_sigmoid_of_infinity_is_0_or_1_and_of_nan_is_nan():
    z = jnp.array([jnp.inf, -jnp.inf])
    np.testing.assert_array_equal(sigmoid(z), [1, 0])
    np.testing.assert_array_equal(jax.vmap(jax.grad(sigmoid))(z), [0, 0])
    assert np.isnan(sigmoid(jnp.array(jnp.nan)))
    assert np.isnan(sigmoid_prime(jnp.array(jnp.nan)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16], ids=lambda d: d.__name__)
def test_the_slope_of_tanh_has_full_precision(dtype, x64):
    """tanh′(z) = 4σ′(2z). In float32, 1 − tanh² is 0 from z = 9 on, and the neuron would never learn again."""
    z = jnp.asarray(WEIGHTED_INPUTS[np.abs(WEIGHTED_INPUTS) < 5000], dtype)
    want = np.array([4 * exact_sigmoid(2 * x)[1] for x in np.asarray(z, np.float64)])
    assert_digits(backward("tanh", z, jnp.ones_like(z)), want, dtype)
    assert_digits(jax.vmap(jax.grad(tanh))(z), want, dtype)
    with pytest.raises(AssertionError, match="should be"):
        assert_digits(1 - tanh(z) ** 2, want, dtype)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_of_tanh_up_to_third_order_have_full_precision(order, x64):
    """The derivative of order k of tanh(z) = 2σ(2z) − 1 is 2ᵏ⁺¹σ⁽ᵏ⁾(2z). The tolerance is that of the sigmoid."""
    z = np.array([0.0, 1.0, -1.0, 10.0, -20.0])
    want = [2 ** (order + 1) * exact_sigmoid(2 * x)[order] for x in z]
    np.testing.assert_allclose(jax.vmap(nested(tanh, order))(jnp.asarray(z)), want, rtol=1e-14)


def exact_softmax(z):
    """Return the softmax of z and its Jacobian, computed to sixty digits and rounded to float64."""
    with decimal.localcontext(prec=60):
        e = [decimal.Decimal(float(x)).exp() for x in z]
        a = [x / sum(e) for x in e]
        jacobian = [[a[j] * ((j == k) - a[k]) for k in range(len(a))] for j in range(len(a))]
        return np.array(a, float), np.array(jacobian, float)


# Rows with similar outputs, with equal outputs, and with one output close to 1.
ROWS = np.array([[0.3, -1.0, 0.5], [2.0, 2.0, 2.0], [0.0, 20.0, 1.0], [40.0, 0.0, 30.0], [-5.0, -90.0, 3.0]])


# The sums have three terms, and each term has a few roundings, so the tolerance of ULPS applies here too.
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=lambda d: d.__name__)
def test_softmax_and_its_jacobian_have_full_precision(dtype, x64):
    z = jnp.asarray(ROWS, dtype)
    want, jacobians = zip(*map(exact_softmax, np.asarray(z, np.float64)), strict=True)
    assert_digits(softmax(z), np.array(want), dtype)
    forward, reverse = (np.asarray(jax.jit(jax.vmap(f(softmax)))(z)) for f in (jax.jacfwd, jax.jacrev))
    units = jnp.eye(3, dtype=dtype)
    columns = jax.vmap(lambda v: backward("softmax", z, jnp.broadcast_to(v, z.shape)), out_axes=2)(units)
    for jacobian in (forward, reverse, columns):
        assert_digits(jacobian, np.array(jacobians), dtype)
    a = np.asarray(softmax(z))
    textbook = a[:, :, None] * (np.eye(3)[None] - a[:, None, :])
    with pytest.raises(AssertionError, match="should be"):
        assert_digits(textbook, np.array(jacobians), dtype)


def test_second_derivatives_of_softmax_equal_those_of_the_textbook_formula(x64):
    """For these z the textbook formula is right to about 1e-15."""

    def textbook(z):
        return jnp.exp(z) / jnp.sum(jnp.exp(z))

    z = jnp.asarray(ROWS[0])
    got, want = (jax.jacfwd(jax.jacrev(f))(z) for f in (softmax, textbook))
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)


def test_relu_has_the_slope_0_at_0():
    z = jnp.array([-1.0, 0.0, 2.0])
    np.testing.assert_array_equal(backward("relu", z, jnp.array([3.0, jnp.inf, 5.0])), [0, 0, 5])
    np.testing.assert_array_equal(jax.grad(lambda z: jnp.sum(activate("relu", z)))(z), [0, 0, 1])


def test_at_limit_is_true_where_an_activation_is_flat():
    a = jnp.array([-1.0, -0.9999999, 0.0, 1e-8, 0.5, 0.9999999, 1.0, 2.0])
    flat = {name: at_limit(name, a).tolist() for name in (*ACTIVATIONS, swish)}
    assert flat["sigmoid"] == flat["softmax"] == [True, True, True, True, False, True, True, True]
    assert flat["tanh"] == [True, True, False, False, False, True, True, True]
    assert flat["relu"] == [True, True, True, False, False, False, False, False]
    assert flat[swish] == [False] * 8


LAYER = Layer(np.ones((2, 3), np.float32), np.zeros(2, np.float32), "tanh")


@pytest.mark.parametrize(
    "copied",
    [
        lambda layer: layer._replace(b=layer.b),
        lambda layer: Layer._make((*layer, layer.activation)),
        copy.copy,
        copy.deepcopy,
        lambda layer: pickle.loads(pickle.dumps(layer)),
        lambda layer: jax.tree.map(jnp.asarray, layer),
        lambda layer: jax.tree.unflatten(jax.tree.structure(layer), list(layer)),
        lambda layer: jax.jit(lambda layer: layer)(layer),
        lambda layer: jax.eval_shape(lambda: layer),
        lambda layer: jax.grad(lambda layer: jnp.sum(layer.w))(layer),
    ],
    ids=["_replace", "_make", "copy", "deepcopy", "pickle", "tree.map", "unflatten", "jit", "eval_shape", "grad"],
)
def test_a_copy_of_a_layer_keeps_its_activation(copied):
    got = copied(LAYER)
    assert isinstance(got, Layer)
    assert (got.activation, got.w.shape, got.b.shape) == ("tanh", (2, 3), (2,))
    w, b = got
    assert (w.shape, b.shape, len(got)) == ((2, 3), (2,), 2)


def test_the_tree_structure_of_a_network_contains_its_activations():
    """JAX treats networks with different activations as trees of different structure."""
    one, other = LAYER, LAYER._replace(activation="relu")
    assert jax.tree.structure(one) != jax.tree.structure(other)
    assert jax.tree.structure(one) == jax.tree.structure(Layer(1.0, 2.0, "tanh"))
    with pytest.raises(ValueError, match="tanh"):
        jax.tree.map(jnp.add, one, other)
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path((one,))] == ["[0].w", "[0].b"]
    assert "activation='tanh'" in repr(one)


def test_the_activation_of_a_layer_cannot_be_assigned():
    with pytest.raises(AttributeError, match=r"activation cannot be changed.\nMake a new layer with layer._replace"):
        LAYER.activation = "relu"


def test_init_network_takes_one_activation_or_one_per_layer():
    key, sizes = jax.random.key(0), (3, 4, 2)
    plain = init_network(key, sizes)
    for activation, want in ((swish, [swish, swish]), (("tanh", "softmax"), ["tanh", "softmax"])):
        network = init_network(key, sizes, activation=activation)
        assert [layer.activation for layer in network] == want
        for x, y in zip(jax.tree.leaves(network), jax.tree.leaves(plain), strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("activation", "error", "match"),
    [
        ("gelu", RangeError, "activation must be 'sigmoid', 'tanh', .* or a function of z, got 'gelu'"),
        (None, DtypeError, "activation must be .* or a function of z, got NoneType"),
        (("tanh", 3), DtypeError, "activation must be .* got int"),
        (
            ("tanh",),
            RangeError,
            "activation must be one activation for all layers, or one for each of the 2 layers, got 1",
        ),
        ("softmax", RangeError, "activation 'softmax' is only for the output layer, got it for an earlier layer"),
        (("softmax", "tanh"), RangeError, "activation 'softmax' is only for the output layer"),
    ],
    ids=str,
)
def test_init_network_refuses_unfit_activations(activation, error, match):
    with pytest.raises(error, match=f"^init_network: {match}"):
        init_network(jax.random.key(0), (3, 4, 2), activation=activation)


@pytest.mark.bad_input
def test_an_activation_that_returns_another_shape_or_dtype_is_refused():
    for wrong, error in ((jnp.sum, ShapeError), (lambda z: z > 0, DtypeError), (lambda z: None, DtypeError)):
        with pytest.raises(error, match=r"^activation: the function .* must return"):
            feedforward((LAYER._replace(activation=wrong),), jnp.ones(3))
