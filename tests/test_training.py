"""`train` follows the book's algorithm, records its history, judges its outcome and refuses bad arguments."""

import contextlib
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import assert_leaves_close, by_hand, often, trained_by_hand

from jaxgd import (
    Dataset,
    Layer,
    Part,
    cross_entropy,
    init_network,
    load_dataset,
    quadratic_cost,
    train,
)
from jaxgd.chunks import UNBATCHED, Batched, Budget
from jaxgd.epoch import near_0
from jaxgd.errors import DataError, DtypeError, RangeError, ShapeError
from jaxgd.examples import fit_splits, inputs, targets
from jaxgd.history import NUMBERS
from jaxgd.kernels import evaluation, random_order
from jaxgd.kernels.evaluation import is_saturated
from jaxgd.kernels.registry import kernel_names
from jaxgd.outcome import Reason
from jaxgd.training_loop import _packed

NAMES = kernel_names()


# Most tests with the whole `digits` and mini-batches of 10 share two compiled programs: the start and an epoch.
# Other settings compile more programs, which takes less time with `few` examples and one split.
@pytest.fixture(scope="module")
def few(digits):
    return digits.train.images[:60], digits.train.labels[:60]


def in_float64(network):
    return jax.tree.map(lambda v: jnp.asarray(np.asarray(v, np.float64)), network)


def as_rows(images, labels):
    """Return the examples in NumPy's float64: pixels from 0 to 1, labels as one-hot rows."""
    return images.reshape(len(images), -1) / 255, np.eye(10)[labels]


def length(tree):
    return np.sqrt(sum(np.sum(np.asarray(x, np.float64) ** 2) for x in jax.tree.leaves(tree)))


def difference(a, b):
    return jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), a, b)


def textbook_entropy(a, y):
    """Return the cross-entropy by its formula. It is infinite or NaN if an output is exactly 0 or 1."""
    return -jnp.mean(jnp.sum(y * jnp.log(a) + (1 - y) * jnp.log1p(-a), axis=-1))


def fragile(a, y):
    """Return the quadratic cost, or infinity once it is below 0.4."""
    c = quadratic_cost(a, y)
    return jnp.where(c < 0.4, jnp.inf, 1.0) * c


ADAM, SGD = optax.adam(0.01), optax.sgd(0.5)


@pytest.mark.parametrize("batch_size", often([7, 10, None], [7]), ids=str)
def test_an_epoch_equals_the_books_loop(few, network, batch_size, x64):
    """A loop in NumPy makes the same updates in float64, with the examples in the same order."""
    images, labels = (part[:50] for part in few)
    key, eta = jax.random.key(8), 2.0
    settings = {"epochs": 2, "batch_size": batch_size, "eta": eta, "key": key, "evaluate": False}
    result = train(in_float64(network), (images, labels), **settings)
    x, y = as_rows(images, labels)
    v = network
    for epoch in range(2):
        order = np.asarray(random_order(jax.random.fold_in(key, epoch), 50))
        v = trained_by_hand(v, x, y, order, eta, batch_size or 50)
    # The measured differences are below 1e-15. The tolerance leaves room for sums in another order.
    assert_leaves_close(result.network, v, rtol=1e-12)


def test_an_epoch_with_l2_and_a_schedule_equals_the_books_loop(few, network, x64):
    """The cost is the cross-entropy, and η falls at each update. The last mini-batch of an epoch has one example."""
    images, labels = (part[:50] for part in few)
    key, l2 = jax.random.key(8), 5.0

    def eta(k):
        return 0.5 * 0.9**k

    x, y = as_rows(images, labels)
    v = in_float64(network)
    part = Part(images, labels)
    data = Dataset("few", part, part, part, 10)
    settings = {"batch_size": 7, "eta": eta, "key": key, "cost": cross_entropy, "l2": l2}
    result = train(v, data, epochs=2, **settings)

    def penalty(v):
        return l2 / 50 / 2 * sum(np.sum(np.asarray(layer.w) ** 2) for layer in v)

    for epoch in range(2):
        order = np.asarray(random_order(jax.random.fold_in(key, epoch), 50))
        # The decay is λ/50 for every mini-batch, also for the last one of one example.
        v = trained_by_hand(v, x, y, order, eta, 7, entropy=True, decay=l2 / 50, done=8 * epoch)
        c, _, gradient = by_hand(v, x, y, entropy=True)
        full = tuple(g._replace(w=g.w + l2 / 50 * layer.w) for g, layer in zip(gradient, v, strict=True))
        # As in the test above, the measured differences are below 1e-15.
        at = epoch + 1
        np.testing.assert_allclose(result.history.cost[at], c + penalty(v), rtol=1e-12)
        np.testing.assert_allclose(result.history.gradient_norm[at], length(full), rtol=1e-12)
        np.testing.assert_allclose([result.history.validation_cost[at], result.history.test_cost[at]], c, rtol=1e-12)
    assert_leaves_close(result.network, v, rtol=1e-12)
    first = train(in_float64(network), data, epochs=1, **settings)
    again = train(v, data, epochs=1, state=first.state, **settings)
    assert_leaves_close(again.network, result.network, rtol=0)
    with pytest.raises(AssertionError):
        assert_leaves_close(train(in_float64(network), data, epochs=2, **settings | {"l2": 5.001}).network, v, 1e-12)


def test_the_predicted_and_the_actual_change_of_the_full_batch_include_l2(few, network, x64):
    """`predicted` is ∇C·Δv = −η‖∇C‖², and `actual` is the change of the cost. Both include the L2 term."""
    first, last = in_float64(network)
    v, eta = (first._replace(activation="tanh"), last._replace(activation="softmax")), 1e-3
    settings = {"epochs": 2, "batch_size": None, "key": jax.random.key(0), "cost": cross_entropy}
    history = train(v, few, eta=eta, l2=20.0, **settings).history
    np.testing.assert_allclose(history.predicted[1:], -eta * history.gradient_norm[:-1] ** 2, rtol=1e-12)
    np.testing.assert_allclose(history.actual[1:], np.diff(history.cost), rtol=1e-9)
    np.testing.assert_allclose(history.actual[1:], history.predicted[1:], rtol=0.05)
    c, _, gradient = by_hand(v, *as_rows(*few), entropy=True)
    np.testing.assert_allclose(history.cost[0], c + 20 / 120 * sum(np.sum(layer.w**2) for layer in v), rtol=1e-12)
    assert history.gradient_norm[0] > 1.2 * length(gradient)

    def of_last_epoch(l2, eta):
        result = train(v, few, eta=lambda k: eta, l2=l2, **settings)
        return result.history.cost[-1], result.outcome.code

    l2s, etas = jnp.array([20.0, -1.0, jnp.nan, 20.0]), jnp.array([eta, eta, eta, -eta])
    costs, codes = jax.jit(jax.vmap(of_last_epoch))(l2s, etas)
    np.testing.assert_allclose(costs[0], history.cost[-1], rtol=1e-12)
    assert codes.tolist() == [Reason.COMPLETED, *[Reason.BAD_RULE] * 3]


@pytest.mark.parametrize("entropy", [False, True], ids=["quadratic", "cross-entropy"])
@pytest.mark.parametrize("start", [(0.6, 0.9), (2.0, 2.0)], ids=str)
def test_one_neuron_learns_as_in_the_book(entropy, start, x64):
    """`train` and a loop in Python give the same outputs for the neuron of chapter 3, with x = 1 and y = 0.

    The rounding errors of 300 updates in float64 stay below 1e-13. `table` has the outputs after 150 and 300 updates on
    the quadratic cost, computed without jaxgd.
    """
    (w, b), eta = start, 0.15
    outputs = []
    for k in range(301):
        a = 1 / (1 + math.exp(-(w + b)))
        outputs.append(a)
        if k < 300:
            delta = a if entropy else a * a * (1 - a)
            w, b = w - eta * delta, b - eta * delta
    network = (Layer(jnp.array([[start[0]]]), jnp.array([start[1]])),)
    cost, seen = cross_entropy if entropy else quadratic_cost, []
    settings = {"epochs": 300, "batch_size": 1, "eta": eta, "key": jax.random.key(0), "cost": cost, "kernel": "xla"}
    data = jnp.ones((1, 1)), jnp.zeros((1, 1))
    result = train(network, data, callback=lambda state, _: seen.append(state.network), **settings)
    got = [1 / (1 + math.exp(-float(v[0].w[0, 0] + v[0].b[0]))) for v in seen]
    np.testing.assert_allclose(got, outputs, rtol=1e-13)
    np.testing.assert_allclose([result.network[0].w[0, 0], result.network[0].b[0]], [w, b], rtol=0, atol=1e-13)
    if not entropy:
        table = {(0.6, 0.9): (0.1527398856, 0.0939556949), (2.0, 2.0): (0.9334174726, 0.2028484243)}
        np.testing.assert_allclose([got[150], got[300]], table[start], rtol=0, atol=0.5e-10)


def test_every_example_counts_once_per_epoch(digits):
    """η is 1, and ∂C/∂b is −Σy over the mini-batch, so bias i counts the visits of example i."""
    n, m = 23, 5
    x, y = np.zeros((n, 1), np.float32), np.eye(n, dtype=np.float32)
    network = (Layer(jnp.asarray(np.zeros((n, 1), np.float32)), jnp.asarray(np.zeros(n, np.float32))),)

    # x = 0, so logit(a) = b.
    def cost(a, y):
        return -jnp.sum(jnp.sum(jax.scipy.special.logit(a) * y, axis=-1))

    settings = {"epochs": 1, "batch_size": m, "eta": 1.0, "key": jax.random.key(1), "cost": cost, "evaluate": False}
    result = train(network, (x, y), **settings)
    np.testing.assert_allclose(result.network[0].b, np.ones(n), atol=1e-5)


def test_the_history_equals_values_computed_separately(digits, network):
    path = []
    result = train(
        network,
        digits,
        epochs=3,
        batch_size=None,
        eta=1.0,
        key=jax.random.key(0),
        callback=lambda state, entry: path.append((state.network, entry)),
    )
    x, y = as_rows(*digits.train)
    tx, ty = as_rows(*digits.test)
    history = result.history
    assert len(path) == 4
    assert history.epoch.tolist() == history.updates.tolist() == [0, 1, 2, 3]
    for k, (v, entry) in enumerate(path):
        for name in NUMBERS:
            np.testing.assert_array_equal(getattr(entry, name), getattr(history, name)[k])
        c, _, gradient = by_hand(v, x, y)
        # The values are float32 sums over 1,197 examples.
        np.testing.assert_allclose(entry.cost, c, rtol=1e-5)
        np.testing.assert_allclose(entry.gradient_norm, length(gradient), rtol=1e-4)
        test_cost, outputs, _ = by_hand(v, tx, ty)
        np.testing.assert_allclose(entry.test_cost, test_cost, rtol=1e-5)
        np.testing.assert_allclose(
            entry.test_accuracy, np.mean(np.argmax(outputs, -1) == digits.test.labels), rtol=1e-6
        )
        if k == 0:
            assert np.isnan([entry.step_norm, entry.predicted, entry.actual]).all()
            continue
        before, last = path[k - 1]
        np.testing.assert_allclose(entry.step_norm, length(difference(v, before)), rtol=1e-5)
        np.testing.assert_allclose(entry.step_norm, 1.0 * last.gradient_norm, rtol=1e-4)  # ‖Δv‖ = η‖∇C‖
        np.testing.assert_allclose(entry.predicted, -(last.gradient_norm**2), rtol=1e-4)  # ∇C·Δv = −η‖∇C‖²
        np.testing.assert_allclose(entry.actual, entry.cost - last.cost, rtol=1e-6)


def test_the_error_of_the_prediction_is_quadratic_in_eta(few, network, x64):
    """ΔC − ∇C·Δv is proportional to η² only if ΔC and ∇C·Δv belong to the same step."""
    network = in_float64(network)

    def remainder(eta):
        settings = {"epochs": 1, "batch_size": None, "eta": eta, "key": jax.random.key(0), "evaluate": False}
        h = train(network, few, **settings).history
        return abs(float(h.actual[1] - h.predicted[1]))

    slope = np.log2(remainder(1e-3) / remainder(5e-4))
    assert 1.95 < slope < 2.05


def test_mini_batches_have_no_prediction_and_count_their_updates(digits, network):
    history = train(network, digits, epochs=2, batch_size=10, eta=1.0, key=jax.random.key(0)).history
    assert np.isnan(history.predicted).all()
    assert history.updates.tolist() == [0, 120, 240]  # 1,197 examples make 119 mini-batches of ten and one of seven
    np.testing.assert_allclose(history.actual[1:], np.diff(history.cost), rtol=1e-6)


def test_without_evaluation_the_network_is_the_same(digits, network):
    settings = {"epochs": 2, "batch_size": 10, "eta": 3.0, "key": jax.random.key(5)}
    bare = train(network, digits, evaluate=False, **settings)
    assert_leaves_close(bare.network, train(network, digits, **settings).network, rtol=0)
    assert np.isnan(bare.history.cost).all()
    assert np.isfinite(np.asarray(bare.history.step_norm)[1:]).all()


@pytest.mark.parametrize("kernel", often(["native", "xla"], ["native"]))
def test_the_norm_of_the_gradient_can_be_left_out(digits, network, kernel):
    """With mini-batches, only ‖∇C‖ becomes NaN. The full batch needs ∇C, so it still records ‖∇C‖."""
    settings = {"epochs": 2, "batch_size": 10, "eta": 3.0, "key": jax.random.key(5), "kernel": kernel}
    full, bare = (train(network, digits, gradient_norm=norm, **settings) for norm in (True, False))
    assert_leaves_close(bare.network, full.network, rtol=0)
    for name in NUMBERS:
        with_norm, without = (np.asarray(getattr(result.history, name)) for result in (full, bare))
        np.testing.assert_array_equal(without, np.full(3, np.nan) if name == "gradient_norm" else with_norm)
    assert (np.asarray(full.history.gradient_norm) > 0).all()
    settings = settings | {"epochs": 1, "batch_size": None}
    assert (np.asarray(train(network, digits, gradient_norm=False, **settings).history.gradient_norm) > 0).all()


def test_the_same_key_gives_the_same_bits_and_another_key_does_not(digits, network):
    def learned(seed):
        return train(network, digits, epochs=1, batch_size=10, eta=3.0, key=jax.random.key(seed)).network

    assert_leaves_close(learned(1), learned(1), rtol=0)
    assert length(difference(learned(1), learned(2))) > 0.1


@pytest.mark.parametrize("batch_size", often([10, None], [10]), ids=str)
@pytest.mark.parametrize("optimizer", [None, ADAM], ids=["descent", "adam"])
def test_a_continued_run_equals_one_run_bit_for_bit(digits, few, network, batch_size, optimizer):
    settings = {"batch_size": batch_size, "eta": None if optimizer else 3.0, "key": jax.random.key(5)}
    settings["optimizer"] = optimizer
    data = few if optimizer else digits
    whole = train(network, data, epochs=4, **settings)
    half = train(network, data, epochs=2, **settings)
    rest = train(network, data, epochs=2, state=half.state, **settings)
    assert_leaves_close(rest.network, whole.network, rtol=0)
    assert rest.history.epoch.tolist() == [2, 3, 4]
    for name in NUMBERS:
        parts, one_run = (np.asarray(getattr(result.history, name)) for result in (rest, whole))
        np.testing.assert_array_equal(parts[1:], one_run[3:])


def test_a_state_of_mini_batches_continues_in_the_full_batch(digits, network):
    """The state lacks the full gradient, so `train` computes it before the first step."""
    state = train(network, digits, epochs=1, batch_size=10, eta=3.0, key=jax.random.key(5)).state
    result = train(network, digits, epochs=1, batch_size=None, eta=3.0, key=jax.random.key(5), state=state)
    history = jax.tree.map(np.asarray, result.history)
    np.testing.assert_allclose(history.predicted[1], -3.0 * history.gradient_norm[0] ** 2, rtol=1e-4)


def test_one_output_has_no_accuracy():
    x, y = np.linspace(0, 1, 8, dtype=np.float32)[:, None], np.zeros((8, 1), np.float32)
    network = init_network(jax.random.key(0), (1, 1))
    history = train(network, (x, y), epochs=2, batch_size=4, eta=1.0, key=jax.random.key(0)).history
    assert np.isnan(history.accuracy).all()
    assert np.asarray(history.cost)[-1] < np.asarray(history.cost)[0]


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["NumPy", "JAX"])
def test_jit_may_close_over_the_data(network, array):
    """JAX would trace a check of the data inside jit, so `train` checks the data with NumPy."""
    x, y = array(np.full((6, 64), 0.5, np.float32)), array(np.arange(6))

    def cost(eta):
        settings = {"epochs": 1, "batch_size": 3, "key": jax.random.key(0), "evaluate": True}
        return train(network, (x, y), eta=eta, **settings).history.cost[-1]

    np.testing.assert_allclose(jax.jit(cost)(1.0), cost(1.0), rtol=1e-5)


@pytest.mark.bad_input
def test_a_traced_number_inside_the_optimizer_is_refused(few, network):
    settings = {"epochs": 1, "batch_size": None, "key": jax.random.key(0), "evaluate": False}

    def run(rate):
        return train(network, few, optimizer=optax.sgd(rate), **settings).network

    with pytest.raises(RangeError, match="inside the optimizer, the cost or a function in record is traced"):
        jax.vmap(run)(jnp.ones(2))


@pytest.mark.bad_input
def test_a_callback_under_jit_is_refused(digits, network):
    def run(eta):
        return train(
            network, digits, epochs=1, batch_size=None, eta=eta, key=jax.random.key(0), callback=lambda *_: None
        )

    with pytest.raises(RangeError, match="callback runs on the host"):
        jax.jit(run)(1.0)


def test_an_optax_optimizer_works_like_a_rule(digits, few, network):
    """optax.sgd(η) and eta=η give the same network within rounding. A line search lowers the cost in every epoch."""
    settings = {"epochs": 2, "batch_size": 10, "key": jax.random.key(5)}
    by_eta = train(network, digits, eta=0.5, **settings)
    by_optax = train(network, digits.train, optimizer=SGD, evaluate=False, **settings)
    # The formula is the same, but the two programs may round differently. The differences accumulate over 240 updates.
    assert_leaves_close(by_optax.network, by_eta.network, rtol=1e-4)
    line_search = optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=10))
    searching = {"epochs": 3, "batch_size": None, "optimizer": line_search, "evaluate": False}
    searched = train(network, few, key=jax.random.key(5), **searching)
    assert (np.diff(searched.history.cost) < 0).all()
    with pytest.warns(UserWarning, match="eta is not used"):
        train(network, digits.train, eta=0.5, optimizer=SGD, evaluate=False, **settings | {"epochs": 0})


@pytest.mark.parametrize("batch_size", [10, None], ids=str)
def test_a_run_that_becomes_not_finite_returns_its_last_finite_network(few, network, batch_size):
    settings = {"batch_size": batch_size, "eta": 1.0, "key": jax.random.key(0), "cost": fragile}
    result = train(network, few, epochs=300, **settings)
    done = int(result.history.epoch[-1])
    assert result.outcome.reason is Reason.NOT_FINITE
    assert "not finite" in result.outcome.message
    assert len(result.history.cost) == done + 1 < 301
    assert np.isfinite(result.history.cost).all()
    assert_leaves_close(result.network, train(network, few, epochs=done, **settings).network, rtol=0)
    assert int(result.state.epoch) == done


@pytest.mark.parametrize("batch_size", often([10, None], [None]), ids=str)
def test_the_two_programs_of_a_wide_network_give_the_same_results(few, network, batch_size, monkeypatch):
    """For a wide network, `train` runs two programs per epoch. Without a callback, it deletes the old gradient."""
    settings = {"epochs": 50, "batch_size": batch_size, "eta": 9.0, "key": jax.random.key(0), "cost": fragile}
    want, states = train(network, few, kernel="xla", **settings), []
    assert want.outcome.reason is Reason.NOT_FINITE
    monkeypatch.setattr("jaxgd.pytree.WIDE", 0)
    for callback in (None, lambda state, entry: states.append(state)):
        got = train(network, few, callback=callback, **settings)
        assert got.outcome.reason is Reason.NOT_FINITE
        # The programs of a wide network may round differently. The differences accumulate over 50 epochs in float32.
        for name in ("network", "gradient"):
            assert_leaves_close(getattr(got.state, name), getattr(want.state, name), rtol=1e-4)
        for name in NUMBERS:
            np.testing.assert_allclose(getattr(got.history, name), getattr(want.history, name), rtol=1e-3, err_msg=name)
    assert len(states) == len(want.history.cost)
    assert all(np.isfinite(x).all() for state in states for x in jax.tree.leaves((state.network, state.gradient)))
    assert "less memory" in train(network, few, **settings | {"epochs": 0, "cost": quadratic_cost}).kernel.reason


@pytest.mark.parametrize("batch_size", often([10, None], [None]), ids=str)
def test_a_donated_network_is_trained_in_place(few, network, batch_size):
    settings = {"batch_size": batch_size, "eta": 9.0, "key": jax.random.key(0), "cost": fragile}
    want, last = train(network, few, epochs=2, kernel="xla", **settings), network[-1].b
    # The last bias is an array of NumPy, which JAX cannot donate, so `train` copies it.
    given = (*jax.tree.map(jnp.array, network[:-1]), Layer(jnp.array(network[-1].w), np.array(last)))
    got = train(given, few, epochs=2, donate=True, **settings)
    assert given[0].w.is_deleted()
    assert_leaves_close((got.network, got.history.cost), (want.network, want.history.cost), rtol=1e-5)
    assert np.isnan([got.history.step_norm, got.history.predicted, got.history.actual]).all()
    state = got.state
    end = train(got.network, few, state=state, epochs=50, donate=True, **settings)
    assert end.outcome.reason is Reason.NOT_FINITE
    assert state.network[0].w.is_deleted()
    assert np.isfinite(end.history.cost).all()
    with pytest.raises(RangeError, match="donate=True is not possible under jit and vmap"):
        jax.eval_shape(lambda v: train(v, few, epochs=1, donate=True, **settings).network, network)


def test_a_start_that_is_not_finite_ends_the_run(digits, network):
    b = np.array(network[0].b)
    b[0] = np.nan
    spoiled = (network[0]._replace(b=jnp.asarray(b)), *network[1:])
    result = train(spoiled, digits, epochs=3, batch_size=10, eta=1.0, key=jax.random.key(0))
    assert result.outcome.reason is Reason.START_NOT_FINITE
    assert "eta" not in result.outcome.message
    assert result.history.epoch.tolist() == [0]


def saturated(digits, label):
    """Return a saturated network that answers 0 for each image, and `digits` with `label` as each training label."""
    bias = np.full(10, -30, np.float32)
    bias[0] = 30
    network = (
        Layer(np.zeros((12, 64), np.float32), np.zeros(12, np.float32)),
        Layer(np.zeros((10, 12), np.float32), bias),
    )
    labels = np.full_like(digits.train.labels, label)
    data = dataclasses.replace(digits, train=digits.train._replace(labels=labels))
    return jax.tree.map(jnp.asarray, network), data


def test_the_outcome_judges_the_state_after_the_last_epoch(digits, network):
    """The outcome reports if the last epoch leaves the network saturated or unchanged, unless its answers are right."""

    def reason(network, data, eta, **change):
        settings = {"epochs": 2, "batch_size": 10, "key": jax.random.key(5)} | change
        return train(network, data, eta=eta, **settings).outcome.reason

    assert reason(network, digits, 3.0) is Reason.COMPLETED
    assert reason(network, digits, 1e-30) is Reason.UNCHANGED
    assert reason(network, digits, 1e-30, evaluate=False) is Reason.UNCHANGED
    assert reason(network, digits, 1e-30, epochs=0) is Reason.COMPLETED
    assert reason(network, digits, 1e30) is Reason.SATURATED
    assert reason(*saturated(digits, 0), 1e-3) is Reason.COMPLETED
    assert reason(*saturated(digits, 1), 1e-3) is Reason.SATURATED


def test_the_outcome_judges_the_cost_without_l2(few):
    """A saturated network with right answers gives COMPLETED, even if the L2 term is large."""
    network, _ = saturated(load_dataset("digits"), 0)
    network = (network[0]._replace(w=jnp.ones_like(network[0].w)), network[1])
    settings = {"epochs": 1, "batch_size": 10, "eta": 1e-6, "key": jax.random.key(5)}
    for label, want in ((0, Reason.COMPLETED), (1, Reason.SATURATED)):
        data = few[0], np.full_like(few[1], label)
        result = train(network, data, cost=cross_entropy, l2=1.0, **settings)
        assert result.outcome.reason is want
        assert result.history.cost[-1] > 1
    # In bfloat16, 20 right outputs may have a cost of 20 eps = 0.16. near_0 allows twice this cost.
    wide = (Layer(jnp.zeros((20, 3), jnp.bfloat16), jnp.zeros(20, jnp.bfloat16)),)
    assert (near_0(quadratic_cost, wide), near_0(cross_entropy, network)) == (1e-3, 1e-3)
    assert near_0(cross_entropy, wide) == 2 * 20 * 2**-7


@pytest.mark.parametrize(
    ("row", "value", "expected"),
    [(0, 0.0, True), (0, 1e-7, True), (0, 0.9999999, True), (0, 1e-6, False), (149, 0.5, False), (149, np.nan, False)],
)
def test_a_network_is_saturated_if_every_output_is_0_or_1_within_eps(row, value, expected):
    a = np.resize(np.array([0, 1], np.float32), (150, 2))
    a[row, 1] = value
    assert bool(is_saturated(jnp.asarray(a))) is expected


@pytest.mark.slow
def test_an_optimizer_may_end_with_a_rate_of_0(few, network):
    """The schedule is 0 after the first epoch, which has six updates."""

    def reason(optimizer):
        settings = {"epochs": 2, "batch_size": 10, "key": jax.random.key(5), "optimizer": optimizer}
        by_epoch = train(network, few, **settings).outcome.reason
        one_loop = jax.jit(lambda network: train(network, few, **settings).outcome)(network).reason
        assert by_epoch is one_loop
        return by_epoch

    assert reason(optax.sgd(lambda n: jnp.where(n < 6, 0.5, 0.0))) is Reason.COMPLETED
    assert reason(optax.sgd(1e-30)) is Reason.UNCHANGED


@pytest.mark.parametrize("kernel", often(["native", "xla"], ["native"]))
def test_each_batch_element_has_its_outcome(few, network, kernel):
    """A traced label cannot be checked before the run. If it is out of range, all recorded costs are NaN."""

    def run(label, eta):
        labels = jnp.asarray(few[1], jnp.int32).at[7].set(label)
        return train(network, (few[0], labels), epochs=2, batch_size=10, eta=eta, key=jax.random.key(0), kernel=kernel)

    rows = {
        (9, 1.0): Reason.COMPLETED,
        (9, 1e-30): Reason.UNCHANGED,
        (9, 1e30): Reason.SATURATED,
        (10, 1.0): Reason.START_NOT_FINITE,
        (-1, 1.0): Reason.START_NOT_FINITE,
        (9, -1.0): Reason.BAD_RULE,
        (9, jnp.nan): Reason.BAD_RULE,
    }
    batch = jax.jit(jax.vmap(run))(*map(jnp.array, zip(*rows, strict=True)))
    assert batch.outcome.code.tolist() == list(map(int, rows.values()))
    for i, reason in enumerate(rows.values()):
        entries = np.isfinite(batch.history.cost[i]).tolist()
        started = {Reason.START_NOT_FINITE: False, Reason.BAD_RULE: True}.get(reason)
        assert entries == ([True] * 3 if started is None else [started, False, False])
        if started is not None:
            assert_leaves_close(jax.tree.map(lambda x, i=i: x[i], batch.network), network, rtol=0)


UNIT = np.linspace(0, 1, 60 * 64, dtype=np.float32).reshape(60, 64)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (UNIT, None),
        (UNIT * 9.9, None),
        (UNIT * 8 - 4, None),
        (UNIT * 50 - 4, None),
        ((UNIT * 255).astype(np.uint8), None),
        (UNIT * 16, "train: the train inputs reach 16, .* Divide them by 16"),
        (UNIT * 255, "reach 255, but a network expects inputs from about 0 to 1"),
        ((UNIT * 65535).astype(np.float64), "reach 65535,"),
    ],
    ids=["0 to 1", "0 to 9.9", "-4 to 4", "-4 to 46", "bytes", "0 to 16", "0 to 255", "0 to 65535"],
)
def test_inputs_that_look_unscaled_give_a_warning(network, x, words):
    """The first five cases must give no warning. pytest turns each warning into an error."""
    with contextlib.nullcontext() if words is None else pytest.warns(UserWarning, match=words):
        fit_splits("train", network, (x, np.zeros(60, int)))


def test_batch_elements_equal_single_runs(few, network):
    """The batch maps over keys and η. Only the element whose cost becomes infinite or NaN stops early."""

    def run(key, eta):
        return train(network, few, epochs=4, batch_size=10, eta=eta, key=key, cost=textbook_entropy)

    keys, etas = jax.random.split(jax.random.key(0), 3), jnp.array([0.05, 0.5, 1e6])
    batch = jax.jit(jax.vmap(run))(keys, etas)
    assert batch.outcome.code.tolist() == [0, 0, int(Reason.NOT_FINITE)]
    assert "2 × completed" in batch.outcome.message
    networks, costs = jax.tree.map(np.asarray, (batch.network, batch.history.cost))
    for i in range(3):
        single = run(keys[i], etas[i])
        element = jax.tree.map(lambda leaf, i=i: leaf[i], networks)
        # Batched products round differently. The differences accumulate over 24 updates in float32.
        assert_leaves_close(element, single.network, rtol=2e-4)
        n = len(single.history.epoch)
        np.testing.assert_allclose(costs[i, :n], single.history.cost, rtol=1e-3)
        assert np.isnan(costs[i, n:]).all()


def test_nothing_recompiles_for_another_eta_key_or_start(few, network):
    traces = []

    def counted(a, y):
        traces.append(1)
        return quadratic_cost(a, y)

    def run(network, eta, seed):
        train(network, few, epochs=2, batch_size=10, eta=eta, key=jax.random.key(seed), cost=counted)

    run(network, 3.0, 0)
    programs = _packed._cache_size()
    run(jax.tree.map(lambda v: jnp.asarray(np.asarray(v) + 1), network), 0.5, 1)
    run(network, np.float32(2.0), 2)
    run(network, 1, 3)
    assert _packed._cache_size() == programs
    assert len(traces) > 0


def test_the_callback_sees_each_epoch_and_can_stop(digits, network):
    seen = []

    def callback(state, entry):
        seen.append((int(state.epoch), int(entry.epoch)))
        return len(seen) == 3

    result = train(network, digits, epochs=9, batch_size=10, eta=3.0, key=jax.random.key(0), callback=callback)
    assert seen == [(0, 0), (1, 1), (2, 2)]
    assert result.outcome.reason is Reason.STOPPED
    assert not result.outcome.ok
    assert len(result.history.epoch) == 3


def test_0_epochs_return_the_start(digits, network):
    result = train(network, digits, epochs=0, batch_size=10, eta=3.0, key=jax.random.key(0))
    assert_leaves_close(result.network, network, rtol=0)
    assert result.history.epoch.tolist() == [0]
    assert result.outcome.ok


@pytest.mark.parametrize("dtype", often([jnp.bfloat16, jnp.float64], [jnp.bfloat16]), ids=["bfloat16", "float64"])
def test_other_dtypes_are_kept_and_learn(few, network, dtype, x64):
    network = jax.tree.map(lambda v: jnp.asarray(np.asarray(v).astype(dtype)), network)
    result = train(network, few, epochs=40, batch_size=10, eta=1.0, key=jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(result.network)} == {jnp.dtype(dtype)}
    costs = np.asarray(result.history.cost)
    assert costs[-1] < 0.7 * costs[0]


@pytest.mark.slow
def test_bytes_are_used_as_fractions_of_255(digits, network):
    settings = {"epochs": 1, "batch_size": 10, "eta": 3.0, "key": jax.random.key(0)}
    x, y = (part.astype(np.float32) for part in as_rows(*digits.train))
    from_bytes = train(network, digits.train, **settings).network
    assert_leaves_close(train(network, (x, digits.train.labels), **settings).network, from_bytes, rtol=1e-4)
    assert_leaves_close(train(network, (x, y), **settings).network, from_bytes, rtol=1e-4)
    np.testing.assert_allclose(inputs(jnp.array([0, 51, 255], jnp.uint8), jnp.float32), [0, 0.2, 1], rtol=1e-7)
    np.testing.assert_array_equal(targets(jnp.array([2]), 3, jnp.float32), [[0, 0, 1]])


@pytest.mark.slow
def test_the_budget_applies_to_one_network_and_to_a_batch(few, network, monkeypatch):
    """Two networks under vmap share the inputs, and a chunk has fewer rows than for one network."""
    seen = []
    real = evaluation.weighted_inputs_in_chunks

    def watched(network, x, precision, budget, batched):
        seen.append((budget, batched))
        return real(network, x, precision, budget, batched)

    monkeypatch.setattr(evaluation, "weighted_inputs_in_chunks", watched)
    budget = Budget(2**14, 2**14)

    def run(eta):
        settings = {"epochs": 1, "batch_size": None, "key": jax.random.key(0), "kernel": "xla", "budget": budget}
        return train(network, few, eta=eta, **settings).network

    alone = [run(eta) for eta in (0.5, 1.0)]
    together = jax.vmap(run)(jnp.array([0.5, 1.0]))
    assert set(seen) == {(budget, UNBATCHED), (budget, Batched(2, 1))}
    for k, single in enumerate(alone):
        assert_leaves_close(jax.tree.map(lambda x, k=k: x[k], together), single, rtol=1e-5)


BAD = {
    "epochs below 0": ({"epochs": -1}, RangeError, "epochs must be at least 0"),
    "batch size 0": ({"batch_size": 0}, RangeError, "batch_size must be between 1 and 1197"),
    "batch size above 1197": ({"batch_size": 1198}, RangeError, "batch_size must be between 1 and 1197"),
    "batch size 2.5": ({"batch_size": 2.5}, DtypeError, "batch_size must be a whole number"),
    "eta 0": ({"eta": 0.0}, RangeError, "eta must be a finite number above 0"),
    "eta NaN": ({"eta": float("nan")}, RangeError, "eta"),
    "eta underflows": ({"eta": 1e-60}, RangeError, "eta in float32 must be a finite number above 0"),
    "eta overflows": ({"eta": 1e39}, RangeError, "eta in float32 must be a finite number above 0"),
    "eta missing": ({"eta": None}, DtypeError, "eta must be one real number"),
    "schedule falls below 0": (
        {"eta": lambda k: 1.0 - k / 100, "epochs": 2},
        RangeError,
        r"a finite eta of 0 or more, got -0.0\d+ for eta\(101\)",
    ),
    "schedule returns arrays": ({"eta": lambda k: jnp.ones(2)}, DtypeError, "the eta of the schedule must be one real"),
    "l2 below 0": ({"l2": -1.0}, RangeError, "l2 must be a finite number, 0 or more, got -1.0"),
    "l2 infinite": ({"l2": float("inf")}, RangeError, "l2 must be a finite number, 0 or more, got inf"),
    "text as l2": ({"l2": "5"}, DtypeError, "l2 must be one real number, got str"),
    "activation unknown": ({"activation": "gelu"}, RangeError, "train: activation must be 'sigmoid', 'tanh', 'relu'"),
    "number as activation": ({"activation": 3}, DtypeError, "train: activation must be 'sigmoid'.*, got int"),
    "too many activations": ({"activation": ("tanh",) * 5}, RangeError, "one for each of the 2 layers, got 5"),
    "softmax in a hidden layer": ({"activation": "softmax"}, RangeError, "'softmax' is only for the output layer"),
    "cross-entropy of tanh outputs": (
        {"activation": "tanh", "cost": cross_entropy},
        RangeError,
        "train: the cross-entropy needs an output layer.* got 'tanh'",
    ),
    "tanh, kernel native": ({"activation": "tanh", "kernel": "native"}, RangeError, "only sigmoid neurons, got 'tanh'"),
    "array as eta": ({"eta": jnp.ones(2)}, DtypeError, "eta must be one real number"),
    "cost per example": ({"cost": lambda a, y: jnp.sum((a - y) ** 2, -1)}, ShapeError, "one real scalar, got float32"),
    "epochs beyond JAX's integers": ({"epochs": 10**30}, RangeError, "epochs must be between 0 and 2147483647"),
    "text as gradient_norm": ({"gradient_norm": "no"}, DtypeError, "gradient_norm must be True or False, got 'no'"),
    "number as budget": ({"budget": 5}, DtypeError, "budget must be a jaxgd.chunks.Budget, got int"),
    "budget of 0 bytes": ({"budget": Budget(0, 0)}, RangeError, "budget.chunk must be at least 1, got 0"),
    "text as evaluate": ({"evaluate": "no"}, DtypeError, "evaluate must be True or False, got 'no'"),
    "number as callback": ({"callback": 3}, DtypeError, "callback must be a function"),
    "None as cost": ({"cost": None}, DtypeError, "cost must be a function"),
    "cost returns text": ({"cost": lambda a, y: "x"}, ShapeError, "one real scalar, got str"),
    "number as optimizer": ({"optimizer": 3}, DtypeError, "optimizer must be a rule"),
    "optax.sgd without arguments": ({"optimizer": optax.sgd}, DtypeError, r"Call it: sgd\(…\)"),
    "number as key": ({"key": 0}, DtypeError, "key must be a random key"),
    "array as kernel": (
        {"kernel": np.ones(2)},
        RangeError,
        f"kernel must be {', '.join(map(repr, NAMES[:-1]))} or {NAMES[-1]!r}",
    ),
    "number as state": ({"state": 3}, DtypeError, "state must be the state of an earlier run"),
    "None as network": ({"network": None}, DtypeError, "network: expected a tuple of layers"),
    "None as data": ({"data": None}, DtypeError, r"the train data must be a pair \(x, y\), got NoneType"),
    "data with three parts": ({"data": (1, 2, 3)}, DtypeError, "got 3 parts"),
    "array as data": ({"data": np.zeros((2, 64))}, DtypeError, "must be a pair"),
    "cost returns None": ({"cost": lambda a, y: None}, ShapeError, "one real scalar"),
}


@pytest.mark.bad_input
@pytest.mark.parametrize(("change", "error", "match"), BAD.values(), ids=BAD)
def test_bad_settings_are_refused(digits, network, change, error, match):
    settings = {"epochs": 1, "batch_size": 10, "eta": 3.0, "key": jax.random.key(0)}
    with pytest.raises(error, match=match) as caught:
        train(**{"network": network, "data": digits, **settings} | change)
    assert len(str(caught.value)) < 400


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ["epochs", "batch_size", "evaluate"])
def test_traced_epochs_batch_size_or_evaluate_is_refused(digits, network, name):
    settings = {"epochs": 1, "batch_size": 10, "eta": 3.0, "key": jax.random.key(0)}
    with pytest.raises(DtypeError, match=rf"^train: {name} must be .*(known before tracing|True or False)"):
        jax.eval_shape(lambda x: train(network, digits, **settings | {name: x}), jax.ShapeDtypeStruct((), jnp.int32))


@pytest.mark.bad_input
def test_a_state_of_the_full_batch_continues_with_mini_batches(digits, network):
    settings = {"epochs": 1, "eta": 1.0, "key": jax.random.key(0)}
    state = train(network, digits, batch_size=None, **settings).state
    for given in (state, state._replace(network=list(state.network), gradient=list(state.gradient), cost=1)):
        result = train(network, digits, batch_size=10, state=given, **settings)
        assert result.outcome.ok
        assert int(result.state.epoch) == 2


def test_a_trained_network_that_no_longer_changes_gives_completed():
    network = (Layer(jnp.full((2, 2), -20.0).at[jnp.arange(2), jnp.arange(2)].set(20.0), jnp.ones(2)),)
    data = np.eye(2, dtype=np.float32), np.array([0, 1])
    result = train(network, data, epochs=1, batch_size=None, eta=1.0, key=jax.random.key(1))
    assert result.history.step_norm[-1] == 0 < result.history.cost[-1] < 1e-9
    assert result.outcome.reason is Reason.COMPLETED


@pytest.mark.bad_input
def test_a_state_of_another_optimizer_or_with_a_bad_field_is_refused(digits, network):
    state = train(network, digits, epochs=0, batch_size=10, eta=3.0, key=jax.random.key(5)).state
    settings = {"epochs": 1, "batch_size": 10, "key": jax.random.key(5)}
    with pytest.raises(RangeError, match="state must come from the same optimizer"):
        train(network, digits, optimizer=ADAM, state=state, **settings)
    odd = {"epoch": 0.5, "cost": None, "key": 0, "gradient": network[:1], "network": None}
    for name, value in odd.items():
        with pytest.raises(DtypeError, match=r"^(train|network): "):
            train(None, digits, eta=3.0, state=state._replace(**{name: value}), **settings)


PIXELS, LABELS = np.zeros((4, 64), np.float32), np.zeros(4, np.uint8)
BAD_DATA = {
    "input NaN": ((np.full((4, 64), np.nan, np.float32), LABELS), DataError, "NaN"),
    "label above 9": ((PIXELS, np.array([0, 1, 2, 10])), DataError, "0 to 10, but the network has 10 outputs"),
    "label below 0": ((PIXELS, np.array([0, 1, 2, -1])), DataError, "-1"),
    "inputs of another width": ((np.zeros((4, 63), np.float32), LABELS), ShapeError, "rows of 64"),
    "fewer labels than inputs": ((PIXELS, LABELS[:3]), ShapeError, "one label or target for each"),
    "no examples": ((PIXELS[:0], LABELS[:0]), ShapeError, "64|example"),
    "whole-number inputs": ((PIXELS.astype(int), LABELS), DtypeError, "bytes .uint8. or floating point"),
    "target NaN": ((PIXELS, np.full((4, 10), np.nan)), DataError, "targets have NaN"),
    "object inputs": ((np.array([[None] * 64] * 4), LABELS), DtypeError, "train inputs must be an array of numbers"),
    "ragged inputs": (([[0.0], [0.0, 1.0]], LABELS), DtypeError, "train inputs must be an array of numbers, got list"),
    "masked inputs": ((np.ma.array(PIXELS), LABELS), DtypeError, r"got MaskedArray float32\[4,64\]"),
    "shape as inputs": ((jax.ShapeDtypeStruct((4, 64), jnp.float32), LABELS), DtypeError, "got ShapeDtypeStruct"),
    "text labels": ((PIXELS, list("0123")), DtypeError, "train labels must be an array of numbers"),
    "date labels": ((PIXELS, np.zeros(4, "datetime64[D]")), DtypeError, "train labels must be an array of numbers"),
    "targets of another width": ((PIXELS, np.zeros((4, 9))), ShapeError, "floating-point targets"),
}


@pytest.mark.bad_input
@pytest.mark.parametrize(("data", "error", "match"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_refused(network, data, error, match):
    with pytest.raises(error, match=match):
        train(network, data, epochs=1, batch_size=2, eta=3.0, key=jax.random.key(0))
