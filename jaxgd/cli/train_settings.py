"""Settings of `jaxgd train` as arguments of `train`: --from, activations, cost, network to keep, values to record."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jaxgd.best import Choice
    from jaxgd.cli.train import Train
    from jaxgd.cost import Cost
    from jaxgd.network import Network
    from jaxgd.run_folder import RunConfig

Recorded = Literal["sharpness", "gradient-norms"]


def trained_network(options: "Train", path: Path) -> tuple["Network", dict[str, str]]:
    """Load the network of --from, in the float type of this run. Also return its path and digest."""
    import jax
    import jax.numpy as jnp

    from jaxgd.errors import RangeError
    from jaxgd.network_file import load_network
    from jaxgd.run_folder import RunFolder

    unfit = [f"--{name}" for name in ("sizes", "scheme", "activation") if getattr(options, name) is not None]
    if unfit:
        raise RangeError(f"--from starts with the layers and weights of a network: leave out {', '.join(unfit)}.")
    if not path.exists():
        raise RangeError(f"--from must be a run folder or a .safetensors file, got {path}, which does not exist.")
    network = RunFolder.open(path).load_network() if path.is_dir() else load_network(path)
    cast: Network = jax.tree.map(lambda x: jnp.asarray(x, float), network)
    return cast, {"path": str(path.absolute()), "sha256": network_digest(cast)}


def without_effect(options: "Train") -> list[str]:
    """Return a sentence for each given option that has no effect without another option."""
    notes = []
    if options.by != "accuracy" and options.keep == "last" and options.patience is None:
        notes.append(f"--by {options.by} has no effect without --keep best or --patience")
    if options.record_every != 1 and not options.record:
        notes.append(f"--record-every {options.record_every} has no effect without --record")
    return notes


def network_digest(network: "Network") -> str:
    """Return the SHA-256 of the names, dtypes, shapes and values of all weights and biases."""
    from jaxgd.pieces import pieces

    sha = hashlib.sha256()
    tensors = {f"{i}.{name}": x for i, layer in enumerate(network) for name, x in layer._asdict().items()}
    for name in sorted(tensors):
        sha.update(f"{name} {tensors[name].dtype} {tensors[name].shape} ".encode())
        for piece in pieces(tensors[name]):
            sha.update(piece.data)
    return sha.hexdigest()


def activations_of(words: tuple[str, ...] | None, layers: int) -> list[str]:
    """Return the activation of each layer from the words of --activation."""
    from jaxgd.activations import ACTIVATIONS
    from jaxgd.errors import RangeError, shown

    words = words or ("sigmoid",)
    names = ", ".join(ACTIVATIONS)
    for word in words:
        if word not in ACTIVATIONS:
            raise RangeError(f"--activation must be one of {names}, got {shown(word)}.\nThe book has sigmoid.")
    if len(words) not in (1, layers):
        raise RangeError(
            f"--activation must be one name, or one for each of the {layers} layers, got {len(words)}.\n"
            "The inputs are not a layer: --sizes 784 30 10 has two layers."
        )
    each = list(words) if len(words) == layers else [*words] * layers
    for word in each[:-1]:
        if ACTIVATIONS[word].output_only:
            raise RangeError(
                f"--activation {word} is only for the last layer, got it for an earlier layer.\n"
                f"Name one activation for each of the {layers} layers: {'sigmoid ' * (layers - 1)}{word}, for instance."
            )
    return each


def require_cost(name: str) -> None:
    """Raise RangeError unless --cost names a cost.

    The parser cannot check this, because it runs before the import of the costs.
    """
    from jaxgd.cost import COSTS
    from jaxgd.errors import RangeError, shown

    if name not in COSTS:
        raise RangeError(f"--cost must be {' or '.join(COSTS)}, got {shown(name)}.\nThe book starts with quadratic.")


def cost_of(config: "RunConfig") -> "Cost":
    """Return the cost. Earlier versions had only the quadratic cost, and did not record it."""
    from jaxgd.cost import COSTS

    return COSTS[config.get("cost", "quadratic")]


def choice_of(config: "RunConfig") -> "Choice":
    """Return the choice of the network to keep. Earlier versions did not record it."""
    from jaxgd.best import Choice

    return Choice(config.get("keep", "last"), config.get("by", "accuracy"), config.get("patience"))


def record_of(config: "RunConfig") -> dict[str, Any]:
    """Return the values to record, by their names in metrics.jsonl. Earlier versions recorded none."""
    from jaxgd.records import LayerGradientNorms, TrainingSharpness

    every = config.get("record_every", 1)
    known = {"sharpness": TrainingSharpness(every), "gradient-norms": LayerGradientNorms(every=every)}
    return {word.replace("-", "_"): known[word] for word in config.get("record", ())}
