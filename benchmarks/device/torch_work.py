"""The network's inputs, targets, cost and gradient in PyTorch, and the device."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.device import timing
from benchmarks.device.context import Context

# The argument of `torch.set_float32_matmul_precision` for each precision of a float32 product.
PRECISIONS = {timing.FLOAT32: "highest", timing.TF32: "high"}


class Tensor(Protocol):
    """The part of `torch.Tensor` that the measurements use, so that a type checker does not need PyTorch."""

    @property
    def is_cuda(self) -> bool: ...
    def __getitem__(self, key: "int | Tensor") -> "Tensor": ...
    def __len__(self) -> int: ...
    def __add__(self, other: "Tensor") -> "Tensor": ...
    def __sub__(self, other: "Tensor") -> "Tensor": ...
    def __truediv__(self, other: int) -> "Tensor": ...
    def __pow__(self, other: int) -> "Tensor": ...
    def float(self) -> "Tensor": ...
    def sum(self) -> "Tensor": ...
    def clone(self) -> "Tensor": ...
    def cpu(self) -> "Tensor": ...
    def detach(self) -> "Tensor": ...
    def numpy(self) -> NDArray[np.float32]: ...
    def requires_grad_(self) -> "Tensor": ...
    def to(self, dtype: object) -> "Tensor": ...
    def copy_(self, other: "Tensor") -> "Tensor": ...
    def zero_(self) -> "Tensor": ...
    def add_(self, other: int) -> "Tensor": ...
    def remainder_(self, other: int) -> "Tensor": ...


def device(context: Context) -> str:
    """Return the device of the measurements."""
    import torch

    platform = "cuda" if torch.cuda.is_available() else "cpu"
    context.require_gpu(platform)
    return "cpu" if context.rehearse else platform


def wait(_: object = None) -> None:
    """Wait for all work on the device."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def inputs(x: Tensor) -> Tensor:
    """Return images of bytes as floats from 0 to 1."""
    return x.float() / 255


def targets(y: Tensor, classes: int = 10) -> Tensor:
    """Return labels as one-hot rows of floats."""
    import torch

    one_hot: Tensor = torch.nn.functional.one_hot(y, classes)
    return one_hot.float()


def cost(network: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Return the quadratic cost of the network [w¹, b¹, w², b², …]."""
    import torch

    a = x
    for w, b in zip(network[::2], network[1::2], strict=True):
        a = torch.sigmoid(torch.nn.functional.linear(a, w, b))
    return ((a - y) ** 2).sum() / (2 * len(x))


def gradient(cost: Tensor, network: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the derivative of a cost with respect to each array of the network, by autograd."""
    import torch

    slopes: Sequence[Tensor] = torch.autograd.grad(cost, network)
    return slopes
