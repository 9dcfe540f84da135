"""How every test runs: broadcasting forbidden, shape annotations checked, random numbers seeded."""

import importlib.util
import os
import pathlib
import pkgutil
import zlib

import hypothesis
import jax
import jaxtyping
import processor_time
import pytest

# Nearly all of the suite's time is compilation, so programs are compiled fast instead of made fast. XLA's old emitters
# take half the time of its new ones. `JAX_DISABLE_MOST_OPTIMIZATIONS=0 pytest` compiles everything as users have it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
fast = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
jax.config.update("jax_disable_most_optimizations", fast)
if fast:
    quick = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{quick} {os.environ.get('XLA_FLAGS', '')}"

# Further processes keep no programs in the home folder, and read none.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

# A column (n, 1) against a row (n,) would become (n, n) without a word.
jax.config.update("jax_numpy_rank_promotion", "raise")

# No test is allowed to depend on luck: examples are the same in every run, and none is kept on disk. JAX compiles for
# every new shape, so the first example of a shape is slow and a deadline would only measure that.
hypothesis.settings.register_profile(
    "jaxgd",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=20,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.differing_executors,
    ],
)
hypothesis.settings.load_profile("jaxgd")

# The hook has to stand before jaxgd's modules are imported, so nothing here imports one; coverage sees them all. The
# command line stays out: its dataclasses are read by a parser, which wants the annotations as they are written.
_rooms = importlib.util.find_spec("jaxgd").submodule_search_locations
jaxtyping.install_import_hook(
    [f"jaxgd.{room.name}" for room in pkgutil.iter_modules(_rooms) if room.name != "cli"], "beartype.beartype"
)


@pytest.fixture(autouse=True)
def _annotations(request):
    """Check the shape annotations, except where a test is marked `bad_input`: there jaxgd's own errors are wanted."""
    before = jaxtyping.config.jaxtyping_disable
    if request.node.get_closest_marker("bad_input"):
        jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def x64():
    """float64 for the length of one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def seed(request):
    """A number that is the same in every run and another for every test."""
    return zlib.crc32(request.node.name.encode())


_NO_MNIST = "JAXGD_TEST_MNIST is not set: it names a folder with MNIST's four genuine files"


@pytest.fixture(scope="session")
def genuine_mnist():
    """The folder with MNIST's genuine files; without it the test is skipped, loudly."""
    if not os.environ.get("JAXGD_TEST_MNIST"):
        pytest.skip(_NO_MNIST)
    return pathlib.Path(os.environ["JAXGD_TEST_MNIST"])


def keep_programs(config):
    """Keep compiled programs in pytest's cache folder, so that a rerun compiles less.

    Each worker has a folder of its own, because JAX does not write its files atomically, and so has each kind of
    processor, because JAX's key does not name it. `pytest --cache-clear` deletes them.
    """
    from jaxgd.cli.compiled import _processor_id

    cache, processor = getattr(config, "cache", None), _processor_id()
    usable = cache is not None and processor is not None
    jax.config.update("jax_enable_compilation_cache", usable)
    if usable:
        folder = cache.mkdir(f"jaxgd-programs-{processor}") / os.environ.get("PYTEST_XDIST_WORKER", "main")
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_configure(config):
    config.pluginmanager.register(processor_time.ProcessorTime(config))
    keep_programs(config)


def pytest_terminal_summary(terminalreporter):
    # From the reports, not from a list of ours: tests may run in other processes than the one that reports.
    missed = [r for r in terminalreporter.getreports("skipped") if _NO_MNIST in str(r.longrepr)]
    if missed:
        terminalreporter.section("genuine MNIST was NOT tested", red=True)
        terminalreporter.write_line(f"{_NO_MNIST}. {len(missed)} tests were skipped for it.")
