"""Epochs and steps as a JAX user writes them without jaxgd's `train`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.device import data, timing
from benchmarks.device.context import Context
from benchmarks.device.timing import time_epochs

if TYPE_CHECKING:
    import jax

    from benchmarks.device.timing import Epoch

    Step = Callable[[list[jax.Array], jax.Array | float, jax.Array, jax.Array, jax.Array], list[jax.Array]]


def scan(context: Context, unroll: int = 1, suffix: str = "") -> None:
    """Time an epoch by lax.scan."""
    from jaxgd.typed import jit

    images, variant = data.training(context.sizes.examples), "xla-scan" + suffix
    if unroll > 1:
        variant = f"{variant}-unroll-{unroll}"
    for precision, word in timing.PRECISIONS.items():
        epoch = jit(_epoch(word, unroll))
        time_epochs(context, variant, precision, epoch, images, 1, timing.SLOW_REPEATS)


def many(context: Context) -> None:
    """Time an epoch of many networks by vmap of lax.scan."""
    from jaxgd.typed import jit, vmap

    images, networks = data.training(context.sizes.examples), context.sizes.many
    for precision, word in timing.PRECISIONS.items():
        epoch = jit(vmap(_epoch(word, 1), in_axes=(0, 0, 0, None, None)))
        time_epochs(context, "xla-vmap", precision, epoch, images, networks, timing.SLOW_REPEATS)


def steps(context: Context) -> None:
    """Time calls of a jitted step, one per mini-batch."""
    import jax
    import jax.numpy as jnp

    from jaxgd.typed import jit

    context.require_gpu(jax.default_backend())
    calls = context.sizes.calls
    images = data.training(context.sizes.examples)
    x, y = jnp.asarray(images.x), jnp.asarray(images.y)
    order = data.orders(1, len(images.y))[0]
    rows = [jnp.asarray(np.resize(order[data.BATCH * k :], data.BATCH)) for k in range(calls)]
    for precision, word in timing.PRECISIONS.items():
        step = jit(_step(word))
        start = [jnp.asarray(v[0]) for v in data.weights(1)]

        def run(_: int, step: Step = step, start: list[jax.Array] = start) -> list[jax.Array]:
            network = start
            for batch in rows:
                network = step(network, data.ETA, x, y, batch)
            return network

        first, samples = timing.times(run, jax.block_until_ready, context.sizes.repeats)
        timing.store(context, "", "xla-jit-per-step", "s/step", first, samples, precision, images.details, calls)


def _step(precision: str | None) -> Step:
    """Return a function that makes one update of the network [w¹, b¹, w², b²] from the given examples."""
    import jax
    import jax.numpy as jnp

    import jaxgd
    from jaxgd.typed import grad, tree_leaves

    def step(
        network: list[jax.Array], eta: jax.Array | float, x: jax.Array, y: jax.Array, rows: jax.Array
    ) -> list[jax.Array]:
        w1, b1, w2, b2 = network
        layers = jaxgd.Layer(w1, b1), jaxgd.Layer(w2, b2)
        inputs, targets = x[rows].astype(jnp.float32) / 255, jax.nn.one_hot(y[rows], data.SIZES[-1])
        gradient = grad(jaxgd.network_cost)(layers, inputs, targets, precision=precision)
        return [v - eta * g for v, g in zip(network, tree_leaves(gradient), strict=True)]

    return step


def _epoch(precision: str | None, unroll: int) -> Epoch:
    """Return a function that runs an epoch: one update per mini-batch. The last mini-batch may be short."""
    import jax

    step = _step(precision)

    def epoch(
        network: list[jax.Array], order: jax.Array, eta: jax.Array, x: jax.Array, y: jax.Array
    ) -> list[jax.Array]:
        whole = len(order) - len(order) % data.BATCH

        def update(network: list[jax.Array], rows: jax.Array) -> tuple[list[jax.Array], None]:
            return step(network, eta, x, y, rows), None

        network, _ = jax.lax.scan(update, network, order[:whole].reshape(-1, data.BATCH), unroll=unroll)
        return step(network, eta, x, y, order[whole:]) if whole < len(order) else network

    return epoch
