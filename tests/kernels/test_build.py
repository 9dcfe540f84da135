"""The build of the native library and the files of a wheel. In one test, a script replaces the compiler."""

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jaxgd.kernels import native

SOURCE = Path(native.__file__).parent / "src"
BUILD = runpy.run_path(str(SOURCE / "build.py"))

# A compiler that logs its arguments and prints FAKE as its version and machine. To compile or link, it joins the input
# files into the output file, or fails if FAKE is "broken".
COMPILER = """#!/bin/sh
echo "$@" >> "$0.log"
case "$1" in --version|-dumpmachine) echo "${FAKE:-one}"; exit;; esac
while [ $# -gt 0 ]; do
  case "$1" in -o) shift; out=$1;; *.cc|*.o) in="$in $1";; esac
  shift
done
[ "$FAKE" = broken ] && echo "a fault of the compiler" >&2 && exit 1
cat $in > "$out"
"""


def test_the_library_was_built_from_these_sources():
    if isinstance(native.library(), str):
        pytest.skip(native.library())
    current = BUILD["sources"]().encode() in native.LIBRARY.read_bytes()
    assert current, f"the native library is older than its sources; run `python {SOURCE / 'build.py'}`"


def test_a_library_is_kept_only_while_its_sources_and_commands_are_unchanged(tmp_path):
    sources, compiler = tmp_path / "src", tmp_path / "tools/compiler"
    shutil.copytree(SOURCE, sources, ignore=shutil.ignore_patterns("__pycache__"))
    compiler.parent.mkdir()
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    library = tmp_path / "_native.so"

    def build(*words, **environment):
        """Run build.py. Return True if build.py linked a library, and the finished process."""
        log = compiler.with_name("compiler.log")
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, sources / "build.py", *words],
            env={**os.environ, "CXX": str(compiler), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return log.exists() and "-shared" in log.read_text(), done

    assert build()[0]
    assert not build()[0]
    # A change of a header, the compiler or a flag triggers compilation. So does undoing the change.
    with (sources / "packing.h").open("a") as header:
        header.write("// changed\n")
    for changed in ({}, {"FAKE": "two"}, {}, {"CXXFLAGS": "-g"}, {"LDFLAGS": "-g"}, {"FAKE": "x86_64"}):
        assert build(**changed)[0], changed
        assert not build(**changed)[0], changed
    # A truncated library has no stamp, so it is built again.
    library.write_bytes(library.read_bytes()[:100])
    assert build()[0]
    assert build(tmp_path / "other.so", "-O1")[0]
    assert not build()[0]
    # Without a compiler, a library of these sources stays. A failed build leaves no old library.
    nowhere = {"CXX": str(tmp_path / "nowhere")}
    assert build(**nowhere)[1].returncode == 0
    assert library.exists()
    library.write_bytes(b"older sources")
    for environment, reason in ((nowhere, "nowhere"), ({"FAKE": "broken"}, "a fault of the compiler")):
        _, failed = build(**environment)
        assert failed.returncode == 1
        assert reason in failed.stderr
        assert "They need GCC or Clang." in failed.stderr
        assert "Traceback" not in failed.stderr
        assert not library.exists()
        library.write_bytes(b"older sources")
    library.unlink()
    assert sorted(os.listdir(tmp_path)) == ["other.so", "src", "tools"]


@pytest.mark.slow
@pytest.mark.parametrize("compiler", [True, False])
def test_a_wheel_holds_the_cuda_kernel_and_no_emulation(tmp_path, compiler):
    """Without a C++ compiler, the wheel lacks only the native library."""
    root, copy = SOURCE.parents[2], tmp_path / "copy"
    # An up-to-date library is kept, which saves 20 s.
    left_out = ("__pycache__",) if compiler else ("__pycache__", "_native.so")
    shutil.copytree(root / "jaxgd", copy / "jaxgd", ignore=shutil.ignore_patterns(*left_out))
    # Another process may write the byte code of tests/kernels meanwhile, so it is not copied.
    shutil.copytree(root / "tests/kernels", copy / "tests/kernels", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(root / name, copy)
    environment = os.environ if compiler else {**os.environ, "CXX": str(tmp_path / "nowhere")}
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, copy]
    subprocess.run(words, env=environment, check=True, timeout=600)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    folder = {name for name in names if name.startswith("jaxgd/kernels/cuda/")}
    assert {f"jaxgd/kernels/cuda/{path.name}" for path in (root / "jaxgd/kernels/cuda").glob("*.*")} == folder
    assert {"jaxgd/kernels/cuda/descend.cu", "jaxgd/kernels/cuda/block.h"} <= folder
    assert not [name for name in names if "emulat" in name or name.endswith(".cc") or name.startswith("tests")]
    assert ("jaxgd/kernels/_native.so" in names) == compiler
    assert ("none-any" in wheel.name) == (not compiler)
    if compiler and sys.platform == "linux" and importlib.util.find_spec("auditwheel"):
        # The library needs only host libraries that manylinux allows, so auditwheel changes only the tag.
        words = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", tmp_path / "tagged", wheel]
        subprocess.run(words, check=True, timeout=100)
        (tagged,) = (tmp_path / "tagged").iterdir()
        assert "-py3-none-manylinux_2_" in tagged.name
        assert {name for name in zipfile.ZipFile(tagged).namelist() if not name.endswith("/")} == names
