"""Times of the kernel without JAX, and the accuracies that it reaches."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks import hardware
from benchmarks.device import data, reference, timing
from benchmarks.device.context import Context, TaskError
from benchmarks.device.launcher import PARTS, Launcher, etas, launcher, shape, with_warps
from jaxgd.kernels.cuda.shape import Shape

# Seconds of work before the first timing. An idle GPU reaches its clock rate in that time.
WARM_UP = 0.1
# Numbers of warps per block to compare with the 14 that jaxgd chooses for 784 inputs.
WARPS = (12,)


def times(context: Context) -> None:
    """Time an epoch for several numbers of networks. On a GPU, the largest is two per multiprocessor of an H100."""
    images = data.training(context.sizes.examples)
    with launcher(context) as launches:
        for parts, precision in PARTS.items():
            for networks in context.sizes.networks:
                _time(context, launches, shape(parts), images, networks, f"{networks}-networks", precision)


def training(context: Context) -> None:
    """Train many networks for some epochs, and store the time. With MNIST's images, also store the accuracies."""
    images, test = data.training(context.sizes.examples), data.test()
    networks, epochs, n = context.sizes.many, context.sizes.epochs, len(images.y)
    start, rates = data.weights(networks), np.full(networks, data.ETA, np.float32)
    with launcher(context) as launches:
        for parts, precision in PARTS.items():
            work = launches.training(shape(parts), start, images.x, images.y, _one_order(networks, n, 0), rates)
            seconds = 0.0
            for k in range(epochs):
                work.reorder(_one_order(networks, n, k))
                seconds += launches.seconds(work.launch)
            network, finite = work.result()
            if not (finite == 1).all():
                raise TaskError(f"{precision}: {int(np.sum(finite != 1))} of {networks} networks are not finite")
            details = {"epochs": epochs, "networks": networks, "n": n, **images.details}
            context.row("", "jaxgd-cuda", "time", "s/run", [seconds], precision=precision, details=details)
            if images.genuine:
                unit, right = f"of {len(test.y):,} test images", _correct(network, test)
                context.row("accuracy", "jaxgd-cuda", "correct", unit, right, precision=precision, details=details)


def _one_order(networks: int, n: int, epoch: int) -> NDArray[np.int32]:
    """Return the order of an epoch. All networks share it, and differ only in their first weights."""
    return np.repeat(data.orders(1, n, seed=epoch), networks, axis=0)


def _correct(network: Sequence[NDArray[np.float32]], test: data.Images) -> list[int]:
    """Return the number of test images that each network classifies correctly."""
    w1, b1, w2, b2 = network
    x = test.x / np.float32(255)
    counts = []
    for k in range(len(w1)):
        a = reference.sigmoid(x @ w1[k].T + b1[k]) @ w2[k].T + b2[k]
        counts.append(int(np.sum(np.argmax(a, axis=1) == test.y)))
    return counts


def warps(context: Context) -> None:
    """Time the kernel with fewer warps per block. Each thread then holds more weights, and may use more registers."""
    images = data.training(context.sizes.examples)
    with launcher(context) as launches:
        for count in WARPS:
            for networks in (1, context.sizes.many):
                part = f"{count}-warps-{networks}-networks"
                _time(context, launches, with_warps(shape(2), count), images, networks, part, PARTS[2])


def _time(
    context: Context, launches: Launcher, this: Shape, images: data.Images, networks: int, part: str, precision: str
) -> None:  # fmt: skip
    n = len(images.y)
    start, order = data.weights(networks), data.orders(networks, n)
    work = launches.training(this, start, images.x, images.y, order, etas(networks))
    work.launch()
    network, _ = work.result()
    details = timing.outcome(images, [v[0] for v in network])
    began = time.monotonic()
    while not context.rehearse and time.monotonic() - began < WARM_UP:
        work.launch()
        work.result()
    samples = [launches.seconds(work.launch) for _ in range(context.sizes.repeats)]
    median = float(np.median(samples))
    details |= {"networks": networks, "n": n, "network_epochs_per_s": networks / median}
    details |= {"step_us": median / -(-n // data.BATCH) * 1e6, "sm_mhz": hardware.gpu().get("sm_mhz", 0.0)}
    context.row(part, "jaxgd-cuda", "time", "s/epoch", samples, precision=precision, details=details)
