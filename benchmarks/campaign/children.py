"""Child processes: the parent imports all libraries once, and the attacks run in forks of the parent.

A fork starts in 20 ms, while an import of JAX, orbax and the command takes two seconds. JAX starts threads with its
first array, and a fork of a process with threads may hang, so the parent never makes an array.
"""

import contextlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TextIO

# Exit status of a child whose function raised. The commands never return it.
RAISED = 99
# Seconds between polls of the child processes.
POLL = 0.003
# Limit on wall time, as a multiple of the limit on processor time.
PATIENCE = 6


class Job(NamedTuple):
    """The work of one child process, and its limits.

    Attributes:
        work: The function to run. Its result is the exit status.
        folder: Working folder of the child. The child's standard output and error are files next to it.
        limit: Limit on processor time in seconds. The limit on wall time is PATIENCE times as long. A child that
            exceeds one of them is killed and counts as hung.
        kill_after: Seconds of wall time until SIGKILL, which does not count as a hang. None for no kill.
    """

    work: Callable[[], int]
    folder: Path
    limit: float = 60.0
    kill_after: float | None = None


class Ending(NamedTuple):
    """The result of a child process.

    Attributes:
        status: Exit status, or minus the number of the signal.
        hung: True if the child exceeded its limit.
        out: Standard output.
        err: Standard error.
        seconds: Wall time that the child ran.
    """

    status: int
    hung: bool
    out: str
    err: str
    seconds: float

    @property
    def trouble(self) -> str:
        """The way in which the command broke, such as "hang" or "traceback". Empty if it did not break."""
        if self.hung:
            return "hang"
        if self.status == RAISED or "Traceback (most recent call last)" in self.err:
            return "traceback"
        if "internal error" in self.err:
            return "internal error"  # the command reports an unexpected exception in one line
        return f"died by {signal.Signals(-self.status).name}" if self.status < 0 else ""

    @property
    def last_line(self) -> str:
        """The last line of standard error that is not empty."""
        return next((line for line in reversed(self.err.splitlines()) if line.strip()), "")


def prepare(programs: Path) -> None:
    """Import everything that a command imports, so that a fork finds it. Let JAX store its programs in `programs`."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(programs)
    import optax  # noqa: F401
    import orbax.checkpoint  # noqa: F401
    import PIL.Image
    import tensorboardX  # noqa: F401

    import jaxgd.cli.reporter
    import jaxgd.run_folder

    configure("jax_compilation_cache_dir", str(programs))
    PIL.Image.init()
    for name in jaxgd.__all__:
        getattr(jaxgd, name)
    # A process that has made an array must not fork. This line raises RuntimeError in such a process.
    configure("jax_num_cpu_devices", 1)


def configure(name: str, value: object) -> None:
    """Set an option of `jax.config`."""
    import jax

    config: Any = jax.config
    config.update(name, value)


def command(*argv: str, hook: Callable[[], None] | None = None) -> Callable[[], int]:
    """Return a function that calls the hook, if any, and then runs `jaxgd` with these arguments."""

    def work() -> int:
        from jaxgd.cli import main

        if hook is not None:
            hook()
        return main(argv)

    return work


def without_network() -> None:
    """Let every connection fail at once, so that no attack downloads a data set."""
    import socket

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(101, "Network is unreachable")

    socket.socket.connect = fail  # type: ignore[method-assign]
    socket.getaddrinfo = fail


def finish(job: Job) -> Ending:
    """Run one job in a child process, and return the result."""
    child = Child(job)
    while (ending := child.ending()) is None:
        time.sleep(POLL)
    return ending


class Child:
    """The child process of a job."""

    def __init__(self, job: Job) -> None:
        self._job, self._began = job, time.monotonic()
        self._ended = False
        job.folder.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            status = RAISED
            try:
                status = _run(job)
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(BaseException):
                    sys.stdout.flush()
                with contextlib.suppress(BaseException):
                    sys.stderr.flush()
                os._exit(status & 0xFF)

    def ending(self) -> Ending | None:
        """Return the result of the child, or None while it runs. Kill the child if its wall time is over."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        self._ended = pid != 0
        seconds = time.monotonic() - self._began
        hung = False
        if pid == 0:
            killed = self._job.kill_after is not None and seconds > self._job.kill_after
            hung = seconds > PATIENCE * self._job.limit
            if not killed and not hung:
                return None
            status = self.end()
        out, err = (path.read_text("utf-8", "replace") for path in _streams(self._job.folder))
        code = os.waitstatus_to_exitcode(status)
        hung = hung or -code in (signal.SIGALRM, signal.SIGPROF)
        return Ending(code, hung, out, err, seconds)

    def end(self) -> int:
        """Kill the child and return its wait status. Return 0 if the child has ended already."""
        if self._ended:
            return 0
        self._ended = True
        os.kill(self._pid, signal.SIGKILL)
        return os.waitpid(self._pid, 0)[1]


def _streams(folder: Path) -> tuple[Path, Path]:
    """Return the files for the standard output and standard error of the child in this folder."""
    return folder.with_name(f"{folder.name}.out"), folder.with_name(f"{folder.name}.err")


def limit(seconds: float) -> None:
    """End this process after `seconds` of processor time, or PATIENCE times as much wall time. 0 sets no limit.

    The signals have their default action, which ends the process even if no Python code runs.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * seconds)


def open_stderr() -> TextIO:
    """Return standard error as a line-buffered text file."""
    return os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _run(job: Job) -> int:
    """Run a job in the child: in its folder, with its own standard streams and without core files."""
    os.chdir(job.folder)
    out, err = _streams(job.folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY
    streams = ((Path(os.devnull), os.O_RDONLY), (out, flags), (err, flags))
    for number, (path, how) in enumerate(streams):
        os.dup2(os.open(path, how, 0o644), number)
    # A test that captures output has replaced the parent's sys.stdout and sys.stderr.
    sys.stdin = os.fdopen(0, "r", encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open_stderr()
    limit(job.limit)
    return job.work()
