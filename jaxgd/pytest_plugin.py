"""The pytest plugin: fixtures for gradient checks, and a marker for the points, seeds and strictness of a test.

pytest imports this module in every environment that has jaxgd. The module therefore imports JAX and NumPy only when a
test checks a gradient.
"""

import inspect
import operator
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

import pytest

if TYPE_CHECKING:
    from jaxgd.gradcheck import GradientReport

_MARKER = (
    "gradients(points=None, seeds=None, strict=False): run the test at each point and with each seed. points is a "
    "list, or a dict whose keys name the points; the fixture gradient_point returns each point. seeds is a list of "
    "whole numbers, or a number n for 0 to n-1; the fixture gradient_seed returns each seed, and check_gradients uses "
    "it. strict=True makes a check fail if it cannot tell right from wrong."
)

# The user property of a test with an undecided check. The workers of pytest-xdist send user properties to the main
# process, which lists the tests.
_UNDECIDED = "undecided gradient check"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", _MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test marked `gradients` once for each pair of a point and a seed."""
    node, requested = metafunc.definition, metafunc.fixturenames
    given = _arguments(node, node.iter_markers("gradients"))
    # A test must use every argument of its own marker. A marker on a class or module may have arguments that only some
    # of its tests use.
    own = _arguments(node, (mark for mark in node.own_markers if mark.name == "gradients"))
    if "points" in own and "gradient_point" not in requested:
        _fail(node, "has points, but the test does not use them.\nAdd the parameter gradient_point, or remove points.")
    if "seeds" in own and "gradient_seed" not in requested:
        _fail(
            node,
            "has seeds, but the test does not use them.\n"
            "Add the parameter check_gradients or gradient_seed, or remove seeds.",
        )
    if "strict" in own and "check_gradients" not in requested:
        _fail(
            node,
            "has strict, but the test does not use check_gradients.\nAdd the parameter check_gradients, or remove "
            "strict.",
        )
    if "points" in given and "gradient_point" in requested:
        points, ids = _points(node, given["points"])
        metafunc.parametrize("gradient_point", points, ids=ids, indirect=True)
    if "seeds" in given and "gradient_seed" in requested:
        seeds = _seeds(node, given["seeds"])
        metafunc.parametrize("gradient_seed", seeds, ids=[f"seed{seed}" for seed in seeds], indirect=True)


@pytest.fixture
def gradient_point(request: pytest.FixtureRequest) -> object:
    """Return each point of @pytest.mark.gradients(points=...) in turn."""
    if not hasattr(request, "param"):
        _fail(
            request.node,
            "must have points, because the test requests gradient_point, got none.\n"
            "Write @pytest.mark.gradients(points=[...]) above the test.",
        )
    point: object = request.param
    return point


@pytest.fixture
def gradient_seed(request: pytest.FixtureRequest) -> int:
    """Return each seed of @pytest.mark.gradients(seeds=...) in turn, by default 0. check_gradients uses this seed."""
    seed: int = getattr(request, "param", 0)
    return seed


@pytest.fixture
def check_gradients(request: pytest.FixtureRequest, gradient_seed: int) -> Callable[..., "GradientReport"]:
    """Run jaxgd.check_gradients. Fail the test with the report if a gradient is wrong, otherwise return the report.

    With strict=True, a check that cannot tell right from wrong fails too. Otherwise the summary of the run lists its
    test. The call or the marker `gradients` sets strict, by default False, and the seed, by default 0.
    """
    node: pytest.Item = request.node
    always = bool(_arguments(node, node.iter_markers("gradients")).get("strict", False))

    def check(
        f: Callable[..., object], *args: object, strict: bool | None = None, seed: int | None = None, **options: Any
    ) -> "GradientReport":
        __tracebackhide__ = True
        from jaxgd.gradcheck import Verdict, check_gradients
        from jaxgd.tracebacks import hide_own_frames

        try:
            report = check_gradients(f, *args, seed=gradient_seed if seed is None else seed, **options)
        except Exception as error:
            hide_own_frames(error)
            raise
        if report.verdict is Verdict.RIGHT:
            return report
        if report.verdict is Verdict.WRONG or (always if strict is None else strict):
            # A test may check several gradients. The line number shows which one failed, without a traceback.
            caller = sys._getframe(1)
            where = f"{_relative(caller.f_code.co_filename, request.config)}:{caller.f_lineno}"
            pytest.fail(f"{report}\n  {'at:':13} {where}", pytrace=False)
        node.user_properties.append((_UNDECIDED, f"{report.name}: {report.cause}"))
        return report

    return check


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """List the tests with an undecided check."""
    undecided: dict[str, dict[str, None]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == _UNDECIDED:
                    undecided.setdefault(report.nodeid, {})[value] = None
    if undecided:
        terminalreporter.section("undecided gradient checks")
        for nodeid, causes in sorted(undecided.items()):
            terminalreporter.write_line(f"{nodeid}  {'; '.join(causes)}")


def _fail(node: pytest.Item, message: str) -> NoReturn:
    pytest.fail(f"{node.nodeid}: @pytest.mark.gradients {message}", pytrace=False)


def _arguments(node: pytest.Item, marks: Iterable[pytest.Mark]) -> dict[str, object]:
    """Return the markers' arguments by name. If several give an argument, the marker closest to the test decides."""

    def gradients(points: object = None, seeds: object = None, strict: object = None) -> None: ...

    out: dict[str, object] = {}
    for mark in marks:
        given: dict[str, object] = {}
        reason = ""
        try:
            given = inspect.signature(gradients).bind(*mark.args, **mark.kwargs).arguments
        except TypeError as error:
            reason = str(error)
        if reason:
            _fail(node, f"takes points, seeds and strict: {reason}.")
        out = {name: value for name, value in given.items() if value is not None} | out
    if not isinstance(out.get("strict", False), bool):
        _fail(node, f"expects strict to be True or False, got {out['strict']!r}.")
    return out


def _points(node: pytest.Item, points: object) -> tuple[list[object], list[str]]:
    if isinstance(points, Mapping):
        names, values = [str(name) for name in points], list(points.values())
    elif isinstance(points, Iterable) and not isinstance(points, str | bytes):
        values = list(points)
        names = [_name(i, point) for i, point in enumerate(values)]
    else:
        _fail(
            node,
            f"expects points to be a list of points, or a dict of points by name, got {type(points).__name__}.\n"
            "Put a single point into a list: points=[point].",
        )
    if not values:
        _fail(
            node,
            "expects at least one point, got none.\n"
            "If the points come from an iterator, which can be read only once, make a list from it.",
        )
    return values, names


def _name(i: int, point: object) -> str:
    if isinstance(point, type(pytest.param(None))):
        (point,) = point.values
    if isinstance(point, str | int | float | complex):
        return str(point)
    name = getattr(point, "__name__", None)
    return name if isinstance(name, str) else f"point{i}"


def _seeds(node: pytest.Item, seeds: object) -> list[int]:
    try:
        out = [_whole(seed) for seed in seeds] if isinstance(seeds, Iterable) else list(range(_whole(seeds)))
    except TypeError:
        _fail(node, f"expects seeds to be a whole number or a list of whole numbers, got {seeds!r}.")
    if not out:
        _fail(node, f"expects at least one seed, got {seeds!r}.\nseeds=3 stands for the seeds 0, 1 and 2.")
    if min(out) < 0:
        _fail(node, f"expects seeds of at least 0, got {min(out)}.")
    return out


def _whole(seed: object) -> int:
    if isinstance(seed, bool) or not isinstance(seed, SupportsIndex):
        raise TypeError
    return operator.index(seed)


def _relative(file: str, config: pytest.Config) -> Path:
    path, start = Path(file), config.invocation_params.dir
    return path.relative_to(start) if path.is_relative_to(start) else path
