"""Launches of the kernel without JAX, for scripts that check or time the kernel or run it under NVIDIA's tools."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxgd.kernels.cuda.driver import Context
from jaxgd.kernels.cuda.shape import Shape

Array = NDArray[Any]


class Networks(NamedTuple):
    """Networks with one hidden layer, in float32. Each array has a leading axis of networks.

    Attributes:
        w1: Weights of the hidden layer, (networks, hidden, inputs).
        b1: Biases of the hidden layer, (networks, hidden).
        w2: Weights of the output layer, (networks, outputs, hidden).
        b2: Biases of the output layer, (networks, outputs).
    """

    w1: Array
    b1: Array
    w2: Array
    b2: Array


class Training:
    """Networks and examples on a device, ready for epochs.

    Example:
        with Context() as context:
            kernel = cubins.cubin(nvrtc.compiler(), shape, context.device.capability)
            training = Training(context, shape, kernel.compiled.cubin, networks, x, y, order, eta)
            training.launch()
            networks, finite = training.result()
    """

    def __init__(
        self,
        context: Context,
        shape: Shape,
        cubin: bytes,
        networks: Networks,
        x: Array,
        y: Array,
        order: Array,
        eta: Array,
        batch_size: int | None = None,
    ) -> None:
        """Copy the arrays to the device, and load the kernel.

        Args:
            context: The context of the device.
            shape: The shape for which the kernel was compiled.
            cubin: The compiled kernel.
            networks: The networks before the epoch.
            x: Inputs, (n, inputs), bytes.
            y: Labels, (n,), or targets, (n, outputs).
            order: The order of the examples of each network, (networks, n).
            eta: The learning rate of each network, (networks,).
            batch_size: Examples per mini-batch, 1 to the batch size of the shape, which is the default.
        """
        self._context, self._shape = context, shape
        self._batch_size = shape.batch_size if batch_size is None else batch_size
        self._first = Networks(*(np.asarray(v, np.float32) for v in networks))
        self._n, self._count = len(x), len(self._first.w1)
        padding = ((0, 0), (0, shape.row_bytes - shape.inputs))
        labels = np.issubdtype(y.dtype, np.integer)
        self._x = context.put(np.pad(np.asarray(x, np.uint8), padding))
        self._labels = context.put(np.asarray(y, np.int32)) if labels else None
        self._targets = None if labels else context.put(np.asarray(y, np.float32))
        self._order, self._eta = context.put(np.asarray(order, np.int32)), context.put(np.asarray(eta, np.float32))
        self._networks = [context.put(v) for v in self._first]
        self._finite = context.empty(4 * self._count)
        self._kernel = context.load(cubin, shape.shared_bytes)
        self.reset()

    def reset(self) -> None:
        """Restore the networks given at the start, and set `finite` to a value that the kernel never writes."""
        for memory, array in zip(self._networks, self._first, strict=True):
            memory.write(array)
        self._finite.fill(0xFF)

    def reorder(self, order: Array) -> None:
        """Replace the order of the examples of each network, (networks, n)."""
        self._order.write(np.asarray(order, np.int32))

    def launch(self) -> None:
        """Start an epoch, and return before it ends. Each further epoch continues from the previous one."""
        self._context.launch(
            self._kernel,
            self._count,
            self._shape.threads,
            self._shape.shared_bytes,
            self._x,
            self._labels,
            self._targets,
            self._order,
            self._eta,
            *self._networks,
            self._finite,
            self._n,
            self._batch_size,
        )

    def result(self) -> tuple[Networks, Array]:
        """Wait for the epochs. Return the networks, and `finite` of the last epoch: 1 or 0 for each network."""
        self._context.synchronize()
        arrays = [memory.read(v.shape, v.dtype) for memory, v in zip(self._networks, self._first, strict=True)]
        return Networks(*arrays), self._finite.read((self._count,), np.int32)
