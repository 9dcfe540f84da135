"""`jaxgd evaluate`: the accuracy and cost of a trained network."""

import dataclasses
from typing import Literal

from jaxgd.cli.common import MaybeName, MaybePath, RunDir, command_line, digest, is_folder, load_data, require_sizes_fit
from jaxgd.cli.output import error_line


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Print the accuracy and the cost of a run's network on a data set.

    Warns if the data differ from those that the run was trained on.
    """

    run_dir: RunDir
    """Run folder, made by jaxgd train."""
    part: Literal["train", "validation", "test"] = "test"
    """Split of the data set to evaluate."""
    data: MaybeName = None
    """Data set to evaluate: a name, or a folder of IDX files. (default: the run's data set)"""
    data_dir: MaybePath = None
    """Folder to search for data sets and to download them to. (default: the folder that the run used)"""

    def run(self, argv: list[str]) -> int:
        """Evaluate and return the exit status."""
        from jaxgd.chunks import outputs_in_chunks
        from jaxgd.cost import accuracy, quadratic_cost
        from jaxgd.errors import DataError
        from jaxgd.examples import require_fit, targets
        from jaxgd.network import network_sizes
        from jaxgd.run_folder import RunFolder

        folder = RunFolder.open(self.run_dir)
        network = folder.load_network()
        config = folder.config
        name = self.data or config["data"]
        try:
            data = load_data(name, self.data_dir or (config["data_dir"] if name == config["data"] else None))
        except DataError as error:
            if self.data is not None or self.data_dir is not None:
                raise
            option = "--data-dir" if config["data_dir"] else "--data"
            moved = command_line("jaxgd", "evaluate", self.run_dir, option)
            raise DataError(f"{error}\nIf the data have moved: {moved} FOLDER") from error
        require_sizes_fit(network_sizes(network), data, exact=not is_folder(name), run=self.run_dir)
        if (got := digest(data)) != config["data_sha256"]:
            error_line(
                "jaxgd evaluate",
                f"warning: {data.name} is not the data set that {self.run_dir} was trained on: "
                f"expected the SHA-256 {config['data_sha256']}, got {got}.",
            )
        x, y = require_fit("evaluate", self.part, network, *getattr(data, self.part))
        a = outputs_in_chunks(network, x)
        cost = quadratic_cost(a, targets(y, a.shape[-1], a.dtype))
        right = round(float(accuracy(a, y)) * len(y))
        print(f"{data.name} {self.part}: {right} / {len(y)} ({right / len(y):.2%}), cost {float(cost):.6f}")
        return 0
