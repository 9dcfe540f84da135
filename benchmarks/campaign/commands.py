"""Bad command lines, generated from the options of all commands: each ends at once, with one line that says why.

An accepted command must be right: every value must be one that the help text allows. `OPTIONS` states that.
"""

import contextlib
import dataclasses
import math
import os
import random
import resource
import shlex
import shutil
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.campaign.attack import Attack, Options
from benchmarks.campaign.children import Ending, Job, Task, command, finish, play, without_network

_SECONDS = 10.0
# JAX reserves more addresses than it uses memory.
_MEMORY = 8 * 2**30

NUMBERS = (
    "nan", "inf", "-inf", "-1", "0", "-0.0", "1e400", "1e-400", "1e39", "1e-46", "9" * 30, "0x10", "1_000", "٣", "½",
    "", " ", "3,0", "true", "None", "--", "-", "1e3", "2**3", "1+1j", "3.0.0", "\u200b3", "'3'", "[3]", "3 3", "3",
    "0.5", "4294967295", "4294967296", "2147483648", "9" * 5000, "\udcff", "a\nb", "\x1b[31m",
)  # fmt: skip
PATHS = (
    "", ".", "..", "/", "/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", "/proc/self/fd/0", "/etc/passwd",
    "/proc/nonexistent/a", "~", "~nobody/x", "a\nb", "ü🎲/x", "x" * 300, "x/" * 2100, "file.txt", "-x", "http://a.b/c",
    "\udcff", "\udcff.png", "con:", "*", "nope.pdf", "a.png/b.png", "@run", "@dot.png", "@model.py", "@model.py::cost",
    "@model.py::missing", "@folder", "@loop", "@pipe", "@dangling", "@images", "a\0b", "$HOME", "{}", "%s",
)  # fmt: skip
WORDS = ("", "Digits", "digit", "mnist", "auto", "AUTO", "native", "gpu", "full", "é", "a" * 5000, "\udcff", "a\nb", "--", "0", "None")  # fmt: skip


# Optional arguments take this word for "not given".
_NOT_GIVEN = "None"


class Option(NamedTuple):
    """Values to try for an option, and the values that the command may accept."""

    values: tuple[str, ...]
    allows: Callable[[str], bool]


def _whole(least: int, most: float = math.inf) -> Callable[[str], bool]:
    return lambda text: text == _NOT_GIVEN or least <= int(text) <= most


def _number(least: float, most: float = math.inf, *, above: bool = True) -> Callable[[str], bool]:
    def allows(text: str) -> bool:
        return text == _NOT_GIVEN or (math.isfinite(x := float(text)) and least <= x < most and (x > least or not above))

    return allows


def _one_of(*names: str) -> Callable[[str], bool]:
    return lambda text: text in (*names, _NOT_GIVEN)


def _sizes(text: str) -> bool:
    if text == _NOT_GIVEN:
        return True
    first, *middle, last = map(int, text.split())
    return first == 64 and last == 10 and all(size > 0 for size in middle)


def _start(text: str) -> bool:
    return text == _NOT_GIVEN or (len(text.split()) == 2 and all(math.isfinite(float(x)) for x in text.split()))


_YES: Callable[[str], bool] = lambda text: True  # noqa: E731
_A_PICTURE: Callable[[str], bool] = lambda text: Path(text).suffix.lower() in (".png", ".svg", ".pdf", ".html")  # noqa: E731
_FLAG = Option(("",), _YES)
_SIZES = (
    "64", "64 10 10 10 0 10", "10 64", "64 -5 10", "64 99999999999 10", "64 1000000000 10", "64 30 9", "64 30 11",
    "784 30 10", "64 64.0 10", "64 16000000 10", "64 " + "1 " * 300 + "10", "64 20 10", *NUMBERS,
)  # fmt: skip
_STARTS = ("1", "1 2", "1 2 3", "nan 1", "inf 1", "1e308 1e308", "1e200 1", "-1.2 1", *NUMBERS)
_NUMBER = Option(NUMBERS, _number(0))
_DATA = Option((*WORDS, *PATHS), _one_of("digits"))
# The digits come with the package, whatever the folder for data is.
_DATA_DIR = Option(PATHS, _YES)
_RUN = Option(PATHS, lambda text: Path(text).name == "run")

# Every option of every command, by the name of its field. Positional arguments have their names too.
OPTIONS: dict[str, dict[str, Option]] = {
    "train": {
        "data": _DATA, "data_dir": _DATA_DIR, "sizes": Option(_SIZES, _sizes),
        "scheme": Option(WORDS, _one_of("gaussian", "scaled")), "eta": Option(NUMBERS, _number(1e-46, 3.5e38)),
        "batch_size": Option((*NUMBERS, "full", "Full", "1198"), lambda x: x == "full" or _whole(1, 1197)(x)),
        "epochs": Option(NUMBERS, _whole(1)), "seed": Option(NUMBERS, _whole(0, 2**32 - 1)),
        "kernel": Option(WORDS, _one_of("auto", "xla", "native")),
        "run_dir": Option(PATHS, lambda text: (Path(text) / "config.json").is_file()), "resume": _RUN,
        "checkpoint_every": Option(NUMBERS, _whole(1)), "tensorboard": _FLAG, "plot": Option(PATHS, _A_PICTURE),
        "progress": _FLAG,
    },
    "evaluate": {
        "run_dir": _RUN, "part": Option(WORDS, _one_of("train", "validation", "test")), "data": _DATA,
        "data_dir": _DATA_DIR,
    },
    "predict": {"run_dir": _RUN, "images": Option(PATHS, lambda text: Path(text).name in ("dot.png", "images"))},
    "minimize": {
        "cost": Option(("rosenbrock", "Rosenbrock", "valley ", "::", "::f", "x.py::", *WORDS, *PATHS),
                       lambda text: text == "rosenbrock" or text.endswith("model.py::cost")),
        "start": Option(_STARTS, _start),
        "rule": Option(("sgd", "newton", "heavy-ball", *WORDS), _one_of("newton", "heavy-ball")),
        "eta": _NUMBER, "mu": Option(NUMBERS, _number(0, 1, above=False)), "epsilon": _NUMBER, "dt": _NUMBER,
        "max_steps": Option(NUMBERS, _whole(1, 2**31)), "rtol": Option(NUMBERS, _number(0, above=False)),
        "target": Option(NUMBERS, _number(-math.inf)), "stop": _FLAG,
        "dtype": Option(("float16", *WORDS), _one_of("float32", "float64")), "sharpness": _FLAG,
        "plot": Option(PATHS, _A_PICTURE), "json": _FLAG,
    },
    "check": {
        "cases": Option(PATHS, lambda text: "model.py" in text), "seed": Option(NUMBERS, _whole(0, 2**32 - 1)),
        "json": _FLAG, "verbose": _FLAG,
    },
    "info": {"data_dir": _DATA_DIR},
}  # fmt: skip
_POSITIONAL = {"evaluate": ["run_dir"], "predict": ["run_dir", "images"], "minimize": ["cost"], "check": ["cases"]}
# Good arguments, which make a command short. A bad value replaces them.
_GOOD = {
    "train": {"epochs": "1", "run_dir": "new"},
    "evaluate": {"run_dir": "@run"},
    "predict": {"run_dir": "@run", "images": "@dot.png"},
    "minimize": {"cost": "rosenbrock", "max_steps": "20"},
    "check": {"cases": "@model.py"},
    "info": {},
}
# Settings outside the command line.
SURROUNDINGS: dict[str, Callable[[], None]] = {
    "": lambda: None,
    "stdout in ASCII": lambda: setattr(sys, "stdout", open(1, "w", encoding="ascii", closefd=False)),
    "no such device": lambda: _configure("jax_platforms", "nope"),
    "no GPU": lambda: _configure("jax_platforms", "cuda"),
    "no home": lambda: os.environ.update(HOME=""),
    "data folder in a file": lambda: os.environ.update(JAXGD_DATA_DIR="/etc/passwd/x"),
    "working folder removed": lambda: shutil.rmtree(Path.cwd()),
}


class Line(NamedTuple):
    """A generated command line: the command, its values by option, a stray word, and the surroundings."""

    command: str
    given: tuple[tuple[str, str], ...]
    stray: str
    surroundings: str

    def argv(self, folder: Path) -> list[str]:
        """Return the words of the command line, with @ for the folder of good files."""
        words, behind = [self.command], []
        for name, value in self.given:
            value = _full(value, folder)
            if name in _POSITIONAL.get(self.command, ()):
                behind.append(value)
            elif OPTIONS[self.command][name] is _FLAG:
                words.append(f"--{name}")
            elif name in ("sizes", "start"):
                words += [f"--{name}", *value.split()]
            else:
                words.append(f"--{name.replace('_', '-')}={value}")
        stray = [self.stray] if self.stray else []
        return [*words, *stray, *(["--"] if any(x.startswith("-") for x in behind) else []), *behind]

    def allowed(self, folder: Path) -> bool:
        """Return True if the command may accept all values, in the folder in which it ran."""
        if self.stray:
            return self.stray == "--help"
        with contextlib.suppress(ValueError, OSError):
            return all(OPTIONS[self.command][k].allows(_full(value, folder)) for k, value in dict(self.given).items())
        return False


    def long(self) -> bool:
        """Return True if the command may work for longer than the limit: it was asked for many epochs or steps."""
        with contextlib.suppress(ValueError):
            return any(int(value) > 10_000 for name, value in self.given if name in ("epochs", "max_steps"))
        return False


def _full(value: str, folder: Path) -> str:
    return f"{folder}/{value[1:]}" if value.startswith("@") else value


def commands(options: Options) -> Iterator[Attack]:
    """Run generated command lines, and yield their ends."""
    folder = options.work / "commands"
    ending = finish(Job(lambda: _make_files(folder), folder / "good"))
    if ending.trouble or ending.status:
        yield Attack("reference", "no reference", True, ending.err[-300:])
        return
    rng = random.Random(options.seed)
    yield from play((_one(generated(rng), folder / str(i), folder) for i in range(options.count)), options.jobs)


def generated(rng: random.Random) -> Line:
    """Return a random command line with one to three bad values."""
    name = rng.choices(list(OPTIONS), [6, 2, 2, 5, 2, 1])[0]
    drawn = rng.sample(list(OPTIONS[name]), min(len(OPTIONS[name]), rng.choice((1, 1, 1, 2, 3))))
    bad = {option: rng.choice(OPTIONS[name][option].values) for option in drawn}
    good = {k: v for k, v in _GOOD[name].items() if not ("resume" in bad and k in ("run_dir", "epochs"))}
    given = [*{**good, **bad}.items()]
    # Positional arguments keep their order, and any option may stand twice.
    order = _POSITIONAL.get(name, [])
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
    about = ascii(f"{words}{f' [{line.surroundings}]' if line.surroundings else ''}: {ending.last_words[:160]}")
    group = f"{line.command} {' '.join(sorted(name for name, _ in line.given))}" if kind == "accepted" else ""
    shutil.rmtree(folder, ignore_errors=True)
    return [Attack(line.command, kind, succeeded, about, group)]


def _judged(line: Line, ending: Ending, folder: Path, files: Path) -> tuple[str, bool]:
    """Return the kind of the end, and True if the attack succeeded."""
    with contextlib.chdir(folder) if folder.exists() else contextlib.nullcontext():
        allowed = line.allowed(files)
    if ending.hung and allowed and line.long():
        return "accepted, and still at work", False
    if ending.trouble:
        return ending.trouble, True
    lines = [text for text in ending.err.splitlines() if text.strip()]
    if ending.status == 2:
        return ("refused in one line", False) if len(lines) == 1 else (f"refused in {len(lines)} lines", True)
    if ending.status == 1:
        return ("failed, and says why", False) if lines or ending.out else ("failed without a word", True)
    return ("accepted", False) if allowed else ("accepted against the table", True)


def fields() -> dict[str, set[str]]:
    """Return the names of the arguments of each command, as the commands define them."""
    from jaxgd import cli

    commands: Any = typing.get_args(cli._Command)
    return {
        typing.get_args(x)[0].__name__.lower(): {field.name for field in dataclasses.fields(typing.get_args(x)[0])}
        for x in commands
    }


def _configure(name: str, value: str) -> None:
    import jax

    jax.config.update(name, value)


def _make_files(folder: Path) -> int:
    """Make the good files that some paths name, in the working folder of the child."""
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
