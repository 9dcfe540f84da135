"""Compile the native kernels and the launcher of the CUDA kernel into one library.

Python loads the library with ctypes, so the library does not link with Python.

`python jaxgd/kernels/src/build.py [LIBRARY [FLAG ...]]` writes LIBRARY, by default `jaxgd/kernels/_native.so`, compiled
with the flags. CXX names the compiler. CXXFLAGS and LDFLAGS add flags. Compilation needs GCC or Clang, and jaxlib for
the headers of its foreign-function interface.

The library contains two digests: of its sources, and of the commands that compiled it. It is kept if both digests are
current, or if the digest of the sources is current and the compiler is missing. Otherwise it is deleted and then
compiled again, so that a failure leaves no old library.
"""

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parent
LIBRARY = SOURCE.parent / "_native.so"
FLAGS = [
    *("-std=gnu++17", "-fPIC", "-pthread", "-O3", "-DNDEBUG"),
    *("-Wall", "-Wextra", "-Wno-psabi", "-fno-math-errno", "-ffp-contract=fast"),
    # Without this flag, the position of a function in the code changes the speed of an epoch by up to 4%.
    "-falign-functions=64",
]
# The floats per vector and the flags of each instruction set. A processor that supports none of X86 runs "portable".
PORTABLE: dict[str, tuple[int, list[str]]] = {"portable": (4, [])}
X86 = {
    "avx2": (8, ["-mavx2", "-mfma"]),
    "avx512": (16, [*(f"-mavx512{part}" for part in ("f", "bw", "vl", "dq")), "-mfma", "-mprefer-vector-width=512"]),
}


class Commands(NamedTuple):
    """The command lines that compile each object file and link the library, and the stamp that the library contains."""

    units: dict[str, list[str]]
    link: list[str]
    stamp: str


def main(library: Path = LIBRARY, *flags: str) -> None:
    """Write the library, unless it is up to date."""
    if is_current(library, *flags):
        return
    # If the compilation fails, no old library must remain.
    library.unlink(missing_ok=True)
    units, link, stamp = commands(*flags)
    include = ["-isystem", str(headers())]
    # The folder is next to the library, so that the finished file can be moved in one step.
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        source = f"{folder}/stamp.cc"
        Path(source).write_text(f'extern const char jaxgd_stamp[];\nconst char jaxgd_stamp[] = "{stamp}";\n')
        units["stamp"] = [*units["ffi"][:-1], source]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(run, ([*unit, *include, "-o", f"{folder}/{name}.o"] for name, unit in units.items())))
        run([*link, *(f"{folder}/{name}.o" for name in units), "-o", f"{folder}/library"])
        (Path(folder) / "library").replace(library)


def is_current(library: Path = LIBRARY, *flags: str) -> bool:
    """Return True if the library was built from these sources by these commands.

    Without a compiler, compare only the sources.
    """
    held = library.read_bytes() if library.exists() else b""
    if sources().encode() not in held:
        return False
    if not shutil.which(compiler()[0]):
        return True
    try:
        return commands(*flags).stamp.encode() in held
    except SystemExit:  # the compiler does not work
        return False


def compiler() -> list[str]:
    """Return the words that start the compiler."""
    return shlex.split(os.environ.get("CXX", "")) or [next(filter(shutil.which, ("c++", "g++", "clang++")), "c++")]


def headers() -> Path:
    """Return the folder of jaxlib's headers."""
    jaxlib = importlib.util.find_spec("jaxlib")
    if jaxlib is None or jaxlib.origin is None:
        raise SystemExit("jaxgd: the native kernels need the headers of jaxlib.\nRun: pip install jaxlib==0.10.2")
    return Path(jaxlib.origin).parent / "include"


def commands(*flags: str) -> Commands:
    """Return the commands for this compiler and these flags."""
    about = [run([*compiler(), option]) for option in ("--version", "-dumpmachine")]
    x86 = about[1].startswith(("x86_64", "amd64"))
    more = [*shlex.split(os.environ.get("CXXFLAGS", "")), *flags]
    compile_ = [*compiler(), *FLAGS, *more]
    plain = [*compile_, *(["-DJAXGD_X86"] if x86 else []), "-c"]
    units = {name: [*plain, f"{name}.cc"] for name in ("ffi", "dispatch", "cuda")}
    for name, (lanes, isa) in (PORTABLE | (X86 if x86 else {})).items():
        units[name] = [*compile_, *isa, f"-DJAXGD_ISA={name}", f"-DJAXGD_LANES={lanes}", "-c", "kernels.cc"]
    link = [*compiler(), "-shared", "-pthread", *more, *shlex.split(os.environ.get("LDFLAGS", ""))]
    if "clang" not in about[0] and not any(flag.startswith("-fsanitize") for flag in more):
        # A host that runs the library may have an older libstdc++ than this host, so link libstdc++ statically. Link
        # libgcc dynamically: the library needs only symbols that old versions of libgcc have.
        link.append("-static-libstdc++")
        if "linux" in about[1]:
            # Drop the unused parts of libstdc++, which need a newer glibc, and hide the rest from other libraries.
            link += ["-Wl,--gc-sections", "-Wl,--exclude-libs,ALL"]
    digest = hashlib.sha256(repr((about, units, link)).encode()).hexdigest()
    return Commands(units, link, f"{sources()}, commands {digest}")


def sources() -> str:
    """Return the part of the library's stamp that depends on the files of this folder, this file included."""
    files = sorted(path for path in SOURCE.rglob("*") if path.suffix in (".cc", ".h", ".py"))
    digests = [(path.relative_to(SOURCE).as_posix(), hashlib.sha256(path.read_bytes()).digest()) for path in files]
    return f"jaxgd sources {hashlib.sha256(repr(digests).encode()).hexdigest()}"


def run(words: list[str]) -> str:
    """Run a command in the folder of the sources and return its output. If it fails, exit with its messages."""
    try:
        done = subprocess.run(words, cwd=SOURCE, capture_output=True, text=True, errors="replace", check=False)
        output, failed = done.stdout + done.stderr, done.returncode != 0
    except OSError as error:
        output, failed = str(error), True
    if failed:
        raise SystemExit(
            f"{output}\njaxgd: the native kernels were not compiled, because a command failed: {shlex.join(words)}\n"
            "They need GCC or Clang. The default compiler is the first of c++, g++ and clang++; set CXX to another."
        )
    return output


if __name__ == "__main__":
    library, *flags = sys.argv[1:] or [str(LIBRARY)]
    main(Path(library).resolve(), *flags)
