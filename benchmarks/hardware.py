"""The host of a run: processor, GPU and versions, and the measured peak rates of arithmetic and of copying."""

import ctypes
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import jaxgd

LIBRARIES = (
    *("jaxgd", "jax", "numpy", "scipy", "optax"),
    *("torch", "scikit-learn", "flax", "optimistix", "jaxopt"),
    *("jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-cuda-nvrtc", "triton"),
)
# The fields of a GPU that nvidia-smi reports, and their names in a row, with units.
GPU_FIELDS = {
    "name": "name", "driver_version": "driver", "compute_cap": "capability", "memory.total": "memory_mib",
    "clocks.max.sm": "max_sm_mhz", "clocks.max.mem": "max_memory_mhz", "clocks.sm": "sm_mhz",
    "clocks.mem": "memory_mhz", "power.limit": "power_limit_w", "temperature.gpu": "celsius",
}  # fmt: skip
_MULTIPROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT


def peak() -> dict[str, float]:
    """Return the GFLOP/s of a float32 product of 2,048 × 2,048 matrices, and the GB/s of a copy, read plus written.

    NumPy runs the product on all threads, and the copy on one. A shared host does not reach the rates of its data
    sheet.
    """
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((2048, 2048), np.float32) for _ in range(2))
    product = np.empty_like(a)
    source = np.ones(64 * 2**20, np.float32)
    target = np.empty_like(source)
    gflops = _rate(2 * 2048**3, lambda: np.matmul(a, b, out=product)) / 1e9
    gigabytes = _rate(2 * source.nbytes, lambda: np.copyto(target, source)) / 1e9
    return {"peak_gflops": round(gflops, 1), "bandwidth_gb_s": round(gigabytes, 1)}


def stamp() -> dict[str, Any]:
    """Return the fields of a row for the host, the versions, the commit and the date."""
    import jax

    from jaxgd.kernels import native

    host = {
        **_processor_and_gpu(),
        "device": jax.devices()[0].device_kind,
        "isa": native.about().split(",")[0],
        **peak(),
    }
    return {"host": host, **_software()}


def stamp_without_jax() -> dict[str, Any]:
    """Return `stamp` without isa and the peak rates. Do not start JAX, because it would take memory of the GPU."""
    host = _processor_and_gpu()
    return {"host": {**host, "device": host.get("gpu", {}).get("name", "cpu")}, **_software()}


def gpu() -> dict[str, Any]:
    """Return the GPU_FIELDS of the first GPU, and its number of multiprocessors.

    The mapping is empty if nvidia-smi finds no GPU. A field that the GPU does not report is left out.
    """
    query = f"--query-gpu={','.join(GPU_FIELDS)}"
    line = output(["nvidia-smi", "-i", "0", query, "--format=csv,noheader,nounits"]).strip()
    values = [value.strip() for value in line.split(",")]
    if len(values) != len(GPU_FIELDS):
        return {}
    found: dict[str, Any] = {}
    for (field, name), value in zip(GPU_FIELDS.items(), values, strict=True):
        number = field.startswith(("memory", "clocks", "power", "temperature"))
        if not value.startswith("["):  # "[N/A]"
            found[name] = float(value) if number else value
    if count := _multiprocessors():
        found["multiprocessors"] = count
    return found


def _multiprocessors() -> int | None:
    """Return the number of multiprocessors of the first GPU, which nvidia-smi does not report; None if unknown."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, count = ctypes.c_int(), ctypes.c_int()
    done = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0)
    done = done or driver.cuDeviceGetAttribute(ctypes.byref(count), _MULTIPROCESSORS, device)
    return count.value if done == 0 else None


def _processor_and_gpu() -> dict[str, Any]:
    found = gpu()
    return {
        "processor": _processor(),
        "threads": len(os.sched_getaffinity(0)),
        **({"gpu": found} if found else {}),
    }


def _software() -> dict[str, Any]:
    versions = {name: found for name in LIBRARIES if (found := _version(name))}
    commit = output(["git", "rev-parse", "--short", "HEAD"]).strip()
    return {"versions": versions, "commit": commit, "date": time.strftime("%Y-%m-%d")}


def output(words: list[str]) -> str:
    """Return the output of a program; an empty text if it is not installed, fails, or takes more than 20 s."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _rate(work: float, f: Callable[[], object]) -> float:
    """Return the work per second: the median of nine calls, after two warm-up calls."""
    times = []
    for _ in range(11):
        began = time.perf_counter()
        f()
        times.append(time.perf_counter() - began)
    return work / statistics.median(times[2:])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        # jaxgd also runs from its source folder without being installed.
        return jaxgd.__version__ if name == "jaxgd" else None
