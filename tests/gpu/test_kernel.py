"""The kernel equals float64 within its stated error, from the smallest shape to the largest. It also equals XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_examples import by_book, drawn, epochs, layers
from support import assert_leaves_close

from jaxgd import Layer, quadratic_cost
from jaxgd.examples import Examples
from jaxgd.kernels import BackendChoice, backend, xla
from jaxgd.kernels.cuda.shape import Shape
from jaxgd.rules import gradient_descent

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

MNIST = Shape(784, 30, 10, 10, parts=2)
# The last group of 8 inputs is not full, and some warps have no inputs.
SMALL = Shape(27, 5, 3, 4, parts=2)
# A shape with each size at the limit of the kernel.
LARGEST = Shape(1024, 32, 16, 16, parts=2)
# A shape with all sizes 1, and a shape with nearly empty second tiles.
ODD = (Shape(1, 1, 1, 1, parts=2), Shape(129, 17, 2, 9, parts=2))
ETA = 3.0


def error(actual, exact, start):
    """Return ‖actual − exact‖ / ‖exact − start‖ of all weights and biases: the error relative to the distance moved."""
    actual, exact, start = (
        np.concatenate([np.ravel(v) for v in jax.tree.leaves(tree)]) for tree in (actual, exact, start)
    )
    return np.linalg.norm(actual - exact) / np.linalg.norm(exact - start)


@pytest.mark.parametrize("steps", [1, 20])
@pytest.mark.parametrize("shape", [MNIST, MNIST._replace(parts=1), LARGEST], ids=["mnist", "mnist tf32", "largest"])
def test_steps_equal_float64_within_the_stated_error(launch, require, on_gpu, shape, steps):
    """Bound the error relative to the distance moved. With parts=2, also compare it with NumPy's error in float32."""
    etas = np.float32([ETA, ETA, ETA / 2, ETA / 2])
    networks, x, y, orders = drawn(shape, steps * shape.batch_size, True, len(etas), seed=steps)
    actual, finite = launch(shape, networks, x, y, orders, etas)
    assert finite.tolist() == [1] * len(etas)
    off, own = [], []
    for i, eta in enumerate(etas):
        start = layers(networks, i)
        exact, single = (
            by_book(start, x, y, orders[i], eta, shape.batch_size, dtype) for dtype in (np.float64, np.float32)
        )
        off.append(error(layers(actual, i), exact, start))
        own.append(error(single, exact, start))
    if shape.parts == 1:
        # A factor of 11 bits is wrong by up to 2⁻¹⁰ if the tensor core drops the other bits. Two products in a row
        # have three such factors: 3 × 2⁻¹⁰ = 3e-3. An error below 1e-5 would mean that no bits were dropped.
        require("largest error", max(off), most=3e-3)
        require("least error", min(off), most=3e-3, least=1e-5)
    else:
        # Factors of 22 bits are nearly as exact as the 24 bits of float32. A GPU may have a larger error than the
        # emulation, because it may truncate sums, and its exp and reciprocal have only 22 bits.
        require("mean error", np.mean(off), most=1e-4)
        require("mean error / NumPy's error in float32", np.mean(off) / np.mean(own), most=2.0 if on_gpu else 1.5)


@pytest.mark.parametrize(
    ("shape", "examples"),
    [(SMALL, 30), (LARGEST, 5), (ODD[0], 5), (ODD[1], 5)],
    ids=["small", "largest", "all sizes 1", "odd"],
)
def test_any_epoch_equals_the_books_loop(launch, shape, examples):
    @settings(max_examples=examples)
    @epochs(shape)
    def require_book(n, batch_size, labels, eta, networks, seed):
        start, x, y, orders = drawn(shape, n, labels, networks, seed)
        etas = eta * np.linspace(1, 0.5, networks)
        actual, finite = launch(shape, start, x, y, orders, etas, min(batch_size, n))
        assert finite.tolist() == [1] * networks
        for i in range(networks):
            want = by_book(layers(start, i), x, y, orders[i], np.float32(etas[i]), min(batch_size, n))
            want = tuple(Layer(np.float32(w), np.float32(b)) for w, b in want)
            # In each of up to 50 steps, a sum has a relative error of up to 2.4e-7. The errors partly cancel.
            assert_leaves_close(layers(actual, i), want, rtol=1e-5)

    require_book()


@pytest.mark.parametrize("fault", ["label too large", "negative label", "index too large", "NaN weight"])
def test_invalid_values_give_a_result_that_is_not_finite(launch, fault):
    networks, x, y, orders = drawn(SMALL, 9, True, 2, seed=0)
    orders = np.stack([np.arange(9)] * 2)
    if fault == "NaN weight":
        networks[3][1, 0] = np.nan
    elif fault == "index too large":
        orders[1, 8] = 9
    else:
        y[8] = -1 if fault == "negative label" else SMALL.outputs
    _, finite = launch(SMALL, networks, x, y, orders, [1.0, 1.0])
    assert finite.tolist() == [0 if "label" in fault else 1, 0]


# Pairs of z and σ(z)² σ(−z), the exact gradient of one saturated output with y = 0.
SATURATED = [(14, 8.31527e-7), (16, 1.12535e-7), (17, 4.13994e-8), (20, 2.06115e-9)]


@pytest.mark.parametrize(("z", "slope"), SATURATED)
def test_a_saturated_neuron_has_the_gradient_of_exact_arithmetic(launch, require, z, slope):
    networks, x, y, orders = drawn(SMALL, 1, False, 1, seed=0)
    networks[2][:], networks[3][:], y[:] = 0, z, 0
    eta = 0.25 / slope  # b changes by 0.25, and float32 rounds b by up to 1e-6
    actual, _ = launch(SMALL, networks, x, y, orders, [eta])
    # A fast exp rounds z log₂e, which gives a relative error of 2e-6. The rounding of b gives up to 4e-6.
    require("relative error", np.max(np.abs((z - actual[3]) / eta / slope - 1)), most=1e-5)


# Pairs of the number of examples and the batch size. XLA compiles for each pair. The last mini-batch of the second
# pair is short.
SIZES = [(12, 4), (50, 3)]
OBJECTIVE = xla.Objective(quadratic_cost, "highest")


def epoch(name, batch_size, batched):
    """Return a compiled function that trains a network for one epoch by a backend.

    If batched, all arguments but the examples have a leading axis of networks.
    """

    def run(network, examples, order, eta):
        choice = BackendChoice(name, "")
        rule = gradient_descent(eta)
        return backend.epoch(
            choice, network, rule.init(network), examples, order, eta, gradient_descent, OBJECTIVE, batch_size
        )

    return jax.jit(jax.vmap(run, in_axes=(0, None, 0, 0)) if batched else run)


def test_the_kernel_equals_xla(cuda):
    """The shape of the network is fixed, because each shape compiles a kernel and several programs."""
    programs = {}

    def compiled(*key):
        return programs.setdefault(key, epoch(*key))

    @settings(max_examples=25)
    @given(
        sizes=st.sampled_from(SIZES),
        labels=st.booleans(),
        eta=st.sampled_from([0.01, 1.0, 3.0]),
        networks=st.sampled_from([1, 3]),
        seed=st.integers(0, 1000),
    )
    def require_equal(sizes, labels, eta, networks, seed):
        n, batch_size = sizes
        start, x, y, orders = drawn(SMALL, n, labels, networks, seed)
        examples = Examples(jnp.asarray(x), jnp.asarray(np.int32(y) if labels else y))
        orders, etas = np.int32(orders), np.float32(eta * np.linspace(1, 0.5, networks))
        batch = tuple(Layer(*pair) for pair in (start[:2], start[2:]))
        actual, _, finite = compiled("cuda", batch_size, True)(batch, examples, orders, etas)
        assert np.asarray(finite).tolist() == [True] * networks
        for i in range(networks):
            one = layers(start, i)
            want, _, _ = compiled("xla", batch_size, False)(one, examples, orders[i], etas[i])
            # The kernel is within 1e-5 of float64, as tested above. The difference from XLA is usually much smaller.
            assert_leaves_close(jax.tree.map(lambda v, i=i: v[i], actual), want, rtol=1e-5)

    require_equal()
