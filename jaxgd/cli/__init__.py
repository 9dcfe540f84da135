"""The command `jaxgd`. It parses first and imports JAX after, so that --help answers at once."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from jaxgd.cli.evaluate import Evaluate
from jaxgd.cli.info import Info
from jaxgd.cli.predict import Predict
from jaxgd.cli.train import Train

_Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Info, tyro.conf.subcommand("info")]
)

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the result is its exit status: 0 done, 1 the run failed, 2 misused, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = tyro.cli(_Command, prog="jaxgd", description="Gradient descent that can be trusted.", args=argv)  # type: ignore[call-overload]
    name = f"jaxgd {type(command).__name__.lower()}"
    try:
        from jaxgd.errors import JaxgdError

        try:
            return int(command.run(argv))
        except JaxgdError as error:
            return _complain(name, str(error), MISUSED)
    except KeyboardInterrupt:
        return _complain(name, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has seen enough. Python would complain again on flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except PermissionError as error:
        return _complain(name, f"{error.filename}: {error.strerror}", MISUSED)
    except OSError as error:
        return _complain(name, f"{error.filename or 'writing'}: {error.strerror or error}", FAILED)


def _complain(name: str, message: str, status: int) -> int:
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    return status
