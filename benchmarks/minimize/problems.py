"""Functions that the cases of `minimize` share: the cost of a network on MNIST, and a test for installed libraries."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array

import jaxgd
from jaxgd.network import Network


def is_installed(library: str) -> bool:
    """Return True if a library is installed. The results have no rows for libraries that are not installed."""
    return importlib.util.find_spec(library) is not None


def mnist_problem(data_dir: Path | None, images: int = 10_000) -> tuple[Callable[[Network], Array], Network]:
    """Return the full-batch cost of [784, 30, 10] on the first `images` training images, and a start network."""
    part = jaxgd.load_dataset("mnist", data_dir).train
    x = jnp.asarray(part.images[:images].reshape(images, -1) / 255, jnp.float32)
    y = jax.nn.one_hot(part.labels[:images], 10)

    def cost(network: Network) -> Array:
        return jaxgd.network_cost(network, x, y)

    return cost, jaxgd.init_network(jax.random.key(0), (784, 30, 10))
