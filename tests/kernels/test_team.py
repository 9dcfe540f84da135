"""Threads that teach one network together, and the processors they are on."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from jaxgd.kernels import native

SOURCE = Path(native.__file__).parent / "src"

pytestmark = pytest.mark.skipif(
    not shutil.which("g++") or not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs GCC, Linux and two processors",
)


def steps_aside(source, folder):
    """Whether one of a team of two that starts on one processor leaves it; two times of three.

    The system may move a thread by itself, but does so seldom.
    """
    program = folder / "aside"
    flags = ["-std=c++17", "-O1", "-pthread", "-DJAXGD_ISA=portable", "-DJAXGD_LANES=4", "-Wno-psabi"]
    files = [Path(__file__).with_name("aside.cc")]
    subprocess.run(["g++", *flags, "-I", source, *files, "-o", program], check=True, timeout=100)
    ran = [subprocess.run([program], capture_output=True, timeout=100, check=False) for _ in range(3)]
    return sum(run.returncode == 0 for run in ran) >= 2


def test_one_steps_aside(tmp_path):
    assert steps_aside(SOURCE, tmp_path)


def test_without_stepping_aside_both_stay(tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    for name in ("team.h", "vectors.h"):
        shutil.copy(SOURCE / name, source)
    team = source / "team.h"
    right = "    migrate(rank);\n"
    assert right in team.read_text()
    team.write_text(team.read_text().replace(right, ""))
    assert not steps_aside(source, tmp_path)
