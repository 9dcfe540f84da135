"""A figure is written whole or not at all."""

import errno
import os

import pytest

from jaxgd import files
from jaxgd.errors import DtypeError, RangeError, WriteError
from jaxgd.report.figure import save_figure


class Figure:
    """A stand-in for a figure of matplotlib."""

    def savefig(self, file, *, format, dpi):
        file.write(f"{format} {dpi}".encode())


@pytest.mark.parametrize("name", ["a.png", "a.svg", "a.pdf", "A.PDF"])
def test_the_ending_of_the_path_sets_the_format(tmp_path, name):
    save_figure("f", Figure(), tmp_path / name, dpi=9)
    assert (tmp_path / name).read_text() == f"{name[-3:].lower()} 9"


@pytest.mark.bad_input
@pytest.mark.parametrize(("path", "error"), [("a.jpg", RangeError), ("a", RangeError), (3, DtypeError)])
def test_bad_paths_are_refused(tmp_path, monkeypatch, path, error):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match="f: path must"):
        save_figure("f", Figure(), path, dpi=9)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_old_figure(tmp_path, monkeypatch):
    def fail(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save_figure("f", Figure(), tmp_path / "a.png", dpi=9)
    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(WriteError, match=r"a\.png cannot be written: No space left"):
        save_figure("f", Figure(), tmp_path / "a.png", dpi=10)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.png": "png 9"}
