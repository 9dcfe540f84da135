import contextlib
import io
import os
import shutil
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


@pytest.fixture(scope="session")
def completed(tmp_path_factory):
    """The folder of a completed run of two epochs. Tests must not change it."""
    folder = tmp_path_factory.mktemp("completed") / "run"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(["train", "--epochs", "2", "--run-dir", str(folder), "--checkpoint-every", "1"]) == 0
    return folder


@pytest.fixture
def run_folder(jaxgd, completed):
    """A copy of the completed run, which the test may change."""
    shutil.copytree(completed, "run")
    return "run"
