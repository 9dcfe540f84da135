"""Training on a GPU: each backend equals the book's loop in NumPy, and the choice and the outcome have reasons."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import assert_leaves_close, by_hand, trained_by_hand

from jaxgd import Layer, init_network, load_dataset, quadratic_cost, train
from jaxgd.examples import fit_splits
from jaxgd.kernels import Job, random_order, select_backend
from jaxgd.kernels.cuda import backend
from jaxgd.outcome import Reason

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.usefixtures("cuda")]

SIZES, EPOCHS = (64, 20, 10), 5
ETA, KEY = 3.0, 1


@functools.cache
def digits():
    """Return 1,197 images of digits and their labels: 119 mini-batches of ten, and one of seven."""
    return tuple(np.asarray(part) for part in load_dataset("digits").train)


def start(key=0):
    return init_network(jax.random.key(key), SIZES, dtype=jnp.float32)


def run(kernel, network=None, *, epochs=EPOCHS, eta=ETA, key=KEY, **options):
    """Train in mini-batches of ten by default. Runs with the same kernel and options share compiled programs."""
    given = {"batch_size": 10, "precision": "highest", **options}
    key = jax.random.key(key) if isinstance(key, int) else key
    network = start() if network is None else network
    return train(network, digits(), epochs=epochs, eta=eta, key=key, kernel=kernel, **given)


@functools.cache
def book():
    """Return the network after all epochs in NumPy's float64 and float32, and its cost and accuracy in float64."""
    x, y = rows()
    orders = [np.asarray(random_order(jax.random.fold_in(jax.random.key(KEY), k), len(x))) for k in range(EPOCHS)]
    networks = []
    for dtype in (np.float64, np.float32):
        network = start()
        for order in orders:
            network = trained_by_hand(network, x, y, order, ETA, 10, dtype)
        networks.append(network)
    c, outputs, _ = by_hand(networks[0], x, y)
    return *networks, c, np.mean(np.argmax(outputs, axis=-1) == digits()[1])


def rows():
    """Return the examples in float64: pixels from 0 to 1, and unit vectors as targets."""
    images, labels = digits()
    return images.reshape(len(images), -1) / 255, np.eye(10)[labels]


def flat(network):
    return np.concatenate([np.ravel(np.asarray(v, np.float64)) for v in jax.tree.leaves(network)])


@pytest.mark.parametrize("kernel", ["xla", "cuda"])
def test_five_epochs_equal_the_books_loop(require, kernel):
    """Updates amplify rounding errors, so the error of 600 updates is compared with that of NumPy's float32."""
    exact, single, c, accuracy = book()
    result = run(kernel)
    assert (result.kernel.name, result.kernel.reason) == (kernel, "as asked")
    assert result.outcome.reason is Reason.COMPLETED
    assert result.history.updates.tolist() == [120 * k for k in range(EPOCHS + 1)]
    moved = np.linalg.norm(flat(exact) - flat(start()))
    own, off = (np.linalg.norm(flat(network) - flat(exact)) / moved for network in (single, result.network))
    # Both backends keep at least 22 bits, NumPy's float32 keeps 24. So their error may be four times NumPy's.
    require("error", off, most=1e-5)
    require("error / NumPy's in float32", off / own, most=4)
    # The cost is a sum of 1,197 terms in float32, with an error of √1197 × 2⁻²⁴ = 2e-6. The error of the weights
    # adds to it.
    require("error of the cost", abs(float(result.history.cost[-1]) / c - 1), most=1e-5)
    # One image of 1,197 may be on the border of two classes.
    require("error of the accuracy", abs(float(result.history.accuracy[-1]) - accuracy), most=1e-3)
    assert accuracy > 0.8


def test_auto_chooses_the_cuda_kernel_or_xla_and_states_the_reason():
    network, (x, y) = start(), digits()
    examples = fit_splits("train", network, (x, y))[0]["train"]
    job = Job(network, examples, quadratic_cost, None, 10)
    choice = select_backend("auto", job)
    assert choice.name == "cuda"
    assert choice.reason.startswith("quicker for these shapes, on the GPU (")
    for change, reason in (
        ({"batch_size": None}, "the CUDA kernel needs mini-batches, got the full batch"),
        ({"batch_size": 17}, "the CUDA kernel takes at most 16 examples per mini-batch, got 17"),
        ({"cost": max}, "the CUDA kernel knows only the quadratic cost, and another cost was given"),
        ({"examples": examples._replace(x=np.float32(examples.x))}, "the CUDA kernel needs inputs of bytes, got"),
    ):
        choice = select_backend("auto", job._replace(**change))
        assert choice.name == "xla"
        assert choice.reason.startswith(reason)


def test_xla_trains_on_the_full_batch(require):
    result = run("auto", epochs=2, batch_size=None, evaluate=False)
    assert result.kernel.name == "xla"
    network, (x, y) = start(), rows()
    for _ in range(2):
        network = trained_by_hand(network, x, y, np.arange(len(x)), ETA, len(x))
    # Each of the two updates is a sum of 1,197 terms in float32, with an error of √1197 × 2⁻²⁴ = 2e-6. The error of the
    # outputs adds to it.
    off = np.linalg.norm(flat(result.network) - flat(network)) / np.linalg.norm(flat(network) - flat(start()))
    require("error", off, most=1e-5)


def test_a_continued_run_equals_one_run_bit_for_bit():
    whole, half = run("cuda"), run("cuda", epochs=2)
    rest = run("cuda", epochs=3, state=half.state)
    assert_leaves_close(rest.network, whole.network, rtol=0)
    np.testing.assert_array_equal(rest.history.cost[1:], whole.history.cost[3:])


@pytest.mark.parametrize("kernel", ["xla", "cuda"])
def test_the_same_key_gives_the_same_bits_and_another_key_does_not(kernel):
    first, second = run(kernel, epochs=2), run(kernel, epochs=2)
    for v, w in zip(*(jax.tree.leaves((result.network, result.history)) for result in (first, second)), strict=True):
        np.testing.assert_array_equal(v, w)
    other = run(kernel, epochs=2, key=2)
    assert np.linalg.norm(flat(other.network) - flat(first.network)) > 0.1


def test_etas_and_keys_under_vmap_give_the_bits_of_single_runs():
    etas, keys = np.float32([3.0, 0.5, 1.0]), jax.random.split(jax.random.key(7), 3)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0))
    def networks(eta, key):
        return run("cuda", epochs=2, eta=eta, key=key, evaluate=False).network

    together = networks(etas, keys)
    for i, eta in enumerate(etas):
        single = run("cuda", epochs=2, eta=float(eta), key=keys[i]).network
        assert_leaves_close(jax.tree.map(lambda v, i=i: v[i], together), single, rtol=0)


@pytest.mark.parametrize("kernel", ["xla", "cuda"])
def test_the_outcome_names_a_start_that_is_not_finite_and_an_eta_that_saturates(kernel):
    first, last = start()
    spoiled = first, Layer(last.w.at[0, 0].set(np.nan), last.b)
    assert run(kernel, spoiled, epochs=2).outcome.reason is Reason.START_NOT_FINITE
    assert run(kernel, epochs=2, eta=1e30).outcome.reason is Reason.SATURATED


def test_the_derivative_of_the_final_cost_by_eta_equals_a_quotient(require):
    """The derivative runs through all 120 updates. NumPy's difference quotient in float64 is independent of it."""

    def final(eta):
        return run("cuda", epochs=1, eta=eta).history.cost[-1]

    derivative = float(jax.jit(jax.grad(final))(jnp.float32(0.5)))
    x, y = rows()
    order = np.asarray(random_order(jax.random.fold_in(jax.random.key(KEY), 0), len(x)))

    def exact(eta):
        return by_hand(trained_by_hand(start(), x, y, order, eta, 10), x, y)[0]

    # The errors of the quotient, (h/η)² = 4e-6 and 1e-16/h = 1e-13, are far below the limit.
    h = 1e-3
    quotient = (exact(0.5 + h) - exact(0.5 - h)) / (2 * h)
    # If float32's errors of all 120 updates, about 1e-6 each, added up, the derivative would be off by 1e-4.
    require("derivative's error, relative", abs(derivative / quotient - 1), most=1e-4)


# The limits of the batch size are 1 and 16. test_kernel.py tests the other limits of the kernel.
@pytest.mark.parametrize("batch_size", [1, 16])
def test_labels_and_targets_with_a_short_last_batch_equal_the_books_loop(batch_size):
    """57 examples make 57 mini-batches of 1, or three of 16 and one of 9.

    The test calls `backend.epoch`, which compiles faster than `train`.
    """
    images, labels = digits()
    x, order = images[:57].reshape(57, 64), np.random.default_rng(0).permutation(57).astype(np.int32)
    epoch = jax.jit(functools.partial(backend.epoch, batch_size=batch_size))
    network, finite = epoch(start(), x, np.int32(labels[:57]), order, np.float32(ETA))
    assert bool(finite)
    want = trained_by_hand(start(), x / 255, np.eye(10)[labels[:57]], order, ETA, batch_size)
    # At most 57 updates. In each, every sum has a relative error of at most 2⁻²² (2.4e-7). The errors partly cancel.
    assert_leaves_close(network, jax.tree.map(np.float32, want), rtol=1e-5)
    targets, _ = epoch(start(), x, np.eye(10, dtype=np.float32)[labels[:57]], order, np.float32(ETA))
    assert_leaves_close(targets, network, rtol=0)
