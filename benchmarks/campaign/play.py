"""Run tasks, several at a time. A task starts child processes and judges how they end."""

import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.campaign.attack import Attack, Options
from benchmarks.campaign.children import POLL, Child, Ending, Job
from benchmarks.campaign.children import limit as set_limit

# Largest number of attacks that one child makes.
_CHUNK = 100

Task = Generator[Job, Ending, Sequence[Attack]]


def play(tasks: Iterable[Task], jobs: int) -> Iterator[Attack]:
    """Run tasks, `jobs` of them at a time, and yield the attacks of each task when it ends.

    A task is a generator. It yields jobs, receives the ending of each job, and returns its attacks.
    """
    waiting = iter(tasks)
    running: list[tuple[Task, Child]] = []
    try:
        while True:
            while len(running) < jobs and (task := next(waiting, None)) is not None:
                running.append((task, Child(next(task))))
            if not running:
                return
            time.sleep(POLL)
            for pair in list(running):
                task, child = pair
                if (ending := child.ending()) is None:
                    continue
                running.remove(pair)
                try:
                    running.append((task, Child(task.send(ending))))
                except StopIteration as done:
                    yield from done.value
    finally:
        for _, child in running:
            child.end()


class Try(NamedTuple):
    """An attack to make inside a child.

    Attributes:
        target: Target of the attack.
        about: The attack in words, for the report if it hangs or ends the child.
        make: Function that makes the attack.
    """

    target: str
    about: str
    make: Callable[[], Attack]


def isolated(attacks: Sequence[Try], folder: Path, options: Options, limit: float = 10.0) -> Iterator[Attack]:
    """Make attacks inside children, at most a hundred per child, and yield the attacks with their outcomes."""
    chunks = [attacks[i : i + _CHUNK] for i in range(0, len(attacks), _CHUNK)]
    return play((_one_after_the_other(chunk, folder / str(i), limit) for i, chunk in enumerate(chunks)), options.jobs)


def _one_after_the_other(attacks: Sequence[Try], folder: Path, limit: float) -> Task:
    """Make attacks one after the other in a child.

    An attack that lasts longer than the limit, or that ends the child, has succeeded. A new child makes the remaining
    attacks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / "attacks.jsonl"
    found: list[Attack] = []
    while len(found) < len(attacks):
        first = len(found)
        journal.write_bytes(b"")

        def work(first: int = first) -> int:
            with journal.open("a", encoding="utf-8") as file:
                for attack in attacks[first:]:
                    set_limit(limit)
                    done = attack.make()
                    set_limit(0)
                    print(json.dumps(done), file=file, flush=True)
            return 0

        ending = yield Job(work, folder, limit=limit * (len(attacks) - first) + 60)
        found += [Attack(*json.loads(line)) for line in journal.read_text(encoding="utf-8").splitlines()]
        if len(found) < len(attacks):
            lost = attacks[len(found)]
            found.append(Attack(lost.target, ending.trouble or "exit", True, f"{lost.about}: {ending.last_line}"))
    return found
