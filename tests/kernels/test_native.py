"""The native kernels agree with float64 and XLA, and refuse wrong buffers. The choice of a backend has a reason."""

import functools
import itertools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import assert_leaves_close, exact_sigmoid, trained_by_hand
from support import by_hand as costs_by_hand

from jaxgd import Layer, RangeError, accuracy, cross_entropy, init_network, load_dataset, quadratic_cost, train
from jaxgd.examples import Examples
from jaxgd.kernels import BackendChoice, Job, native, random_order, select_backend, xla
from jaxgd.rules import gradient_descent

pytestmark = pytest.mark.skipif(isinstance(native.library(), str), reason=str(native.library()))


def images(rng, n, width, density, dtype=np.uint8):
    x = np.where(rng.random((n, width)) < density, rng.integers(1, 256, (n, width)), 0)
    return x.astype(np.uint8) if dtype == np.uint8 else (x / 255).astype(dtype)


def answers(rng, n, outputs, labels):
    return rng.integers(0, outputs, n).astype(np.int32) if labels else rng.random((n, outputs)).astype(np.float32)


def drawn_network(rng, sizes):
    """Return a network with weights from N(0, 1/n_in). NumPy draws them, so nothing is compiled."""

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    pairs = itertools.pairwise(sizes)
    return tuple(Layer(normal(n_out, n_in) / np.float32(np.sqrt(n_in)), normal(n_out)) for n_in, n_out in pairs)


def plain(x, y, outputs):
    """Return inputs and targets in float64: inputs from 0 to 1, labels as one-hot rows."""
    x = x / 255 if x.dtype == np.uint8 else x.astype(np.float64)
    return x, np.eye(outputs)[y] if y.ndim == 1 else y.astype(np.float64)


def by_hand(network, x, y, order, eta, batch_size, cost=quadratic_cost, decay=0.0):
    """Return the network after the book's loop in NumPy's float64."""
    settings = {"entropy": cost is cross_entropy, "decay": decay}
    return trained_by_hand(network, *plain(x, y, len(network[-1].b)), order, eta, batch_size, **settings)


ATTRIBUTES = ("batch_size", "cost", "isa", "threads")
one_epoch = jax.jit(native.epoch, static_argnames=ATTRIBUTES)
evaluated, without_outputs = (
    jax.jit(f, static_argnames=("gradient", "cost", "isa")) for f in (native.evaluate_with_outputs, native.evaluate)
)


def run(network, x, y, order, eta, batch_size, cost=quadratic_cost, decay=0.0, **attributes):
    order, eta, decay = np.asarray(order, np.int32), np.float32(eta), np.float32(decay)
    return one_epoch(network, x, y, order, eta, batch_size, cost, decay, **attributes)


shapes = given(
    sizes=st.lists(st.sampled_from([1, 2, 7, 16, 30, 45, 64, 140]), min_size=2, max_size=5),
    n=st.integers(1, 70),
    batch=st.integers(1, 70),
    density=st.sampled_from([0.0, 0.1, 0.4, 0.9, 1.0]),
    dtype=st.sampled_from([np.uint8, np.float32]),
    labels=st.booleans(),
    cost=st.sampled_from([quadratic_cost, cross_entropy]),
    # With η = 1/16, the factor 1 − η decay of the weights is 1, 0.99994, 1/16, 0 or −1.
    decay=st.sampled_from([0.0, 1e-3, 15.0, 16.0, 32.0]),
    threads=st.integers(1, 3),
    seed=st.integers(0, 1000),
)


@settings(max_examples=10)
# With η = 1/16 and this decay, 1 − η decay is 0, so each update drops the old weights.
@example(
    sizes=[7, 16, 2],
    n=30,
    batch=10,
    density=0.4,
    dtype=np.uint8,
    labels=True,
    cost=cross_entropy,
    decay=16.0,
    threads=1,
    seed=0,
)
@shapes
def test_any_shape_equals_the_books_loop(**drawn):
    require_book(**drawn)


@pytest.mark.slow
@settings(max_examples=100)
@shapes
def test_many_shapes_equal_the_books_loop(**drawn):
    require_book(**drawn)


def require_book(sizes, n, batch, density, dtype, labels, cost, decay, threads, seed):
    rng = np.random.default_rng(seed)
    batch = min(batch, n)
    network = drawn_network(rng, sizes)
    x, y = images(rng, n, sizes[0], density, dtype), answers(rng, n, sizes[-1], labels)
    order = rng.permutation(n)
    actual, finite = run(network, x, y, order, 1 / 16, batch, cost, decay, threads=threads)
    assert bool(finite)
    for got_leaf, want in zip(
        leaves(actual), leaves(by_hand(network, x, y, order, 1 / 16, batch, cost, decay)), strict=True
    ):
        np.testing.assert_allclose(got_leaf, want, rtol=2e-5, atol=2e-6)
    (c, right, saturated, gradient), a = jax.device_get(evaluated(network, x, y, True, cost))
    again = without_outputs(network, x, y, False, cost)
    assert again.gradient is None
    assert jax.device_get(again[:3]) == (c, right, saturated)
    labels = y if y.ndim == 1 else np.argmax(y, axis=-1)
    assert float(right) == pytest.approx(np.mean(np.argmax(a, axis=-1) == labels), rel=1e-6)
    eps = np.finfo(np.float32).eps
    assert bool(saturated) is bool(np.all((a <= eps) | (a >= 1 - eps)))
    # A full-batch step at η = 1 is minus the gradient.
    after = by_hand(network, x, y, np.arange(n), 1.0, n, cost)
    for g, before, then in zip(leaves(gradient), leaves(network), leaves(after), strict=True):
        np.testing.assert_allclose(g, np.asarray(before, np.float64) - then, rtol=1e-4, atol=1e-6)
    want_c, want_a, _ = costs_by_hand(network, *plain(x, y, sizes[-1]), entropy=cost is cross_entropy)
    np.testing.assert_allclose(a, want_a, rtol=1e-5, atol=1e-7)
    assert float(c) == pytest.approx(want_c, rel=1e-5)


def leaves(network):
    return [np.asarray(p) for layer in network for p in layer]


def distance(a, b):
    """Return ‖a − b‖ / ‖b‖ of each leaf, in float64."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return [float(np.linalg.norm(np.asarray(x, np.float64) - y) / np.linalg.norm(y)) for x, y in pairs]


@pytest.mark.parametrize(
    ("batch_size", "cost", "decay"),
    [(10, quadratic_cost, 0.0), (64, cross_entropy, 0.01)],
    ids=["quadratic cost, decay 0", "cross-entropy, decay 0.01"],
)
def test_one_step_equals_xla_and_float64_to_1e_6(batch_size, cost, decay):
    rng = np.random.default_rng(0)
    x, y = images(rng, batch_size, 784, 0.19), answers(rng, batch_size, 10, True)
    network, order = drawn_network(rng, (784, 30, 10)), np.arange(batch_size)
    actual, _ = run(network, x, y, order, 3.0, batch_size, cost, decay)
    examples = Examples(jnp.asarray(x), jnp.asarray(y))
    want, _, _ = by_xla(network, examples, order, 3.0, batch_size, cost, decay)
    assert max(distance(actual, want)) < 1e-6
    assert max(distance(actual, by_hand(network, x, y, order, 3.0, batch_size, cost, decay))) < 1e-6


@functools.partial(jax.jit, static_argnames=("batch_size", "cost"))
def by_xla(network, examples, order, eta, batch_size, cost, decay):
    rule = optax.with_extra_args_support(gradient_descent(eta))
    objective = xla.Objective(cost)
    return xla.epoch(network, rule.init(network), examples, order, eta, lambda _: rule, objective, batch_size, decay)


@pytest.mark.parametrize(
    ("cost", "eta", "l2"),
    [(quadratic_cost, 3.0, 0.0), pytest.param(cross_entropy, 0.5, 5.0, marks=pytest.mark.slow)],
    ids=["quadratic cost, l2 0", "cross-entropy, l2 5"],
)
def test_the_error_of_an_epoch_is_near_that_of_xla(x64, cost, eta, l2):
    """After 300 steps, the error is below 1e-3, and below 3 × (the error of XLA) + 1e-6."""
    rng = np.random.default_rng(1)
    x, y = images(rng, 3000, 784, 0.19), answers(rng, 3000, 10, True)
    network = init_network(jax.random.key(0), (784, 30, 10), dtype=jnp.float32)
    order, decay = np.asarray(random_order(jax.random.key(1), 3000)), np.float32(l2 / 3000)
    actual, _ = run(network, x, y, order, eta, 10, cost, decay)
    examples = Examples(jnp.asarray(x), jnp.asarray(y))
    other, _, _ = by_xla(network, examples, order, jnp.float32(eta), 10, cost, decay)
    want = by_hand(network, x, y, order, eta, 10, cost, decay)
    assert max(distance(actual, want)) < 3 * max(distance(other, want)) + 1e-6
    assert max(distance(actual, want)) < 1e-3


Z = [0, 1e-8, 1e-3, 5, 14, 16, 17, 20, 40, 87, 88.5, 90, 200, 1e4, np.inf]
Z = np.array([*Z, *(-z for z in Z)], np.float32)


def test_sigmoid_is_accurate_for_tiny_large_and_infinite_z():
    """The inputs are 0, so z is the bias."""
    network = (Layer(np.zeros((len(Z), 1), np.float32), Z),)
    _, a = evaluated(network, np.zeros((1, 1), np.float32), np.zeros((1, len(Z)), np.float32), False)
    assert np.asarray(a)[0] == pytest.approx([exact_sigmoid(z)[0] for z in Z], rel=3e-7, abs=1.2e-38)


KERNELS = ("xla", "native")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("layer", ["output", "hidden", "right output", "wrong output"])
def test_the_gradient_is_accurate_in_saturation(layer, kernel):
    """With the quadratic cost, ∂C/∂b is δ = (a − y)σ′(z) for an output, and wδσ′(z) for a hidden neuron.

    With the cross-entropy, ∂C/∂b is a − y for right and wrong outputs. The cost of a right output is
    log(1 + exp(−|z|)). The cost of a wrong output is larger by |z|. XLA flushes floats below 1.2e-38 to 0.
    """
    z = Z[np.isfinite(Z)]
    cost = cross_entropy if layer.endswith(" output") else quadratic_cost
    sigmoids = np.array([exact_sigmoid(each)[:2] for each in z]).T
    neurons, x = Layer(np.zeros((len(z), 1), np.float32), z), np.zeros((1, 1), np.float32)
    if layer == "output":
        network, y = (neurons,), (z < 0).astype(np.float32)[None]
        want = (sigmoids[0] - y[0]) * sigmoids[1]
    elif cost is cross_entropy:
        network, y = (neurons,), ((z > 0) == (layer == "right output")).astype(np.float32)[None]
        want = np.where(y[0] == 1, -np.array([exact_sigmoid(-each)[0] for each in z]), sigmoids[0])
    else:
        w = np.float32(0.01)
        network, y = (neurons, Layer(np.full((1, len(z)), w), np.zeros(1, np.float32))), np.zeros((1, 1), np.float32)
        a, slope = exact_sigmoid(w * sigmoids[0].sum())[:2]
        want = w * a * slope * sigmoids[1]
    network = jax.tree.map(jnp.asarray, network)
    options = {"epochs": 0, "batch_size": None, "eta": 1.0, "key": jax.random.key(0), "kernel": kernel}
    state = train(network, (x, y), **options, cost=cost).state
    np.testing.assert_allclose(np.asarray(state.gradient[0].b, np.float64), want, rtol=1e-4, atol=1.2e-38)
    if cost is cross_entropy:
        distances = np.abs(z.astype(np.float64))
        want_c = np.sum(np.log1p(np.exp(-distances)) + (distances if layer == "wrong output" else 0))
        assert float(state.cost) == pytest.approx(want_c, rel=1e-6)


@pytest.mark.parametrize("y", [0, 0.3, 1])
def test_the_cross_entropy_is_accurate_for_tiny_and_large_z(y):
    """For z = 60 and y = 1 the cost is exp(−60), which max(z, 0) − yz + log(1 + exp(−z)) would round to 0."""
    y = np.float32(y)
    for z in Z[np.isfinite(Z)]:
        network = (Layer(np.zeros((1, 1), np.float32), np.full(1, z)),)
        c = without_outputs(network, np.zeros((1, 1), np.uint8), np.full((1, 1), y), False, cross_entropy).cost
        exact = (1 - float(y)) * max(z, 0.0) - float(y) * min(z, 0.0) + np.log1p(np.exp(-abs(float(z))))
        assert float(c) == pytest.approx(exact, rel=3e-7, abs=1.2e-38)


def test_a_saturated_neuron_learns_with_every_backend():
    """At z = 17 and y = 0, the gradient is tiny. Both backends still reduce the cost from 0.5 to near 0."""
    network = (Layer(jnp.full((1, 784), 17 / 784), jnp.zeros(1)),)
    data = np.full((1200, 784), 255, np.uint8), np.zeros((1200, 1), np.float32)
    options = {"epochs": 14, "batch_size": 10, "eta": 30.0, "key": jax.random.key(0)}
    xla, native = (np.asarray(train(network, data, **options, kernel=kernel).history.cost) for kernel in KERNELS)
    assert xla[0] == pytest.approx(0.5)
    assert xla[-1] < 1e-4
    np.testing.assert_allclose(native, xla, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("where", [0, 1])
def test_a_nan_bias_is_reported(where):
    network = drawn_network(np.random.default_rng(0), (4, 3, 2))
    network[where].b[0] = np.nan
    network = jax.tree.map(jnp.asarray, network)
    x, y = images(np.random.default_rng(0), 6, 4, 1.0), np.zeros(6, np.int32)
    for cost in (quadratic_cost, cross_entropy):
        assert not bool(run(network, x, y, np.arange(6), 1.0, 2, cost)[1])
    result = train(network, (x, y), epochs=2, batch_size=2, eta=1.0, key=jax.random.key(0), kernel="native")
    assert result.outcome.reason.name == "START_NOT_FINITE"


def test_an_infinite_z_is_reported_for_the_cross_entropy():
    """The output is 0 or 1, so the quadratic cost is finite. The cross-entropy is infinite or NaN."""
    x, y = np.zeros((6, 4), np.uint8), np.zeros(6, np.int32)
    for z in (np.inf, -np.inf):
        network = drawn_network(np.random.default_rng(0), (4, 3, 2))
        network[1].b[0] = z
        finite = [bool(run(network, x, y, np.arange(6), 1.0, 2, cost)[1]) for cost in (quadratic_cost, cross_entropy)]
        assert finite == [True, False]
        assert not np.isfinite(evaluated(network, x, y, True, cross_entropy)[0].cost)


def test_many_networks_in_a_batch_equal_single_runs():
    data = load_dataset("digits")
    x, y = jnp.asarray(data.train.images[:200].reshape(200, -1)), jnp.asarray(data.train.labels[:200].astype(np.int32))
    rng = np.random.default_rng(0)
    etas = np.linspace(0.5, 4.0, 5, dtype=np.float32)
    networks = jax.tree.map(lambda *vs: np.stack(vs), *(drawn_network(rng, (64, 20, 10)) for _ in etas))
    orders = np.stack([rng.permutation(200).astype(np.int32) for _ in etas])
    decays = np.array([0, 1e-4, 1e-3, 0.01, 0.5], np.float32)
    settings = {"batch_size": 10, "cost": cross_entropy}
    together, finite = jax.jit(
        jax.vmap(lambda v, order, eta, decay: native.epoch(v, x, y, order, eta, **settings, decay=decay))
    )(networks, orders, etas, decays)
    assert finite.shape == (5,)
    together = jax.tree.map(np.asarray, together)

    def element(tree, k):
        return jax.tree.map(lambda v: v[k], tree)

    for k in range(5):
        single, _ = one_epoch(element(networks, k), x, y, orders[k], etas[k], **settings, decay=decays[k])
        assert_leaves_close(element(together, k), single, rtol=0)
    without, _ = one_epoch(element(networks, 0), x, y, orders[0], etas[0], **settings)
    assert_leaves_close(element(together, 0), without, rtol=0)
    # If the data are batched too, the networks run one after the other.
    xs = np.stack([np.asarray(x, np.float32) / 255, np.asarray(x, np.float32) / 510])
    dense = jax.jit(jax.vmap(lambda x, order: native.epoch(single, x, y, order, jnp.asarray(etas[0]), 10)))
    twice = jax.tree.map(np.asarray, dense(xs, orders[:2])[0])
    for k in range(2):
        one, _ = one_epoch(single, xs[k], y, orders[k], etas[0], 10)
        assert_leaves_close(element(twice, k), one, rtol=0)


@pytest.mark.slow
def test_the_derivative_by_eta_equals_that_of_xla():
    part = load_dataset("digits").train
    data = part.images[:60], part.labels[:60]
    network = init_network(jax.random.key(0), (64, 20, 10), "scaled")

    def last(eta, kernel):
        options = {"epochs": 1, "batch_size": 20, "key": jax.random.key(1), "kernel": kernel}
        return train(network, data, eta=eta, **options).history.cost[-1]

    actual, want = (jax.grad(last)(1.0, kernel) for kernel in ("native", "xla"))
    assert actual == pytest.approx(float(want), rel=1e-3)


# The library raises an error for a wrong argument, and never crashes the process.
def epoch_arguments(**changes):
    rng = np.random.default_rng(0)
    x = images(rng, 20, 6, 0.4)
    known = {"x": x, "y": answers(rng, 20, 3, True), "order": np.arange(20, dtype=np.int32), "eta": np.float32(1)}
    known |= {"decay": np.float32(0), "w1": np.zeros((4, 6), np.float32), "b1": np.zeros(4, np.float32)}
    known |= {"w2": np.zeros((3, 4), np.float32), "b2": np.zeros(3, np.float32)}
    known |= {"batch_size": np.int64(5), "cost": "quadratic"}
    return known | {name: change(known.get(name)) for name, change in changes.items()}


def put(index, value):
    return lambda x: jnp.asarray(np.asarray(x).copy()).at[index].set(value)


WRONG = {
    "index 20 for 20 examples": ({"order": put(3, 20)}, "order names an example"),
    "index -1": ({"order": put(3, -1)}, "order names an example"),
    "19 indices for 20 examples": ({"order": lambda x: x[:-1]}, "order has another shape"),
    "label 3 for 3 outputs": ({"y": put(0, 3)}, "a label is below 0"),
    "label -7": ({"y": put(0, -7)}, "a label is below 0"),
    "2 targets for 3 outputs": ({"y": lambda y: np.zeros((20, 2), np.float32)}, "y has another shape"),
    "5 inputs for 6 weights": ({"x": lambda x: x[:, :-1]}, "x has another shape"),
    "fewer inputs than labels": ({"x": lambda x: x[:-1]}, "x has another shape"),
    "inputs of another dtype": ({"x": lambda x: x.astype(np.int16)}, "x has another shape or dtype"),
    "no examples": ({"x": lambda x: x[:0], "y": lambda y: y[:0]}, "expected at least one example"),
    "w2 for 3 of 4 hidden neurons": ({"w2": lambda w: w[:, :-1]}, "does not follow"),
    "3 biases for 4 neurons": ({"b1": lambda b: b[:-1]}, "a bias has another shape"),
    "weights in float16": ({"w1": lambda w: w.astype(np.float16)}, "a weight has another shape or dtype"),
    "batch_size 0": ({"batch_size": lambda _: np.int64(0)}, "batch_size must be"),
    "batch_size above n": ({"batch_size": lambda _: np.int64(21)}, "batch_size must be"),
    "an array for eta": ({"eta": lambda e: np.ones(20, np.float32)}, "eta has another shape"),
    "an array for decay": ({"decay": lambda e: np.ones(20, np.float32)}, "decay has another shape"),
    "an unknown cost": ({"cost": lambda _: "hinge"}, "cost must be quadratic or cross-entropy, got hinge"),
    "an unknown instruction set": ({"isa": lambda _: "avx"}, "isa must be an instruction set of this processor, got a"),
    "an attribute of another type": ({"threads": lambda _: "two"}, "attribute threads is missing or has another type"),
    "an unknown attribute": ({"ISA": lambda _: "avx2"}, "the attribute ISA is unknown"),
}


def call_epoch(**given):
    """Call the library's epoch directly, without `native.epoch`."""
    attributes = {name: given.pop(name) for name in (*ATTRIBUTES, "ISA") if name in given}
    flat = [given[name] for name in ("w1", "b1", "w2", "b2")]
    out = (jax.ShapeDtypeStruct((), jnp.int32), *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in flat))
    return jax.ffi.ffi_call("jaxgd_epoch", out)(*given.values(), **attributes)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_buffer_raises(name):
    changes, match = WRONG[name]
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=match):
        jax.block_until_ready(call_epoch(**epoch_arguments(**changes)))


def test_right_buffers_are_accepted():
    assert call_epoch(**epoch_arguments())[0] == 1


# The instruction sets, from the least to the most capable.
ISAS = ("portable", "avx2", "avx512")


@pytest.mark.parametrize("isa", ISAS)
def test_each_isa_trains_to_the_same_cost(isa):
    """Rounding errors differ between the instruction sets, and grow over the updates."""
    if ISAS.index(isa) > ISAS.index(native.isa()):
        pytest.skip(f"this host has no {isa}")
    data = load_dataset("digits").train
    x, y = data.images[:1000].reshape(1000, -1), data.labels[:1000].astype(np.int32)
    network = drawn_network(np.random.default_rng(0), (64, 30, 10))
    costs = []
    for attributes in ({}, {"isa": isa}):
        trained, finite = run(network, x, y, np.arange(1000), 3.0, 10, **attributes)
        assert bool(finite)
        costs.append(float(evaluated(trained, x, y, True, **attributes)[0].cost))
    assert costs[1] == pytest.approx(costs[0], rel=1e-3)


SCRIPT = """
import sys, os
if sys.argv[1] != "all":
    os.sched_setaffinity(0, {next(iter(os.sched_getaffinity(0)))})
import hashlib, jax, numpy as np
from jaxgd import cross_entropy, init_network, load_dataset, train
data = load_dataset("digits")
# Wide enough that two threads train it together.
network = init_network(jax.random.key(0), (64, 300, 10), "scaled")
options = {"epochs": 3, "batch_size": 10, "key": jax.random.key(1), "kernel": "native"}
results = [train(network, data, eta=3.0, **options)]
results += [train(network, data, eta=0.5, cost=cross_entropy, l2=5.0, **options)]
trained = [(result.network, result.history) for result in results]
print(hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(trained))).hexdigest())
"""


@pytest.mark.slow
def test_the_number_of_processors_changes_no_bit():
    words = [sys.executable, "-c", SCRIPT]
    one, every = (
        subprocess.run([*words, cores], capture_output=True, text=True, check=True, timeout=120).stdout
        for cores in ("one", "all")
    )
    assert one == every


# The choice of a backend.


def chosen(requested="auto", sizes=(64, 30, 10), dtype=jnp.float32, x=np.uint8, output="sigmoid", **options):
    network = jax.tree.map(lambda v: jnp.asarray(v.astype(dtype)), drawn_network(np.random.default_rng(0), sizes))
    network = (*network[:-1], network[-1]._replace(activation=output))
    examples = Examples(jnp.zeros((5, sizes[0]), x), jnp.zeros(5, jnp.int32))
    known = {"cost": quadratic_cost, "optimizer": None, "batch_size": 10} | options
    return select_backend(requested, Job(network, examples, **known))


CHOICES = {
    "30 hidden neurons": ({}, "native", "quicker for these shapes"),
    "native requested": ({"requested": "native"}, "native", "as asked"),
    "xla requested": ({"requested": "xla"}, "xla", "as asked"),
    "512 neurons, batch of 128": ({"sizes": (64, 30, 512, 10), "batch_size": 128}, "xla", "512"),
    "512 neurons, full batch": ({"sizes": (64, 30, 512, 10), "batch_size": None}, "xla", "512"),
    "512 neurons, batch of 10": ({"sizes": (64, 30, 512, 10)}, "native", "quicker for these shapes"),
    "1000 neurons in the first layer": (
        {"sizes": (64, 1000, 10), "batch_size": 128},
        "native",
        "quicker for these shapes",
    ),
    "2000 neurons in the first layer": ({"sizes": (64, 2000, 10), "batch_size": 128}, "xla", "2000"),
    "bfloat16": ({"dtype": jnp.bfloat16}, "xla", "bfloat16"),
    "cross-entropy with l2": ({"cost": cross_entropy, "l2": 5.0}, "native", "quicker for these shapes"),
    "softmax": ({"cost": cross_entropy, "output": "softmax"}, "xla", "sigmoid neurons, got 'softmax'"),
    "a schedule": ({"schedule": lambda k: 0.5}, "xla", "only a constant η, and a schedule was given"),
    "an optimizer": ({"optimizer": optax.adam(0.1)}, "xla", "optimizer"),
    "another cost": ({"cost": lambda a, y: jnp.mean((a - y) ** 2)}, "xla", "the cross-entropy, and another cost"),
    "half-precision inputs": ({"x": jnp.bfloat16}, "xla", "inputs"),
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_choice_of_a_backend_has_a_reason(name):
    options, which, why = CHOICES[name]
    kernel = chosen(**options)
    assert kernel.name == which
    assert why in kernel.reason
    if which == "xla" and name not in (
        "xla requested",
        "512 neurons, batch of 128",
        "512 neurons, full batch",
        "2000 neurons in the first layer",
    ):
        with pytest.raises(RangeError, match="cannot run here"):
            chosen("native", **options)


@pytest.mark.bad_input
def test_an_unknown_kernel_is_refused():
    with pytest.raises(RangeError, match="kernel must be"):
        chosen("gpu")


def test_xla_is_chosen_without_the_library(monkeypatch):
    monkeypatch.setattr(native, "library", lambda: "it was not built")
    assert chosen() == BackendChoice("xla", "it was not built")
    assert native.about() == "it was not built"
    with pytest.raises(RangeError, match="it was not built"):
        chosen("native")


def test_a_broken_or_missing_library_is_reported(monkeypatch, tmp_path):
    (tmp_path / "_native.so").write_bytes(b"not a library")
    native.library.cache_clear()
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "_native.so")
    assert "cannot be loaded" in native.library()
    monkeypatch.setattr(native, "LIBRARY", Path(tmp_path / "nowhere.so"))
    native.library.cache_clear()
    assert "was not built" in native.library()
    monkeypatch.undo()
    native.library.cache_clear()
    assert not isinstance(native.library(), str)


@pytest.mark.parametrize(
    ("outputs", "label", "right"),
    [
        ([0.2, 0.9, 0.9], 1, True),
        ([0.2, 0.9, 0.9], 2, False),
        ([0.2, 0.9, 0.9], 0, False),
        ([0.9, 0.2, np.nan], 0, False),
        ([np.nan, 0.2, 0.9], 0, False),
    ],
    ids=[
        "label at the first of two maxima",
        "label at the second of two maxima",
        "label at the minimum",
        "NaN at another output",
        "NaN at the label",
    ],
)
def test_the_native_accuracy_equals_jaxgds_public_function(outputs, label, right):
    """The inputs are 0. The biases are chosen so that the outputs are `outputs`."""
    b = np.array(outputs, np.float32)
    network = (Layer(np.zeros((3, 1), np.float32), np.log(b / (1 - b))),)
    (_, actual, saturated, _), a = evaluated(network, np.zeros((2, 1), np.uint8), np.full(2, label, np.int32), False)
    assert float(actual) == right == float(accuracy(a, jnp.full(2, label)))
    assert not bool(saturated)


def test_one_unsaturated_output_makes_saturated_false():
    """Only one of 6,000 examples has an output of 1/2."""
    x = np.zeros((6000, 1), np.uint8)
    # The input 0 gives the outputs σ(20) and σ(−20). The input 1 gives σ(40) and σ(0) = 1/2.
    network = (Layer(np.full((2, 1), 20, np.float32), np.array([20, -20], np.float32)),)
    y = np.zeros(len(x), np.int32)
    assert bool(without_outputs(network, x, y, False).saturated)
    for row in (0, 2999, 5999):
        spoiled = x.copy()
        spoiled[row] = 255
        assert not bool(without_outputs(network, spoiled, y, False).saturated)


def test_byte_inputs_are_divided_by_255():
    x, y = images(np.random.default_rng(0), 30, 12, 0.3), np.zeros(30, np.int32)
    network = drawn_network(np.random.default_rng(0), (12, 5, 2))
    c = evaluated(network, x, y, False)[0].cost
    assert float(c) == pytest.approx(costs_by_hand(network, x / 255, np.eye(2)[y])[0], rel=1e-6)
