"""`jaxgd report`: the page of a training run."""

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxgd.cli.common import DONE, MaybeName, MaybePath, RunDir, command_line, require_writable_figure
from jaxgd.cli.output import error_line, say, without_function
from jaxgd.cli.run_data import if_moved, is_folder, load_data, other_data, recorded_conventions, require_sizes_fit
from jaxgd.cli.train import Train

if TYPE_CHECKING:
    from jaxgd.data import Part
    from jaxgd.network import Network
    from jaxgd.report.run_page import Examined, RunFacts
    from jaxgd.run_folder import RunConfig, RunFolder


@dataclasses.dataclass(frozen=True)
class Report:
    """Write the page of a run: one HTML file that works offline.

    The page shows the curves of cost and accuracy, the confusion matrix, the misread images, the first layer's weights,
    the settings, and the command line that repeats the run. You can draw a digit on the page, and the network reads it
    as you draw, unless the network is too large for the page.

    Without the data of the run, the page lacks the confusion matrix and the misread images. The page and a line on
    standard error state the reason.

    Exit status: 0 the page is written; 1 it could not be written; 2 misuse, or the run has no network.
    """

    run_dir: RunDir
    """Run folder, made by jaxgd train."""
    out: MaybePath = None
    """HTML file to write. (default: RUN/report.html)"""
    split: Literal["train", "validation", "test"] = "test"
    """Split of the data set for the confusion matrix and the misread images."""
    data: MaybeName = None
    """Data set to read: a name, or a folder of IDX files. (default: the run's data set)"""
    data_dir: MaybePath = None
    """Folder to search for data sets and to download them to.
    (default: for the data set of the run, the folder that the run used; otherwise as for jaxgd train)"""

    def run(self, argv: list[str]) -> int:
        """Write the page and return the exit status."""
        from jaxgd.files import write_atomically
        from jaxgd.report.run_page import run_page
        from jaxgd.run_folder import RunFolder

        folder = RunFolder.open(self.run_dir)
        path = folder.path / "report.html" if self.out is None else self.out
        require_writable_figure(path, (".html", ".htm"), "--out")
        facts = _facts(self, folder)
        for note in facts.notes:
            error_line("jaxgd report", f"warning: {note}")
        # The page names the run folder, and the name may have bytes that are not UTF-8.
        write_atomically(path, run_page(facts).encode(errors="backslashreplace"))
        say(f"written: {path}")
        return DONE


def _facts(options: Report, folder: "RunFolder") -> "RunFacts":
    """Collect the facts of the run. Add notes about missing files and changed data."""
    from jaxgd.errors import CheckpointError
    from jaxgd.report.run_page import RunFacts
    from jaxgd.report.run_page.metrics import read_metrics

    resume = command_line("jaxgd", "train", "--resume", folder.path)
    file, notes = folder.path / "network.safetensors", []
    if not file.exists():
        raise CheckpointError(
            f"report: {folder.path} must have network.safetensors, which training writes, got none.\n"
            f"Continue the run: {resume}"
        )
    network = folder.load_network()
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    if not (folder.path / "checkpoints").is_dir():
        notes.append(
            f"{folder.path} has no folder checkpoints, so the run cannot be continued. Copy the folder back to "
            "continue it. This page needs no checkpoint."
        )
    metrics = None
    try:
        metrics = read_metrics(folder.metrics)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        notes.append(f"No curves: {folder.metrics} cannot be read: {reason}. To write it again: {resume}")
    return RunFacts(
        name=folder.path.absolute().name,
        config=folder.config,
        network=network,
        network_sha256=sha256,
        command=training_command(folder.config, folder.start),
        resume=resume,
        metrics=metrics,
        examined=_examined(options, folder, network, notes),
        notes=notes,
    )


def _examined(options: Report, folder: "RunFolder", network: "Network", notes: list[str]) -> "Examined | None":
    """Return the network's answers to a split of the data. Without the data of the run, add a note and return None."""
    from jaxgd.assessment import assess
    from jaxgd.errors import DataError
    from jaxgd.network import network_sizes
    from jaxgd.report.run_page import Examined

    config = folder.config
    name = options.data or config["data"]
    try:
        data_dir = options.data_dir or (config["data_dir"] if name == config["data"] else None)
        data = load_data(name, data_dir, recorded_conventions(config, name))
    except DataError as error:
        if options.data is not None or options.data_dir is not None:
            raise
        notes.append(
            "No confusion matrix and no misread images, because the data of the run cannot be read. "
            f"{without_function(str(error))} {if_moved('report', options.run_dir, config)}"
        )
        return None
    require_sizes_fit(network_sizes(network), data, exact=not is_folder(name), run=folder.path)
    if difference := other_data(data, folder.path, config):
        notes.append(difference)
    part: Part = getattr(data, options.split)
    return Examined(data.name, options.split, part.images, assess(network, part.images, part.labels))


# Options that the command line states even if they have their defaults.
_STATED = ("data", "sizes", "scheme", "eta", "batch_size", "epochs", "seed", "kernel")


def training_command(config: "RunConfig", start: Path) -> str:
    """Return the command line that repeats a run: its environment variables, and its settings as options of train.

    Options with their defaults are left out, except those in _STATED. For a run with --from, `start` is the
    run's copy of that network.
    """
    left_out = {"data_dir"} if _is_usual(config["data_dir"]) else set()
    if not is_folder(config["data"]):
        left_out |= {"labels_from", "transpose"}
    if set(config.get("activation", ())) == {"sigmoid"}:
        left_out.add("activation")
    started = config.get("from") is not None
    if started:
        left_out |= {"sizes", "activation"}  # the network of --from has its own
    values = {name: value for name, value in config.items() if name not in left_out}
    if started:
        values["from"] = start
    words: list[object] = ["jaxgd", "train"]
    for field in dataclasses.fields(Train):
        name = field.name.removesuffix("_")
        value, option = values.get(name), f"--{name.replace('_', '-')}"
        unstated = value == field.default or (name == "labels_from" and value == 0)
        if value is None or (unstated and name not in _STATED):
            continue
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        elif name == "record" and isinstance(value, list):
            words += [word for one in value for word in (option, one)]
        else:
            words += [option, *(value if isinstance(value, list) else [value])]
    made = config["made_with"]
    variables = {
        "JAX_ENABLE_X64": "1" if made["float"] == "float64" else "None",
        "JAX_DEFAULT_MATMUL_PRECISION": made.get("matrix products", "None"),
        "JAX_THREEFRY_PARTITIONABLE": "0" if made.get("partitionable keys") == "False" else "None",
    }
    return "".join(f"{name}={value} " for name, value in variables.items() if value != "None") + command_line(*words)


def _is_usual(data_dir: str | None) -> bool:
    """Return True for the default folder of data sets."""
    from jaxgd.data import default_data_dir

    return data_dir == str(default_data_dir().absolute())
