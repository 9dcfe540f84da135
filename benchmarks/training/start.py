"""The peers of the start-up case: whole processes that train a network on jaxgd's digits.

Two peers run `jaxgd train`, with and without programs compiled by an earlier run. The others run
`python -m benchmarks.training.start PEER START END`, which imports the libraries of PEER, reads the data and first
weights from START, trains, and writes the weights to END.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.training.work import START, Peer, Shared, Weights, Work

COMMAND = "import sys; from jaxgd.cli import main; sys.exit(main())"


class NumPyOrders(Shared):
    """The shared data, but NumPy draws the order of the examples. A peer without JAX need not import JAX."""

    def order(self, k: int) -> NDArray[np.int32]:
        """Return a random order of the examples in epoch k."""
        return np.random.default_rng(k).permutation(len(self.y)).astype(np.int32)


def by_command(kept: bool) -> Peer:
    """Return a peer that runs `jaxgd train` for each unit. With `kept`, later units reuse the compiled programs."""

    def units(work: Work, data: Shared) -> Iterator[Weights]:
        from safetensors.numpy import load_file

        with tempfile.TemporaryDirectory() as home:
            environment = {**os.environ, "HOME": home, "JAX_ENABLE_COMPILATION_CACHE": str(kept)}
            for k in range(10**6):
                run = Path(home) / str(k)
                words = [sys.executable, "-W", "ignore", "-c", COMMAND, "train", "--run-dir", str(run)]
                subprocess.run([*words, "--epochs", str(work.epochs)], env=environment, check=True, capture_output=True)
                arrays = load_file(run / "network.safetensors")
                yield [(arrays[f"{i}.w"], arrays[f"{i}.b"]) for i in range(len(arrays) // 2)]

    return units


def by_process(peer: str) -> Peer:
    """Return a peer that starts a process for each unit. The process trains as `PEERS[peer]` does."""

    def units(work: Work, data: Shared) -> Iterator[Weights]:
        with tempfile.TemporaryDirectory() as folder:
            start, end = Path(folder) / "start.npz", Path(folder) / "end.npz"
            np.savez(start, data.x, data.y, *(v for layer in data.weights for v in layer))
            words = [sys.executable, "-W", "ignore", "-m", "benchmarks.training.start", peer, str(start), str(end)]
            while True:
                subprocess.run(words, check=True, capture_output=True)
                arrays: list[np.ndarray] = list(np.load(end).values())
                yield _pairs(arrays)

    return units


def _pairs(flat: list[NDArray[np.float32]]) -> Weights:
    return list(zip(flat[::2], flat[1::2], strict=True))


def main(peer: str, start: str, end: str) -> None:
    """Train from the data and weights in the file `start`, and write the weights to the file `end`."""
    from benchmarks.training.peers import PEERS

    arrays: list[np.ndarray] = list(np.load(start).values())
    x, y, *weights = arrays
    units = PEERS[peer](START, NumPyOrders(x, y, _pairs(weights)))
    for _ in range(START.epochs or 0):
        learned = next(units)
    np.savez(end, *(v for layer in learned for v in layer))


if __name__ == "__main__":
    main(*sys.argv[1:])
