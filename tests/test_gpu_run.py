"""`pytest -m gpu` runs only tests/gpu, in one process, with the default compiler optimizations.

It runs without the libraries that only other tests need.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path.name for path in (ROOT / "tests/gpu").glob("test_*.py"))

# Run pytest as if these libraries were not installed.
COMMAND = """
import os, sys
import pytest
for name in ("beartype", "tyro", "tqdm", "PIL", "matplotlib", "plotly", "tensorflow_datasets"):
    sys.modules[name] = None

class Settings:
    def pytest_collection_finish(self, session):
        flags = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS"), os.environ.get("XLA_FLAGS")
        print("\\nsettings:", session.config.option.dist, *flags)
        print("files:", *sorted({item.path.name for item in session.items}))

sys.exit(pytest.main(["-m", "gpu", *sys.argv[1:]], plugins=[Settings()]))
"""


def gpu_run(*words, **environment):
    ours = ("JAX_", "XLA_", "JAXGD_", "PYTEST_")
    environment |= {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    words = [sys.executable, "-c", COMMAND, "-p", "no:cacheprovider", *words]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_the_gpu_tests_run_alone_and_print_their_measured_values():
    done = gpu_run("-v", "-k", "zero_row or large_product")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nsettings: no None None\n" in done.stdout
    assert "\nfiles: test_mathematics.py\n" in done.stdout
    assert "2 passed" in done.stdout
    assert "\nkernel: " in done.stdout
    (figure,) = (line for line in done.stdout.splitlines() if line.endswith("_on_a_gpu: error at highest"))
    assert 0 < float(figure.split()[0]) <= 2e-6


@pytest.mark.slow
def test_no_gpu_test_starts_after_the_time_limit():
    done = gpu_run("-q", JAXGD_GPU_SECONDS="0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\nfiles: {' '.join(FILES)}\n" in done.stdout
    assert "skipped" in done.stdout
    assert "passed" not in done.stdout


@pytest.mark.parametrize("name", FILES)
def test_each_file_of_gpu_tests_has_the_marks_gpu_and_slow(name):
    """The quick suite leaves these tests out, and the slow suite runs them on the CPU."""
    assert "\npytestmark = [pytest.mark.gpu, pytest.mark.slow" in (ROOT / "tests/gpu" / name).read_text()


def test_no_other_file_has_the_mark_gpu():
    """`pytest -m gpu` would not find tests in another file."""
    assert FILES
    mark = "mark." + "gpu"
    paths = [path for path in (ROOT / "tests").rglob("*.py") if path.parent.name != "gpu"]
    assert [path.name for path in paths if mark in path.read_text() and path != Path(__file__)] == []
