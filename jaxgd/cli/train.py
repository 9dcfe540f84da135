"""`jaxgd train`: train a network to read digits by gradient descent."""

import contextlib
import dataclasses
import itertools
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxgd.cli.common import (
    MaybeInt,
    MaybeInts,
    MaybePath,
    MaybeScheme,
    digest,
    is_folder,
    load_data,
    require_sizes_fit,
)

if TYPE_CHECKING:
    import jax

    from jaxgd.checkpoint import Checkpoints
    from jaxgd.data import Dataset
    from jaxgd.kernels import BackendChoice
    from jaxgd.network import Network
    from jaxgd.run_folder import RunFolder
    from jaxgd.training import History, TrainState

# Options allowed together with --resume. The run's own settings cannot change.
_WITH_RESUME = (
    *("--resume", "--epochs", "--data-dir", "--checkpoint-every"),
    *("--tensorboard", "--plot", "--progress", "--no-progress"),
)

# Shortest time between checkpoints without --checkpoint-every. A checkpoint takes as long as 20 epochs of digits.
_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a network of sigmoid neurons to read digits, by gradient descent v → v − η∇C.

    Prints one line per epoch: the number of test images that the network reads correctly. Epochs count from 0, as in
    Nielsen's book. Writes a run folder with config.json, metrics.jsonl, checkpoints and network.safetensors.

    Exit status: 0 the run completed; 1 a value became infinite or NaN, or a file could not be written;
    2 misuse; 130 interrupted.
    """

    data: str = "digits"
    """Data set: digits (included in jaxgd), mnist, fashion_mnist, kmnist, or a folder of IDX files."""
    data_dir: MaybePath = None
    """Folder to search for data sets and to download them to. (default: $JAXGD_DATA_DIR, or ~/.cache/jaxgd if unset)"""
    sizes: MaybeInts = None
    """Neurons per layer, inputs first. (default: pixels, 30, classes)"""
    scheme: MaybeScheme = None
    """First weights: gaussian is N(0, 1), scaled is N(0, 1/fan-in).
    (default: gaussian, as in the book; scaled for digits)"""
    eta: float = 3.0
    """Learning rate η, above 0."""
    batch_size: int | Literal["full"] = 10
    """Examples per mini-batch, or full to use all examples in each update."""
    epochs: MaybeInt = None
    """Passes over the training examples. (default: the book's 30; 60 for digits, which has few examples)"""
    seed: int = 0
    """Seed of the first weights and of the order of examples."""
    kernel: Literal["auto", "xla", "native"] = "auto"
    """Backend that runs an epoch: native is C++ on the CPU; auto is native if it can run and is faster, otherwise xla.
    Results differ only by rounding."""
    run_dir: MaybePath = None
    """Run folder to create. (default: runs/DATA-TIME)"""
    resume: MaybePath = None
    """Run folder to continue. The result equals an uninterrupted run bit for bit. --epochs may lengthen the run."""
    checkpoint_every: MaybeInt = None
    """Epochs between checkpoints. (default: save after an epoch if the last save was at least 1 second ago)"""
    tensorboard: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write TensorBoard events into the run folder."""
    plot: MaybePath = None
    """PNG, SVG or PDF file for a figure of cost and error rate per epoch."""
    progress: bool = True
    """Show a progress bar if stderr is a terminal."""

    def run(self, argv: list[str]) -> int:
        """Train and return the exit status."""
        from jaxgd.cli.reporter import Reporter, require_plot
        from jaxgd.errors import require_count

        if self.checkpoint_every is not None:
            require_count("--checkpoint-every", "it", self.checkpoint_every)
        require_plot(self.plot)
        reporter = Reporter(progress=self.progress, tensorboard=self.tensorboard)
        folder, data = _new(self) if self.resume is None else _resumed(self, self.resume, argv)
        print(f"run folder: {folder.path}", file=sys.stderr)
        try:
            return _train(self, folder, data, reporter)
        except (OSError, KeyboardInterrupt):
            print(f"the run is saved up to its last checkpoint; continue with: {_continue(folder)}", file=sys.stderr)
            raise


def _new(options: Train) -> tuple["RunFolder", "Dataset"]:
    """Create a run folder and load its data. All options are checked before anything is written."""
    from jaxgd.data.image import frame_of
    from jaxgd.data.named import resolve_data_dir
    from jaxgd.errors import CheckpointError, RangeError, WriteError, require_count, require_positive
    from jaxgd.run_folder import RunFolder, require_new

    # On digits, over 60 seeds each: one in five runs with gaussian weights ended below 97% test accuracy, and none with
    # scaled weights.
    default = ("scaled", 60) if options.data == "digits" else ("gaussian", 30)
    scheme, epochs = options.scheme or default[0], default[1] if options.epochs is None else options.epochs
    require_count("--epochs", "it", epochs)
    require_count("--seed", "it", options.seed, least=0, most=2**32 - 1)
    require_positive("--eta", "it", options.eta)
    if options.run_dir is not None:
        require_new(options.run_dir)
    data = load_data(options.data, options.data_dir)
    if options.batch_size != "full":
        require_count("--batch-size", "it", options.batch_size, most=len(data.train.labels))
    sizes = (data.inputs, 30, data.classes) if options.sizes is None else options.sizes
    own = is_folder(options.data)
    require_sizes_fit(sizes, data, exact=not own)
    if (weights := sum(a * b for a, b in itertools.pairwise(sizes))) > 2**30:
        raise RangeError(f"--sizes: expected at most 2**30 weights, got {weights:,}.")
    config = {
        "data": str(Path(options.data).absolute()) if own else options.data,
        # The absolute path, so that a resumed run finds the data even if the environment has changed.
        "data_dir": None if own or options.data == "digits" else str(resolve_data_dir(options.data_dir).absolute()),
        "data_sha256": digest(data),
        "frame": frame_of(data.train.images)._asdict(),
        "sizes": list(sizes),
        **{name: getattr(options, name) for name in ("eta", "batch_size", "seed", "kernel")},
        "scheme": scheme,
        "epochs": epochs,
        "made_with": _made_with(),
    }
    _kernel(config, data)  # raises if the requested backend cannot run
    path = options.run_dir or Path("runs") / f"{data.name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03}"
    try:
        return RunFolder.create(path, config), data
    except WriteError as error:
        raise CheckpointError(f"{error}\nName another run folder with --run-dir.") from error


def _resumed(options: Train, path: Path, argv: list[str]) -> tuple["RunFolder", "Dataset"]:
    """Open the run folder to continue and load its data, which must be unchanged."""
    from jaxgd.errors import CheckpointError, RangeError, require_count
    from jaxgd.run_folder import RunFolder

    given = {flag.split("=")[0].replace("_", "-") for flag in argv if flag.startswith("--")}
    if changed := sorted(given.difference(_WITH_RESUME)):
        raise RangeError(f"a resumed run keeps its settings: leave out {', '.join(changed)}.")
    folder = RunFolder.open(path)
    data = load_data(folder.config["data"], options.data_dir or folder.config["data_dir"])
    if digest(data) != folder.config["data_sha256"]:
        raise CheckpointError(f"the data set {folder.config['data']} has changed since {path} was trained on it.")
    if options.epochs is not None:
        require_count("--epochs", "it", options.epochs)
    if (made_with := folder.config["made_with"])["float"] != _made_with()["float"]:
        raise CheckpointError(f"{path} was made in {made_with['float']}: set JAX_ENABLE_X64 as for that run.")
    if made_with != _made_with():
        print(
            f"the run was made with {made_with} and continues with {_made_with()}: its results may differ from an "
            "uninterrupted run",
            file=sys.stderr,
        )
    return folder, data


def _made_with() -> dict[str, str]:
    """Return the versions and settings that must be equal for equal bits."""
    from importlib.metadata import version

    import jax

    import jaxgd
    from jaxgd.kernels import native

    return {
        "native kernels": native.isa(),
        "jaxgd": jaxgd.__version__,
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "device": jax.devices()[0].device_kind,
        "float": str(jax.numpy.result_type(float)),
        "partitionable keys": str(getattr(jax.config, "jax_threefry_partitionable", None)),
        "matrix products": str(getattr(jax.config, "jax_default_matmul_precision", None)),
    }


def _first_network(config: dict[str, Any]) -> tuple["Network", "jax.Array"]:
    """Return the network before training and the key of the order of examples, both drawn from the seed."""
    import jax

    from jaxgd.network import init_network

    # Name the generator: otherwise a user's JAX setting for it would change the numbers drawn from a seed.
    network_key, order_key = jax.random.split(jax.random.key(config["seed"], impl="threefry2x32"))
    return init_network(network_key, config["sizes"], config["scheme"]), order_key


def _batch_size(config: dict[str, Any]) -> int | None:
    return None if config["batch_size"] == "full" else config["batch_size"]


def _kernel(config: dict[str, Any], data: "Dataset") -> "BackendChoice":
    """Choose the backend that runs the epochs."""
    import jax.numpy as jnp

    from jaxgd.cost import quadratic_cost
    from jaxgd.examples import Examples
    from jaxgd.kernels import select_backend

    examples = Examples(*map(jnp.asarray, data.train))
    return select_backend(
        config["kernel"], _first_network(config)[0], examples, quadratic_cost, None, _batch_size(config)
    )


def _train(options: Train, folder: "RunFolder", data: "Dataset", reporter: Any) -> int:
    from jaxgd.outcome import Reason
    from jaxgd.training import train

    config = folder.config
    network, key = _first_network(config)
    kernel = _kernel(config, data)
    settings: dict[str, Any] = {
        "batch_size": _batch_size(config),
        "eta": config["eta"],
        "key": key,
        "kernel": kernel.name,
    }
    with folder.locked(), folder.checkpoints() as checkpoints, _stop_on_interrupt() as stop:
        like = train(network, data, epochs=0, evaluate=False, **settings).state if options.resume else None
        state, entries = _restore(checkpoints, like)
        folder.write_metrics(entries)
        epochs, done = options.epochs or config["epochs"], max(len(entries) - 1, 0)
        if epochs < done:
            from jaxgd.errors import RangeError

            raise RangeError(f"--epochs: expected at least {done}, which {folder.path} already has, got {epochs}.")
        if epochs != config["epochs"]:
            folder.lengthen(epochs)

        due, saved = options.checkpoint_every, time.monotonic()

        def after_epoch(state: "TrainState", entry: "History") -> bool:
            nonlocal saved
            k = int(entry.epoch)
            if k == len(entries):  # the entry of a resumed state is already recorded
                entries.append(entry)
                folder.append_metrics(entry)
                if k and (time.monotonic() - saved >= _SECONDS if due is None else k % due == 0):
                    _save(folder, checkpoints, state, entries)
                    saved = time.monotonic()
                reporter.show(entry)
            return stop.is_set()

        print(f"kernel {kernel}", file=sys.stderr)
        with reporter.over(folder, data, epochs, entries):
            result = train(network, data, epochs=epochs - done, state=state, callback=after_epoch, **settings)
        if checkpoints.newest != result.state.epoch:
            _save(folder, checkpoints, result.state, entries)
        folder.save_network(result.network)
    reporter.conclude(result.outcome, entries)
    if options.plot is not None:
        from jaxgd.report.training import plot_history

        plot_history(entries, options.plot, title=f"{data.name}, sizes {config['sizes']}, η = {config['eta']:g}")
        print(f"drawn: {options.plot}", file=sys.stderr)
    if result.outcome.reason is Reason.STOPPED:
        print(
            f"stopped by Ctrl-C after {len(entries) - 1} of {epochs} epochs, and saved; "
            f"continue with: {_continue(folder)}",
            file=sys.stderr,
        )
        return 130
    if not result.outcome.ok:
        return 1
    print(f"next: jaxgd predict {folder.path} PICTURE", file=sys.stderr)
    return 0


def _continue(folder: "RunFolder") -> str:
    return f"jaxgd train --resume {folder.path}"


def _save(folder: "RunFolder", checkpoints: "Checkpoints", state: "TrainState", entries: list["History"]) -> None:
    import jax
    import numpy as np

    folder.save_network(state.network)
    checkpoints.save(int(state.epoch), (state, jax.tree.map(lambda *xs: np.stack(xs), *entries)))


def _restore(checkpoints: "Checkpoints", like: "TrainState | None") -> tuple["TrainState | None", list["History"]]:
    """Return the state and history of the newest intact checkpoint, or (None, []) if none exists yet."""
    import jax
    import numpy as np

    from jaxgd.training import History

    blank = History(**dict.fromkeys(History._fields, jax.numpy.zeros(())))
    restored = None if like is None else checkpoints.restore((like, blank))
    if restored is None:
        return None, []
    for refusal in restored.refused:
        print(f"{refusal}; using the previous checkpoint", file=sys.stderr)
    state, history = restored.tree
    history = jax.tree.map(np.asarray, history)
    return state, [jax.tree.map(lambda x, k=k: x[k], history) for k in range(len(history.epoch))]


@contextlib.contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """Stop after the current epoch on the first Ctrl-C, and at once on the second."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(*_: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        print("\nfinishing this epoch and saving; press Ctrl-C again to stop at once", file=sys.stderr)

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
