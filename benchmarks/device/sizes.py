"""The sizes of the measurements, on a GPU and in a rehearsal on a CPU."""

from typing import NamedTuple


class Sizes(NamedTuple):
    """The sizes of the measurements.

    Attributes:
        examples: Examples per epoch.
        steps: Numbers of steps after which the kernel is compared with float64, in increasing order.
        networks: Numbers of networks that are trained at once in the task kernel-times.
        many: Number of networks in the other measurements with several networks.
        repeats: Number of timings of a program. Slow programs have timing.SLOW_REPEATS timings instead.
        epochs: Epochs of the training whose accuracy is measured.
        calls: Steps per timing of a program that Python calls step by step. torch-vmap makes a third as many.
        profiled: Steps under the profiler.
        full: Examples of the full batch.
        wide: Neurons of each hidden layer of the wide network.
        wide_batch: Examples in the batch of the wide network.
        square: Rows of the square matrices that are multiplied.
        copied: Bytes of the copy.
    """

    examples: int
    steps: tuple[int, ...]
    networks: tuple[int, ...]
    many: int
    repeats: int
    epochs: int
    calls: int
    profiled: int
    full: int
    wide: int
    wide_batch: int
    square: int
    copied: int


DEVICE = Sizes(
    examples=50_000, steps=(1, 20, 60), networks=(1, 2, 66, 132, 133, 264), many=132, repeats=7, epochs=30, calls=300,
    profiled=200, full=60_000, wide=4096, wide_batch=8192, square=8192, copied=2**31,
)  # fmt: skip
REHEARSAL = Sizes(
    examples=100, steps=(1, 3), networks=(1, 2), many=3, repeats=2, epochs=1, calls=3, profiled=3, full=600, wide=32,
    wide_batch=64, square=64, copied=2**16,
)  # fmt: skip
