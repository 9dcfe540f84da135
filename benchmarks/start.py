"""Who is timed from a cold start: whole processes that learn the digits that come with jaxgd, end to end.

Of the others, `python -m benchmarks.start PEER START END` is such a process: it imports what it needs, learns, and
writes its weights.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import START, Case, Peer, Shared, Weights

COMMAND = "import sys; from jaxgd.cli import main; sys.exit(main())"


class Alone(Shared):
    """As `Shared`, but the orders are NumPy's: to draw jaxgd's own, the others would have to import JAX."""

    def order(self, k: int) -> NDArray[np.int32]:
        """A random order of the k-th epoch's examples."""
        return np.random.default_rng(k).permutation(len(self.y)).astype(np.int32)


def by_command(kept: bool) -> Peer:
    """`jaxgd train` as it is, with all that it writes; with the programs kept that an earlier run compiled, or not."""

    def units(case: Case, data: Shared) -> Iterator[Weights]:
        from safetensors.numpy import load_file

        with tempfile.TemporaryDirectory() as home:
            environment = {**os.environ, "HOME": home, "JAX_ENABLE_COMPILATION_CACHE": str(kept)}
            for k in range(10**6):
                run = Path(home) / str(k)
                words = [sys.executable, "-W", "ignore", "-c", COMMAND, "train", "--run-dir", str(run)]
                subprocess.run([*words, "--epochs", str(case.epochs)], env=environment, check=True, capture_output=True)
                found = load_file(run / "network.safetensors")
                yield [(found[f"{i}.w"], found[f"{i}.b"]) for i in range(len(found) // 2)]

    return units


def by_process(peer: str) -> Peer:
    """A peer's own loop in a new process."""

    def units(case: Case, data: Shared) -> Iterator[Weights]:
        with tempfile.TemporaryDirectory() as folder:
            start, end = Path(folder) / "start.npz", Path(folder) / "end.npz"
            np.savez(start, data.x, data.y, *(v for layer in data.weights for v in layer))
            words = [sys.executable, "-W", "ignore", "-m", "benchmarks.start", peer, str(start), str(end)]
            while True:
                subprocess.run(words, check=True, capture_output=True)
                yield _pairs(list(np.load(end).values()))

    return units


def _pairs(flat: list[NDArray[np.float32]]) -> Weights:
    return list(zip(flat[::2], flat[1::2], strict=True))


def main(peer: str, start: str, end: str) -> None:
    """Learn, and write the weights."""
    from benchmarks.peers import PEERS

    x, y, *weights = np.load(start).values()
    units = PEERS[peer](START, Alone(x, y, _pairs(weights)))
    for _ in range(START.epochs or 0):
        learned = next(units)
    np.savez(end, *(v for layer in learned for v in layer))


if __name__ == "__main__":
    main(*sys.argv[1:])
