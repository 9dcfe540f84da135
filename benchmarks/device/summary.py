"""The summary of a run: one line per value, per note and per task."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.rows import Row
from benchmarks.training.timing import PARITY

if TYPE_CHECKING:
    from benchmarks.device.command import Result


def summary(rows: Sequence[Row], notes: Sequence[str], results: Sequence["Result"]) -> str:
    """Return the values, the notes and the results of the tasks as text."""
    figures = [_cells(row) for row in rows if row.quantity not in HIDDEN]
    images = sorted({f"images: {row.details['images']}" for row in rows if "images" in row.details})
    tasks = [line_of(result) for result in results]
    total = sum(result.seconds for result in results)
    origin = not_of_a_gpu(rows)
    lines = [*origin, *_aligned(figures), *images, *notes, *unlike(rows), "", *tasks, *origin]
    return "\n".join([*lines, f"{total:.0f} s in all"])


def not_of_a_gpu(rows: Sequence[Row]) -> list[str]:
    """Return [REHEARSED] after a rehearsal, [NO_GPU] if no GPU was found, and [] otherwise."""
    if any(row.host.get("rehearsal") for row in rows):
        return [REHEARSED]
    # Without nvidia-smi, `host.device` is "cpu" even on a GPU. If rows hold measured values, a GPU was found.
    empty = all(row.quantity == "unfinished" or row.case == "device-versions" for row in rows)
    return [NO_GPU] if rows and empty and all(row.host.get("device") == "cpu" for row in rows) else []


def unlike(rows: Sequence[Row]) -> list[str]:
    """Return a line for each program whose cost after one epoch differs by over 5% from the median of all programs.

    All programs start from the same weights and see the examples in the same order, so a difference is a fault.
    """
    rows = [row for row in rows if "cost" in row.details]
    if not rows:
        return []
    usual = statistics.median(row.details["cost"] for row in rows)
    return [
        f"{row.case}, {row.variant}, {row.precision}: its time does not count, because C is {row.details['cost']:.5g} "
        f"after one epoch, and {usual:.5g} for the median program"
        for row in rows
        if not abs(row.details["cost"] - usual) <= PARITY * usual
    ]


def line_of(result: "Result") -> str:
    """Return one line about the result of a task."""
    task = result.task
    reason = f": {result.reason}" if result.reason else ""
    return f"{task.step:2} {task.name:20} {result.status:7} {result.seconds:5.1f} of {task.seconds:.0f} s{reason}"


def _cells(row: Row) -> tuple[str, ...]:
    value = "–" if row.value is None else f"{row.value:.5g}"
    spread = f"({row.spread[0]:.4g} to {row.spread[1]:.4g})" if row.spread else ""
    notes = ", ".join(f"{name} {_short(x)}" for name, x in row.details.items() if name in SHOWN)
    return row.case.removeprefix("device-"), row.variant, row.precision, row.quantity, value, row.unit, spread, notes


REHEARSED = (
    "REHEARSAL on a CPU: no time, counter or fault comes from a GPU. The kernel is emulated, the profiler's counters "
    "are a fixed sample, and the adder is a model."
)
NO_GPU = "NO GPU was found, so none was measured. Try the plan on a CPU with: python -m benchmarks device --rehearse"
# The quantities that the summary leaves out, and the details that it shows.
HIDDEN = ("unfinished", "compile time")
SHOWN = ("cost", "accuracy", "tflops", "share", "limit", "network_epochs_per_s", "step_us")


def _short(x: Any) -> str:
    return f"{x:.4g}" if isinstance(x, float) else str(x)


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    if not lines:
        return []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(f"{x:{w}}" for x, w in zip(line, widths, strict=True)).rstrip() for line in lines]
