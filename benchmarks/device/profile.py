"""The kernel under the profiler ncu: issue slots, tensor pipe, stalls, registers, duration and instructions."""

import csv
import io
import re
import sys

from benchmarks.device.context import Context, TaskError
from benchmarks.device.launcher import PARTS
from benchmarks.device.process import output_of, python

SECTIONS = (
    *("SpeedOfLight", "SchedulerStats", "WarpStateStats", "ComputeWorkloadAnalysis"),
    *("InstructionStats", "LaunchStats", "MemoryWorkloadAnalysis"),
)
# For each figure of the summary, patterns of its counter's name. The first pattern that matches a name is used.
FIGURES = {
    "issue slots": (
        r"sm__inst_issued\.avg\.pct.*", r"smsp__issue_active\.avg\.pct.*", r"smsp__issue_active\.avg\.per.*",
    ),
    "tensor pipe": (
        r"sm__pipe_tensor_op_hmma_cycles_active\.avg\.pct.*", r"sm__pipe_tensor.*cycles_active\.avg\.pct.*",
        r"sm__inst_executed_pipe_tensor.*\.pct.*",
    ),
    "barrier stalls": (
        r"smsp__average_warps_issue_stalled_barrier_per_issue_active\.ratio",
        r"smsp__average_warp_latency_issue_stalled_barrier\.ratio", r".*stalled_barrier.*\.(?:ratio|pct)",
    ),
    "all stalls": (
        r"smsp__average_warp_latency_per_inst_issued\.ratio", r"smsp__average_warps_.*_per_issue_active\.ratio",
    ),
    "registers": (r"launch__registers_per_thread",),
    "duration": (r"gpu__time_duration\.(?:sum|avg)",),
    "instructions": (r"smsp__inst_executed\.sum", r"sm__inst_executed\.sum", r"smsp__inst_executed\.avg"),
}  # fmt: skip
Counters = dict[str, tuple[float, str]]


def run(context: Context) -> None:
    """Profile one launch per precision, with one network per multiprocessor of an H100, and store the counters."""
    steps, networks = context.sizes.profiled, context.sizes.many
    program = python("benchmarks.device.launch", str(steps), str(networks), str(context.logs))
    if context.rehearse:
        words = [*program, "--rehearse"]
    else:
        sections = [word for section in SECTIONS for word in ("--section", section)]
        words = ["ncu", "--clock-control", "none", *sections, "-k", "jaxgd_descend", "--page", "raw", "--csv", *program]
    status, printed = output_of(words, stderr=sys.stderr)
    (context.logs / "profile.csv").write_text(printed, encoding="utf-8")
    output = SAMPLE if context.rehearse and status == 0 else printed
    launches = counters(output)
    if not launches:
        raise TaskError(f"profile: expected counters of ncu, got {' '.join(output.split())[-200:]}")
    for precision in [*PARTS.values()][len(launches) :]:
        context.note(f"profile: no counters for {precision}; the log has the output of ncu")
    for precision, launch in zip(PARTS.values(), launches, strict=False):
        details = {name: value for name, (value, _) in launch.items()}
        for figure in FIGURES:
            name = counter_of(figure, launch)
            if name is None:
                context.note(f"profile: no counter for {figure}; the log lists the names of all counters")
                continue
            value, unit = launch[name]
            more = {"counter": name, "steps": steps} | (details if figure == "issue slots" else {})
            context.count(figure, "jaxgd-cuda", "counter", unit or "1", value, precision=precision, details=more)


def counter_of(figure: str, counters: Counters) -> str | None:
    """Return the name of the counter for a figure, or None if no name matches a pattern of the figure."""
    return next((name for pattern in FIGURES[figure] for name in counters if re.fullmatch(pattern, name)), None)


def counters(output: str) -> list[Counters]:
    """Return all counters of each launch, with values and units, from the CSV lines of the profiler's output."""
    lines = [line for line in output.splitlines() if line.startswith('"')]
    if len(lines) < 2 or not lines[0].startswith('"ID"'):
        return []
    names, units, *launches = list(csv.reader(io.StringIO("\n".join(lines))))
    result = []
    for launch in launches:
        values: Counters = {}
        for name, unit, text in zip(names, units, launch, strict=False):
            number = text.replace(",", "")
            if re.fullmatch(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", number) and name != "ID":
                values[name] = float(number), unit
        result.append(values)
    return result


# An example of the profiler's output, for rehearsals and tests. Its values are not measured.
SAMPLE = """==PROF== Connected to process 1
"ID","Kernel Name","launch__registers_per_thread","gpu__time_duration.sum",\
"sm__inst_issued.avg.pct_of_peak_sustained_active",\
"sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_active",\
"smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio","smsp__average_warp_latency_per_inst_issued.ratio",\
"smsp__inst_executed.sum"
"","","register/thread","us","%","%","inst","inst","inst"
"0","jaxgd_descend","128","1,234.5","61.2","20.5","1.5","6.25","2,000,000"
"1","jaxgd_descend","120","1,000.0","58.0","12.5","1.25","6.5","1,500,000"
"""
