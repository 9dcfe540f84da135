"""The best network of a run, and the patience of a run: `keep`, `by` and `patience` of `train`."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import assert_leaves_close, often

from jaxgd import init_network, quadratic_cost, train
from jaxgd.best import best_epochs
from jaxgd.checkpoint import Checkpoints
from jaxgd.errors import DtypeError, RangeError
from jaxgd.history import NUMBERS
from jaxgd.outcome import Reason

KEY = jax.random.key(5)
SETTINGS = {"batch_size": 10, "eta": 3.0, "key": KEY}


def by_a_loop(values, by, patience):
    """Return the best epoch, the last epoch and the reason of the end, as the documentation defines them."""
    best, waited = 0, 0
    for k in range(1, len(values)):
        better = values[k] > values[best] if by == "accuracy" else values[k] < values[best]
        best, waited = (k, 0) if better else (best, waited + 1)
        if waited == patience:
            return best, k, Reason.PATIENCE
    return best, len(values) - 1, Reason.COMPLETED


@pytest.mark.parametrize("by", ["accuracy", "cost"])
def test_the_best_network_and_the_end_are_those_of_a_loop_by_hand(digits, network, by):
    """The best network equals, bit for bit, the network that a run without `keep` has after that epoch.

    The validation accuracy and the validation cost rise and fall during this run.
    """
    path = []
    whole = train(network, digits, epochs=30, callback=lambda s, _: path.append(s.network), **SETTINGS)
    values = np.asarray(getattr(whole.history, f"validation_{by}"))
    assert set(np.sign(np.diff(values))) >= {-1, 1}
    ends = set()
    for patience in (None, 1, 2, 3, 5):
        best, last, reason = by_a_loop(values, by, patience)
        ends.add(last)
        result = train(network, digits, epochs=30, keep="best", by=by, patience=patience, **SETTINGS)
        assert (int(result.best_epoch), int(result.state.epoch)) == (best, last)
        assert len(result.history.epoch) == last + 1
        assert result.outcome.reason is reason
        assert result.outcome.ok
        assert_leaves_close(result.network, path[best], rtol=0)
        assert_leaves_close(result.state.network, path[last], rtol=0)
        kept = train(network, digits, epochs=30, by=by, patience=patience or 30, **SETTINGS)
        assert_leaves_close(kept.network, kept.state.network, rtol=0)
        assert int(kept.best_epoch) == best
        entries = [jax.tree.map(lambda x, k=k: x[k], result.history) for k in range(last + 1)]
        assert best_epochs(entries, by)[-1] == best
        assert best_epochs(entries, by) == [by_a_loop(values[: k + 1], by, None)[0] for k in range(last + 1)]
    assert len(ends) > 2
    assert_leaves_close(whole.network, path[-1], rtol=0)
    assert whole.best_epoch is None


def test_the_first_of_equal_networks_is_the_best_even_if_it_is_the_start(digits, network):
    """With η = 1e-6 the validation accuracy stays the same. With η = 1e-30 the network stays the same."""
    result = train(network, digits, epochs=3, keep="best", patience=2, **SETTINGS | {"eta": 1e-6})
    assert len(set(np.asarray(result.history.validation_accuracy).tolist())) == 1
    assert (int(result.best_epoch), int(result.state.epoch)) == (0, 2)
    assert_leaves_close(result.network, network, rtol=0)
    stuck = train(network, digits, epochs=3, keep="best", patience=2, **SETTINGS | {"eta": 1e-30})
    assert stuck.outcome.reason is Reason.UNCHANGED  # the outcome is the failure, although the patience ends too
    assert int(stuck.state.epoch) == 2


def test_a_continued_run_equals_one_run_bit_for_bit(digits, network, tmp_path):
    """Restore the run from a checkpoint after every two epochs. After the run's end, more epochs change nothing."""
    settings = SETTINGS | {"keep": "best", "by": "cost", "patience": 2, "eta": 6.0}
    whole = train(network, digits, epochs=20, **settings)
    assert whole.outcome.reason is Reason.PATIENCE
    result, values = None, []
    with Checkpoints(tmp_path, config={}) as checkpoints:
        for piece in range(11):
            state = None if result is None else checkpoints.restore(result.state).tree
            result = train(network, digits, epochs=2, state=state, **settings)
            values += np.asarray(result.history.cost)[(piece > 0) :].tolist()
            checkpoints.save(piece, result.state)
            checkpoints.wait()
    assert result.outcome.reason is Reason.PATIENCE
    np.testing.assert_array_equal(values, whole.history.cost)
    unkeyed = [(r.network, r.state._replace(key=0)) for r in (result, whole)]
    assert_leaves_close(*unkeyed, rtol=0)
    # A run that is continued without `keep` and `patience` forgets its best network.
    bare = train(network, digits, epochs=0, state=whole.state, **SETTINGS)
    assert bare.state.best is bare.best_epoch is None
    assert_leaves_close(bare.network, whole.state.network, rtol=0)


class _OldState(NamedTuple):
    """The state of training in earlier versions, without the field `best`."""

    network: Any
    optimizer_state: Any
    key: Any
    epoch: Any
    cost: Any
    gradient: Any


def test_a_checkpoint_of_an_earlier_version_is_restored(digits, network, tmp_path):
    result = train(network, digits, epochs=0, **SETTINGS)
    with Checkpoints(tmp_path, config={}) as checkpoints:
        checkpoints.save(1, (_OldState(*result.state[:6]), {name: getattr(result.history, name) for name in NUMBERS}))
        checkpoints.wait()
        state, _ = checkpoints.restore((result.state, dict.fromkeys(NUMBERS, jnp.zeros(())))).tree
    assert_leaves_close(state.network, network, rtol=0)
    assert state.best is None


@pytest.mark.slow
def test_each_batch_element_has_its_best_network_and_its_end(digits, network):
    """Under vmap, each element ends as in a run of its own, and its values differ only by rounding."""
    data = dataclasses.replace(digits, test=digits.validation)
    settings = {
        "epochs": 12,
        "batch_size": 10,
        "key": KEY,
        "keep": "best",
        "by": "cost",
        "patience": 3,
        "kernel": "xla",
    }

    def run(eta):
        return train(network, data, eta=eta, **settings)

    etas = [3.0, 9.0, 1e30, 1e-30, -1.0]
    together = jax.jit(jax.vmap(run))(jnp.array(etas))
    for i, eta in enumerate(etas[:-1]):
        alone, one = run(eta), jax.tree.map(lambda x, i=i: x[i], together)
        assert one.outcome.reason is alone.outcome.reason, eta
        assert int(one.best_epoch) == int(alone.best_epoch)
        assert int(one.state.epoch) == int(alone.state.epoch) == len(alone.history.epoch) - 1
        assert int(one.state.best.waited) == int(alone.state.best.waited)
        np.testing.assert_allclose(one.state.best.value, alone.state.best.value, rtol=1e-3)
        # The two programs round differently in each of up to 1,440 updates.
        assert_leaves_close(one.network, alone.network, rtol=1e-2)
    assert together.outcome.code.tolist()[-1] == int(Reason.BAD_RULE)
    assert together.best_epoch.tolist()[-1] == 0


def unknown(a, y):
    """Return NaN for the 30 validation examples of `small`, and otherwise the quadratic cost."""
    return quadratic_cost(a, y) * (jnp.nan if len(a) == 30 else 1.0)


def small(digits):
    part = lambda split, n: type(split)(split.images[:n], split.labels[:n])  # noqa: E731
    return dataclasses.replace(
        digits, train=part(digits.train, 60), validation=part(digits.validation, 30), test=part(digits.test, 20)
    )


@pytest.mark.parametrize("traced", often([False, True], [False]), ids=["by epoch", "one loop"])
def test_nan_is_never_the_best(digits, network, traced):
    """If every validation cost is NaN, the result is the last network, and the outcome is NOT_FINITE."""
    settings = SETTINGS | {"epochs": 3, "cost": unknown, "keep": "best", "by": "cost", "patience": 2}
    run = lambda network: train(network, small(digits), **settings)  # noqa: E731
    result = (jax.jit(run) if traced else run)(network)
    assert np.isnan(result.history.validation_cost).all()
    assert (int(result.best_epoch), int(result.state.epoch)) == (-1, 2)
    assert result.outcome.reason is Reason.NOT_FINITE
    assert_leaves_close(result.network, result.state.network, rtol=0)


@pytest.mark.slow
def test_wide_and_donated_networks_keep_their_best(digits, network, monkeypatch):
    """The best wide network is kept without a copy. A donated network is copied, because JAX deletes donated arrays."""
    settings = SETTINGS | {"epochs": 5, "batch_size": None, "eta": 40.0, "keep": "best", "by": "cost", "kernel": "xla"}
    data = small(digits)
    want = train(network, data, **settings)
    assert int(want.best_epoch) == 3
    monkeypatch.setattr("jaxgd.pytree.WIDE", 0)
    wide = train(network, data, **settings)
    monkeypatch.undo()
    donated = train(jax.tree.map(jnp.array, network), data, donate=True, **settings)
    for got in (wide, donated):
        assert int(got.best_epoch) == int(want.best_epoch)
        # Two programs may round differently in each of 5 updates.
        assert_leaves_close(got.network, want.network, rtol=1e-4)
    assert_leaves_close(wide.state.best.network, wide.network, rtol=0)


BAD = {
    "keep": ({"keep": "first"}, RangeError, "keep must be 'last' or 'best', got 'first'"),
    "by": ({"keep": "best", "by": "loss"}, RangeError, "by must be 'accuracy' or 'cost', got 'loss'"),
    "patience 0": ({"patience": 0}, RangeError, "patience must be at least 1, got 0"),
    "patience 1.5": ({"patience": 1.5}, DtypeError, "patience must be a whole number"),
    "no evaluation": ({"patience": 2, "evaluate": False}, RangeError, "got evaluate=False"),
    "no validation set": ({"keep": "best", "data": None}, RangeError, "needs validation examples, got none"),
    "one output": ({"keep": "best", "network": 1}, RangeError, 'a single output has none.\nPass by="cost"'),
    "progress": ({"progress": 1}, DtypeError, "progress must be True or False"),
}


@pytest.mark.bad_input
@pytest.mark.parametrize(("change", "error", "match"), BAD.values(), ids=BAD)
def test_bad_settings_are_refused(digits, network, change, error, match):
    change = dict(change)
    if "data" in change:
        change["data"] = digits.train
    if "network" in change:
        change["network"] = init_network(jax.random.key(0), (64, 1))
        ones = [split._replace(labels=np.zeros_like(split.labels)) for split in (digits.train, digits.validation)]
        change["data"] = dataclasses.replace(digits, train=ones[0], validation=ones[1], test=ones[1])
    with pytest.raises(error, match=match):
        train(**{"network": network, "data": digits, "epochs": 1} | SETTINGS | change)


@pytest.mark.bad_input
def test_a_state_whose_best_network_does_not_fit_is_refused(digits, network):
    state = train(network, digits, epochs=0, keep="best", **SETTINGS).state
    with pytest.raises(RangeError, match='is the best network by accuracy, got by="cost"'):
        train(network, digits, epochs=0, keep="best", by="cost", state=state, **SETTINGS)
    for best in (3, dataclasses.replace(state.best, network=network[:1])):
        with pytest.raises(DtypeError, match=r"state\.best must be None, or a Best"):
            train(network, digits, epochs=0, keep="best", state=state._replace(best=best), **SETTINGS)
