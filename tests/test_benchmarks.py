"""The benchmark suite tells a change from noise, and its peers walk the same way."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cases import START, Case, Shared, accuracy, cost, shared
from benchmarks.compare import changes, read
from benchmarks.hardware import peak
from benchmarks.measure import table, unlike
from benchmarks.peers import OF_NETWORKS, OF_START, PEERS, by_book, by_numpy
from benchmarks.plot import draw

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


@pytest.mark.parametrize("times", [[], [0, 0, 0], [-1.0], [float("nan")], None, 3, ["1"]], ids=str)
def test_times_that_are_none_are_refused(times, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text(json.dumps({"case": "epoch", "peer": "jaxgd", "times": times}))
    with pytest.raises(SystemExit) as caught:
        read(tmp_path / "a.jsonl")
    assert caught.value.code == 2
    assert "is no file of results" in capsys.readouterr().err


def small(batch_size, networks=1):
    case = Case("small", (20, 6, 4), 23, batch_size, 0.5, networks)
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
    for peer in (PEERS["jaxgd"], PEERS["jaxgd-xla"], by_numpy, PEERS["scan"], PEERS["jit-in-python"]):
        got = list(itertools.islice(peer(case, data), 2))[-1]
        for (w, b), (v, c) in zip(got, want, strict=True):
            np.testing.assert_allclose(w, v, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(b, c, rtol=1e-4, atol=1e-5)


def require_same(got, want):
    for (w, b), (v, c) in zip(*(list(itertools.islice(units, 2))[-1] for units in (got, want)), strict=True):
        np.testing.assert_allclose(w, v, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(b, c, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("peer", OF_NETWORKS)
def test_the_first_of_many_networks_walks_as_one_does(peer):
    case, data = small(5, networks=3)
    require_same(OF_NETWORKS[peer](case, data), by_numpy(case, data))


def test_who_did_something_else_is_named():
    """By cost; of another loss by accuracy; and NaN is like nothing."""
    same = {"cost": 0.1, "accuracy": 0.9}
    found = {"jaxgd": same, "numpy": {**same, "cost": 0.104}, "sklearn": {"cost": 3.0, "accuracy": 0.85}}
    assert unlike(found, "jaxgd") == {}
    wrong = {"numpy": {**same, "cost": 0.2}, "torch": {**same, "cost": np.nan}, "sklearn": {**same, "accuracy": 0.1}}
    assert set(unlike(found | wrong, "jaxgd")) == {"numpy", "torch", "sklearn"}
    # From other weights, costs are others.
    assert set(unlike(found | wrong, "jaxgd", start=True)) == {"sklearn"}


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["jaxgd", "numpy"])
def test_a_process_learns_digits(peer):
    weights = next(iter(OF_START[peer](START, shared(START, Path("nowhere")))))
    assert accuracy(weights, shared(START, Path("nowhere"))) > 0.97


@pytest.mark.slow
def test_the_peak_is_a_machines():
    found = peak()
    assert 1 < found["peak_gflops"] < 1e5
    assert 0.1 < found["bandwidth_gb_s"] < 1e4


def row(case, peer, milliseconds, **more):
    seconds = [milliseconds / 1e3, milliseconds / 1.1e3, milliseconds / 0.9e3]
    known = {"case": case, "peer": peer, "unit": "epoch", "seconds": seconds, "ratio": [milliseconds / 30, 1, 9]}
    known |= {"gflops": 100.0, "compile_seconds": 0.5, "megabytes": 40, "accuracy_first": 0.95}
    return known | more


def test_table_and_pictures(tmp_path):
    rows = [row("epoch-30", "jaxgd", 30), row("epoch-30", "numpy", 250)]
    text = table(Case("epoch-30", (784, 30, 10), 50_000, 10, 3.0), rows, 400.0)
    assert "numpy" in text.splitlines()[2]
    assert "8.33 ×" in text
    assert "25% of the peak" in text
    grown = [row(f"batch-{m}", p, m, growing="batch size", size=m) for m in (1, 10) for p in ("jaxgd", "numpy")]
    assert [path.name for path in draw(rows + grown, tmp_path)] == ["speed.png", "growth.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
