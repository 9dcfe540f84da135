"""Values that `train` records: functions of the state, gradient norms per layer and the sharpness."""

import io
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import by_hand, often

from jaxgd import Dataset, LayerGradientNorms, Part, TrainingSharpness, init_network, train
from jaxgd.errors import DtypeError, RangeError
from jaxgd.outcome import Reason

KEY = jax.random.key(5)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 4)).astype(np.float32), np.eye(2, dtype=np.float32)[RNG.integers(0, 2, 12)]
SETTINGS = {"epochs": 4, "eta": 1.0, "key": KEY}
RECORD = {
    "layers": LayerGradientNorms(),
    "weights": LayerGradientNorms(of="w", every=3),
    "biases": LayerGradientNorms(of="b"),
    "sharpness": TrainingSharpness(every=2),
    "first": lambda state: state.network[0].w[:2, 1:],
    "done": lambda state: state.epoch,
}


@pytest.fixture(scope="module")
def network():
    return init_network(jax.random.key(3), (4, 3, 2), dtype=jnp.float32)


def length(*arrays):
    return np.sqrt(sum(np.sum(np.asarray(x, np.float64) ** 2) for x in arrays))


def largest_eigenvalue(network):
    """Return the largest eigenvalue of the cost's Hessian, from central differences of the gradient in float64."""
    leaves, tree = jax.tree.flatten(network)
    v = np.concatenate([np.asarray(x, np.float64).ravel() for x in leaves])
    ends = np.cumsum([x.size for x in leaves])[:-1]

    def gradient(v):
        parts = [part.reshape(x.shape) for part, x in zip(np.split(v, ends), leaves, strict=True)]
        return np.concatenate([x.ravel() for x in jax.tree.leaves(by_hand(jax.tree.unflatten(tree, parts), X, Y)[2])])

    h = 1e-5  # The error is about h² = 1e-10.
    rows = [(gradient(v + h * e) - gradient(v - h * e)) / (2 * h) for e in np.eye(v.size)]
    return np.linalg.eigvalsh(np.array(rows))[-1]


@pytest.mark.parametrize("batch_size", often([5, None], [5]), ids=str)
def test_records_equal_values_computed_by_hand(network, batch_size):
    path, entries = [], []

    def watch(state, entry):
        path.append(state.network)
        entries.append(entry)

    settings = SETTINGS | {"batch_size": batch_size}
    result = train(network, (X, Y), record=RECORD, callback=watch, **settings)
    bare = train(network, (X, Y), **settings)
    jax.tree.map(np.testing.assert_array_equal, result.network, bare.network)  # recording does not change the network
    records = result.history.records
    assert sorted(records) == sorted(RECORD)
    assert {name: x.shape for name, x in records.items()} == {
        **{"layers": (5, 2), "weights": (5, 2), "biases": (5, 2), "sharpness": (5,), "first": (5, 2, 3), "done": (5,)}
    }
    for k, v in enumerate(path):
        gradient = by_hand(v, X, Y)[2]
        want = {
            "layers": [length(*layer) for layer in gradient],
            "weights": [length(layer.w) if k % 3 == 0 else np.nan for layer in gradient],
            "biases": [length(layer.b) for layer in gradient],
            "sharpness": largest_eigenvalue(v) if k % 2 == 0 else np.nan,
            "first": v[0].w[:2, 1:],
            "done": k,
        }
        for name, value in want.items():
            # The values are float32 sums over 12 examples. The relative error of Lanczos' eigenvalue is about eps.
            np.testing.assert_allclose(records[name][k], value, rtol=2e-5, err_msg=name)
            np.testing.assert_array_equal(entries[k].records[name], records[name][k])
    np.testing.assert_allclose(length(records["layers"][2]), result.history.gradient_norm[2], rtol=1e-6)
    # A continued run records the same values.
    half = train(network, (X, Y), record=RECORD, **settings | {"epochs": 3})
    rest = train(network, (X, Y), record=RECORD, state=half.state, **settings | {"epochs": 1})
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[3:]), rest.history.records, records)


@pytest.mark.slow
def test_one_compiled_loop_records_the_same_values(network):
    def run(network):
        return train(network, (X, Y), record=RECORD, batch_size=5, **SETTINGS).history.records

    # The compiled loop rounds differently, and the differences accumulate over 12 updates in float32.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), jax.jit(run)(network), run(network))


@pytest.mark.slow
def test_a_batch_element_that_has_ended_records_nan_or_0(network):
    """A batch element whose run has ended records NaN for a float, and 0 for a whole number."""
    record = {"sharpness": TrainingSharpness(every=2), "done": lambda state: state.epoch + 1}
    settings = {"epochs": 4, "batch_size": 5, "key": KEY, "record": record}
    result = jax.jit(jax.vmap(lambda eta: train(network, (X, Y), eta=eta, **settings)))(jnp.array([1.0, -1.0]))
    assert result.outcome.code.tolist() == [Reason.COMPLETED, Reason.BAD_RULE]
    assert result.history.records["done"].tolist() == [[1, 2, 3, 4, 5], [1, 0, 0, 0, 0]]
    finite = np.isfinite(result.history.records["sharpness"])
    assert finite.tolist() == [[True, False, True, False, True], [True, False, False, False, False]]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_one_line_on_a_terminal(network, monkeypatch):
    settings = SETTINGS | {"batch_size": 5}
    bare = train(network, (X, Y), **settings)
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        shown = train(network, (X, Y), progress=True, **settings)
        jax.tree.map(np.testing.assert_array_equal, shown.network, bare.network)
        *_, last = stream.getvalue().strip().split("\r")
        if stream.isatty():
            accuracy = f"{float(bare.history.accuracy[-1]):.2%}"
            assert re.search(rf"train: .*4/4 .*C = {bare.history.cost[-1]:.4g}, accuracy {accuracy}", last)
            assert "\n" not in last
        else:
            assert last == ""


BAD = {
    "a list as record": ([], DtypeError, r'record must be a dict, got list.\nPass record={"name": function}'),
    "a number as function": ({"x": 3}, DtypeError, r"record\['x'\] must be a function, got int"),
    "a field of History as name": (
        {"cost": len},
        DtypeError,
        "a non-empty string that is not a field of History, got 'cost'",
    ),
    "a number as name": ({3: len}, DtypeError, "a non-empty string that is not a field of History, got 3"),
    "every=0": ({"x": TrainingSharpness(every=0)}, RangeError, r"record\['x'\].every must be at least 1, got 0"),
    "of='z'": (
        {"x": LayerGradientNorms(of="z")},
        RangeError,
        r"record\['x'\].of must be 'layer', 'w' or 'b', got 'z'",
    ),
    "a text as result": (
        {"x": lambda state: "x"},
        DtypeError,
        r"the result of record\['x'\] must be an array of numbers, got str",
    ),
    "a tree as result": (
        {"x": lambda state: state},
        DtypeError,
        r"the result of record\['x'\] must be an array of numbers",
    ),
}


@pytest.mark.bad_input
@pytest.mark.parametrize(("record", "error", "match"), BAD.values(), ids=BAD)
def test_bad_records_are_refused(network, record, error, match):
    with pytest.raises(error, match=match):
        train(network, (X, Y), record=record, batch_size=5, **SETTINGS)


@pytest.mark.bad_input
def test_progress_under_jit_and_a_traced_record_are_refused(network):
    settings = SETTINGS | {"batch_size": 5}
    with pytest.raises(RangeError, match="progress=True runs on the host"):
        jax.eval_shape(lambda v: train(v, (X, Y), progress=True, **settings).network, network)
    with pytest.raises(RangeError, match="or a function in record is traced"):
        jax.vmap(lambda a: train(network, (X, Y), record={"x": lambda state: a}, **settings).network)(jnp.ones(2))


def test_an_exception_of_the_users_function_reaches_the_user(network):
    def raising(state):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        train(network, (X, Y), record={"x": raising}, batch_size=5, **SETTINGS)


@pytest.mark.slow
def test_records_and_the_best_network_inside_shard_map(network):
    """Inside shard_map, values vary over a mesh axis, even on one device. The search for λ_max must accept that."""
    record = {"sharpness": TrainingSharpness(every=2), "layers": LayerGradientNorms()}
    data = Dataset("mine", *[Part(np.round(127 + 40 * X).reshape(12, 2, 2).astype(np.uint8), Y.argmax(1))] * 3, 2)
    settings = {
        "epochs": 4,
        "batch_size": 5,
        "key": KEY,
        "record": record,
        "keep": "best",
        "by": "cost",
        "kernel": "xla",
    }

    def run(eta):
        result = train(network, data, eta=eta, **settings)
        return result.network, result.best_epoch, result.history.records

    mesh = jax.make_mesh((1,), ("networks",), axis_types=(jax.sharding.AxisType.Auto,))
    axis = jax.sharding.PartitionSpec("networks")
    together = jax.jit(jax.shard_map(jax.vmap(run), mesh=mesh, in_specs=axis, out_specs=axis))(jnp.ones(2))
    # The compiled program rounds differently, and the differences accumulate over 12 updates in float32.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4), together, run(1.0))
