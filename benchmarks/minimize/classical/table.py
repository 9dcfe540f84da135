"""The table of minimizers on the classical problems, and its summary."""

import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.case import Case, Options
from benchmarks.minimize.classical import PROBLEMS
from benchmarks.minimize.classical.minimizers import RULES, Run, by_rule, quick_compilation, runs
from benchmarks.minimize.classical.problem import Problem, Task
from benchmarks.minimize.evaluations import count_row
from benchmarks.rows import Row, sampled, significant

NAME = "minimize-classical"
# A run reaches a minimum C* if |C − C*| ≤ 1e-8 · max(1, |C*|).
NEAR = 1e-8
BASELINES = ("scipy L-BFGS-B, tight", "scipy L-BFGS-B")


class Verdict(NamedTuple):
    """A comparison of C at the end of a run with the nearest known minimum of C.

    Attributes:
        error: C − C*, for the nearest minimum C*.
        minimum: The nearest minimum C*.
        reached: True if |C − C*| ≤ 1e-8 · max(1, |C*|).
        closely: True if |C − C*| ≤ 1e-8 · |C*|; None if C* = 0.
        evaluations: The number of evaluations until C first was within the limit of `reached`; None if `reached` is
            False.
    """

    error: float
    minimum: float
    reached: bool
    closely: bool | None
    evaluations: int | None


def judged(problem: Task, run: Run) -> Verdict:
    """Compare the end of a run with the minima of the problem."""
    minimum = min(problem.minima, key=lambda c: abs(run.cost - c))

    def near(c: float) -> bool:
        return abs(c - minimum) <= NEAR * max(1, abs(minimum))

    reached = near(run.cost)
    # A minimizer may return a point that is not in the trace. Then all its evaluations count.
    first = next((count for count, c in run.trace if near(c)), run.evaluations) if reached else None
    error = run.cost - minimum
    return Verdict(error, minimum, reached, abs(error) <= NEAR * abs(minimum) if minimum else None, first)


class Exact:
    """C, ∇C and the Hessian of a problem in float64."""

    def __init__(self, problem: Problem) -> None:
        cost = problem.cost
        self.evaluate = jax.jit(lambda v: (cost(v), jax.grad(cost)(v), jax.hessian(cost)(v)))

    def is_minimum(self, v: Any, eps: float) -> bool:
        """Return True if v is near a stationary point without negative curvature, by NumPy's eigenvalues.

        The Newton step must be at most 10√eps · max(1, ‖v‖) long, or it must decrease C by at most
        10 max(√eps, eps^¾ · |C|) in the quadratic model. These limits are at least ten times those of jaxgd's own
        check. `eps` is the machine epsilon of the run's dtype. Eigenvalues below 10n eps times the largest absolute
        one are set to this limit, because they may be rounding errors.
        """
        with jax.enable_x64(True):
            c, g, h = map(np.asarray, self.evaluate(jnp.asarray(np.asarray(v, float))))
        if not (np.isfinite(c) and np.isfinite(g).all() and np.isfinite(h).all()):
            return False
        curvature, directions = np.linalg.eigh(h)
        rounding = 10 * len(g) * eps * max(abs(curvature).max(), np.finfo(float).tiny)
        if curvature.min() < -rounding:
            return False
        slopes, curvature = directions.T @ g, np.maximum(curvature, rounding)
        distance, decrease = np.linalg.norm(slopes / curvature), np.sum(slopes**2 / curvature) / 2
        root = 10 * eps**0.5
        return bool(distance <= root * max(1, np.linalg.norm(v)) or decrease <= max(root, 10 * eps**0.75 * abs(c)))


class Measured(NamedTuple):
    """The runs on one problem.

    Attributes:
        runs: The run of each minimizer, in float64.
        successes: For each rule and precision: True if the run ends at a minimum. Runs that report a failure are
            left out.
    """

    runs: dict[str, Run]
    successes: dict[tuple[str, str], bool]


def end_rows(case: str, problem: Task, results: dict[str, Run]) -> Iterator[Row]:
    """Yield the evaluations of each minimizer until C is near a minimum, with the end of its run in `details`."""
    for variant, run in results.items():
        verdict = judged(problem, run)
        row = count_row(case, variant, verdict.evaluations, "float64")
        run_end = {
            "evaluations": run.evaluations, "steps": run.steps, "ok": run.ok, "outcome": run.outcome[:60],
            "cost": significant(run.cost, 15), "error": significant(verdict.error, 3), "minimum": verdict.minimum,
        }  # fmt: skip
        yield Row(**{**vars(row), "details": {"end": _jsonable(run_end)}})


def _jsonable(fields: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN and infinite numbers, which JSON lacks, by their names."""
    return {k: str(x) if isinstance(x, float) and not np.isfinite(x) else x for k, x in fields.items()}


def summary(measured: dict[str, Measured]) -> Iterator[Row]:
    """Yield the number of problems that each minimizer solves, ratios of evaluations, and jaxgd's false successes."""
    results = {name: one.runs for name, one in measured.items()}
    verdicts = {name: {v: judged(PROBLEMS[name], run) for v, run in mine.items()} for name, mine in results.items()}
    for variant in dict.fromkeys(variant for mine in results.values() for variant in mine):
        mine = {name: of[variant] for name, of in verdicts.items() if variant in of}
        close = {name: v.closely for name, v in mine.items() if v.closely is not None}
        details = {
            "missed": [name for name, v in mine.items() if not v.reached],
            # A run is missed here if |C − C*| > 1e-8 · |C*|.
            "missed without the 1": [name for name, closely in close.items() if not closely],
            "minima other than 0": len(close),
            "success elsewhere": [name for name, v in mine.items() if results[name][variant].ok and not v.reached],
        }
        yield _counted(variant, "reached", sum(v.reached for v in mine.values()), len(mine), details)
    for baseline in BASELINES:
        counts = {n: (of["jaxgd wolfe"].evaluations, of[baseline].evaluations) for n, of in verdicts.items()}
        # A start that is already near a minimum says nothing about a minimizer.
        both = {n: (a, b) for n, (a, b) in counts.items() if a is not None and b is not None and a > 1}
        if not both:
            continue
        target = [a / b for a, b in both.values()]
        whole = [results[n]["jaxgd wolfe"].evaluations / results[n][baseline].evaluations for n in both]
        more = {"compared with": baseline, "median of the whole runs": significant(statistics.median(whole))}
        variant = f"jaxgd wolfe / {baseline}"
        yield sampled(NAME, variant, "ratio", "×", target, precision="float64", details=more)
    for precision in ("float64", "float32"):
        for variant in RULES:
            ends = {name: one.successes.get((variant, precision)) for name, one in measured.items()}
            wrong = [name for name, minimum in ends.items() if minimum is False]
            more = {"ends": wrong, "successes": sum(minimum is not None for minimum in ends.values())}
            yield _counted(variant, "false success", len(wrong), len(results), more, precision)


def _counted(variant: str, quantity: str, value: int, n: int, details: Any, precision: str = "float64") -> Row:
    return Row(
        case=NAME, variant=variant, quantity=quantity, value=value, unit="problems", n=n, precision=precision,
        details=details,
    )  # fmt: skip


def measured(problem: Problem) -> Measured:
    """Run all minimizers in float64 and jaxgd's rules in float32, and check the successes of jaxgd's rules."""
    with quick_compilation():
        results, exact, successes = runs(problem), Exact(problem), {}
        for variant, (make, steps) in RULES.items():
            in_float32 = by_rule(problem, make, steps, np.float32)
            for precision, run in (("float64", results[variant]), ("float32", in_float32)):
                if run.ok:
                    successes[variant, precision] = exact.is_minimum(run.v, float(np.finfo(precision).eps))
    # The compiled programs of a problem are not used again.
    jax.clear_caches()  # type: ignore[no-untyped-call]
    return Measured(results, successes)


def measure(options: Options) -> Iterator[Row]:
    """Yield the rows of every problem, and the rows of the summary."""
    results: dict[str, Measured] = {}
    for name, problem in PROBLEMS.items():
        results[name] = measured(problem)
        yield from end_rows(f"{NAME}/{name}", problem, results[name].runs)
    yield from summary(results)


CASES = (Case(NAME, "minimize", f"{len(PROBLEMS)} classical problems, until C is within 1e-8 of a minimum", measure),)
