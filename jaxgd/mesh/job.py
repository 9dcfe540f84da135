"""A job of several processes, for the commands: join the job, leave it, and run work on process 0."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from jaxgd.errors import JaxgdError, RangeError

# The default of JAXGD_HEARTBEAT. The coordinator ends the job if a process is silent for this number of seconds. JAX's
# default is 100.
_HEARTBEAT = 30
# A failed process waits at most this number of seconds for the other processes to leave the job.
_LEAVING = 3
T = TypeVar("T")
_VARIABLES = ("JAXGD_COORDINATOR", "JAXGD_PROCESSES", "JAXGD_PROCESS")


def join_job() -> int:
    """Join the job of several processes that this process belongs to, if any.

    The variables JAXGD_COORDINATOR (host:port of process 0), JAXGD_PROCESSES (the number of processes) and
    JAXGD_PROCESS (the index of this process, from 0) describe the job. Without them, JAX finds a job that `srun` or
    Open MPI's `mpirun` has started. JAXGD_COORDINATOR=auto lets JAX find any other kind of job, such as one on cloud
    TPUs. If a process is lost, the job ends about JAXGD_HEARTBEAT seconds later (10 or more; 30 by default).

    Call this function before any function of JAX.

    Returns:
        The index of this process in its job; 0 without a job.

    Raises:
        RangeError: If a variable is missing or has a wrong value, or the job cannot be joined.
    """
    heartbeat = _number("JAXGD_HEARTBEAT", 10, 86_400, str(_HEARTBEAT))
    options: dict[str, Any] = {"heartbeat_timeout_seconds": heartbeat, "shutdown_timeout_seconds": heartbeat}
    coordinator = os.environ.get("JAXGD_COORDINATOR")
    if coordinator == "auto":
        pass
    elif coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise RangeError(f"JAXGD_COORDINATOR must be host:port of process 0, or auto, got {coordinator!r}.")
        processes = _number("JAXGD_PROCESSES", 1, 2**20)
        options |= {"coordinator_address": coordinator, "num_processes": processes}
        options["process_id"] = _number("JAXGD_PROCESS", 0, processes - 1)
    elif given := [name for name in _VARIABLES if name in os.environ]:
        raise RangeError(f"{given[0]} needs JAXGD_COORDINATOR too, got none.\nSet it to host:port of process 0.")
    elif not any(_size(name) > 1 for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")):
        return 0
    import jax

    try:
        jax.distributed.initialize(**options)
    except Exception as error:  # JAX raises exceptions of many types
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise RangeError(f"this process cannot join its job: {reason}.\nCheck JAXGD_COORDINATOR.") from error
    from jaxgd.mesh.processes import process_count

    if process_count() > 1:
        from jax.experimental import multihost_utils

        # The first communication prints a line, which must not mix with the results on standard output.
        with _output_to_stderr():
            multihost_utils.sync_global_devices("jaxgd")
    return jax.process_index()


def _size(variable: str) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else 1


def _number(variable: str, least: int, most: int, default: str = "") -> int:
    value = os.environ.get(variable, default)
    if not value.isdecimal() or not least <= int(value) <= most:
        raise RangeError(f"{variable} must be a whole number from {least} to {most}, got {value!r}.")
    return int(value)


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """Inside the block, redirect standard output, also from C++ code, to standard error."""
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def leave_job(status: int) -> None:
    """End this process with its exit status if it has failed in a job of several processes.

    A usual exit would wait for the other processes, while they wait for this process. They notice its end within the
    heartbeat timeout.
    """
    import jax

    from jaxgd.mesh.processes import process_count

    if status == 0 or process_count() == 1:
        return
    leaving = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    leaving.start()
    leaving.join(timeout=_LEAVING)
    sys.stderr.flush()
    os._exit(status)


def on_main(work: Callable[[], T]) -> T | None:
    """Run the work on process 0 only. Return its result on process 0, and None on the others.

    An error of jaxgd on process 0 is raised on all processes. All processes must call this function together.
    """
    import jax

    from jaxgd.mesh.processes import process_count, text_from_process_0

    if process_count() == 1:
        return work()
    result: T | None = None
    error: JaxgdError | None = None
    if jax.process_index() == 0:
        try:
            result = work()
        except JaxgdError as raised:
            error = raised
    words = text_from_process_0("" if error is None else f"{type(error).__name__}\n{error}")
    if error is not None:
        raise error
    if words:
        name, _, message = words.partition("\n")
        raise _kind(name)(message)
    return result


def _kind(name: str) -> type[JaxgdError]:
    import jaxgd.errors

    kind: type[JaxgdError] = getattr(jaxgd.errors, name)
    return kind
