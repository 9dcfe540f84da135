"""The command `jaxgd`. It parses first and imports JAX after, so that --help answers at once."""

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
    """Run the command; the result is its exit status.

    0 done, 1 the run failed or a gradient is wrong, 2 misused, 3 of a gradient nothing can be told, 130 interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            command: Any = tyro.cli(_Command, prog="jaxgd", description=_ABOUT, args=argv)
    except SystemExit as exit_:
        # Of the box that tyro draws around a misuse, the words; --help, which is no misuse, goes to stdout.
        words = re.sub(r"\x1b\[[0-9;]*m|[─│╭╮╰╯]", " ", complaint.getvalue())
        return _complain("jaxgd", words, MISUSED) if exit_.code else DONE
    name = f"jaxgd {type(command).__name__.lower()}"
    try:
        from jaxgd.cli.compiled import keep_programs
        from jaxgd.errors import JaxgdError, WriteError

        try:
            keep_programs()
            return int(command.run(argv))
        except JaxgdError as error:
            # What the library says begins with the function's name, which is the command's.
            words = str(error).removeprefix(f"{name.removeprefix('jaxgd ')}: ")
            return _complain(name, words, FAILED if isinstance(error, WriteError) else MISUSED)
    except KeyboardInterrupt:
        return _complain(name, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has seen enough. Python would complain again on flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED if isinstance(command, Train | Check | Minimize) else DONE
    except PermissionError as error:
        return _complain(name, f"{error.filename}: {error.strerror}", MISUSED)
    except OSError as error:
        return _complain(name, f"{error.filename or 'writing'}: {error.strerror or error}", FAILED)


def _complain(name: str, message: str, status: int) -> int:
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    return status
