"""Check the format of the C++ and CUDA sources, and run clang-tidy on the C++.

Each source is checked with the flags that compile it, so kernels.cc is checked once per instruction set. The headers
are checked with the sources that include them. `pip install -e '.[dev]'` installs both tools.
"""

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KERNELS, TESTS = ROOT / "jaxgd/kernels", ROOT / "tests/kernels"
BUILD = runpy.run_path(str(KERNELS / "src/build.py"))
PORTABLE = ("-DJAXGD_ISA=portable", "-DJAXGD_LANES=4")


def tool(name: str) -> str:
    """Return the path of a tool of this environment."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is not installed.\nRun: pip install -e '.[dev]'")
    return found


def units() -> list[list[str]]:
    """Return the file and the flags of each unit to check, the longest first."""
    sources = [[str(KERNELS / "src" / unit[-1]), *flags_of(unit)] for unit in BUILD["commands"]().units.values()]
    include = ["-std=gnu++17", "-Wall", "-Wextra", f"-I{KERNELS / 'src'}"]
    shape = [f"-D{name}={value}" for name, value in SHAPE.items()]
    tests = [
        [str(TESTS / "race.cc"), *include],
        [str(TESTS / "aside.cc"), *include, *PORTABLE],
        [str(TESTS / "launch_on_cpu.cc"), *include],
        [str(TESTS / "emulation/handler.cc"), *include],
        [str(TESTS / "emulation/block.cc"), *include],
        [str(TESTS / "emulation/main.cc"), *include, *shape],
        [str(TESTS / "emulation/emulate.cc"), *include, f"-I{KERNELS / 'cuda'}", *shape],
    ]
    return sources + tests
