"""A benchmark case, and the options of a run."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.rows import Row

# JAX's default precision. Products of float32 matrices are float32 on a CPU, and may be TF32 or bfloat16 on an
# accelerator.
DEFAULT_PRECISION = "float32, default matmul precision"


@dataclasses.dataclass(frozen=True)
class Options:
    """The settings of a run.

    Attributes:
        peers: Names of the programs to time; None for the default of the case. Ratios are relative to the first.
        repeats: Number of times that each program is timed.
        seeds: Number of random seeds. `nielsen` trains one network per seed and configuration of the book; `gradcheck`
            checks each function at one point per seed. None for the default of the family.
        epochs: Epochs of each configuration of the book.
        dtypes: dtypes in which gradients are checked.
        data_dir: Folder of MNIST; None for JAXGD_DATA_DIR or ~/.cache/jaxgd.
    """

    peers: tuple[str, ...] | None = None
    repeats: int = 7
    seeds: int | None = None
    epochs: int = 30
    dtypes: tuple[str, ...] = ("float32", "float64")
    data_dir: Path | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """A unit of work that several programs do, or that one program does many times.

    Attributes:
        name: Name on the command line and in the results, such as "epoch-30".
        family: Name of the family, such as "epochs".
        title: One line for readers, with the size of the work.
        measure: Function that takes the options and yields the rows of the case, without the fields about the host.
        needs_mnist: True if the case reads MNIST.
    """

    name: str
    family: str
    title: str
    measure: Callable[[Options], Iterator[Row]]
    needs_mnist: bool = False
