"""The benchmark suite stores rows of one schema and tells a change from noise. Its peers do the same work."""

import ast
import dataclasses
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from support import trained_by_hand

from benchmarks import __main__ as commands
from benchmarks import campaign, compare, gradcheck, nielsen, store
from benchmarks.case import Case, Options
from benchmarks.compare import changes, lost
from benchmarks.device.plan import TASKS
from benchmarks.hardware import peak
from benchmarks.minimize import evaluations, steps
from benchmarks.pictures import reading
from benchmarks.pictures.photographs import photograph
from benchmarks.plot import draw
from benchmarks.registry import CASES, FAMILIES, chosen
from benchmarks.rows import QUANTITIES, Row, sampled
from benchmarks.table import table
from benchmarks.training import sweep
from benchmarks.training.jax_peers import by_jaxgd
from benchmarks.training.peers import ALL_PEERS, NETWORKS_PEERS, PEERS, START_PEERS, by_book, by_numpy, peers_of
from benchmarks.training.timing import chosen_peers, unlike
from benchmarks.training.work import START, Shared, Work, accuracy, cost, shared
from jaxgd import Layer, load_dataset
from jaxgd.errors import RangeError
from jaxgd.named_costs import NAMED_COSTS

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks/results").glob("*.jsonl"))
DATA = np.random.default_rng(0)


def run(monkeypatch, *words):
    """Return the exit status of a command."""
    monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, words)])
    return commands.main()


# The schema and the store.


def row(**fields):
    return Row(**({"case": "epoch", "variant": "jaxgd", "quantity": "time", "value": 1.0, "unit": "s/epoch"} | fields))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_committed_rows_are_valid(path):
    rows = store.read(path)
    assert rows
    for found in rows:
        assert Row.from_json(found.to_json()) == found
        assert found.date
        assert found.host["processor"]
        assert found.versions["jax"]


def test_committed_cases_equal_the_cases_of_the_suite():
    known = {case.name for case in CASES}
    found = {row.case.partition("/")[0] for path in RESULTS for row in store.read(path)}
    attacks = set(campaign.FAMILIES)
    device_cases = {f"device-{task.name}" for task in TASKS}
    assert found - attacks - device_cases == known
    assert found & attacks in (set(), attacks)


@pytest.mark.parametrize(
    "wrong",
    [
        {"value": 0.0}, {"value": -1.0}, {"value": float("nan")}, {"value": None}, {"value": "1"}, {"value": True},
        {"samples": (0.0, 0.0, 0.0), "n": 3}, {"samples": (float("nan"),)}, {"samples": ("1",)},
        {"samples": (1.0, 1.0)}, {"samples": (2.0,)}, {"n": 0}, {"spread": (1.1, 1.2)}, {"spread": (0.9,)},
        {"quantity": "speed"}, {"case": ""}, {"variant": 3}, {"host": []}, {"date": None},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_fields_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}|value: .*: expected .*, got "):
        row(**wrong)


@pytest.mark.parametrize("samples", [[1.0, 1.0], [0, 0, 0], [-1.0], [float("nan")], None, 3, ["1"]], ids=str)
def test_files_with_wrong_samples_are_refused(samples, tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.jsonl"
    fields = json.loads(row(samples=(1.0,)).to_json()) | {"samples": samples}
    path.write_text(json.dumps(fields))
    assert run(monkeypatch, "compare", path, path) == 2
    assert f"{path} is not a file of results: line 1: " in capsys.readouterr().err


def test_two_rows_for_one_figure_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f"{row().to_json()}\n{row(value=2.0).to_json()}\n")
    with pytest.raises(store.ResultsError, match="two rows for epoch, jaxgd, time"):
        store.read(path)


def test_new_rows_replace_rows_of_the_same_case_and_variant(tmp_path):
    path = tmp_path / "a.jsonl"
    old = [row(), row(quantity="memory", unit="MiB"), row(variant="numpy"), row(case="step"), row(precision="float64")]
    store.replace(path, old)
    store.replace(path, [row(value=3.0)])
    assert {(found.key, found.value) for found in store.read(path)} == {
        *((found.key, 1.0) for found in old[2:]), (row().key, 3.0),
    }  # fmt: skip


# Changes.


def result(slower=1.0, drift=1.0, seed=0, spread=0.02):
    """Return seven timings for each of three peers. `slower` multiplies the times of jaxgd, and `drift` all times."""
    rng = np.random.default_rng(seed)
    median = {"jaxgd": 0.035 * slower, "numpy": 0.41, "torch": 2.0}
    noise = lambda: drift * (1 + spread * rng.standard_normal(7))  # noqa: E731
    return [sampled("epoch", peer, "time", "s/epoch", (t * noise()).tolist()) for peer, t in median.items()]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("drift", [1.0, 1.3])
def test_a_time_longer_by_a_tenth_is_reported_and_an_unchanged_time_is_not(seed, drift):
    """A slower host, which slows all programs, changes no verdict."""
    old = result(seed=100 + seed)
    same = {change.new.variant: change.real for change in changes(old, result(drift=drift, seed=seed))}
    assert len(same) == 3
    assert not any(same.values())
    slower = {change.new.variant: change for change in changes(old, result(slower=1.1, drift=drift, seed=seed))}
    assert slower["jaxgd"].word == "worse"
    assert slower["jaxgd"].factor == pytest.approx(1.1, rel=0.05)
    assert not slower["numpy"].real
    faster = {change.new.variant: change for change in changes(old, result(slower=0.9, drift=drift, seed=seed))}
    assert faster["jaxgd"].word == "better"


def test_a_result_that_only_one_file_has_is_left_out():
    assert {change.new.variant for change in changes(result()[:2], result())} == {"jaxgd", "numpy"}


def test_the_noise_of_two_samples_is_unknown():
    old, new = ([row(samples=(x, x), value=x, n=2)] for x in (1.0, 2.0))
    assert [change.word for change in changes(old, new)] == ["noise unknown"]


def test_a_spread_replaces_samples_that_were_not_stored():
    """For normal samples, the noise from the stored percentiles is within 20% of the noise from the samples."""
    samples = np.random.default_rng(0).normal(1.0, 0.05, 2_000).tolist()
    kept = [sampled("epoch", "jaxgd", "time", "s/epoch", samples)]
    dropped = [dataclasses.replace(kept[0], samples=())]
    noise = [changes(rows, rows)[0].noise for rows in (kept, dropped)]
    assert noise[1] == pytest.approx(noise[0], rel=0.2)


def test_counts_are_compared_exactly():
    def verdicts(missed, expected=10, n=20):
        values = {"missed": missed, "as expected": expected, "cannot tell": 3 + missed}
        return [row(quantity=name, value=value, unit="checks", n=n) for name, value in values.items()]

    words = lambda new: [change.word for change in changes(verdicts(0), new)]  # noqa: E731
    assert words(verdicts(0)) == ["unchanged"] * 3
    assert words(verdicts(1)) == ["worse", "unchanged", "changed"]
    assert words(verdicts(0, expected=11)) == ["unchanged", "better", "unchanged"]
    # Counts over different numbers of checks are not compared.
    assert words(verdicts(1, n=10)) == []


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [(43, 44, "worse"), (43, 42, "better"), (43, 43, "unchanged"), (43, None, "worse"), (None, 43, "better"),
     (None, None, "unchanged")],
)  # fmt: skip
def test_evaluations_are_compared_exactly(old, new, word):
    rows = [[evaluations.count_row("named/beale", "jaxgd wolfe", count, "float64")] for count in (old, new)]
    assert [change.word for change in changes(*rows)] == [word]


@pytest.mark.parametrize(("quantity", "value"), [("time", 2), ("rate", 4), ("correct", 3)])
def test_speed_is_the_better_quartile_and_correct_images_are_the_median(quantity, value):
    assert compare._statistic(row(quantity=quantity))([1, 2, 3, 4, 5]) == value


def test_correct_images_are_compared_over_seeds():
    """A mean over 20 seeds that moves by two standard deviations of one seed is better or worse.

    New seeds with the same mean are within the noise.
    """
    rng = np.random.default_rng(1)
    rows = lambda mean: [sampled("n", "jaxgd", "correct", "images", rng.normal(mean, 15, 20).round().tolist())]  # noqa: E731
    old = rows(9500)
    assert [change.word for change in changes(old, rows(9500))] == ["within the noise"]
    assert [change.word for change in changes(old, rows(9470))] == ["worse"]
    assert [change.word for change in changes(old, rows(9530))] == ["better"]
    # Runs of different lengths are not compared.
    shorter, longer = ([dataclasses.replace(old[0], details={"epochs": n})] for n in (2, 30))
    assert changes(shorter, longer) == []
    assert list(lost(shorter, longer)) == ["n, jaxgd, correct: images, 2 epochs against images, 30 epochs"]


def test_compare_exits_with_1_only_if_jaxgd_is_worse(tmp_path, monkeypatch, capsys):
    old, same, slow, other = (tmp_path / f"{name}.jsonl" for name in ("old", "same", "slow", "other"))
    store.replace(old, result(seed=100))
    store.replace(same, result(seed=1))
    store.replace(slow, result(slower=1.1, seed=1))
    store.replace(other, [row(case="step")])
    assert run(monkeypatch, "compare", old, same) == 0
    assert run(monkeypatch, "compare", old, slow) == 1
    assert "worse" in capsys.readouterr().out
    assert run(monkeypatch, "compare", slow, old) == 0
    assert run(monkeypatch, "compare", old, other) == 2
    assert "expected files with a figure in common" in capsys.readouterr().err


def test_figures_of_few_samples_have_an_unknown_noise(tmp_path, monkeypatch, capsys):
    paths = [tmp_path / name for name in ("old", "new")]
    for path, value in zip(paths, (1.0, 1.3), strict=True):
        store.replace(path, [*result(), row(case="compile", quantity="compile time", unit="s", value=value)])
    assert run(monkeypatch, "compare", *paths) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "The noise of 1 of the figures is unknown; --all prints them too."


# The cases and the command.


def test_names_of_families_and_cases_are_unique():
    assert FAMILIES == (
        "epochs",
        "steps",
        "networks",
        "start-up",
        "growth",
        "minimize",
        "gradcheck",
        "nielsen",
        "memory",
        "sweep",
        "photographs",
    )
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert [case.name for case in chosen(["steps", "step-1000", "start-up"])] == [
        "step-1000", "step-10000", "step-50000", "start-up",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "expected names of cases or families, got 'nothing'"),
        (["epochs", "--repeats", "0"], "expected --repeats to be at least 1, got 0"),
        (["epochs", "--peers", "fortran"], "got fortran"),
        (["gradcheck", "--dtypes", "int8"], "got int8"),
        (["epochs", "--out", "no/such/folder/a.jsonl"], "expected --out in an existing folder"),
    ],
)
def test_run_refuses_mistakes_before_it_starts(words, message, monkeypatch, capsys):
    assert run(monkeypatch, "run", *words) == 2
    assert message in capsys.readouterr().err


def test_list_names_every_case_and_peer(monkeypatch, capsys):
    assert run(monkeypatch) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*FAMILIES, *(case.name for case in CASES), *ALL_PEERS))


def fake_rows(options):
    yield sampled("fake", "jaxgd", "time", "s/epoch", [1.0] * options.repeats)
    yield sampled("fake", "jaxgd", "memory", "MiB", [40.0])


def test_run_stamps_prints_and_stores_the_rows(tmp_path, monkeypatch, capsys):
    stamp = {"host": {"processor": "P", "threads": 1, "isa": "I", "peak_gflops": 4.0, "bandwidth_gb_s": 2.0}}
    stamp |= {"versions": {"jax": "1"}, "commit": "abc", "date": "2026-01-01"}
    monkeypatch.setattr("benchmarks.hardware.stamp", lambda: stamp)
    monkeypatch.setattr("benchmarks.registry.CASES", (Case("fake", "fakes", "nothing", fake_rows),))
    out = tmp_path / "out.jsonl"
    assert run(monkeypatch, "run", "fakes", "--repeats", 3, "--out", out) == 0
    assert "P, 1 threads, I: a matrix product at 4 GFLOP/s" in capsys.readouterr().out
    time, memory = store.read(out)
    assert (time.n, time.commit, memory.versions) == (3, "abc", {"jax": "1"})


def test_benchmarks_import_in_one_direction():
    """A room is a module or folder of benchmarks/, and imports only the rooms in its row of the table.

    A room that defines cases of `run` imports neither the store nor another room that defines cases.
    """
    folder = ROOT / "benchmarks"
    below = {
        "rows": set(),
        "store": {"rows"},
        "case": {"rows"},
        "hardware": set(),
        "table": {"rows"},
        "compare": {"rows"},
        "plot": {"rows"},
        "corpus": {"corpus"},
        "training": {"rows", "case", "hardware", "training"},
        "minimize": {"rows", "case", "minimize"},
        "gradcheck": {"rows", "case", "corpus"},
        "ablation": {"ablation", "corpus", "gradcheck"},
        "nielsen": {"rows", "case"},
        "pictures": {"rows", "case", "pictures"},
        "registry": {"case", "training", "minimize", "gradcheck", "nielsen", "pictures"},
        "campaign": {"rows", "store", "hardware", "campaign"},
        "device": {"rows", "store", "hardware", "training", "device"},
    }
    rooms = set()
    for path in folder.rglob("*.py"):
        room = path.relative_to(folder).with_suffix("").parts[0]
        if room in ("__main__", "commands", "__init__"):
            continue
        rooms.add(room)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "benchmarks":
                parts = node.module.split(".")
                used = {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
                assert used <= below[room], f"{path.name} imports {used}"
    assert rooms == set(below)


# Training.


def small(batch_size, networks=1, l2=None):
    work = Work("small", "epochs", (20, 6, 4), 23, batch_size, 0.5, networks, l2=l2)
    x = np.where(DATA.random((23, 20)) < 0.3, DATA.integers(0, 256, (23, 20)), 0).astype(np.uint8)
    weights = [
        (DATA.normal(size=(b, a)).astype(np.float32), DATA.normal(size=b).astype(np.float32))
        for a, b in itertools.pairwise(work.sizes)
    ]
    return work, Shared(x, DATA.integers(0, 4, 23).astype(np.int32), weights)


def second(units):
    """Return a peer's weights after two units of work."""
    return list(itertools.islice(units, 2))[-1]


def require_same(got, want):
    # The error of float32 over ten steps is about 1e-6. A wrong factor in one step changes the weights by 1e-2.
    for (w, b), (v, c) in zip(got, want, strict=True):
        np.testing.assert_allclose(w, v, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(b, c, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [5, None], ids=str)
def test_peers_do_the_same_steps(batch_size):
    work, data = small(batch_size)
    want = second(by_book(work, data))
    assert cost(want, data) != pytest.approx(cost(data.weights, data), rel=1e-3)
    for peer in (PEERS["jaxgd"], PEERS["jaxgd-xla"], by_numpy, PEERS["scan"], PEERS["jit-in-python"]):
        require_same(second(peer(work, data)), want)


@pytest.mark.slow
def test_peers_of_the_cross_entropy_do_the_same_steps():
    work, data = small(5, l2=2.0)
    want = [Layer(w, b) for w, b in data.weights]
    for k in range(2):
        settings = {"entropy": True, "decay": work.l2 / work.n}
        want = trained_by_hand(want, data.x / 255, np.eye(4)[data.y], data.order(k), work.eta, 5, **settings)
    assert set(peers_of(work)) == {"jaxgd", "jaxgd-xla"}
    for peer in peers_of(work).values():
        require_same(second(peer(work, data)), want)


def test_an_error_of_train_ends_the_peer():
    """The peer runs `train` in a thread. If `train` fails, the peer must not wait forever."""
    with pytest.raises(RangeError, match="kernel must be"):
        next(by_jaxgd("fpga")(*small(5)))


@pytest.mark.slow
@pytest.mark.parametrize("peer", NETWORKS_PEERS)
def test_the_first_of_many_networks_does_the_steps_of_a_single_network(peer):
    work, data = small(5, networks=3)
    require_same(second(NETWORKS_PEERS[peer](work, data)), second(by_numpy(work, data)))


def test_peers_that_did_other_work_are_named():
    """Costs are compared, or accuracies if the cost functions or the orders of examples differ. NaN equals no value."""
    same = {"cost": 0.1, "accuracy": 0.9}
    found = {"jaxgd": same, "numpy": {**same, "cost": 0.104}, "sklearn": {"cost": 3.0, "accuracy": 0.85}}
    assert unlike(found, "jaxgd") == {}
    wrong = {"numpy": {**same, "cost": 0.2}, "torch": {**same, "cost": np.nan}, "sklearn": {**same, "accuracy": 0.1}}
    assert set(unlike(found | wrong, "jaxgd")) == {"numpy", "torch", "sklearn"}
    # In a cold case each peer has its own order of examples, so only accuracies are compared.
    assert set(unlike(found | wrong, "jaxgd", cold=True)) == {"sklearn"}
    assert set(unlike(found | {"numpy": {**same, "accuracy": np.nan}}, "jaxgd", cold=True)) == {"numpy"}


COSTS = {"jaxgd": 0.1, "numpy": 0.1}


class FakeWorker:
    """A peer whose times come from a table, and whose cost comes from COSTS."""

    def __init__(self, work, peer, data_dir):
        self.peer, self.turns = peer, iter({"jaxgd": [0.03, 0.02, 0.04], "numpy": [0.3, 0.4, 0.2]}[peer])

    def ask(self, word):
        if word == "cost":
            return {"cost": COSTS[self.peer], "accuracy": 0.95, "mebibytes": 40.0}
        return {"seconds": 1.5 if word == "unit" else next(self.turns)}

    def end(self):
        pass


def test_a_training_case_has_rows_of_time_compile_time_and_memory(monkeypatch):
    monkeypatch.setattr("benchmarks.training.timing.Worker", FakeWorker)
    case = next(case for case in CASES if case.name == "batch-10")
    rows = list(case.measure(Options(peers=("jaxgd", "numpy"), repeats=3)))
    found = {(row.variant, row.quantity): row for row in rows}
    assert {key: row.value for key, row in found.items()} == {
        ("jaxgd", "time"): 0.03, ("jaxgd", "compile time"): 1.47, ("jaxgd", "memory"): 40.0,
        ("numpy", "time"): 0.3, ("numpy", "compile time"): 1.2, ("numpy", "memory"): 40.0,
    }  # fmt: skip
    time = found["numpy", "time"]
    assert (time.samples, time.unit) == ((0.3, 0.4, 0.2), "s/epoch")
    # The median, minimum and maximum of the ratios 10, 20 and 5.
    assert time.details["ratio"] == [10, 5, 20]
    assert (time.details["growing"], time.details["size"]) == ("batch size", 10)
    monkeypatch.setitem(COSTS, "numpy", 0.2)
    with pytest.raises(SystemExit, match=r"after one epoch C is 0\.1 for jaxgd, but \{'numpy': 0\.2\}"):
        list(case.measure(Options(peers=("jaxgd", "numpy"), repeats=3)))
    with pytest.raises(SystemExit, match="expected --peers from"):
        chosen_peers("start-up", START_PEERS, ("book",))


def test_a_sweep_has_rows_of_time_processor_time_and_memory(monkeypatch):
    turns = {"jaxgd": iter([2.0, 4.0, 3.0]), "jaxgd-each": iter([6.0, 4.0, 9.0])}
    costs = {"jaxgd": 0.1, "jaxgd-each": 0.1}

    def timed(name, program, data_dir):
        seconds = next(turns[program], 1.0)
        return {"seconds": seconds, "processor": 2 * seconds, "mebibytes": 40.0, "cost": costs[program]}

    monkeypatch.setattr(sweep, "timed", timed)
    case, options = chosen(["sweep-digits"])[0], Options(peers=("jaxgd", "jaxgd-each"), repeats=3)
    found = {(row.variant, row.quantity): row for row in case.measure(options)}
    assert {key: row.value for key, row in found.items()} == {
        ("jaxgd", "time"): 3.0, ("jaxgd", "processor time"): 6.0, ("jaxgd", "memory"): 40.0,
        ("jaxgd-each", "time"): 6.0, ("jaxgd-each", "processor time"): 12.0, ("jaxgd-each", "memory"): 40.0,
    }  # fmt: skip
    # The median, minimum and maximum of the ratios 3, 1 and 3.
    assert found["jaxgd-each", "time"].details["ratio"] == [3, 1, 3]
    costs["jaxgd-each"] = 0.11
    with pytest.raises(SystemExit, match=r"at the end C is 0\.1 for jaxgd, but \{'jaxgd-each': 0\.11\}"):
        list(case.measure(options))


@pytest.mark.slow
def test_the_programs_of_a_sweep_reach_the_same_costs():
    networks = sweep.Networks("small", "digits", (64, 4, 10), (0.5, 1.0), 2, 2, "scaled", picked=3)
    data = load_dataset("digits")
    assert networks.sample == [0, 1, 3]
    costs = sweep.by_sweep(networks, data)
    assert len(set(costs)) == 3
    assert sweep.by_train(networks, data) == costs
    pytest.importorskip("torch")
    np.testing.assert_allclose(sweep.by_torch(networks, data), costs, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["jaxgd", "numpy"])
def test_a_peer_of_the_start_up_case_learns_digits(peer):
    weights = next(iter(START_PEERS[peer](START, shared(START, Path("nowhere")))))
    assert accuracy(weights, shared(START, Path("nowhere"))) > 0.97


@pytest.mark.slow
def test_the_peak_is_plausible():
    found = peak()
    assert 1 < found["peak_gflops"] < 1e5
    assert 0.1 < found["bandwidth_gb_s"] < 1e4


# The other families.


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained:DeprecationWarning")
def test_programs_for_the_step_time_do_the_same_steps():
    problem = steps.quadratic(50, 10)
    runs = steps.runners(problem)
    assert len(runs) >= 8
    assert max(steps.differences(problem, runs).values()) < steps.PARITY
    # A learning rate that is wrong by 1% is noticed.
    wrong = steps.by_python(problem._replace(eta=1.01 * problem.eta))
    assert steps.differences(problem, {"wrong": (wrong, "")})["wrong"] > steps.PARITY


@pytest.mark.slow
def test_the_watch_counts_the_evaluations_of_scipy():
    """A watch counts each call of the cost, and notes the call at which C met its target."""
    named = NAMED_COSTS["beale"]
    watch = evaluations.Watch([lambda c: c <= 1e-8])
    evaluations.by_scipy(named.cost, np.asarray(named.start, np.float32), "BFGS", watch, 100)
    assert watch.reached == [watch.calls]
    assert 5 < watch.calls < 50


def test_verdicts_are_counted_by_checker_and_kind(monkeypatch):
    functions = (
        gradcheck.Case("right", lambda x: x.sum(), lambda rng, dtype: (rng.normal(size=3),)),
        gradcheck.Case("not right", lambda x: x.sum(), lambda rng, dtype: (rng.normal(size=3),), ("wrong",)),
    )
    verdicts = {"a": lambda function, args, seed: "right", "b": lambda function, args, seed: ["wrong", 1 / 0][seed]}
    monkeypatch.setattr(gradcheck, "CHECKERS", verdicts)
    done = list(gradcheck.checks(functions, "float32", 2))
    for checker, expected in (
        ("a", {"as expected": 2, "missed": 2, "false alarms": 0, "cannot tell": 0, "errors": 0}),
        ("b", {"as expected": 0, "missed": 0, "false alarms": 0, "cannot tell": 0, "errors": 4}),
    ):
        mine = [check for check in done if check.checker == checker]
        rows = {row.quantity: row for row in gradcheck.rows_of("case", checker, "float32", mine)}
        assert {name: rows[name].value for name in expected} == expected
        assert all(rows[name].n == 4 for name in expected)
    assert rows["errors"].details == {"functions": {"right": [0, 1], "not right": [0, 1]}}


def test_the_comparison_with_the_book_has_medians_and_percentiles():
    details = nielsen.comparison([[1, 5], [9, 2], [3, 4]], "9129", (1, 2, 3))
    assert details["median by epoch"] == "3 4"
    assert details["independent implementation"] == "10th percentile 1, median 2, 90th percentile 3"


# Text and pictures.


def timed(case, variant, milliseconds, unit="s/epoch", **details):
    seconds = [x * milliseconds / 1e3 for x in (0.9, 1.0, 1.1)]
    details = {"baseline": "jaxgd", "ratio": [milliseconds / 30, 1, 9], "gflops": 100.0, "accuracy": 0.95} | details
    return sampled(case, variant, "time", unit, seconds, host={"peak_gflops": 400.0}, details=details)


def test_table_has_a_line_for_each_variant():
    rows = [timed("epoch-30", "jaxgd", 30), timed("epoch-30", "numpy", 250)]
    rows.append(sampled("epoch-30", "numpy", "memory", "MiB", [40.0]))
    lines = table(rows).splitlines()
    assert lines[1].split() == ["float32", "time", "[s/epoch]", "memory", "[MiB]"]
    assert lines[3].split()[:6] == ["numpy", "0.25", "(0.23", "to", "0.27)", "40"]
    assert "8.33 × jaxgd" in lines[3]
    assert "25% of the peak" in lines[3]
    counts = [evaluations.count_row(f"e/{name}", "a", count, "float64") for name, count in (("b", 15), ("c", None))]
    assert [line.split() for line in table(counts).splitlines()[1:]] == [["float64", "b", "c"], ["a", "15", "–"]]
    # With more than 12 inputs, each input has a line. The lines of the other quantity come last.
    counts = [evaluations.count_row(f"e/{i}", v, 15 + i, "float64") for i in range(13) for v in ("a", "b")]
    counts += [row(case="e", variant="a", quantity="reached", value=1, unit="problems", precision="float64")]
    lines = [line.split() for line in table(counts).splitlines()[1:]]
    assert lines[0] == ["a", "b"]
    assert lines[1:14] == [[f"e/{i}", str(15 + i), str(15 + i)] for i in range(13)]
    assert lines[14:] == [["float64", "reached", "[problems]"], ["a", "1"]]


def test_plot_writes_pictures_of_speed_and_growth(tmp_path):
    rows = [timed("epoch-30", "jaxgd", 30), timed("epoch-30", "numpy", 250)]
    grown = [timed(f"batch-{m}", p, m, growing="batch size", size=m) for m in (1, 10) for p in ("jaxgd", "numpy")]
    assert [path.name for path in draw(rows + grown, tmp_path)] == ["speed.png", "growth.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    assert draw([row(quantity="memory", unit="MiB")], tmp_path) == []


def test_every_quantity_says_how_it_is_compared():
    assert all(kind.better in ("lower", "higher", "neither") for kind in QUANTITIES.values())
    assert all(kind.noise in ("host", "sample", "none") for kind in QUANTITIES.values())


def test_readings_of_photographs_are_counted():
    """Photographs 0 and 4 are right, 1 and 2 are wrong, and 3 is refused. 4 has two digits. 2 and 4 have a warning."""
    out = "0.jpg\t7\t0.1\t0.9\n1.jpg\t3\t0.8\t0\n2.jpg\t3\t0.8\t0\n4.jpg[1:9,0:3]\t1\t0.9\n4.jpg[1:9,5:8]\t2\t0.9\n"
    err = (
        "jaxgd predict: warning: 2.jpg: it is low\njaxgd predict: read_picture: 3.jpg: a blank one\n"
        "jaxgd predict: warning: 4.jpg[1:9,0:3]: one of 2 digits\n"
    )
    found = reading.readings(out, err, 5)
    assert [r.digits for r in found] == [(7,), (3,), (3,), (), (1, 2)]
    assert [r.warned for r in found] == [False, False, True, True, True]
    assert reading.counts(found, [(7,), (1,), (1,), (1,), (1, 2)]) == (2, 1, 3)


def test_photographs_follow_from_kind_seed_and_index():
    images = np.zeros((3, 28, 28), np.uint8)
    images[:, 4:24, 9:18] = images[:, 8:11, 5:20] = 255
    photographs = (photograph("frame", images, np.arange(3), *numbers) for numbers in ((5, 0), (5, 0), (6, 0), (5, 1)))
    first, again, *others = photographs
    assert first == again
    assert all(first.content != other.content for other in others)
    assert len(photograph("two digits", images, np.arange(3), 5, 0).labels) == 2
