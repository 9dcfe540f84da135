"""`jaxgd minimize`: minimize a cost by any rule, and print or draw the path."""

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxgd.cli.common import DONE, FAILED, Int, MaybeFloat, MaybeFloats, MaybePath, require_writable_figure
from jaxgd.cli.output import say

if TYPE_CHECKING:
    from jaxgd.descent import Solution
    from jaxgd.named_costs import NamedCost

RuleName = Literal[
    "gradient-descent", "fixed-length", "heavy-ball", "nesterov", "backtracking", "wolfe", "newton", "gradient-flow"
]
# The hyperparameters of each rule, and their defaults.
_HYPERPARAMS: dict[str, tuple[str, ...]] = {
    "gradient-descent": ("eta",),
    "fixed-length": ("epsilon",),
    "heavy-ball": ("eta", "mu"),
    "nesterov": ("eta", "mu"),
    "backtracking": (),
    "wolfe": (),
    "newton": (),
    "gradient-flow": ("dt",),
}
_DEFAULTS = {"eta": 1e-3, "mu": 0.9, "epsilon": 1e-2, "dt": 1e-3}
_ROWS = 12  # rows of the printed table
_ENTRIES = 10_000  # limit on the entries of the recorded path
_GRID = 201  # points per side of the drawn landscape


@dataclasses.dataclass(frozen=True)
class Minimize:
    """Minimize a cost of many variables by gradient descent v → v − η∇C or another rule.

    Prints a table of the path and the outcome; --plot draws the valley with the path in it. The cost is a test function
    from the literature (valley, rosenbrock, beale, freudenstein-roth, powell-singular, himmelblau), or a function of
    your own, path/to/file.py::cost, that takes an array of floats and returns one float.

    Exit status: 0 the run converged, stalled or reached --max-steps; 1 it diverged, a value became infinite or NaN, or
    the figure could not be written; 2 misuse.
    """

    cost: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE::COST")]
    """Name of a test function, or a Python file and a function in it."""
    start: MaybeFloats = None
    """Initial values, one per variable of the cost.
    Too few values for a function of your own give no error: with one value, v[1] silently reads v[0].
    (default: the start from the literature; required for a function of your own)"""
    rule: RuleName = "gradient-descent"
    """Rule that computes a step from the gradient."""
    eta: MaybeFloat = None
    """Learning rate η of gradient-descent, heavy-ball and nesterov. (default: 0.001)"""
    mu: MaybeFloat = None
    """Momentum μ of heavy-ball and nesterov. (default: 0.9)"""
    epsilon: MaybeFloat = None
    """Length of each step of fixed-length. (default: 0.01)"""
    dt: MaybeFloat = None
    """Time that each step of gradient-flow covers. (default: 0.001)"""
    max_steps: Int = 10_000
    """Largest number of updates."""
    rtol: MaybeFloat = None
    """Stop when the gradient's norm is at most this fraction of its initial value.
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
    """File for a figure of the valley and the path: PNG, SVG or PDF, or HTML for a page that rotates and zooms."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document with the whole path instead of the table."""

    def run(self, argv: list[str]) -> int:
        """Minimize and return the exit status."""
        import jax

        from jaxgd.cli.cases import UserError, users_traceback
        from jaxgd.report.valley import require_drawable

        if self.plot is not None:
            require_writable_figure(self.plot, (".png", ".svg", ".pdf", ".html"))
            require_drawable(self.plot)
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

    def _cost_and_start(self) -> tuple[Any, tuple[float, ...]]:
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

    def _rule(self) -> Any:
        from jaxgd import rules
        from jaxgd.errors import RangeError

        names = _HYPERPARAMS[self.rule]
        for name in _DEFAULTS:
            if name not in names and getattr(self, name) is not None:
                allowed = f"only {' and '.join('--' + n for n in names)}" if names else "no hyperparameter"
                raise RangeError(f"--{name}: {self.rule} takes {allowed}. Leave out --{name}.")
        hyperparams = {name: _DEFAULTS[name] if getattr(self, name) is None else getattr(self, name) for name in names}
        return getattr(rules, self.rule.replace("-", "_"))(**hyperparams)

    def _stop(self) -> Any:
        from jaxgd.descent import Stop

        if not self.stop:
            return None
        if self.rtol is None and self.target is None:
            return "auto"
        return Stop(gradient_rtol=self.rtol, cost=self.target)


def _user_cost(word: str) -> Any:
    """Return the user's cost function that FILE::NAME names."""
    from jaxgd.cli.cases import find_function

    function, running_user_code = find_function(word)

    def cost(v: Any) -> Any:
        with running_user_code():
            return function(v)

    return cost


def _print_table(solution: "Solution") -> None:
    import numpy as np

    path = solution.trajectory
    assert path is not None
    n = len(path.cost)
    # Rows at geometrically growing distances, with the first and the last entry.
    shown = sorted(
        {0, n - 1, *np.unique(np.geomspace(1, max(n - 1, 1), _ROWS - 2).astype(int)).tolist()} & set(range(n))
    )
    v = np.asarray(path.v)
    heads = ["updates", "cost", "gradient", "step", *(["λ_max", "2/η"] if path.sharpness is not None else []), "v"]
    rows = [heads]
    for k in shown:
        numbers = [path.cost[k], path.gradient_norm[k], path.step_norm[k]]
        if path.sharpness is not None and path.stability is not None:
            numbers += [path.sharpness[k], path.stability[k]]
        place = " ".join(f"{x:.6g}" for x in v[k][:6]) + (" …" if v.shape[1] > 6 else "")
        rows.append([str(int(path.step[k])), *("" if np.isnan(x) else f"{float(x):.6g}" for x in numbers), place])
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


def _place(v: Any) -> str:
    import numpy as np

    x = np.asarray(v)
    return f"({', '.join(f'{y:.8g}' for y in x[:8])}{', …' if x.size > 8 else ''})"


def _print_json(options: Minimize, rule: Any, solution: "Solution") -> None:
    import json
    import math

    import numpy as np

    def plain(x: Any) -> Any:
        x = np.asarray(x).tolist()
        return _without_nan(x)

    def _without_nan(x: Any) -> Any:
        if isinstance(x, list):
            return [_without_nan(y) for y in x]
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


def _plot(options: Minimize, cost: Any, rule: Any, solution: "Solution") -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxgd.report.valley import Landscape, draw
    from jaxgd.slices import cost_slice

    path = solution.trajectory
    assert path is not None
    v, heights = np.asarray(path.v, float), np.asarray(path.cost, float)
    v, heights = np.concatenate([v, [np.asarray(solution.v, float)]]), np.append(heights, float(solution.cost))
    finite = np.isfinite(v).all(axis=1) & np.isfinite(heights)
    v, heights = v[finite], heights[finite]
    if not len(v):
        say("nothing to draw: the cost is not finite at the start")
        return
    if len(higher := np.flatnonzero(np.abs(heights) > 1e3 * max(abs(heights[0]), 1.0))):
        # A path that leaves the valley is drawn up to the first point far outside, so that the valley stays visible.
        v, heights = v[: higher[0] + 1], heights[: higher[0] + 1]
    minima = _known_minima(options.cost)
    title = f"{options.cost}, {rule!r}: {solution.outcome.message.split(':')[0]} after {int(solution.steps):,} updates"
    if v.shape[1] == 1:
        # The figure needs two variables: add a second one that the cost ignores.
        v, original = np.stack([v[:, 0], np.zeros(len(v))], axis=1), cost
        cost = lambda v: original(v[:1])  # noqa: E731
    if v.shape[1] == 2:
        a, b = (_around(axis, near) for axis, near in zip(v.T, _nearest(minima, v[-1]).T, strict=True))
        over = jax.jit(jax.vmap(lambda x: jax.vmap(lambda y: cost(jnp.stack([x, y])))(jnp.asarray(b))))
        grid = np.asarray(over(jnp.asarray(a, options.dtype)), float)
        names = ("v₁", "v₂")
        landscape = Landscape(a, b, grid, v, heights, names, title, minima)
    else:
        plane = cost_slice(cost, jnp.asarray(v[0]), through=_plane(v), resolution=_GRID)
        places = np.stack([np.asarray(jax.vmap(plane.project)(jnp.asarray(v)))[i] for i in range(2)], axis=1)
        a, b = np.asarray(plane.a, float), np.asarray(plane.b, float)
        names = ("from start to end", "across, in v's units")
        title += f"\na slice through {v.shape[1]} dimensions, with the path projected onto it"
        if len(minima):
            shadows = np.stack(jax.vmap(plane.project)(jnp.asarray(minima[:, :-1], options.dtype)), axis=1)
            minima = np.column_stack([np.asarray(shadows, float), minima[:, -1]])
        landscape = Landscape(a, b, np.asarray(plane.cost, float), places, heights, names, title, minima)
    draw(landscape, Path(options.plot or "valley.png"))
    say(f"drawn: {options.plot}")


def _known_minima(name: str) -> Any:
    """Return the known minima of a named cost, (p, n + 1): the variables and the cost. Empty for any other cost."""
    import numpy as np

    from jaxgd.named_costs import NAMED_COSTS

    named: NamedCost | None = NAMED_COSTS.get(name)
    return np.array([[*v, cost] for v, cost in named.minima]) if named is not None else np.zeros((0, 3))


def _nearest(minima: Any, v: Any) -> Any:
    """Return the known minimum that is nearest to v, (1, n); (0, n) if none is known."""
    import numpy as np

    distances = np.linalg.norm(minima[:, :-1] - v, axis=1)
    return minima[np.argsort(distances)[:1], :-1]


def _around(axis: Any, minimum: Any) -> Any:
    """Return a grid that is wider than the path along one axis and holds the minimum, if one is known."""
    import numpy as np

    points = np.append(axis, minimum)
    low, high = float(points.min()), float(points.max())
    width = high - low or max(1.0, abs(low))
    # A wider margin beyond the end of the path shows the valley's other side.
    below, above = (0.6 if abs(axis[-1] - edge) < 0.1 * width else 0.25 for edge in (low, high))
    return np.linspace(low - below * width, high + above * width, _GRID)


def _plane(v: Any) -> tuple[Any, Any]:
    """Return two points that span a plane with the start: the end, and the point farthest from the line to the end.

    A straight path, or a single point, does not span a plane: random directions complete it.
    """
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    line = v[-1] - v[0]
    length = np.linalg.norm(line)
    if length == 0:
        line = rng.normal(size=v.shape[1])
        length = np.linalg.norm(line)
    off = v - v[0] - np.outer((v - v[0]) @ line / (line @ line), line)
    far = off[np.argmax(np.linalg.norm(off, axis=1))]
    if np.linalg.norm(far) < 1e-6 * length:
        far = rng.normal(size=v.shape[1])
        far = far - far @ line / (line @ line) * line
        far = 0.5 * length / np.linalg.norm(far) * far
    return jnp.asarray(v[0] + line), jnp.asarray(v[0] + far)
