"""The extensions of docs/extend.md work. Each needs one module or function, one registry entry, and one test."""

import os
import re
import shutil
import subprocess
import sys

import pages
import pytest

TEXT = (pages.ROOT / "docs/extend.md").read_text(encoding="utf-8")
# A Python block is a new file. A diff block adds its "+" lines next to a line of an existing file.
BLOCK = re.compile(r"(?ms)^```(?:py\n# |diff\n--- )(\S+)\n(.*?)^```$")
COMMAND = re.compile(r"(?m)^\$ jaxgd (.*)$")


def is_change(block):
    return block.startswith(("+", " "))


def make(file, block, root):
    """Write a new file, or change a file."""
    path = root / file
    if not is_change(block):
        assert not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block, encoding="utf-8")
        return
    (old,) = re.findall(r"(?m)^ (.*\n)", block)
    text = path.read_text(encoding="utf-8")
    assert text.count(f"\n{old}") == 1, old
    path.write_text(text.replace(f"\n{old}", "\n" + re.sub(r"(?m)^[+ ]", "", block)), encoding="utf-8")


@pytest.mark.parametrize("name", ["A rule", "A backend", "A data set", "An activation", "A cost"])
def test_an_extension_needs_at_most_one_module_one_registry_entry_and_one_test(name):
    section = TEXT.split(f"\n## {name}\n")[1].split("\n## ")[0]
    new = [file for file, block in BLOCK.findall(section) if not is_change(block)]
    registries = {file for file, block in BLOCK.findall(section) if is_change(block)}
    assert len(registries) == 1
    assert [file.split("/")[0] for file in new] in (["jaxgd", "tests"], ["tests"])


@pytest.mark.slow
def test_the_extensions_work_together(tmp_path):
    shutil.copytree(pages.ROOT / "jaxgd", tmp_path / "jaxgd", ignore=shutil.ignore_patterns("__pycache__"))
    for file, block in BLOCK.findall(TEXT):
        make(file, block, tmp_path)
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
