"""A user's gradient checks: finding them in a file and running them as they would run under pytest."""

import contextlib
import difflib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from jaxgd.errors import RangeError
from jaxgd.gradcheck import GradientError, GradientReport, check_gradients
from jaxgd.tracebacks import hide_own_frames

_GIVEN = "check_gradients"


class UserError(Exception):
    """What a user's own lines raised, as its cause."""


class Case(NamedTuple):
    """A function to run, and its name as one would type it."""

    name: str
    folder: Path
    function: Callable[..., Any]


class Result(NamedTuple):
    """One report of a case, or why there is none."""

    case: str
    report: GradientReport | None
    error: str = ""


def find_cases(words: tuple[str, ...]) -> tuple[list[Case], list[str]]:
    """The cases of all FILE::CASE, or all cases of a FILE, found before any runs; and what of the files is not run."""
    modules: dict[Path, ModuleType] = {}
    cases, left = [], []
    for word in words:
        file, colons, name = word.partition("::")
        path = Path(file)
        if not path.is_file():
            raise RangeError(
                f"{file or word!r} is no file. Name a Python file, as in tests/test_model.py::check_layer."
            )
        if path not in modules:
            modules[path] = _import(path, len(modules))
        functions = {name: _named(modules[path], file, name)} if colons else _all(modules[path], file)
        for name, function in functions.items():
            _require_runnable(f"{file}::{name}", function)
            cases.append(Case(f"{file}::{name}", path.parent.absolute(), function))
        if not colons:
            left += [f"{file}::{name} needs {needs}" for name, needs in _left(modules[path]).items()]
    return cases, left


def find_function(word: str) -> tuple[Callable[..., Any], Callable[[], contextlib.AbstractContextManager[None]]]:
    """The function that FILE::NAME names, and a context in which to run it as the user's own."""
    file, _, name = word.partition("::")
    path = Path(file)
    if not path.is_file():
        raise RangeError(f"{file!r} is no file. Name a Python file and a function in it, as in model.py::cost.")
    if not name:
        raise RangeError(f"{word}: name the function too, as in {file}::cost.")
    functions = _functions(module := _import(path, 0))
    if name not in vars(module):
        close = "".join(f" Did you mean {x}?" for x in difflib.get_close_matches(name, functions, n=1))
        raise RangeError(f"{file} has no {name!r}.{close}")
    return _named(module, file, name), lambda: _users_own(path.parent.absolute())


def run_case(case: Case, seed: int) -> Iterator[Result]:
    """The reports a case makes, each as soon as there is no more to come; or why there is none."""
    reports: list[GradientReport] = []

    def check(
        f: Callable[..., Any], *args: Any, strict: bool | None = None, seed: int = seed, **options: Any
    ) -> GradientReport:
        """As the fixture, but a wrong gradient does not end the case; strict is in the exit status anyway."""
        reports.append(check_gradients(f, *args, seed=seed, **options))
        return reports[-1]

    out, error = None, None
    try:
        with _users_own(case.folder):
            out = case.function(**({_GIVEN: check} if _GIVEN in _parameters(case.function) else {}))
    except UserError as raised:
        error = raised.__cause__
    # What a case returns or raises it may have made without the function it was given.
    last = error.report if isinstance(error, GradientError) else out
    if isinstance(last, GradientReport) and not any(last is report for report in reports):
        reports.append(last)
    for report in reports:
        yield Result(case.name, report)
    if error is not None and not isinstance(error, GradientError):
        yield Result(case.name, None, f"it raised\n{users_traceback(error)}")
    elif not reports and error is None:
        returned = "" if out is None else f"; it returned {type(out).__name__}"
        yield Result(
            case.name,
            None,
            f"it made no report{returned}. Let it return what jaxgd.check_gradients returns, "
            f"or take the parameter {_GIVEN} and call it.",
        )


def users_traceback(error: BaseException) -> str:
    """The traceback as Python prints it, from the first line of the user's own."""
    import traceback

    hide_own_frames(error)
    return "".join(traceback.format_exception(error))


@contextlib.contextmanager
def _users_own(folder: Path) -> Iterator[None]:
    """Runs the user's lines, which import what lies beside them; what they raise is no error of ours."""
    sys.path.insert(0, str(folder))
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit and pytest.skip raise what is no Exception
        raise UserError from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _import(path: Path, number: int) -> ModuleType:
    """Import a file under a name of its own, so that it stands in nobody's way and nobody in its."""
    name = f"_jaxgd_check_{number}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    if spec is None or spec.loader is None:
        raise RangeError(f"{path} is no Python file. Its name must end in .py.")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with _users_own(path.parent.absolute()):
            spec.loader.exec_module(module)
    except UserError as error:
        del sys.modules[name]
        raise UserError(f"{path} cannot be imported") from error.__cause__
    return module


def _functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """What the file itself defines, in its order, and not what it imports."""
    found = vars(module).items()
    return {name: f for name, f in found if inspect.isfunction(f) and f.__module__ == module.__name__}


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def _is_case(name: str, function: Callable[..., Any]) -> bool:
    if name.startswith("test_"):
        # A test may want pytest's fixtures, the points of a marker among them: then it is pytest's to run.
        return _GIVEN in _parameters(function) and not _needed(function)
    return name.startswith("check_") and not _needed(function)


def _left(module: ModuleType) -> dict[str, str]:
    """Functions that look like cases and need what a case is not given, with what that is."""
    like = {
        name: f
        for name, f in _functions(module).items()
        if name.startswith("check_") or (name.startswith("test_") and _GIVEN in _parameters(f))
    }
    return {name: ", ".join(_needed(f)) for name, f in like.items() if _needed(f)}


def _all(module: ModuleType, file: str) -> dict[str, Callable[..., Any]]:
    cases = {name: function for name, function in _functions(module).items() if _is_case(name, function)}
    if not cases:
        raise RangeError(
            f"{file} has no case. A case is a function check_… without parameters that returns a GradientReport, or "
            f"check_… or test_… with the parameter {_GIVEN}."
        )
    return cases


def _named(module: ModuleType, file: str, name: str) -> Callable[..., Any]:
    functions = _functions(module)
    function = vars(module).get(name)
    if function is None:
        cases = [name for name, function in functions.items() if _is_case(name, function)]
        there = f"There are {', '.join(cases)}." if cases else "It has no function check_… or test_… that would be one."
        close = difflib.get_close_matches(name, functions, n=1)
        raise RangeError(f"{file} has no {name!r}. {there}" + "".join(f" Did you mean {x}?" for x in close))
    if not callable(function) or isinstance(function, type):
        raise RangeError(f"{file}::{name} is no function, it is {type(function).__name__}.")
    return function  # type: ignore[no-any-return]


def _needed(function: Callable[..., Any]) -> list[str]:
    """The parameters without which a function cannot run, but for the one that it is given."""
    return [
        parameter.name
        for parameter in _parameters(function).values()
        if parameter.name != _GIVEN
        and parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def _require_runnable(name: str, function: Callable[..., Any]) -> None:
    if needed := _needed(function):
        raise RangeError(
            f"{name} needs {', '.join(needed)}, but a case is given {_GIVEN} and nothing else. "
            "If these are pytest's fixtures, run it with pytest."
        )
