"""Bad command lines, generated from the options of all commands.

A refusal must be one line with exit status 2. A failure must print its reason, with exit status 1. A command may be
accepted only if the help text allows all its values. `OPTIONS` states the allowed values.
"""

import contextlib
import dataclasses
import os
import random
import resource
import shlex
import shutil
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.campaign.attack import Attack, Options
from benchmarks.campaign.children import Ending, Job, command, finish, without_network
from benchmarks.campaign.options import FLAG, GOOD, OPTIONS, POSITIONAL, SURROUNDINGS
from benchmarks.campaign.play import Task, play

_SECONDS = 10.0
# Limit on the address space in bytes. JAX reserves more address space than it uses memory.
_MEMORY = 8 * 2**30


class Line(NamedTuple):
    """A generated command line: the command, pairs of option and value, a stray word, and a key of SURROUNDINGS."""

    command: str
    given: tuple[tuple[str, str], ...]
    stray: str
    surroundings: str

    def argv(self, folder: Path) -> list[str]:
        """Return the words of the command line. If a value starts with @, `folder/` replaces the @."""
        words, behind = [self.command], []
        for name, value in self.given:
            value = _full(value, folder)
            if name in POSITIONAL.get(self.command, ()):
                behind.append(value)
            elif OPTIONS[self.command][name] is FLAG:
                words.append(f"--{name}")
            elif name in ("sizes", "start", "eta", "keep"):
                words += [f"--{name}", *value.split()]
            else:
                words.append(f"--{name.rstrip('_').replace('_', '-')}={value}")
        stray = [self.stray] if self.stray else []
        return [*words, *stray, *(["--"] if any(x.startswith("-") for x in behind) else []), *behind]

    def allowed(self, folder: Path) -> bool:
        """Return True if the command may accept all values. Call this in the folder in which the command ran."""
        if self.stray not in ("", "--"):
            return self.stray == "--help"
        with contextlib.suppress(ValueError, OSError):
            return all(OPTIONS[self.command][k].allows(_full(value, folder)) for k, value in dict(self.given).items())
        return False

    def long(self) -> bool:
        """Return True if the command may work for longer than the limit: many epochs, steps or seeds."""
        with contextlib.suppress(ValueError):
            return any(int(value) > 10_000 for name, value in self.given if name in ("epochs", "max_steps", "seeds"))
        return False


def _full(value: str, folder: Path) -> str:
    return f"{folder}/{value[1:]}" if value.startswith("@") else value


def attacks(options: Options) -> Iterator[Attack]:
    """Run generated command lines, and yield the attacks with their outcomes."""
    folder = options.work / "commands"
    ending = finish(Job(lambda: _make_files(folder), folder / "good"))
    if ending.trouble or ending.status:
        yield Attack("reference", "no reference", True, ending.err[-300:])
        return
    rng = random.Random(options.seed)
    yield from play((_one(generated(rng), folder / str(i), folder) for i in range(options.count)), options.jobs)


def generated(rng: random.Random) -> Line:
    """Return a random command line. One to three options have values from OPTIONS, most of which are bad."""
    name = rng.choices(list(OPTIONS), [6, 3, 2, 2, 2, 5, 2, 1])[0]
    drawn = rng.sample(list(OPTIONS[name]), min(len(OPTIONS[name]), rng.choice((1, 1, 1, 2, 3))))
    bad = {option: rng.choice(OPTIONS[name][option].values) for option in drawn}
    good = {k: v for k, v in GOOD[name].items() if not ("resume" in bad and k in ("run_dir", "epochs"))}
    given = [*{**good, **bad}.items()]
    # Positional arguments keep their order, and an option may appear twice.
    order = POSITIONAL.get(name, [])
    given.sort(key=lambda pair: order.index(pair[0]) if pair[0] in order else -1)
    if rng.random() < 0.05 and drawn[0] not in order:
        given.insert(0, (drawn[0], rng.choice(OPTIONS[name][drawn[0]].values)))
    stray = rng.choice(("--foo", "foo", "--eta", "-1", "--help", "--", "--version")) if rng.random() < 0.07 else ""
    return Line(name, tuple(given), stray, rng.choice(list(SURROUNDINGS)) if rng.random() < 0.1 else "")


def _one(line: Line, folder: Path, files: Path) -> Task:
    argv = line.argv(files / "good")

    def hook() -> None:
        without_network()
        os.environ["JAXGD_DATA_DIR"] = "no data"
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.RLIM_INFINITY))
        SURROUNDINGS[line.surroundings]()

    ending = yield Job(command(*argv, hook=hook), folder, limit=_SECONDS)
    kind, succeeded = _judged(line, ending, folder, files / "good")
    words = " ".join(shlex.quote(word if len(word) < 60 else f"{word[:40]}…({len(word)})") for word in argv)
    about = ascii(f"{words}{f' [{line.surroundings}]' if line.surroundings else ''}: {ending.last_line[:160]}")
    group = f"{line.command} {' '.join(sorted(name for name, _ in line.given))}" if kind == "accepted" else ""
    shutil.rmtree(folder, ignore_errors=True)
    return [Attack(line.command, kind, succeeded, about, group)]


def _judged(line: Line, ending: Ending, folder: Path, files: Path) -> tuple[str, bool]:
    """Return the kind of the result, and True if the attack succeeded."""
    with contextlib.chdir(folder) if folder.exists() else contextlib.nullcontext():
        allowed = line.allowed(files)
    if ending.hung and allowed and line.long():
        return "accepted, still running at the time limit", False
    if ending.trouble:
        return ending.trouble, True
    lines = [text for text in ending.err.splitlines() if text.strip()]
    if ending.status == 2:
        return ("refused in one line", False) if len(lines) == 1 else (f"refused in {len(lines)} lines", True)
    if ending.status == 1:
        return ("failed, and says why", False) if lines or ending.out else ("failed without a message", True)
    return ("accepted", False) if allowed else ("accepted, although OPTIONS does not allow it", True)


def fields() -> dict[str, set[str]]:
    """Return the names of each command's arguments."""
    from jaxgd.cli.command import Command

    commands: Any = typing.get_args(Command)
    return {
        typing.get_args(x)[0].__name__.lower(): {field.name for field in dataclasses.fields(typing.get_args(x)[0])}
        for x in commands
    }


def _make_files(folder: Path) -> int:
    """Make the files for values that start with @ in the current folder."""
    from PIL import Image

    from jaxgd.cli import main

    picture = Image.new("L", (20, 20), 255)
    for y in range(4, 16):
        picture.putpixel((10, y), 0)
    picture.save("dot.png")
    Path("model.py").write_text(
        "import jaxgd\nimport jax.numpy as jnp\n\n\ndef cost(v):\n    return (v**2).sum()\n\n\n"
        "def check_cost():\n    return jaxgd.check_gradients(cost, jnp.ones(2))\n"
    )
    Path("folder").mkdir()
    os.symlink("loop", "loop")
    os.symlink("nowhere", "dangling")
    os.mkfifo("pipe")
    Path("images").write_bytes(b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 8, 8)) + bytes(range(128)))
    return main(["train", "--epochs=1", "--run-dir=run", "--no-progress"])
