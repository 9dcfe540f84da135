"""Exhausted resources: a full disk, few files, little memory, a closed pipe, a run folder that disappears.

The command must end with the complete result, or with one clear line and a status other than 0. If the run folder still
exists, the continued run must end with the same bits. Two exceptions are allowed. XLA may abort the process when memory
runs out. A command that cannot write its output may end without the line.
"""

import contextlib
import functools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.campaign.attack import Attack, Options
from benchmarks.campaign.children import Ending, Job, command, finish, open_stderr
from benchmarks.campaign.kills import difference
from benchmarks.campaign.play import Task, play

_TRAIN = (
    "train", "--run-dir", "run", "--epochs=10", "--checkpoint-every=1", "--tensorboard", "--no-progress",
)  # fmt: skip
_RESUME = ("train", "--resume", "run", "--checkpoint-every=1", "--tensorboard", "--no-progress")
_DISKS = (4, 8, 16, 32, 64, 100, 150, 200, 300, 400, 600, 800)  # KiB
_STREAMS = {1: "stdout", 2: "stderr"}
# Largest number of attacks with each limit.
_MOST = 5


class Limit(NamedTuple):
    """A limited resource.

    Attributes:
        target: The resource.
        about: The limit in words.
        hook: Function that the child process calls before the command.
        disk: Size in KiB of a small file system for the run. None means the ordinary file system. -1 means a new run on
            a read-only file system, and -2 a continued run on it.
        gone: True if the run folder disappears, so that the run cannot continue.
    """

    target: str
    about: str
    hook: Callable[[], None] = lambda: None
    disk: int | None = None
    gone: bool = False


def attacks(options: Options) -> Iterator[Attack]:
    """Run the command under each limit, and yield the attacks with their results."""
    folder = options.work / "limits"
    ending = finish(Job(command(*_TRAIN), folder / "whole"))
    if ending.trouble or ending.status:
        yield Attack("reference", "no reference", True, ending.err[-300:])
        return
    rng = random.Random(options.seed)
    chosen = [limit for _ in range(_MOST) for limit in _limits(rng)][: options.count]
    yield from play(
        (_one(limit, folder / f"limit{i}", folder / "whole/run") for i, limit in enumerate(chosen)), options.jobs
    )


def _limits(rng: random.Random) -> list[Limit]:
    """Return every limit once, with random sizes of disks, numbers of files and epochs."""
    present = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    disks = [kib + rng.randrange(4) for kib in _DISKS]
    limits = [Limit("full disk", f"{kib} KiB", disk=kib) for kib in disks]
    for files in (4, 8, 16, 24, 32):
        files += rng.randrange(4)
        limits.append(Limit("few files", f"{files} open files", functools.partial(_set, resource.RLIMIT_NOFILE, files)))
    for mib in (16, 256, 1024, 2048):
        size = present + mib * 2**20
        limits.append(Limit("little memory", f"{mib} MiB free", functools.partial(_set, resource.RLIMIT_AS, size)))
    limits += [
        Limit("stdout", "a pipe that is closed", _closed_pipe),
        Limit("stdout", "not open", functools.partial(_closed, 1)),
        Limit("stdout", "a full device", functools.partial(_full, 1)),
        Limit("stderr", "a full device", functools.partial(_full, 2)),
        Limit("stderr", "not open", functools.partial(_closed, 2)),
    ]
    for words, act in (
        ("deleted", _delete),
        ("replaced by a folder", _replace),
        ("replaced by a file", _replace_by_file),
    ):
        epoch = rng.randint(1, 8)
        hook = functools.partial(_at_epoch, epoch, act)
        limits.append(Limit("run folder", f"{words} in epoch {epoch}", hook, gone=True))
    limits += [Limit("read-only folder", "a new run", disk=-1), Limit("read-only folder", "a continued run", disk=-2)]
    return limits


def _one(limit: Limit, parent: Path, whole: Path) -> Task:
    """Run the command under the limit, then continue without it."""
    parent.mkdir(parents=True)
    mounted = False
    hook = limit.hook
    if limit.disk is not None and limit.disk > 0:
        mounted = _mount(parent, f"size={limit.disk}k")
        if not mounted:
            hook = functools.partial(_set, resource.RLIMIT_FSIZE, 1024 * limit.disk)
    argv = _TRAIN
    try:
        if limit.disk is not None and limit.disk < 0:
            mounted = _mount(parent, "size=64m")
            if limit.disk == -2:
                yield Job(command(*_TRAIN, "--epochs=5"), parent)
                argv = (*_RESUME, "--epochs=10")
            if not (mounted and _mount(parent, "remount,ro")):
                return []  # only root may mount
        ending = yield Job(command(*argv, hook=hook), parent)
        if mounted:
            _mount(parent, "remount,rw,size=64m")
        kind, failed = _judged(limit, ending, parent / "run", whole)
        if not failed and not limit.gone:
            again = (*_RESUME, "--epochs=10") if (parent / "run/config.json").exists() else _TRAIN
            after = yield Job(command(*again), parent)
            if after.trouble or after.status:
                kind, failed = f"{kind}; then cannot continue", True
            elif change := difference(parent / "run", whole):
                kind, failed = f"{kind}; then {change[0]}", True
        how = "" if limit.disk is None else ", tmpfs" if mounted else ", RLIMIT_FSIZE"
        about = f"{limit.about}: status {ending.status}: {ending.last_line}"
        return [Attack(f"{limit.target}{how}", kind, failed, about)]
    finally:
        if mounted:
            _unmount(parent)


def _judged(limit: Limit, ending: Ending, run: Path, whole: Path) -> tuple[str, bool]:
    """Return the kind of the result under the limit, and True if the attack succeeded."""
    if limit.target == "little memory" and ending.status == -signal.SIGABRT:
        # XLA ends the process when it gets no memory, and Python cannot prevent this. The run must still continue.
        return "died by SIGABRT in a library", False
    if ending.trouble:
        return ending.trouble, True
    if ending.status == 0:
        with contextlib.suppress(OSError):
            if difference(run, whole) is None:
                return "complete", False
        return "status 0 without the result", True
    if limit.target == "stderr":
        return "failed", False
    said = [line for line in ending.err.splitlines() if line.startswith("jaxgd")]
    if limit.target == "stdout" and not said and ending.err:
        return "no clear line about stdout", False  # as for most programs when `head` closes their output
    return ("one clear line", False) if len(said) == 1 else (f"{len(said)} lines of an error", True)


def _set(what: int, most: int) -> None:
    resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def _closed_pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    _redirect(1, writer)


def _full(number: int) -> None:
    _redirect(number, os.open("/dev/full", os.O_WRONLY))


def _closed(number: int) -> None:
    os.close(number)
    setattr(sys, _STREAMS[number], None)  # Python also sets None when it starts with a closed stream


def _redirect(number: int, file: int) -> None:
    os.dup2(file, number)
    stream = open_stderr() if number == 2 else os.fdopen(number, "w", encoding="utf-8", closefd=False)
    setattr(sys, _STREAMS[number], stream)


def _at_epoch(epoch: int, act: Callable[[], None]) -> None:
    """Call `act` just before the metrics of this epoch are written."""
    seen = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        # `jaxgd.files.append` calls os.open. The arguments of its audit event are the path, None and the flags.
        if event == "open" and isinstance(args[2], int) and args[2] & os.O_APPEND and "metrics.jsonl" in str(args[0]):
            seen += 1
            if seen == epoch + 1:
                act()

    sys.addaudithook(hook)


def _delete() -> None:
    shutil.rmtree("run", ignore_errors=True)


def _replace() -> None:
    os.rename("run", "moved")
    os.mkdir("run")


def _replace_by_file() -> None:
    os.rename("run", "moved")
    Path("run").write_text("")


def _mount(folder: Path, how: str) -> bool:
    words = ["mount", *(["-t", "tmpfs"] if "remount" not in how else []), "-o", how, "tmpfs", str(folder)]
    with contextlib.suppress(OSError):
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    return False


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)
