"""The process of one task: `python -m benchmarks.device.child TASK PIPE LOGS [--rehearse]`."""

import importlib
import os
import sys
import traceback
from pathlib import Path

from benchmarks.device.context import Context, TaskError
from benchmarks.device.plan import TASKS
from benchmarks.device.process import die_with_parent


def main(name: str, pipe: str, logs: str, *flags: str) -> int:
    """Run a task. Return 0 if it succeeded, and 1 after a message if it failed."""
    die_with_parent()
    task = next(task for task in TASKS if task.name == name)
    module, function = task.function.split(":")
    context = Context(task.name, "--rehearse" in flags, Path(logs), int(pipe))
    os.set_inheritable(context.pipe, False)
    try:
        run = getattr(importlib.import_module(f"benchmarks.device.{module}"), function)
        run(context, **task.arguments)
    except TaskError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stdout.flush()
    # All figures are stored. Skip the clean-up of the libraries, which can hang or crash.
    os._exit(status)
