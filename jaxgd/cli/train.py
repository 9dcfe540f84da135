"""`jaxgd train`: train a network to read digits by gradient descent."""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxgd.cli import signals
from jaxgd.cli.common import (
    DONE,
    FAILED,
    BatchSize,
    Float,
    Int,
    Kernel,
    MaybeInt,
    MaybeInts,
    MaybeName,
    MaybePath,
    MaybeScheme,
    command_line,
    default_settings,
    digest,
    is_folder,
    load_data,
    require_sizes_fit,
    require_writable_figure,
)
from jaxgd.cli.output import error_line, say

if TYPE_CHECKING:
    import jax

    from jaxgd.checkpoint import Checkpoints
    from jaxgd.chunks import Budget
    from jaxgd.data import Dataset
    from jaxgd.history import History, TrainState
    from jaxgd.kernels import BackendChoice
    from jaxgd.network import Network
    from jaxgd.outcome import Outcome
    from jaxgd.run_folder import RunFolder

# Options allowed together with --resume. The run's own settings cannot change.
_WITH_RESUME = (
    *("--resume", "--epochs", "--data", "--data-dir", "--checkpoint-every"),
    *("--tensorboard", "--plot", "--progress", "--no-progress"),
)

# Shortest time in seconds between checkpoints without --checkpoint-every. A checkpoint takes as long as 20 epochs of
# digits.
_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a network of sigmoid neurons to read digits, by gradient descent v → v − η∇C.

    Prints one line per epoch: the number of test images that the network reads correctly. Epochs count from 0, as in
    Nielsen's book. Writes a run folder with config.json, metrics.jsonl, checkpoints and network.safetensors.

    After Ctrl-C, SIGTERM or SIGHUP the command finishes the epoch and saves the run. A second signal stops at once.

    Several processes under srun or mpirun train one network: each holds a part of the examples. Elsewhere, set
    JAXGD_COORDINATOR to host:port of process 0, JAXGD_PROCESSES to the number of processes and JAXGD_PROCESS to the
    index of this process, from 0. If a process is lost, the job ends within JAXGD_HEARTBEAT seconds (30 by default).
    --resume continues the run with any number of processes.

    Exit status: 0 the run completed; 1 it failed, all outputs are saturated, no weight changes, or a file or the output
    could not be written; 2 misuse; 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
    """

    data: MaybeName = None
    """Data set: digits (included in jaxgd), mnist, fashion_mnist, kmnist, or a folder of IDX files.
    With --resume, the new place of the run's data. (default: digits)"""
    data_dir: MaybePath = None
    """Folder to search for data sets and to download them to. (default: $JAXGD_DATA_DIR, or ~/.cache/jaxgd if unset)"""
    sizes: MaybeInts = None
    """Neurons per layer, inputs first. (default: pixels, 30, classes)"""
    scheme: MaybeScheme = None
    """First weights: gaussian is N(0, 1), scaled is N(0, 1/fan-in).
    (default: gaussian, as in the book; scaled for digits)"""
    eta: Float = 3.0
    """Learning rate η, above 0."""
    batch_size: BatchSize = 10
    """Examples per mini-batch, or full to use all examples in each update."""
    epochs: MaybeInt = None
    """Passes over the training examples. (default: the book's 30; 60 for digits, which has few examples)"""
    seed: Int = 0
    """Seed of the first weights and of the order of examples."""
    kernel: Kernel = "auto"
    gradient_norm: bool = True
    """Compute ‖∇C‖ after each epoch, for metrics.jsonl and TensorBoard. Mini-batch epochs are faster without it."""
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
        from jaxgd.cli.reporter import Reporter
        from jaxgd.errors import JaxgdError, RangeError, WriteError, require_count
        from jaxgd.report.figure import STILL, require_library

        if self.checkpoint_every is not None:
            require_count("train", "--checkpoint-every", self.checkpoint_every)
        if self.plot is not None:
            require_writable_figure(self.plot, STILL)
            require_library("--plot", "matplotlib")
            if self.run_dir is not None and self.run_dir.absolute() == self.plot.absolute():
                raise RangeError(f"--plot must differ from --run-dir, got {self.plot} for both.\nRename one.")
        reporter = Reporter(progress=self.progress, tensorboard=self.tensorboard)
        if self.resume is None:
            (folder, data), place = _new(self), None
        else:
            folder, data, place = _resumed(self, self.resume, argv)
        say(f"run folder: {folder.path}")
        signals.describe(
            "jaxgd train", f"the run is saved up to its last checkpoint; continue with: {_continue(folder)}"
        )
        try:
            return _train(self, folder, data, place, reporter)
        except (Exception, KeyboardInterrupt) as error:
            if (isinstance(error, WriteError) or not isinstance(error, JaxgdError)) and (
                folder.path / "config.json"
            ).is_file():
                say(signals.advice())
            raise


def _new(options: Train) -> tuple["RunFolder", "Dataset"]:
    """Create a run folder and load its data. All options are checked before anything is written."""
    from jaxgd.data.image import frame_of
    from jaxgd.errors import CheckpointError, WriteError, require_count
    from jaxgd.mesh.job import on_main
    from jaxgd.mesh.processes import text_from_process_0
    from jaxgd.run_folder import RunFolder, require_new

    name = options.data or "digits"
    default = default_settings(name)
    scheme, epochs = options.scheme or default[0], default[1] if options.epochs is None else options.epochs
    require_count("train", "--epochs", epochs)
    require_count("train", "--seed", options.seed, least=0, most=2**32 - 1)
    _require_step(options.eta)
    if options.run_dir is not None:
        require_new(options.run_dir)
    data = load_data(name, options.data_dir)
    if options.batch_size != "full":
        require_count("train", "--batch-size", options.batch_size, most=len(data.train.labels))
    sizes = (data.inputs, 30, data.classes) if options.sizes is None else options.sizes
    own = is_folder(name)
    require_sizes_fit(sizes, data, exact=not own)
    config = {
        **dict(zip(("data", "data_dir"), _place(name, options.data_dir), strict=True)),
        "data_sha256": digest(data),
        "frame": frame_of(data.train.images)._asdict(),
        "sizes": list(sizes),
        **{name: getattr(options, name) for name in ("eta", "batch_size", "seed", "kernel", "gradient_norm")},
        "budget": _budget()._asdict(),
        "scheme": scheme,
        "epochs": epochs,
        "made_with": _made_with(),
    }
    _require_countable(epochs, config, data)
    _kernel(config, _on_devices(data))  # raises if the requested backend cannot run
    path = options.run_dir or Path("runs") / f"{data.name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03}"
    path = Path(text_from_process_0(str(path)))
    _require_utf8("--run-dir", path)
    try:
        on_main(lambda: RunFolder.create(path, config))
        return RunFolder.open(path), data
    except WriteError as error:
        raise CheckpointError(f"{error}\nName another run folder with --run-dir.") from error


def _place(name: str, data_dir: str | Path | None) -> tuple[str, str | None]:
    """Return the data's name or folder, and the folder of named data sets, for the configuration of a run.

    The paths are absolute, so that a resumed run finds the data even if the environment has changed.
    """
    from jaxgd.data.named import resolve_data_dir

    if is_folder(name):
        return str(Path(name).expanduser().absolute()), None
    return name, None if name == "digits" else str(resolve_data_dir(data_dir).absolute())


def _require_step(eta: float) -> None:
    """Raise RangeError unless η is above 0 and finite in the float type of the network too."""
    import jax.numpy as jnp
    import numpy as np

    from jaxgd.errors import require_positive

    require_positive("train", "--eta", eta)
    dtype = jnp.result_type(float)
    with np.errstate(over="ignore"):
        require_positive("train", f"--eta {eta:g} in {dtype}", np.asarray(eta).astype(dtype))


def _require_countable(epochs: int, config: dict[str, Any], data: "Dataset") -> None:
    """Raise RangeError if the number of updates overflows the integers that count them."""
    from jaxgd.errors import require_count

    n = len(data.train.labels)
    updates = -(-n // (_batch_size(config) or n))
    require_count("train", "--epochs", epochs, most=(2**31 - 1) // updates)


def _require_utf8(option: str, path: Path) -> None:
    """Raise RangeError if a path has bytes that are not UTF-8. orbax cannot write checkpoints there."""
    from jaxgd.errors import RangeError

    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise RangeError(f"{option} must be a path in UTF-8, got {path.absolute()}.\nRename the folder.") from error


def _resumed(options: Train, path: Path, argv: list[str]) -> tuple["RunFolder", "Dataset", tuple[str, str | None]]:
    """Open the run folder to continue, and load its data, which must be unchanged. Also return its place."""
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
    # The run's folder of data sets holds its own data set. Another data set may be elsewhere.
    data_dir = options.data_dir or (config["data_dir"] if name == config["data"] else None)
    moved = f"If the data have moved: {_continue(folder)} --data" + (
        f" {name} --data-dir" if config["data_dir"] else ""
    )
    try:
        data = load_data(name, data_dir)
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
    """Return the memory budget of the device. It decides the order of XLA's sums, so a run records and keeps it."""
    import jax

    from jaxgd.chunks import budget_of

    return budget_of(jax.numpy.zeros(()))


def _first_network(config: dict[str, Any]) -> tuple["Network", "jax.Array"]:
    from jaxgd.network import first_network

    return first_network(config["seed"], config["sizes"], config["scheme"])


def _batch_size(config: dict[str, Any]) -> int | None:
    return None if config["batch_size"] == "full" else config["batch_size"]


def _on_devices(data: "Dataset") -> "Dataset":
    """Return the data divided among all devices, in a job of several processes; otherwise the data unchanged."""
    import jax

    from jaxgd.mesh import place

    if jax.process_count() == 1:
        return data
    axis_types = (jax.sharding.AxisType.Auto,)
    placed: Dataset = place(data, jax.make_mesh((jax.device_count(),), ("examples",), axis_types=axis_types))
    return placed


def _kernel(config: dict[str, Any], data: "Dataset") -> "BackendChoice":
    """Choose the backend that runs the epochs."""
    from jaxgd.cost import quadratic_cost
    from jaxgd.examples import fit_splits
    from jaxgd.kernels import Job, select_backend

    network = _first_network(config)[0]
    examples = fit_splits("train", network, data)[0]["train"]
    return select_backend(config["kernel"], Job(network, examples, quadratic_cost, None, _batch_size(config)))


def _train(
    options: Train, folder: "RunFolder", data: "Dataset", place: tuple[str, str | None] | None, reporter: Any
) -> int:
    import jax

    from jaxgd.chunks import Budget
    from jaxgd.mesh.processes import decided, is_main, largest
    from jaxgd.training import train

    job = jax.process_count() > 1
    config, placed = folder.config, _on_devices(data)
    network, key = _first_network(config)
    kernel = _kernel(config, placed)
    settings: dict[str, Any] = {
        "batch_size": _batch_size(config),
        "eta": config["eta"],
        "key": key,
        "kernel": kernel.name,
        # Earlier versions did not record these two.
        "gradient_norm": config.get("gradient_norm", True),
        # In a job of several processes, the budget follows from the division of the examples.
        "budget": Budget(**config["budget"]) if "budget" in config and not job else None,
    }
    with signals.finishing_first() as stop, folder.locked(), folder.checkpoints() as checkpoints:
        like = train(network, placed, epochs=0, evaluate=False, **settings).state if options.resume else None
        state, entries = _restore(checkpoints, like)
        if options.resume and state is None:
            say("no checkpoint has been saved: the run starts again from its first epoch")
        epochs, done = options.epochs or config["epochs"], max(len(entries) - 1, 0)
        if epochs < done:
            from jaxgd.errors import RangeError

            raise RangeError(
                f"--epochs must be at least {done}, the epochs that {folder.path} already has, got {epochs}.\n"
                "Leave it out, or start a new run."
            )
        folder.write_metrics(entries)
        if epochs != config["epochs"]:
            folder.lengthen(epochs)
        if place is not None and place != (config["data"], config["data_dir"]):
            folder.relocate(*place)
            say(f"config.json now has the new place of the data: {place[1] or place[0]}")

        due, saved = options.checkpoint_every, time.monotonic()

        def after_epoch(state: "TrainState", entry: "History") -> bool:
            nonlocal saved
            k = int(entry.epoch)
            if k == len(entries):  # the entry of a resumed state is already recorded
                entries.append(entry)
                folder.append_metrics(entry)
                if k and decided(job, time.monotonic() - saved >= _SECONDS if due is None else k % due == 0):
                    _save(folder, checkpoints, state, entries)
                    saved = time.monotonic()
                reporter.show(entry)
            if job and not stop.number:
                stop.number = largest(stop.number)
            return bool(stop.number or decided(job, bool(reporter.broken)))

        say(f"kernel {kernel}")
        with reporter.over(folder, data, epochs, entries):
            result = train(network, placed, epochs=epochs - done, state=state, callback=after_epoch, **settings)
        if checkpoints.newest != result.state.epoch:
            _save(folder, checkpoints, result.state, entries)
        folder.save_network(result.network)
    outcome = _of_the_last_epoch(result.outcome, entries)
    signals.describe("jaxgd train", "the run is saved")
    after = f"after {len(entries) - 1} of {epochs} epochs, and saved; continue with: {_continue(folder)}"
    reporter.conclude(outcome, entries)
    if stop.number:
        say(f"stopped by {signals.name(stop.number)} {after}")
        return signals.status(stop.number)
    if reporter.broken:
        error_line("jaxgd train", f"standard output cannot be written ({reporter.broken}): stopped {after}")
        return FAILED
    if options.plot is not None and is_main():
        from jaxgd.report.training import plot_history

        again = command_line("jaxgd", "train", "--resume", folder.path, "--plot", options.plot)
        signals.describe("jaxgd train", f"the run is saved; draw its figure with: {again}")
        plot_history(entries, options.plot, title=f"{data.name}, sizes {config['sizes']}, η = {config['eta']:g}")
        say(f"drawn: {options.plot}")
    if not outcome.ok:
        return FAILED
    say(f"next: {command_line('jaxgd', 'predict', folder.path)} PICTURE")
    return DONE


def _of_the_last_epoch(outcome: "Outcome", entries: list["History"]) -> "Outcome":
    """Return UNCHANGED for a run without further epochs whose last epoch changed no weight.

    `train` then made no update, and reports that all of none were made.
    """
    import numpy as np

    from jaxgd.epoch import NEAR_0
    from jaxgd.outcome import Outcome, Reason

    unchanged = entries[-1].step_norm == 0 and not abs(entries[-1].cost) <= NEAR_0
    return Outcome(np.array(int(Reason.UNCHANGED))) if outcome.ok and unchanged else outcome


def _continue(folder: "RunFolder") -> str:
    return command_line("jaxgd", "train", "--resume", folder.path)


def _save(folder: "RunFolder", checkpoints: "Checkpoints", state: "TrainState", entries: list["History"]) -> None:
    import jax
    import numpy as np

    folder.save_network(state.network)
    checkpoints.save(int(state.epoch), (state, jax.tree.map(lambda *xs: np.stack(xs), *entries)))


def _restore(checkpoints: "Checkpoints", like: "TrainState | None") -> tuple["TrainState | None", list["History"]]:
    """Return the state and history of the newest intact checkpoint, or (None, []) if none exists yet."""
    import jax
    import numpy as np

    from jaxgd.history import History

    blank = History(**dict.fromkeys(History._fields, jax.numpy.zeros(())))
    restored = None if like is None else checkpoints.restore((like, blank))
    if restored is None:
        return None, []
    for refusal in restored.refused:
        say(f"{refusal}; using the previous checkpoint")
    state, history = restored.tree
    history = jax.tree.map(np.asarray, history)
    return state, [jax.tree.map(lambda x, k=k: x[k], history) for k in range(len(history.epoch))]
