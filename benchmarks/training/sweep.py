"""Many small networks: `python -m benchmarks.training.sweep CASE PROGRAM [DATA_DIR]` times one program.

`sweep` trains the networks in batches, and `train` trains them one after the other. PyTorch trains only a sample of
the networks, one after the other. A timing starts when the data are in memory. It includes the compilation and an
evaluation on all splits after each epoch. For `sweep`, it also includes writing the results to a folder.
"""

import dataclasses
import functools
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import DEFAULT_PRECISION, Case, Options
from benchmarks.rows import Row, sampled
from benchmarks.training.timing import PAUSE, chosen_peers, ratios, unlike
from benchmarks.training.torch_network import torch_network
from benchmarks.training.worker import peak_memory
from jaxgd import Dataset, load_dataset

_BATCH = 10


@dataclasses.dataclass(frozen=True)
class Networks:
    """The networks of one case.

    Attributes:
        name: Name of the case.
        data: Name of the data set.
        sizes: Neurons of each layer.
        eta: Learning rates.
        seeds: Number of seeds for each η.
        epochs: Epochs of each network.
        scheme: Scheme of the first weights, as in `init_network`.
        picked: Number of networks that PyTorch trains. Its times are scaled to all networks.
    """

    name: str
    data: str
    sizes: tuple[int, ...]
    eta: tuple[float, ...]
    seeds: int
    epochs: int
    scheme: str
    picked: int

    @property
    def points(self) -> list[tuple[float, int]]:
        """η and seed of each network, in the order in which `sweep` lists the networks."""
        return list(itertools.product(self.eta, range(self.seeds)))

    @property
    def sample(self) -> list[int]:
        """Indices of the networks that PyTorch trains. All programs must reach the same mean cost on these."""
        return [int(i) for i in np.linspace(0, len(self.points) - 1, self.picked)]

    @property
    def title(self) -> str:
        """A description of the case in one line."""
        count = f"{len(self.points):,} networks {list(self.sizes)} on {self.data}"
        return f"{count}: {len(self.eta)} η × {self.seeds} seeds, {self.epochs} epochs, batch {_BATCH}"


def by_sweep(networks: Networks, data: Dataset) -> list[float]:
    """Train all networks with `sweep`, and return the final costs of the sample."""
    from jaxgd import sweep

    about: dict[str, Any] = {name: getattr(networks, name) for name in ("sizes", "eta", "seeds", "epochs", "scheme")}
    with tempfile.TemporaryDirectory() as folder:
        costs: list[float] = sweep(data, batch_size=_BATCH, folder=folder, **about).last()["cost"].to_pylist()
    return [costs[i] for i in networks.sample]


def by_train(networks: Networks, data: Dataset) -> list[float]:
    """Train the networks one after the other with `train`, and return the final costs of the sample."""
    from jaxgd import train
    from jaxgd.network import first_network

    costs = []
    for eta, seed in networks.points:
        network, key = first_network(seed, networks.sizes, networks.scheme)
        settings: dict[str, Any] = {"epochs": networks.epochs, "batch_size": _BATCH, "gradient_norm": False}
        costs.append(float(train(network, data, eta=eta, key=key, **settings).history.cost[-1]))
    return [costs[i] for i in networks.sample]


def by_torch(networks: Networks, data: Dataset) -> list[float]:
    """Train the sample with PyTorch's layers, autograd and SGD, and return its final costs.

    One thread is faster than two for these sizes. The examples have the same order as in jaxgd.
    """
    import jax
    import torch

    from jaxgd.kernels import random_order
    from jaxgd.network import first_network
    from jaxgd.typed import jit

    torch.set_num_threads(1)
    splits = [
        (
            torch.from_numpy(part.images.reshape(len(part.images), -1).astype(np.float32) / np.float32(255)),
            torch.from_numpy(np.eye(data.classes, dtype=np.float32)[part.labels]),
        )
        for part in (data.train, data.validation, data.test)
    ]
    x, y = splits[0]
    draw = jit(lambda key, k: random_order(jax.random.fold_in(key, k), len(x)))

    def evaluations(model: Any) -> list[tuple[float, float]]:
        results = []
        with torch.no_grad():
            for x, y in splits:
                a = model(x)
                right = a.argmax(1) == y.argmax(1)
                results.append((float(((a - y) ** 2).sum() / (2 * len(x))), float(right.float().mean())))
        return results

    costs = []
    for i in networks.sample:
        eta, seed = networks.points[i]
        first, key = first_network(seed, networks.sizes, networks.scheme)
        model, _ = torch_network([(np.asarray(w), np.asarray(b)) for w, b in first])
        optimizer = torch.optim.SGD(model.parameters(), lr=eta)
        evaluations(model)
        for k in range(networks.epochs):
            for rows in torch.from_numpy(np.asarray(draw(key, k), np.int64)).split(_BATCH):
                optimizer.zero_grad()
                loss = ((model(x[rows]) - y[rows]) ** 2).sum() / (2 * len(rows))
                loss.backward()
                optimizer.step()
            last = evaluations(model)
        costs.append(last[0][0])
    return costs


PROGRAMS: dict[str, Callable[[Networks, Dataset], list[float]]] = {
    "jaxgd": by_sweep,
    "jaxgd-each": by_train,
    "torch": by_torch,
}
NETWORKS = (
    Networks(
        "sweep-digits", "digits", (64, 30, 10), (0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0), 100, 20,
        "scaled", picked=5,
    ),
    Networks("sweep-mnist", "mnist", (784, 30, 10), (0.1, 1.0, 3.0), 20, 3, "gaussian", picked=3),
)  # fmt: skip


def timed(name: str, program: str, data_dir: Path | None) -> dict[str, float]:
    """Run a program in a new process, and return its measurements."""
    time.sleep(PAUSE)
    words = [sys.executable, "-W", "ignore", "-m", "benchmarks.training.sweep", name, program]
    done = subprocess.run([*words, *([str(data_dir)] if data_dir else [])], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {program} ended with status {done.returncode}; its messages are above.")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(networks: Networks, options: Options) -> Iterator[Row]:
    """Yield the time, processor time and memory of each program. Exit if the programs did not do the same work."""
    programs = chosen_peers(networks.name, PROGRAMS, options.peers)
    runs: dict[str, list[dict[str, float]]] = {program: [] for program in programs}
    for _ in range(options.repeats):
        for program in programs:
            runs[program].append(timed(networks.name, program, options.data_dir))
    base = programs[0]
    if others := unlike({program: own[0] for program, own in runs.items()}, base):
        raise SystemExit(f"{networks.name}: at the end C is {runs[base][0]['cost']:.5g} for {base}, but {others}.")
    times = {program: [figures["seconds"] for figures in own] for program, own in runs.items()}
    for program, own in runs.items():
        details: dict[str, Any] = {
            "cost": own[0]["cost"],
            "baseline": base,
            "ratio": ratios(times[program], times[base]),
        }
        if program == "torch":
            details["networks of torch"] = f"{networks.picked} of {len(networks.points):,}, scaled to all"
        row = functools.partial(sampled, networks.name, program, precision=DEFAULT_PRECISION)
        yield row("time", "s", times[program], details=details)
        yield row("processor time", "s", [figures["processor"] for figures in own])
        yield row("memory", "MiB", [figures["mebibytes"] for figures in own])


def main(name: str, program: str, data_dir: str = "") -> None:
    """Run a program, and print its measurements as JSON."""
    networks = next(networks for networks in NETWORKS if networks.name == name)
    data = load_dataset(networks.data, Path(data_dir) if data_dir else None)
    if program == "torch":
        import torch  # noqa: F401  its import must not be timed
    scale = len(networks.points) / networks.picked if program == "torch" else 1.0
    wall, processor = time.perf_counter(), time.process_time()
    costs = PROGRAMS[program](networks, data)
    figures = {
        "seconds": scale * (time.perf_counter() - wall),
        "processor": scale * (time.process_time() - processor),
        "mebibytes": peak_memory(),
        "cost": statistics.mean(costs),
    }
    print(json.dumps(figures))


CASES = tuple(
    Case(n.name, "sweep", n.title, functools.partial(measure, n), needs_mnist=n.data == "mnist") for n in NETWORKS
)

if __name__ == "__main__":
    main(*sys.argv[1:])
