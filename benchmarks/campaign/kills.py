"""Kills at any moment. The continued run must end with the files of an uninterrupted run."""

import collections
import itertools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.campaign.attack import Attack, Options
from benchmarks.campaign.children import Ending, Job, command
from benchmarks.campaign.failpoints import PHASES, draw
from benchmarks.campaign.play import Task, play

# Files that must be equal byte for byte. Checkpoints and events hold times, so their bytes differ.
SAME = ("network.safetensors", "metrics.jsonl", "config.json")
# Largest number of kills of one run. After more kills, too few epochs would remain.
_KILLS = 5


class Run(NamedTuple):
    """The settings of a run, and its number of epochs."""

    data: str
    batch_size: str
    kernel: str
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return "-".join(map(str, self))

    def start(self, data_dir: Path | None) -> tuple[str, ...]:
        """Return the command that starts the run, with two epochs fewer. The first continuation adds them."""
        return (
            "train", "--run-dir", "run", f"--data={self.data}", f"--batch-size={self.batch_size}",
            f"--kernel={self.kernel}", f"--seed={self.seed}", f"--epochs={self.epochs - 2}", "--checkpoint-every=1",
            "--tensorboard", "--no-progress", *([f"--data-dir={data_dir}"] if self.data == "mnist" else []),
        )  # fmt: skip

    def resume(self) -> tuple[str, ...]:
        """Return the command that continues the run to its end."""
        return (
            "train", "--resume", "run", f"--epochs={self.epochs}", "--checkpoint-every=1", "--tensorboard",
            "--no-progress",
        )  # fmt: skip


class _Kill(NamedTuple):
    """One kill: its phase and moment, its command and failpoint, and the paths that were new after it."""

    target: str
    words: str
    new: set[str]


def runs(data_dir: Path | None) -> list[Run]:
    """Return a run for each combination of data set, batch size, kernel and seed: 24 with MNIST, 12 without."""
    return [
        Run(data, batch_size, kernel, seed, 12 if data == "digits" else 8)
        for seed in (1, 2, 3)
        for data in (("digits",) if data_dir is None else ("digits", "mnist"))
        for batch_size in ("10" if data == "digits" else "100", "full")
        for kernel in ("native", "xla")
    ]


def attacks(options: Options) -> Iterator[Attack]:
    """Kill runs until `count` kills are made and each phase and moment has its share. Yield each kill."""
    folder = options.work / "kills"
    chosen = runs(options.data_dir)
    done: dict[Run, Path] = {}
    counts: collections.Counter[tuple[str, str]] = collections.Counter()

    def lives() -> Iterator[Task]:
        for number in itertools.count():
            if counts.total() >= options.count and min(counts[x] for x in PHASES) >= options.count // len(PHASES):
                return
            run = chosen[number % len(chosen)]
            yield _life(run, number, folder, done, counts, options)

    yield from play(lives(), options.jobs)


def _life(
    run: Run, number: int, folder: Path, done: dict[Run, Path], counts: collections.Counter[tuple[str, str]],
    options: Options,
) -> Task:  # fmt: skip
    """Kill one run several times, complete it, and compare it with the uninterrupted run of the same settings."""
    rng = random.Random(f"{options.seed} {number}")
    start, resume = run.start(options.data_dir), run.resume()
    if run not in done:
        reference = folder / "whole" / run.name
        for argv in (start, resume):
            ending = yield Job(command(*argv), reference)
            if failed := _trouble(ending):
                return [Attack("reference", failed[0], True, f"{failed[1]}: {' '.join(argv)}")]
        done[run] = reference / "run"
    parent = folder / f"life{number}"
    path, config = parent / "run", parent / "run/config.json"
    whole_config = (done[run] / "config.json").read_bytes()
    made: list[_Kill] = []
    trouble: tuple[str, str] | None = None
    for _ in range(_KILLS):
        new = not path.exists()
        writes_config = new or config.read_bytes() != whole_config
        phase, moment = _next(new, writes_config, counts, rng)
        point = None if phase == "anywhere" else draw(phase, moment, rng)
        after = rng.uniform(0.05, 1.0) if point is None else None
        argv = start if new else resume
        before = _names(parent)
        ending = yield Job(command(*argv, hook=point.install if point else None), parent, kill_after=after)
        if ending.status >= 0 or ending.hung:
            # The command ended before the kill, or hung.
            trouble = _trouble(ending)
            break
        counts[phase, moment] += 1
        where = point or f"SIGKILL after {after:.3f} s"
        made.append(_Kill(f"{phase} {moment}", f"{'start' if new else 'resume'} {where}", _names(parent) - before))
    completed = False
    while trouble is None and not completed:
        argv = resume if path.exists() else start
        trouble, completed = _trouble((yield Job(command(*argv), parent))), argv == resume
    trouble = trouble or difference(path, done[run])
    litter = _names(parent) - _names(done[run].parent)
    shutil.rmtree(parent)
    story = f"life {number} of {run.name}: {'; '.join(kill.words for kill in made)}"
    attacks = []
    for kill in made:
        left = sorted(kill.new & litter)
        kind, what = trouble or (("litter", ", ".join(left)) if left else ("same bits", ""))
        attacks.append(Attack(kill.target, kind, kind != "same bits", f"{what}: {kill.words}, {story}"))
    return attacks


def _next(
    new: bool, writes_config: bool, counts: collections.Counter[tuple[str, str]], rng: random.Random
) -> tuple[str, str]:
    """Return the phase and moment with the fewest kills so far. The next command must be able to reach them."""
    reachable = [x for x in PHASES if x[0] != "configuration" or writes_config]
    if new and rng.random() < 0.5:
        # Aim half of the kills of new runs at config.json, because most later commands do not write this file.
        reachable = [x for x in PHASES if x[0] == "configuration"]
    rng.shuffle(reachable)
    return min(reachable, key=counts.__getitem__)


def _trouble(ending: Ending) -> tuple[str, str] | None:
    """Return the kind and the description of the failure of a command, or None if it completed."""
    if ending.trouble or ending.status != 0:
        return ending.trouble or "refused", f"status {ending.status}: {ending.last_line}"
    return None


def difference(path: Path, reference: Path) -> tuple[str, str] | None:
    """Return the kind and the description of a difference from the uninterrupted run, or None."""
    for name in SAME:
        if (path / name).read_bytes() != (reference / name).read_bytes():
            return "other bits", name
    if lost := sorted(_names(reference.parent) - _names(path.parent)):
        return "lost", ", ".join(lost)
    return None


def _names(parent: Path) -> set[str]:
    """Return the paths in a run's parent folder, in the run folder and in its folder of checkpoints."""
    folders = (parent, parent / "run", parent / "run/checkpoints")
    return {str(path.relative_to(parent)) for folder in folders if folder.is_dir() for path in folder.iterdir()}
