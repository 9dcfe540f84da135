"""The kernel under compute-sanitizer."""

import re

from benchmarks.device.context import Context, TaskError
from benchmarks.device.process import output_of, python

STEPS, NETWORKS = "3", "2"


def run(context: Context, tool: str) -> None:
    """Run three updates per precision under a tool of compute-sanitizer, and store the number of faults."""
    program = python("benchmarks.device.launch", STEPS, NETWORKS, str(context.logs))
    if context.rehearse:
        program.append("--rehearse")
        words = program
    else:
        words = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *program]
    status, output = output_of(words)
    count = 0 if context.rehearse and status == 0 else faults(output)
    if count is None:
        raise TaskError(f"{tool} printed no summary, and ended with status {status}")
    details = {"steps": int(STEPS), "networks": int(NETWORKS)}
    context.count("", f"jaxgd-cuda under {tool}", "faults", "faults", count, precision="any", details=details)
    if count or status:
        raise TaskError(f"{tool} reports {count} faults and ended with status {status}; see the log")


def faults(output: str) -> int | None:
    """Return the number of faults that a tool's summary states, or None if the output has no summary.

    >>> faults("========= ERROR SUMMARY: 3 errors")
    3
    >>> faults("========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)")
    2
    """
    summary = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:error|hazard)", output)
    return int(summary[1]) if summary else None
