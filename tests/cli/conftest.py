import contextlib
import io
import os
from typing import NamedTuple

import pytest

from jaxgd.cli import main


class Answer(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def jaxgd(tmp_path, monkeypatch):
    """Run the command in an empty folder, for example `jaxgd("train", "--epochs", "2")`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXGD_DATA_DIR", str(tmp_path / "no data here"))

    def run(*argv):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in argv])
        return Answer(status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def run_folder(jaxgd):
    """The folder of a completed run of two epochs."""
    assert jaxgd("train", "--epochs", 2, "--run-dir", "run", "--checkpoint-every", 1).status == 0
    return "run"
