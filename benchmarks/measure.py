"""A case's peers, timed in turns, each in a process of its own."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.peers import OTHER_LOSS

# Costs after the same units may differ by rounding that thousands of steps carried along, and by no more.
PARITY = 0.05


class Worker:
    """A peer's process."""

    def __init__(self, case: Case, peer: str, data_dir: Path) -> None:
        words = [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", case.name, peer, str(data_dir)]
        self.name = f"{case.name}: {peer}"
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, word: str) -> dict[str, float]:
        """What it answers; ends all if it died."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}; what it said stands above.")
        answer: dict[str, float] = json.loads(line)
        return answer

    def end(self) -> None:
        """Stop it."""
        self.process.kill()
        self.process.wait()


def unlike(found: dict[str, dict[str, float]], base: str, start: bool = False) -> dict[str, float]:
    """The peers that did not do the same as one of them: by cost, or by accuracy where cost or start is another."""
    wanted = found[base]
    return {
        peer: answer["cost"]
        for peer, answer in found.items()
        if (
            answer["accuracy"] < wanted["accuracy"] - 0.1
            if start or peer in OTHER_LOSS
            else not abs(answer["cost"] - wanted["cost"]) <= PARITY * wanted["cost"]
        )
    }


def measure(case: Case, peers: tuple[str, ...], repeats: int, data_dir: Path) -> list[dict[str, Any]]:
    """A row for each peer: times of a unit in turns, after parity was found."""
    workers = {peer: Worker(case, peer, data_dir) for peer in peers}
    try:
        first = {peer: worker.ask("unit")["seconds"] for peer, worker in workers.items()}
        found = {peer: worker.ask("cost") for peer, worker in workers.items()}
        if others := unlike(found, peers[0], case.cold):
            raise SystemExit(
                f"{case.name}: after one {case.unit} C is {found[peers[0]]['cost']:.5g} for {peers[0]}, but {others}."
            )
        times: dict[str, list[float]] = {peer: [] for peer in peers}
        for _ in range(repeats):
            for peer, worker in workers.items():
                # What a thread pool leaves spinning comes to rest.
                time.sleep(0.2)
                times[peer].append(worker.ask("turn")["seconds"])
        last = {peer: worker.ask("cost") for peer, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.end()
    base = times[peers[0]]
    return [
        {
            "peer": peer,
            "unit": case.unit,
            **({"growing": case.growing, "size": case.size} if case.growing else {}),
            "seconds": [round(float(q), 6) for q in np.quantile(t, [0.5, 0.1, 0.9])],
            "ratio": [
                round(float(q), 3) for q in np.quantile([x / y for x, y in zip(t, base, strict=True)], [0.5, 0, 1])
            ],
            "gflops": round(case.flop / statistics.median(t) / 1e9, 2),
            "compile_seconds": round(max(first[peer] - statistics.median(t), 0), 3),
            "cost_first": found[peer]["cost"],
            "accuracy_first": found[peer]["accuracy"],
            "megabytes": round(last[peer]["megabytes"], 1),
            "times": [round(x, 6) for x in t],
        }
        for peer, t in times.items()
    ]


def table(case: Case, rows: list[dict[str, Any]], peak_gflops: float) -> str:
    """The rows as text."""
    lines = [f"{case.name}: milliseconds for one {case.unit}, median (tenth to ninetieth percentile)"]
    for row in rows:
        median, low, high = (1e3 * s for s in row["seconds"])
        ratio, least, most = row["ratio"]
        lines.append(
            f"  {row['peer']:14}{median:10.2f} ({low:.2f} to {high:.2f}){ratio:9.2f} × ({least:.2f} to {most:.2f})"
            f"{row['gflops']:8.1f} GFLOP/s, {row['gflops'] / peak_gflops:.0%} of the peak; first "
            f"{row['compile_seconds']:.2f} s more; {row['megabytes']:.0f} MB; "
            f"{row['accuracy_first']:.1%} right after one{'; another loss' if row['peer'] in OTHER_LOSS else ''}"
        )
    return "\n".join(lines)
