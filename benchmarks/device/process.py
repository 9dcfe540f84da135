"""Run a task in a process group of its own. Kill the group when the task ends, or at its time limit."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl
_TAIL = 2**16  # bytes that are read from the end of a log to find its last line


class End(NamedTuple):
    """The end of a process.

    Attributes:
        seconds: Seconds that the process ran.
        reason: One line that says why the process failed or why a message was not stored. Otherwise empty.
    """

    seconds: float
    reason: str


def run(
    words: Sequence[str], environment: Mapping[str, str], log: Path, limit: float, receive: Callable[[str, str], None]
) -> End:
    """Run a command and return its end.

    Args:
        words: The command. The number of the pipe's descriptor replaces the word PIPE.
        environment: Further environment variables.
        log: File for the output of the process.
        limit: Seconds after which the process group is killed.
        receive: A function that takes the kind and the text of each message from the pipe.
    """
    reading, writing = os.pipe()
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(writing) if word == "PIPE" else word for word in words], stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, env={**os.environ, **environment}, pass_fds=[writing], start_new_session=True,
        )  # fmt: skip
    os.close(writing)
    faults: list[str] = []
    reader = threading.Thread(target=_read, args=(reading, receive, faults), daemon=True)
    reader.start()
    try:
        status = process.wait(limit)
        reason = "" if status == 0 else _reason(status, log)
    except subprocess.TimeoutExpired:
        reason = f"killed after its limit of {limit:.0f} s; {_last_line(log)}"
    finally:
        end_group(process.pid)
        process.wait()
        reader.join(5)
    return End(time.monotonic() - began, reason or "; ".join(faults))


def end_group(leader: int) -> None:
    """Kill all processes of a group, even after its leader has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, so that no task is left on the GPU."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)


def output_of(
    words: Sequence[str], environment: Mapping[str, str] | None = None, stderr: int | TextIO = subprocess.STDOUT
) -> tuple[int, str]:
    """Run a program inside a task, and return its exit status and its output.

    The task's log receives the output as it comes, so a kill of the program loses little of it. If the task is killed,
    Linux kills the program too.
    """
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
        env={**os.environ, **(environment or {})}, preexec_fn=die_with_parent,
    )  # fmt: skip
    assert process.stdout is not None
    parts = []
    while part := os.read(process.stdout.fileno(), 2**16):
        parts.append(part)
        sys.stdout.buffer.write(part)
        sys.stdout.flush()
    process.stdout.close()
    return process.wait(), b"".join(parts).decode("utf-8", errors="replace")


def python(*words: str) -> list[str]:
    """Return the command that runs a module with this interpreter. `words` are the module and its arguments."""
    return [sys.executable, "-m", *words]


def _read(pipe: int, receive: Callable[[str, str], None], faults: list[str]) -> None:
    with os.fdopen(pipe, encoding="utf-8") as lines:
        for line in lines:
            try:
                receive(*json.loads(line))
            except (ValueError, TypeError) as error:  # a message cut by a kill
                faults.append(f"a message was not stored: {error}")


def _reason(status: int, log: Path) -> str:
    if status < 0:
        return f"ended by the signal {signal.Signals(-status).name}; {_last_line(log)}"
    return _last_line(log)


def _last_line(log: Path) -> str:
    """Return the last non-empty line of a log, up to 300 characters. A traceback ends with the exception's message."""
    with log.open("rb") as file:
        # A task may have printed gigabytes.
        file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
        lines = [line.strip() for line in file.read().decode("utf-8", errors="replace").splitlines()]
    return next((line[:300] for line in reversed(lines) if line), "no output")
