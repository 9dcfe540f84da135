"""The commands of `python -m benchmarks`. tyro parses their options, except those of device."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks import store
from benchmarks.campaign.command import Campaign
from benchmarks.compare import changes, lost
from benchmarks.store import RESULTS, ResultsError
from jaxgd.errors import JaxgdError

# The commands import the cases only when they run. The import takes more than a second, which `--help` saves.


@dataclasses.dataclass(frozen=True)
class List:
    """List the families, their cases and the peers."""

    def run(self) -> int:
        """Print the families, cases and peers, and return the exit status."""
        from benchmarks.registry import CASES, FAMILIES
        from benchmarks.training.peers import NETWORKS_PEERS, PEERS, START_PEERS

        for family in FAMILIES:
            print(family)
            for case in (case for case in CASES if case.family == family):
                print(f"  {case.name:32} {case.title}")
        print(f"\npeers of epochs, steps and growth: {', '.join(PEERS)}")
        print(f"peers of many networks: {', '.join(NETWORKS_PEERS)}")
        print(f"peers of start-up: {', '.join(START_PEERS)}")
        return 0


@dataclasses.dataclass(frozen=True)
class Run:
    """Run cases, print the figures and store them.

    If a case times several programs, they take turns until each has run several times. In epochs, steps, networks,
    start-up, growth and sweep, each program has a process of its own.
    """

    cases: Annotated[tuple[str, ...], tyro.conf.Positional] = ("epochs", "steps", "networks", "start-up")
    """Names of cases or families."""
    peers: tuple[str, ...] | None = None
    """Peers of epochs, steps, networks, start-up, growth and sweep. Ratios are relative to the first peer. The
    default is all installed peers except book and torch-compile, which are slow."""
    repeats: int = 7
    """Number of times that each program is timed."""
    seeds: int | None = None
    """nielsen: networks per configuration, by default 20. gradcheck: points per function, by default 5."""
    epochs: int = 30
    """nielsen: epochs of each network. The book's numbers are for 30 epochs."""
    dtypes: tuple[str, ...] = ("float32", "float64")
    """gradcheck: dtypes of the checks."""
    names: bool = False
    """gradcheck: print the names of functions with unexpected verdicts. The file of results always contains them."""
    data_dir: Path | None = None
    """Folder of MNIST. By default JAXGD_DATA_DIR or ~/.cache/jaxgd."""
    out: Path = RESULTS
    """File of results. New rows replace the rows of the same case, variant and precision."""

    def run(self) -> int:
        """Measure, print and store the figures case by case, and return the exit status."""
        from benchmarks.case import Options
        from benchmarks.hardware import stamp
        from benchmarks.registry import UnknownCaseError, chosen
        from benchmarks.table import table
        from benchmarks.training.peers import ALL_PEERS

        try:
            cases = chosen(self.cases)
        except UnknownCaseError as error:
            return _misuse(str(error))
        for name, value in (("repeats", self.repeats), ("seeds", self.seeds), ("epochs", self.epochs)):
            if value is not None and value < 1:
                return _misuse(f"run: expected --{name} to be at least 1, got {value}.")
        if unknown := set(self.peers or ()) - set(ALL_PEERS):
            return _misuse(f"run: expected --peers from {', '.join(ALL_PEERS)}; got {', '.join(sorted(unknown))}.")
        if unknown := set(self.dtypes) - {"float32", "float64"}:
            return _misuse(f"run: expected --dtypes float32 or float64, got {', '.join(sorted(unknown))}.")
        if not self.out.absolute().parent.is_dir():
            return _misuse(f"run: expected --out in an existing folder, got {self.out}.")
        if self.out.exists():
            store.read(self.out)
        data_dir = self.data_dir.expanduser() if self.data_dir else None
        if any(case.needs_mnist for case in cases):
            from jaxgd import load_dataset

            # A missing data set must end the run at the start and not after an hour.
            load_dataset("mnist", data_dir)
        options = Options(self.peers, self.repeats, self.seeds, self.epochs, self.dtypes, data_dir)
        about = stamp()
        host = about["host"]
        print(
            f"{host['processor']}, {host['threads']} threads, {host['isa']}: a matrix product at "
            f"{host['peak_gflops']:.0f} GFLOP/s, a copy at {host['bandwidth_gb_s']:.0f} GB/s"
        )
        for case in cases:
            rows = [dataclasses.replace(row, **about) for row in case.measure(options)]
            print(f"\n{case.title}\n{table(rows, self.names)}", flush=True)
            store.replace(self.out, rows)
        return 0


@dataclasses.dataclass(frozen=True)
class Gradcheck:
    """Check the cases of the gradient checker's corpus, and list those with an unexpected verdict or cause.

    The checks are recorded in a folder. A second run with the same folder lists the recorded verdicts. --ablate replays
    the checks with the present constants.py, core.py, quotients.py and examine.py. Delete the folder after a change of
    any other file of the checker.
    """

    ablate: bool = False
    """Also change one constant, or remove one part of the checker, at a time. List the cases that fail or change."""
    parts: tuple[str, ...] = ()
    """Parts of the corpus: correct, wrong, kinks, adversarial, fresh-right, fresh-wrong, network-right, network-random,
    network-random-claimed, network-trained, network-trained-claimed. The default is
    all parts with --data-dir, and all but the parts network-… without it."""
    seeds: int = 1
    """Points per function."""
    dtypes: tuple[str, ...] = ("float32",)
    """dtypes of the checks."""
    cache: Path = Path("~/.cache/jaxgd/ablation")
    """Folder of the recorded checks."""
    data_dir: Path | None = None
    """Folder of MNIST, for the parts network-…. By default JAXGD_DATA_DIR or ~/.cache/jaxgd."""
    out: Path | None = None
    """File for the rows of the ablation, as JSON."""

    def run(self) -> int:
        """Print the tables, and return the exit status."""
        from benchmarks.ablation.ablate import ablate, unexpected
        from benchmarks.ablation.record import NETWORKS, TABLES, records

        known = (*TABLES, *NETWORKS)
        parts = self.parts or (known if self.data_dir else tuple(TABLES))
        if unknown := set(parts) - set(known):
            return _misuse(f"gradcheck: expected --parts from {', '.join(known)}; got {', '.join(sorted(unknown))}.")
        if unknown := set(self.dtypes) - {"float32", "float64"}:
            return _misuse(f"gradcheck: expected --dtypes float32 or float64, got {', '.join(sorted(unknown))}.")
        if self.seeds < 1:
            return _misuse(f"gradcheck: expected --seeds to be at least 1, got {self.seeds}.")
        if self.out is not None and not self.ablate:
            return _misuse("gradcheck: --out holds the rows of --ablate.\nAdd --ablate, or remove --out.")
        if self.out is not None and not self.out.absolute().parent.is_dir():
            return _misuse(f"gradcheck: expected --out in an existing folder, got {self.out}.")
        data_dir = self.data_dir.expanduser() if self.data_dir else None
        found = records(parts, self.dtypes, self.seeds, self.cache.expanduser(), data_dir)
        unexpected(found)
        if self.ablate:
            rows = ablate(found)
            if self.out is not None:
                self.out.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return 0


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare two files of results. The exit status is 1 if a figure of jaxgd is worse.

    The change of a time is divided by the median change of the other programs in the same case. A slower host is
    therefore not reported as a change. If a case has few programs, a disturbance of one changes the figures of all.
    Counts are exact, so every difference is reported.
    """

    old: Annotated[Path, tyro.conf.Positional]
    """The earlier results."""
    new: Annotated[Path, tyro.conf.Positional]
    """The later results."""
    all: bool = False
    """Also print figures whose noise is unknown."""

    def run(self) -> int:
        """Print a line for each figure in both files, and return the exit status."""
        old, new = store.read(self.old), store.read(self.new)
        found = changes(old, new)
        if not found:
            return _misuse(f"compare: expected files with a figure in common, got {self.old} and {self.new}.")
        for path, rows in ((self.old, old), (self.new, new)):
            hosts = {", ".join(str(row.host.get(k, "?")) for k in ("processor", "threads", "isa")) for row in rows}
            print(f"{path}: {'; '.join(sorted(hosts))}")
        shown = [change for change in found if self.all or change.word != "noise unknown"]
        lines = [(c.new.case, c.new.variant, c.new.quantity, c.text, c.word) for c in shown]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            print("  ".join(f"{text:{width}}" for text, width in zip(line, widths, strict=True)).rstrip())
        if hidden := len(found) - len(shown):
            print(f"The noise of {hidden} of the figures is unknown; --all prints them too.")
        for figure in lost(old, new):
            print(f"not compared: {figure}")
        worse = any(change.word == "worse" and change.new.variant.startswith("jaxgd") for change in found)
        return 1 if worse else 0


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draw speed.png and growth.png from files of results.

    If two files have a row for the same measurement, the picture shows the row of the first file.
    """

    results: Annotated[tuple[Path, ...], tyro.conf.Positional] = (RESULTS, store.FOLDER / "slow-peers.jsonl")
    """Files of results."""
    out: Path = Path("docs")
    """Folder of the pictures."""

    def run(self) -> int:
        """Write the pictures, and return the exit status."""
        from benchmarks.plot import draw

        paths = draw(store.read_all(self.results), self.out)
        if not paths:
            return _misuse(f"plot: expected times of epochs, steps or growth in {', '.join(map(str, self.results))}.")
        for path in paths:
            print(path)
        return 0


@dataclasses.dataclass(frozen=True)
class Device:
    """Measure the GPU with one plan of at most six minutes, or rehearse the plan on the CPU.

    The command has a parser of its own: `python -m benchmarks device --help`.
    """

    def run(self) -> int:
        """Run the whole plan, and return the exit status."""
        from benchmarks.device import command

        return command.main([])


def _misuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def main(words: Sequence[str]) -> int:
    """Run a command. Without a command, list the cases."""
    commands: dict[str, Any] = {
        "list": List, "run": Run, "gradcheck": Gradcheck, "compare": Compare, "plot": Plot,
        "campaign": Campaign, "device": Device,
    }  # fmt: skip
    command: Any = tyro.extras.subcommand_cli_from_dict(commands, prog="python -m benchmarks", args=words or ["list"])
    try:
        status: int = command.run()
    except (ResultsError, JaxgdError) as error:
        return _misuse(str(error))
    return status
