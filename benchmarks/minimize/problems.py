"""The cost of a network on images of MNIST, as a problem for `minimize`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import jaxgd


def mnist_problem(data_dir: Path | None, images: int = 10_000) -> tuple[Callable[[Any], Any], Any]:
    """Return the full-batch cost of [784, 30, 10] on the first images, and a network to start from."""
    part = jaxgd.load_dataset("mnist", data_dir).train
    x = jnp.asarray(part.images[:images].reshape(images, -1) / 255, jnp.float32)
    y = jax.nn.one_hot(part.labels[:images], 10)

    def cost(network: Any) -> Any:
        return jaxgd.network_cost(network, x, y)

    return cost, jaxgd.init_network(jax.random.key(0), (784, 30, 10))
