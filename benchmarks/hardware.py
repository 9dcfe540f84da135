"""The host of a run: the processor, the versions, and the measured peak rates of arithmetic and of copying."""

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

LIBRARIES = (
    *("jaxgd", "jax", "numpy", "scipy", "optax"),
    *("torch", "scikit-learn", "flax", "optimistix", "jaxopt"),
)


def peak() -> dict[str, float]:
    """Return GFLOP/s of a float32 product of two 2,048 × 2,048 matrices, and GB/s of a copy, read plus written.

    NumPy makes both on all threads. The rates of a data sheet are higher than the rates of a shared host.
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

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    host = {
        "processor": _processor(),
        "device": jax.devices()[0].device_kind,
        "threads": len(os.sched_getaffinity(0)),
        "isa": native.about().split(",")[0],
        **peak(),
    }
    versions = {name: found for name in LIBRARIES if (found := _version(name))}
    return {"host": host, "versions": versions, "commit": commit.stdout.strip(), "date": time.strftime("%Y-%m-%d")}


def _rate(work: float, f: Callable[[], object]) -> float:
    """Return work per second: the median of nine calls, after two to warm up."""
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
        return None
