"""Timing of a case of training: its peers take turns, each in a process of its own."""

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import DEFAULT_PRECISION, Options
from benchmarks.rows import Row, sampled, significant
from benchmarks.training.peers import NEEDS, OTHER_LOSS, SLOW, is_installed, peers_of
from benchmarks.training.work import WORKS, Work

# Costs after the same units may differ by this share: rounding errors grow over thousands of steps.
PARITY = 0.05
# Where the cost or the first orders differ, accuracies may differ by this much.
ACCURACY_PARITY = 0.1
# Seconds between turns, in which the threads of the last peer stop spinning.
PAUSE = 0.2


class Worker:
    """The process of one peer."""

    def __init__(self, work: Work, peer: str, data_dir: Path | None) -> None:
        words = [sys.executable, "-W", "ignore", "-m", "benchmarks.training.worker", work.name, peer]
        self.name = f"{work.name}: {peer}"
        words += [str(data_dir)] if data_dir else []
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, word: str) -> dict[str, float]:
        """Return the answer to a word, or exit if the process has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with status {self.process.wait()}; its messages are above.")
        answer: dict[str, float] = json.loads(line)
        return answer

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait()


def unlike(answers: dict[str, dict[str, float]], base: str, cold: bool = False) -> dict[str, float]:
    """Return the cost of each peer that did not do the same work as the base.

    Costs are compared. Accuracies are compared for peers with another loss, and for cold cases, which do not share
    their orders.
    """
    wanted = answers[base]
    return {
        peer: answer["cost"]
        for peer, answer in answers.items()
        if (
            not answer["accuracy"] >= wanted["accuracy"] - ACCURACY_PARITY
            if cold or peer in OTHER_LOSS
            else not abs(answer["cost"] - wanted["cost"]) <= PARITY * wanted["cost"]
        )
    }


@dataclasses.dataclass(frozen=True)
class TrainingCase:
    """An epoch, a step, many networks or a process, timed for jaxgd and its peers."""

    work: Work

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.work.name

    @property
    def family(self) -> str:
        """Name of the family."""
        return self.work.family

    @property
    def title(self) -> str:
        """One line that says what is done."""
        return self.work.title

    @property
    def needs_mnist(self) -> bool:
        """True if the case reads MNIST."""
        return not self.work.cold

    def measure(self, options: Options) -> Iterator[Row]:
        """Yield time, compile time and memory of each peer, after their costs have been found equal."""
        peers = self.peers(options.peers)
        workers = {peer: Worker(self.work, peer, options.data_dir) for peer in peers}
        try:
            first = {peer: worker.ask("unit")["seconds"] for peer, worker in workers.items()}
            answers = {peer: worker.ask("cost") for peer, worker in workers.items()}
            if others := unlike(answers, peers[0], self.work.cold):
                raise SystemExit(
                    f"{self.name}: after one {self.work.unit} C is {answers[peers[0]]['cost']:.5g} for {peers[0]}, "
                    f"but {others}."
                )
            times: dict[str, list[float]] = {peer: [] for peer in peers}
            for _ in range(options.repeats):
                for peer, worker in workers.items():
                    time.sleep(PAUSE)
                    times[peer].append(worker.ask("turn")["seconds"])
            memory = {peer: worker.ask("cost")["megabytes"] for peer, worker in workers.items()}
        finally:
            for worker in workers.values():
                worker.end()
        for peer in peers:
            median = statistics.median(times[peer])
            details = {
                "cost": answers[peer]["cost"],
                "accuracy": answers[peer]["accuracy"],
                "gflops": round(self.work.flop / median / 1e9, 2),
                "baseline": peers[0],
                "ratio": ratios(times[peer], times[peers[0]]),
            }
            yield self.row(peer, "time", f"s/{self.work.unit}", times[peer], details)
            yield self.row(peer, "compile time", "s", [max(first[peer] - median, 0)])
            yield self.row(peer, "memory", "MB", [round(memory[peer], 1)])

    def row(self, peer: str, quantity: str, unit: str, samples: Sequence[float], details: Any = None) -> Row:
        """Return one row of a peer."""
        details = details or {}
        if self.work.growing and quantity == "time":
            details |= {"growing": self.work.growing, "size": self.work.size}
        return sampled(self.name, peer, quantity, unit, samples, precision=DEFAULT_PRECISION, details=details)

    def peers(self, wanted: Sequence[str] | None) -> tuple[str, ...]:
        """Return the wanted peers that can run the case; by default the installed ones that are not very slow."""
        able = peers_of(self.work)
        if wanted is None:
            return tuple(peer for peer in able if peer not in SLOW and is_installed(peer))
        chosen = tuple(peer for peer in wanted if peer in able)
        if not chosen:
            raise SystemExit(f"{self.name}: expected --peers from {', '.join(able)}; got {', '.join(wanted)}.")
        if missing := [peer for peer in chosen if not is_installed(peer)]:
            raise SystemExit(f"{', '.join(missing)}: not installed. pip install {NEEDS[missing[0]]}")
        return chosen


def ratios(times: Sequence[float], base: Sequence[float]) -> list[float]:
    """Return median, minimum and maximum of the ratios of two series, turn by turn."""
    return [significant(q) for q in np.quantile([x / y for x, y in zip(times, base, strict=True)], [0.5, 0, 1])]


CASES = tuple(TrainingCase(work) for work in WORKS)
