"""The shapes that the kernel takes, and the constants that it is compiled with."""

from typing import NamedTuple

MOST_INPUTS, MOST_HIDDEN, MOST_OUTPUTS, MOST_BATCH = 1024, 32, 16, 16
# A block of more warps would leave each thread fewer than 128 registers.
_MOST_WARPS = 16
# Fewer warps would make the sums over neurons and examples slow.
_LEAST_WARPS = 8
# Mini-batches whose images have a place in shared memory: one is in use, while the device copies the others.
_STAGES = 4
# Floats from one row to the next in shared memory: the first is for d1, the second for a1, w2 and the parts of z.
_ERROR_STRIDE, _STRIDE = 40, 36


class Shape(NamedTuple):
    """The shape of a network and of its mini-batches, for which the kernel is compiled.

    Attributes:
        inputs: Number of inputs, 1 to 1,024.
        hidden: Number of hidden neurons, 1 to 32.
        outputs: Number of outputs, 1 to 16.
        batch_size: The most examples per mini-batch, 1 to 16.
        parts: Number of TF32 numbers that replace a float32 factor. Two keep 22 of its bits, one keeps 11.
    """

    inputs: int
    hidden: int
    outputs: int
    batch_size: int
    parts: int

    @property
    def row_bytes(self) -> int:
        """Bytes from one image to the next in global memory: the inputs, padded to a multiple of 16.

        The device copies only multiples of 16 bytes.
        """
        return _rounded_up(self.inputs, 16)

    @property
    def groups(self) -> int:
        """The most groups of 8 inputs that a warp has."""
        return -(-_groups(self.inputs) // _MOST_WARPS)

    @property
    def warps(self) -> int:
        """Warps per block."""
        return max(_LEAST_WARPS, -(-_groups(self.inputs) // self.groups))

    @property
    def threads(self) -> int:
        """Threads per block."""
        return 32 * self.warps

    @property
    def shared_bytes(self) -> int:
        """Bytes of shared memory per block: the size of `Shared` in descend.cu, which asserts this size."""
        neurons, examples = _rounded_up(self.hidden, 16), _rounded_up(self.batch_size, 8)
        odd_row = self.row_bytes if self.row_bytes // 16 % 2 else self.row_bytes + 16
        images = _STAGES * self.batch_size * odd_row
        floats = (self.warps + 1) * examples * _STRIDE + examples * _ERROR_STRIDE  # parts of z, a1 and d1
        floats += 16 * examples + 16 * _STRIDE + neurons + 16  # d2, w2, b1 and b2
        return _rounded_up(images + 4 * floats + 8 * _STAGES, 128)

    def defines(self) -> dict[str, int]:
        """Return the constants for the compiler."""
        return {
            "INPUTS": self.inputs, "HIDDEN": self.hidden, "OUTPUTS": self.outputs, "BATCH": self.batch_size,
            "PARTS": self.parts, "WARPS": self.warps, "GROUPS": self.groups, "STAGES": _STAGES,
            "SHARED_BYTES": self.shared_bytes,
        }  # fmt: skip


def _groups(inputs: int) -> int:
    return -(-inputs // 8)


def _rounded_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
