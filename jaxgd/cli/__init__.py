"""The command `jaxgd`. Importing this module imports little, so that signals are handled early and --help is fast."""

import os
import sys
from collections.abc import Sequence

from jaxgd.cli import signals


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0: done. 1: the run failed or a gradient is wrong. 2: misuse. 3: a gradient check cannot tell. 130: interrupted.
    129 and 143: stopped by SIGHUP and SIGTERM.

    Without `argv`, read the command line of this process, and let signals end the process.
    """
    if argv is None:
        signals.leave_on_signals()
    try:
        from jaxgd.cli.command import run
    except Exception as error:  # a library is missing or damaged, or memory is short
        if os.environ.get("JAXGD_TRACEBACK"):
            raise
        reason = str(error).partition("\n")[0]
        print(f"jaxgd: a library cannot be imported: {type(error).__name__}: {reason}", file=sys.stderr)
        return 1
    return run(list(sys.argv[1:] if argv is None else argv))
