"""The book's cost has a factor ½ and a mean over examples only. The accuracy is the fraction of right answers."""

import decimal
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import assert_leaves_close, by_autodiff, example

from jaxgd.backpropagation import backprop
from jaxgd.cost import accuracy, cost_from, cross_entropy, network_cost, quadratic_cost
from jaxgd.errors import DtypeError, JaxgdError, RangeError, ShapeError
from jaxgd.network import Layer, feedforward


def test_cost_equals_a_calculation_by_hand():
    """The squared distances 1.25, 0 and 4.25 have the sum 5.5, and 2n = 6. Only the division rounds."""
    a = jnp.array([[0.5, 1.0], [0.0, 0.0], [2.0, 0.5]])
    y = jnp.array([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    assert float(quadratic_cost(a, y)) == pytest.approx(5.5 / 6, rel=1e-7)


def test_the_mean_over_all_elements_is_another_cost(seed):
    """For 10 outputs, the cost is 5 times jnp.mean of the squared differences."""
    a, y = map(jnp.asarray, np.random.default_rng(seed).uniform(size=(2, 6, 10)).astype(np.float32))
    assert float(quadratic_cost(a, y)) == pytest.approx(5 * float(jnp.mean((a - y) ** 2)), rel=1e-6)


def test_one_example_needs_no_batch_axis():
    assert float(quadratic_cost(jnp.array([3.0, 0.0]), jnp.array([0.0, 4.0]))) == 12.5
    assert float(quadratic_cost(jnp.array([3.0]), jnp.array([0.0]))) == 4.5


def test_leading_axes_are_examples(seed, x64):
    a, y = np.random.default_rng(seed).uniform(size=(2, 12, 2))

    def cost(a, y):
        return float(quadratic_cost(jnp.asarray(a), jnp.asarray(y)))

    one_at_a_time = [cost(*pair) for pair in zip(a, y, strict=True)]
    assert cost(a, y) == pytest.approx(np.mean(one_at_a_time), rel=1e-14)
    assert cost(a.reshape(2, 3, 2, 2), y.reshape(2, 3, 2, 2)) == pytest.approx(cost(a, y), rel=1e-14)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16], ids=lambda d: d.__name__)
def test_the_cost_is_a_scalar_of_the_dtype_of_the_outputs(dtype, x64):
    cost = quadratic_cost(jnp.ones((4, 2), dtype), jnp.zeros((4, 2), dtype))
    assert (cost.dtype, cost.shape, float(cost)) == (dtype, (), 1.0)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("a", "y"),
    [((5, 1), (5,)), ((5,), (5, 1)), ((5, 1), (1, 1)), ((5, 2), (5, 1)), ((5, 2), (2,)), ((), (1,))],
    ids=str,
)
def test_nothing_is_broadcast(a, y):
    with pytest.raises(ShapeError, match=r"^quadratic_cost: a and y must have the same shape.*\nNothing is broadcast"):
        quadratic_cost(jnp.ones(a), jnp.ones(y))


@pytest.mark.bad_input
def test_no_examples_are_refused():
    with pytest.raises(ShapeError, match="at least one example"):
        quadratic_cost(jnp.ones((0, 3)), jnp.ones((0, 3)))


@pytest.mark.bad_input
@pytest.mark.parametrize("shape", [(3, 0), (0,)])
def test_an_example_has_at_least_one_output(shape):
    with pytest.raises(ShapeError, match=r"at least one output per example, got float32\["):
        quadratic_cost(jnp.ones(shape), jnp.ones(shape))


@pytest.mark.bad_input
def test_a_scalar_output_is_refused():
    with pytest.raises(ShapeError, match="quadratic_cost"):
        quadratic_cost(jnp.array(1.0), jnp.array(0.0))


@pytest.mark.bad_input
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.complex64], ids=str)
def test_integer_and_complex_outputs_are_refused(dtype):
    """In uint8, (200 − 0)² overflows to 64, so the cost would be wrong. Complex outputs would have a complex cost."""
    with pytest.raises(DtypeError, match="quadratic_cost"):
        quadratic_cost(jnp.array([[200]]).astype(dtype), jnp.array([[0]]).astype(dtype))


def test_network_cost_is_the_cost_of_the_outputs(seed, x64):
    network, x, y = example((3, 4, 2), seed)
    assert float(network_cost(network, x, y)) == float(quadratic_cost(feedforward(network, x), y))
    np.testing.assert_allclose(
        float(network_cost(network, x[0], y[0])), 0.5 * np.sum((feedforward(network, x[0]) - y[0]) ** 2), rtol=1e-14
    )


def test_network_cost_takes_any_cost(seed, x64):
    network, x, y = example((3, 4, 2), seed)

    def doubled(a, y):
        return 2 * quadratic_cost(a, y)

    assert_leaves_close(
        jax.jit(jax.grad(functools.partial(network_cost, cost=doubled)))(network, x, y),
        jax.tree.map(lambda g: 2 * np.asarray(g), by_autodiff(network, x, y)),
        rtol=1e-14,
    )


@pytest.mark.bad_input
def test_network_cost_refuses_wrong_shapes_and_dtypes(seed):
    network, x, y = example((3, 4, 2), seed)
    with pytest.raises(ShapeError, match="x must be"):
        network_cost(network, x[:, :2], y)
    with pytest.raises(ShapeError, match="same shape"):
        network_cost(network, x, y[:, 0])
    with pytest.raises(ShapeError, match="same shape"):
        network_cost(network, x, y[:1])
    with pytest.raises(DtypeError, match="x must be real floating point"):
        network_cost(network, x.astype(int), y)


def exact_entropies(z, y):
    """Return Σ [ln(1 + exp(z)) − y z], −Σ y ln softmax(z) and their derivatives for one example.

    The values are computed to sixty digits and rounded to float64.
    """
    with decimal.localcontext(prec=60):
        z, y = ([decimal.Decimal(float(x)) for x in v] for v in (z, y))
        e = [x.exp() for x in z]
        total, weight = sum(e), sum(y)
        sigmoid = sum((1 + x).ln() - t * s for x, t, s in zip(e, y, z, strict=True))
        softmax = -sum(t * (x / total).ln() for x, t in zip(e, y, strict=True))
        slopes = [[x / (1 + x) - t, x / total * weight - t] for x, t in zip(e, y, strict=True)]
        return (float(sigmoid), float(softmax)), np.array(slopes, float).T


# Weighted inputs and targets: inputs of 0, moderate inputs, saturated right and wrong outputs, and fractional targets.
EXTREME = [
    ([0.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
    ([0.3, -1.2, 2.0], [0.0, 0.0, 1.0]),
    ([20.0, -20.0, -30.0], [1.0, 0.0, 0.0]),
    ([-40.0, 25.0, 3.0], [1.0, 0.0, 0.0]),
    ([120.0, -120.0, 80.0], [0.0, 1.0, 0.0]),
    ([5.0, -3.0, 1.0], [0.25, 0.5, 0.25]),
]


def from_z(z, y, activation):
    """Return C and ∂C/∂z."""
    return jax.value_and_grad(lambda z: cost_from(cross_entropy, activation, z, y))(z)


# The cost sums three terms with a few roundings each. The tolerance is 16 units in the last place, 2e-6 in float32.
@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float32, 2e-6), (jnp.float64, 4e-15)], ids=["float32", "float64"])
def test_the_cross_entropy_has_full_precision(dtype, rtol, x64):
    """For outputs that round to 0 or 1, C and ∂C/∂z are neither NaN nor rounded to 0."""
    for k, activation in enumerate(("sigmoid", "softmax")):
        run = jax.jit(jax.vmap(functools.partial(from_z, activation=activation)))
        z, y = (jnp.asarray(v, dtype) for v in zip(*EXTREME, strict=True))
        c, slope = run(z, y)
        assert (c.dtype, slope.dtype) == (dtype, dtype)
        for i, row in enumerate(EXTREME):
            costs, slopes = exact_entropies(*row)
            np.testing.assert_allclose(c[i], costs[k], rtol=rtol, err_msg=f"{activation} {row}")
            np.testing.assert_allclose(slope[i], slopes[k], rtol=rtol, err_msg=f"{activation} {row}")


def test_the_textbook_cross_entropy_fails_the_comparison(x64):
    z, y = (jnp.asarray(v, jnp.float32) for v in EXTREME[2])
    slope = jax.nn.sigmoid(z) - y
    assert float(slope[0]) == 0 != exact_entropies(*EXTREME[2])[1][0][0]
    assert np.isinf(cross_entropy(jax.nn.sigmoid(jnp.array([120.0], jnp.float32)), jnp.zeros(1, jnp.float32)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=lambda d: d.__name__)
def test_a_saturated_neuron_has_the_cost_120_and_the_gradient_1(dtype, x64):
    """One neuron with w = b = 60 and x = 1, y = 0, so z = 120."""
    network = (Layer(jnp.full((1, 1), 60, dtype), jnp.full(1, 60, dtype)),)
    x, y = jnp.ones(1, dtype), jnp.zeros(1, dtype)
    c, gradient = jax.value_and_grad(functools.partial(network_cost, cost=cross_entropy))(network, x, y)
    assert float(c) == 120
    assert [float(v.item()) for v in jax.tree.leaves(gradient)] == [1, 1]
    assert [float(v.item()) for v in jax.tree.leaves(backprop(network, x, y, cost=cross_entropy))] == [1, 1]


def test_the_cross_entropy_of_outputs_equals_its_formula(x64):
    a, y = np.random.default_rng(0).uniform(0.01, 0.99, (2, 4, 3))
    want = -np.sum(y * np.log(a) + (1 - y) * np.log(1 - a)) / 4
    assert float(cross_entropy(jnp.asarray(a), jnp.asarray(y))) == pytest.approx(want, rel=1e-14)
    z = np.log(a / (1 - a))
    assert float(cost_from(cross_entropy, "sigmoid", jnp.asarray(z), jnp.asarray(y))) == pytest.approx(want, rel=1e-14)
    assert float(cross_entropy(jnp.array([1.0, 0.0]), jnp.array([1.0, 0.0]))) == 0
    assert float(cross_entropy(jnp.array([0.0, 0.0]), jnp.array([1.0, 0.0]))) == np.inf


@pytest.mark.bad_input
def test_the_cross_entropy_refuses_the_same_arguments_as_the_quadratic_cost(seed):
    with pytest.raises(ShapeError, match=r"^cross_entropy: a and y must have the same shape"):
        cross_entropy(jnp.ones((5, 1)), jnp.ones(5))
    with pytest.raises(DtypeError, match=r"^cross_entropy: y must be real floating point"):
        cross_entropy(jnp.ones((5, 1)), jnp.ones((5, 1), int))
    network, x, y = example((3, 4, 2), seed)
    with pytest.raises(ShapeError, match=r"same shape"):
        network_cost(network, x, y[:, :1], cost=cross_entropy)
    with pytest.raises(RangeError, match=r"needs an output layer.* got the function sin\b"):
        network_cost(network, x, y, cost=cross_entropy, activation=jnp.sin)


compiled_accuracy = jax.jit(accuracy)
OUTPUTS = jnp.array([[0.9, 0.2, 0.1], [0.1, 0.2, 0.3], [0.0, 0.9, 0.3], [0.2, 0.1, 0.0]])
LABELS = jnp.array([0, 2, 0, 1])


def test_accuracy_with_labels_and_with_targets():
    assert float(compiled_accuracy(OUTPUTS, LABELS)) == 0.5
    assert float(compiled_accuracy(OUTPUTS, jax.nn.one_hot(LABELS, 3))) == 0.5
    assert float(compiled_accuracy(OUTPUTS, jax.nn.one_hot(LABELS, 3, dtype=int))) == 0.5
    for dtype in (jnp.uint8, jnp.int8, jnp.uint32):
        assert float(compiled_accuracy(OUTPUTS, LABELS.astype(dtype))) == 0.5


def test_accuracy_of_one_example_and_of_many_axes():
    assert float(compiled_accuracy(OUTPUTS[0], LABELS[0])) == 1
    assert float(compiled_accuracy(OUTPUTS.reshape(2, 2, 3), LABELS.reshape(2, 2))) == 0.5
    assert float(accuracy(OUTPUTS, LABELS)) == 0.5
    np.testing.assert_array_equal(jax.vmap(compiled_accuracy)(OUTPUTS, LABELS), [1, 1, 0, 0])


@pytest.mark.parametrize("n", [41, 83])
def test_accuracy_is_exactly_1_if_all_are_right(n):
    """XLA divides by multiplying with the reciprocal, and n · (1/n) is below 1 for these n in float32."""
    assert float(jnp.mean(jnp.ones(n, bool), dtype=jnp.float32)) < 1
    assert float(compiled_accuracy(jnp.ones((n, 2)), jnp.zeros(n, int))) == 1


def test_a_square_batch_of_targets_is_not_read_as_labels():
    """The batch has as many examples as outputs."""
    assert float(compiled_accuracy(jnp.eye(3), jnp.array([0, 1, 2]))) == 1
    assert float(compiled_accuracy(jnp.eye(3), jnp.eye(3))) == 1
    assert float(compiled_accuracy(jnp.eye(3), jnp.flip(jnp.eye(3), 0))) == pytest.approx(1 / 3)


def test_a_nan_output_is_always_wrong():
    """argmax treats NaN as the largest, so by argmax alone a network of NaNs would be right for every label 0."""
    ruined = jnp.full((4, 3), jnp.nan)
    assert float(jnp.mean(jnp.argmax(ruined, -1) == 0)) == 1
    assert float(compiled_accuracy(ruined, jnp.zeros(4, int))) == 0
    for column in range(3):
        for label in range(3):
            assert float(compiled_accuracy(OUTPUTS.at[0, column].set(jnp.nan)[:1], jnp.array([label]))) == 0


def test_infinities_are_compared_like_numbers():
    assert float(compiled_accuracy(jnp.array([[0.0, jnp.inf], [-jnp.inf, 0.0]]), jnp.array([1, 1]))) == 1


def test_the_first_of_equal_outputs_counts():
    assert float(compiled_accuracy(jnp.full((3, 3), 0.5), jnp.array([0, 1, 2]))) == pytest.approx(1 / 3)


def test_a_label_beyond_the_outputs_is_wrong():
    assert float(compiled_accuracy(OUTPUTS, jnp.array([3, -1, 10, 255]))) == 0


@pytest.mark.parametrize(
    ("dtype", "wide"), [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float32), (jnp.float64, jnp.float64)]
)
def test_accuracy_counts_in_float32_or_wider(dtype, wide, x64):
    """In bfloat16 the accuracy 0.999 would round to 1."""
    right = compiled_accuracy(jnp.tile(jnp.array([[1, 0]], dtype), (1000, 1)), jnp.zeros(1000, int).at[0].set(1))
    assert right.dtype == wide
    assert float(right) == pytest.approx(0.999, rel=1e-6)


@pytest.mark.bad_input
@pytest.mark.parametrize("shape", [(3,), (4, 1), (4, 2), (1, 3), ()], ids=str)
def test_labels_of_another_shape_are_refused(shape):
    with pytest.raises(ShapeError, match=r"^accuracy: y must be labels \(4,\) or targets \(4, 3\), got"):
        accuracy(OUTPUTS, jnp.zeros(shape, int))


@pytest.mark.bad_input
@pytest.mark.parametrize("dtype", [float, bool])
def test_labels_that_are_not_integers_are_refused(dtype):
    with pytest.raises(DtypeError, match=r"^accuracy: labels must be whole numbers, got"):
        accuracy(OUTPUTS, LABELS.astype(dtype))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "y",
    [None, "x", np.array([None] * 4), np.ma.zeros(4, int), jax.ShapeDtypeStruct((4,), int), [[0], [1, 2]]],
    ids=repr,
)
def test_labels_of_other_types_are_refused(y):
    with pytest.raises(DtypeError, match=r"^accuracy: y must be an array of numbers, got"):
        accuracy(jnp.zeros((4, 3)), y)
    with pytest.raises(DtypeError, match=r"^quadratic_cost: y must be real floating point, got"):
        quadratic_cost(jnp.zeros((4, 3)), y)


@pytest.mark.bad_input
def test_accuracy_of_no_examples_is_refused():
    with pytest.raises(ShapeError, match=r"^accuracy: .*at least one example"):
        accuracy(jnp.zeros((0, 3)), jnp.zeros(0, int))


@pytest.mark.bad_input
def test_accuracy_of_a_scalar_is_refused():
    with pytest.raises(JaxgdError, match=r"^accuracy"):
        accuracy(jnp.array(1.0), jnp.array(1.0))


def test_a_right_softmax_output_costs_nothing_where_the_difference_of_two_z_overflows():
    """The second output has y = 0 and ln a = −∞, so the product y ln a would be NaN."""
    network = (Layer(jnp.array([[4e4], [-4e4]], jnp.float16), jnp.zeros(2, jnp.float16), "softmax"),)
    x, y = jnp.ones((1, 1), jnp.float16), jnp.array([[1.0, 0.0]], jnp.float16)
    assert network_cost(network, x, y, cost=cross_entropy) == 0
