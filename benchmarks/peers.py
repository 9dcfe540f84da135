"""Who is timed: each a generator of the weights after every unit of a case, from the same start in the same order."""

import importlib.util
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.cases import Case, Shared, Weights

Peer = Callable[[Case, Shared], Iterator[Weights]]


def batches(case: Case, data: Shared, k: int) -> Iterator[Any]:
    """The rows of each mini-batch of the k-th unit; all of them for the full batch."""
    if case.batch_size is None:
        yield slice(None)
        return
    order = data.order(k)
    for start in range(0, case.n, case.batch_size):
        yield order[start : start + case.batch_size]


def by_jaxgd(kernel: Any) -> Peer:
    """`train`, as anybody calls it; its callback waits between units for its turn."""

    def units(case: Case, data: Shared) -> Iterator[Weights]:
        import jax
        import jax.numpy as jnp

        import jaxgd

        done: queue.Queue[Any] = queue.Queue()
        turn = threading.Semaphore(0)
        network = tuple(jaxgd.Layer(jnp.asarray(w), jnp.asarray(b)) for w, b in data.weights)

        def after(state: Any, entry: Any) -> None:
            jax.block_until_ready(state.network)  # type: ignore[no-untyped-call]
            done.put(state.network)
            turn.acquire()

        def run() -> None:
            jaxgd.train(
                network, (data.x, data.y), epochs=10**6, batch_size=case.batch_size, eta=case.eta,
                key=jax.random.key(0), evaluate=False, kernel=kernel, callback=after,
            )  # fmt: skip

        threading.Thread(target=run, daemon=True).start()
        done.get()
        while True:
            turn.release()
            yield [(np.asarray(w), np.asarray(b)) for w, b in done.get()]

    return units


def by_numpy(case: Case, data: Shared) -> Iterator[Weights]:
    """A matrix product a layer and mini-batch, in float32."""
    x, answers = data.x.astype(np.float32) / np.float32(255), np.eye(case.sizes[-1], dtype=np.float32)
    weights = [(w.copy(), b.copy()) for w, b in data.weights]
    for k in range(10**6):
        for rows in batches(case, data, k):
            activations = [x[rows]]
            for w, b in weights:
                activations.append(1 / (1 + np.exp(-(activations[-1] @ w.T + b))))
            a = activations[-1]
            rate = np.float32(case.eta / len(a))
            delta = (a - answers[data.y[rows]]) * a * (1 - a)
            for layer in reversed(range(len(weights))):
                w, b = weights[layer]
                a = activations[layer]
                before = (delta @ w) * a * (1 - a) if layer else delta
                w -= rate * (delta.T @ a)
                b -= rate * delta.sum(0)
                delta = before
        yield [(w.copy(), b.copy()) for w, b in weights]


def by_book(case: Case, data: Shared) -> Iterator[Weights]:
    """As chapter 1 has it: one example after the other as columns, and gradients summed over the mini-batch."""
    x, answers = data.x / 255, np.eye(case.sizes[-1])
    weights = [(w.astype(float), b.astype(float)[:, None]) for w, b in data.weights]
    for k in range(10**6):
        for rows in batches(case, data, k):
            sums = [(np.zeros_like(w), np.zeros_like(b)) for w, b in weights]
            which = np.arange(case.n)[rows]
            for r in which:
                activations = [x[r][:, None]]
                for w, b in weights:
                    activations.append(1 / (1 + np.exp(-(w @ activations[-1] + b))))
                a = activations[-1]
                delta = (a - answers[data.y[r]][:, None]) * a * (1 - a)
                for layer in reversed(range(len(weights))):
                    a = activations[layer]
                    sums[layer] = sums[layer][0] + delta @ a.T, sums[layer][1] + delta
                    if layer:
                        delta = (weights[layer][0].T @ delta) * a * (1 - a)
            rate = case.eta / len(which)
            weights = [(w - rate * u, b - rate * v) for (w, b), (u, v) in zip(weights, sums, strict=True)]
        yield [(w.astype(np.float32), b[:, 0].astype(np.float32)) for w, b in weights]


def by_torch(compiled: bool) -> Peer:
    """PyTorch's layers, autograd and SGD, a step a mini-batch; or the step through `torch.compile`."""

    def units(case: Case, data: Shared) -> Iterator[Weights]:
        import torch

        layers: list[Any] = []
        for w, b in data.weights:
            linear = torch.nn.Linear(w.shape[1], w.shape[0])
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(w))
                linear.bias.copy_(torch.from_numpy(b))
            layers += [linear, torch.nn.Sigmoid()]
        model = torch.nn.Sequential(*layers)
        optimizer = torch.optim.SGD(model.parameters(), lr=case.eta)
        x, y = (
            torch.from_numpy(data.x).float() / 255,
            torch.from_numpy(np.eye(case.sizes[-1], dtype=np.float32)[data.y]),
        )

        def loss(x: Any, y: Any) -> Any:
            return ((model(x) - y) ** 2).sum() / (2 * len(x))

        evaluated = torch.compile(loss) if compiled else loss
        for k in range(10**6):
            for rows in batches(case, data, k):
                index = rows if isinstance(rows, slice) else torch.from_numpy(rows.astype(np.int64))
                optimizer.zero_grad()
                evaluated(x[index], y[index]).backward()
                optimizer.step()
            yield [(m.weight.detach().numpy().copy(), m.bias.detach().numpy().copy()) for m in layers[::2]]

    return units


def by_jit(case: Case, data: Shared) -> Iterator[Weights]:
    """A jitted step of JAX in a loop of Python, on float32 images."""
    import jax
    import jax.numpy as jnp

    import jaxgd

    x, y = jnp.asarray(data.x, jnp.float32) / 255, jax.nn.one_hot(data.y, case.sizes[-1])
    network = tuple(jaxgd.Layer(jnp.asarray(w), jnp.asarray(b)) for w, b in data.weights)

    @jax.jit
    def step(network: Any, x: Any, y: Any) -> Any:
        gradient = jax.grad(jaxgd.network_cost)(network, x, y)
        return jax.tree.map(lambda v, g: v - case.eta * g, network, gradient)

    for k in range(10**6):
        for rows in batches(case, data, k):
            network = step(network, x[rows], y[rows])
        yield [(np.asarray(w), np.asarray(b)) for w, b in network]


PEERS: dict[str, Peer] = {
    "jaxgd": by_jaxgd("auto"),
    "jaxgd-xla": by_jaxgd("xla"),
    "numpy": by_numpy,
    "book": by_book,
    "torch": by_torch(compiled=False),
    "torch-compile": by_torch(compiled=True),
    "jit-in-python": by_jit,
}
# Too slow to be repeated where they are not asked for by name.
SLOW = ("book",)
# What has to be installed besides jaxgd.
NEEDS = {"torch": "torch", "torch-compile": "torch"}


def is_here(peer: str) -> bool:
    """Whether what a peer needs is installed."""
    return peer not in NEEDS or importlib.util.find_spec(NEEDS[peer]) is not None
