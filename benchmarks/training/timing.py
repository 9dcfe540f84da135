"""Time a case of training. Each peer has a process of its own, and the peers run in turn."""

import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import DEFAULT_PRECISION, Case, Options
from benchmarks.rows import Row, sampled, significant
from benchmarks.training.peers import NEEDS, OTHER_LOSS, SLOW, is_installed, peers_of
from benchmarks.training.work import WORKS, Work

# The largest relative difference between the costs of two peers that did the same work. It is large because rounding
# errors grow over thousands of steps.
PARITY = 0.05
# The accuracy of a peer with another cost or another order of the examples may be lower by at most this value.
ACCURACY_PARITY = 0.1
# The pause before each timing, in seconds. The threads of the previous peer stop spinning in this time.
PAUSE = 0.2


class Worker:
    """The process of one peer."""

    def __init__(self, work: Work, peer: str, data_dir: Path | None) -> None:
        words = [sys.executable, "-W", "ignore", "-m", "benchmarks.training.worker", work.name, peer]
        self.name = f"{work.name}: {peer}"
        words += [str(data_dir)] if data_dir else []
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, word: str) -> dict[str, float]:
        """Send a word to the process and return the answer. Exit if the process has ended."""
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
    """Return the cost of each peer that did not do the same work as the peer `base`.

    Two peers did the same work if their costs agree. A peer that minimizes another cost is compared by its accuracy. So
    are all peers if a unit is a whole process (`cold`), because these peers use the examples in different orders.
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


def measure(work: Work, options: Options) -> Iterator[Row]:
    """Yield the time, compile time and memory of each peer. Exit if the peers did not do the same work."""
    peers = chosen_peers(work.name, peers_of(work), options.peers)
    workers = {peer: Worker(work, peer, options.data_dir) for peer in peers}
    try:
        first = {peer: worker.ask("unit")["seconds"] for peer, worker in workers.items()}
        answers = {peer: worker.ask("cost") for peer, worker in workers.items()}
        if others := unlike(answers, peers[0], work.cold):
            base = f"C is {answers[peers[0]]['cost']:.5g} for {peers[0]}"
            raise SystemExit(f"{work.name}: after one {work.unit} {base}, but {others}.")
        times: dict[str, list[float]] = {peer: [] for peer in peers}
        for _ in range(options.repeats):
            for peer, worker in workers.items():
                time.sleep(PAUSE)
                times[peer].append(worker.ask("turn")["seconds"])
        memory = {peer: worker.ask("cost")["mebibytes"] for peer, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.end()
    for peer in peers:
        median = statistics.median(times[peer])
        details: dict[str, Any] = {
            "cost": answers[peer]["cost"],
            "accuracy": answers[peer]["accuracy"],
            "gflops": round(work.flop / median / 1e9, 2),
            "baseline": peers[0],
            "ratio": ratios(times[peer], times[peers[0]]),
        }
        if work.growing:
            details |= {"growing": work.growing, "size": work.size}
        row = functools.partial(sampled, work.name, peer, precision=DEFAULT_PRECISION)
        yield row("time", f"s/{work.unit}", times[peer], details=details)
        yield row("compile time", "s", [max(first[peer] - median, 0)])
        yield row("memory", "MiB", [round(memory[peer], 1)])


def chosen_peers(case: str, able: Iterable[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the peers in `wanted` that can do the case, by default the installed peers that are not in SLOW."""
    if wanted is None:
        return tuple(peer for peer in able if peer not in SLOW and is_installed(peer))
    chosen = tuple(peer for peer in wanted if peer in able)
    if not chosen:
        raise SystemExit(f"{case}: expected --peers from {', '.join(able)}; got {', '.join(wanted)}.")
    if missing := [peer for peer in chosen if not is_installed(peer)]:
        raise SystemExit(f"{', '.join(missing)}: not installed. pip install {NEEDS[missing[0]]}")
    return chosen


def ratios(times: Sequence[float], base: Sequence[float]) -> list[float]:
    """Return the median, minimum and maximum of the ratios times[i] / base[i]."""
    return [significant(q) for q in np.quantile([x / y for x, y in zip(times, base, strict=True)], [0.5, 0, 1])]


CASES = tuple(
    Case(work.name, work.family, work.title, functools.partial(measure, work), needs_mnist=not work.cold)
    for work in WORKS
)
