"""Find a user's gradient checks in a file, and run them as pytest would."""

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

# The only argument that a case can receive, named like the pytest fixture.
_FIXTURE = "check_gradients"


class UserError(Exception):
    """An exception raised by the user's code, which is its `__cause__`."""


class Case(NamedTuple):
    """A function to run, and its name as FILE::FUNCTION."""

    name: str
    folder: Path
    function: Callable[..., Any]


class Result(NamedTuple):
    """One report of a case, or the error that prevented it."""

    case: str
    report: GradientReport | None
    error: str = ""


def find_cases(words: tuple[str, ...]) -> tuple[list[Case], list[str]]:
    """Find the case of each FILE::CASE and all cases of each FILE, before any case runs.

    Return the cases, and a line for each skipped function that looks like a case but needs further arguments.
    """
    modules: dict[Path, ModuleType] = {}
    cases, skipped = [], []
    for word in words:
        file, colons, name = word.partition("::")
        path = Path(file)
        if not path.is_file():
            raise RangeError(
                f"{file or word!r} is not a file. Name a Python file, as in tests/test_model.py::check_layer."
            )
        if path not in modules:
            modules[path] = _import(path, len(modules))
        functions = {name: _named_function(modules[path], file, name)} if colons else _all_cases(modules[path], file)
        for name, function in functions.items():
            _require_runnable(f"{file}::{name}", function)
            cases.append(Case(f"{file}::{name}", path.parent.absolute(), function))
        if not colons:
            skipped += [f"{file}::{name} needs {needs}" for name, needs in _skipped(modules[path]).items()]
    return cases, skipped


def find_function(word: str) -> tuple[Callable[..., Any], Callable[[], contextlib.AbstractContextManager[None]]]:
    """Return the function that FILE::NAME names, and a context manager in which to call it."""
    file, _, name = word.partition("::")
    path = Path(file)
    if not path.is_file():
        raise RangeError(f"{file!r} is not a file. Name a Python file and a function in it, as in model.py::cost.")
    if not name:
        raise RangeError(f"{word}: name the function too, as in {file}::cost.")
    functions = _functions(module := _import(path, 0))
    if name not in vars(module):
        close = "".join(f" Did you mean {x}?" for x in difflib.get_close_matches(name, functions, n=1))
        raise RangeError(f"{file} has no {name!r}.{close}")
    return _named_function(module, file, name), lambda: _running_user_code(path.parent.absolute())


def run_case(case: Case, seed: int) -> Iterator[Result]:
    """Run a case and yield its reports, or an error if it raises or makes no report."""
    reports: list[GradientReport] = []

    def check(
        f: Callable[..., Any], *args: Any, strict: bool | None = None, seed: int = seed, **options: Any
    ) -> GradientReport:
        """Check as the pytest fixture does, but continue after a wrong gradient.

        `strict` has no effect, because the exit status reports every undecided check.
        """
        reports.append(check_gradients(f, *args, seed=seed, **options))
        return reports[-1]

    out, error = None, None
    try:
        with _running_user_code(case.folder):
            out = case.function(**({_FIXTURE: check} if _FIXTURE in _parameters(case.function) else {}))
    except UserError as raised:
        error = raised.__cause__
    # A case may also return or raise a report that it made with its own import of check_gradients.
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
            f"it made no report{returned}. Return the report of jaxgd.check_gradients, "
            f"or take the parameter {_FIXTURE} and call it.",
        )


def users_traceback(error: BaseException) -> str:
    """Return the traceback as Python prints it, without jaxgd's own frames."""
    import traceback

    hide_own_frames(error)
    return "".join(traceback.format_exception(error))


@contextlib.contextmanager
def _running_user_code(folder: Path) -> Iterator[None]:
    """Put the user's folder first on the import path, and wrap every exception in a UserError."""
    sys.path.insert(0, str(folder))
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit and pytest.skip do not raise subclasses of Exception
        raise UserError from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _import(path: Path, number: int) -> ModuleType:
    """Import a file under a unique module name, so that it cannot collide with any other module."""
    name = f"_jaxgd_check_{number}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    if spec is None or spec.loader is None:
        raise RangeError(f"{path} is not a Python file. Its name must end in .py.")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with _running_user_code(path.parent.absolute()):
            spec.loader.exec_module(module)
    except UserError as error:
        del sys.modules[name]
        raise UserError(f"{path} cannot be imported") from error.__cause__
    return module


def _functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """Return the functions that the file defines, in the order of the file, without those that it imports."""
    members = vars(module).items()
    return {name: f for name, f in members if inspect.isfunction(f) and f.__module__ == module.__name__}


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def _is_case(name: str, function: Callable[..., Any]) -> bool:
    if name.startswith("test_"):
        # Only pytest can run a test that needs other fixtures, such as the points of a marker.
        return _FIXTURE in _parameters(function) and not _missing_parameters(function)
    return name.startswith("check_") and not _missing_parameters(function)


def _skipped(module: ModuleType) -> dict[str, str]:
    """Return the functions that are named like cases but need further arguments, with those arguments."""
    candidates = {
        name: f
        for name, f in _functions(module).items()
        if name.startswith("check_") or (name.startswith("test_") and _FIXTURE in _parameters(f))
    }
    return {name: ", ".join(_missing_parameters(f)) for name, f in candidates.items() if _missing_parameters(f)}


def _all_cases(module: ModuleType, file: str) -> dict[str, Callable[..., Any]]:
    cases = {name: function for name, function in _functions(module).items() if _is_case(name, function)}
    if not cases:
        raise RangeError(
            f"{file} has no case. A case is a function check_… without parameters that returns a GradientReport, or a "
            f"function check_… or test_… with the parameter {_FIXTURE}."
        )
    return cases


def _named_function(module: ModuleType, file: str, name: str) -> Callable[..., Any]:
    functions = _functions(module)
    function = vars(module).get(name)
    if function is None:
        cases = [name for name, function in functions.items() if _is_case(name, function)]
        present = f"Its cases are {', '.join(cases)}." if cases else "It has no case check_… or test_…."
        close = difflib.get_close_matches(name, functions, n=1)
        raise RangeError(f"{file} has no {name!r}. {present}" + "".join(f" Did you mean {x}?" for x in close))
    if not callable(function) or isinstance(function, type):
        raise RangeError(f"{file}::{name} must be a function, got {type(function).__name__}.")
    return function  # type: ignore[no-any-return]


def _missing_parameters(function: Callable[..., Any]) -> list[str]:
    """Return the function's required parameters, without check_gradients."""
    return [
        parameter.name
        for parameter in _parameters(function).values()
        if parameter.name != _FIXTURE
        and parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def _require_runnable(name: str, function: Callable[..., Any]) -> None:
    if missing := _missing_parameters(function):
        raise RangeError(
            f"{name} needs {', '.join(missing)}, but jaxgd check supplies only {_FIXTURE}. "
            "Run a test that needs pytest fixtures with pytest."
        )
