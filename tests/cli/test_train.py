"""`jaxgd train`: its output, run folder, resume and error messages."""

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from support import assert_leaves_close

from jaxgd import LayerGradientNorms, cross_entropy, epoch, init_network, load_dataset, load_network, train, training
from jaxgd.activations import ACTIVATIONS
from jaxgd.best import best_epochs
from jaxgd.chunks import Budget
from jaxgd.cli import main, train_folder
from jaxgd.cli.train import Train
from jaxgd.cli.train_settings import without_effect
from jaxgd.cost import COSTS
from jaxgd.data.idx import write_idx
from jaxgd.network import first_network
from jaxgd.network_file import read_tensors

SHORT = ("--epochs", 2, "--run-dir", "run")


def rows(run="run"):
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def test_train_prints_the_books_lines_and_writes_a_run_folder(jaxgd):
    answer = jaxgd("train", *SHORT)
    assert answer.status == 0
    assert re.fullmatch(r"Epoch 0: \d+ / 300\nEpoch 1: \d+ / 300\n", answer.out)
    assert "completed" in answer.err
    assert answer.err.endswith(
        "\nnext: jaxgd report run\n"
        "images of 8×8 are too small for photographs: for jaxgd predict, train with --data mnist\n"
    )
    assert "Traceback" not in answer.err
    assert {path.name for path in Path("run").iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "checkpoints",
        "network.safetensors",
    }
    config = json.loads(Path("run", "config.json").read_text())
    assert (config["sizes"], config["eta"], config["batch_size"], config["seed"]) == ([64, 30, 10], 3.0, 10, 0)
    assert [row["epoch"] for row in rows()] == [0, 1, 2]
    assert rows()[0]["step_norm"] is None  # JSON has no NaN
    correct = [int(n) for n in re.findall(r"(\d+) /", answer.out)]
    assert correct == [round(300 * row["test_accuracy"]) for row in rows()[1:]]


def test_the_command_equals_the_library(jaxgd):
    """The seed splits into two keys: one for the network, one for the order of the examples."""
    jaxgd("train", *SHORT, "--sizes", 64, 12, 10, "--eta", 1.5, "--batch-size", 20, "--seed", 7, "--scheme", "scaled")
    network_key, order_key = jax.random.split(jax.random.key(7))
    network = init_network(network_key, (64, 12, 10), "scaled")
    result = train(network, load_dataset("digits"), epochs=2, batch_size=20, eta=1.5, key=order_key)
    assert_leaves_close(load_network("run/network.safetensors"), result.network, rtol=0)
    np.testing.assert_array_equal([row["cost"] for row in rows()], result.history.cost)


def test_activations_cost_and_l2_are_recorded_and_resumed(jaxgd):
    """A run of one epoch, resumed to two, equals the library's run of two epochs bit for bit."""
    flags = ("--activation", "tanh", "softmax", "--cost", "cross-entropy", "--l2", 5, "--eta", 0.1)
    jaxgd("train", "--epochs", 1, "--run-dir", "run", "--sizes", 64, 12, 10, *flags)
    jaxgd("train", "--resume", "run", "--epochs", 2)
    network_key, order_key = jax.random.split(jax.random.key(0))
    network = init_network(network_key, (64, 12, 10), "scaled", activation=("tanh", "softmax"))
    settings = {"epochs": 2, "batch_size": 10, "eta": 0.1, "key": order_key, "cost": cross_entropy, "l2": 5.0}
    result = train(network, load_dataset("digits"), **settings)
    assert_leaves_close(load_network("run/network.safetensors"), result.network, rtol=0)
    np.testing.assert_array_equal([row["cost"] for row in rows()], result.history.cost)
    config = json.loads(Path("run", "config.json").read_text())
    assert (config["activation"], config["cost"], config["l2"]) == (["tanh", "softmax"], "cross-entropy", 5.0)
    assert f"cross-entropy {result.history.test_cost[-1]:.6f}" in jaxgd("evaluate", "run").out


def test_help_names_every_cost_and_activation():
    """The names in the help text are typed by hand, so one could be missing. Importing them would import JAX."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(["train", "--help"])
    options = re.split(r"\n\W+(?=--)", out.getvalue())
    for option, table in (("--cost", COSTS), ("--activation", ACTIVATIONS)):
        (text,) = [text for text in options if text.startswith(option + " ")]
        assert all(name in text for name in table), text


def test_full_batch_makes_one_update_per_epoch(jaxgd):
    # --folder is an alias of --run-dir.
    assert jaxgd("train", "--epochs", 2, "--folder", "run", "--batch-size", "full").status == 0
    assert [row["updates"] for row in rows()] == [0, 1, 2]
    assert rows()[1]["predicted"] < 0


def test_resume_continues_bit_for_bit(jaxgd):
    jaxgd("train", "--epochs", 5, "--run-dir", "whole")
    jaxgd("train", "--epochs", 2, "--run-dir", "parts")
    answer = jaxgd("train", "--resume", "parts", "--epochs", 5)
    assert answer.status == 0
    assert re.findall(r"Epoch (\d)", answer.out) == ["2", "3", "4"]
    for name in ("network.safetensors", "metrics.jsonl"):
        assert Path("parts", name).read_bytes() == Path("whole", name).read_bytes()
    again = jaxgd("train", "--resume", "parts")
    assert (again.status, again.out) == (0, "")
    assert Path("parts", "metrics.jsonl").read_bytes() == Path("whole", "metrics.jsonl").read_bytes()


def test_resume_keeps_the_memory_budget_and_the_gradient_norm_option(jaxgd, monkeypatch):
    """The memory budget sets the order of sums, and so their rounding. Versions of jaxgd may have different budgets."""
    real, budgets = training.train, []

    def watched(*args, **settings):
        budgets.append(settings["budget"])
        return real(*args, **settings)

    monkeypatch.setattr(training, "train", watched)
    small = Budget(chunk=2**15, kept=2**15)
    monkeypatch.setattr(train_folder, "_budget", lambda: small)
    assert jaxgd("train", *SHORT, "--no-gradient-norm").status == 0
    config = json.loads(Path("run/config.json").read_text())
    assert config["budget"] == small._asdict()
    monkeypatch.setattr(train_folder, "_budget", lambda: Budget(chunk=2**20, kept=0))
    answer = jaxgd("train", "--resume", "run", "--epochs", 3)
    assert (answer.status, "results may differ" in answer.err) == (0, False)
    assert set(budgets) == {small}
    assert [row["gradient_norm"] for row in rows()] == [None] * 4

    # The config.json of an earlier version has no entry for the budget or the gradient norm.
    for name in ("format", "sha256", "budget", "gradient_norm"):
        del config[name]
    Path("run/config.json").write_text(json.dumps({"format": "jaxgd.run/1", **config}))
    answer = jaxgd("train", "--resume", "run", "--epochs", 4)
    assert answer.status == 0
    assert "results may differ from an uninterrupted run: budget was not recorded, now {'chunk': 1048576" in answer.err
    assert budgets[-1] is None
    assert rows()[-1]["gradient_norm"] > 0


def test_resume_to_fewer_epochs_is_refused_and_keeps_the_run(jaxgd, run_folder):
    assert jaxgd("train", "--resume", "run", "--epochs", 1).status == 2
    assert jaxgd("train", "--resume", "run").status == 0


def test_resume_restores_the_network_file(jaxgd, run_folder):
    network = Path("run/network.safetensors")
    whole = network.read_bytes()
    network.write_bytes(b"damaged")
    assert jaxgd("train", "--resume", "run").status == 0
    assert network.read_bytes() == whole


def test_a_locked_run_folder_is_refused(jaxgd, run_folder):
    pytest.importorskip("fcntl")
    from jaxgd.run_folder import RunFolder

    with RunFolder.open(Path("run")).locked():
        answer = jaxgd("train", "--resume", "run")
    assert answer.status == 2
    assert "another process" in answer.err


def test_resume_in_another_precision_is_refused(jaxgd, run_folder):
    with jax.enable_x64(True):
        answer = jaxgd("train", "--resume", "run", "--epochs", 3)
    assert answer.status == 2
    assert "run must be continued in float32, got float64. Set JAX_ENABLE_X64=0." in answer.err


def test_resume_with_other_versions_names_them(jaxgd, run_folder, monkeypatch):
    changed = {**train_folder._made_with(), "jax": "9.9"}
    monkeypatch.setattr(train_folder, "_made_with", lambda: changed)
    answer = jaxgd("train", "--resume", "run")
    assert answer.status == 0
    assert f"results may differ from an uninterrupted run: jax was {jax.__version__}, now 9.9\n" in answer.err


def test_resume_without_checkpoints_and_network_restarts_the_run(jaxgd, run_folder):
    whole = Path("run", "network.safetensors").read_bytes()
    shutil.rmtree("run/checkpoints")
    Path("run/network.safetensors").unlink()
    with Path("run/metrics.jsonl").open("ab") as file:
        file.write(b'{"epoch": 3, "co')  # an incomplete line, as after a kill
    answer = jaxgd("train", "--resume", "run")
    assert answer.status == 0
    assert "starts again from its first epoch" in answer.err
    assert Path("run", "network.safetensors").read_bytes() == whole
    assert len(rows()) == 3


def test_resume_without_checkpoints_but_with_a_network_is_refused(jaxgd, run_folder):
    shutil.rmtree("run/checkpoints")
    before = Path("run/network.safetensors").read_bytes(), len(rows())
    answer = jaxgd("train", "--resume", "run", "--epochs", 3)
    assert answer.status == 2
    assert "Copy the folder back" in answer.err
    assert (Path("run/network.safetensors").read_bytes(), len(rows())) == before


@pytest.mark.parametrize(("eta", "words"), [(1e6, "saturated:"), (1e-30, "unchanged:")])
def test_a_failed_run_that_is_resumed_still_fails(jaxgd, eta, words):
    for command in ((*SHORT, "--eta", eta), ("--resume", "run")):
        answer = jaxgd("train", *command)
        assert answer.status == 1
        assert words in answer.err
        assert "next:" not in answer.err


def test_resume_skips_a_damaged_checkpoint(jaxgd, run_folder):
    whole = Path("run", "network.safetensors").read_bytes()
    Path("run/network.safetensors").unlink()
    for path in Path("run/checkpoints/2").rglob("*"):
        if path.is_file() and path.stat().st_size > 3000:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    answer = jaxgd("train", "--resume", "run")
    assert answer.status == 0
    assert "2 is refused" in answer.err
    assert "Traceback" not in answer.err
    assert Path("run", "network.safetensors").read_bytes() == whole


def test_ctrl_c_saves_and_prints_how_to_resume(jaxgd, monkeypatch):
    from jaxgd.cli.reporter import Reporter

    show = Reporter.show

    def interrupt(self, entry):
        show(self, entry)
        if entry.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Reporter, "show", interrupt)
    answer = jaxgd("train", "--epochs", 4, "--run-dir", "run", "--checkpoint-every", 100)
    assert answer.status == 130
    assert "stopped by Ctrl-C after 2 of 4 epochs, and saved; continue with: jaxgd train --resume run" in answer.err
    assert "callback" not in answer.err
    assert "next:" not in answer.err
    assert len(rows()) == 3
    assert signal.getsignal(signal.SIGINT) is before
    assert Path("run/checkpoints/2").is_dir()
    monkeypatch.setattr(Reporter, "show", show)
    assert jaxgd("train", "--resume", "run").status == 0
    jaxgd("train", "--epochs", 4, "--run-dir", "whole")
    assert Path("run/network.safetensors").read_bytes() == Path("whole/network.safetensors").read_bytes()


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_sigterm_and_sighup_save_the_run(jaxgd, monkeypatch, name, status):
    from jaxgd.cli.reporter import Reporter

    show = Reporter.show

    def kill(self, entry):
        show(self, entry)
        if entry.epoch == 1:
            # The command `timeout` sends its signal twice.
            os.kill(os.getpid(), getattr(signal, name))
            os.kill(os.getpid(), getattr(signal, name))

    monkeypatch.setattr(Reporter, "show", kill)
    stopped_at_once = []
    before = signal.signal(getattr(signal, name), own := lambda *_: stopped_at_once.append(True))
    answer = jaxgd("train", "--epochs", 4, "--run-dir", "my run", "--plot", "run.png")
    assert answer.status == status
    continued = "continue with: jaxgd train --resume 'my run'\n"
    assert f"stopped by {name} after 1 of 4 epochs, and saved; {continued}" in answer.err
    assert Path("my run/checkpoints/1").is_dir()
    assert not Path("run.png").exists()
    assert signal.signal(getattr(signal, name), before) is own
    assert stopped_at_once == []


def test_a_signal_that_the_parent_ignores_stays_ignored(jaxgd, monkeypatch):
    """nohup makes the command ignore SIGHUP, and a shell script makes its background jobs ignore SIGINT."""
    from jaxgd.cli.reporter import Reporter

    show = Reporter.show
    monkeypatch.setattr(Reporter, "show", lambda self, entry: (show(self, entry), os.kill(os.getpid(), signal.SIGHUP)))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert jaxgd("train", *SHORT).status == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_with_a_closed_output_saves_and_stops(jaxgd, monkeypatch):
    """A run in `jaxgd train | head -1` saves its completed epochs and returns status 1."""

    class Closed(io.StringIO):
        def write(self, text):
            if "Epoch 1" in text:
                raise BrokenPipeError(32, "Broken pipe")
            return super().write(text)

    out = Closed()
    err = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["train", "--epochs", "4", "--run-dir", "run", "--checkpoint-every", "100"])
    assert status == 1
    assert "standard output cannot be written (Broken pipe): stopped after 2 of 4 epochs, and saved" in err.getvalue()
    assert Path("run/checkpoints/2").is_dir()
    assert len(rows()) == 3


def test_divergence_returns_status_1_and_keeps_the_last_finite_network(jaxgd, run_folder, monkeypatch):
    """The test fakes an overflow in the third epoch, because sigmoids and the quadratic cost never overflow."""
    real = epoch.advance

    def overflowing(state, *rest):
        advanced, entry, finite = real(state, *rest)
        go = finite & (state.epoch != 2)
        return epoch.keep(go, advanced, state), entry, go

    monkeypatch.setattr(epoch, "advance", overflowing)
    answer = jaxgd("train", "--epochs", 4, "--run-dir", "diverged")
    assert answer.status == 1
    assert "not finite" in answer.err
    assert "next:" not in answer.err
    assert Path("diverged/network.safetensors").read_bytes() == Path("run/network.safetensors").read_bytes()
    assert len(rows("diverged")) == 3


def test_a_folder_of_idx_files_trains_and_evaluates(jaxgd, tmp_path):
    rng = np.random.default_rng(0)
    for name, n in (("train", 60), ("test", 20)):
        labels = rng.integers(0, 3, n).astype(np.uint8)
        images = np.zeros((n, 5, 4), np.uint8)
        images[np.arange(n), labels, 1:3] = 200
        (tmp_path / "mine").mkdir(exist_ok=True)
        write_idx(tmp_path / "mine" / f"{name}-images", images)
        write_idx(tmp_path / "mine" / f"{name}-labels", labels)
    answer = jaxgd("train", "--data", "mine", *SHORT, "--sizes", 20, 8, 3)
    assert answer.status == 0, answer.err
    assert answer.out.endswith("/ 20\n")
    assert jaxgd("evaluate", "run").status == 0

    # Move the data. --data names the new folder.
    Path("mine").rename("my data")
    for command in (("train", "--resume"), ("evaluate",)):
        missing = jaxgd(*command, "run")
        assert missing.status == 2
        assert f"If the data have moved: jaxgd {' '.join(command)} run --data FOLDER" in missing.err
    elsewhere = jaxgd("evaluate", "run", "--data", "./nowhere")
    assert (elsewhere.status, "have moved" in elsewhere.err) == (2, False)
    moved = jaxgd("train", "--resume", "run", "--data", "my data", "--epochs", 3)
    assert moved.status == 0, moved.err
    assert f"config.json now has the new place of the data: {tmp_path}/my data\n" in moved.err
    assert "refused" not in moved.err
    assert re.findall(r"Epoch (\d)", moved.out) == ["2"]
    again = jaxgd("train", "--resume", "run", "--epochs", 4)
    assert (again.status, re.findall(r"Epoch (\d)", again.out)) == (0, ["3"])
    assert "new place" not in again.err
    assert jaxgd("evaluate", "run").status == 0

    config = Path("run/config.json").read_bytes()
    write_idx("my data/test-labels", np.zeros(20, np.uint8))
    changed = jaxgd("train", "--resume", "run", "--epochs", 5)
    assert changed.status == 2
    assert "has changed since" in changed.err
    other = jaxgd("train", "--resume", "run", "--epochs", 5, "--data", "my data")
    assert other.status == 2
    assert "my data is not the data set that run was trained on" in other.err
    digests = re.search("expected the SHA-256 (.*), got (.*?)\\.", other.err).groups()
    assert digests[0] == json.loads(config)["data_sha256"] != digests[1]
    assert Path("run/config.json").read_bytes() == config


def test_tensorboard_events_are_written(jaxgd):
    pytest.importorskip("tensorboardX")
    assert jaxgd("train", *SHORT, "--tensorboard").status == 0
    (events,) = Path("run/tensorboard").iterdir()
    assert b"test_accuracy" in events.read_bytes()


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plot_writes_the_figure(jaxgd, suffix, monkeypatch):
    """The left axes show the training and test costs. The right axes show the error rates in percent."""
    figure = pytest.importorskip("matplotlib.figure")
    drawn, save = [], figure.Figure.savefig
    monkeypatch.setattr(
        figure.Figure, "savefig", lambda self, *rest, **more: (drawn.append(self), save(self, *rest, **more))
    )
    answer = jaxgd("train", *SHORT, "--plot", f"run.{suffix}")
    assert answer.status == 0
    assert f"\ndrawn: run.{suffix}\n" in answer.err
    assert Path(f"run.{suffix}").stat().st_size > 5000
    costs, rates = drawn[0].axes
    for part, cost, rate in zip(("", "test_"), costs.lines, rates.lines, strict=True):
        np.testing.assert_allclose(cost.get_ydata(), [row[f"{part}cost"] for row in rows()], rtol=1e-6)
        right = np.array([row[f"{part}accuracy"] for row in rows()])
        np.testing.assert_allclose(rate.get_ydata(), 100 * (1 - right), rtol=1e-5)


def test_a_resumed_run_also_keeps_the_best_network(jaxgd):
    """A resumed run, an uninterrupted run and the library give the same bits."""
    options = ("--eta", 6, "--keep", "best", "--by", "cost", "--patience", 2, "--record", "gradient-norms")
    options += ("--record-every", 2)
    answer = jaxgd("train", "--epochs", 20, "--run-dir", "whole", *options)
    assert answer.status == 0
    network, key = first_network(0, (64, 30, 10), "scaled")
    settings = {"epochs": 20, "batch_size": 10, "eta": 6.0, "key": key, "keep": "best", "by": "cost", "patience": 2}
    result = train(network, load_dataset("digits"), record={"g": LayerGradientNorms(every=2)}, **settings)
    best, last = int(result.best_epoch), int(result.state.epoch)
    assert 0 < best == last - 2 < 18
    assert_leaves_close(load_network("whole/network.safetensors"), result.network, rtol=0)
    lines = rows("whole")
    assert [row["best_epoch"] for row in lines] == best_epochs(entries_of(result.history), "cost")
    assert [row["epoch"] for row in lines] == list(range(last + 1))
    norms = np.array([row["gradient_norms"] for row in lines], float)
    np.testing.assert_array_equal(norms, result.history.records["g"])
    assert np.isnan(norms[1::2]).all()
    assert "out of patience: no new best" in answer.err
    assert re.search(rf"\nnetwork\.safetensors: epoch {best - 1}, validation cost 0\.\d+, test \d+ / 300\n", answer.err)
    config = json.loads(Path("whole/config.json").read_text())
    assert [config[name] for name in ("keep", "by", "patience", "record_every")] == ["best", "cost", 2, 2]

    jaxgd("train", "--epochs", 3, "--run-dir", "parts", *options)
    for epochs in (4, best + 1, 20, 20):
        assert jaxgd("train", "--resume", "parts", "--epochs", epochs).status == 0
    for name in ("network.safetensors", "metrics.jsonl", "config.json"):
        assert Path("parts", name).read_bytes() == Path("whole", name).read_bytes()


def entries_of(history):
    return [jax.tree.map(lambda x, k=k: x[k], history) for k in range(len(history.epoch))]


def test_options_without_effect_are_named():
    alone = Train(by="cost", record_every=2)
    assert without_effect(alone) == [
        "--by cost has no effect without --keep best or --patience",
        "--record-every 2 has no effect without --record",
    ]
    assert without_effect(dataclasses.replace(alone, patience=3, record=("sharpness",))) == []


def test_a_run_starts_from_trained_weights_and_keeps_a_copy(jaxgd, run_folder):
    source = Path("run/network.safetensors").read_bytes()
    assert jaxgd("train", "--epochs", 1, "--run-dir", "more", "--from", "run", "--eta", 0.5, "--seed", 9).status == 0
    data, key = load_dataset("digits"), first_network(9, (64, 30, 10), "scaled")[1]
    result = train(load_network("run/network.safetensors"), data, epochs=1, batch_size=10, eta=0.5, key=key)
    assert_leaves_close(load_network("more/network.safetensors"), result.network, rtol=0)
    # With its copy, the run can be repeated after `run` is deleted.
    shutil.rmtree("run")
    assert Path("more/start.safetensors").read_bytes() == source
    config = json.loads(Path("more/config.json").read_text())
    assert config["from"] == {
        "path": str(Path("run").absolute()),
        "sha256": read_tensors(Path("more/start.safetensors")).sha,
    }
    assert config["scheme"] is None
    metrics = Path("more/metrics.jsonl").read_bytes()
    shutil.rmtree("more/checkpoints")
    Path("more/network.safetensors").unlink()
    again = jaxgd("train", "--resume", "more")
    assert (again.status, Path("more/metrics.jsonl").read_bytes()) == (0, metrics)
    assert jaxgd("train", "--epochs", 1, "--run-dir", "third", "--from", "more/network.safetensors").status == 0
    shutil.copy("more/network.safetensors", "more/start.safetensors")
    other = jaxgd("train", "--resume", "more", "--epochs", 2)
    assert other.status == 2
    assert "start.safetensors is not the network that the run started from: expected the SHA-256" in other.err


def test_an_existing_run_folder_is_refused_and_unchanged(jaxgd, run_folder):
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    answer = jaxgd("train", *SHORT)
    assert answer.status == 2
    assert "already exists" in answer.err
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == before


MISUSE = {
    "sizes empty": (["--sizes"], "sizes must hold"),
    "one size": (["--sizes", 64], "at least one layer"),
    "zero width": (["--sizes", 64, 0, 10], "must be at least 1, got 0"),
    "negative width": (["--sizes=64", "-3", 10], "-3"),
    "784 inputs for images of 8×8": (["--sizes", 784, 30, 10], "does not fit digits: its images are 8×8"),
    "12 outputs for 10 classes": (["--sizes", 64, 30, 12], "10 classes"),
    "batch size 0": (["--batch-size", 0], "between 1 and 1197"),
    "batch size above the number of training examples": (["--batch-size", 1198], "between 1 and 1197"),
    "batch size not a number": (["--batch-size", "all"], "batch-size"),
    "eta 0": (["--eta", 0], "above 0"),
    "eta negative": (["--eta", -1], "above 0"),
    "eta NaN": (["--eta", "nan"], "above 0"),
    "eta infinite in float32": (["--eta", 1e39], "--eta 1e+39 in float32 must be a finite number above 0, got inf"),
    "eta 0 in float32": (["--eta", 1e-46], "--eta 1e-46 in float32 must be a finite number above 0, got 0.0"),
    "epochs 0": (["--epochs", 0], "at least 1"),
    "more updates than int32 counts": (["--epochs", 10**30], "between 1 and 17895697"),
    "more epochs than int32 counts": (["--epochs", 2**31, "--batch-size", "full"], "between 1 and 2147483647"),
    "--resume to more updates than int32 counts": (["--resume", "run", "--epochs", 10**8], "between 1 and 17895697"),
    "--data-dir with digits": (["--data-dir", "."], "--data-dir must be left out, because digits comes with"),
    "--data-dir with a folder of data": (["--data", "./mine", "--data-dir", "."], "because ./mine is itself a folder"),
    "--data-dir with --resume of a run on digits": (["--resume", "run", "--data-dir", "."], "must be left out"),
    "a run folder whose name is not UTF-8": (["--run-dir", "\udcff"], "--run-dir must be a path in UTF-8, got "),
    "--plot is a folder": (["--plot", "run/folder.png", "--run-dir", "x"], "--plot must be a file, got the folder run"),
    "checkpoint-every 0": (["--checkpoint-every", 0], "at least 1"),
    "patience 0": (["--patience", 0], "--patience must be at least 1, got 0"),
    "record-every 0": (["--record-every", 0], "--record-every must be at least 1, got 0"),
    "--record of an unknown quantity": (
        ["--record", "loss"],
        "--record must be sharpness or gradient-norms, got 'loss'",
    ),
    "--from a missing path": (["--from", "nowhere"], "--from must be a run folder or a .safetensors file, got nowhere"),
    "--from a JSON file": (["--from", "run/config.json", "--run-dir", "x"], "is damaged or not a safetensors file"),
    "--from with --sizes": (["--from", "run", "--sizes", 64, 10, "--scheme", "scaled"], "leave out --sizes, --scheme"),
    "--from with --activation": (["--from", "run", "--activation", "tanh"], "leave out --activation"),
    "an unknown activation": (
        ["--activation", "gelu"],
        f"--activation must be one of {', '.join(ACTIVATIONS)}, got 'gelu'",
    ),
    "three activations": (["--activation", "tanh", "tanh", "tanh"], "one for each of the 2 layers, got 3"),
    "softmax in a hidden layer": (["--activation", "softmax"], "--activation softmax is only for the last layer"),
    "unknown cost": (["--cost", "hinge"], f"--cost must be {' or '.join(COSTS)}, got 'hinge'."),
    "cross-entropy with tanh outputs": (
        ["--cost", "cross-entropy", "--activation", "tanh"],
        "needs an output layer",
    ),
    "l2 negative": (["--l2", -1], "l2 must be a finite number, 0 or more, got -1.0"),
    "l2 NaN": (["--l2", "nan"], "l2 must be a finite number, 0 or more, got nan"),
    "--from a network of 64 inputs for images of 2×2": (
        ["--from", "run", "--data", "./small"],
        "sizes [64, 30, 10] and does not fit small: its images",
    ),
    "seed negative": (["--seed", -1], "between 0 and"),
    "too many weights": (["--sizes", 64, 2_000_000_000, 10], "need 1800.0 GB for the weights, the next weights and"),
    "unknown data set": (["--data", "cifar"], "digits, mnist"),
    "missing folder of data": (["--data", "./cifar"], "cifar"),
    "unknown flag": (["--learning-rate", 1], "--learning-rate"),
    "unknown command": (None, "trian"),
    "--resume a missing path": (["--resume", "nowhere"], "not a run folder"),
    "--resume with --eta": (["--resume", "run", "--eta", 1], "leave out --eta"),
    "--resume to fewer epochs": (
        ["--resume", "run", "--epochs", 1],
        "--epochs must be at least 2, the epochs that run already has, got 1",
    ),
    "--run-dir inside a file": (["--run-dir", "run/config.json/x"], "run/config.json"),
    "--plot in a missing folder": (["--plot", "absent/x.png"], "absent does not exist"),
    "--plot equal to --run-dir": (
        ["--plot", "x.png", "--run-dir", "./x.png"],
        "--plot must differ from --run-dir",
    ),
    "--plot with the ending .jpg": (["--plot", "x.jpg"], ".png, .svg or .pdf"),
}


@pytest.mark.bad_input
@pytest.mark.parametrize(("flags", "match"), MISUSE.values(), ids=MISUSE)
def test_misuse_prints_one_line_and_returns_status_2(jaxgd, tmp_path, request, flags, match):
    if flags and "./small" in flags:
        Path("small").mkdir()
        for name, part in (("train", 12), ("test", 2)):
            write_idx(f"small/{name}-images", np.ones((part, 2, 2), np.uint8))
            write_idx(f"small/{name}-labels", np.arange(part, dtype=np.uint8) % 2)
    if flags and {"run", "--run-dir"} & set(flags):
        request.getfixturevalue("run_folder")
        Path("run/folder.png").mkdir()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    answer = jaxgd("trian") if flags is None else jaxgd("train", *flags)
    assert answer.status == 2
    assert answer.out == ""
    assert match in answer.err
    assert len(answer.err.splitlines()) <= 2  # --resume adds a line that names the folder
    assert "Traceback" not in answer.err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
