"""The facts of a run that its page shows."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from jaxgd.activations import name_of
from jaxgd.assessment import Assessment
from jaxgd.data.image import Frame
from jaxgd.network import Network
from jaxgd.run_folder import RunConfig

# The activations that network.js computes.
ACTIVATIONS = ("sigmoid", "tanh", "relu", "softmax")
# Limit on the weights and biases inside a page. The base64 text of each takes 5.3 bytes.
MOST_WEIGHTS = 4_000_000


class Examined(NamedTuple):
    """The answers of the network to one split of a data set.

    Attributes:
        data: Name of the data set.
        split: "train", "validation" or "test".
        images: Images of the split, (n, height, width).
        assessment: The network's answers to these images.
    """

    data: str
    split: str
    images: UInt8[np.ndarray, "n height width"]
    assessment: Assessment


class RunFacts(NamedTuple):
    """The facts of a run, for its page.

    Attributes:
        name: Name of the run folder.
        config: Configuration of the run.
        network: The network in the file network.safetensors.
        network_sha256: SHA-256 of the file network.safetensors.
        command: Command line that repeats the run.
        resume: Command line that continues the run.
        metrics: Columns of metrics.jsonl; None if this file cannot be read.
        examined: The network's answers to a split of the data; None without the data.
        notes: Warnings that the page shows, for example that the data are missing, and how to get them.
    """

    name: str
    config: RunConfig
    network: Network
    network_sha256: str
    command: str
    resume: str
    metrics: dict[str, Float[np.ndarray, "epochs ..."]] | None
    examined: Examined | None
    notes: list[str]

    @property
    def frame(self) -> Frame:
        """The frame of the training images."""
        return Frame(**self.config["frame"])

    @property
    def first(self) -> int:
        """The label of the first class in the files of the data; 0 if the run is too old to have recorded it."""
        return int(self.config.get("labels_from", 0))

    @property
    def epochs_done(self) -> int | None:
        """The number of epochs that the run has made; None if it is not known."""
        return None if self.metrics is None else int(self.metrics["epoch"][-1])

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the best network, or −1 before the first finite cost or accuracy. None if it is not known."""
        best = None if self.metrics is None else self.metrics.get("best_epoch")
        return None if best is None or not np.isfinite(best[-1]) else int(best[-1])

    @property
    def kept_epoch(self) -> int | None:
        """The epoch of the kept best network. None if the run keeps no best network, or if the epoch is not known."""
        best = self.best_epoch if self.config.get("keep") == "best" else None
        return None if best is None or best < 0 else best

    @property
    def ended(self) -> bool:
        """True if the run has made all of its epochs, or its patience has ended it."""
        done, best, patience = self.epochs_done, self.best_epoch, self.config.get("patience")
        # The best epoch is −1 before the first finite value. The patience then counts from epoch 0.
        waited = None if best is None or done is None else done - max(best, 0)
        out_of_patience = patience is not None and waited is not None and waited >= patience
        return done is not None and (done >= self.config["epochs"] or out_of_patience)


def activations(network: Network) -> list[str]:
    """Return the name of each layer's activation. The name of a user's own activation is the name of the function.

    >>> from jaxgd.network import Layer
    >>> activations((Layer(np.ones((1, 1)), np.ones(1)),))
    ['sigmoid']
    """
    return [x if isinstance(x := layer.activation, str) else name_of(x) for layer in network]


def why_no_drawing(network: Network) -> str:
    """Return the reason why the page cannot compute the network; an empty text if it can."""
    unknown = sorted(set(activations(network)) - set(ACTIVATIONS))
    if unknown:
        return f"The page computes the activations {', '.join(ACTIVATIONS)}. This network uses {', '.join(unknown)}."
    weights = sum(layer.w.size + layer.b.size for layer in network)
    if weights > MOST_WEIGHTS:
        return f"The page holds at most {MOST_WEIGHTS:,} weights and biases. This network has {weights:,}."
    return ""
