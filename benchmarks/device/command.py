"""`python -m benchmarks device`: run the plan, store the figures as they come, and print a summary."""

import argparse
import dataclasses
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks import hardware
from benchmarks.device import summary
from benchmarks.device.plan import MAY_LACK, NOT_REHEARSED, TASKS, TOOLS_OF_A_GPU, Task, UnknownTaskError, chosen
from benchmarks.device.process import python, run
from benchmarks.rows import Key, Row
from benchmarks.store import FOLDER, read, replace

RESULTS = FOLDER / "device.jsonl"
# Environment of all tasks. By default, JAX takes most of the GPU's memory at its start, and PyTorch has too little.
ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1"}


class Result(NamedTuple):
    """The result of a task.

    Attributes:
        task: The task.
        status: "done" or "failed" if the task ran; "skipped" if the plan lets a rehearsal skip it; otherwise "not run".
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
        rows: The figures so far.
        notes: Lines for the summary.
        results: The results of the tasks so far.
    """

    def __init__(self, out: Path, rehearse: bool, within: float) -> None:
        self.rows: dict[Key, Row] = {}
        self.notes: list[str] = []
        self.results: list[Result] = []
        self._out, self._rehearse = out, rehearse
        self._logs = out.with_suffix("")
        self._end = time.monotonic() + within
        self._stamp = hardware.stamp_without_jax()
        if rehearse:
            self._stamp["host"]["rehearsal"] = True

    def do(self, task: Task) -> None:
        """Run a task, unless a requirement is missing. Print and store its result."""
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
            # XLA ends the process at an unknown flag, and XLA for the CPU does not know the flags of a GPU.
            environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{task.name}.log"
        end = run(words, environment, log, min(task.limit(self._rehearse), left), self._receive)
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
        """The exit status: 1 if a task failed or was not run, or if programs that do the same work differ in cost."""
        bad = any(result.status in ("failed", "not run") for result in self.results)
        return int(bad or bool(summary.unlike(list(self.rows.values()))))

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
        """Add a row to the file. It replaces the rows of earlier runs, and keeps the other quantities of this run."""
        row = dataclasses.replace(row, **self._stamp)
        self.rows[row.key] = row
        same = (row.case, row.variant, row.precision)
        replace(self._out, [r for r in self.rows.values() if (r.case, r.variant, r.precision) == same])


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
                         help="number of a step, or a task; may be repeated")  # fmt: skip
    parser_.add_argument("--rehearse", action="store_true",
                         help="run every step on the CPU with tiny sizes; no figure is of a GPU")  # fmt: skip
    parser_.add_argument("--out", type=Path, help=f"file of results (default: {RESULTS}; rehearsal: a temporary file)")
    parser_.add_argument("--within", type=float, default=540.0, metavar="SECONDS",
                       help="end after this time (default: 540)")  # fmt: skip
    return parser_


def main(words: Sequence[str]) -> int:
    """Run the plan, print a summary, and return the exit status."""
    options = parser().parse_args(words)
    try:
        tasks = chosen(options.only)
    except UnknownTaskError as error:
        print(error, file=sys.stderr)
        return 2
    folder = tempfile.mkdtemp(prefix="jaxgd-rehearsal-") if options.rehearse and not options.out else ""
    out: Path = options.out or (Path(folder, "device.jsonl") if folder else RESULTS)
    if not out.absolute().parent.is_dir():
        print(f"device: expected --out in an existing folder, got {out}.", file=sys.stderr)
        return 2
    if out.exists():
        read(out)
    this = Run(out, options.rehearse, options.within)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        for task in tasks:
            this.do(task)
        status = this.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    text = summary.summary(list(this.rows.values()), this.notes, this.results)
    print(text)
    logs = out.with_suffix("")
    if logs.is_dir():
        (logs / "summary.txt").write_text(text, encoding="utf-8")
    print(f"{out}: {len(this.rows)} rows of this run; the logs are in {logs}")
    return status


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
