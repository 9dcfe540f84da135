"""Count the processor time of the tests in each room, and compare it with a budget.

Here, a room is a group of test folders and test files. `JAXGD_TEST_BUDGET=1` fails the run if a room takes more than
1.5 times its budget, or 2.25 times under coverage. `JAXGD_TEST_SECONDS=FILE` writes the processor seconds of each test
to a JSON file, the most expensive test first.
"""

import collections
import json
import os
import pathlib

import pytest

# Processor seconds of the quick suite, without coverage, on two cores.
BUDGETS = {"gradcheck": 50, "descent": 70, "training": 110, "rest": 70}
MARGIN = 1.5
# The tests take 1.5 times as long under coverage: 292 s instead of 198 s.
COVERAGE = 1.5

# The first part of a test's path below tests/ or jaxgd/ decides its room. A part that is not listed
# belongs to the room `rest`.
ROOMS = {
    "gradcheck": ("gradcheck",),
    "descent": ("descent", "rules", "curvature", "slices"),
    "training": ("training", "kernels", "data", "cli"),
}


def room_of(nodeid):
    """Return the room of a test: "descent" for "tests/rules/test_first_order.py::test_x"."""
    first = nodeid.split("::")[0].split("/")[1].removesuffix(".py").removeprefix("test_")
    return next((room for room, parts in ROOMS.items() if first in parts), "rest")


def processor_seconds():
    """Return the processor seconds of this process and of its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def over_budget(seconds, covered=False):
    """Return one line for each room above its limit: 1.5 times its budget, or 2.25 times under coverage."""
    return [
        f"{room}: {seconds[room]:.0f} processor seconds, the budget is {budget}. Share compiled programs, or mark the "
        "heaviest tests slow."
        for room, budget in BUDGETS.items()
        if seconds[room] > MARGIN * budget * (COVERAGE if covered else 1)
    ]


class ProcessorTime:
    """A pytest plugin that sums the processor seconds of the tests by room, and checks the budgets.

    A worker of xdist stores the seconds of a test in the reports of the test. xdist sends them to the main process.
    """

    def __init__(self, config):
        self.config = config
        self.last = 0.0
        self.workers = 0.0
        self.seconds = collections.Counter()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self):
        self.last = processor_seconds()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self):
        report = yield
        now = processor_seconds()
        report.processor_seconds, self.last = now - self.last, now
        return report

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] += getattr(report, "processor_seconds", 0.0)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["processor_seconds"] = processor_seconds()
        elif os.environ.get("JAXGD_TEST_BUDGET") == "1" and self.over_budget() and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.workers += (getattr(node, "workeroutput", None) or {}).get("processor_seconds", 0.0)

    def rooms(self):
        """Return the processor seconds of each room."""
        totals = collections.Counter()
        for nodeid, seconds in self.seconds.items():
            totals[room_of(nodeid)] += seconds
        return totals

    def over_budget(self):
        """Return one line for each room above its limit.

        A run has no limit if it uses `-m` without `not slow`.
        """
        if self.config.option.markexpr and "not slow" not in self.config.option.markexpr:
            return []
        return over_budget(self.rooms(), covered=self.config.pluginmanager.hasplugin("_cov"))

    def pytest_terminal_summary(self, terminalreporter):
        rooms, tests = self.rooms(), collections.Counter(map(room_of, self.seconds))
        own = os.times()
        # The workers are children of this process. `self.workers` counts their time, so omit the children's time.
        total = self.workers + own.user + own.system if self.workers else processor_seconds()
        terminalreporter.section("processor seconds")
        for room, budget in BUDGETS.items():
            terminalreporter.write_line(f"{room:22}{rooms[room]:8.1f} of {budget:4}{tests[room]:8} tests")
        terminalreporter.write_line(f"{'start and collection':22}{total - rooms.total():8.1f}")
        terminalreporter.write_line(f"{'all':22}{total:8.1f} of {sum(BUDGETS.values()):4}")
        for line in self.over_budget():
            terminalreporter.write_line(line, red=True)
        if file := os.environ.get("JAXGD_TEST_SECONDS"):
            seconds = {nodeid: round(value, 3) for nodeid, value in self.seconds.most_common()}
            pathlib.Path(file).write_text(json.dumps(seconds, indent=0))
