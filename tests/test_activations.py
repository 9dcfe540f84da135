"""The activation functions and their derivatives are exact, and every tree like a network carries its activations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import exact_sigmoid

from jaxgd.activations import sigmoid, sigmoid_prime

# Around the limits of σ and σ′: σ is 1 from 17.5 in float32 and from 37 in float64, and exp overflows at 89 and 710.
WEIGHTED_INPUTS = np.array(
    [0, 1e-6, 0.1, 1, 3, 10, 17, 18, 20, 37, 40, 80, 87, 88, 89, 100, 700, 708, 709, 750, 1e3, 1e4]
)
WEIGHTED_INPUTS = np.concatenate([-WEIGHTED_INPUTS[:0:-1], WEIGHTED_INPUTS])

# The exponential and a few operations round once or twice each, so 16 units in the last place leave a factor of about
# three. Below the smallest normal number XLA flushes to 0, so the tolerance is absolute.
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
    """a(1 − a) cancels in saturation."""
    z = jnp.asarray(WEIGHTED_INPUTS, dtype)
    want = np.array([exact_sigmoid(x) for x in np.asarray(z, np.float64)])
    with pytest.raises(AssertionError, match="should be"):
        assert_digits(sigmoid(z) * (1 - sigmoid(z)), want[:, 1], dtype)


def nested(f, order):
    for _ in range(order):
        f = jax.grad(f)
    return f


# The tolerance is relative also in the tails: each term is a product of σ(z), σ(−z) and differences that do not cancel,
# except at ±1, where 1 − 6σσ(−z) loses one digit. 1e-14 is 45 units in the last place.
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("z", [0.0, 1.0, -1.0, 20.0, -20.0, 40.0, -40.0])
def test_derivatives_up_to_third_order_are_exact(z, order, x64):
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
    assert float(a * (1 - a)) == 0, "the textbook slope should underflow"
    # As above: float32's 16 units in the last place are 2e-6.
    assert float(jax.grad(sigmoid)(jnp.array(20.0))) == pytest.approx(exact_sigmoid(20.0)[1], rel=2e-6)


def test_sigmoid_works_under_every_transformation(x64):
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


def test_sigmoid_of_infinity_and_nan():
    z = jnp.array([jnp.inf, -jnp.inf])
    np.testing.assert_array_equal(sigmoid(z), [1, 0])
    np.testing.assert_array_equal(jax.vmap(jax.grad(sigmoid))(z), [0, 0])
    assert np.isnan(sigmoid(jnp.array(jnp.nan)))
    assert np.isnan(sigmoid_prime(jnp.array(jnp.nan)))
