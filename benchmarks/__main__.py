"""The speed of epochs and steps, beside other libraries: `python -m benchmarks`."""

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from benchmarks.cases import CASES, Case
from benchmarks.compare import changes, read
from benchmarks.peers import NEEDS, PEERS, SLOW, is_here
from jaxgd.files import write_atomically

# Costs after the same units may differ by rounding that thousands of steps carried along, and by no more.
PARITY = 0.05


@dataclasses.dataclass(frozen=True)
class List:
    """List the cases and peers."""

    def run(self) -> int:
        """Print them."""
        for case in CASES:
            batch = "the full batch" if case.batch_size is None else f"mini-batches of {case.batch_size}"
            print(f"{case.name:16} one {case.unit} of {case.n:,} images, {batch}, sizes {list(case.sizes)}")
        print(f"\npeers: {', '.join(PEERS)}")
        return 0


@dataclasses.dataclass(frozen=True)
class Run:
    """Time jaxgd and its peers, taking turns, each in a process of its own."""

    cases: Annotated[tuple[str, ...], tyro.conf.Positional] = tuple(case.name for case in CASES)
    """Which cases."""
    peers: tuple[str, ...] = tuple(name for name in PEERS if name not in SLOW and is_here(name))
    """Which peers; the first is what the others are held against."""
    repeats: int = 7
    """Units of each that are timed, after a first one that is not."""
    data_dir: Path = Path("~/.cache/jaxgd")
    """Where MNIST is."""
    out: Path = Path("benchmarks/results/speed.jsonl")
    """Where results are kept, one line a case and peer."""

    def run(self) -> int:
        """Measure, print and keep; a case's lines replace its earlier ones."""
        known = {case.name: case for case in CASES}
        if unknown := [name for name in self.cases if name not in known]:
            raise SystemExit(f"no such case: {', '.join(unknown)}. There are {', '.join(known)}.")
        if unknown := [name for name in self.peers if name not in PEERS]:
            raise SystemExit(f"no such peer: {', '.join(unknown)}. There are {', '.join(PEERS)}.")
        if missing := [name for name in self.peers if not is_here(name)]:
            raise SystemExit(f"{', '.join(missing)}: not installed. pip install {NEEDS[missing[0]]}")
        about = _about()
        for name in self.cases:
            rows = measure(known[name], self.peers, self.repeats, self.data_dir.expanduser())
            _print(known[name], rows)
            kept = [json.loads(line) for line in self.out.read_text().splitlines()] if self.out.exists() else []
            kept = [row for row in kept if row["case"] != name]
            kept += [{"case": name, **row, **about} for row in rows]
            write_atomically(self.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept).encode())
        return 0


@dataclasses.dataclass(frozen=True)
class Compare:
    """Say what changed between two files of results beyond the noise. Exit status 1 if jaxgd became slower."""

    old: Annotated[Path, tyro.conf.Positional]
    new: Annotated[Path, tyro.conf.Positional]

    def run(self) -> int:
        """Print it."""
        found = changes(read(self.old), read(self.new))
        for change in found:
            word = "within the noise" if not change.real else "slower" if change.factor > 1 else "faster"
            print(f"{change.case:16}{change.peer:16}{change.factor:8.3f} × (noise {change.noise:.3f})  {word}")
        slower = any(change.real and change.factor > 1 and change.peer.startswith("jaxgd") for change in found)
        return 1 if slower else 0


class Worker:
    """A peer's process."""

    def __init__(self, case: Case, peer: str, data_dir: Path) -> None:
        words = [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", case.name, peer, str(data_dir)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, word: str) -> dict[str, float]:
        """What it answers; raises if it died."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def end(self) -> None:
        """Stop it."""
        self.process.kill()
        self.process.wait()


def measure(case: Case, peers: tuple[str, ...], repeats: int, data_dir: Path) -> list[dict[str, Any]]:
    """A row for each peer: times of a unit in turns, after parity was found."""
    workers = {peer: Worker(case, peer, data_dir) for peer in peers}
    try:
        first = {peer: worker.ask("unit")["seconds"] for peer, worker in workers.items()}
        costs = {peer: worker.ask("cost")["cost"] for peer, worker in workers.items()}
        wanted = costs[peers[0]]
        unlike = {peer: c for peer, c in costs.items() if abs(c - wanted) > PARITY * wanted}
        if unlike:
            raise SystemExit(f"{case.name}: after one {case.unit} C is {wanted:.5g} for {peers[0]}, but {unlike}.")
        times: dict[str, list[float]] = {peer: [] for peer in peers}
        for _ in range(repeats):
            for peer, worker in workers.items():
                # What a thread pool leaves spinning comes to rest.
                time.sleep(0.2)
                times[peer].append(worker.ask("unit")["seconds"])
        last = {peer: worker.ask("cost") for peer, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.end()
    base = times[peers[0]]
    return [
        {
            "peer": peer,
            "unit": case.unit,
            "seconds": [round(float(q), 6) for q in np.quantile(t, [0.5, 0.1, 0.9])],
            "ratio": round(statistics.median(x / y for x, y in zip(t, base, strict=True)), 3),
            "gflops": round(case.flop / statistics.median(t) / 1e9, 2),
            "compile_seconds": round(max(first[peer] - statistics.median(t), 0), 3),
            "cost_first": costs[peer],
            "cost_last": last[peer]["cost"],
            "megabytes": round(last[peer]["megabytes"], 1),
            "times": [round(x, 6) for x in t],
        }
        for peer, t in times.items()
    ]


def _print(case: Case, rows: list[dict[str, Any]]) -> None:
    print(f"\n{case.name}: milliseconds for one {case.unit}, median (tenth to ninetieth percentile)")
    for row in rows:
        median, low, high = (1e3 * s for s in row["seconds"])
        print(
            f"  {row['peer']:16}{median:10.2f} ({low:.2f} to {high:.2f}){row['ratio']:9.2f} ×"
            f"{row['gflops']:9.1f} GFLOP/s, first {row['compile_seconds']:.2f} s more, "
            f"{row['megabytes']:.0f} MB, C = {row['cost_last']:.5g}",
            flush=True,
        )


def _about() -> dict[str, Any]:
    import jax

    from jaxgd.kernels import native

    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "device": jax.devices()[0].device_kind,
        "machine": _processor(),
        "threads": len(os.sched_getaffinity(0)),
        "native": native.about(),
        "dtype": "float32",
        "versions": {name: _version(name) for name in ("jaxgd", "jax", "numpy", "torch")},
        "commit": found.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> int:
    """List what there is, or run it."""
    command: Any = tyro.extras.subcommand_cli_from_dict(
        {"list": List, "run": Run, "compare": Compare}, prog="python -m benchmarks"
    )
    result: int = command.run()
    return result


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.argv.append("list")
    sys.exit(main())
