"""Rates that limit a program's speed: of a copy, of matrix products, of the kernel's instruction and of barriers."""

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.device import timing, wide
from benchmarks.device.context import Context, TaskError
from benchmarks.device.launcher import compiled

if TYPE_CHECKING:
    from jaxgd.kernels.cuda import driver

SOURCE = Path(__file__).with_name("loops.cu")
# Floating-point operations of one mma.m16n8k8, and two numbers of accumulators per warp. With one accumulator, each
# product waits for the previous product.
MMA_FLOP, CHAINS = 2 * 16 * 8 * 8, (8, 1)
THREADS, COUNT = 448, 10_000


def loops(context: Context) -> None:
    """Time a copy, a loop of products and a loop of barriers. The loops run one block per multiprocessor."""
    from jaxgd.kernels.cuda import driver

    with driver.Context() as device:
        blocks, repeats = device.device.multiprocessors, context.sizes.repeats
        _copy(context, device)
        out = device.empty(4 * blocks * THREADS)
        for chains in CHAINS:
            cubin = compiled(SOURCE, device.device.capability, f"-DCHAINS={chains}")
            kernel = device.load(cubin, 0, "products")
            samples = _times(device, kernel, blocks, out, repeats)
            if not np.isfinite(out.read((blocks * THREADS,), np.float32)).all():
                raise TaskError("the loop of products: expected finite sums, got infinity or NaN")
            flop = MMA_FLOP * COUNT * chains * blocks * THREADS / 32
            rates = [flop / t / 1e12 for t in samples]
            details = {"chains": chains, "blocks": blocks, "threads": THREADS, "count": COUNT}
            context.row(f"products-{chains}-chains", "mma.m16n8k8", "rate", "TFLOP/s", rates, precision="TF32",
                        details=details)  # fmt: skip
        kernel = device.load(cubin, 0, "barriers")
        each = [t / COUNT for t in _times(device, kernel, blocks, out, repeats)]
        if not (out.read((blocks * THREADS,), np.float32) == COUNT).all():
            raise TaskError("the loop of barriers ended early or did not run")
        context.row("barriers", "barrier", "time", "s/barrier", each, precision="any", details={"threads": THREADS})


def _times(device: "driver.Context", kernel: int, blocks: int, out: "driver.Memory", repeats: int) -> list[float]:
    def launch() -> None:
        device.launch(kernel, blocks, THREADS, 0, out, COUNT)

    for _ in range(20):
        launch()
    device.synchronize()
    return [device.seconds(launch) for _ in range(repeats)]


def _copy(context: Context, device: "driver.Context") -> None:
    """Time a copy on the device. The rate counts the bytes read plus the bytes written."""
    size = context.sizes.copied
    source, target = device.empty(size), device.empty(size)
    source.fill(0x5A)
    words = ctypes.c_uint64(target.address), ctypes.c_uint64(source.address), ctypes.c_size_t(size)

    def copy() -> None:
        device.driver("cuMemcpyDtoDAsync_v2", *words, None)

    for _ in range(3):
        copy()
    device.synchronize()
    rates = [2 * size / device.seconds(copy) / 1e12 for _ in range(context.sizes.repeats)]
    context.row("copy", "driver", "rate", "TB/s", rates, precision="any", details={"bytes": size})


def libraries(context: Context) -> None:
    """Time a copy by JAX, and a product of two square bfloat16 matrices by JAX and, if installed, by PyTorch."""
    import jax
    import jax.numpy as jnp

    context.require_gpu(jax.default_backend())
    n, repeats = context.sizes.square, context.sizes.repeats
    a, b = (jax.random.normal(jax.random.key(k), (n, n), jnp.bfloat16) for k in range(2))
    product = jax.jit(jnp.matmul)
    _, samples = timing.times(lambda _: product(a, b), jax.block_until_ready, repeats)
    _product(context, "xla", n, samples)
    source = jnp.arange(context.sizes.copied // 4, dtype=jnp.int32)
    copy = jax.jit(lambda x: x + 1)
    _, samples = timing.times(lambda _: copy(source), jax.block_until_ready, repeats)
    rates = [2 * source.nbytes / t / 1e12 for t in samples]
    context.row("copy", "xla", "rate", "TB/s", rates, precision="any", details={"bytes": source.nbytes})
    try:
        import torch
    except ImportError:
        context.note("ceilings: PyTorch is not installed")
        return
    from benchmarks.device import torch_work

    c, d = (torch.randn(n, n, device=torch_work.device(context), dtype=torch.bfloat16) for _ in range(2))
    _, samples = timing.times(lambda _: torch.matmul(c, d), torch_work.wait, repeats)
    _product(context, "torch", n, samples)


def _product(context: Context, variant: str, n: int, samples: list[float]) -> None:
    rates = [2 * n**3 / t / 1e12 for t in samples]
    share = float(np.median(rates)) * 1e12 / wide.PEAK
    details = {"rows": n, "share": share}
    context.row("product", variant, "rate", "TFLOP/s", rates, precision="bfloat16", details=details)
