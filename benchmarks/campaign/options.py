"""The options of all commands: values to try, most of them bad, and the values that the command may accept."""

import math
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.campaign.children import configure
from jaxgd.kernels.registry import kernel_names

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
WORDS = (
    "", "Digits", "digit", "mnist", "auto", "AUTO", "native", "gpu", "full", "é", "a" * 5000, "\udcff", "a\nb",
    "--", "0", "None",
)  # fmt: skip


# tyro treats an optional choice, such as --scheme, as not given if it has this value.
_NOT_GIVEN = "None"


class Option(NamedTuple):
    """Values to try for an option, and the values that the command may accept."""

    values: tuple[str, ...]
    allows: Callable[[str], bool]


def _whole(least: int, most: float = math.inf) -> Callable[[str], bool]:
    return lambda text: least <= int(text) <= most


def _number(least: float, most: float = math.inf, *, above: bool = True) -> Callable[[str], bool]:
    def allows(text: str) -> bool:
        return math.isfinite(x := float(text)) and least <= x < most and (x > least or not above)

    return allows


def _one_of(*names: str) -> Callable[[str], bool]:
    return lambda text: text in (*names, _NOT_GIVEN)


def _sizes(text: str) -> bool:
    first, *middle, last = map(int, text.split())
    return first == 64 and last == 10 and all(size > 0 for size in middle)


def _etas(text: str) -> bool:
    return all(map(_number(1e-46, 3.5e38), text.split()))


def _memory(text: str) -> bool:
    return re.fullmatch(r"\d*\.?\d+(?:[kKMGT]i?B)?", text) is not None and float(re.split("[kKMGT]", text)[0]) > 0


def _start(text: str) -> bool:
    return len(text.split()) == 2 and all(math.isfinite(float(x)) for x in text.split())


_YES: Callable[[str], bool] = lambda text: True  # noqa: E731
_A_PICTURE: Callable[[str], bool] = lambda text: Path(text).suffix.lower() in (".png", ".svg", ".pdf", ".html")  # noqa: E731
FLAG = Option(("",), _YES)
_SIZES = (
    "64", "64 10 10 10 0 10", "10 64", "64 -5 10", "64 99999999999 10", "64 1000000000 10", "64 30 9", "64 30 11",
    "784 30 10", "64 64.0 10", "64 16000000 10", "64 " + "1 " * 300 + "10", "64 20 10", *NUMBERS,
)  # fmt: skip
_STARTS = ("1", "1 2", "1 2 3", "nan 1", "inf 1", "1e308 1e308", "1e200 1", "-1.2 1", *NUMBERS)
_NUMBER = Option(NUMBERS, _number(0))
_DATA = Option((*WORDS, *PATHS), _one_of("digits"))
# The data set digits needs no folder, so any name is allowed.
_DATA_DIR = Option(PATHS, _YES)
_CONVENTIONS = {"labels_from": Option(NUMBERS, lambda text: False), "transpose": FLAG, "no_transpose": FLAG}
_RUN = Option(PATHS, lambda text: Path(text).name == "run")

# Every option and positional argument of every command, by the name of its field.
OPTIONS: dict[str, dict[str, Option]] = {
    "train": {
        "data": _DATA, "data_dir": _DATA_DIR, **_CONVENTIONS, "sizes": Option(_SIZES, _sizes),
        "scheme": Option(WORDS, _one_of("gaussian", "scaled")), "eta": Option(NUMBERS, _number(1e-46, 3.5e38)),
        "batch_size": Option((*NUMBERS, "full", "Full", "1198"), lambda x: x == "full" or _whole(1, 1197)(x)),
        "epochs": Option(NUMBERS, _whole(1)), "seed": Option(NUMBERS, _whole(0, 2**32 - 1)),
        "kernel": Option(WORDS, _one_of(*kernel_names())),
        "run_dir": Option(PATHS, lambda text: (Path(text) / "config.json").is_file()), "resume": _RUN,
        "checkpoint_every": Option(NUMBERS, _whole(1)), "tensorboard": FLAG, "plot": Option(PATHS, _A_PICTURE),
        "progress": FLAG, "gradient_norm": FLAG, "keep": Option(WORDS, _one_of("last", "best")),
        "by": Option(WORDS, _one_of("accuracy", "cost")), "patience": Option(NUMBERS, _whole(1)),
        "from_": Option(PATHS, lambda text: Path(text).name == "run"),
        "record": Option(("sharpness", "gradient-norms", *WORDS), lambda text: text in ("sharpness", "gradient-norms")),
        "record_every": Option(NUMBERS, _whole(1)),
        "activation": Option(
            ("tanh", "softmax", "tanh softmax", "softmax tanh", "tanh tanh tanh", "relu sigmoid", "gelu", *WORDS),
            lambda text: text in ("tanh", "tanh softmax", "relu sigmoid"),
        ),
        "cost": Option(("quadratic", "cross-entropy", *WORDS), _one_of("quadratic", "cross-entropy")),
        "l2": Option(NUMBERS, _number(0, above=False)),
    },
    "sweep": {
        "data": _DATA, "data_dir": _DATA_DIR, **_CONVENTIONS, "sizes": Option(_SIZES, _sizes),
        "eta": Option(NUMBERS, _etas), "seeds": Option(NUMBERS, _whole(1)),
        "scheme": Option(WORDS, _one_of("gaussian", "scaled")),
        "batch_size": Option((*NUMBERS, "full", "Full", "1198"), lambda x: x == "full" or _whole(1, 1197)(x)),
        "epochs": Option(NUMBERS, _whole(1)), "kernel": Option(WORDS, _one_of(*kernel_names())),
        "folder": Option(PATHS, lambda text: (Path(text) / "sweep.json").is_file()),
        "keep": Option(("best", "best 0", "best 2", "worst 2", "2 best", *NUMBERS), lambda text: text == "best 2"),
        "part": Option(("1/2", "2/1", "0/1", "1/0", "1/", "/", "1/1/1", *NUMBERS), lambda text: text == "1/2"),
        "memory": Option(("1 GB", "1GB", "2gb", "0.5MiB", "1e3kB", ".", *NUMBERS), _memory),
        "merge": Option(PATHS, lambda text: False), "plot": Option(PATHS, _A_PICTURE), "progress": FLAG,
    },
    "evaluate": {
        "run_dir": _RUN, "split": Option(WORDS, _one_of("train", "validation", "test")), "data": _DATA,
        "data_dir": _DATA_DIR, **_CONVENTIONS, "plot": Option(PATHS, _A_PICTURE), "json": FLAG,
    },
    "predict": {
        "run_dir": _RUN, "images": Option(PATHS, lambda text: Path(text).name in ("dot.png", "images")),
        "single": FLAG, "show": Option(PATHS, lambda text: Path(text).suffix.lower() in (".png", ".svg", ".pdf")),
    },
    "report": {
        "run_dir": _RUN, "out": Option(("page.html", "@run", *PATHS), lambda text: Path(text).suffix == ".html"),
        "split": Option(WORDS, _one_of("train", "validation", "test")), "data": _DATA, "data_dir": _DATA_DIR,
    },
    "minimize": {
        "cost": Option(("rosenbrock", "Rosenbrock", "valley ", "::", "::f", "x.py::", *WORDS, *PATHS),
                       lambda text: text == "rosenbrock" or text.endswith("model.py::cost")),
        "start": Option(_STARTS, _start),
        "rule": Option(("sgd", "newton", "heavy-ball", *WORDS), _one_of("newton", "heavy-ball")),
        "eta": _NUMBER, "mu": Option(NUMBERS, _number(0, 1, above=False)), "epsilon": _NUMBER, "dt": _NUMBER,
        "max_steps": Option(NUMBERS, _whole(1, 2**31)), "rtol": Option(NUMBERS, _number(0, above=False)),
        "target": Option(NUMBERS, _number(-math.inf)), "stop": FLAG,
        "dtype": Option(("float16", *WORDS), _one_of("float32", "float64")), "sharpness": FLAG,
        "plot": Option(PATHS, _A_PICTURE), "json": FLAG,
    },
    "check": {
        "cases": Option(PATHS, lambda text: "model.py" in text), "seed": Option(NUMBERS, _whole(0, 2**32 - 1)),
        "json": FLAG, "strict": FLAG, "verbose": FLAG,
    },
    "info": {"data_dir": _DATA_DIR},
}  # fmt: skip
POSITIONAL = {
    "evaluate": ["run_dir"], "predict": ["run_dir", "images"], "report": ["run_dir"], "minimize": ["cost"],
    "check": ["cases"],
}  # fmt: skip
# Good arguments that keep a command short. A value from OPTIONS replaces the good value of its option.
GOOD = {
    "train": {"epochs": "1", "run_dir": "new"},
    "sweep": {"epochs": "1", "folder": "new"},
    "evaluate": {"run_dir": "@run"},
    "predict": {"run_dir": "@run", "images": "@dot.png"},
    "report": {"run_dir": "@run", "out": "page.html"},
    "minimize": {"cost": "rosenbrock", "max_steps": "20"},
    "check": {"cases": "@model.py"},
    "info": {},
}
# Settings outside the command line.
SURROUNDINGS: dict[str, Callable[[], None]] = {
    "": lambda: None,
    "stdout in ASCII": lambda: setattr(sys, "stdout", os.fdopen(1, "w", encoding="ascii", closefd=False)),
    "unknown platform": lambda: configure("jax_platforms", "nope"),
    "no GPU": lambda: configure("jax_platforms", "cuda"),
    "no home": lambda: os.environ.update(HOME=""),
    "data folder in a file": lambda: os.environ.update(JAXGD_DATA_DIR="/etc/passwd/x"),
    "working folder removed": lambda: shutil.rmtree(Path.cwd()),
}
