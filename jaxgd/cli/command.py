"""Parse the command line, run the command, and turn an exception into one line and an exit status."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import tyro

from jaxgd.cli import signals
from jaxgd.cli.check import Check
from jaxgd.cli.common import DONE, FAILED, INTERRUPTED, MISUSED
from jaxgd.cli.evaluate import Evaluate
from jaxgd.cli.info import Info, version_line
from jaxgd.cli.minimize import Minimize
from jaxgd.cli.output import Speaker, discard_broken_output, error_line, readable_everywhere, warnings_as_lines
from jaxgd.cli.predict import Predict
from jaxgd.cli.report import Report
from jaxgd.cli.sweep import Sweep
from jaxgd.cli.train import Train
from jaxgd.cli.usage import explain_usage

Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Minimize, tyro.conf.subcommand("minimize")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Info, tyro.conf.subcommand("info")]
)

_ABOUT = """Gradient descent that can be trusted, at the speed of the machine.

jaxgd --version prints the versions and the backend.

Exit status: 0 done; 1 the command failed or a gradient is wrong; 2 misuse; 3 a gradient check cannot tell or, with
--strict, was skipped; 130 interrupted by Ctrl-C; 129 and 143 stopped by SIGHUP and SIGTERM.
"""


def run(argv: list[str]) -> int:
    """Run the command that these words describe, and return the exit status."""
    with readable_everywhere():
        if argv[:1] == ["--version"]:
            return _guarded("jaxgd", lambda: _print_version(argv[1:]))
        if not argv:
            with contextlib.redirect_stdout(sys.stderr):
                _guarded("jaxgd", lambda: _parse(["--help"]))
            return MISUSED
        parsed: list[Any] = []
        status = _guarded("jaxgd", lambda: _parse(argv, parsed))
        if not parsed:
            return status
        name = f"jaxgd {type(parsed[0]).__name__.lower()}"
        signals.describe(name)
        status = _guarded(name, lambda: _run(parsed[0], argv), quiet=isinstance(parsed[0], Evaluate | Predict | Info))
        if _in_job():
            from jaxgd.mesh.job import leave_job

            leave_job(status)
        return status


def _parse(argv: list[str], parsed: list[Any] | None = None) -> int:
    """Append the command to `parsed`, except after --help or a usage error. Return the exit status."""
    usage = io.StringIO()
    wide = contextlib.nullcontext() if {"-h", "--help"} & set(argv) else _wide_terminal()
    try:
        with contextlib.redirect_stderr(usage), wide:
            command: Any = tyro.cli(Command, prog="jaxgd", description=_ABOUT, args=argv)
    except SystemExit as exit_:
        if exit_.code:
            error_line(*explain_usage(argv, usage.getvalue()))
            return MISUSED
        return DONE  # tyro has printed the help to stdout
    if parsed is not None:
        parsed.append(command)
    return DONE


@contextlib.contextmanager
def _wide_terminal() -> Iterator[None]:
    """Inside the block, tyro does not wrap the lines of a usage error."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "5000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _run(command: Any, argv: list[str]) -> int:
    from jaxgd.cli.compiled import enable_compilation_cache
    from jaxgd.cli.limits import require_device, require_resources

    require_resources()
    if not isinstance(command, Train | Sweep):
        require_device()
        enable_compilation_cache()
        return int(command.run(argv))
    from jaxgd.mesh.job import join_job

    Speaker.process = join_job()
    require_device()
    enable_compilation_cache()
    return int(command.run(argv))


def _print_version(rest: list[str]) -> int:
    if rest:
        error_line("jaxgd", f"expected --version alone, got {' '.join(rest)} after it. Leave out the rest.")
        return MISUSED
    from jaxgd.cli.limits import require_device

    require_device()
    print(version_line())
    return DONE


def _guarded(name: str, work: Callable[[], int], *, quiet: bool = True) -> int:
    """Do the work and return its exit status. Print a failure as one line; with JAXGD_TRACEBACK=1, its traceback too.

    A closed standard output is a failure unless `quiet`.
    """
    with warnings_as_lines(name):
        try:
            status = work()
            sys.stdout.flush()
            return status
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get("JAXGD_TRACEBACK"):
                import traceback

                traceback.print_exc()
            broken = discard_broken_output()
            if isinstance(error, BrokenPipeError) and quiet:
                return DONE
            place = "standard output" if broken else "" if _has_current_folder() else "the current folder"
            return _explain(name, error, place)


def _explain(name: str, error: BaseException, place: str) -> int:
    """Print the error as one line, and return the exit status. If an OSError names no file, the line names `place`."""
    first = str(error).partition("\n")[0][:250]
    # Importing jaxgd.errors here would import JAX. If the error is one of jaxgd's, the module is imported already.
    errors = sys.modules.get("jaxgd.errors")
    if _in_job() and any(word in str(error) for word in ("Gloo", "NCCL", "coordination", "preempted")):
        error_line(name, f"the job ends, because another process is gone: {first}")
        return FAILED
    if errors is not None and isinstance(error, errors.JaxgdError):
        error_line(name, str(error))
        return FAILED if isinstance(error, errors.WriteError) else MISUSED
    if isinstance(error, KeyboardInterrupt):
        error_line(name, "interrupted")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        error_line(name, "standard output was closed before the end.")
        return FAILED
    if isinstance(error, OSError):
        error_line(name, f"{error.filename or place or 'writing'}: {error.strerror or first}")
        return MISUSED if isinstance(error, PermissionError) or error.errno == errno.ENAMETOOLONG else FAILED
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in first:
        error_line(name, f"out of memory: {first or 'an allocation failed'}")
        return FAILED
    settings = sorted(variable for variable in os.environ if variable.startswith(("JAX_", "XLA_")))
    remedy = f"First try without {', '.join(settings)}, which may be the cause. " if settings else ""
    error_line(
        name,
        f"internal error: {type(error).__name__}: {first}\n"
        f"{remedy}If this is a fault of jaxgd: run again with JAXGD_TRACEBACK=1 and report the traceback.",
    )
    return FAILED


def _in_job() -> bool:
    """Return True if `join_job` has added this process to a job."""
    if "jax" not in sys.modules:
        return False
    import jax

    return bool(jax.distributed.is_initialized())


def _has_current_folder() -> bool:
    """Return True unless the current folder has been deleted or cannot be read."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True
