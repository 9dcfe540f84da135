"""`jaxgd sweep`: train many networks, and tabulate their results."""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxgd.cli import signals
from jaxgd.cli.common import (
    DONE,
    BatchSize,
    Epochs,
    Floats,
    Int,
    Kernel,
    ManyInts,
    MaybeBest,
    MaybeBytes,
    MaybePart,
    MaybePath,
    Scheme,
    command_line,
    require_writable_figure,
)
from jaxgd.cli.output import say
from jaxgd.cli.run_data import (
    DataOptions,
    default_settings,
    is_folder,
    load_data,
    require_sizes_fit,
    stated_conventions,
)

if TYPE_CHECKING:
    from jaxgd.sweeps import Sweep as Result


@dataclasses.dataclass(frozen=True)
class Sweep(DataOptions):
    """Train a network for every combination of sizes, η and seed, and tabulate the results.

    Prints one line for each pair of sizes and η. The line has the median, the quartiles and the best of the final
    accuracies on the validation images. It also has the shares of the networks that diverged, saturated or stayed
    unchanged. Writes a folder with table.parquet. For each network, the table has one row for the start and one per
    epoch.

    The same command with the same folder continues a sweep that was stopped or killed, with any number of processes.
    After Ctrl-C, SIGTERM or SIGHUP the command finishes the epoch and saves. A second signal stops at once.

    Several processes under srun or mpirun, or with JAXGD_COORDINATOR as for jaxgd train, each train a part of
    the networks.

    Exit status: 0 done, also if networks diverged; 1 a file or the output could not be written; 2 misuse; 130 stopped
    by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
    """

    sizes: ManyInts = ()
    """Neurons per layer, inputs first. Repeat the option for each network size. (default: pixels, 30, classes)"""
    eta: Floats = (3.0,)
    """Learning rates η, above 0."""
    seeds: Int = 1
    """Number of seeds for each pair of sizes and η. The seeds are 0, 1, 2 and so on, as in jaxgd train --seed."""
    scheme: Scheme = None
    batch_size: BatchSize = 10
    """Examples per mini-batch, or full to use all examples in each update."""
    epochs: Epochs = None
    kernel: Kernel = "auto"
    folder: Annotated[MaybePath, tyro.conf.arg(aliases=["--run-dir"])] = None
    """Folder to write, or to continue. (default: sweeps/DATA-TIME)"""
    keep: MaybeBest = None
    """For each network size, save the INT completed networks with the highest accuracies. (default: none)"""
    part: MaybePart = None
    """Part of the sweep to run, such as 2/8, the second of eight. The parts share one folder and may run together.
    (default: the whole sweep)"""
    memory: MaybeBytes = None
    """Memory for the networks that train together, such as 2GB. A continued sweep keeps its first value.
    (default: a quarter of the free memory of the machine or of its accelerators)"""
    merge: MaybePath = None
    """Folder of complete parts, whose tables are joined into table.parquet. No network is trained."""
    plot: MaybePath = None
    """PNG, SVG or PDF file for a figure of the accuracy against η."""
    progress: bool = True
    """Show a progress bar with the time left if stderr is a terminal."""

    def run(self, argv: list[str]) -> int:
        """Run the sweep, or join its parts, and return the exit status."""
        from jaxgd.errors import RangeError
        from jaxgd.report.figure import STILL, require_library
        from jaxgd.sweeps import merge_sweep

        if self.plot is not None:
            require_writable_figure(self.plot, STILL)
            require_library("--plot", "matplotlib")
        if self.merge is None:
            return _sweep(self, argv)
        given = {flag.split("=")[0].replace("_", "-") for flag in argv if flag.startswith("--")}
        if others := sorted(given - {"--merge", "--plot"}):
            raise RangeError(f"--merge trains no network: leave out {', '.join(others)}.")
        return _conclude(self, merge_sweep(self.merge), argv)


def _sweep(options: Sweep, argv: list[str]) -> int:
    from jaxgd.errors import JaxgdError, RangeError, WriteError
    from jaxgd.mesh.processes import is_main, text_from_process_0
    from jaxgd.sweeps import sweep

    if options.part is not None and options.folder is None:
        raise RangeError("--part must have a --folder that all parts share, got none.")
    name = options.data or "digits"
    scheme, epochs = default_settings(name)
    data = load_data(name, options.data_dir, stated_conventions("sweep", options))
    sizes = options.sizes or ((data.inputs, 30, data.classes),)
    for some in sizes:
        require_sizes_fit(some, data, exact=not is_folder(name), who="sweep")
    folder = options.folder
    if folder is None:
        name = f"{data.name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03}"
        folder = Path("sweeps") / text_from_process_0(name)
        argv = [*argv, "--folder", str(folder)]
    if options.plot is not None and folder.absolute() == options.plot.absolute():
        raise RangeError(f"--plot must differ from --folder, got {options.plot} for both.\nRename one.")
    again = f"continue with: {command_line('jaxgd', *argv)}"
    began = False

    with signals.finishing_first() as stop:

        def is_stopped() -> bool:
            # `sweep` calls this only after all checks have passed and the folder exists.
            nonlocal began
            if not began:
                began = True
                say(f"sweep folder: {folder}")
                signals.describe("jaxgd sweep", f"the sweep is saved up to its last state; {again}")
            return bool(stop.number)

        try:
            result = sweep(
                data,
                sizes=sizes,
                eta=options.eta,
                seeds=options.seeds,
                epochs=epochs if options.epochs is None else options.epochs,
                folder=folder,
                batch_size=None if options.batch_size == "full" else options.batch_size,
                scheme=options.scheme or scheme,
                kernel=options.kernel,
                keep=_best(options.keep),
                part=options.part,
                memory=options.memory,
                progress=options.progress and is_main(),
                stop=is_stopped,
            )
        except (Exception, KeyboardInterrupt) as error:
            if began and (isinstance(error, WriteError) or not isinstance(error, JaxgdError)):
                say(signals.advice())
            raise
    if stop.number:
        say(f"stopped by {signals.name(stop.number)}, and saved; {again}")
        return signals.status(stop.number)
    return _conclude(options, result, argv)


def _best(words: tuple[int | str, ...] | None) -> int:
    """Return the number of networks to keep."""
    from jaxgd.errors import RangeError, require_count

    if words is None:
        return 0
    if len(words) != 2 or words[0] != "best" or words[1] == "best":
        given = " ".join(map(str, words)) or "nothing"
        raise RangeError(f"--keep must be best and a whole number, got {given}.\nWrite --keep best 5.")
    require_count("sweep", "--keep best", words[1])
    return int(words[1])


def _conclude(options: Sweep, result: "Result", argv: list[str]) -> int:
    """Print the results, and draw the figure."""
    from jaxgd.mesh.processes import is_main
    from jaxgd.report.sweep import summarize

    signals.describe("jaxgd sweep", "the sweep is saved")
    if not is_main():  # process 0 prints and draws
        return DONE
    accuracy, points = summarize(result)
    width = max(len(point.sizes) for point in points)
    for point in points:
        low, median, high = point.quartiles
        shares = "  ".join(f"{name} {share:.1%}" for name, share in point.shares.items())
        print(
            f"{point.sizes:{width}}  eta {point.eta:<6g}  networks {point.networks}  median {median:.2%}  "
            f"quartiles {low:.2%} {high:.2%}  best {point.best:.2%}  {shares}"
        )
    say(f"accuracy: {accuracy} after the last epoch")
    for sizes, choice in result.kernel.items():
        say(f"kernel of {sizes}: {choice}")
    for path in result.networks:
        say(f"saved: {path}")
    assert result.folder is not None  # the command gives every sweep a folder
    if result.complete:
        say(f"table: {result.folder / 'table.parquet'}")
    else:
        say(f"this part is done; after all parts: {command_line('jaxgd', 'sweep', '--merge', result.folder)}")
    if options.plot is not None:
        from matplotlib.figure import Figure

        from jaxgd.report.figure import save_figure
        from jaxgd.report.plotting import plot

        signals.describe("jaxgd sweep", f"the sweep is saved; draw its figure with: {command_line('jaxgd', *argv)}")
        figure = Figure(figsize=(7.0, 5.6), layout="constrained")
        plot(result, figure=figure)
        save_figure("sweep", figure, options.plot, dpi=150)
        say(f"drawn: {options.plot}")
    return DONE
