"""The extensions of docs/extend.md work: each is one new module or function, one entry, and one test."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from typing import NamedTuple

import pages
import pytest

TEXT = (pages.ROOT / "docs/extend.md").read_text(encoding="utf-8")
# The first line of a block names its file and, if the file exists, the line below the new ones.
BLOCK = re.compile(r"(?ms)^```py\n# (\S+?)(?:, before: (.*?))?\n(.*?)^```$")
COMMAND = re.compile(r"(?m)^\$ jaxgd (.*)$")


class Change(NamedTuple):
    """A new file, or new lines before a line of a file."""

    file: str
    before: str
    code: str


def changes(text):
    return [Change(*groups) for groups in BLOCK.findall(text)]


def make(change, root):
    path = root / change.file
    if not change.before:
        assert not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(change.code, encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    (place,) = [i for i, line in enumerate(lines) if change.before in line]
    indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
    lines.insert(place, textwrap.indent(change.code, indent))
    path.write_text("".join(lines), encoding="utf-8")


@pytest.mark.parametrize("name", ["A rule", "A backend", "A data set", "An activation", "A cost"])
def test_an_extension_touches_one_module_one_registry_and_one_test(name):
    section = TEXT.split(f"\n## {name}\n")[1].split("\n## ")[0]
    touched = {(change.file, bool(change.before)) for change in changes(section)}
    new = {file for file, exists in touched if not exists}
    assert len(touched - {(file, False) for file in new}) == 1
    assert sum(file.startswith("tests/") for file in new) == 1
    assert len(new) <= 2


@pytest.mark.slow
def test_the_extensions_work_together(tmp_path):
    shutil.copytree(pages.ROOT / "jaxgd", tmp_path / "jaxgd", ignore=shutil.ignore_patterns("__pycache__"))
    for change in changes(TEXT):
        make(change, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "JAX_ENABLE_X64": "1"}

    def run(*words):
        return subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )

    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "tests")
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout
    for command in COMMAND.findall(TEXT):
        done = run("-m", "jaxgd", *command.split())
        assert done.returncode == 0, done.stderr
    assert "kernel float64: as asked" in done.stderr
