"""Processor seconds are summed by room. On request, a room above 1.5 times its budget fails the run."""

import processor_time
import pytest

pytest_plugins = "pytester"


@pytest.mark.parametrize(
    ("nodeid", "room"),
    [
        ("tests/gradcheck/test_check.py::test_x", "gradcheck"),
        ("tests/rules/test_first_order.py::test_x[1-a]", "descent"),
        ("tests/test_curvature.py::test_x", "descent"),
        ("jaxgd/descent/driver.py::jaxgd.descent.driver.minimize", "descent"),
        ("tests/cli/test_train.py::test_x", "training"),
        ("tests/test_network.py::test_x", "rest"),
    ],
)
def test_the_path_of_a_test_decides_its_room(nodeid, room):
    assert processor_time.room_of(nodeid) == room


def test_only_a_room_above_one_and_a_half_budgets_is_reported():
    seconds = {room: processor_time.MARGIN * budget for room, budget in processor_time.BUDGETS.items()}
    assert processor_time.over_budget(seconds) == []
    (line,) = processor_time.over_budget(seconds | {"descent": 106})
    assert line.startswith("descent: 106 processor seconds, the budget is 70.")
    assert processor_time.over_budget(seconds | {"descent": 106}, covered=True) == []


class Plugin:
    def pytest_configure(self, config):
        config.pluginmanager.register(processor_time.ProcessorTime(config))


@pytest.mark.parametrize(("asked", "status"), [("1", pytest.ExitCode.TESTS_FAILED), ("0", pytest.ExitCode.OK)])
def test_a_run_over_budget_fails_only_on_request(pytester, monkeypatch, asked, status):
    monkeypatch.setenv("JAXGD_TEST_BUDGET", asked)
    monkeypatch.setattr(processor_time, "BUDGETS", {"gradcheck": 0, "descent": 0, "training": 0, "rest": 0})
    pytester.mkdir("tests").joinpath("test_sum.py").write_text("def test_sum():\n    assert sum(range(10**6)) > 0\n")
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider", "tests", plugins=[Plugin()])
    done.stdout.fnmatch_lines(["rest: * processor seconds, the budget is 0.*"])
    assert done.ret == status
