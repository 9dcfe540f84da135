"""`python -m benchmarks device`: run the plan, store each row as soon as it arrives, and print a summary."""

import argparse
import contextlib
import dataclasses
import fcntl
import importlib.util
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks import hardware
from benchmarks.device import summary
from benchmarks.device.plan import MAY_LACK, NOT_REHEARSED, TASKS, TOOLS_OF_A_GPU, Task, UnknownTaskError, chosen
from benchmarks.device.process import End, python, run
from benchmarks.rows import Key, Row
from benchmarks.store import FOLDER, ResultsError, replace

RESULTS = FOLDER / "device.jsonl"
# Environment variables of all tasks. By default, JAX reserves most of the GPU's memory, and PyTorch would lack memory.
ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1"}


class UsageError(Exception):
    """An option with an unusable value, such as a file that cannot be written. The message is the reason."""


class Result(NamedTuple):
    """The result of a task.

    Attributes:
        task: The task.
        status: "done", "failed", "skipped" or "not run". A task whose process cannot start has failed. Only a rehearsal
            skips tasks.
        seconds: Seconds that the process ran.
        reason: The reason in one line. Empty if the task is done.
    """

    task: Task
    status: Literal["done", "failed", "skipped", "not run"]
    seconds: float
    reason: str

    def row(self) -> Row:
        """Return the row that records the result."""
        details = {"status": self.status, "planned": self.task.seconds, "seconds": round(self.seconds, 1)}
        reason = {"reason": self.reason} if self.reason else {}
        return Row(
            case=f"device-{self.task.name}", variant="task", quantity="unfinished", unit="tasks",
            value=int(self.status != "done"), precision="any", details=details | reason,
        )  # fmt: skip


class Run:
    """A run of the plan.

    Attributes:
        rows: The rows so far, with the figures and the results of the tasks.
        notes: Lines for the summary.
        results: The results of the tasks so far.
        unsaved: The reason why the file of results lacks rows, or an empty text.
    """

    def __init__(self, out: Path, rehearse: bool, within: float) -> None:
        self.rows: dict[Key, Row] = {}
        self.notes: list[str] = []
        self.results: list[Result] = []
        self.unsaved = ""
        self._out, self._rehearse = out, rehearse
        self._logs = logs_of(out)
        self._end = time.monotonic() + within
        self._stamp = hardware.stamp_without_jax()
        if rehearse:
            self._stamp["host"]["rehearsal"] = True

    def do(self, task: Task) -> None:
        """Run a task, unless it is skipped or cannot run. Print and store its result."""
        left = self._end - time.monotonic()
        if reason := self.why_skipped(task):
            self._finish(Result(task, "skipped", 0.0, reason))
            return
        if reason := self.why_not_run(task, left):
            self._finish(Result(task, "not run", 0.0, reason))
            return
        print(f"== {task.step} {task.name}: {task.title}", file=sys.stderr, flush=True)
        words = python("benchmarks.device.child", task.name, "PIPE", str(self._logs))
        flags = " ".join(filter(None, (os.environ.get("XLA_FLAGS"), task.xla_flags)))
        environment = {**ENVIRONMENT, **({"XLA_FLAGS": flags} if flags else {})}
        if self._rehearse:
            words.append("--rehearse")
            # XLA ends the process at an unknown flag, and a rehearsal needs no flags.
            environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
        log = self._logs / f"{task.name}.log"
        try:
            end = run(words, environment, log, min(task.limit(self._rehearse), left), self._receive)
        except OSError as error:  # The disk is full, or no memory is left for a process.
            end = End(0.0, f"{type(error).__name__}: {error}")
        self._finish(Result(task, "failed" if end.reason else "done", end.seconds, end.reason))

    def why_skipped(self, task: Task) -> str:
        """Return the plan's reason to skip a task in a rehearsal, or an empty text."""
        if not self._rehearse:
            return ""
        lacking = (f"{name} is not installed; {MAY_LACK[name]}" for name in missing(task) if name in MAY_LACK)
        return NOT_REHEARSED.get(task.name) or next(lacking, "")

    def why_not_run(self, task: Task, left: float) -> str:
        """Return the reason why a task cannot run, or an empty text."""
        lacking = [name for name in missing(task) if not (self._rehearse and name in TOOLS_OF_A_GPU)]
        if lacking:
            return f"{lacking[0]} is not installed"
        if left < task.seconds:
            return f"the task needs {task.seconds:.0f} s, and --within leaves {max(left, 0):.0f} s"
        return ""

    @property
    def status(self) -> int:
        """The exit status: 1 if a task failed or was not run, a row is not saved, or costs differ by over 5%."""
        bad = any(result.status in ("failed", "not run") for result in self.results)
        return int(bad or bool(self.unsaved) or bool(summary.unlike(list(self.rows.values()))))

    def _receive(self, kind: str, text: str) -> None:
        if kind == "note":
            self.notes.append(text)
        else:
            self._store(Row.from_json(text))

    def _finish(self, result: Result) -> None:
        self.results.append(result)
        self._store(result.row())
        print(summary.line_of(result), file=sys.stderr, flush=True)

    def _store(self, row: Row) -> None:
        """Write a row to the file. Replace earlier runs' rows of the same case, variant and precision.

        If the file cannot be written, the run continues, and its summary shows the row.
        """
        row = dataclasses.replace(row, **self._stamp)
        self.rows[row.key] = row
        same = (row.case, row.variant, row.precision)
        try:
            replace(self._out, [r for r in self.rows.values() if (r.case, r.variant, r.precision) == same])
        except (OSError, ResultsError) as error:
            if not self.unsaved:
                print(f"device: a row of {row.case} is not saved: {error}", file=sys.stderr, flush=True)
            self.unsaved = f"{self._out} lacks rows of this run, because it could not be written: {error}"


def missing(task: Task) -> list[str]:
    """Return the packages and programs that a task needs but that are not installed."""
    return [name for name in task.needs if not shutil.which(name) and not importlib.util.find_spec(name)]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    steps = "\n".join(f"  {task.step:2} {task.name:20} {task.seconds:3.0f} s  {task.title}" for task in TASKS)
    parser_ = argparse.ArgumentParser(
        prog="python -m benchmarks device", formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{__doc__}\n\nSteps and tasks, with their planned seconds:\n{steps}",
    )  # fmt: skip
    parser_.add_argument("--only", action="append", default=[], metavar="STEP",
                         help="number of a step or name of a task; may be repeated")  # fmt: skip
    parser_.add_argument("--rehearse", action="store_true",
                         help="run the tasks on the CPU with tiny sizes; no figure comes from a GPU")  # fmt: skip
    parser_.add_argument("--out", type=Path, help=f"file of results (default: {RESULTS}; rehearsal: a temporary file)")
    parser_.add_argument("--within", type=float, default=540.0, metavar="SECONDS",
                       help="end after this time (default: 540)")  # fmt: skip
    return parser_


def main(words: Sequence[str]) -> int:
    """Run the plan, print a summary, and return the exit status."""
    options = parser().parse_args(words)
    try:
        tasks = chosen(options.only)
        if not (math.isfinite(options.within) and options.within > 0):
            raise UsageError(f"device: expected --within with a finite time above 0, got {options.within:g}.")
        folder = tempfile.mkdtemp(prefix="jaxgd-rehearsal-") if options.rehearse and not options.out else ""
        out: Path = options.out or (Path(folder, "device.jsonl") if folder else RESULTS)
        with _locked(out):
            return _run(tasks, out, options.rehearse, options.within)
    except (UnknownTaskError, UsageError) as error:
        print(error, file=sys.stderr)
        return 2


def _run(tasks: Sequence[Task], out: Path, rehearse: bool, within: float) -> int:
    this = Run(out, rehearse, within)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        for task in tasks:
            this.do(task)
        status = this.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    notes = [*this.notes, *([this.unsaved] if this.unsaved else [])]
    text = summary.summary(list(this.rows.values()), notes, this.results)
    print(text)
    with contextlib.suppress(OSError):
        (logs_of(out) / "summary.txt").write_text(text, encoding="utf-8")
    print(f"{out}: {len(this.rows)} rows of this run; the logs are in {logs_of(out)}")
    return status


def logs_of(out: Path) -> Path:
    """Return the folder of the logs of a run with this file of results."""
    return out.with_suffix("")


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Prepare the file of results and the folder of the logs, and lock them against another run.

    Refuse files that the run could not write, before it uses time on the device.
    """
    if out.suffix != ".jsonl" or not out.absolute().parent.is_dir() or (out.exists() and not out.is_file()):
        raise UsageError(f"device: expected --out with a file that ends in .jsonl, in an existing folder, got {out}.")
    try:
        logs_of(out).mkdir(exist_ok=True)
        handle = os.open(logs_of(out), os.O_RDONLY)
    except OSError as error:
        raise UsageError(f"device: the folder of the logs cannot be created: {error}.") from error
    try:
        _take(handle, out)
        yield
    finally:
        os.close(handle)


def _take(handle: int, out: Path) -> None:
    """Lock the folder of the logs. Rewrite the file of results unchanged, to test that it can be written."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        replace(out, [])
    except BlockingIOError as error:
        raise UsageError(f"device: another run writes to {out}.\nWait for its end, or name another --out.") from error
    except (OSError, ResultsError) as error:
        raise UsageError(f"device: {error}") from error


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
