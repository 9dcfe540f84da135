"""The pytest plugin: gradient checks as a fixture, and the points and seeds that a test runs over.

pytest imports this module wherever jaxgd is installed, before it knows whether any test wants it: so it imports neither
JAX nor NumPy until one does.
"""

import inspect
import operator
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from jaxgd.gradcheck import GradientReport

_MARKER = (
    "gradients(points=None, seeds=None, strict=False): run the test at each of the points (what the fixture "
    "gradient_point returns; a dict's keys name them) and with each of the seeds (a whole number n is 0 to n-1; what "
    "the fixture gradient_seed returns and check_gradients uses); strict makes a check that cannot tell fail."
)

# By way of the reports' user properties, which travel from xdist's workers.
_UNDECIDED = "gradient that could not be told"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test marked `gradients` once for each point and seed."""
    node, requested = metafunc.definition, metafunc.fixturenames
    given = _arguments(node, node.iter_markers("gradients"))
    # On a class or a module the marker is for the tests that it concerns; on the test itself, all of it must serve.
    own = _arguments(node, (mark for mark in node.own_markers if mark.name == "gradients"))
    if "points" in own and "gradient_point" not in requested:
        _misused(node, "has points, which the test does not use.\nAdd the parameter gradient_point, or leave them out.")
    if "seeds" in own and "gradient_seed" not in requested:
        _misused(
            node,
            "has seeds, which the test does not use.\n"
            "Add the parameter check_gradients or gradient_seed, or leave them out.",
        )
    if "strict" in own and "check_gradients" not in requested:
        _misused(
            node, "has strict, which is for the fixture check_gradients.\nAdd that parameter, or leave strict out."
        )
    if "points" in given and "gradient_point" in requested:
        points, ids = _points(node, given["points"])
        metafunc.parametrize("gradient_point", points, ids=ids, indirect=True)
    if "seeds" in given and "gradient_seed" in requested:
        seeds = _seeds(node, given["seeds"])
        metafunc.parametrize("gradient_seed", seeds, ids=[f"seed{seed}" for seed in seeds], indirect=True)


@pytest.fixture
def gradient_point(request: pytest.FixtureRequest) -> Any:
    """The point to check gradients at: each of the points in @pytest.mark.gradients(points=...) in turn."""
    if not hasattr(request, "param"):
        _misused(
            request.node,
            "must name the points, since the test requests gradient_point, but there are none.\n"
            "Write @pytest.mark.gradients(points=[...]) above the test.",
        )
    return request.param


@pytest.fixture
def gradient_seed(request: pytest.FixtureRequest) -> int:
    """The seed that check_gradients uses: each of the seeds in @pytest.mark.gradients(seeds=...) in turn, else 0."""
    seed: int = getattr(request, "param", 0)
    return seed


@pytest.fixture
def check_gradients(request: pytest.FixtureRequest, gradient_seed: int) -> Callable[..., "GradientReport"]:
    """jaxgd.check_gradients, which fails the test if a gradient is wrong, and else returns the report.

    The report is the failure's text. With strict=True, here or in the marker `gradients`, a check that cannot tell
    fails too; without, it is listed at the end of the run. The seed is that of the marker, or 0, unless given here.
    """
    node: pytest.Item = request.node
    always = _arguments(node, node.iter_markers("gradients")).get("strict", False)

    def check(
        f: Callable[..., Any], *args: Any, strict: bool | None = None, seed: int | None = None, **options: Any
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
            # A test may check several times: the line says which it was, in place of the traceback.
            caller = sys._getframe(1)
            where = f"{_relative(caller.f_code.co_filename, request.config)}:{caller.f_lineno}"
            pytest.fail(f"{report}\n  {'at:':13} {where}", pytrace=False)
        node.user_properties.append((_UNDECIDED, f"{report.name}: {report.cause}"))
        return report

    return check


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Name the tests that passed although a check could not tell."""
    undecided: dict[str, dict[str, None]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == _UNDECIDED:
                    undecided.setdefault(report.nodeid, {})[value] = None
    if undecided:
        terminalreporter.section("gradients that could not be told")
        for nodeid, causes in sorted(undecided.items()):
            terminalreporter.write_line(f"{nodeid}  {'; '.join(causes)}")


def _misused(node: pytest.Item, what: str) -> NoReturn:
    pytest.fail(f"{node.nodeid}: @pytest.mark.gradients {what}", pytrace=False)


def _arguments(node: pytest.Item, marks: Iterable[pytest.Mark]) -> dict[str, Any]:
    """The arguments given to the markers, by name; where several give one, it is the closest's."""

    def gradients(points: Any = None, seeds: Any = None, strict: Any = None) -> None: ...

    out: dict[str, Any] = {}
    for mark in marks:
        given, complaint = {}, ""
        try:
            given = inspect.signature(gradients).bind(*mark.args, **mark.kwargs).arguments
        except TypeError as error:
            complaint = str(error)
        if complaint:
            _misused(node, f"takes points, seeds and strict: {complaint}.")
        out = {name: value for name, value in given.items() if value is not None} | out
    if not isinstance(out.get("strict", False), bool):
        _misused(node, f"expects strict to be True or False, got {out['strict']!r}.")
    return out


def _points(node: pytest.Item, points: Any) -> tuple[list[Any], list[str]]:
    if isinstance(points, Mapping):
        names, values = [str(name) for name in points], list(points.values())
    elif isinstance(points, Iterable) and not isinstance(points, str | bytes):
        values = list(points)
        names = [_name(i, point) for i, point in enumerate(values)]
    else:
        _misused(
            node,
            f"expects points to be a list of points, or a dict of points by their names, got {type(points).__name__}.\n"
            "A single point goes into a list: points=[point].",
        )
    if not values:
        _misused(
            node,
            "expects at least one point, got none.\n"
            "If the points come from an iterator, which can be read only once, make a list of it.",
        )
    return values, names


def _name(i: int, point: Any) -> str:
    if isinstance(point, type(pytest.param(None))):
        (point,) = point.values
    if isinstance(point, str | int | float | complex):
        return str(point)
    name = getattr(point, "__name__", None)
    return name if isinstance(name, str) else f"point{i}"


def _seeds(node: pytest.Item, seeds: Any) -> list[int]:
    try:
        out = [_whole(seed) for seed in seeds] if isinstance(seeds, Iterable) else list(range(_whole(seeds)))
    except TypeError:
        _misused(node, f"expects seeds to be a whole number or a list of whole numbers, got {seeds!r}.")
    if not out:
        _misused(node, f"expects at least one seed, got {seeds!r}.\nseeds=3 is the seeds 0, 1 and 2.")
    if min(out) < 0:
        _misused(node, f"expects seeds of at least 0, got {min(out)}.")
    return out


def _whole(seed: Any) -> int:
    if isinstance(seed, bool):
        raise TypeError
    return operator.index(seed)


def _relative(file: str, config: pytest.Config) -> Path:
    path, start = Path(file), config.invocation_params.dir
    return path.relative_to(start) if path.is_relative_to(start) else path
