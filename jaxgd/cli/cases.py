"""Import a user's file, then find and run its gradient checks without pytest, or return one of its functions."""

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
    """A wrapper of an exception that the user's code raised. That exception is the `__cause__`."""


class Case(NamedTuple):
    """A check: its name FILE::FUNCTION, the file's folder, the function, and the reason to skip it ("" to run it)."""

    name: str
    folder: Path
    function: Callable[..., object]
    skipped: str = ""


class Result(NamedTuple):
    """One result of a case: a report, an error, or the reason why the case was skipped."""

    case: str
    report: GradientReport | None
    error: str = ""
    skipped: str = ""

    @property
    def outcome(self) -> str:
        """The verdict of the report. Without a report, it is "could not run" or "skipped"."""
        if self.report is not None:
            return self.report.verdict.value
        return "skipped" if self.skipped else "could not run"


def find_cases(words: tuple[str, ...]) -> list[Case]:
    """Find the case of each FILE::CASE and all cases of each FILE, before any case runs.

    In a FILE, skip each case that has a skip mark or that `jaxgd check` cannot run. If FILE::CASE names
    such a case, raise RangeError.
    """
    modules: dict[Path, ModuleType] = {}
    cases = []
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
            if colons:
                _require_runnable(word, function)
            cases.append(Case(f"{file}::{name}", path.parent.absolute(), function, _needs(function)))
    return cases


def find_function(word: str) -> tuple[Callable[..., object], Callable[[], contextlib.AbstractContextManager[None]]]:
    """Return the function FILE::NAME, and a function that returns a context manager for each call."""
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
    """Run a case and yield its reports.

    If the case is skipped, makes no report, or raises an error other than GradientError, yield the reason too.
    """
    if case.skipped:
        yield Result(case.name, None, skipped=case.skipped)
        return
    reports: list[GradientReport] = []

    def check(
        f: Callable[..., object], *args: object, strict: bool | None = None, seed: int = seed, **options: Any
    ) -> GradientReport:
        """Check as the pytest fixture does, but continue after a wrong gradient.

        `strict` has no effect, because `jaxgd check` always reports an undecided check.
        """
        reports.append(check_gradients(f, *args, seed=seed, **options))
        return reports[-1]

    out, error = None, None
    try:
        with _running_user_code(case.folder):
            out = case.function(**({_FIXTURE: check} if _FIXTURE in _parameters(case.function) else {}))
    except UserError as raised:
        error = raised.__cause__
    # A case may import check_gradients itself. Then it returns the report, or raises a GradientError that has it.
    last = error.report if isinstance(error, GradientError) else out
    if isinstance(last, GradientReport) and not any(last is report for report in reports):
        reports.append(last)
    for report in reports:
        yield Result(case.name, report)
    if error is not None and _is_skip(error):
        yield Result(case.name, None, skipped=str(error).strip() or "pytest.skip gave no reason")
    elif error is not None and not isinstance(error, GradientError):
        yield Result(case.name, None, f"it raised\n{users_traceback(error)}")
    elif not reports and error is None:
        returned = "" if out is None else f"; it returned {type(out).__name__}"
        yield Result(
            case.name,
            None,
            f"it made no report{returned}. Return the report of jaxgd.check_gradients, "
            f"or take the parameter {_FIXTURE} and call it.",
        )


def _is_skip(error: BaseException) -> bool:
    """Return True if the error is from pytest.skip. Compare names, because jaxgd also runs without pytest."""
    # pytest moves the class Skipped into the module builtins, but its base class stays in _pytest.outcomes.
    return type(error).__name__ == "Skipped" and any(
        base.__module__ == "_pytest.outcomes" for base in type(error).__mro__
    )


def users_traceback(error: BaseException) -> str:
    """Return the traceback as Python prints it, without jaxgd's own frames."""
    import traceback

    hide_own_frames(error)
    return "".join(traceback.format_exception(error))


@contextlib.contextmanager
def _running_user_code(folder: Path) -> Iterator[None]:
    """Put the user's folder first on the import path inside the block.

    An exception of the block, except KeyboardInterrupt, becomes the cause of a UserError.
    """
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


def _functions(module: ModuleType) -> dict[str, Callable[..., object]]:
    """Return the functions that the file defines, in the order of the file, without those that it imports."""
    members = vars(module).items()
    return {name: f for name, f in members if inspect.isfunction(f) and f.__module__ == module.__name__}


def _parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def _is_case(name: str, function: Callable[..., object]) -> bool:
    """Return True if the function is named check_…, or is named test_… and takes check_gradients."""
    return name.startswith("check_") or (name.startswith("test_") and _FIXTURE in _parameters(function))


def _all_cases(module: ModuleType, file: str) -> dict[str, Callable[..., object]]:
    # Include methods. They are skipped, because only pytest creates the instance of a class.
    classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    methods = {f"{c.__name__}.{name}": f for c in classes for name, f in vars(c).items() if inspect.isfunction(f)}
    functions: dict[str, Callable[..., object]] = {**_functions(module), **methods}
    cases = {name: function for name, function in functions.items() if _is_case(name.rpartition(".")[2], function)}
    if not cases:
        raise RangeError(
            f"{file} has no case. A case is a function check_… without parameters that returns a GradientReport, or a "
            f"function check_… or test_… with the parameter {_FIXTURE}."
        )
    return cases


def _named_function(module: ModuleType, file: str, name: str) -> Callable[..., object]:
    functions = _functions(module)
    function = vars(module).get(name)
    if function is None:
        cases = [name for name, f in functions.items() if _is_case(name, f) and not _needs(f)]
        present = f"Its cases are {', '.join(cases)}." if cases else "It has no case check_… or test_…."
        close = difflib.get_close_matches(name, functions, n=1)
        raise RangeError(f"{file} has no {name!r}. {present}" + "".join(f" Did you mean {x}?" for x in close))
    if not callable(function) or isinstance(function, type):
        raise RangeError(f"{file}::{name} must be a function, got {type(function).__name__}.")
    return function  # type: ignore[no-any-return]


def _missing_parameters(function: Callable[..., object]) -> list[str]:
    """Return the names of the function's required parameters, except check_gradients."""
    return [
        parameter.name
        for parameter in _parameters(function).values()
        if parameter.name != _FIXTURE
        and parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def _needs(function: Callable[..., object]) -> str:
    """Return the reason why the function is skipped, or an empty string."""
    if mark := next(filter(_skips, _marks(function)), None):
        reasons = mark.kwargs.get("reason"), *(mark.args if mark.name == "skip" else ())
        return f"has the mark {mark.name}: {next(filter(None, reasons), 'without a reason')}"
    missing = _missing_parameters(function)
    if missing[:1] == ["self"]:
        return "is a method, which only pytest can run"
    return f"needs {', '.join(missing)}, but jaxgd check supplies only {_FIXTURE}" if missing else ""


def _marks(function: Callable[..., object]) -> list[Any]:
    """Return the pytest marks of the function and of its file."""
    found = (getattr(x, "pytestmark", []) for x in (function, sys.modules.get(function.__module__)))
    marks = [mark for one in found for mark in (one if isinstance(one, list) else [one])]
    # The mark of a file is wrapped in a decorator.
    return [getattr(mark, "mark", mark) for mark in marks]


def _skips(mark: Any) -> bool:
    # A condition that is a string is ignored, because only pytest can evaluate it.
    conditions = [x for x in (*mark.args, mark.kwargs.get("condition")) if not isinstance(x, str)]
    return mark.name == "skip" or (mark.name == "skipif" and any(conditions))


def _require_runnable(name: str, function: Callable[..., object]) -> None:
    if needs := _needs(function):
        advice = "Remove the mark." if needs.startswith("has the mark") else "Run it with pytest."
        raise RangeError(f"{name} {needs}. {advice}")
