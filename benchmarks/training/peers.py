"""The programs that are timed, called peers. A peer yields the weights after every unit of work.

All peers of a case start at the same weights, except `jaxgd train` in the start-up case.
"""

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.training import jax_peers, start
from benchmarks.training.torch_network import torch_network, weights_of
from benchmarks.training.work import Peer, Shared, Weights, Work, batches


def by_numpy(work: Work, data: Shared) -> Iterator[Weights]:
    """Train with matrix products over whole mini-batches, in float32."""
    x, answers = data.x.astype(np.float32) / np.float32(255), np.eye(work.sizes[-1], dtype=np.float32)
    weights = [(w.copy(), b.copy()) for w, b in data.weights]
    for k in range(10**6):
        for rows in batches(work, data, k):
            activations: list[NDArray[np.float32]] = [x[rows]]
            for w, b in weights:
                activations.append(1 / (1 + np.exp(-(activations[-1] @ w.T + b))))
            a = activations[-1]
            rate = np.float32(work.eta / len(a))
            delta: NDArray[np.float32] = (a - answers[data.y[rows]]) * a * (1 - a)
            for layer in reversed(range(len(weights))):
                w, b = weights[layer]
                a = activations[layer]
                before: NDArray[np.float32] = (delta @ w) * a * (1 - a) if layer else delta
                w -= rate * (delta.T @ a)
                b -= rate * delta.sum(0)
                delta = before
        yield [(w.copy(), b.copy()) for w, b in weights]


def by_book(work: Work, data: Shared) -> Iterator[Weights]:
    """Train as the book's chapter 1 does: one example at a time, as a column vector."""
    x, answers = data.x / 255, np.eye(work.sizes[-1])
    weights: list[tuple[NDArray[np.float64], NDArray[np.float64]]]
    weights = [(w.astype(float), b.astype(float)[:, None]) for w, b in data.weights]
    for k in range(10**6):
        for rows in batches(work, data, k):
            sums = [(np.zeros_like(w), np.zeros_like(b)) for w, b in weights]
            which: NDArray[np.int64] = np.arange(work.n)[rows]
            for r in map(int, which):
                activations: list[NDArray[np.float64]] = [x[r, :, None]]
                for w, b in weights:
                    activations.append(1 / (1 + np.exp(-(w @ activations[-1] + b))))
                a = activations[-1]
                delta: NDArray[np.float64] = (a - answers[data.y[r], :, None]) * a * (1 - a)
                for layer in reversed(range(len(weights))):
                    a = activations[layer]
                    sums[layer] = sums[layer][0] + delta @ a.T, sums[layer][1] + delta
                    if layer:
                        delta = (weights[layer][0].T @ delta) * a * (1 - a)
            rate = work.eta / len(which)
            weights = [(w - rate * u, b - rate * v) for (w, b), (u, v) in zip(weights, sums, strict=True)]
        yield [(w.astype(np.float32), b[:, 0].astype(np.float32)) for w, b in weights]


def by_torch(compiled: bool) -> Peer:
    """Return a peer with PyTorch's layers, autograd and SGD. With `compiled`, `torch.compile` compiles the loss."""

    def units(work: Work, data: Shared) -> Iterator[Weights]:
        import torch

        model, layers = torch_network(data.weights)
        optimizer = torch.optim.SGD(model.parameters(), lr=work.eta)
        x, y = (
            torch.from_numpy(data.x).float() / 255,
            torch.from_numpy(np.eye(work.sizes[-1], dtype=np.float32)[data.y]),
        )

        def loss(x: Any, y: Any) -> Any:
            return ((model(x) - y) ** 2).sum() / (2 * len(x))

        evaluated = torch.compile(loss) if compiled else loss
        for k in range(10**6):
            for rows in batches(work, data, k):
                index = rows if isinstance(rows, slice) else torch.from_numpy(rows.astype(np.int64))
                optimizer.zero_grad()
                evaluated(x[index], y[index]).backward()
                optimizer.step()
            yield weights_of(layers)

    return units


def by_sklearn(work: Work, data: Shared) -> Iterator[Weights]:
    """Train scikit-learn's MLPClassifier, which minimizes the cross-entropy of a softmax."""
    from sklearn.neural_network import MLPClassifier

    x, classes = data.x.astype(np.float32) / np.float32(255), np.arange(work.sizes[-1])
    model = MLPClassifier(
        work.sizes[1:-1], activation="logistic", solver="sgd", alpha=0, batch_size=work.batch_size or work.n,
        learning_rate_init=work.eta / 10, momentum=0, shuffle=False,
    )  # fmt: skip
    # Fit a few examples first: this allocates the weight arrays, which are then overwritten.
    model.set_params(batch_size=10).partial_fit(x[:10], data.y[:10], classes=classes)
    model.set_params(batch_size=work.batch_size or work.n)
    for k, (w, b) in enumerate(data.weights):
        model.coefs_[k][...], model.intercepts_[k][...] = w.T, b
    for k in range(10**6):
        rows = slice(None) if work.batch_size is None else data.order(k)
        model.partial_fit(x[rows], data.y[rows])
        coefficients: Weights = list(zip(model.coefs_, model.intercepts_, strict=True))
        yield [(w.T.copy(), b.copy()) for w, b in coefficients]


PEERS: dict[str, Peer] = {
    "jaxgd": jax_peers.by_jaxgd("auto"),
    "jaxgd-xla": jax_peers.by_jaxgd("xla"),
    "scan": jax_peers.by_scan,
    "numpy": by_numpy,
    "book": by_book,
    "torch": by_torch(compiled=False),
    "torch-compile": by_torch(compiled=True),
    "sklearn": by_sklearn,
    "flax": jax_peers.by_flax,
    "jit-in-python": jax_peers.by_jit,
}
# Peers that support the cross-entropy and L2 regularization.
ENTROPY_PEERS = {name: PEERS[name] for name in ("jaxgd", "jaxgd-xla")}
# Peers that train many networks.
NETWORKS_PEERS: dict[str, Peer] = {
    "jaxgd": jax_peers.by_networks("auto", together=True),
    "jaxgd-each": jax_peers.by_networks("auto", together=False),
    "jaxgd-xla": jax_peers.by_networks("xla", together=True),
}
# Peers of the start-up case. Each unit is a whole process.
START_PEERS: dict[str, Peer] = {
    "jaxgd": start.by_command(kept=True),
    "jaxgd-first": start.by_command(kept=False),
    **{name: start.by_process(name) for name in ("numpy", "sklearn", "scan", "flax", "torch")},
}
ALL_PEERS = (*dict.fromkeys((*PEERS, *NETWORKS_PEERS, *START_PEERS)),)
# Peers that take seconds to minutes per epoch. They run only if --peers names them.
SLOW = ("book", "torch-compile")
# Peers that minimize another cost. The benchmark compares their accuracy instead of their cost.
OTHER_LOSS = ("sklearn",)
# The package that a peer needs in addition to jaxgd.
NEEDS = {"torch": "torch", "torch-compile": "torch", "sklearn": "scikit-learn", "flax": "flax"}
_MODULES = {"scikit-learn": "sklearn"}


def peers_of(work: Work) -> dict[str, Peer]:
    """Return the peers that can do `work`."""
    if work.cold:
        return START_PEERS
    if work.l2 is not None:
        return ENTROPY_PEERS
    return PEERS if work.networks == 1 else NETWORKS_PEERS


def is_installed(peer: str) -> bool:
    """Return True if the peer's package is installed."""
    needed = NEEDS.get(peer)
    return needed is None or importlib.util.find_spec(_MODULES.get(needed, needed)) is not None
