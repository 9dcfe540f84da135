"""`jaxgd evaluate`: the accuracy and cost of a trained network."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxgd.cli.common import MaybeName, MaybePath, is_folder, load_data, require_sizes_fit


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Print the accuracy and the cost of a run's network on a data set."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, made by jaxgd train."""
    part: Literal["train", "validation", "test"] = "test"
    """Split of the data set to evaluate."""
    data: MaybeName = None
    """Data set to evaluate: a name, or a folder of IDX files. (default: the run's data set)"""
    data_dir: MaybePath = None
    """Folder to search for data sets and to download them to. (default: the folder that the run used)"""

    def run(self, argv: list[str]) -> int:
        """Evaluate and return the exit status."""
        from jaxgd.cost import accuracy, quadratic_cost
        from jaxgd.examples import outputs_in_chunks, require_fit, targets
        from jaxgd.network import network_sizes
        from jaxgd.run_folder import RunFolder

        folder = RunFolder.open(self.run_dir)
        network = folder.load_network()
        name = self.data or folder.config["data"]
        data = load_data(name, self.data_dir or folder.config["data_dir"])
        require_sizes_fit(network_sizes(network), data, exact=not is_folder(name), run=self.run_dir)
        x, y = require_fit("evaluate", self.part, network, *getattr(data, self.part))
        a = outputs_in_chunks(network, x)
        cost = quadratic_cost(a, targets(y, a.shape[-1], a.dtype))
        right = round(float(accuracy(a, y)) * len(y))
        print(f"{data.name} {self.part}: {right} / {len(y)} ({right / len(y):.2%}), cost {float(cost):.6f}")
        return 0
