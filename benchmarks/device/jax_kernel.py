"""The kernel inside JAX's transformations: jit, scan and vmap, and `train` as a user calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.device import data, timing
from benchmarks.device.context import Context
from benchmarks.device.launcher import PARTS, emulation, shape
from benchmarks.device.timing import time_epochs
from benchmarks.training.jax_peers import by_jaxgd
from benchmarks.training.work import Shared, Work

if TYPE_CHECKING:
    import jax

    from benchmarks.device.timing import Epoch

# Epochs per compiled scan.
EPOCHS = 5
# The argument `precision` of `train` for each number of TF32 parts.
WORDS = {2: "float32", 1: "tensorfloat32"}


def one(context: Context, suffix: str = "") -> None:
    """Time an epoch inside jit, and epochs inside scan. Without a suffix, also time `train`."""
    import jax

    from jaxgd.typed import jit

    images = data.training(context.sizes.examples)
    for parts, precision in PARTS.items():
        epoch = _epoch(context, parts)

        def epochs(
            network: list[jax.Array], order: jax.Array, eta: jax.Array, x: jax.Array, y: jax.Array, epoch: Epoch = epoch
        ) -> list[jax.Array]:
            return jax.lax.scan(lambda v, _: (epoch(v, order, eta, x, y), None), network, length=EPOCHS)[0]

        for part, run, count in (("jit", epoch, 1), ("scan", epochs, EPOCHS)):
            variant = f"jaxgd-cuda-{part}{suffix}"
            time_epochs(context, variant, precision, jit(run), images, 1, context.sizes.repeats, count)
        if not suffix:
            _by_train(context, images, parts, precision)


def many(context: Context) -> None:
    """Time an epoch of many networks by vmap."""
    from jaxgd.typed import jit, vmap

    images = data.training(context.sizes.examples)
    for parts, precision in PARTS.items():
        epochs = jit(vmap(_epoch(context, parts), in_axes=(0, 0, 0, None, None)))
        repeats, networks = context.sizes.repeats, context.sizes.many
        time_epochs(context, "jaxgd-cuda-vmap", precision, epochs, images, networks, repeats)


def _epoch(context: Context, parts: int) -> Epoch:
    """Return a function that runs an epoch of [w¹, b¹, w², b²] by the kernel, or in a rehearsal by its emulation."""
    import jaxgd
    from jaxgd.kernels.cuda import backend

    this = shape(parts)
    name = emulation(context.logs).emulated_name(this) if context.rehearse else backend.name_of(this)
    run = backend.epoch_of(this, name)

    def epoch(
        network: list[jax.Array], order: jax.Array, eta: jax.Array, x: jax.Array, y: jax.Array
    ) -> list[jax.Array]:
        w1, b1, w2, b2 = network
        layers = jaxgd.Layer(w1, b1), jaxgd.Layer(w2, b2)
        (first, second), _ = run(layers, x, y, order, eta)
        return [first.w, first.b, second.w, second.b]

    return epoch


def _by_train(context: Context, images: data.Images, parts: int, precision: str) -> None:
    """Time `train` without evaluation. `train` draws its own orders, and returns to Python after each epoch."""
    n, start = len(images.y), data.weights(1)
    work = Work("device", "device", data.SIZES, n, data.BATCH, data.ETA)
    pairs = [(w[0], b[0]) for w, b in zip(start[::2], start[1::2], strict=True)]
    kernel = "auto" if context.rehearse else "cuda"
    units = by_jaxgd(kernel, WORDS[parts])(work, Shared(images.x, images.y, pairs))
    first, samples = timing.times(lambda _: next(units), lambda _: None, context.sizes.repeats)
    timing.store(context, "", "jaxgd-cuda-train", "s/epoch", first, samples, precision, {"n": n, **images.details})
