"""Which way an epoch runs, and why."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxgd.cost import quadratic_cost
from jaxgd.errors import RangeError
from jaxgd.examples import Examples
from jaxgd.kernels import native
from jaxgd.network import Network, network_sizes

Asked = Literal["auto", "xla", "native"]

# XLA's matrix products are the quicker where a layer after the first has more neurons than this and a mini-batch more
# examples: [784, 512, 512, 10] took native 0.73 times as long at 10 examples, 1.12 at 32 and 1.5 at 128. A wide first
# layer is taught by several threads and leaves out the inputs that are zero: with 300 and 1,000 neurons native took 0.4
# to 0.9 times as long for mini-batches of 10 to 1,000 and for 10,000 as the full batch. Wider ones were not measured.
_WIDEST, _WIDEST_FIRST = 256, 1024
_LARGEST_BATCH = 32


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Kernel:
    """The way that an epoch ran, and why this one. A pytree without leaves.

    >>> print(Kernel("xla", "as asked"))
    xla: as asked
    """

    name: Literal["xla", "native"]
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def choose(
    asked: Asked, network: Network, examples: Examples, cost: Any, optimizer: Any, batch_size: int | None
) -> Kernel:
    """The way to run epochs of these examples.

    "auto" takes the native kernels where they can run and are the quicker: it chooses by platform, dtype and shapes.
    It changes nothing that is computed, beyond rounding.
    Raises: RangeError for what is no way, or for "native" where that cannot run, with the reason.
    """
    if asked not in ("auto", "xla", "native"):
        raise RangeError(f'train: kernel must be "auto", "xla" or "native", got {asked!r}.')
    if asked == "xla":
        return Kernel("xla", "as asked")
    hindrance = _hindrance(network, examples, cost, optimizer)
    if asked == "native":
        if hindrance is not None:
            raise RangeError(f'train: kernel="native" cannot run here: {hindrance}.\nUse kernel="auto" or "xla".')
        return Kernel("native", "as asked")
    if hindrance is not None:
        return Kernel("xla", hindrance)
    _, first, *later = network_sizes(network)
    wide = [n for n, most in ((first, _WIDEST_FIRST), (max(later, default=0), _WIDEST)) if n > most]
    if wide and (batch_size is None or batch_size > _LARGEST_BATCH):
        return Kernel("xla", f"layers of {max(wide)} neurons are quicker so, with this many examples at once")
    return Kernel("native", f"quicker for these shapes, on the CPU ({native.about()})")


def _hindrance(network: Network, examples: Examples, cost: Any, optimizer: Any) -> str | None:
    """Why the native kernels cannot run, or None."""
    dtypes = {x.dtype for x in jax.tree.leaves(network)}
    if dtypes != {jnp.dtype("float32")}:
        return f"the network is {', '.join(sorted(map(str, dtypes)))}, and the native kernels are float32"
    if optimizer is not None:
        return "the native kernels make plain descent's steps, and an optimizer was given"
    if cost is not quadratic_cost:
        return "the native kernels' gradient is the quadratic cost's, and another cost was given"
    if examples.x.dtype not in (jnp.uint8, jnp.float32):
        return f"the inputs are {examples.x.dtype}, and the native kernels take bytes and float32"
    platforms = {_platform(x) for x in jax.tree.leaves((network, examples))}
    if platforms != {"cpu"}:
        return f"this is {', '.join(sorted(platforms - {'cpu'}))}, and the native kernels are of the CPU"
    found = native.library()
    return found if isinstance(found, str) else None


def _platform(x: Any) -> str:
    if isinstance(x, jax.core.Tracer) or not isinstance(x, jax.Array):
        return jax.default_backend()
    devices = x.devices()
    return "a sharded array" if len(devices) > 1 else next(iter(devices)).platform
