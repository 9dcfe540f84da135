"""Threads of one team that start on the same processor move to different ones."""

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


def migrates(source, folder):
    """Return True if one of two threads leaves their shared processor in at least two of three runs.

    One run proves nothing, because the system sometimes moves a thread itself.
    """
    program = folder / "aside"
    flags = ["-std=c++17", "-O1", "-pthread", "-DJAXGD_ISA=portable", "-DJAXGD_LANES=4", "-Wno-psabi"]
    files = [Path(__file__).with_name("aside.cc")]
    subprocess.run(["g++", *flags, "-I", source, *files, "-o", program], check=True, timeout=100)
    ran = [subprocess.run([program], capture_output=True, timeout=100, check=False) for _ in range(3)]
    return sum(run.returncode == 0 for run in ran) >= 2


def test_one_of_two_threads_leaves_a_shared_processor(tmp_path):
    assert migrates(SOURCE, tmp_path)


def test_without_migration_both_threads_stay(tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    for name in ("team.h", "vectors.h"):
        shutil.copy(SOURCE / name, source)
    team = source / "team.h"
    right = "    migrate(rank);\n"
    assert right in team.read_text()
    team.write_text(team.read_text().replace(right, ""))
    assert not migrates(source, tmp_path)
