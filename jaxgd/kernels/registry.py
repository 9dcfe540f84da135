"""The registry of backends. The command line reads it before it imports JAX, so this module imports no backend."""

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jaxgd.kernels.protocol import Backend


class Entry(NamedTuple):
    """One backend.

    Attributes:
        name: The value of `kernel=` that requests it.
        module: The module whose `BACKEND` is the backend. It may import JAX.
        summary: A few words that follow the name in the help of `jaxgd train`.
    """

    name: str
    module: str
    summary: str

    def load(self) -> "Backend":
        """Import the module, and return its backend."""
        backend: Backend = importlib.import_module(self.module).BACKEND
        return backend


# "auto" tries the backends in this order. The last one must run everywhere.
BACKENDS = (
    Entry("cuda", "jaxgd.kernels.cuda.backend", "is one kernel for small networks on an NVIDIA GPU"),
    Entry("native", "jaxgd.kernels.native", "is C++ on the CPU"),
    Entry("xla", "jaxgd.kernels.xla", "runs everywhere"),
)


def kernel_names() -> tuple[str, ...]:
    """Return the values of `kernel=`: "auto", then the name of each backend, the most general backend first."""
    return ("auto", *(entry.name for entry in reversed(BACKENDS)))


def load(name: str) -> "Backend":
    """Return the backend of this name."""
    return next(entry for entry in BACKENDS if entry.name == name).load()


def fingerprints() -> dict[str, str]:
    """Return the fingerprints of the backends that have one. The keys are labels such as "native kernels"."""
    by_label = {f"{entry.name} kernels": entry.load().fingerprint() for entry in BACKENDS}
    return {label: fingerprint for label, fingerprint in by_label.items() if fingerprint is not None}
