"""Settings of all tests: no rank promotion, checked shape annotations, random numbers with fixed seeds."""

import importlib.util
import os
import pathlib
import pkgutil
import signal
import zlib

import browser
import gpu_run
import hypothesis
import jax
import jaxtyping
import processor_time
import pytest

# saving_job.py changes constants of jaxgd when it is imported, so a test runs it in separate processes.
collect_ignore = ["saving_job.py"]

# Subprocesses must not read or write compiled programs in the home folder.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

# Otherwise the sum of a column (n, 1) and a row (n,) would silently become (n, n).
jax.config.update("jax_numpy_rank_promotion", "raise")

# Hypothesis draws the same examples in every run. Examples have no deadline, because the first one of each shape waits
# for a compilation.
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

# Install the hook that checks annotations. It affects only later imports, so no line above may import jaxgd's modules.
# jaxgd.cli is excluded, because its parser needs the original annotations. A machine with a GPU may lack beartype.
if importlib.util.find_spec("beartype"):
    _rooms = importlib.util.find_spec("jaxgd").submodule_search_locations
    jaxtyping.install_import_hook(
        [f"jaxgd.{room.name}" for room in pkgutil.iter_modules(_rooms) if room.name != "cli"], "beartype.beartype"
    )


@pytest.fixture(scope="session")
def digits():
    from jaxgd import load_dataset

    return load_dataset("digits")


@pytest.fixture(scope="session")
def network():
    """Return a network for `digits`. Tests that train it share their compiled programs."""
    from jaxgd import init_network

    return init_network(jax.random.key(3), (64, 12, 10), dtype=jax.numpy.float32)


@pytest.fixture(autouse=True)
def _annotations(request):
    """Check shape annotations, except in tests marked `bad_input`, which test jaxgd's own errors."""
    before = jaxtyping.config.jaxtyping_disable
    if request.node.get_closest_marker("bad_input"):
        jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def x64():
    """Enable float64 for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def seed(request):
    """Return a number that depends only on the name of the test and its parameters."""
    return zlib.crc32(request.node.name.encode())


_NO_MNIST = "JAXGD_TEST_MNIST is not set. Set it to a folder with MNIST's four genuine files"


@pytest.fixture(scope="session")
def genuine_mnist():
    """Return the folder with MNIST's genuine files. If JAXGD_TEST_MNIST is not set, skip the test."""
    if not os.environ.get("JAXGD_TEST_MNIST"):
        pytest.skip(_NO_MNIST)
    return pathlib.Path(os.environ["JAXGD_TEST_MNIST"])


def compile_quickly():
    """Compile with few optimizations, because nearly all of the suite's time is compilation.

    `JAX_DISABLE_MOST_OPTIMIZATIONS=0 pytest` compiles with users' optimizations.
    """
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    fast = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
    jax.config.update("jax_disable_most_optimizations", fast)
    if fast:
        quick = "--xla_cpu_parallel_codegen_split_count=1"
        if jax.__version_info__ < (0, 11):
            # XLA's old emitters compile in half the time of its new ones. jaxlib 0.12 lacks this flag, and XLA ends the
            # process at an unknown flag.
            quick += " --xla_cpu_use_fusion_emitters=false"
        os.environ["XLA_FLAGS"] = f"{quick} {os.environ.get('XLA_FLAGS', '')}"


def keep_programs(config):
    """Store compiled programs in pytest's cache folder, so that a rerun compiles less.

    Each worker has its own folder, because JAX does not write its files atomically. Each kind of processor has its own
    folder, because the keys of JAX's cache do not include the processor. `pytest --cache-clear` deletes the folders.
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


@pytest.fixture(scope="session", autouse=True)
def _no_signal_is_ignored():
    """Restore the default handlers of ignored signals, because Ctrl-C in a test would otherwise have no effect.

    A shell script ignores SIGINT for its background jobs, and nohup ignores SIGHUP.
    """
    from jaxgd.cli.signals import NUMBERS

    for number in NUMBERS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    # This hook runs before xdist starts its processes, so it can still change their number.
    if gpu_run.is_requested(config):
        gpu_run.use_one_process(config)


def pytest_configure(config):
    config.pluginmanager.register(processor_time.ProcessorTime(config))
    if gpu_run.is_requested(config):
        config.pluginmanager.register(gpu_run.GpuRun(config))
    else:
        # These settings are early enough, because XLA reads its flags when a test first uses JAX.
        compile_quickly()
        keep_programs(config)


def pytest_terminal_summary(terminalreporter):
    # Count skipped tests from the reports, because other processes may have run the tests.
    for name, reason in (("genuine MNIST", _NO_MNIST), ("the page of a run in a browser", browser.NO_BROWSER)):
        missed = [r for r in terminalreporter.getreports("skipped") if reason in str(r.longrepr)]
        if missed:
            terminalreporter.section(f"{name} was NOT tested", red=True)
            terminalreporter.write_line(f"{reason}. {len(missed)} tests were skipped for this reason.")
