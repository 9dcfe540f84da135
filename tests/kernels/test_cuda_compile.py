"""NVRTC compiles kernels without a GPU. Compiled kernels are cached in files, and damaged files are replaced."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxgd.kernels.cuda import cubins, nvrtc
from jaxgd.kernels.cuda.errors import CudaError
from jaxgd.kernels.cuda.nvrtc import Compiled
from jaxgd.kernels.cuda.shape import Shape

SHAPE = Shape(784, 30, 10, 10, 2)
SMALL = Shape(3, 2, 1, 1, 1)
needs_nvrtc = pytest.mark.skipif(isinstance(nvrtc.compiler(), str), reason=str(nvrtc.compiler()))


# Compilation.
@needs_nvrtc
@pytest.mark.slow
def test_nvrtc_compiles_the_kernel_and_names_the_first_error():
    compiler = nvrtc.compiler()
    compiled = compiler.compile(SMALL, "sm_90")
    assert compiled.cubin.startswith(b"\x7fELF")
    assert b"jaxgd_descend" in compiled.cubin
    assert 0 < nvrtc.resources(compiled.log).registers <= 128
    with pytest.raises(CudaError, match=r"^NVRTC [\d.]+ cannot compile the kernel: descend\.cu\(\d+\): error: .*$"):
        compiler.compile(SMALL._replace(parts=3), "sm_90")
    with pytest.raises(CudaError, match=r"^NVRTC [\d.]+ cannot compile the kernel: nvrtc: error: invalid value for"):
        compiler.compile(SMALL, "sm_9")


@needs_nvrtc
@pytest.mark.slow
def test_code_is_compiled_for_the_newest_architecture_that_the_device_runs(monkeypatch):
    compiler = nvrtc.compiler()
    assert compiler.architecture((9, 0)) == "sm_90"
    monkeypatch.setattr(compiler, "architectures", lambda: [80, 90, 100, 101, 104, 120])
    assert compiler.architecture((10, 3)) == "sm_101"
    with pytest.raises(
        CudaError, match=r"^NVRTC [\d.]+ does not know the architecture sm_130 \(update it: pip install "
    ):
        compiler.architecture((13, 0))


# A block of 13 to 16 warps leaves each thread 128 registers. Spilled registers cost stores and loads in every step.
MOST_REGISTERS, MOST_SPILL_BYTES = 128, 128
SIZES = ((784, 30, 10, 10), (1024, 32, 16, 16), (64, 16, 10, 8), (1, 1, 1, 1))
KERNELS = [(size, capability, parts) for size in SIZES for capability in ((9, 0), (10, 0), (12, 0)) for parts in (1, 2)]


@needs_nvrtc
@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "capability", "parts"), KERNELS, ids=str)
def test_the_kernel_fits_into_the_registers(sizes, capability, parts):
    compiler = nvrtc.compiler()
    if compiler.version != (13, 0):
        pytest.skip(f"the limits are for NVRTC 13.0, which the extra `dev` installs, and this is {compiler}")
    compiled = compiler.compile(Shape(*sizes, parts), compiler.architecture(capability))
    used = nvrtc.resources(compiled.log)
    print(used)
    assert used.registers <= MOST_REGISTERS
    assert used.spill_bytes <= MOST_SPILL_BYTES
    assert used.static_bytes == 0  # all shared memory is dynamic, and the launch requests it


def test_the_resources_are_unknown_without_the_messages_of_ptxas():
    with pytest.raises(CudaError, match="did not report the registers"):
        nvrtc.resources("")
    log = "ptxas . 64 bytes stack frame, 60 bytes spill stores, 64 bytes spill loads\nptxas info : Used 128 registers"
    assert nvrtc.resources(log) == (128, 64, 0)


# The search for NVRTC.
@pytest.fixture
def search(monkeypatch):
    """Return a function that searches for NVRTC among the given files only."""

    def run(*paths, most_major=None):
        nvrtc.compiler.cache_clear()
        monkeypatch.setattr(nvrtc, "_candidates", lambda: iter(map(str, paths)))
        return nvrtc.compiler(most_major)

    yield run
    nvrtc.compiler.cache_clear()


def test_without_nvrtc_the_reason_says_how_to_install_it(search, tmp_path):
    missing = "NVRTC, the compiler of the kernel, is not installed (run: pip install 'jaxgd[nvrtc]')"
    assert search() == missing
    assert search("libnvrtc-of-nowhere.so", tmp_path / "nowhere.so") == missing
    (tmp_path / "libnvrtc.so.13").write_bytes(b"not a library")
    reason = search(tmp_path / "libnvrtc.so.13")
    assert reason.startswith(f"NVRTC cannot be loaded: {tmp_path}/libnvrtc.so.13: ")
    assert "\n" not in reason


@needs_nvrtc
@pytest.mark.slow
def test_an_nvrtc_newer_than_the_driver_is_skipped(search):
    path = nvrtc.compiler().path
    assert search(path, most_major=13).path == path
    reason = search(path, most_major=11)
    assert reason.endswith("is newer than the driver, which knows CUDA 11 (run: pip install nvidia-cuda-nvrtc-cu11)")


def test_the_search_for_nvrtc_tries_wheels_then_the_system_then_the_toolkit(monkeypatch, tmp_path):
    wheels = [tmp_path / "cuda_nvrtc/lib/libnvrtc.so.12", tmp_path / "cu13/lib/libnvrtc.so.13"]
    for path in (*wheels, tmp_path / "cu13/lib/libnvrtc.alt.so.13", tmp_path / "cu13/lib/libnvrtc-builtins.so.13.0"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr(nvrtc, "_wheel_folders", lambda: [tmp_path])
    monkeypatch.setenv("CUDA_HOME", "/toolkit")
    monkeypatch.delenv("CUDA_PATH", raising=False)
    assert list(nvrtc._candidates()) == [
        *(str(wheels[1]), str(wheels[0]), "libnvrtc.so.13", "libnvrtc.so.12"),
        *("/toolkit/lib64/libnvrtc.so.13", "/toolkit/lib64/libnvrtc.so.12"),
        *("/usr/local/cuda/lib64/libnvrtc.so.13", "/usr/local/cuda/lib64/libnvrtc.so.12"),
    ]


# The cache.
class FakeCompiler(nvrtc.Compiler):
    """A compiler that counts its runs."""

    def __init__(self, minor=0):
        self.version, self.runs = (13, minor), 0

    def architecture(self, capability):
        return "sm_{}{}".format(*capability)

    def compile(self, shape, architecture, *flags):
        self.runs += 1
        return Compiled(b"\x7fELF" + repr((shape, architecture, flags)).encode() + bytes(1000), "Used 40 registers")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "jaxgd/kernels"


def test_a_kernel_is_compiled_once_per_shape_architecture_flags_and_compiler(cache, monkeypatch):
    compiler, newer = FakeCompiler(), FakeCompiler(minor=1)
    first = cubins.cubin(compiler, SHAPE, (9, 0))
    assert cubins.cubin(compiler, SHAPE, (9, 0)) == first
    assert (compiler.runs, [path.name for path in cache.iterdir()]) == (1, [f"{first.name}.cubin"])
    others = [
        cubins.cubin(compiler, SHAPE._replace(parts=1), (9, 0)),
        cubins.cubin(compiler, SHAPE, (10, 0)),
        cubins.cubin(compiler, SHAPE, (9, 0), "--generate-line-info"),
        cubins.cubin(newer, SHAPE, (9, 0)),
    ]
    monkeypatch.setattr(cubins, "sources", lambda: (b"another kernel", b"its header"))
    others.append(cubins.cubin(compiler, SHAPE, (9, 0)))
    assert len({first.name, *(other.name for other in others)}) == 6
    assert (compiler.runs, newer.runs) == (5, 1)


DAMAGES = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[:-1],
    "cut within the digest": lambda content: content[:20],
    "one byte longer": lambda content: content + b"\0",
    "one bit flipped": lambda content: content[:-500] + bytes([content[-500] ^ 1]) + content[-499:],
    "a text file": lambda content: b"# a text\n" * 100,
    "other content with its own digest": lambda content: hashlib.sha256(b"form").digest() + b"form",
    "too large": lambda content: content + bytes(cubins._LARGEST),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_kernel_with_a_damaged_file_is_compiled_and_written_again(cache, name):
    compiler = FakeCompiler()
    want = cubins.cubin(compiler, SHAPE, (9, 0))
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[name](whole))
    assert cubins.cubin(compiler, SHAPE, (9, 0)) == want
    assert (compiler.runs, path.read_bytes()) == (2, whole)


def test_a_kernel_whose_file_has_another_kernels_name_is_compiled_again(cache):
    compiler = FakeCompiler()
    want, other = (cubins.cubin(compiler, SHAPE, capability) for capability in ((9, 0), (10, 0)))
    (cache / f"{other.name}.cubin").replace(cache / f"{want.name}.cubin")
    assert cubins.cubin(compiler, SHAPE, (9, 0)) == want
    assert compiler.runs == 3


def test_a_file_that_cannot_be_replaced_costs_only_time(cache):
    compiler = FakeCompiler()
    want = cubins.cubin(compiler, SHAPE, (9, 0))
    (path,) = cache.iterdir()
    path.unlink()
    path.mkdir()
    assert cubins.cubin(compiler, SHAPE, (9, 0)) == want
    assert (compiler.runs, list(cache.iterdir())) == (2, [path])


def a_file(cache):
    cache.parent.mkdir(parents=True)
    cache.write_text("not a folder")


def others_may_write(cache):
    cache.mkdir(parents=True)
    cache.chmod(0o777)


@pytest.mark.parametrize("spoil", [a_file, others_may_write], ids=lambda spoil: spoil.__name__)
def test_an_unusable_folder_costs_only_time(cache, spoil):
    spoil(cache)
    compiler = FakeCompiler()
    assert cubins.cubin(compiler, SHAPE, (9, 0)) == cubins.cubin(compiler, SHAPE, (9, 0))
    assert compiler.runs == 2
    assert cubins.usable_folder() is None
    assert cache.is_file() or not list(cache.iterdir())


@pytest.mark.parametrize("relative", ["", "relative"])
def test_the_cache_is_in_the_home_folder_if_xdg_cache_home_is_not_absolute(monkeypatch, tmp_path, relative):
    monkeypatch.setenv("XDG_CACHE_HOME", relative)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cubins.usable_folder() == tmp_path / ".cache/jaxgd/kernels"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "relative")
    assert cubins.usable_folder() is None

    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    assert cubins.usable_folder() is None


def test_a_full_disk_costs_only_time_and_leaves_no_partial_file(cache):
    """A limit on the size of files simulates a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    compiler = FakeCompiler()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))  # a file has over 1,000 bytes
        want = cubins.cubin(compiler, SHAPE, (9, 0))
        assert list(cache.iterdir()) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert cubins.cubin(compiler, SHAPE, (9, 0)) == want
    assert (compiler.runs, len(list(cache.iterdir()))) == (2, 1)


def test_temporary_files_of_a_killed_process_are_removed(cache):
    compiler = FakeCompiler()
    name = cubins.cubin(compiler, SHAPE, (9, 0)).name
    (path,) = cache.iterdir()
    path.unlink()
    path.with_name(f".{name}.cubin.0123abcd.tmp").write_bytes(b"half")
    cubins.cubin(compiler, SHAPE, (9, 0))
    assert [each.name for each in cache.iterdir()] == [f"{name}.cubin"]


WRITE = """
import sys
from jaxgd.kernels.cuda import cubins, nvrtc
from jaxgd.kernels.cuda.shape import Shape
compiled = nvrtc.Compiled(bytes(1_000_000), "log")
print("ready", flush=True)
while True:
    cubins._write(cubins.usable_folder() / f"{sys.argv[1]}.cubin", sys.argv[1], compiled)
"""


@pytest.mark.slow
def test_a_process_killed_while_it_writes_leaves_a_whole_file_or_no_file(cache):
    seen = set()
    # A kill interrupts a write in about half of the attempts.
    for k in range(40):
        if k >= 6 and any(name.endswith(".tmp") for name in seen):
            break
        process = subprocess.Popen([sys.executable, "-c", WRITE, "name"], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.05 + 0.003 * (k % 6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        names = {each.name for each in cache.iterdir()}
        seen |= names
        if "name.cubin" in names:
            assert cubins._read(cache / "name.cubin", "name") == (bytes(1_000_000), "log")
    # At least one process was killed during a write.
    assert any(name.endswith(".tmp") for name in seen), seen


COMPILE = """
import hashlib, sys
from jaxgd.kernels.cuda import cubins, nvrtc
from jaxgd.kernels.cuda.shape import Shape
compiler = nvrtc.compiler()
sys.stdin.readline()
found = cubins.cubin(compiler, Shape(3, 2, 1, 1, 1), (9, 0))
print(found.name, hashlib.sha256(found.compiled.cubin).hexdigest())
"""


@needs_nvrtc
@pytest.mark.slow
def test_processes_that_compile_at_the_same_time_get_the_same_kernel(cache):
    words = [sys.executable, "-c", COMPILE]
    processes = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(3)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = {process.communicate(timeout=120)[0] for process in processes}
    assert len(outputs) == 1
    name, digest = outputs.pop().split()
    (path,) = cache.iterdir()
    assert path.name == f"{name}.cubin"
    assert len(digest) == 64
