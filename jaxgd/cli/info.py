"""`jaxgd info`: the installed versions, the devices, the settings and the data sets."""

import dataclasses
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from jaxgd.cli.common import MaybePath

if TYPE_CHECKING:
    from jaxgd.kernels import BackendChoice

_PACKAGES = ("jaxgd", "jax", "jaxlib", "optax", "numpy", "orbax-checkpoint", "tensorflow-datasets", "matplotlib")


@dataclasses.dataclass(frozen=True)
class Info:
    """Print the installed versions, the devices, the settings, and the location of each data set.

    The settings are the default float, the precision of matrix products, the kernel backends, the cache of compiled
    programs and the data folder. One line states the backend that --kernel auto chooses for --sizes 784 30 10, and the
    reason.
    """

    data_dir: MaybePath = None
    """Folder to search for data sets. (default: $JAXGD_DATA_DIR, or ~/.cache/jaxgd if unset)"""

    def run(self, argv: list[str]) -> int:
        """Print the information and return the exit status."""
        import platform

        import jax
        import jax.numpy as jnp

        from jaxgd.data.named import default_data_dir, find_files
        from jaxgd.data.registry import DATASETS
        from jaxgd.kernels.registry import BACKENDS

        rows = [("python", platform.python_version()), *((name, _version(name)) for name in _PACKAGES)]
        rows += [("device", f"{d.id}: {d.device_kind} ({d.platform})") for d in jax.devices()]
        rows += [
            ("float", str(jnp.zeros(()).dtype)),
            (
                "matrix products",
                getattr(jax.config, "jax_default_matmul_precision", None) or "the device's default precision",
            ),
            *((f"{entry.name} kernels", entry.load().about()) for entry in BACKENDS),
            ("kernel, 784 30 10", str(_usual_choice())),
            ("compiled programs", getattr(jax.config, "jax_compilation_cache_dir", None) or "not cached"),
            ("data folder", str(self.data_dir or default_data_dir())),
        ]
        for name, entry in DATASETS.items():
            folder = find_files(name, self.data_dir)
            missing = "included in jaxgd" if entry.included else f"not found; `jaxgd train --data {name}` downloads it"
            rows.append((name, missing if folder is None else str(folder)))
        for name, value in rows:
            print(f"{name:20} {value}")
        return 0


def version_line() -> str:
    """Return one line: the versions of jaxgd and JAX, JAX's backend, and the fingerprints of the kernels."""
    import jax

    from jaxgd.kernels.registry import fingerprints

    kernels = [f"{name}: {fingerprint}" for name, fingerprint in fingerprints().items()]
    return ", ".join([f"jaxgd {_version('jaxgd')}", f"jax {jax.__version__}", jax.default_backend(), *kernels])


def _usual_choice() -> "BackendChoice":
    """Return the backend that "auto" chooses for the book's network on MNIST."""
    import jax.numpy as jnp

    from jaxgd.cost import quadratic_cost
    from jaxgd.examples import Examples
    from jaxgd.kernels import Job, select_backend
    from jaxgd.network import Layer

    shapes = ((30, 784), (10, 30))
    network = tuple(Layer(jnp.zeros(shape, jnp.float32), jnp.zeros(shape[0], jnp.float32)) for shape in shapes)
    examples = Examples(jnp.zeros((10, 784), jnp.uint8), jnp.zeros(10, jnp.int32))
    return select_backend("auto", Job(network, examples, quadratic_cost, None, 10))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
