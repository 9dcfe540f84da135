"""Tests of the run on a GPU: its plan, tasks that hang or fail, the stored rows, and a rehearsal on the CPU."""

import contextlib
import dataclasses
import importlib
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import gpu_run
import numpy as np
import pytest

from benchmarks import hardware, store
from benchmarks.device import adder, command, data, plan, process, profile, reference, sanitize, summary, timing
from benchmarks.device import tests as device_tests
from benchmarks.device.context import Context, TaskError
from benchmarks.rows import Row

ROOT = Path(__file__).parents[1]


def figure(case="jax-scan", variant="xla-scan", value=1.0, quantity="time", **details):
    return Row(case=f"device-{case}", variant=variant, quantity=quantity, value=value, unit="s", details=details)


# The plan.


def test_the_plan_fits_in_six_minutes():
    assert sum(task.seconds for task in plan.TASKS) <= plan.MOST_SECONDS == 360
    assert all(task.limit(False) > task.seconds for task in plan.TASKS)
    # The steps are in order, and none is missing.
    assert [task.step for task in plan.TASKS] == sorted(task.step for task in plan.TASKS)
    assert {task.step for task in plan.TASKS} == set(range(11))


def test_the_tasks_of_the_plan_exist():
    names = [task.name for task in plan.TASKS]
    assert len(set(names)) == len(names)
    for task in plan.TASKS:
        module, function = task.function.split(":")
        assert callable(getattr(importlib.import_module(f"benchmarks.device.{module}"), function))
    assert set(plan.NOT_REHEARSED) <= set(names)
    assert all(map(len, (plan.NOT_REHEARSED | plan.TOOLS_OF_A_GPU | plan.MAY_LACK).values()))


def test_chosen_steps_and_tasks_have_the_order_of_the_plan():
    assert [task.name for task in plan.chosen(["jax-scan", "5", "adder"])] == [
        "adder", "ceilings-loops", "ceilings-libraries", "jax-scan",
    ]  # fmt: skip
    assert plan.chosen([]) == list(plan.TASKS)


MISUSE = (
    *(["--only", "11"], ["--only", "fast"], ["--within", "nan"], ["--within", "-1"]),
    *(["--out", "/nowhere/x.jsonl"], ["--out", "no_suffix"], ["--out", "."], ["--out", "/dev/full"]),
)


@pytest.mark.parametrize("words", MISUSE, ids=str)
def test_misuse_runs_nothing(words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert command.main(["--rehearse", *words]) == 2
    assert "device: expected" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_refused_at_the_start(capsys, tmp_path):
    """An error at the first row would waste the run's time on the GPU."""
    (tmp_path / "a.jsonl").write_text("garbage")
    (tmp_path / "b").write_text("not a folder")
    for name, reason in (("a.jsonl", "is not a file of results"), ("b.jsonl", "the folder of the logs cannot be")):
        assert command.main(["--rehearse", "--out", str(tmp_path / name)]) == 2
        assert reason in capsys.readouterr().err


def test_two_runs_do_not_share_a_file(capsys, tmp_path):
    with command._locked(tmp_path / "a.jsonl"):
        assert command.main(["--rehearse", "--only", "versions", "--out", str(tmp_path / "a.jsonl")]) == 2
    assert "another run writes to" in capsys.readouterr().err


def test_the_command_needs_no_tyro():
    code = "import sys; sys.modules['tyro'] = None; from benchmarks.__main__ import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "device", "--only", "fast"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "jax-vmap-kernel" in done.stderr
    assert done.returncode == 2, done.stderr


# A task that hangs, fails or stops.


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("last", ["wait", "exit 0"])
def test_the_children_of_a_task_end_with_it(last, tmp_path):
    """A task that exceeds its limit is killed with its children, and a task that ends leaves no children."""
    log, messages = tmp_path / "log", []
    shell = f'sleep 60 & echo $! > {tmp_path}/pid; echo \'["note", "one"]\' >&PIPE; echo stuck; {last}'
    words = ["bash", "-c", 'eval "${0//PIPE/$1}"', shell, "PIPE"]
    end = process.run(words, {}, log, 1.0, lambda *message: messages.append(message))
    assert messages == [("note", "one")]
    assert end.reason == ("killed after its limit of 1 s; stuck" if last == "wait" else "")
    assert end.seconds < 5
    pid = (tmp_path / "pid").read_text().strip()
    for _ in range(50):
        if not is_running(pid):
            return
        time.sleep(0.1)
    pytest.fail("a child of the task is still running")


@pytest.mark.parametrize(
    ("code", "reason"),
    [("raise ValueError('no')", "ValueError: no"), ("import os; os.abort()", "ended by the signal SIGABRT; no output")],
)
def test_the_reason_of_a_failure_is_the_last_line_of_the_output(code, reason, tmp_path):
    end = process.run([sys.executable, "-S", "-c", code], {}, tmp_path / "log", 30, lambda *_: None)
    assert end.reason == reason


TASK = """
from benchmarks.device import process
process.output_of(["bash", "-c", "echo $$; exec sleep 60"])
"""


def test_the_program_of_a_killed_task_ends_with_it():
    """SIGKILL ends the task at once, so the task has no chance to end its program itself."""
    task = subprocess.Popen([sys.executable, "-c", TASK], cwd=ROOT, stdout=subprocess.PIPE)
    program = int(task.stdout.readline())
    assert is_running(program)
    task.kill()
    task.wait()
    task.stdout.close()
    for _ in range(50):
        if not is_running(program):
            return
        time.sleep(0.1)
    os.kill(program, signal.SIGKILL)
    pytest.fail("the program is still running")


@pytest.mark.slow
def test_the_output_of_a_program_is_in_the_log_before_it_ends(tmp_path):
    """The reason of a task that is killed at its limit quotes the last line of its program."""
    code = 'from benchmarks.device import process; process.output_of(["bash", "-c", "echo stuck here; sleep 60"])'
    end = process.run([sys.executable, "-c", code], {"PYTHONPATH": str(ROOT)}, tmp_path / "log", 3.0, lambda *_: None)
    assert end.reason == "killed after its limit of 3 s; stuck here"


def test_the_last_line_of_a_long_log_is_found(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"\n".join([b"\xff" * 100] * 2000) + b"\nthe end\n\n")
    assert process._last_line(log) == "the end"


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Return a function that runs the command on fake tasks and returns the exit status and the stored rows."""

    def run(ends, *words):
        """`ends` has a pair (rows, end) for each task.

        `end` is the reason of a failure, "" for success, or the exception to raise.
        """
        remaining = iter(ends)

        def fake_run(words, environment, log, limit, receive):
            rows, end = next(remaining)
            for row in rows:
                receive("row", row.to_json())
            if isinstance(end, BaseException):
                raise end
            return process.End(1.0, end)

        monkeypatch.setattr(command, "run", fake_run)
        monkeypatch.setattr(command, "chosen", lambda _: list(plan.TASKS[: len(ends)]))
        out = tmp_path / "device.jsonl"
        return command.main(["--rehearse", "--out", str(out), *words]), store.read(out)

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


def unfinished(rows):
    return {row.case: row.details.get("reason") for row in rows if row.quantity == "unfinished" and row.value == 1}


def test_a_failed_task_is_a_row_and_the_next_one_runs(fake, capsys):
    status, rows = fake([([figure(value=2.0)], "it broke"), ([figure("b"), figure("b", quantity="rate")], "")])
    assert status == 1
    assert unfinished(rows) == {"device-versions": "it broke"}
    assert {row.case: row.value for row in rows if row.quantity == "time"} == {"device-jax-scan": 2.0, "device-b": 1.0}
    # The second quantity of device-b does not replace its first.
    assert {row.quantity for row in rows if row.case == "device-b"} == {"time", "rate"}
    assert all(row.host["rehearsal"] and row.host["processor"] and row.date for row in rows)
    printed = capsys.readouterr().out
    assert "it broke" in printed
    assert "jax-scan" in printed


def test_an_interrupted_run_keeps_its_rows(fake, capsys):
    status, rows = fake([([], ""), ([figure()], KeyboardInterrupt())])
    assert status == 130
    assert [row.case for row in rows] == ["device-jax-scan", "device-versions"]
    assert "versions" in capsys.readouterr().out


def test_a_full_disk_does_not_end_the_run(fake, monkeypatch, capsys):
    """The summary prints the figures that the full disk did not store."""

    def full(out, rows):
        if rows:
            raise OSError(28, "No space left on device")
        store.replace(out, rows)

    monkeypatch.setattr(command, "replace", full)
    status, rows = fake([([figure(value=2.0)], ""), ([], OSError(28, "No space left on device"))])
    assert (status, rows) == (1, [])
    printed = capsys.readouterr()
    assert "lacks rows of this run, because it could not be written: [Errno 28]" in printed.out
    assert "failed    0.0 of 13 s: OSError: [Errno 28] No space left on device" in printed.out
    assert "jax-scan" in printed.out
    assert printed.err.count("is not saved") == 1


def test_a_task_that_exceeds_the_time_left_is_not_run(fake):
    status, rows = fake([([figure()], "")], "--within", "1")
    assert status == 1
    assert unfinished(rows) == {"device-versions": "the task needs 5 s, and --within leaves 1 s"}


def test_a_repeated_task_replaces_its_rows(fake):
    fake([([figure(value=1.0), figure("b")], "")])
    _, rows = fake([([figure(value=3.0)], "")])
    assert {row.case: row.value for row in rows if row.quantity == "time"} == {"device-jax-scan": 3.0, "device-b": 1.0}


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(command, "missing", lambda task: list(task.needs))
    tasks = {task.name: task for task in plan.TASKS}
    on_gpu, rehearsal = (command.Run(Path("x.jsonl"), rehearse, 100) for rehearse in (False, True))
    assert on_gpu.why_skipped(tasks["memcheck"]) == rehearsal.why_skipped(tasks["memcheck"]) == ""
    assert on_gpu.why_not_run(tasks["memcheck"], 100) == "compute-sanitizer is not installed"
    assert rehearsal.why_not_run(tasks["memcheck"], 100) == ""
    assert on_gpu.why_not_run(tasks["torch-eager"], 100) == "torch is not installed"
    assert rehearsal.why_skipped(tasks["torch-eager"]).startswith("torch is not installed")
    assert rehearsal.why_not_run(tasks["tests"], 100) == "pytest is not installed"


def test_a_program_with_another_cost_is_reported():
    same = [figure(variant=name, cost=0.05 + k * 1e-4) for k, name in enumerate("abc")]
    assert summary.unlike([*same, figure("b")]) == []
    (line,) = summary.unlike([*same, figure("torch-graph", "torch", cost=0.06)])
    assert line.startswith("device-torch-graph, torch, float32: its time does not count, because C is 0.06 ")


def test_the_summary_says_that_no_figure_comes_from_a_gpu():
    def lines(quantity="time", **host):
        return summary.summary([dataclasses.replace(figure(quantity=quantity), host=host)], [], []).splitlines()

    for text in (lines(device="cpu", rehearsal=True), lines(device="H100", rehearsal=True)):
        assert text[0] == text[-2] == summary.REHEARSED
    assert lines("unfinished", device="cpu")[0] == summary.NO_GPU
    # Without nvidia-smi, the rows name "cpu" as the device even if they come from a GPU.
    for text in (lines(device="H100"), lines(device="cpu")):
        assert text[0].startswith("jax-scan")
        assert not set(text) & {summary.NO_GPU, summary.REHEARSED}


# Single tasks: their checks, data and results.


@pytest.mark.parametrize(
    ("status", "output", "failed", "error"),
    [
        (0, "kernel: Fake H100\n===== 3 passed, 1 skipped in 2.00s =====", [0], None),
        (1, "1 failed, 2 passed, 2 errors in 2.00s", [3], "pytest ended with status 1: 1 failed"),
        (0, "4 skipped in 2.00s", [0], "no test ran: 4 skipped in 2.00s"),
        (0, "kernel: emulated on the CPU, because …\n3 passed in 2.00s", [], "expected a GPU, and JAX saw none"),
    ],
)
def test_the_tests_need_a_gpu_and_their_failures_are_counted(monkeypatch, tmp_path, status, output, failed, error):
    rows = []
    monkeypatch.setattr(device_tests, "output_of", lambda words, environment: (status, output))
    monkeypatch.setattr(Context, "emit", lambda self, row: rows.append(row))
    monkeypatch.setattr(Context, "note", lambda self, text: None)
    with pytest.raises(TaskError, match=error) if error else contextlib.nullcontext():
        device_tests.run(Context("tests", False, tmp_path, -1))
    assert [row.value for row in rows] == failed
    assert device_tests.EMULATED in Path(gpu_run.__file__).read_text()


@pytest.mark.slow
def test_each_adder_is_recognized():
    """The sums identify the rounding of every adder.

    If an adder adds several products at once and keeps 1 to 8 extra bits, the sums also identify the number of
    products and the number of extra bits.
    """
    by_results = {}
    for model in adder.models():
        by_results.setdefault(tuple(model.add(test) for test in adder.tests()), []).append(model)
    for same in by_results.values():
        assert len({model.rounding for model in same}) == 1
        assert len({(model.extra, model.group) for model in same if model.group > 1 and model.extra}) <= 1
    results, (planted, *_) = next(iter(by_results.items()))
    assert planted in adder.consistent(results)
    changed = [*results[:-1], results[-1] + 1.0]
    assert adder.consistent(changed) == []
    assert adder.described([], changed).startswith("no model predicts all")


def test_the_factors_of_the_sums_are_exact_in_tf32():
    for test in adder.tests():
        a, b = (np.array(side, np.float32) for side in adder._factors(test.products))
        assert (a.astype(float) * b == test.products).all()
        assert not (np.concatenate([a, b]).view(np.uint32) & 0x1FFF).any()
        assert float(np.float32(test.c)) == test.c


def test_the_compile_time_is_that_of_a_whole_call():
    rows = {}
    context = types.SimpleNamespace(
        row=lambda part, variant, quantity, unit, samples, **more: rows.update({(quantity, unit): samples})
    )
    timing.store(context, "", "torch", "s/step", 12.0, [2.0, 4.0, 3.0], "float32", {}, 10)
    assert rows == {("compile time", "s"): [9.0], ("time", "s/step"): [0.2, 0.4, 0.3]}


def test_every_figure_of_the_profiler_is_found():
    first, second = profile.counters(profile.SAMPLE)
    assert first["gpu__time_duration.sum"] == (1234.5, "us")
    assert second["smsp__inst_executed.sum"] == (1.5e6, "inst")
    assert {profile.counter_of(figure, first) for figure in profile.FIGURES} == set(first)
    assert profile.counters("==ERROR== no device") == []


def test_the_faults_of_a_sanitizer_are_counted():
    assert sanitize.faults("========= ERROR SUMMARY: 0 errors") == 0
    assert sanitize.faults("========= RACECHECK SUMMARY: 12 hazards displayed (3 errors, 9 warnings)") == 12
    assert sanitize.faults("========= Error: Device not supported") is None


def test_generated_images_have_the_sparsity_of_mnist():
    images = data.generated(2_000, 0)
    assert not images.genuine
    # 19% of MNIST's pixels are not zero, and 30% of its groups of 8 pixels are zero in all images of a mini-batch.
    assert np.mean(images.x > 0) == pytest.approx(0.19, abs=0.01)
    groups = images.x.reshape(-1, data.BATCH, 98, 8).max((1, 3))
    assert np.mean(groups == 0) == pytest.approx(0.30, abs=0.03)
    # The labels can be learned: for over 90% of the images, the nearest mean image has the right label.
    means = np.stack([images.x[images.y == k].mean(0) for k in range(10)])
    nearest = np.argmin(((images.x[:500, None] - means) ** 2).sum(-1), axis=1)
    assert np.mean(nearest == images.y[:500]) > 0.9


@pytest.mark.parametrize(
    ("suffix", "why"),
    [("", "-ubyte"), (".gz", "has no files of MNIST with the right sizes")],
    ids=["unpacked files, damaged", "packed files of wrong sizes"],
)
def test_generated_images_say_why_mnist_was_not_read(monkeypatch, tmp_path, suffix, why):
    monkeypatch.setenv("JAXGD_DATA_DIR", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / "mnist" / f"{name}-ubyte{suffix}").write_bytes(b"damaged")
    monkeypatch.setattr(data, "generated", lambda n, seed: data.Images(np.ones((4, 784), np.uint8), np.zeros(4), False))
    data._all.cache_clear()
    try:
        origin = data.training(2).details["images"]
    finally:
        data._all.cache_clear()
    assert origin.startswith("generated, 100% of the pixels not zero, because ")
    assert str(tmp_path) in origin
    assert why in origin


def test_the_gradient_of_the_reference_equals_differences():
    """Compare ∇C in float64 with central differences of C along random directions."""
    images, rng = data.generated(40, 0), np.random.default_rng(0)
    network = [v[0].astype(float) for v in data.weights(1)]

    def cost(v):
        w1, b1, w2, b2 = v
        a = reference.sigmoid(reference.sigmoid(images.x / 255 @ w1.T + b1) @ w2.T + b2)
        return np.sum((a - np.eye(10)[images.y]) ** 2) / (2 * len(images.y))

    gradient = reference.gradient(network, images.x, images.y)
    for _ in range(3):
        along = [rng.normal(size=v.shape) for v in network]
        # The truncation error of a step of 1e-5 is near 1e-9 of the slope, and the rounding error near 1e-10.
        ends = (cost([v + s * 1e-5 * u for v, u in zip(network, along, strict=True)]) for s in (1, -1))
        slope = np.subtract(*ends) / 2e-5
        assert sum(np.sum(g * u) for g, u in zip(gradient, along, strict=True)) == pytest.approx(slope, rel=1e-6)


# The host.


def test_the_fields_of_the_gpu_are_read(monkeypatch):
    line = "NVIDIA H100 80GB HBM3, 580.159.04, 9.0, 81559, 1980, 2619, 345, 2619, 700.00, [N/A]\n"
    monkeypatch.setattr(hardware, "output", lambda words: line if words[0] == "nvidia-smi" else "")
    monkeypatch.setattr(hardware, "_multiprocessors", lambda: 132)
    gpu = hardware.gpu()
    assert gpu["name"] == "NVIDIA H100 80GB HBM3"
    assert (gpu["driver"], gpu["capability"], gpu["multiprocessors"]) == ("580.159.04", "9.0", 132)
    assert (gpu["sm_mhz"], gpu["power_limit_w"]) == (345, 700)
    assert "celsius" not in gpu
    host = hardware.stamp_without_jax()["host"]
    assert host["device"] == gpu["name"]
    assert host["gpu"] == gpu
    monkeypatch.setattr(hardware, "output", lambda words: "")
    assert hardware.gpu() == {}
    assert hardware.stamp_without_jax()["host"]["device"] == "cpu"


def test_a_missing_or_failing_program_gives_no_output():
    assert hardware.output(["jaxgd-no-such-program"]) == ""
    assert hardware.output(["false"]) == ""


# The whole run.

WORDS = [sys.executable, "-m", "benchmarks", "device", "--rehearse"]


@pytest.mark.slow
def test_a_rehearsal_runs_every_task(tmp_path):
    out = tmp_path / "device.jsonl"
    done = subprocess.run([*WORDS, "--out", out], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    rows = store.read(out)
    results = {row.case: row for row in rows if row.quantity == "unfinished"}
    assert set(results) == {f"device-{task.name}" for task in plan.TASKS}
    for task in plan.TASKS:
        status = results[f"device-{task.name}"].details["status"]
        may_skip = task.name in plan.NOT_REHEARSED or set(task.needs) & set(plan.MAY_LACK)
        assert status == "done" or (status == "skipped" and may_skip), task.name
    # The kernel and XLA store their costs, and status 0 says that all costs agree.
    assert {"jaxgd-cuda", "jaxgd-cuda-vmap", "xla-scan"} <= {row.variant for row in rows if "cost" in row.details}


@pytest.mark.slow
def test_a_killed_run_leaves_valid_rows_and_no_process(tmp_path):
    out = tmp_path / "device.jsonl"
    # jax-kernel compiles the emulation for several seconds, so it still runs when its parent is killed.
    words = [*WORDS, "--only", "versions", "--only", "jax-kernel", "--out", str(out)]
    run = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert any("== 6 jax-kernel" in line for line in run.stderr)
    # At its start, the task asks Linux to kill it with its parent. Wait for that.
    time.sleep(2)
    (task,) = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    assert is_running(task)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.stderr.close()
    time.sleep(0.5)
    assert not is_running(task)
    assert "device-versions" in {row.case for row in store.read(out)}
