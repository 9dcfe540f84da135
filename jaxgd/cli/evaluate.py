"""`jaxgd evaluate`: the accuracy, the cost, the confusion matrix and the mistakes of a trained network."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jaxgd.cli.common import (
    DONE,
    MaybeFlag,
    MaybeInt,
    MaybeName,
    MaybePath,
    RunOrNetwork,
    command_line,
    require_writable_figure,
)
from jaxgd.cli.output import error_line, say
from jaxgd.cli.run_data import (
    UNSTATED,
    Conventions,
    if_moved,
    is_folder,
    load_data,
    other_data,
    recorded_conventions,
    require_sizes_fit,
    stated_conventions,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jaxgd.assessment import Assessment
    from jaxgd.data import Dataset, Part
    from jaxgd.network import Network
    from jaxgd.run_folder import RunConfig


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Print the accuracy, the cost and the mistakes of a network on a data set.

    Prints the number of right answers, the cost, the confusion matrix with the accuracy of each class, and the ten most
    confident mistakes. The line of a mistake has the index of the image in its split, its label, the network's answer
    and the activation of this answer. If the matrix is wider than the terminal, lists the most frequent wrong answers
    of each class instead.

    Warns if the data differ from those that the run was trained on.
    """

    run_dir: RunOrNetwork
    """Run folder, made by jaxgd train, or a network in a .safetensors file, which needs --data."""
    split: Annotated[Literal["train", "validation", "test"], tyro.conf.arg(aliases=["--part"])] = "test"
    """Split of the data set to evaluate. --part is the former name of this option."""
    data: MaybeName = None
    """Data set to evaluate: a name, or a folder of IDX files. (default: the run's data set)"""
    data_dir: MaybePath = None
    """Folder to search for data sets and to download them to.
    (default: for the run's own data, the folder that the run used; for other data, as for jaxgd train)"""
    labels_from: MaybeInt = None
    """Label of the first class in the files of a folder: 1 for the letters of EMNIST.
    (default: for the run's own data, the run's value; for other data, 0)"""
    transpose: MaybeFlag = None
    """Exchange the rows and columns of a folder's images. The files of EMNIST need it.
    (default: for the run's own data, as in the run)"""
    no_transpose: MaybeFlag = None
    """Take a folder's images as upright, without a check."""
    plot: MaybePath = None
    """PNG, SVG or PDF file for a figure of the confusion matrix and the images of the most confident mistakes."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object with all mistakes."""

    def run(self, argv: list[str]) -> int:
        """Evaluate and return the exit status."""
        from jaxgd.assessment import assess
        from jaxgd.cli import assessment as text
        from jaxgd.report.figure import STILL, require_library

        if self.plot is not None:
            require_writable_figure(self.plot, STILL)
            require_library("--plot", "matplotlib")
        network, config = _opened(self.run_dir)
        data, conventions = _loaded(self, network, config)
        part: Part = getattr(data, self.split)
        assessment = assess(network, *part)
        kind, cost = _cost(network, self.split, part, config)
        first = conventions.labels_from or 0
        if self.json:
            about = {"network": str(self.run_dir), "data": data.name, "split": self.split, "cost_function": kind}
            print(text.as_json(assessment, first, cost, about))
        else:
            n = len(assessment.labels)
            right = int(assessment.confusion.trace())
            words = "cost" if kind == "quadratic" else kind
            print(f"{data.name} {self.split}: {right} / {n} ({right / n:.2%}), {words} {cost:.6f}")
            print(text.as_text(assessment, first))
        if self.plot is not None:
            _plot(self.plot, assessment, data, self.split, part.images, first)
        return DONE


def _opened(path: Path) -> "tuple[Network, RunConfig | None]":
    """Return the network and the configuration of its run. The configuration is None for a network in a file."""
    from jaxgd.network_file import load_network
    from jaxgd.run_folder import RunFolder

    if os.path.isfile(path) or path.suffix == ".safetensors":
        return load_network(path), None
    folder = RunFolder.open(path)
    return folder.load_network(), folder.config


def _loaded(options: Evaluate, network: "Network", config: "RunConfig | None") -> tuple["Dataset", Conventions]:
    """Return the data set to evaluate and the conventions of its files. Raise unless the data fit the network."""
    from jaxgd.errors import DataError, RangeError
    from jaxgd.network import network_sizes

    run, stated = options.run_dir, stated_conventions("evaluate", options)
    if config is None:
        if options.data is None:
            raise RangeError(
                f"expected --data, because the file of a network does not name its data, got none.\n"
                f"Name a data set: {command_line('jaxgd', 'evaluate', run, '--data', 'mnist')}"
            )
        data = load_data(options.data, options.data_dir, stated)
        require_sizes_fit(network_sizes(network), data, exact=not is_folder(options.data), run=run)
        return data, stated
    name = options.data or config["data"]
    own = config["data"] in (name, str(Path(name).expanduser().absolute()))
    conventions = recorded_conventions(config, name) if own else UNSTATED
    given = {field: value for field, value in stated._asdict().items() if value is not None}
    conventions = conventions._replace(**given)
    try:
        data = load_data(name, options.data_dir or (config["data_dir"] if own else None), conventions)
    except DataError as error:
        if options.data is not None or options.data_dir is not None:
            raise
        raise DataError(f"{error}\n{if_moved('evaluate', run, config)}") from error
    require_sizes_fit(network_sizes(network), data, exact=not is_folder(name), run=run)
    if difference := other_data(data, run, config):
        error_line("jaxgd evaluate", f"warning: {difference}")
    return data, conventions


def _cost(network: "Network", split: str, part: "Part", config: "RunConfig | None") -> tuple[str, float]:
    """Return the name of the run's cost, and its value on the split, without the term of L2 regularization.

    A network in a file does not name its cost, so the quadratic cost is used.
    """
    from jaxgd.cost import COSTS
    from jaxgd.examples import require_fit
    from jaxgd.kernels.xla import Objective

    name = "quadratic" if config is None else config.get("cost", "quadratic")
    objective = Objective(COSTS[name])
    return name, float(objective.full(network, require_fit("evaluate", split, network, *part))[0])


def _plot(
    path: Path, assessment: "Assessment", data: "Dataset", split: str, images: "NDArray[np.uint8]", first: int
) -> None:
    from matplotlib.figure import Figure

    from jaxgd.report.assessment import draw
    from jaxgd.report.figure import save_figure

    figure = Figure(figsize=(11.0, 5.9), layout="constrained")
    draw(assessment, images=images, labels_from=first, figure=figure)
    figure.suptitle(f"{data.name} {split}: {assessment.accuracy:.2%} right".replace("$", r"\$"))
    save_figure("evaluate", figure, path, dpi=150)
    say(f"drawn: {path}")
