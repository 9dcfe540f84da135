"""Select the backend that runs the epochs, and say why."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxgd.cost import quadratic_cost
from jaxgd.errors import RangeError, require_choice
from jaxgd.examples import Examples
from jaxgd.kernels import native
from jaxgd.network import Network, network_sizes

Requested = Literal["auto", "xla", "native"]

# "auto" takes XLA if a layer is wider than its limit here and a mini-batch has more than _LARGEST_BATCH examples: XLA's
# large matrix products are faster. Native time divided by XLA's time, measured for [784, 512, 512, 10]: 0.73 with 10
# examples per mini-batch, 1.12 with 32 and 1.5 with 128. The first hidden layer has a larger limit, because several
# threads share it and skip inputs that are zero. With 300 and 1,000 neurons there, the ratio was 0.4 to 0.9, for
# mini-batches of 10 to 1,000 and for a full batch of 10,000. Wider first layers were not measured.
_WIDEST, _WIDEST_FIRST = 256, 1024
_LARGEST_BATCH = 32


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class BackendChoice:
    """The backend that ran the epochs, and the reason for it. A pytree without leaves.

    Attributes:
        name: "xla" or "native".
        reason: The reason, in words.

    Example:
        >>> print(BackendChoice("xla", "as asked"))
        xla: as asked
    """

    name: Literal["xla", "native"]
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def select_backend(
    requested: Requested, network: Network, examples: Examples, cost: Any, optimizer: Any, batch_size: int | None
) -> BackendChoice:
    """Select the backend for epochs of these examples.

    "auto" selects the native kernels if they can run and are the faster, judged by platform, dtypes and shapes. The
    choice changes the results only by rounding.

    Args:
        requested: "auto", "xla" or "native".
        network: The network to train.
        examples: The training examples, on the device.
        cost: The cost function. The native kernels know only `quadratic_cost`.
        optimizer: An optax transformation, or None for plain descent. The native kernels know only plain descent.
        batch_size: Examples per mini-batch, or None for the full batch.

    Returns:
        The name of the backend, and the reason.

    Raises:
        RangeError: If `requested` is another word, or is "native" where the native kernels cannot run.
    """
    require_choice("train", "kernel", requested, ("auto", "xla", "native"))
    if requested == "xla":
        return BackendChoice("xla", "as asked")
    obstacle = why_unsupported(network, examples, cost, optimizer)
    if requested == "native":
        if obstacle is not None:
            raise RangeError(f'train: kernel="native" cannot run here: {obstacle}.\nUse kernel="auto" or "xla".')
        return BackendChoice("native", "as asked")
    if obstacle is not None:
        return BackendChoice("xla", obstacle)
    _, first, *later = network_sizes(network)
    limits = ((first, _WIDEST_FIRST), (max(later, default=0), _WIDEST))
    too_wide = [width for width, limit in limits if width > limit]
    if too_wide and (batch_size is None or batch_size > _LARGEST_BATCH):
        return BackendChoice("xla", f"quicker for layers of {max(too_wide)} neurons with this many examples at once")
    return BackendChoice("native", f"quicker for these shapes, on the CPU ({native.about()})")


def why_unsupported(network: Network, examples: Examples, cost: Any, optimizer: Any) -> str | None:
    """Return the reason why the native kernels cannot run, or None if they can."""
    dtypes = {x.dtype for x in jax.tree.leaves(network)}
    if dtypes != {jnp.dtype("float32")}:
        return f"the native kernels need a float32 network, got {', '.join(sorted(map(str, dtypes)))}"
    if optimizer is not None:
        return "the native kernels know only plain descent, and an optimizer was given"
    if cost is not quadratic_cost:
        return "the native kernels know only the quadratic cost, and another cost was given"
    if examples.x.dtype not in (jnp.uint8, jnp.float32):
        return f"the native kernels need inputs of bytes or float32, got {examples.x.dtype}"
    platforms = {_platform(x) for x in jax.tree.leaves((network, examples))}
    if platforms != {"cpu"}:
        return f"the native kernels need arrays on one CPU device, got {', '.join(sorted(platforms - {'cpu'}))}"
    library = native.library()
    return library if isinstance(library, str) else None


def _platform(x: Any) -> str:
    if isinstance(x, jax.core.Tracer) or not isinstance(x, jax.Array):
        return jax.default_backend()
    devices = x.devices()
    return "a sharded array" if len(devices) > 1 else next(iter(devices)).platform
