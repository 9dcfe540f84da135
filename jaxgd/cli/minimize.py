"""`jaxgd minimize`: minimize a cost by one of jaxgd's rules, and print or draw the path."""

import contextlib
import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxgd.cli.common import DONE, FAILED, Int, MaybeFloat, MaybeFloats, MaybePath, require_writable_figure
from jaxgd.cli.output import say
from jaxgd.rules.entry import Hyperparam
from jaxgd.rules.registry import RULES

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array

    from jaxgd.descent import Solution, Stop
    from jaxgd.named_costs import NamedCost
    from jaxgd.rules import Rule

_ROWS = 12  # largest number of lines of the printed table, with its header
_ENTRIES = 10_000  # limit on the recorded updates; the start is recorded too


# The choices of --rule and the options for hyperparameters come from the registry.
_WORDS = {rule.word: rule for rule in RULES.values()}
_NUMBERS = {h.name: h for rule in RULES.values() for h in rule.hyperparams}
if TYPE_CHECKING:
    RuleName = str
else:
    RuleName = Literal[tuple(_WORDS)]


def _option(h: Hyperparam) -> tuple[str, Any, None]:
    *others, last = [word for word, rule in _WORDS.items() if h.name in [number.name for number in rule.hyperparams]]
    rules = f"{', '.join(others)} and {last}" if others else last
    text = f"{h.help} of {rules}. (default: {h.default:g})"
    return h.name, Annotated[MaybeFloat, tyro.conf.arg(help=text, help_behavior_hint="")], None


@dataclasses.dataclass(frozen=True)
class _Rule:
    cost: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE::COST")]
    """Name of a test function, or a Python file and a function in it."""
    start: MaybeFloats = None
    """Initial values, one per variable of the cost.
    Too few values for a function of your own give no error: with one value, v[1] silently reads v[0].
    (default: the start from the literature; required for a function of your own)"""
    rule: RuleName = "gradient-descent"
    """Rule that computes each step."""


if TYPE_CHECKING:
    _Hyperparams = _Rule
else:
    _Hyperparams = dataclasses.make_dataclass(
        "_Hyperparams", map(_option, _NUMBERS.values()), bases=(_Rule,), frozen=True
    )


@dataclasses.dataclass(frozen=True)
class Minimize(_Hyperparams):
    """Minimize a cost of many variables by gradient descent v → v − η∇C or another rule.

    Prints a table of the path and the outcome; --plot draws the cost around the path.

    The cost is a test function from the literature (valley, rosenbrock, beale, freudenstein-roth, powell-singular,
    himmelblau), or a function of your own, path/to/file.py::cost, that takes an array of floats and returns one float.

    Exit status: 0 the run converged, stalled, reached --max-steps or ended at a zero gradient; 1 it diverged, a value
    was infinite or NaN, or the figure or the output could not be written; 2 misuse, or the cost raised an error.
    """

    max_steps: Int = 10_000
    """Largest number of updates."""
    rtol: MaybeFloat = None
    """Stop when the gradient's norm is at most this fraction of its initial value, and a check confirms the minimum.
    (default: 2e-12 in float64, 6e-6 in float32; no such test with --target)"""
    target: MaybeFloat = None
    """Stop when the cost is at most this value."""
    stop: bool = True
    """Stop before --max-steps if the run has converged, stalled or diverged."""
    dtype: Literal["float64", "float32"] = "float64"
    """Precision of the computation."""
    sharpness: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Track the Hessian's largest eigenvalue λ_max, and compare it with 2/η."""
    plot: MaybePath = None
    """File for a figure of the cost around the path: PNG, SVG or PDF, or HTML for a figure that rotates and zooms."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document with the path instead of the table.
    With --max-steps above 10,000, the path does not list every update."""

    def run(self, argv: list[str]) -> int:
        """Minimize and return the exit status."""
        import jax

        from jaxgd.cli.cases import UserError, users_traceback
        from jaxgd.report.figure import STILL, require_library

        if self.plot is not None:
            require_writable_figure(self.plot, (*STILL, ".html"))
            require_library("--plot", "plotly" if self.plot.suffix.lower() == ".html" else "matplotlib")
        try:
            with jax.enable_x64(True) if self.dtype == "float64" else contextlib.nullcontext():
                return self._run()
        except UserError as error:
            print(f"jaxgd minimize: {error}\n{users_traceback(error.__cause__ or error)}", end="", file=sys.stderr)
            return 2

    def _run(self) -> int:
        import jax.numpy as jnp

        from jaxgd.descent import Record, minimize

        # With --json, stdout holds the document only: prints from the user's code go to stderr.
        prints = contextlib.redirect_stdout(sys.stderr) if self.json else contextlib.nullcontext()
        with prints:
            cost, start = self._cost_and_start()
            rule = self._rule()
            solution = minimize(
                cost,
                jnp.asarray(start, self.dtype),
                rule,
                max_steps=self.max_steps,
                stop=self._stop(),
                record=Record(every=max(1, -(-self.max_steps // _ENTRIES)), v=True, sharpness=self.sharpness),
            )
        if self.json:
            _print_json(self, rule, solution)
        else:
            _print_table(solution)
        if self.plot is not None:
            with prints:
                _plot(self, cost, rule, solution)
        failed = solution.outcome.reason.name in ("NOT_FINITE", "START_NOT_FINITE", "DIVERGING", "BAD_RULE")
        return FAILED if failed else DONE

    def _cost_and_start(self) -> "tuple[Callable[[Array], object], tuple[float, ...]]":
        from jaxgd.errors import RangeError
        from jaxgd.named_costs import NAMED_COSTS

        named: NamedCost | None = NAMED_COSTS.get(self.cost)
        if named is not None:
            start = named.start if self.start is None else self.start
            if len(start) != len(named.start):
                raise RangeError(f"--start: {self.cost} expects {len(named.start)} variables, got {len(start)}.")
            return named.cost, start
        if ".py" not in self.cost:
            raise RangeError(
                f"the cost must be {', '.join(NAMED_COSTS)} or a function of your own, as in model.py::cost, got "
                f"{self.cost!r}."
            )
        if self.start is None:
            raise RangeError(f"{self.cost} needs --start, the initial variables, as in --start 1.0 2.0.")
        return _user_cost(self.cost), self.start

    def _rule(self) -> "Rule":
        from jaxgd.errors import RangeError

        rule = _WORDS[self.rule]
        given = {name: getattr(self, name) for name in _NUMBERS if getattr(self, name) is not None}
        hyperparams = {h.name: given.pop(h.name, h.default) for h in rule.hyperparams}
        for name in given:
            allowed = f"only {' and '.join('--' + n for n in hyperparams)}" if hyperparams else "no hyperparameter"
            raise RangeError(f"--{name}: {self.rule} takes {allowed}. Leave out --{name}.")
        made: Rule = rule.load()(**hyperparams)
        return made

    def _stop(self) -> "Stop | Literal['auto'] | None":
        from jaxgd.descent import Stop
        from jaxgd.errors import RangeError

        if not self.stop:
            for option in ("rtol", "target"):
                if getattr(self, option) is not None:
                    raise RangeError(
                        f"--{option} is a stopping test, but --no-stop omits all stopping tests. "
                        f"Leave out --{option} or --no-stop."
                    )
            return None
        if self.rtol is None and self.target is None:
            return "auto"
        return Stop(gradient_rtol=self.rtol, cost=self.target)


def _user_cost(word: str) -> "Callable[[Array], object]":
    """Return the user's cost function that FILE::NAME names."""
    from jaxgd.cli.cases import find_function

    function, running_user_code = find_function(word)

    def cost(v: "Array") -> object:
        with running_user_code():
            return function(v)

    return cost


def _print_table(solution: "Solution") -> None:
    import math

    import numpy as np

    path = solution.trajectory
    assert path is not None
    n = len(path.cost)
    # Show the first and the last entry, and entries at growing distances between them.
    shown = sorted(
        {0, n - 1, *np.unique(np.geomspace(1, max(n - 1, 1), _ROWS - 2).astype(int)).tolist()} & set(range(n))
    )
    v: list[list[float]] = np.asarray(path.v).tolist()
    heads, columns = ["updates", "cost", "gradient", "step"], [path.cost, path.gradient_norm, path.step_norm]
    if path.sharpness is not None and path.stability is not None:
        heads, columns = [*heads, "λ_max", "2/η"], [*columns, path.sharpness, path.stability]
    heads.append("v")
    rows = [heads]
    for k in shown:
        place = " ".join(f"{x:.6g}" for x in v[k][:6]) + (" …" if len(v[k]) > 6 else "")
        numbers = (float(column[k]) for column in columns)
        rows.append([str(int(path.step[k])), *("" if math.isnan(x) else f"{x:.6g}" for x in numbers), place])
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    for row in rows:
        print("  ".join(cell.rjust(w) for cell, w in zip(row[:-1], widths[:-1], strict=True)) + "  " + row[-1])
    print(f"\n{solution.outcome.message}")
    print(
        f"after {int(solution.steps)} updates and {int(solution.evaluations)} evaluations: "
        f"C = {float(solution.cost):.8g} at {_place(solution.v)}"
    )
    if float(solution.best_cost) < float(solution.cost):
        print(f"the lowest cost was C = {float(solution.best_cost):.8g} at {_place(solution.best_v)}")
    if path.started_above:
        print("λ_max is above 2/η at the start")
    if int(path.crossed) >= 0:
        print(f"λ_max rises above 2/η at update {int(path.crossed)}")


def _place(v: object) -> str:
    import numpy as np

    x: list[float] = np.asarray(v).tolist()
    return f"({', '.join(f'{y:.8g}' for y in x[:8])}{', …' if len(x) > 8 else ''})"


def _print_json(options: Minimize, rule: object, solution: "Solution") -> None:
    import json
    import math

    import numpy as np

    def plain(x: object) -> object:
        """Return an array as lists, with texts in place of numbers that JSON cannot hold."""
        if isinstance(x, list):
            return [plain(y) for y in x]
        if not isinstance(x, int | float | str):
            return plain(np.asarray(x).tolist())
        return x if not isinstance(x, float) or math.isfinite(x) else str(x)

    path = solution.trajectory
    assert path is not None
    out = {
        "cost_function": options.cost,
        "rule": repr(rule),
        **{name: getattr(options, name) for name in ("start", "max_steps", "rtol", "target", "stop", "dtype")},
        "outcome": solution.outcome.reason.name,
        "message": solution.outcome.message,
        "steps": int(solution.steps),
        "evaluations": int(solution.evaluations),
        **{name: plain(getattr(solution, name)) for name in ("v", "cost", "gradient", "best_v", "best_cost")},
        "trajectory": {name: plain(x) for name, x in path._asdict().items() if x is not None},
    }
    print(json.dumps(out, allow_nan=False))


def _plot(options: Minimize, cost: "Callable[[Array], object]", rule: object, solution: "Solution") -> None:
    from matplotlib.figure import Figure

    from jaxgd.named_costs import NAMED_COSTS
    from jaxgd.report.figure import save_figure
    from jaxgd.report.page import save_page
    from jaxgd.report.plotting import plot

    assert options.plot is not None
    if solution.outcome.reason.name == "START_NOT_FINITE":
        say("nothing to draw: the cost is not finite at the start")
        return
    named: NamedCost | None = NAMED_COSTS.get(options.cost)
    minima = [] if named is None else [v for v, _ in named.minima]
    name = f"{options.cost}, {rule!r}"
    if options.plot.suffix.lower() == ".html":
        page = plot(solution, cost=cost, minima=minima, interactive=True)
        page.update_layout(title_text=f"{name}: {page.layout.title.text}")
        save_page(page, options.plot)
    else:
        figure = Figure(figsize=(11, 4.8), layout="constrained")
        plot(solution, cost=cost, minima=minima, figure=figure)
        figure.suptitle(f"{name}: {figure.get_suptitle()}".replace("$", r"\$"))
        save_figure("minimize", figure, options.plot, dpi=120)
    say(f"drawn: {options.plot}")
