"""Select the backend that runs the epochs, and say why."""

import dataclasses

import jax

from jaxgd.errors import RangeError, require_choice
from jaxgd.kernels import registry
from jaxgd.kernels.protocol import Job


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class BackendChoice:
    """The backend that runs the epochs, and the reason for it. A pytree without leaves.

    Attributes:
        name: The name of the backend, such as "xla".
        reason: The reason, in words.

    Example:
        >>> print(BackendChoice("xla", "as asked"))
        xla: as asked
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def select_backend(requested: str, job: Job) -> BackendChoice:
    """Select the backend for a job.

    "auto" selects the first backend of the registry that can run the job and whose `why_slower` returns None. The last
    backend, XLA, runs every job. If "auto" selects XLA, the reason says why the other backend for the job's device was
    passed over. If XLA is the only backend for this device, the reason is about the backend listed before XLA. The
    choice changes the results only by rounding.

    Args:
        requested: "auto", or the name of a backend.
        job: The facts on which the choice depends.

    Returns:
        The name of the backend, and the reason.

    Raises:
        RangeError: If `requested` is neither "auto" nor the name of a backend, or if the requested backend cannot run
            the job.
    """
    require_choice("train", "kernel", requested, registry.kernel_names())
    if requested != "auto":
        obstacle = registry.load(requested).why_unsupported(job)
        if obstacle is not None:
            raise RangeError(f'train: kernel="{requested}" cannot run here: {obstacle}.\nUse kernel="auto" or "xla".')
        return BackendChoice(requested, "as asked")
    *specialized, general = (entry.load() for entry in registry.BACKENDS)
    passed_over = []
    for backend in specialized:
        reason = backend.why_unsupported(job)
        if reason is None:
            reason = backend.why_slower(job)
        if reason is None:
            return BackendChoice(backend.name, backend.why_faster(job))
        passed_over.append((job.is_on(backend.platform), reason))
    reasons = [reason for on_device, reason in passed_over if on_device] or [reason for _, reason in passed_over[-1:]]
    return BackendChoice(general.name, reasons[0] if reasons else general.why_faster(job))
