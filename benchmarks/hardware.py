"""What the suite runs on: the machine, the versions, and the most that it can do."""

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


def _rate(work: float, f: Callable[[], object]) -> float:
    """Work per second, the median of nine after two that do not count."""
    times = []
    for _ in range(11):
        began = time.perf_counter()
        f()
        times.append(time.perf_counter() - began)
    return work / statistics.median(times[2:])


def peak() -> dict[str, float]:
    """GFLOP/s of the matrix product of two 2,048 × 2,048 float32, and GB/s of copying 256 MB, read and written.

    What this machine's own libraries reach, on all of its threads, in place of what its makers say.
    """
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((2048, 2048), np.float32) for _ in range(2))
    product = np.empty_like(a)
    source = np.ones(64 * 2**20, np.float32)
    target = np.empty_like(source)
    gflops = _rate(2 * 2048**3, lambda: np.matmul(a, b, out=product)) / 1e9
    gigabytes = _rate(2 * source.nbytes, lambda: np.copyto(target, source)) / 1e9
    return {"peak_gflops": round(gflops, 1), "bandwidth_gb_s": round(gigabytes, 1)}


def about() -> dict[str, Any]:
    """What is kept with every result."""
    import jax

    from jaxgd.kernels import native

    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "device": jax.devices()[0].device_kind,
        "machine": _processor(),
        "threads": len(os.sched_getaffinity(0)),
        "native": native.about(),
        "dtype": "float32",
        "precision": "default: on the CPU, float32 products",
        "versions": {name: _version(name) for name in ("jaxgd", "jax", "numpy", "torch", "scikit-learn", "flax")},
        "commit": found.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
    }


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
        return None
