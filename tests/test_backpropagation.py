"""backprop equals the gradient by autodiff, by the book's equations and by central differences."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import assert_leaves_close, by_autodiff, example, leaves, scaled, spoil, swish, trained
from support import by_hand as in_numpy

from jaxgd.backpropagation import backprop
from jaxgd.cost import cross_entropy, network_cost, quadratic_cost
from jaxgd.errors import DtypeError, RangeError, ShapeError
from jaxgd.gradcheck import Verdict, check_gradients
from jaxgd.network import Layer, feedforward

by_hand = jax.jit(backprop)

# backprop and autodiff compute the same products, but they add in another order and divide by n at another step. Sums
# over the examples of a trained network cancel, which costs digits. RTOL is about 5,000 eps in float64, and 80 eps in
# float32. ATOL is for products below the smallest normal number, which XLA may round to 0 in only one of the gradients.
RTOL = {jnp.float64: 1e-12, jnp.float32: 1e-5}
ATOL = {dtype: 1e4 * float(jnp.finfo(dtype).tiny) for dtype in RTOL}


def assert_is_gradient(gradient, network, x, y):
    dtype = network[0].w.dtype.type
    assert_leaves_close(gradient, by_autodiff(network, x, y), RTOL[dtype], ATOL[dtype])


@pytest.mark.parametrize("dtype", RTOL, ids=lambda d: d.__name__)
@settings(max_examples=6)
@given(
    sizes=st.lists(st.sampled_from((1, 2, 3, 5)), min_size=2, max_size=5),
    batch=st.sampled_from(((), (1,), (6,), (2, 3))),
    key=st.integers(0, 2**31),
)
def test_backprop_equals_autodiff(sizes, batch, key, dtype, x64):
    """The networks have one to four layers, with random, saturated and trained weights."""
    network, x, y = example(sizes, key, batch, dtype)
    for v in (network, scaled(network, 20), trained(network, x, y, dtype(2), 300)):
        assert_is_gradient(by_hand(v, x, y), v, x, y)


# The rows cover every activation of a hidden layer and every allowed pair of cost and output activation.
NEURONS = [
    ("tanh", "sigmoid", quadratic_cost),
    ("relu", "sigmoid", cross_entropy),
    ("sigmoid", "softmax", quadratic_cost),
    (swish, "softmax", cross_entropy),
    ("tanh", "tanh", quadratic_cost),
    ("sigmoid", "relu", quadratic_cost),
    ("relu", swish, quadratic_cost),
]


def with_neurons(network, hidden, output):
    return (network[0]._replace(activation=hidden), network[1]._replace(activation=output))


@jax.jit
def of_all_neurons(networks, x, y):
    """Return ∇C and the product of the Hessian with ones, by backprop and by autodiff, for each row of NEURONS.

    One program for all rows compiles three times as fast as one program per row.
    """

    def with_product(gradient_of, network):
        ones = jax.tree.map(jnp.ones_like, network)
        return jax.jvp(gradient_of, (network,), (ones,))

    out = []
    for network, (_, _, cost) in zip(networks, NEURONS, strict=True):
        settings = {"x": x, "y": y, "cost": cost}
        by_backprop = with_product(functools.partial(backprop, **settings), network)
        out.append((by_backprop, with_product(jax.grad(functools.partial(network_cost, **settings)), network)))
    return out


def test_backprop_is_right_for_every_activation_and_cost(x64):
    """Gradients equal NumPy's and autodiff's. Products with the Hessian equal autodiff's."""
    network, x, y = example((3, 4, 3), 5, (6,))
    networks = [with_neurons(network, *row[:2]) for row in NEURONS]
    for v, (hidden, output, cost), results in zip(networks, NEURONS, of_all_neurons(networks, x, y), strict=True):
        (gradient, product), by_grad = results
        want = in_numpy(v, x, y, entropy=cost is cross_entropy)[2]
        assert jax.tree.structure(gradient) == jax.tree.structure(v), (hidden, output)
        # 1e-12 is about 5,000 eps, as in RTOL.
        assert_leaves_close(gradient, want, rtol=1e-12)
        assert_leaves_close((gradient, product), by_grad, rtol=1e-12)
        with pytest.raises(AssertionError, match=r"\[0\]\.w"):
            assert_leaves_close(spoil(gradient, "[0].w", 1.0001), want, rtol=1e-12)


def test_the_argument_activation_replaces_the_networks_own_activations(x64):
    network, x, y = example((3, 4, 3), 5, (6,))
    want = in_numpy(with_neurons(network, "tanh", "softmax"), x, y, entropy=True)
    settings = {"cost": cross_entropy, "activation": ("tanh", "softmax")}
    assert_leaves_close(backprop(network, x, y, **settings), want[2], rtol=1e-12)
    assert float(network_cost(network, x, y, **settings)) == pytest.approx(float(want[0]), rel=1e-12)
    np.testing.assert_allclose(feedforward(network, x, activation=("tanh", "softmax")), want[1], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("hidden", "output", "cost"), NEURONS)
def test_check_gradients_confirms_backprop(hidden, output, cost, x64):
    network, x, y = example((3, 4, 3), 5, (6,))
    network = with_neurons(network, hidden, output)
    settings = {"x": x, "y": y, "cost": cost}

    def f(network):
        return network_cost(network, **settings)

    def gradient(network):
        return backprop(network, **settings)

    def wrong(network):
        first, last = gradient(network)
        return first, last._replace(b=1.01 * last.b)

    assert check_gradients(f, network, order=2).verdict is Verdict.RIGHT
    assert check_gradients(f, network, gradient=gradient).verdict is Verdict.RIGHT
    assert check_gradients(f, network, gradient=wrong).verdict is Verdict.WRONG


@pytest.mark.bad_input
def test_backprop_refuses_an_unknown_cost_and_the_cross_entropy_of_tanh():
    network, x, y = example((3, 4, 3), 5, (6,))
    with pytest.raises(RangeError, match=r"^backprop: cost must be .*\nFor another cost, use jax\.grad"):
        backprop(network, x, y, cost=lambda a, y: jnp.sum(a))
    with pytest.raises(RangeError, match=r"^backprop: the cross-entropy needs an output layer.* got 'tanh'"):
        backprop(network, x, y, cost=cross_entropy, activation="tanh")


XOR = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0], [1], [1], [0]])


def at_work(state, dtype=jnp.float64):
    """Return a random, trained or saturated network, with XOR as its data."""
    x, y = (jnp.asarray(v, dtype) for v in XOR)
    network, _, _ = example((2, 3, 1), 3, dtype=dtype)
    if state == "random":
        return network, x, y
    if state == "saturated":
        return scaled(network, 20), x, y
    after = trained(network, x, y, dtype(5), 500)
    assert np.linalg.norm(after[0].w) > 2 * np.linalg.norm(network[0].w)
    assert network_cost(after, x, y) < 0.01
    return after, x, y


STATES = ("random", "trained", "saturated")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("leaf", ["[0].w", "[0].b", "[1].w", "[1].b"])
@pytest.mark.parametrize("dtype", RTOL, ids=lambda d: d.__name__)
def test_a_leaf_wrong_by_one_percent_fails_the_comparison(leaf, state, dtype, x64):
    """The comparison is leaf by leaf. A comparison along random directions would miss a fault in one leaf."""
    network, x, y = at_work(state, dtype)
    gradient = by_hand(network, x, y)
    assert_is_gradient(gradient, network, x, y)
    for factor in (1.01, 0.99, 0.0, -1.0, np.nan):
        with pytest.raises(AssertionError) as failure:
            assert_is_gradient(spoil(gradient, leaf, factor), network, x, y)
        assert f"leaf {leaf} is off by" in str(failure.value)


def test_swapped_rows_or_one_wrong_element_fail_the_comparison(x64):
    network, x, y = at_work("trained")
    first, second = by_hand(network, x, y)
    with pytest.raises(AssertionError, match=r"\[0\]\.w"):
        assert_is_gradient((first._replace(w=first.w[::-1]), second), network, x, y)
    with pytest.raises(AssertionError, match=r"\[0\]\.b"):
        assert_is_gradient((first._replace(b=first.b.at[1].multiply(1.001)), second), network, x, y)


def the_books(network, x, y):
    """Return the gradient by the equations of chapter 2 in NumPy, as the mean over single examples.

    (BP1) δᴸ = (a − y) ⊙ σ′(zᴸ); (BP2) δˡ = (wˡ⁺¹)ᵀδˡ⁺¹ ⊙ σ′(zˡ); (BP3) ∂C/∂b = δ; (BP4) ∂C/∂w_jk = a_k δ_j.
    """

    def slope(z):
        e = np.exp(-np.abs(z))
        return e / (1 + e) ** 2

    ws, bs = ([np.asarray(p[i]) for p in network] for i in range(2))
    sums = [[np.zeros_like(w), np.zeros_like(b)] for w, b in zip(ws, bs, strict=True)]
    for a, target in zip(np.asarray(x), np.asarray(y), strict=True):
        activations, zs = [a], []
        for w, b in zip(ws, bs, strict=True):
            zs.append(
                np.array([sum(w[j, k] * activations[-1][k] for k in range(w.shape[1])) for j in range(len(b))]) + b
            )
            activations.append(1 / (1 + np.exp(-zs[-1])))
        delta = (activations[-1] - target) * slope(zs[-1])
        for layer in reversed(range(len(ws))):
            sums[layer][0] += np.outer(delta, activations[layer])
            sums[layer][1] += delta
            if layer:
                delta = ws[layer].T @ delta * slope(zs[layer - 1])
    return tuple(Layer(w / len(x), b / len(x)) for w, b in sums)


@pytest.mark.parametrize("state", STATES)
def test_backprop_equals_the_books_equations(state, x64):
    network, x, y = at_work(state)
    assert_leaves_close(by_hand(network, x, y), the_books(network, x, y), rtol=1e-12)


def test_backprop_equals_the_books_equations_for_a_deeper_network(seed, x64):
    network, x, y = example((5, 4, 3, 2), seed)
    assert_leaves_close(by_hand(network, x, y), the_books(network, x, y), rtol=1e-12)


def test_backprop_is_the_mean_over_the_examples(seed, x64):
    network, x, y = example((5, 4, 3, 2), seed, (6,))
    one_at_a_time = [by_hand(network, *pair) for pair in zip(np.asarray(x), np.asarray(y), strict=True)]
    mean = jax.tree.map(lambda *gradients: np.mean(gradients, 0), *one_at_a_time)
    assert_leaves_close(by_hand(network, x, y), mean, rtol=1e-12)
    assert_leaves_close(by_hand(network, x.reshape(3, 2, 5), y.reshape(3, 2, 2)), mean, rtol=1e-12)
    with pytest.raises(AssertionError):
        assert_leaves_close(by_hand(network, x, y), jax.tree.map(lambda g: 6 * g, mean), rtol=1e-12)


# (C(v + h) − C(v − h))/2h is off by h²C‴/6 and by the rounding of C over h. At h = 1e-5 both errors are near 1e-11. The
# norms of the gradient's leaves are above 1e-4, so rtol = 1e-6 allows ten times these errors. This test leaves
# out the saturated network, whose gradient is far below the rounding.
@pytest.mark.parametrize("state", ["random", "trained"])
def test_backprop_equals_central_differences(state, x64):
    network, x, y = at_work(state)
    flat, unflatten = jax.flatten_util.ravel_pytree(network)

    @jax.jit
    @jax.vmap
    def quotient(direction):
        ahead, behind = (network_cost(unflatten(flat + h * direction), x, y) for h in (1e-5, -1e-5))
        return (ahead - behind) / 2e-5

    differences = unflatten(quotient(jnp.eye(len(flat))))
    gradient = by_hand(network, x, y)
    assert min(np.linalg.norm(g) for g in leaves(gradient).values()) > 1e-4
    assert_leaves_close(gradient, differences, rtol=1e-6)
    with pytest.raises(AssertionError, match=r"\[1\]\.w"):
        assert_leaves_close(spoil(gradient, "[1].w", 1 + 1e-5), differences, rtol=1e-6)


def test_bfloat16_is_within_5_percent(seed):
    """About ten roundings of 2⁻⁸ in a row give 5%. An error of 20% fails the comparison."""
    network, x, y = example((5, 4, 3), seed, (8,), jnp.bfloat16)
    got = by_hand(network, x, y)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(jnp.bfloat16)}
    got, *exactly = jax.tree.map(lambda v: np.asarray(v, np.float32), (got, network, x, y))
    want = jax.tree.map(np.asarray, by_autodiff(*exactly))
    assert_leaves_close(got, want, rtol=0.05)
    for leaf in leaves(got):
        with pytest.raises(AssertionError):
            assert_leaves_close(spoil(got, leaf, 1.2), want, rtol=0.05)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32], ids=lambda d: d.__name__)
def test_the_networks_dtypes_are_kept(dtype, seed, x64):
    """The gradient has the dtype of the network, even if the examples have another one."""
    network, x, y = example((3, 2), seed, dtype=dtype)
    for data in ((x, y), (x.astype(jnp.float64), y.astype(jnp.float32))):
        gradient = jax.eval_shape(backprop, network, *data)
        assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(dtype)}


def test_backprop_works_without_jit(seed):
    network, x, y = example((2, 1), seed)
    assert_leaves_close(backprop(network, x, y), by_hand(network, x, y), rtol=1e-5)


def test_backprop_under_vmap_over_networks(seed, x64):
    networks, (x, *_), (y, *_) = zip(*(example((3, 4, 2), seed + i) for i in range(3)), strict=True)
    batch = jax.jit(jax.vmap(backprop, (0, None, None)))(jax.tree.map(lambda *v: np.stack(v), *networks), x, y)
    for i, network in enumerate(networks):
        assert_is_gradient(jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], batch), network, x, y)


def test_the_derivative_of_backprop_is_the_hessian_product(seed, x64):
    """∇ ½‖∇C‖² = H ∇C, with the derivative of backprop on the left and H by autodiff on the right."""
    network, x, y = example((2, 3, 1), seed)

    def half_square(gradient_of, network):
        return 0.5 * sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient_of(network, x, y)))

    @jax.jit
    def hessian_times_gradient(network):
        gradient = functools.partial(jax.grad(network_cost), x=x, y=y)
        return jax.jvp(gradient, (network,), (gradient(network),))[1]

    want = hessian_times_gradient(network)
    assert_leaves_close(jax.jit(jax.grad(functools.partial(half_square, backprop)))(network), want, rtol=1e-12)
    with pytest.raises(AssertionError):
        assert_leaves_close(spoil(want, "[1].b", 1.01), want, rtol=1e-12)


def test_the_precision_applies_to_every_product(seed):
    network, x, y = example((2, 3, 1), seed)
    for precision in (None, "highest"):
        jaxpr = str(jax.make_jaxpr(functools.partial(backprop, precision=precision))(network, x, y))
        products = jaxpr.count("dot_general[")
        assert products >= 5  # two products forward, two for ∂C/∂w, one for δ
        assert jaxpr.count("HIGHEST") == (2 * products if precision else 0)


X, Y = jnp.ones((5, 3)), jnp.ones((5, 2))
NETWORK = (Layer(jnp.ones((4, 3)), jnp.ones(4)), Layer(jnp.ones((2, 4)), jnp.ones(2)))


@pytest.mark.bad_input
@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3), (1, 2), (4, 2), (2,), (5, 2, 1), ()], ids=str)
def test_targets_of_another_shape_are_refused(shape):
    with pytest.raises(ShapeError, match=r"^backprop: y must be \(5, 2\) for x float32\[5,3\], got float32\["):
        backprop(NETWORK, X, jnp.ones(shape))


@pytest.mark.bad_input
def test_targets_without_the_output_axis_are_refused():
    """(n, 1) outputs against (n,) targets would broadcast to (n, n)."""
    network = (Layer(jnp.ones((1, 3)), jnp.ones(1)),)
    with pytest.raises(ShapeError, match=r"^backprop: y must be \(5, 1\)"):
        backprop(network, X, jnp.ones(5))


@pytest.mark.bad_input
@pytest.mark.parametrize("shape", [(5, 4), (3, 1), (), (28, 28)], ids=str)
def test_inputs_of_another_width_are_refused(shape):
    with pytest.raises(ShapeError, match=r"^backprop: x must be \(\.\.\., 3\)"):
        backprop(NETWORK, jnp.ones(shape), Y)


@pytest.mark.bad_input
@pytest.mark.parametrize("dtype", [jnp.uint8, int, bool, jnp.complex64], ids=str)
def test_inputs_and_targets_that_are_not_floats_are_refused(dtype):
    with pytest.raises(DtypeError, match=r"^backprop: x must be real floating point"):
        backprop(NETWORK, X.astype(dtype), Y)
    with pytest.raises(DtypeError, match=r"^backprop: y must be real floating point"):
        backprop(NETWORK, X, Y.astype(dtype))


@pytest.mark.bad_input
def test_no_examples_and_bad_networks_are_refused():
    for shape in ((0,), (0, 4), (4, 0)):
        with pytest.raises(ShapeError, match=r"^backprop: .*at least one example"):
            backprop(NETWORK, jnp.ones((*shape, 3)), jnp.ones((*shape, 2)))
    with pytest.raises(ShapeError, match="at least one layer"):
        backprop((), X, Y)
    with pytest.raises(ShapeError, match=r"layer \[1\]"):
        backprop((NETWORK[0], NETWORK[0]), X, Y)
