"""A sweep equals its networks alone, resumes bit for bit, and refuses folders and arguments that do not fit."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgd
from jaxgd.errors import CheckpointError, DtypeError, RangeError, ShapeError
from jaxgd.examples import Examples
from jaxgd.network import Layer, first_network
from jaxgd.outcome import Reason
from jaxgd.run_folder import locked_folder
from jaxgd.sweep import group as groups
from jaxgd.sweep import run
from jaxgd.sweep.fixed import is_fixed

SIZES = (8, 5, 3)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 8)).astype(np.float32), RNG.integers(0, 3, 30)
X[:, 0] *= 50
# At η = 3e38 the weights of some networks become infinite, and at η = 1e4 some are saturated for good.
SETTINGS = {"sizes": SIZES, "eta": [1.0, 1e4, 3e38], "seeds": 4, "epochs": 6, "kernel": "native"}


def sweep(**settings):
    return jaxgd.sweep((X, Y), **{**SETTINGS, **settings})


def table_of(sweep):
    """Return the rows as text, in which NaN equals NaN."""
    return [str(row) for row in sweep.table.to_pylist()]


@pytest.fixture(scope="module")
def whole():
    return sweep()


def stop_after(calls):
    """Return a function that says stop at the given call, counted from 1."""
    count = iter(range(1, calls + 1))
    return lambda: next(count) == calls


@pytest.fixture(scope="module")
def alone():
    """Return the results of `train` for each η and seed."""
    drawn = [first_network(seed, SIZES, "gaussian") for seed in range(SETTINGS["seeds"])]
    return {
        (eta, seed): jaxgd.train(
            network, (X, Y), epochs=6, batch_size=10, eta=eta, key=key, kernel="native", gradient_norm=False
        )
        for eta in SETTINGS["eta"]
        for seed, (network, key) in enumerate(drawn)
    }


def test_each_network_equals_train_alone(whole, alone, tmp_path):
    ended = 0
    for (eta, seed), result in alone.items():
        rows = [row for row in whole.table.to_pylist() if (row["eta"], row["seed"]) == (eta, seed)]
        ended += len(rows) < 7
        assert rows[-1]["outcome"] == result.outcome.reason.name
        assert [row["epoch"] for row in rows] == list(range(len(rows)))
        for name in ("cost", "accuracy"):
            expected = np.asarray(getattr(result.history, name))
            assert [row[name] for row in rows] == expected[: len(rows)].tolist()
            # A network that ended early has not changed since its last row.
            assert set(expected[len(rows) :].tolist()) <= {rows[-1][name]}
    outcomes = {row["outcome"] for row in whole.last().to_pylist()}
    assert outcomes == {"COMPLETED", "SATURATED", "NOT_FINITE"}
    assert ended >= 3


def test_kept_networks_are_the_best_and_equal_train_alone(alone, tmp_path):
    kept = sweep(folder=tmp_path, keep=2)
    completed = [(eta, seed) for (eta, seed), result in alone.items() if result.outcome.reason is Reason.COMPLETED]
    best = sorted(completed, key=lambda point: (-alone[point].history.accuracy[-1], alone[point].history.cost[-1]))[:2]
    assert [path.name for path in kept.networks] == [
        f"network-8-5-3-eta-{eta}-seed-{seed}.safetensors" for eta, seed in best
    ]
    assert sorted(tmp_path.glob("*.safetensors")) == sorted(kept.networks)
    for path, point in zip(kept.networks, best, strict=True):
        pairs = zip(jax.tree.leaves(jaxgd.load_network(path)), jax.tree.leaves(alone[point].network), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("calls", [1, 2, 5, 8, 12])
def test_a_stopped_sweep_resumes_bit_for_bit(whole, tmp_path, calls):
    # Two groups of six networks.
    stopped = sweep(folder=tmp_path, memory=6 * 3000, stop=stop_after(calls))
    assert not stopped.complete
    assert len(list((tmp_path / "groups").iterdir())) == 2
    resumed = sweep(folder=tmp_path)
    assert resumed.complete
    assert table_of(resumed) == table_of(whole)
    assert list(tmp_path.glob("groups/*/state.safetensors")) == []
    content = {path: path.read_bytes() for path in tmp_path.glob("**/*.parquet")}
    assert table_of(sweep(folder=tmp_path, stop=lambda: pytest.fail("a complete sweep runs no epoch"))) == table_of(
        whole
    )
    assert content == {path: path.read_bytes() for path in tmp_path.glob("**/*.parquet")}
