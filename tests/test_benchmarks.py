"""The benchmark suite tells a change from noise, and its peers walk the same way."""

import itertools

import numpy as np
import pytest

from benchmarks.cases import Case, Shared, cost
from benchmarks.compare import changes
from benchmarks.peers import PEERS, by_book, by_numpy

DATA = np.random.default_rng(0)


def result(slower=1.0, drift=1.0, seed=0, spread=0.02):
    """Seven times of three peers; the first is jaxgd's, which is slower by a factor."""
    rng = np.random.default_rng(seed)
    median = {"jaxgd": 0.035 * slower, "numpy": 0.41, "torch": 2.0}
    noise = lambda: drift * (1 + spread * rng.standard_normal(7))  # noqa: E731
    return [{"case": "epoch", "peer": peer, "times": (t * noise()).tolist()} for peer, t in median.items()]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("drift", [1.0, 1.3])
def test_a_tenth_slower_is_told_and_no_change_is_not(seed, drift):
    """Also where the machine as a whole has become slower."""
    old = result(seed=100 + seed)
    same = {change.peer: change.real for change in changes(old, result(drift=drift, seed=seed))}
    assert not any(same.values())
    slower = {change.peer: change for change in changes(old, result(slower=1.1, drift=drift, seed=seed))}
    assert slower["jaxgd"].real
    assert slower["jaxgd"].factor == pytest.approx(1.1, rel=0.05)
    assert not slower["numpy"].real


def test_what_is_in_one_file_only_is_left_out():
    assert {change.peer for change in changes(result()[:2], result())} == {"jaxgd", "numpy"}


def small(batch_size):
    case = Case("small", (20, 6, 4), 23, batch_size, 0.5)
    x = np.where(DATA.random((23, 20)) < 0.3, DATA.integers(0, 256, (23, 20)), 0).astype(np.uint8)
    weights = [
        (DATA.normal(size=(b, a)).astype(np.float32), DATA.normal(size=b).astype(np.float32))
        for a, b in itertools.pairwise(case.sizes)
    ]
    return case, Shared(x, DATA.integers(0, 4, 23).astype(np.int32), weights)


@pytest.mark.parametrize("batch_size", [5, None], ids=str)
def test_peers_walk_the_same_way(batch_size):
    case, data = small(batch_size)
    want = list(itertools.islice(by_book(case, data), 2))[-1]
    assert cost(want, data) != pytest.approx(cost(data.weights, data), rel=1e-3)
    for peer in (PEERS["jaxgd"], PEERS["jaxgd-xla"], by_numpy, PEERS["jit-in-python"]):
        got = list(itertools.islice(peer(case, data), 2))[-1]
        for (w, b), (v, c) in zip(got, want, strict=True):
            np.testing.assert_allclose(w, v, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(b, c, rtol=1e-4, atol=1e-5)
