"""Commands reuse the programs that earlier commands compiled. A damaged or unusable cache never makes a run fail."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxgd.cli import compiled

TRAIN = "import sys; from jaxgd.cli import main; sys.exit(main(['train', '--epochs', '1', '--run-dir', sys.argv[1]]))"


@pytest.fixture
def settings():
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_each_kind_of_processor_has_its_own_cache_folder(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "_processor_id", lambda: "this one")
    compiled.enable_compilation_cache()
    folder = tmp_path / ".cache/jaxgd/programs/this one"
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_processor_id_depends_on_flags_and_not_on_clock_speed(monkeypatch):
    text = "processor\t: 0\nmodel name\t: One\ncpu MHz\t\t: {mhz}\nflags\t\t: sse2 {flag}\n\nprocessor\t: 1\n"

    def processor_id(**values):
        monkeypatch.setattr(Path, "read_text", lambda _: text.format(**values))
        return compiled._processor_id()

    old, new = processor_id(mhz=1000, flag="avx2"), processor_id(mhz=1000, flag="avx512f")
    assert old == processor_id(mhz=2000, flag="avx2") != new


WHY = [
    *("folder set by the user", "cache disabled", "unknown processor", "folder cannot be made", "no home folder"),
    "folder that others may write to",
]


@pytest.mark.parametrize("why", WHY)
def test_each_reason_not_to_cache_leaves_the_cache_folder_setting_unchanged(settings, monkeypatch, tmp_path, why):
    monkeypatch.setenv("HOME", str(tmp_path))
    before = None
    if why == "folder set by the user":
        before = str(tmp_path / "own")
        jax.config.update("jax_compilation_cache_dir", before)
    elif why == "cache disabled":
        jax.config.update("jax_enable_compilation_cache", False)
    elif why == "unknown processor":
        monkeypatch.setattr(compiled, "_processor_id", lambda: None)
    elif why == "no home folder":

        def expanduser(path):
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "expanduser", expanduser)
    elif why == "folder that others may write to":
        monkeypatch.setattr(compiled, "_processor_id", lambda: "this one")
        folder = tmp_path / ".cache/jaxgd/programs/this one"
        folder.mkdir(parents=True)
        folder.chmod(0o777)
    else:
        (tmp_path / ".cache").write_text("a file where the folder should be")
    compiled.enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.slow
def test_stored_programs_give_the_same_bits(tmp_path):
    """If stored programs are damaged or unreadable, JAX warns, and the trained network is the same bit for bit."""
    environment = os.environ | {"HOME": str(tmp_path), "JAX_ENABLE_COMPILATION_CACHE": "true"}

    def run(name, warning=""):
        words = [sys.executable, "-c", TRAIN, str(tmp_path / name)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert ("cache" in done.stderr) == bool(warning)
        assert warning in done.stderr
        return (tmp_path / name / "network.safetensors").read_bytes()

    first = run("first")
    programs = sorted((tmp_path / ".cache/jaxgd/programs").glob("*/*-cache"))
    assert len(programs) > 5
    times = [path.stat().st_mtime_ns for path in programs]
    assert run("second") == first
    assert [path.stat().st_mtime_ns for path in programs] == times
    for path in programs:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert run("damaged", "Error reading persistent compilation cache entry") == first
    for path in programs:
        path.unlink()
        path.mkdir()
    assert run("folders instead of programs", "Error reading persistent compilation cache entry") == first
