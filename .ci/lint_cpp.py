"""Check the format of all C, C++ and CUDA sources, and run clang-tidy on the native library and the emulated kernel.

Each source of the library is checked with the flags that compile it, so kernels.cc is checked once per instruction set.
The CUDA kernel is checked as the tests compile it for a CPU. `pip install -e '.[dev]'` installs both tools.
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
KERNELS, EMULATION = ROOT / "jaxgd/kernels", ROOT / "tests/kernels/emulation"


def main() -> None:
    """Run both tools, and exit with 1 if one of them has findings."""
    listed = subprocess.check_output(["git", "ls-files", "*.c", "*.cc", "*.cu", "*.h"], cwd=ROOT, text=True)
    format_ = [tool("clang-format"), "--dry-run", "--Werror", *listed.split()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(run, [format_, *(tidy(*unit) for unit in units())]))
    for output in filter(None, results):
        print(output)
    sys.exit(any(results))


def tool(name: str) -> str:
    """Return the path of a tool in this Python environment, or otherwise in PATH."""
    path = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if path is None:
        raise SystemExit(f"{name} is not installed.\nRun: pip install -e '.[dev]'")
    return path


def units() -> list[tuple[Path, list[str]]]:
    """Return each source with its compiler flags. kernels.cc occurs once per instruction set."""
    build = runpy.run_path(str(KERNELS / "src/build.py"))
    compiled = build["commands"]().units.values()
    first = len(build["compiler"]())
    library = [(KERNELS / "src" / words[-1], [*words[first:-2], f"-isystem{build['headers']()}"]) for words in compiled]
    shape = runpy.run_path(str(KERNELS / "cuda/shape.py"))["Shape"](784, 30, 10, 10, 2)
    defines = [f"-D{name}={value}" for name, value in shape.defines().items()]
    # The emulation's folder comes first, so that its block.h replaces the block.h for GPUs.
    include = ["-std=gnu++17", f"-I{EMULATION}", f"-I{KERNELS / 'cuda'}", "-Wno-unknown-pragmas", *defines]
    return [*library, (EMULATION / "emulate.cc", include)]


def tidy(source: Path, flags: list[str]) -> list[str]:
    """Return the clang-tidy command for a source."""
    return [tool("clang-tidy"), "--quiet", "--use-color=false", str(source), "--", *flags, "-Wcomma"]


def run(words: list[str]) -> str:
    """Run a command. Return its output if it fails, and an empty text if it succeeds."""
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


if __name__ == "__main__":
    main()
