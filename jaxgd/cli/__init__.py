"""The command `jaxgd`. It parses its arguments before it imports JAX, which keeps --help fast."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from jaxgd.cli.check import Check
from jaxgd.cli.common import DONE, FAILED, INTERRUPTED, MISUSED
from jaxgd.cli.evaluate import Evaluate
from jaxgd.cli.info import Info
from jaxgd.cli.minimize import Minimize
from jaxgd.cli.predict import Predict
from jaxgd.cli.train import Train

_Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Minimize, tyro.conf.subcommand("minimize")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Info, tyro.conf.subcommand("info")]
)

_ABOUT = "Gradient descent that can be trusted, at the speed of the machine."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0: done. 1: the run failed or a gradient is wrong. 2: misuse. 3: a gradient check cannot tell. 130: interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    usage_error = io.StringIO()
    try:
        with contextlib.redirect_stderr(usage_error):
            command: Any = tyro.cli(_Command, prog="jaxgd", description=_ABOUT, args=argv)
    except SystemExit as exit_:
        # tyro draws a box around a usage error: keep its words. --help prints to stdout and exits with 0.
        words = re.sub(r"\x1b\[[0-9;]*m|[─│╭╮╰╯]", " ", usage_error.getvalue())
        return _print_error("jaxgd", words, MISUSED) if exit_.code else DONE
    name = f"jaxgd {type(command).__name__.lower()}"
    try:
        from jaxgd.cli.compiled import enable_compilation_cache
        from jaxgd.errors import JaxgdError, WriteError

        try:
            enable_compilation_cache()
            return int(command.run(argv))
        except JaxgdError as error:
            # The library's messages start with the function's name. The command has the same name: print it once.
            words = str(error).removeprefix(f"{name.removeprefix('jaxgd ')}: ")
            return _print_error(name, words, FAILED if isinstance(error, WriteError) else MISUSED)
    except KeyboardInterrupt:
        return _print_error(name, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does. Python flushes stdout at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED if isinstance(command, Train | Check | Minimize) else DONE
    except PermissionError as error:
        return _print_error(name, f"{error.filename}: {error.strerror}", MISUSED)
    except OSError as error:
        return _print_error(name, f"{error.filename or 'writing'}: {error.strerror or error}", FAILED)


def _print_error(name: str, message: str, status: int) -> int:
    """Print the message as one line to stderr and return the exit status."""
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    return status
