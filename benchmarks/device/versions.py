"""The versions of the programs and the driver, and the build of the native library."""

import os
import subprocess
import sys
from pathlib import Path

import jaxgd
from benchmarks import hardware
from benchmarks.device.context import Context, TaskError

BUILD = Path(jaxgd.__file__).parent / "kernels/src/build.py"
TOOLS = {
    "nvcc": ["nvcc", "--version"], "ncu": ["ncu", "--version"],
    "compute-sanitizer": ["compute-sanitizer", "--version"], "compiler": ["c++", "--version"],
}  # fmt: skip


def run(context: Context) -> None:
    """Store the GPU, the versions of the programs and the driver, the flags of XLA, and the path of NVRTC."""
    details = {
        "python": sys.version.split()[0],
        "gpu": hardware.gpu(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **{name: _version_line(words) for name, words in TOOLS.items()},
        **_cuda(),
    }
    context.count("", "versions", "counter", "versions", len(details), precision="any", details=details)
    for name, text in details.items():
        context.note(f"{name}: {text}")


def build(context: Context) -> None:
    """Compile the native library, unless it is up to date."""
    if not BUILD.exists():
        context.note("native library: from a wheel")
        return
    done = subprocess.run([sys.executable, str(BUILD)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TaskError(" ".join((done.stderr or done.stdout).split())[-300:])
    from jaxgd.kernels import native

    context.note(f"native library: {native.about()}")


def _version_line(words: list[str]) -> str:
    lines = hardware.output(words).splitlines()
    # A C++ compiler prints its version in the first line, and NVIDIA's tools print theirs in the last.
    kept = [line.strip() for line in lines if line.strip()]
    return (kept[0] if words[0] == "c++" else kept[-1]) if kept else "not installed"


def _cuda() -> dict[str, str]:
    """Return the device as the driver sees it, NVRTC and its path, and the folder of compiled kernels."""
    from jaxgd.kernels.cuda import cubins, driver, nvrtc

    compiler = nvrtc.compiler()
    text = compiler if isinstance(compiler, str) else f"{compiler} at {compiler.path}"
    return {"driver": str(driver.device()), "nvrtc": text, "kernels": str(cubins.usable_folder())}
