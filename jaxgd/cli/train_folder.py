"""The run folder of `jaxgd train`: create or open it, load its data, and save and restore its checkpoints."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxgd.cli.common import command_line
from jaxgd.cli.output import say
from jaxgd.cli.run_data import (
    default_settings,
    digest,
    is_folder,
    is_included,
    load_data,
    recorded_conventions,
    require_sizes_fit,
    stated_conventions,
)
from jaxgd.cli.train_settings import (
    activations_of,
    cost_of,
    network_digest,
    require_cost,
    trained_network,
    without_effect,
)

if TYPE_CHECKING:
    import jax

    from jaxgd.best import Choice
    from jaxgd.checkpoint import Checkpoints
    from jaxgd.chunks import Budget
    from jaxgd.cli.train import Train
    from jaxgd.data import Dataset
    from jaxgd.history import History, TrainState
    from jaxgd.kernels import BackendChoice
    from jaxgd.network import Network
    from jaxgd.run_folder import RunConfig, RunFolder

# Options allowed together with --resume. The other settings of the run cannot change.
_WITH_RESUME = (
    *("--resume", "--epochs", "--data", "--data-dir", "--checkpoint-every"),
    *("--tensorboard", "--plot", "--progress", "--no-progress"),
)


def new_run(options: "Train") -> tuple["RunFolder", "Dataset"]:
    """Create a run folder and load its data. All options are checked before the folder is written."""
    import jax.numpy as jnp

    from jaxgd.best import require_choice_of_network
    from jaxgd.cost import COSTS, require_cost_fits
    from jaxgd.data.image import frame_of
    from jaxgd.errors import CheckpointError, WriteError, require_count
    from jaxgd.mesh.job import on_main
    from jaxgd.mesh.processes import text_from_process_0
    from jaxgd.network import activated, first_network, network_sizes
    from jaxgd.rates import weight_decay
    from jaxgd.run_folder import RunFolder, require_new

    name = options.data or "digits"
    default = default_settings(name)
    scheme, epochs = options.scheme or default[0], default[1] if options.epochs is None else options.epochs
    require_count("train", "--epochs", epochs)
    require_count("train", "--seed", options.seed, least=0, most=2**32 - 1)
    require_cost(options.cost)
    if options.patience is not None:
        require_count("train", "--patience", options.patience, most=2**31 - 1)
    require_count("train", "--record-every", options.record_every, most=2**31 - 1)
    _require_step(options.eta)
    if options.run_dir is not None:
        require_new(options.run_dir)
    conventions = stated_conventions("train", options)
    data = load_data(name, options.data_dir, conventions)
    if options.batch_size != "full":
        require_count("train", "--batch-size", options.batch_size, most=len(data.train.labels))
    sizes = (data.inputs, 30, data.classes) if options.sizes is None else options.sizes
    network, source = (None, None) if options.from_ is None else trained_network(options, options.from_)
    if network is not None:
        sizes = network_sizes(network)
    require_sizes_fit(sizes, data, exact=not is_folder(name), run=options.from_)
    activations = (
        activations_of(options.activation, len(sizes) - 1)
        if network is None
        else [str(layer.activation) for layer in network]
    )
    require_cost_fits("train", COSTS[options.cost], activations[-1])
    require_choice_of_network(
        options.keep,
        options.by,
        options.patience,
        evaluate=True,
        validated=len(data.validation.labels) > 0,
        outputs=sizes[-1],
    )
    if options.l2 is not None:
        weight_decay(jnp.result_type(float), options.l2, len(data.train.labels), "--l2")
    place, data_dir = _place(name, options.data_dir)
    config: RunConfig = {
        "data": place,
        "data_dir": data_dir,
        "labels_from": conventions.labels_from or 0,
        "transpose": bool(conventions.transpose),
        "data_sha256": digest(data),
        "frame": frame_of(data.train.images)._asdict(),
        "sizes": list(sizes),
        "activation": activations,
        "cost": options.cost,
        "l2": options.l2,
        "eta": options.eta,
        "batch_size": options.batch_size,
        "seed": options.seed,
        "kernel": options.kernel,
        "gradient_norm": options.gradient_norm,
        "budget": _budget()._asdict(),
        "scheme": scheme if network is None else None,
        "keep": options.keep,
        "by": options.by,
        "patience": options.patience,
        "record_every": options.record_every,
        "record": [*sorted(set(options.record))],
        "from": source,
        "epochs": epochs,
        "made_with": _made_with(),
    }
    _require_countable(epochs, config, data)
    first = first_network(options.seed, sizes, scheme)[0] if network is None else network
    first = activated("train", first, activations)
    chosen_kernel(config, first, on_devices(data))  # raises if the requested backend cannot run
    for note in without_effect(options):
        say(note)
    path = options.run_dir or Path("runs") / f"{data.name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03}"
    path = Path(text_from_process_0(str(path)))
    _require_utf8("--run-dir", path)
    try:
        on_main(lambda: RunFolder.create(path, config, network))
        return RunFolder.open(path), data
    except WriteError as error:
        raise CheckpointError(f"{error}\nName another run folder with --run-dir.") from error


def _place(name: str, data_dir: str | Path | None) -> tuple[str, str | None]:
    """Return the name or folder of the data, and the folder to search for named data sets.

    A run records both. The paths are absolute, because the current folder or JAXGD_DATA_DIR may change.
    """
    from jaxgd.data.named import resolve_data_dir

    if is_folder(name):
        return str(Path(name).expanduser().absolute()), None
    return name, None if is_included(name) else str(resolve_data_dir(data_dir).absolute())


def _require_step(eta: float) -> None:
    """Raise RangeError unless η is above 0 and finite, before and after the cast to the network's float type."""
    import jax.numpy as jnp
    import numpy as np

    from jaxgd.errors import require_positive

    require_positive("train", "--eta", eta)
    dtype = jnp.result_type(float)
    with np.errstate(over="ignore"):
        require_positive("train", f"--eta {eta:g} in {dtype}", np.asarray(eta).astype(dtype))


def _require_countable(epochs: int, config: "RunConfig", data: "Dataset") -> None:
    """Raise RangeError if the number of updates overflows the integers that count them."""
    from jaxgd.errors import require_count

    n = len(data.train.labels)
    updates = -(-n // (batch_size_of(config) or n))
    require_count("train", "--epochs", epochs, most=(2**31 - 1) // updates)


def _require_utf8(option: str, path: Path) -> None:
    """Raise RangeError if a path has bytes that are not UTF-8. orbax cannot write checkpoints there."""
    from jaxgd.errors import RangeError

    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise RangeError(f"{option} must be a path in UTF-8, got {path.absolute()}.\nRename the folder.") from error


def resumed_run(options: "Train", path: Path, argv: list[str]) -> tuple["RunFolder", "Dataset", tuple[str, str | None]]:
    """Open a run folder to continue, and load its data. Raise if the data changed. Also return their place."""
    from jaxgd.errors import CheckpointError, DataError, RangeError, require_count
    from jaxgd.run_folder import RunFolder

    given = {flag.split("=")[0].replace("_", "-") for flag in argv if flag.startswith("--")}
    if changed := sorted(given.difference(_WITH_RESUME)):
        raise RangeError(f"a resumed run keeps its settings: leave out {', '.join(changed)}.")
    _require_utf8("--resume", path)
    folder = RunFolder.open(path)
    config = folder.config
    name = options.data or config["data"]
    own_place = options.data is None and options.data_dir is None
    # Search the recorded folder only for the run's own data set.
    data_dir = options.data_dir or (config["data_dir"] if name == config["data"] else None)
    moved = f"If the data have moved: {continue_line(folder)} --data" + (
        f" {name} --data-dir" if config["data_dir"] else ""
    )
    try:
        data = load_data(name, data_dir, recorded_conventions(config, name))
    except DataError as error:
        if own_place:
            raise DataError(f"{error}\n{moved} FOLDER") from error
        raise
    if digest(data) != folder.config["data_sha256"]:
        differ = f"expected the SHA-256 {config['data_sha256']}, got {digest(data)}.\n"
        if own_place:
            raise CheckpointError(
                f"the data set {name} has changed since {path} was trained on it: {differ}{moved} FOLDER"
            )
        raise CheckpointError(f"{name} is not the data set that {path} was trained on: {differ}Name the same data.")
    if options.epochs is not None:
        require_count("train", "--epochs", options.epochs)
        _require_countable(options.epochs, config, data)
    before, now = config["made_with"], _made_with()
    if before["float"] != now["float"]:
        raise CheckpointError(
            f"{path} must be continued in {before['float']}, got {now['float']}.\n"
            f"Set JAX_ENABLE_X64={int(before['float'] == 'float64')}."
        )
    pairs = {name: (before.get(name, "not recorded"), now.get(name, "not recorded")) for name in {**before, **now}}
    if "budget" not in config:
        pairs["budget"] = ("not recorded", str(_budget()._asdict()))
    if changes := [f"{name} was {old}, now {new}" for name, (old, new) in pairs.items() if old != new]:
        say(f"results may differ from an uninterrupted run: {'; '.join(changes)}")
    return folder, data, _place(name, data_dir)


def _made_with() -> dict[str, str]:
    from jaxgd.run_folder import made_with

    return made_with()


def _budget() -> "Budget":
    """Return the memory budget of the platform. A run records it, because the order of XLA's sums depends on it."""
    import jax

    from jaxgd.chunks import budget_of

    return budget_of(jax.numpy.zeros(()))


def network_and_key(folder: "RunFolder") -> tuple["Network", "jax.Array"]:
    """Return the network before training, and the random key that orders the examples."""
    from jaxgd.errors import CheckpointError
    from jaxgd.network import activated, first_network
    from jaxgd.network_file import load_network

    # Earlier versions had only sigmoid neurons, and did not record the activation.
    config, activation = folder.config, folder.config.get("activation")
    if (source := config.get("from")) is None:
        scheme = config["scheme"]
        assert scheme is not None  # only a run with --from has no scheme
        network, key = first_network(config["seed"], config["sizes"], scheme)
        return activated("train", network, activation), key
    network = load_network(folder.start, allow_non_finite=True)
    if (got := network_digest(network)) != (expected := source["sha256"]):
        raise CheckpointError(
            f"{folder.start} is not the network that the run started from: expected the SHA-256 {expected}, got {got}."
        )
    # `first_network` returns the same key for all sizes.
    return activated("train", network, activation), first_network(config["seed"], (1, 1), "scaled")[1]


def batch_size_of(config: "RunConfig") -> int | None:
    """Return the number of examples per mini-batch, or None for the full batch."""
    return None if config["batch_size"] == "full" else config["batch_size"]


def on_devices(data: "Dataset") -> "Dataset":
    """Divide the data among all devices in a job of several processes. Otherwise return the data unchanged."""
    import jax

    from jaxgd.mesh import place

    if jax.process_count() == 1:
        return data
    axis_types = (jax.sharding.AxisType.Auto,)
    placed: Dataset = place(data, jax.make_mesh((jax.device_count(),), ("examples",), axis_types=axis_types))
    return placed


def chosen_kernel(config: "RunConfig", network: "Network", data: "Dataset") -> "BackendChoice":
    """Choose the backend that runs the epochs."""
    from jaxgd.examples import fit_splits
    from jaxgd.kernels import Job, select_backend

    examples = fit_splits("train", network, data)[0]["train"]
    job = Job(network, examples, cost_of(config), None, batch_size_of(config), l2=config.get("l2"))
    return select_backend(config["kernel"], job)


def continue_line(folder: "RunFolder") -> str:
    """Return the command that continues the run."""
    return command_line("jaxgd", "train", "--resume", folder.path)


def save_checkpoint(
    folder: "RunFolder", checkpoints: "Checkpoints", state: "TrainState", entries: list["History"], choice: "Choice"
) -> None:
    """Save the chosen network, and a checkpoint of the state and the history."""
    import jax
    import numpy as np

    folder.save_network(choice.network(state))
    checkpoints.save(int(state.epoch), (state, jax.tree.map(lambda *xs: np.stack(xs), *entries)))


def restore_checkpoint(
    checkpoints: "Checkpoints", like: "TrainState | None", choice: "Choice", record: dict[str, Any]
) -> tuple["TrainState | None", list["History"]]:
    """Return the state and history of the newest intact checkpoint, or (None, []) if none exists yet."""
    import jax
    import numpy as np

    from jaxgd.history import NUMBERS, Best, History

    zero: Any = jax.numpy.zeros(())
    blank = History(**dict.fromkeys(NUMBERS, zero), records=dict.fromkeys(record, zero))
    if like is not None and choice.follows:
        like = like._replace(best=Best(like.network, zero, zero, zero, choice.by))
    restored = None if like is None else checkpoints.restore((like, blank))
    if restored is None:
        return None, []
    for refusal in restored.refused:
        say(f"{refusal}; using the previous checkpoint")
    state, history = restored.tree
    history = jax.tree.map(np.asarray, history)
    return state, [jax.tree.map(lambda x, k=k: x[k], history) for k in range(len(history.epoch))]
