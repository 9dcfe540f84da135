"""The network's inputs, targets and cost in PyTorch, and the device."""

from collections.abc import Sequence
from typing import Any

from benchmarks.device import timing
from benchmarks.device.context import Context

# PyTorch's words for the precisions of a float32 product.
PRECISIONS = {timing.FLOAT32: "highest", timing.TF32: "high"}


def device(context: Context) -> str:
    """Return the device of the measurements."""
    import torch

    found = "cuda" if torch.cuda.is_available() else "cpu"
    context.require_gpu(found)
    return "cpu" if context.rehearse else found


def wait(_: Any = None) -> None:
    """Wait for all work on the device."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def inputs(x: Any) -> Any:
    """Return images of bytes as floats from 0 to 1."""
    return x.float() / 255


def targets(y: Any, classes: int = 10) -> Any:
    """Return labels as rows of 0 and 1."""
    import torch

    return torch.nn.functional.one_hot(y, classes).float()


def cost(network: Sequence[Any], x: Any, y: Any) -> Any:
    """Return the quadratic cost of the network [w¹, b¹, w², b², …]."""
    import torch

    a = x
    for w, b in zip(network[::2], network[1::2], strict=True):
        a = torch.sigmoid(torch.nn.functional.linear(a, w, b))
    return ((a - y) ** 2).sum() / (2 * len(x))
