"""The time of the full-batch gradient by XLA and by PyTorch, and its error against float64."""

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.device import data, reference, timing
from benchmarks.device.context import Context
from benchmarks.device.reference import Floats
from benchmarks.device.torch_work import Tensor

# JAX's argument `precision` for each precision in the rows: "highest", or the name of a `DotAlgorithmPreset`. X3 is a
# sum of three TF32 products.
ALGORITHMS = {timing.FLOAT32: "highest", "TF32_TF32_F32_X3": "TF32_TF32_F32_X3", "TF32_TF32_F32": "TF32_TF32_F32"}


def by_xla(context: Context) -> None:
    """Time jitted gradients of jaxgd's cost in three precisions."""
    import jax
    import jax.numpy as jnp

    import jaxgd
    from jaxgd.network import Network
    from jaxgd.typed import grad, jit, tree_leaves

    context.require_gpu(jax.default_backend())
    images, start = data.training(context.sizes.full), [v[0] for v in data.weights(1)]
    exact = reference.gradient(start, images.x, images.y)
    x, y = jnp.asarray(images.x), jnp.asarray(images.y)
    network = tuple(jaxgd.Layer(jnp.asarray(start[i]), jnp.asarray(start[i + 1])) for i in (0, 2))

    for precision, word in ALGORITHMS.items():
        # A rehearsal uses "highest" throughout, because XLA for the CPU lacks the TF32 algorithms.
        float32 = context.rehearse or word == "highest"
        algorithm: jax.lax.PrecisionLike = "highest" if float32 else jax.lax.DotAlgorithmPreset[word]

        def slopes(
            network: Network, x: jax.Array, y: jax.Array, algorithm: jax.lax.PrecisionLike = algorithm
        ) -> Network:
            inputs, targets = x.astype(jnp.float32) / 255, jax.nn.one_hot(y, data.SIZES[-1])
            return grad(jaxgd.network_cost)(network, inputs, targets, precision=algorithm)

        def run(
            _: int,
            gradient: Callable[[Network, jax.Array, jax.Array], Network] = jit(slopes),  # noqa: B008
        ) -> Network:
            return gradient(network, x, y)

        first, samples = timing.times(run, jax.block_until_ready, context.sizes.repeats)
        actual = [np.asarray(v) for v in tree_leaves(run(0))]
        _store(context, "xla", precision, first, samples, actual, exact, images)


def by_torch(context: Context) -> None:
    """Time gradients by PyTorch's autograd in float32 and TF32."""
    import torch

    from benchmarks.device import torch_work

    device = torch_work.device(context)
    images, start = data.training(context.sizes.full), [v[0] for v in data.weights(1)]
    exact = reference.gradient(start, images.x, images.y)
    x: Tensor = torch.from_numpy(images.x).to(device)
    y: Tensor = torch.from_numpy(images.y.astype(np.int64)).to(device)
    for precision, word in torch_work.PRECISIONS.items():
        torch.set_float32_matmul_precision(word)
        network: list[Tensor] = [torch.tensor(v, device=device, requires_grad=True) for v in start]

        def run(_: int, network: list[Tensor] = network) -> Sequence[Tensor]:
            return torch_work.gradient(torch_work.cost(network, torch_work.inputs(x), torch_work.targets(y)), network)

        first, samples = timing.times(run, torch_work.wait, context.sizes.repeats)
        actual = [g.cpu().numpy() for g in run(0)]
        _store(context, "torch", precision, first, samples, actual, exact, images)


def _store(
    context: Context, variant: str, precision: str, first: float, samples: list[float],
    actual: Sequence[Floats], exact: Sequence[Floats], images: data.Images,
) -> None:  # fmt: skip
    n = len(images.y)
    timing.store(context, "", variant, "s/gradient", first, samples, precision, {"n": n, **images.details})
    zero = [np.zeros_like(v) for v in exact]
    error = reference.error(actual, exact, zero)
    context.count("", variant, "error", "of ‖∇C‖", error, precision=precision)
