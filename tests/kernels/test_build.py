"""The build of the native library, with a script in place of the compiler."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxgd.kernels import native

SOURCE = Path(native.__file__).parent / "src"
BUILD = runpy.run_path(str(SOURCE / "build.py"))

# Join the input files into the output file. Fail if FAKE is "broken".
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


def test_the_library_is_of_these_sources():
    if isinstance(native.library(), str):
        pytest.skip(native.library())
    current = BUILD["sources"]().encode() in native.LIBRARY.read_bytes()
    assert current, f"the native library is older than its sources; run `python {SOURCE / 'build.py'}`"


def test_a_library_is_kept_only_while_its_sources_and_commands_hold(tmp_path):
    sources, compiler = tmp_path / "src", tmp_path / "tools/compiler"
    shutil.copytree(SOURCE, sources, ignore=shutil.ignore_patterns("__pycache__"))
    compiler.parent.mkdir()
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    library = tmp_path / "_native.so"

    def build(*words, **environment):
        """Run build.py. Return True if it linked a library, and the finished process."""
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
    # A change of a header, of the compiler or of a flag leads to compilation, and so does undoing the change.
    with (sources / "rows.h").open("a") as header:
        header.write("// changed\n")
    for changed in ({}, {"FAKE": "two"}, {}, {"CXXFLAGS": "-g"}, {"LDFLAGS": "-g"}, {"FAKE": "x86_64"}):
        assert build(**changed)[0], changed
        assert not build(**changed)[0], changed
    # A truncated library has no stamp.
    library.write_bytes(library.read_bytes()[:100])
    assert build()[0]
    assert build(tmp_path / "other.so", "-O1")[0]
    assert not build()[0]
    # Without a compiler, a library of these sources stays. A failure of the compiler leaves no old library.
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
