"""Settings of `jaxgd train` as arguments of `train`: the network of --from, the network to keep, values to record."""

import hashlib
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jaxgd.best import Choice
    from jaxgd.cli.train import Train
    from jaxgd.network import Network

Recorded = Literal["sharpness", "gradient-norms"]


def trained_network(options: "Train") -> "Network":
    """Load the network of --from, in the float type of this run."""
    import jax
    import jax.numpy as jnp

    from jaxgd.errors import RangeError
    from jaxgd.network_file import load_network
    from jaxgd.run_folder import RunFolder

    path = options.from_
    assert path is not None
    unfit = [f"--{name}" for name in ("sizes", "scheme") if getattr(options, name) is not None]
    if unfit:
        raise RangeError(f"--from starts with the layers and weights of a network: leave out {' and '.join(unfit)}.")
    network = RunFolder.open(path).load_network() if path.is_dir() else load_network(path)
    cast: Network = jax.tree.map(lambda x: jnp.asarray(x, float), network)
    return cast


def network_digest(network: "Network") -> str:
    """Return the SHA-256 of the names, dtypes, shapes and values of all weights, as in the file of the network."""
    from jaxgd.pieces import pieces

    sha = hashlib.sha256()
    tensors = {f"{i}.{name}": x for i, layer in enumerate(network) for name, x in layer._asdict().items()}
    for name in sorted(tensors):
        sha.update(f"{name} {tensors[name].dtype} {tensors[name].shape} ".encode())
        for piece in pieces(tensors[name]):
            sha.update(piece.data)
    return sha.hexdigest()


def choice_of(config: dict[str, Any]) -> "Choice":
    """Return the choice of the network to keep. Earlier versions did not record it."""
    from jaxgd.best import Choice

    return Choice(config.get("keep", "last"), config.get("by", "accuracy"), config.get("patience"))


def record_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return the values to record, by their names in metrics.jsonl. Earlier versions recorded none."""
    from jaxgd.records import LayerGradientNorms, TrainingSharpness

    every = config.get("record_every", 1)
    known = {"sharpness": TrainingSharpness(every), "gradient-norms": LayerGradientNorms(every=every)}
    return {word.replace("-", "_"): known[word] for word in config.get("record", ())}
