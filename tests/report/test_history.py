"""`jaxgd.plot` of a training run: the numbers in the figure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import jaxgd
from jaxgd.history import NUMBERS, Best, History, TrainResult, TrainState
from jaxgd.kernels import BackendChoice
from jaxgd.outcome import Reason

NAN = np.nan


def history_of(records, **known):
    """Return a history of NumPy arrays, which needs no compilation.

    The epochs count from 0. A value that is not in `known` is NaN.
    """
    shape = np.shape(known["cost"])
    numbers = dict.fromkeys(NUMBERS, np.full(shape, NAN)) | known
    return History(**numbers | {"epoch": np.broadcast_to(np.arange(shape[-1]), shape)}, records=records)


COST = np.array([1.0, 0.1, 0.005, 0.03])
RIGHT = np.array([0.1, 0.9, 0.97, 0.96])
RECORDS = {
    "done": np.arange(4),
    "layers": np.array([[1.0, 2.0], [NAN, NAN], [3.0, 4.0], [NAN, NAN]]),
    "nothing": np.full(4, NAN),
}
HISTORY = history_of(RECORDS, cost=COST, accuracy=RIGHT, validation_accuracy=RIGHT - 0.05)


def drawn(axes):
    return {line.get_label(): np.array(line.get_data()) for line in axes.get_lines()}


def test_a_run_is_drawn_with_its_best_network_and_its_records():
    best = Best((), np.int32(2), np.float32(0.92), np.int32(1), "accuracy")
    state = TrainState((), (), None, np.int32(3), None, None, best)
    result = TrainResult((), HISTORY, jaxgd.Outcome(np.array(Reason.PATIENCE)), state, BackendChoice("xla", ""))
    axes = jaxgd.plot(result, figure=Figure())
    assert [a.get_ylabel() for a in axes] == ["cost C", "accuracy, %", "done", "layers"]
    assert {a.get_xlabel() for a in axes} == {"epochs"}
    places = [a.get_subplotspec() for a in axes]
    assert [(p.rowspan.start, p.colspan.start) for p in places] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert axes[0].figure.get_suptitle() == "out of patience after 3 epochs"
    cost, accuracy, done, layers = map(drawn, axes)
    np.testing.assert_array_equal(cost["training"], [range(4), COST])
    assert set(cost) == {"training"}  # the validation and test costs are NaN
    np.testing.assert_allclose(accuracy["training"], [range(4), 100 * RIGHT])
    np.testing.assert_allclose(accuracy["validation"], [range(4), 100 * RIGHT - 5])
    np.testing.assert_allclose(accuracy["best"], [[2], [92]], rtol=1e-6)
    np.testing.assert_array_equal(next(iter(done.values())), [range(4), range(4)])
    np.testing.assert_array_equal(layers["[0]"], [[0, 2], [1, 3]])
    np.testing.assert_array_equal(layers["[1]"], [[0, 2], [2, 4]])
    assert axes[0].get_yscale() == "log"
    assert [a.figure.get_suptitle() for a in jaxgd.plot(HISTORY, figure=Figure())[:1]] == [""]


def test_a_batch_has_one_line_per_element():
    ended = np.stack([COST, np.where(np.arange(4) > 1, NAN, COST)])
    history = history_of({"done": np.stack([np.arange(4)] * 2)}, cost=COST + 0 * ended, validation_cost=ended)
    axes = jaxgd.plot(history, figure=Figure())
    assert [a.get_ylabel() for a in axes] == ["validation cost C", "done"]
    lines = drawn(axes[0])
    np.testing.assert_array_equal(lines["0"], [range(4), COST])
    np.testing.assert_array_equal(lines["1"], [range(2), COST[:2]])


def test_a_history_without_known_values_is_refused():
    with pytest.raises(jaxgd.RangeError, match="must have a known value, got only NaN"):
        jaxgd.plot(history_of({}, cost=np.full(4, NAN)), figure=Figure())


@pytest.mark.slow
def test_a_trained_batch_is_drawn():
    x, y = np.ones((4, 2), np.float32), np.array([0, 1, 0, 1])
    network = jaxgd.init_network(jax.random.key(0), (2, 2))
    settings = {"epochs": 2, "batch_size": 2, "key": jax.random.key(0)}
    result = jax.jit(jax.vmap(lambda eta: jaxgd.train(network, (x, y), eta=eta, **settings)))(jnp.array([0.1, -1.0]))
    cost, accuracy = jaxgd.plot(result, figure=Figure())
    assert cost.figure.get_suptitle() == "1 of 2 runs completed or ran out of patience"
    assert [len(line.get_xdata()) for line in cost.get_lines()] == [3, 1]
    assert accuracy.get_ylabel() == "training accuracy, %"
