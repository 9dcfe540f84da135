"""A sweep trains the same networks as `train`, resumes bit for bit, and refuses wrong folders and arguments."""

import json
import os
import socket
import subprocess
import sys
import time

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
from jaxgd.sweeps import group as groups
from jaxgd.sweeps.fixed import is_fixed

SIZES = (8, 5, 3)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 8)).astype(np.float32), np.eye(3, dtype=np.float32)[RNG.integers(0, 3, 30)]
# One large target makes some weights infinite at η = 1e37. At η = 1e4, some networks saturate and stay saturated.
Y[0, 0] = 1e3
SETTINGS = {"sizes": SIZES, "eta": [1e4, 1e-3, 1e37], "seeds": 4, "epochs": 6, "kernel": "native"}


def sweep(**settings):
    return jaxgd.sweep((X, Y), **{**SETTINGS, **settings})


def table_of(sweep):
    """Return the rows as text, so that NaN equals NaN."""
    return [str(row) for row in sweep.table.to_pylist()]


@pytest.fixture(scope="module")
def whole():
    return sweep()


def stop_after(calls):
    """Return a function that returns True at the given call, counted from 1."""
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


def test_each_network_of_a_sweep_equals_train_alone(whole, alone, tmp_path):
    ended = 0
    for (eta, seed), result in alone.items():
        rows = [row for row in whole.table.to_pylist() if (row["eta"], row["seed"]) == (eta, seed)]
        ended += len(rows) < 7
        assert rows[-1]["outcome"] == result.outcome.reason.name
        assert [row["epoch"] for row in rows] == list(range(len(rows)))
        for name in ("cost", "accuracy"):
            expected = np.asarray(getattr(result.history, name))
            assert [row[name] for row in rows] == expected[: len(rows)].tolist()
            # After the last row, `train` repeats the same values or has ended.
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
    kept.networks[0].unlink()
    with pytest.warns(UserWarning, match=rf"the kept networks must be in .*{kept.networks[0].name} is missing"):
        assert sweep(folder=tmp_path, keep=2).networks == kept.networks[1:]


@pytest.mark.parametrize("calls", [1, 2, 5, 8, 10])
def test_a_stopped_sweep_resumes_bit_for_bit(whole, tmp_path, calls):
    # `memory` limits a group to six networks, so there are two groups.
    stopped = sweep(folder=tmp_path, memory=6 * 4000, stop=stop_after(calls))
    assert not stopped.complete
    assert json.loads((tmp_path / "sweep.json").read_text())["groups"] == [2]
    resumed = sweep(folder=tmp_path)
    assert resumed.complete
    assert table_of(resumed) == table_of(whole)
    assert not list(tmp_path.glob("groups/*/state.safetensors"))


def test_a_stopped_sweep_of_the_full_batch_resumes_bit_for_bit(tmp_path):
    """XLA computes the full-batch update, and the saved state holds the gradient."""
    settings = {"batch_size": None, "eta": [1.0, 1e4], "epochs": 4}
    for folder, stop in (("a", None), ("b", stop_after(4)), ("b", None)):
        sweep(folder=tmp_path / folder, stop=stop, **settings)
    assert (tmp_path / "a/table.parquet").read_bytes() == (tmp_path / "b/table.parquet").read_bytes()


def test_a_complete_folder_trains_nothing(whole, tmp_path):
    sweep(folder=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = sweep(folder=tmp_path, stop=lambda: pytest.fail("it ran an epoch"))
    assert again.complete
    assert table_of(again) == table_of(jaxgd.merge_sweep(tmp_path)) == table_of(whole)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["state.safetensors", "table.parquet"])
@pytest.mark.parametrize("place", [0.0, 0.4, 0.9])
def test_a_group_with_a_damaged_file_runs_again(whole, tmp_path, name, place):
    """A warning names the damaged file. The new table equals the table of an undamaged sweep."""
    sweep(folder=tmp_path, stop=stop_after(3) if name == "state.safetensors" else None)
    for path in tmp_path.rglob(name):
        content = bytearray(path.read_bytes())
        content[int(place * len(content)) + 12] ^= 1
        path.write_bytes(content)
    with pytest.warns(UserWarning, match=f"{name} is damaged"):
        assert table_of(sweep(folder=tmp_path)) == table_of(whole)


def test_merge_sweep_joins_the_parts(whole, tmp_path):
    part = sweep(folder=tmp_path, part=(2, 3))
    assert not part.complete
    assert {row["eta"] for row in part.table.to_pylist()} == {1e-3}
    with pytest.raises(CheckpointError, match=r"3 tables of groups, got 1\.\nFirst run the missing parts: 1/3, 3/3\."):
        jaxgd.merge_sweep(tmp_path)
    with pytest.raises(CheckpointError, match="its parts was 3, got 4"):
        sweep(folder=tmp_path, part=(1, 4))
    for i in (1, 3):
        sweep(folder=tmp_path, part=(i, 3))
    assert table_of(jaxgd.merge_sweep(tmp_path)) == table_of(whole)
    assert table_of(sweep(folder=tmp_path)) == table_of(whole)


def test_a_smaller_program_trains_the_remaining_networks(whole, monkeypatch):
    monkeypatch.setattr(groups, "_WORTH", 0)
    widths = []
    step = groups._step
    monkeypatch.setattr(groups, "_step", lambda *args, **kw: widths.append(len(args[3])) or step(*args, **kw))
    assert table_of(sweep()) == table_of(whole)
    assert sorted(set(widths)) == [6, 12]


def test_a_running_group_is_locked(tmp_path):
    sweep(folder=tmp_path, stop=stop_after(1))
    running = locked_folder(tmp_path / "groups" / "00000", "")
    with running, pytest.raises(CheckpointError, match="another process is already running group 0"):
        sweep(folder=tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"eta": [1e4, 1e-3]}, r"its eta was \[10000\.0, 0\.001, 1e\+37\], got \[10000\.0, 0\.001\]"),
        ({"sizes": (8, 6, 3)}, r"its sizes was \[\[8, 5, 3\]\], got \[\[8, 6, 3\]\]"),
        ({"seeds": [0, 1, 2, 4]}, r"its seeds was 4, got \[0, 1, 2, 4\]"),
        *[
            ({name: value}, f"its {name} was .*, got {value}")
            for name, value in (("epochs", 7), ("batch_size", 5), ("scheme", "scaled"), ("keep", 1), ("memory", 1000))
        ],
        ({"kernel": "xla"}, "its kernel was native, got xla"),
    ],
)
def test_other_settings_are_refused(tmp_path, changed, message):
    sweep(folder=tmp_path, stop=stop_after(1))
    with pytest.raises(CheckpointError, match=message):
        sweep(folder=tmp_path, **changed)


def test_other_folders_and_data_are_refused(tmp_path):
    sweep(folder=tmp_path / "sweep", stop=stop_after(1))
    with pytest.raises(CheckpointError, match="its data was"):
        jaxgd.sweep((X + 1, Y), folder=tmp_path / "sweep", **SETTINGS)
    with pytest.raises(CheckpointError, match=r"must be the folder of a sweep, but it has no sweep\.json"):
        sweep(folder=tmp_path)
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is damaged"):
        sweep(folder=tmp_path / "sweep")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"eta": [1.0, 0.0]}, RangeError, "eta must be a finite number above 0, got 0"),
        ({"eta": [1.0, float("nan")]}, RangeError, "eta must be a finite number above 0, got nan"),
        ({"eta": 1e39}, RangeError, "eta in float32 must be a finite number above 0, got inf"),
        ({"eta": []}, RangeError, "eta must hold at least one value"),
        ({"eta": [0.1, np.float32(0.1)]}, RangeError, "eta must hold different values in float32, got 0.1"),
        ({"eta": "a"}, DtypeError, "eta must be one real number"),
        ({"seeds": [3, 5, 3]}, RangeError, "seeds must hold different values, got 3 more than once"),
        ({"seeds": 0}, RangeError, "seeds must be"),
        ({"seeds": [-1]}, RangeError, "each of seeds must be between 0"),
        ({"seeds": 2**32}, RangeError, "must have at most 1,000,000,000 rows"),
        ({"sizes": [SIZES, (8, 4, 3), SIZES]}, RangeError, r"sizes must hold different values, got \(8, 5, 3\)"),
        ({"sizes": [SIZES, (7, 3)]}, ShapeError, "must be rows of 7"),
        ({"sizes": []}, RangeError, "sizes must hold"),
        ({"epochs": 0}, RangeError, "epochs must be"),
        ({"batch_size": 31}, RangeError, "batch_size must be between 1 and 30"),
        ({"scheme": "book"}, RangeError, "scheme must be"),
        ({"kernel": "fast"}, RangeError, "sweep: kernel must be"),
        ({"part": (3, 2), "folder": "x"}, RangeError, "the first number in part must be between 1 and 2"),
        ({"part": (1, 13), "folder": "x"}, RangeError, "the number of parts must be between 1 and 12"),
        ({"part": 2, "folder": "x"}, DtypeError, r"part must be a pair such as \(2, 8\)"),
        ({"part": (1, 2)}, RangeError, "part needs a folder"),
        ({"keep": 1}, RangeError, "keep needs a folder"),
        ({"memory": 0}, RangeError, "memory must be"),
        ({"stop": 3}, DtypeError, "stop must be a function"),
    ],
)
def test_bad_arguments_raise_before_anything_is_written(tmp_path, monkeypatch, bad, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        sweep(**bad)
    assert not list(tmp_path.iterdir())


def saturated(z):
    """Return a network with one neuron per layer. The weighted input of the last neuron is about z or −z."""
    return (Layer(jnp.array([[30.0]]), jnp.array([0.0])), Layer(jnp.array([[2 * z]]), jnp.array([-z])))


@pytest.mark.parametrize(
    ("z", "eta", "expected"),
    [
        (200.0, 1.0, True),  # σ′ of the output is 0
        (200.0, 1e30, True),
        (60.0, 1.0, True),  # an update of 1e-26 is lost in the rounding of each weight and bias
        (60.0, 1e30, False),
        (10.0, 1.0, False),
    ],
)
def test_a_network_is_fixed_only_if_it_cannot_change(z, eta, expected):
    network = jax.tree.map(lambda x: x[None] if x.size else x, saturated(z))
    network = (network[0]._replace(b=jnp.array([[0.1]])), network[1])
    # All answers are wrong, and no input is 0, so only σ′ can make an update small.
    examples = Examples(jnp.array([[1.0], [-1.0], [0.5], [-0.5]]), jnp.array([[0.0], [1.0], [0.0], [1.0]]))
    assert bool(is_fixed(network, 0, jnp.array([eta]), examples)) == expected


def python(*words, **variables):
    """Start a Python process that can import this module. `words` are the code and its arguments."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    return subprocess.Popen([sys.executable, "-c", *words], env=environment, stdout=subprocess.PIPE, text=True)


DEVICES = """
import jax, numpy as np, test_sweeps as t
from jaxgd.sweeps import group as groups
step, texts = groups._step, []
def compiled(*args, **kw):
    texts.append(step.lower(*args, **kw).compile().as_text())
    return step(*args, **kw)
groups._step = compiled
for kernel in ("native", "xla"):
    four = t.sweep(kernel=kernel, epochs=2)
    devices, jax.local_devices = jax.local_devices, lambda: jax.devices()[:1]
    one = t.sweep(kernel=kernel, epochs=2)
    jax.local_devices = devices
    assert len(jax.local_devices()) == 4
    if kernel == "native":
        assert t.table_of(four) == t.table_of(one)
    costs = [np.array(s.table.column("cost")) for s in (four, one)]
    assert np.allclose(*costs, rtol=1e-5)
# Four devices have three networks each, and exchange nothing.
assert ["f32[3,5,8]" in text for text in texts] == [True, True, True, False, False, False] * 2
assert not any(name in text for text in texts for name in ("all-reduce", "all-gather", "all-to-all", "permute"))
print("equal")
"""


@pytest.mark.slow
def test_several_devices_share_the_networks():
    child = python(DEVICES, XLA_FLAGS="--xla_force_host_platform_device_count=4")
    assert child.communicate()[0] == "equal\n"
    assert child.returncode == 0


PROCESS = """
import sys, jax, test_sweeps as t
jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
done = t.sweep(folder=sys.argv[4], memory=2 * 4000)
assert done.complete
print(*t.table_of(done), sep="\\n")
"""


@pytest.mark.slow
def test_several_processes_share_the_groups(whole, tmp_path):
    sweep(folder=tmp_path, memory=2 * 4000, stop=stop_after(3))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    children = [python(PROCESS, address, "2", str(i), tmp_path) for i in range(2)]
    for child in children:
        assert [line for line in child.communicate()[0].splitlines() if line.startswith("{")] == table_of(whole)
        assert child.returncode == 0
    assert len(list(tmp_path.glob("groups/*/table.parquet"))) == 6


KILLED = """
import sys, test_sweeps as t
from jaxgd.sweeps import run
run._SECONDS = 0.0
t.sweep(folder=sys.argv[1], memory=4 * 4000, epochs=400, keep=2)
"""


@pytest.mark.slow
def test_a_killed_sweep_resumes_bit_for_bit(tmp_path):
    whole = python(KILLED, tmp_path / "whole")
    whole.communicate()
    assert whole.returncode == 0
    rng, before = np.random.default_rng(5), {}
    for _ in range(4):
        child = python(KILLED, tmp_path / "killed")
        # Each epoch saves a state. Wait for a new state, then kill the process.
        while child.poll() is None:
            states = {path: path.stat().st_mtime_ns for path in tmp_path.glob("killed/groups/*") if path.is_dir()}
            if states and states != before:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        assert child.poll() is None
        child.kill()
        child.communicate()
        before = {path: path.stat().st_mtime_ns for path in before | states}
    child = python(KILLED, tmp_path / "killed")
    child.communicate()
    assert child.returncode == 0
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}
        for name in ("whole", "killed")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 4
