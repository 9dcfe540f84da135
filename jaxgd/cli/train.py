"""`jaxgd train`: train a network to read digits by gradient descent."""

import dataclasses
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxgd.cli import signals
from jaxgd.cli.common import (
    DATA_HELP,
    DONE,
    FAILED,
    BatchSize,
    Epochs,
    Float,
    Int,
    Kernel,
    MaybeFloat,
    MaybeInt,
    MaybeInts,
    MaybeName,
    MaybePath,
    MaybeWords,
    Name,
    Scheme,
    command_line,
    require_writable_figure,
)
from jaxgd.cli.output import error_line, say
from jaxgd.cli.run_data import DataOptions
from jaxgd.cli.train_folder import (
    batch_size_of,
    chosen_kernel,
    continue_line,
    network_and_key,
    new_run,
    on_devices,
    restore_checkpoint,
    resumed_run,
    save_checkpoint,
)
from jaxgd.cli.train_settings import Recorded, choice_of, cost_of, record_of

if TYPE_CHECKING:
    from jaxgd.cli.reporter import Reporter
    from jaxgd.data import Dataset
    from jaxgd.history import History, TrainResult, TrainState
    from jaxgd.outcome import Outcome
    from jaxgd.run_folder import RunFolder

# Without --checkpoint-every, checkpoints are at least this number of seconds apart. One checkpoint takes as long as
# 20 epochs on the data set digits.
_SECONDS = 1.0
# Handwriting stays legible in training images that have at least this number of rows and columns.
_READABLE = 16


@dataclasses.dataclass(frozen=True)
class Train(DataOptions):
    """Train a network to read digits, by gradient descent v → v − η∇C.

    Prints one line per epoch: the number of test images that the network reads correctly. Epochs count from 0, as in
    Nielsen's book. Writes a run folder with config.json, metrics.jsonl, checkpoints and network.safetensors.

    After Ctrl-C, SIGTERM or SIGHUP the command finishes the epoch and saves the run. A second signal stops at once.

    Several processes under srun or mpirun train one network: each holds a part of the examples. Without srun
    and mpirun, set JAXGD_COORDINATOR to host:port of process 0, JAXGD_PROCESSES to the number of processes and
    JAXGD_PROCESS to the index of this process, from 0. If a process is lost, the job ends at once or after
    about JAXGD_HEARTBEAT seconds (30 by default).
    --resume continues the run with any number of processes.

    Exit status: 0 the run completed, or --patience ended it; 1 it failed, all outputs are saturated, no weight changes,
    or a file or the output could not be written; 2 misuse; 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
    """

    data: Annotated[
        MaybeName,
        tyro.conf.arg(help=f"{DATA_HELP}\nWith --resume, the new place of the run's data. (default: digits)"),
    ] = None
    sizes: MaybeInts = None
    """Neurons per layer, inputs first. (default: pixels, 30, classes)"""
    scheme: Scheme = None
    activation: MaybeWords = None
    """Activation of all layers, or one per layer: sigmoid, tanh or relu; also softmax for the last layer.
    (default: sigmoid, as in the book)"""
    cost: Name = "quadratic"
    """Cost to minimize: quadratic, or cross-entropy, which needs a last layer of sigmoid or softmax.
    The book uses --eta 0.5 with cross-entropy."""
    l2: MaybeFloat = None
    """λ of L2 regularization, 0 or more: adds (λ/2n) Σ w² to the cost, for n training examples. (default: no term)"""
    eta: Float = 3.0
    """Learning rate η, above 0."""
    batch_size: BatchSize = 10
    """Examples per mini-batch, or full to use all examples in each update."""
    epochs: Epochs = None
    seed: Int = 0
    """Seed of the first weights and of the order of examples."""
    keep: Literal["last", "best"] = "last"
    """Network to write to network.safetensors: the last one, or the best one on the validation images."""
    by: Literal["accuracy", "cost"] = "accuracy"
    """Value on the validation images that decides which network is the best."""
    patience: MaybeInt = None
    """End the run after this number of epochs in a row without a new best network. (default: no limit)"""
    from_: Annotated[MaybePath, tyro.conf.arg(name="from")] = None
    """Run folder, or .safetensors file, with the network to start from. The new run folder keeps a copy of it.
    (default: draw new weights)"""
    record: Annotated[tuple[Recorded, ...], tyro.conf.UseAppendAction] = ()
    """Value to add to metrics.jsonl: sharpness, the largest eigenvalue of the Hessian of the training cost; or
    gradient-norms, ‖∇C‖ of each layer. (default: none)"""
    record_every: Int = 1
    """Epochs between two values of --record."""
    kernel: Kernel = "auto"
    gradient_norm: bool = True
    """Compute ‖∇C‖ after each epoch, for metrics.jsonl and TensorBoard. Mini-batch epochs are faster without it."""
    run_dir: Annotated[MaybePath, tyro.conf.arg(aliases=["--folder"])] = None
    """Run folder to create. (default: runs/DATA-TIME)"""
    resume: MaybePath = None
    """Run folder to continue. The result equals an uninterrupted run bit for bit, unless versions, the device or the
    number of processes change. --epochs may lengthen the run."""
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
            (folder, data), place = new_run(self), None
        else:
            folder, data, place = resumed_run(self, self.resume, argv)
        say(f"run folder: {folder.path}")
        signals.describe(
            "jaxgd train", f"the run is saved up to its last checkpoint; continue with: {continue_line(folder)}"
        )
        try:
            return _train(self, folder, data, place, reporter)
        except (Exception, KeyboardInterrupt) as error:
            if (isinstance(error, WriteError) or not isinstance(error, JaxgdError)) and (
                folder.path / "config.json"
            ).is_file():
                say(signals.advice())
            raise


def _train(
    options: Train, folder: "RunFolder", data: "Dataset", place: tuple[str, str | None] | None, reporter: "Reporter"
) -> int:
    import jax

    from jaxgd.best import best_epochs
    from jaxgd.chunks import Budget
    from jaxgd.mesh.processes import decided, is_main, largest
    from jaxgd.training import train

    job = jax.process_count() > 1
    config, placed = folder.config, on_devices(data)
    network, key = network_and_key(folder)
    kernel = chosen_kernel(config, network, placed)
    choice, record = choice_of(config), record_of(config)
    settings: dict[str, Any] = {
        "batch_size": batch_size_of(config),
        "eta": config["eta"],
        "cost": cost_of(config),
        "l2": config.get("l2"),
        "key": key,
        "kernel": kernel.name,
        # Earlier versions did not record gradient_norm and budget.
        "gradient_norm": config.get("gradient_norm", True),
        # `train` uses no budget in a job of several processes.
        "budget": Budget(**config["budget"]) if "budget" in config and not job else None,
    }
    with signals.finishing_first() as stop, folder.locked(), folder.checkpoints() as checkpoints:
        like = train(network, placed, epochs=0, evaluate=False, **settings).state if options.resume else None
        state, entries = restore_checkpoint(checkpoints, like, choice, record)
        if options.resume and state is None:
            say("no checkpoint has been saved: the run starts again from its first epoch")
        epochs, done = options.epochs or config["epochs"], max(len(entries) - 1, 0)
        if epochs < done:
            from jaxgd.errors import RangeError

            raise RangeError(
                f"--epochs must be at least {done}, the epochs that {folder.path} already has, got {epochs}.\n"
                "Leave it out, or start a new run."
            )
        folder.write_metrics(entries, best_epochs(entries, choice.by) if choice.follows else None)
        if epochs != config["epochs"]:
            folder.lengthen(epochs)
        if place is not None and place != (config["data"], config["data_dir"]):
            folder.relocate(*place)
            say(f"config.json now has the new place of the data: {place[1] or place[0]}")

        due, saved = options.checkpoint_every, time.monotonic()

        def after_epoch(state: "TrainState", entry: "History") -> bool:
            nonlocal saved
            k = int(entry.epoch)
            if k == len(entries):  # the first entry of a resumed run is already recorded
                entries.append(entry)
                folder.append_metrics(entry, None if state.best is None else int(state.best.epoch))
                if k and decided(job, time.monotonic() - saved >= _SECONDS if due is None else k % due == 0):
                    save_checkpoint(folder, checkpoints, state, entries, choice)
                    saved = time.monotonic()
                reporter.show(entry)
            if job and not stop.number:
                stop.number = largest(stop.number)
            return bool(stop.number or decided(job, bool(reporter.broken)))

        say(f"kernel {kernel}")
        with reporter.over(folder, data, epochs, entries):
            result = train(
                network,
                placed,
                epochs=epochs - done,
                state=state,
                callback=after_epoch,
                keep=choice.keep,
                by=choice.by,
                patience=choice.patience,
                record=record,
                **settings,
            )
        if checkpoints.newest != result.state.epoch:
            save_checkpoint(folder, checkpoints, result.state, entries, choice)
        folder.save_network(result.network)
    outcome = _of_the_last_epoch(result, entries, settings, len(data.train.labels))
    signals.describe("jaxgd train", "the run is saved")
    after = f"after {len(entries) - 1} of {epochs} epochs, and saved; continue with: {continue_line(folder)}"
    reporter.conclude(outcome, entries, result.state.best, choice.keep)
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
    say(f"next: {command_line('jaxgd', 'report', folder.path)}")
    height, width = data.image_shape
    if min(height, width) >= _READABLE:
        say(f"next: {command_line('jaxgd', 'predict', folder.path)} PICTURE")
    else:
        say(f"images of {height}×{width} are too small for photographs: for jaxgd predict, train with --data mnist")
    return DONE


def _of_the_last_epoch(result: "TrainResult", entries: list["History"], settings: dict[str, Any], n: int) -> "Outcome":
    """Return UNCHANGED if training has stalled with an ok outcome, and otherwise the outcome of `train`.

    Training has stalled if the last epoch changed no weight and C is not near 0. `train` itself cannot report UNCHANGED
    for a resumed run without further epochs.
    """
    import jax.numpy as jnp

    from jaxgd.epoch import near_0
    from jaxgd.kernels.evaluation import penalty
    from jaxgd.mesh.processes import on_host
    from jaxgd.outcome import Outcome, Reason

    network, c = result.state.network, entries[-1].cost
    if settings["l2"] is not None:
        c = c - on_host(penalty(network, settings["l2"] / n))
    unchanged = entries[-1].step_norm == 0 and not abs(c) <= near_0(settings["cost"], network)
    return Outcome(jnp.array(int(Reason.UNCHANGED))) if result.outcome.ok and unchanged else result.outcome
