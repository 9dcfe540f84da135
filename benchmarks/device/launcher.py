"""Launches of the kernel without JAX: on the GPU through the driver, and in a rehearsal through the emulation."""

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.device import data
from benchmarks.device.context import Context, TaskError
from jaxgd.kernels.cuda.shape import Shape

if TYPE_CHECKING:
    from jaxgd.kernels.cuda import driver, nvrtc

# The name of the precision for each number of TF32 parts into which a factor is split.
PARTS = {2: "float32 (2×TF32)", 1: "tensorfloat32"}
_TESTS = Path(__file__).resolve().parents[2] / "tests"

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Orders = NDArray[np.int32]
Arrays = Sequence[Floats]


class Training(Protocol):
    """Networks and examples that are ready to train. On the GPU, this is a `jaxgd.kernels.cuda.direct.Training`."""

    def reset(self) -> None:
        """Restore the initial networks, and set `finite` to a value that the kernel never writes."""

    def reorder(self, order: Orders) -> None:
        """Replace the orders of the examples."""

    def launch(self) -> None:
        """Start an epoch. Each further epoch continues from the previous one."""

    def result(self) -> tuple[Arrays, Orders]:
        """Wait for the epochs. Return [w¹, b¹, w², b²], with a leading axis for the networks, and `finite`."""
        ...


class Launcher(Protocol):
    """A way to launch the kernel: on the GPU, or in the emulation."""

    def training(self, shape: Shape, start: Arrays, x: Pixels, y: Orders, order: Orders, eta: Floats) -> Training:
        """Return networks that are ready to train. The kernel is compiled unless it is in the cache."""
        ...

    def seconds(self, work: Callable[[], object]) -> float:
        """Return the seconds between the start and the end of the launches in `work`."""
        ...


@contextlib.contextmanager
def launcher(context: Context) -> Iterator[Launcher]:
    """Yield the launcher of this run."""
    if context.rehearse:
        yield Emulated(context.logs)
        return
    from jaxgd.kernels.cuda import driver

    with driver.Context() as device:
        yield OnDevice(device)


class OnDevice:
    """Launches on the GPU."""

    def __init__(self, device: "driver.Context") -> None:
        self.device = device

    def training(self, shape: Shape, start: Arrays, x: Pixels, y: Orders, order: Orders, eta: Floats) -> Training:
        """Return networks that are ready to train. The kernel is compiled unless it is in the cache."""
        from jaxgd.kernels.cuda import cubins, direct

        cubin = cubins.cubin(compiler(), shape, self.device.device.capability).compiled.cubin
        return direct.Training(self.device, shape, cubin, direct.Networks(*start), x, y, order, eta)

    def seconds(self, work: Callable[[], object]) -> float:
        """Return the seconds between the launches' start and end on the device, measured by CUDA events."""
        return self.device.seconds(work)


class Emulated:
    """Launches of the same kernel on the CPU."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def training(self, shape: Shape, start: Arrays, x: Pixels, y: Orders, order: Orders, eta: Floats) -> Training:
        """Return networks that are ready to train. The emulation is compiled unless its library already exists."""
        module = emulation(self._folder)
        library = module.compiled(self._folder, shape)
        return _Emulation(module, library, shape, start, x, y, order, eta)

    def seconds(self, work: Callable[[], object]) -> float:
        """Return the seconds that `work` takes by the host's clock."""
        began = time.perf_counter()
        work()
        return time.perf_counter() - began


def emulation(folder: Path) -> Any:
    """Return the tests' module that emulates the kernel. Change it to compile each shape only once for all tasks."""
    sys.path.insert(0, str(_TESTS))
    module: Any = importlib.import_module("emulation")
    if module.why_missing:
        raise TaskError(module.why_missing)
    compile_ = module.compiled

    def compiled(_: Path, shape: Shape) -> Path:
        own = folder / "-".join(map(str, shape.defines().values()))
        library = own / "emulated.so"
        if not library.exists():
            compile_(own, shape)
        return library

    module.compiled = compiled
    return module


class _Emulation:
    def __init__(
        self, module: Any, library: Path, shape: Shape, start: Arrays, x: Pixels, y: Orders, order: Orders, eta: Floats
    ) -> None:  # fmt: skip
        def run(network: Arrays, order: Orders) -> tuple[Arrays, Orders]:
            trained: tuple[Arrays, Orders] = module.emulate(library, shape, network, x, y, order, eta)
            return trained

        self._run, self._start, self._order = run, start, order
        self.reset()

    def reset(self) -> None:
        self._network: Arrays = self._start
        self._finite = np.full(len(self._start[0]), -1, np.int32)

    def reorder(self, order: Orders) -> None:
        self._order = order

    def launch(self) -> None:
        self._network, self._finite = self._run(self._network, self._order)

    def result(self) -> tuple[Arrays, Orders]:
        return self._network, self._finite


def compiler() -> "nvrtc.Compiler":
    """Return NVRTC in a version whose code the driver can load, or in any version if no driver is installed."""
    from jaxgd.kernels.cuda import driver, nvrtc

    loaded = driver.driver()
    compiler_ = nvrtc.compiler(None if isinstance(loaded, str) else loaded.version[0])
    if isinstance(compiler_, str):
        raise TaskError(compiler_)
    return compiler_


def compiled(source: Path, capability: tuple[int, int], *flags: str) -> bytes:
    """Compile a CUDA source, and return its machine code for a device of this compute capability."""
    nvrtc = compiler()
    options = [f"--gpu-architecture={nvrtc.architecture(capability)}", "--std=c++17", *flags]
    return nvrtc.compile_source(source.name, source.read_bytes(), b"", options).cubin


def shape(parts: int, sizes: tuple[int, ...] = data.SIZES) -> Shape:
    """Return the kernel's shape for a network of these sizes, by default the book's."""
    inputs, hidden, outputs = sizes
    return Shape(inputs, hidden, outputs, data.BATCH, parts)


def with_warps(usual: Shape, count: int) -> Shape:
    """Return the shape with this number of warps per block, instead of the number that jaxgd chooses."""

    class OtherWarps(Shape):
        @property
        def warps(self) -> int:
            return count

        @property
        def groups(self) -> int:
            return -(-usual.inputs // (8 * count))

    return OtherWarps(*usual)


def etas(networks: int) -> NDArray[np.float32]:
    """Return one learning rate per network, from data.ETA to half of it.

    The first network gets data.ETA, because its cost is compared with the costs of other programs.
    """
    return (data.ETA * np.linspace(1, 0.5, networks)).astype(np.float32)
