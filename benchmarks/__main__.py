"""The speed of epochs and steps, beside other libraries: `python -m benchmarks`."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.cases import CASES, GROWTH, Case
from benchmarks.compare import changes, read
from benchmarks.hardware import about, peak
from benchmarks.measure import measure, table
from benchmarks.peers import NEEDS, OF_NETWORKS, OF_START, PEERS, SLOW, is_here, peers_of
from benchmarks.plot import draw
from jaxgd.files import write_atomically

RESULTS = Path("benchmarks/results/speed.jsonl")


@dataclasses.dataclass(frozen=True)
class List:
    """List the cases and peers."""

    def run(self) -> int:
        """Print them."""
        for case in (*CASES, *GROWTH):
            if case.cold:
                print(f"{case.name:22} one process, {case.epochs} epochs of digits, as `jaxgd train` goes by itself")
                continue
            batch = "the full batch" if case.batch_size is None else f"mini-batches of {case.batch_size}"
            many = f"{case.networks} networks, " if case.networks > 1 else ""
            print(f"{case.name:22} {many}one {case.unit} of {case.n:,} images, {batch}, sizes {list(case.sizes)}")
        print(f"\npeers: {', '.join(PEERS)}\npeers where there are many networks: {', '.join(OF_NETWORKS)}")
        print(f"peers from a cold start: {', '.join(OF_START)}")
        return 0


@dataclasses.dataclass(frozen=True)
class Run:
    """Time jaxgd and its peers, taking turns, each in a process of its own."""

    cases: Annotated[tuple[str, ...], tyro.conf.Positional] = tuple(case.name for case in CASES)
    """Which cases; `growth` is all where something grows."""
    peers: tuple[str, ...] | None = None
    """Which peers; the first is what the others are held against. By default all that are here and not very slow."""
    repeats: int = 7
    """Turns of each that are timed."""
    data_dir: Path = Path("~/.cache/jaxgd")
    """Where MNIST is."""
    out: Path = RESULTS
    """Where results are kept, one line a case and peer."""

    def run(self) -> int:
        """Measure, print and keep; a case's lines replace its earlier ones."""
        known = {case.name: case for case in (*CASES, *GROWTH)}
        names = [n for name in self.cases for n in ([c.name for c in GROWTH] if name == "growth" else [name])]
        if unknown := [name for name in names if name not in known]:
            raise SystemExit(f"no such case: {', '.join(unknown)}. There are {', '.join(known)}.")
        if self.repeats < 1:
            raise SystemExit(f"--repeats must be at least 1, got {self.repeats}.")
        if not self.out.absolute().parent.is_dir():
            raise SystemExit(f"--out: there is no folder {self.out.absolute().parent}.")
        asked = self.peers or ()
        peers = {**PEERS, **OF_NETWORKS, **OF_START}
        if unknown := [name for name in asked if name not in peers]:
            raise SystemExit(f"no such peer: {', '.join(unknown)}. There are {', '.join(peers)}.")
        if missing := [name for name in asked if not is_here(name)]:
            raise SystemExit(f"{', '.join(missing)}: not installed. pip install {NEEDS[missing[0]]}")
        here, most = about(), peak()
        print(f"{here['machine']}, {here['threads']} threads: a matrix product at {most['peak_gflops']:.0f} GFLOP/s, "
              f"a copy at {most['bandwidth_gb_s']:.0f} GB/s")  # fmt: skip
        for name in names:
            rows = measure(known[name], self._peers(known[name]), self.repeats, self.data_dir.expanduser())
            print("\n" + table(known[name], rows, most["peak_gflops"]), flush=True)
            kept = read(self.out) if self.out.exists() else []
            kept = [row for row in kept if row["case"] != name]
            kept += [{"case": name, **row, **here, **most} for row in rows]
            write_atomically(self.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept).encode())
        return 0

    def _peers(self, case: Case) -> tuple[str, ...]:
        can = peers_of(case)
        chosen = tuple(name for name in (self.peers or can) if name in can)
        if not chosen:
            raise SystemExit(f"{case.name}: of the peers, none can run it. There are {', '.join(can)}.")
        return chosen if self.peers else tuple(n for n in chosen if n not in SLOW and is_here(n))


@dataclasses.dataclass(frozen=True)
class Compare:
    """Say what changed between two files of results beyond the noise. Exit status 1 if jaxgd became slower.

    Each peer's new time over its old one is held against that of the others in its case, so that a slower day of the
    whole machine is no change: with few peers, one that was disturbed shows in all.
    """

    old: Annotated[Path, tyro.conf.Positional]
    new: Annotated[Path, tyro.conf.Positional]

    def run(self) -> int:
        """Print it."""
        found = changes(read(self.old), read(self.new))
        if not found:
            print(f"{self.old} and {self.new} have no case and peer in common.", file=sys.stderr)
            return 2
        for change in found:
            word = "within the noise" if not change.real else "slower" if change.factor > 1 else "faster"
            print(f"{change.case:22}{change.peer:16}{change.factor:8.3f} × (noise {change.noise:.3f})  {word}")
        slower = any(change.real and change.factor > 1 and change.peer.startswith("jaxgd") for change in found)
        return 1 if slower else 0


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draw the bars and the growth of a file of results."""

    results: Annotated[Path, tyro.conf.Positional] = RESULTS
    out: Path = Path("docs")
    """The folder of the pictures."""

    def run(self) -> int:
        """Write them."""
        if not (rows := read(self.results)):
            print(f"{self.results} has no results.", file=sys.stderr)
            return 2
        for path in draw(rows, self.out):
            print(path)
        return 0


def main() -> int:
    """List what there is, or run it."""
    command: Any = tyro.extras.subcommand_cli_from_dict(
        {"list": List, "run": Run, "compare": Compare, "plot": Plot}, prog="python -m benchmarks"
    )
    result: int = command.run()
    return result


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.argv.append("list")
    sys.exit(main())
