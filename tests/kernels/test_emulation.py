"""The emulated CUDA kernel trains like the book's loop. The emulation and ThreadSanitizer find planted faults."""

import functools
import re
import shutil
import signal
import subprocess

import emulation
import numpy as np
import pytest
from hypothesis import settings
from kernel_examples import by_book, drawn, epochs, layers, relative_errors
from support import assert_leaves_close

from jaxgd import Layer, load_dataset
from jaxgd.kernels.cuda.shape import Shape

pytestmark = pytest.mark.skipif(emulation.why_missing is not None, reason=str(emulation.why_missing))

MNIST = Shape(784, 30, 10, 10, parts=2)
# Four of the eight warps have no inputs. The last group of 8 inputs is not full. The hidden neurons fill only a part of
# one tile, and so do the examples of a batch.
SMALL = Shape(27, 5, 3, 4, parts=2)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Return a function that compiles the kernel once for each shape."""
    folder = tmp_path_factory.mktemp("emulated")
    return functools.cache(lambda shape: emulation.compiled(folder / "-".join(map(str, shape)), shape))


def test_any_epoch_equals_the_books_loop(library):
    @settings(max_examples=20)
    @epochs(SMALL)
    def require_book(n, batch_size, labels, eta, networks, seed):
        network, x, y, orders = drawn(SMALL, n, labels, networks, seed)
        etas = eta * np.linspace(1, 0.5, networks)
        actual, finite = emulation.emulate(library(SMALL), SMALL, network, x, y, orders, etas, batch_size, seed)
        assert finite.tolist() == [1] * networks
        for i in range(networks):
            want = by_book(layers(network, i), x, y, orders[i], np.float32(etas[i]), min(batch_size, n))
            want = tuple(Layer(np.float32(w), np.float32(b)) for w, b in want)
            # Each of up to 50 steps rounds the weights and δ to 22 bits, with a relative error of about 2.4e-7.
            assert_leaves_close(layers(actual, i), want, rtol=1e-5)

    require_book()


@pytest.fixture(scope="module")
def mnist_runs(genuine_mnist):
    """Return x, y and two runs of 60 steps each.

    A run has the start, the result in float64, and the relative errors of the result in NumPy's float32. The run
    "random" starts with random weights. The run "trained" starts with the weights after an epoch of 5,000 steps.
    """
    train = load_dataset("mnist", genuine_mnist).train
    x, y = np.asarray(train.images).reshape(-1, 784), np.asarray(train.labels).astype(np.int32)
    rng = np.random.default_rng(0)

    def normal(*size):
        return rng.normal(size=size).astype(np.float32)

    random = Layer(normal(30, 784), normal(30)), Layer(normal(10, 30), normal(10))
    trained = by_book(random, x, y, rng.permutation(len(x)), 3.0, 10, np.float32)
    rows = rng.permutation(len(x))[:600]
    runs = {}
    for name, start in (("random", random), ("trained", trained)):
        exact = by_book(start, x[rows], y[rows], np.arange(600), 3.0, 10)
        single = by_book(start, x[rows], y[rows], np.arange(600), 3.0, 10, np.float32)
        runs[name] = (start, exact, relative_errors(single, exact, start))
    return x[rows], y[rows], runs


@pytest.mark.slow
@pytest.mark.parametrize("truncate", [False, True], ids=["round to nearest", "truncate"])
def test_sixty_steps_on_mnist_are_near_float64(library, mnist_runs, truncate):
    """A tensor core may round its sums to nearest or toward 0."""
    x, y, runs = mnist_runs

    def errors(start, parts):
        network, exact, _ = runs[start]
        batch = [np.asarray(v)[None] for layer in network for v in layer]
        shape = MNIST._replace(parts=parts)
        order = np.arange(len(x))[None]
        actual, finite = emulation.emulate(library(shape), shape, batch, x, y, order, [3.0], truncate=truncate)
        assert finite.tolist() == [1]
        return relative_errors(layers(actual), exact, network)

    for start in ("random", "trained"):
        single = runs[start][2]  # errors from 5e-7 to 8e-6
        assert np.all(errors(start, 2) <= (1.5 if not truncate else 1.7) * single)
        assert np.all(errors(start, 1) <= 3e-3)
        assert np.all(errors(start, 1) >= 1e-4), "one TF32 part must lose digits; the emulation rounds too little"


@pytest.mark.parametrize(("z", "slope"), [(14, 8.31527e-7), (16, 1.12535e-7), (17, 4.13994e-8), (20, 2.06115e-9)])
def test_a_saturated_neuron_has_the_gradient_of_exact_arithmetic(library, z, slope):
    """For an output a = σ(z) and the target y = 0, ∂C/∂b = a σ(z) σ(−z)."""
    network, x, y, orders = drawn(SMALL, 1, False, 1, seed=0)
    network[2][:], network[3][:], y[:] = 0, z, 0
    eta = 0.25 / slope  # b changes by 0.25, so float32 keeps 5 digits of the change
    actual, _ = emulation.emulate(library(SMALL), SMALL, network, x, y, orders, [eta])
    np.testing.assert_allclose((z - actual[3]) / eta, slope, rtol=1e-5)


@pytest.mark.parametrize("fault", ["label", "negative label", "order", "weight"])
def test_invalid_values_give_a_result_that_is_not_finite(library, fault):
    network, x, y, orders = drawn(SMALL, 9, True, 2, seed=0)
    orders = np.stack([np.arange(9)] * 2)
    if fault == "weight":
        network[3][1, 0] = np.nan
    elif fault == "order":
        orders[1, 8] = 9
    else:
        y[8] = -1 if fault == "negative label" else SMALL.outputs
    _, finite = emulation.emulate(library(SMALL), SMALL, network, x, y, orders, [1.0, 1.0])
    assert finite.tolist() == [0 if "label" in fault else 1, 0]


def test_a_shuffled_order_of_the_threads_gives_the_same_bits(library):
    network, x, y, orders = drawn(SMALL, 30, True, 1, seed=0)
    first, second = (
        emulation.emulate(library(SMALL), SMALL, network, x, y, orders, [3.0], seed=seed)[0] for seed in (0, 7)
    )
    for v, w in zip(first, second, strict=True):
        np.testing.assert_array_equal(v, w)


THREADS = {"flags": ("-O1", "-g", "-fsanitize=thread"), "block_flags": ("-O1", "-g", "-DBLOCK_TSAN")}
MEMORY = {"flags": ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")}


def ran(folder, *, fault=None, flags=(), block_flags=None):
    """Run main.cc, with a planted fault if one is given. Return the finished process and the line of the fault."""
    kernel = shutil.copytree(emulation.KERNEL, folder / "kernel")
    line = None
    if fault is not None:
        right, wrong = fault
        source = (kernel / "descend.cu").read_text()
        assert source.count(right) == 1
        line = source[: source.index(right)].count("\n") + 1
        (kernel / "descend.cu").write_text(source.replace(right, wrong))
    program = emulation.compiled(folder, MNIST, *flags, kernel=kernel, main=True, block_flags=block_flags)
    # ThreadSanitizer may refuse to run with randomized addresses, so setarch disables the randomization.
    words = ["setarch", "-R", program] if block_flags and shutil.which("setarch") else [program]
    return subprocess.run([*words, "3", "3"], capture_output=True, text=True, timeout=300, check=False), line


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", [THREADS, MEMORY], ids=["thread", "address"])
def test_the_sanitizers_find_no_fault(tmp_path, sanitizer):
    done, _ = ran(tmp_path, **sanitizer)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith("finite 1 1")


ERROR_BARRIER = "rate * (sum * slope[i]);\n    }\n    barrier();"


@pytest.mark.slow
def test_the_thread_sanitizer_names_both_accesses_around_a_missing_barrier(tmp_path):
    """The barrier after the hidden layer's error is removed. The emulation does not report this fault."""
    done, line = ran(tmp_path, fault=(ERROR_BARRIER, ERROR_BARRIER.replace("barrier();", "")), **THREADS)
    assert done.returncode != 0
    assert "data race" in done.stderr
    report = done.stderr.split("==================")[1]
    lines = set(re.findall(r"descend\.cu:(\d+)", report))
    assert str(line) in lines, report
    assert len(lines) > 1, report


# Each value is ((text, replacement), message, distance). The distance counts the lines from the fault to the line in
# the message. It is None if it varies.
FAULTS = {
    "an overrun into the next array": (
        ("s.d2[e * 16 + k] = e < count", "s.d2[e * 16 + k + 250] = e < count"),
        "an index is outside its array in shared memory",
        0,
    ),
    "a wait that never ends": (
        (
            "arrivals_expect(s.arrivals.span(stage, 1), count * kRow);",
            "arrivals_expect(s.arrivals.span(stage, 1), 16);",
        ),
        "a wait that never ends",
        None,
    ),
    "a read before the first write": (
        ("for (int i = t; i < kNeurons; i += kThreads) s.b1[i]", "for (int i = t; i < 9; i += kThreads) s.b1[i]"),
        "shared memory is read before it was written",
        None,
    ),
    "a read before its copy has arrived": (
        ("arrivals_wait(s.arrivals.span(stage, 1), step / kStages % 2);", ""),
        "shared memory is read before it was written, or during a copy to it",
        None,
    ),
    "a copy over bytes that were read through another proxy": (
        ("fence_before_copies();", ""),
        "a copy has no fence after the last barrier",
        2,
    ),
    "a barrier that some threads skip": (
        (ERROR_BARRIER, ERROR_BARRIER.replace("barrier();", "if (warp > 0) barrier();")),
        "threads of one block wait at different barriers",
        None,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_the_emulation_names_a_planted_fault(tmp_path, name):
    fault, message, distance = FAULTS[name]
    done, line = ran(tmp_path, fault=fault)
    assert done.returncode == -signal.SIGABRT
    assert message in done.stderr
    assert "descend.cu:" in done.stderr
    if distance is not None:
        assert f"descend.cu:{line + distance}:" in done.stderr


@pytest.mark.slow
def test_the_unchanged_kernel_passes_in_the_same_program(tmp_path):
    """The unchanged kernel passes, so the faults above cause the aborts."""
    done, _ = ran(tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith("finite 1 1")
