"""The native kernels pass the address, undefined-behavior and thread sanitizers. Two planted faults are found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxgd.kernels import native

SOURCE = Path(native.__file__).parent / "src"
TESTS = Path(__file__).with_name("test_native.py")
KERNEL_TESTS = "any_shape or wrong_buffer or right_buffers or many_networks or sigmoid or nan"

RUN = """
import functools, pathlib, sys
import pytest
from jaxgd.kernels import native
native.LIBRARY = pathlib.Path(sys.argv[1])
assert not isinstance(native.library(), str), native.library()
for name in ("epoch", "evaluate", "evaluate_with_outputs"):
    setattr(native, name, functools.partial(getattr(native, name), isa=sys.argv[2]))
# This program has imported jaxgd already, so pytest warns that it cannot rewrite jaxgd's assertions.
quiet = ["-q", "-s", "-n", "0", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
sys.exit(pytest.main([*quiet, "-k", sys.argv[4], sys.argv[3]]))
"""


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("g++"), reason="needs GCC"),
    pytest.mark.xdist_group("sanitizers"),
]


def built(source, folder):
    """Build the library from a source folder with the address and undefined-behavior sanitizers. Return its path."""
    library = folder / "_native.so"
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    words = [sys.executable, source / "build.py", library, *flags]
    subprocess.run(words, env={**os.environ, "CXX": "g++"}, check=True, capture_output=True, timeout=600)
    return library


def run_tests(library, isa, which):
    """Run the tests in test_native.py that match `which`, with the given library."""
    names = ("libasan.so", "libubsan.so")
    libraries = [subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip() for name in names]
    environment = {
        **os.environ,
        "LD_PRELOAD": ":".join(libraries),
        # Python itself does not free all memory at exit, so a leak says nothing about the library.
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    words = [sys.executable, "-c", RUN, library, isa, TESTS, which]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_sanitizers_find_no_fault(tmp_path):
    library = built(SOURCE, tmp_path)
    for isa in {"portable", native.isa()}:
        ran = run_tests(library, isa, KERNEL_TESTS)
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
        assert " passed" in ran.stdout


def run_race(source, folder):
    """Run race.cc under the thread sanitizer. race.cc trains a network with one thread and with several threads."""
    program = folder / "race"
    flags = [
        "-std=c++17",
        "-O1",
        "-g",
        "-fsanitize=thread",
        "-DJAXGD_ISA=portable",
        "-DJAXGD_LANES=4",
        "-Wno-psabi",
    ]
    files = [source / "kernels.cc", Path(__file__).with_name("race.cc")]
    subprocess.run(["g++", *flags, "-I", source, *files, "-o", program], check=True, timeout=300)
    # The thread sanitizer may refuse to run under address space randomization, so disable it.
    words = ["setarch", "-R", program] if shutil.which("setarch") else [program]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def test_thread_sanitizer_finds_no_race(tmp_path):
    ran = run_race(SOURCE, tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "the same bits" in ran.stdout


def test_thread_sanitizer_finds_a_missing_wait(tmp_path):
    """The source is changed: a thread does not wait for the other threads."""
    source = copied(tmp_path)
    changed, right = source / "trainer.h", "lost_ += team_.wait(round_, rank_);"
    assert right in changed.read_text()
    changed.write_text(changed.read_text().replace(right, ""))
    ran = run_race(source, tmp_path)
    assert ran.returncode != 0
    assert "data race" in ran.stderr


def copied(tmp_path):
    return shutil.copytree(SOURCE, tmp_path / "src")


def test_address_sanitizer_finds_a_short_buffer(tmp_path):
    """The source is changed: `forward_` has one row too few for each layer."""
    source = copied(tmp_path)
    changed, right = source / "weights.h", "forward_[l] = zeros(sizes[l - 1] * columns(l).count);"
    assert right in changed.read_text()
    changed.write_text(changed.read_text().replace(right, right.replace("sizes[l - 1] *", "(sizes[l - 1] - 1) *")))
    # The test needs one instruction set, and compiling the others takes a minute.
    build, right = source / "build.py", 'x86 = about[1].startswith(("x86_64", "amd64"))'
    assert right in build.read_text()
    build.write_text(build.read_text().replace(right, "x86 = False"))
    ran = run_tests(built(source, tmp_path), "portable", "test_right_buffers_are_accepted")
    assert ran.returncode != 0
    assert "heap-buffer-overflow" in ran.stdout + ran.stderr
