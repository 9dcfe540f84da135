"""The gradient of a wide network in bfloat16, and its share of the peak rate of matrix products."""

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.device import data, timing
from benchmarks.device.context import Context
from benchmarks.device.torch_work import Tensor
from benchmarks.training.work import Work

# Dense bfloat16 operations per second of an H100 or H200 SXM, from NVIDIA's data sheet.
PEAK = 989e12
PRECISION = "bfloat16"

Cost = Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]


def work(context: Context) -> Work:
    """Return the work to measure: one full-batch step of the wide network."""
    wide = context.sizes.wide
    return Work("wide", "device", (784, wide, wide, 10), context.sizes.wide_batch, None, 1.0)


def by_xla(context: Context) -> None:
    """Time a jitted gradient."""
    import jax
    import jax.numpy as jnp

    import jaxgd
    from jaxgd.typed import grad, jit

    context.require_gpu(jax.default_backend())
    this, images = work(context), data.training(context.sizes.wide_batch)
    start = [jnp.asarray(v[0], jnp.bfloat16) for v in data.weights(1, sizes=this.sizes)]
    network = tuple(jaxgd.Layer(w, b) for w, b in zip(start[::2], start[1::2], strict=True))
    x = jnp.asarray(images.x, jnp.bfloat16) / 255
    y = jax.nn.one_hot(images.y, this.sizes[-1], dtype=jnp.bfloat16)
    gradient = jit(grad(jaxgd.network_cost))
    run = lambda _: gradient(network, x, y)  # noqa: E731
    first, samples = timing.times(run, jax.block_until_ready, context.sizes.repeats)
    _store(context, "xla", first, samples, this, images)


def by_torch(context: Context) -> None:
    """Time a gradient by PyTorch, without and with torch.compile."""
    import torch

    from benchmarks.device import torch_work

    this, images, device = work(context), data.training(context.sizes.wide_batch), torch_work.device(context)
    start = data.weights(1, sizes=this.sizes)
    network: list[Tensor] = [torch.tensor(v[0], device=device, dtype=torch.bfloat16, requires_grad=True) for v in start]
    x: Tensor = torch.from_numpy(images.x).to(device).to(torch.bfloat16) / 255
    y = torch_work.targets(torch.from_numpy(images.y.astype(np.int64)).to(device)).to(torch.bfloat16)
    # A rehearsal generates no code, because that takes a minute on a CPU.
    compiled: Cost = torch.compile(torch_work.cost, backend="eager" if context.rehearse else "inductor")
    for variant, cost in (("torch", torch_work.cost), ("torch-compile", compiled)):

        def run(_: int, cost: Cost = cost) -> Sequence[Tensor]:
            return torch_work.gradient(cost(network, x, y), network)

        first, samples = timing.times(run, torch_work.wait, context.sizes.repeats)
        _store(context, variant, first, samples, this, images)


def _store(
    context: Context, variant: str, first: float, samples: list[float], this: Work, images: data.Images
) -> None:  # fmt: skip
    rate = this.flop / float(np.median(samples))
    details = {"tflops": rate / 1e12, "share": rate / PEAK, "batch": this.n, **images.details}
    timing.store(context, "", variant, "s/gradient", first, samples, PRECISION, details)
