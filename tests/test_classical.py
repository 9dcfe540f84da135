"""The classical problems agree with their source, and the table judges runs correctly."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.minimize.classical import PROBLEMS
from benchmarks.minimize.classical.logistic import NAME as LOGISTIC
from benchmarks.minimize.classical.logistic import regression
from benchmarks.minimize.classical.minimizers import Run, runs
from benchmarks.minimize.classical.problem import Problem
from benchmarks.minimize.classical.table import Exact, Measured, end_rows, judged, measured, summary
from jaxgd import Verdict, check_gradients, minimize, newton

SMALL = {name: problem for name, problem in PROBLEMS.items() if len(problem.start) <= 12}


def by_loops(name, v):
    """Return the residuals as loops over the indices of the paper, which begin at 1."""
    n, h = len(v), 1 / (len(v) + 1)
    x = dict(enumerate(v, 1)) | {0: 0.0, n + 1: 0.0}
    indices = range(1, n + 1)
    match name.rpartition("-")[0]:
        case "watson":
            t = [i / 29 for i in range(1, 30)]
            slopes = [sum((j - 1) * x[j] * s ** (j - 2) for j in range(2, n + 1)) for s in t]
            values = [sum(x[j] * s ** (j - 1) for j in indices) for s in t]
            return [a - b**2 - 1 for a, b in zip(slopes, values, strict=True)] + [x[1], x[2] - x[1] ** 2 - 1]
        case "penalty-2":
            root = 1e-5**0.5
            y = {i: math.exp(i / 10) + math.exp((i - 1) / 10) for i in indices}
            first = [root * (math.exp(x[i] / 10) + math.exp(x[i - 1] / 10) - y[i]) for i in range(2, n + 1)]
            second = [root * (math.exp(x[i - n + 1] / 10) - math.exp(-0.1)) for i in range(n + 1, 2 * n)]
            return [x[1] - 0.2, *first, *second, sum((n - j + 1) * x[j] ** 2 for j in indices) - 1]
        case "trigonometric":
            return [
                n - sum(math.cos(x[j]) for j in indices) + i * (1 - math.cos(x[i])) - math.sin(x[i]) for i in indices
            ]
        case "boundary-value":
            return [2 * x[i] - x[i - 1] - x[i + 1] + h**2 * (x[i] + i * h + 1) ** 3 / 2 for i in indices]
        case "integral-equation":
            c = {j: (x[j] + j * h + 1) ** 3 for j in indices}
            lower = {i: sum(j * h * c[j] for j in range(1, i + 1)) for i in indices}
            upper = {i: sum((1 - j * h) * c[j] for j in range(i + 1, n + 1)) for i in indices}
            return [x[i] + h * ((1 - i * h) * lower[i] + i * h * upper[i]) / 2 for i in indices]
        case "broyden-banded":
            near = {i: [j for j in range(max(1, i - 5), min(n, i + 1) + 1) if j != i] for i in indices}
            return [x[i] * (2 + 5 * x[i] ** 2) + 1 - sum(x[j] * (1 + x[j]) for j in near[i]) for i in indices]
        case "chebyquad":
            angles = [math.acos(2 * x[j] - 1) for j in indices]
            means = {i: sum(math.cos(i * angle) for angle in angles) / n for i in indices}
            return [means[i] + (1 / (i**2 - 1) if i % 2 == 0 else 0) for i in indices]
        case "linear-rank-1-zeros":
            s = sum(j * x[j] for j in range(2, n))
            return [-1, *((i - 1) * s - 1 for i in range(2, 2 * n)), -1]
    raise KeyError(name)


BY_LOOPS = (
    "watson-9", "penalty-2-10", "trigonometric-10", "boundary-value-10", "integral-equation-10", "broyden-banded-10",
    "chebyquad-8", "linear-rank-1-zeros-10",
)  # fmt: skip


def test_residuals_equal_the_sums_of_the_paper(x64):
    """A residual takes at most 1,000 operations. The tolerance is about 100 times their rounding error."""
    # `by_loops` writes the shifted Chebyshev polynomials as cosines, which needs points between 0 and 1.
    points = {name: np.asarray(PROBLEMS[name].start) * 0.9 + 0.03 for name in BY_LOOPS}
    found = jax.jit(lambda v: {name: PROBLEMS[name].residuals(v[name]) for name in BY_LOOPS})(points)
    for name, v in points.items():
        want = np.array(by_loops(name, v))
        np.testing.assert_allclose(found[name], want, rtol=0, atol=1e-11 * abs(want).max(), err_msg=name)
        assert abs(want).max() > 1e-3 * np.abs(v).max() > 0


def test_known_points_are_the_minima(x64):
    """C at each known point equals the minimum, up to the source's digits.

    The tolerance is 1e-12 times C at the start. For jennrich-sampson it is 1e-3, because its point has four digits.
    """
    known = {name: problem for name, problem in PROBLEMS.items() if problem.points}
    found = jax.jit(lambda v: {name: [known[name].cost(x) for x in points] for name, points in v.items()})(
        {name: [np.asarray(x, float) for x in (p.start, *p.points)] for name, p in known.items()}
    )
    assert len(known) >= 30
    for name, (start, *costs) in found.items():
        digits = 1e-3 if name == "jennrich-sampson" else 1e-12 * start + 1e-20
        assert abs(np.array(costs) - known[name].minima[0]).max() <= digits, name
        assert start - known[name].minima[0] > 1e-6, name


def test_minima_continue_the_published_digits():
    """The source rounds or cuts off after six digits, so the difference is at most one unit of the last digit."""
    assert len(PROBLEMS) == len({problem.name for problem in PROBLEMS.values()}) == 60
    for problem in PROBLEMS.values():
        assert len(problem.minima) == len(problem.published)
        for value, published in zip(problem.minima, problem.published, strict=True):
            assert abs(value - published) <= 1.01e-5 * 10 ** math.floor(math.log10(published or 1)), problem.name
            assert (value == 0) == (published == 0)


def test_the_second_cost_that_the_source_lists_for_biggs_is_a_saddle(x64):
    """The start has v₁ = v₅ and v₃ = v₆, and steps along ∇C keep both equalities.

    Among the points with both equalities, C is lowest at the saddle.
    """
    problem = PROBLEMS["biggs-exp6"]
    exact = Exact(problem)
    v = np.array([1.711415991, 17.683198184, 1.163143662, 5.186561548, 1.711415991, 1.163143662])
    c, g, h = map(np.asarray, exact.evaluate(v))
    assert c == pytest.approx(5.65565e-3, rel=1e-6)
    assert np.linalg.norm(g) < 1e-7
    assert np.linalg.eigvalsh(h)[0] == pytest.approx(-9.803e-3, rel=1e-3)
    assert not exact.is_minimum(v, np.finfo(float).eps)
    assert not exact.is_minimum(v, np.finfo(np.float32).eps)
    assert exact.is_minimum(np.asarray(problem.points[0], float), np.finfo(float).eps)


OTHER_STARTS = {"brown-almost-linear-10": [(0,) * 9 + (11,)]}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, problem in PROBLEMS.items() if len(problem.start) <= 100])
def test_scipy_finds_every_minimum(name, x64):
    """The method of Levenberg and Marquardt reaches each minimum from at least one of the starts."""
    from scipy.optimize import least_squares

    problem = PROBLEMS[name]
    residuals, jacobian = jax.jit(problem.residuals), jax.jit(jax.jacfwd(problem.residuals))
    tight = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "max_nfev": 5_000, "x_scale": "jac"}
    ends = [
        2 * least_squares(residuals, np.asarray(v, float), jac=jacobian, method="lm", **tight).cost
        for v in (problem.start, *problem.points, *OTHER_STARTS.get(name, ()))
    ]
    for minimum in problem.minima:
        # The stored values have at least ten digits.
        assert min(abs(end - minimum) for end in ends) <= max(2e-10 * minimum, 1e-20), (minimum, ends)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_gradients_equal_differences(name, x64):
    problem = PROBLEMS[name]
    start = jnp.asarray(np.asarray(problem.start, float))
    assert check_gradients(problem.cost, start).verdict is Verdict.RIGHT


# The judgment of a run.


def ended(cost, *trace, ok=True, evaluations=9):
    return Run(np.zeros(2), cost, evaluations, 5, ok, "word", list(trace))


TWO_MINIMA = Problem("two", lambda v: v, (1, 1), (0.0, 48.98), (0.0, 48.98), (), "")


@pytest.mark.parametrize(
    ("run", "reached", "closely", "evaluations"),
    [
        (ended(1e-9, (1, 5.0), (2, 1e-8), (3, 1e-9)), True, None, 2),
        # C passes the higher minimum on its way to the lower one.
        (ended(0.0, (1, 48.98), (2, 1.0), (3, 0.0)), True, None, 3),
        (ended(48.98 + 1e-7, (1, 50.0), (2, 48.98 + 1e-7)), True, True, 2),
        (ended(48.98 + 1e-6, (1, 48.98 + 1e-6)), False, False, None),
        (ended(float("nan"), (1, 0.0)), False, None, None),
    ],
)
def test_a_run_is_compared_with_the_nearest_minimum(run, reached, closely, evaluations):
    found = judged(TWO_MINIMA, run)
    assert (found.reached, found.closely, found.evaluations) == (reached, closely, evaluations)


def test_a_minimum_near_0_is_reached_closely_only_if_the_relative_error_is_small():
    tiny = Problem("tiny", lambda v: v, (1, 1), (4.7e-10,), (4.7e-10,), (), "")
    assert [judged(tiny, ended(c)).closely for c in (4.7e-10, 4.7e-10 + 1e-17, 1e-9)] == [True, False, False]
    assert judged(tiny, ended(1e-9)).reached


@pytest.mark.parametrize(
    ("curvatures", "v", "minimum"),
    [
        ((1, 1), (0.0, 0.0), True), ((1, -1), (0.0, 0.0), False), ((1, 1), (1.0, 1.0), False),
        ((1, 1e-9), (0.0, 1e-3), True), ((1, 1e-6), (0.0, 1e3), False), ((1, 1), (float("nan"), 0.0), False),
    ],
)  # fmt: skip
def test_saddles_and_slopes_are_not_minima(curvatures, v, minimum):
    saddle = Problem("saddle", lambda v: v, (1, 1), (0.0,), (0.0,), (), "")
    exact = Exact(saddle)
    exact.evaluate = lambda v: (
        np.dot(curvatures, v**2) / 2,
        np.array(curvatures) * v,
        np.diag(curvatures).astype(float),
    )
    assert exact.is_minimum(v, np.finfo(float).eps) == minimum


def test_the_summary_counts_successes_and_names_failures():
    run = ended(0.0, (1, 1.0), (6, 0.0), evaluations=6)
    failed = ended(1.0, (1, 1.0), ok=False)
    good = {"jaxgd wolfe": run, "jaxgd backtracking": failed, "jaxgd newton": run}
    slower = ended(0.0, (3, 0.0), evaluations=12)
    near = dict.fromkeys([*good, "scipy L-BFGS-B, tight", "scipy L-BFGS-B"], ended(0.0, (1, 0.0)))
    peers = {"scipy L-BFGS-B, tight": slower, "scipy L-BFGS-B": failed}
    found = {
        "beale": Measured(good | peers, {("jaxgd wolfe", "float64"): True, ("jaxgd newton", "float32"): False}),
        "wood-1000": Measured(good | {"scipy L-BFGS-B, tight": slower, "scipy L-BFGS-B": run}, {}),
        "boundary-value-1000": Measured(near, {}),
    }
    rows = {(row.variant, row.quantity, row.precision): row for row in summary(found)}
    reached = {v: (row.value, row.n) for (v, quantity, _), row in rows.items() if quantity == "reached"}
    assert reached == {
        "jaxgd wolfe": (3, 3), "jaxgd backtracking": (1, 3), "jaxgd newton": (3, 3), "scipy L-BFGS-B, tight": (3, 3),
        "scipy L-BFGS-B": (2, 3),
    }  # fmt: skip
    assert rows["jaxgd backtracking", "reached", "float64"].details["missed"] == ["beale", "wood-1000"]
    tight = rows["jaxgd wolfe / scipy L-BFGS-B, tight", "ratio", "float64"]
    assert (tight.value, tight.n, tight.details["median of the whole runs"]) == (2.0, 2, 0.5)
    false = rows["jaxgd newton", "false success", "float32"]
    assert (false.value, false.details) == (1, {"ends": ["beale"], "successes": 1})
    assert rows["jaxgd wolfe", "false success", "float64"].value == 0
    (row,) = end_rows("case/x", TWO_MINIMA, {"a": failed})
    assert row.value is None
    assert row.details["end"]["error"] == 1.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained:DeprecationWarning")
def test_all_minimizers_reach_the_minimum_of_beales_function():
    found = measured(PROBLEMS["beale"])
    assert len(found.runs) >= 7
    for variant, run in found.runs.items():
        evaluations = judged(PROBLEMS["beale"], run).evaluations
        assert 5 < evaluations <= run.evaluations < 120, variant
        assert run.ok, variant
    assert set(found.successes.values()) == {True}


@pytest.mark.slow
def test_the_minimum_of_a_regression(x64, seed):
    """Newton's method finds the same minimum in NumPy and in jaxgd."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 3)) * [1e-2, 1, 1e3]
    problem = regression(x, np.sign(x @ [1e2, 1, 1e-3] + rng.normal(size=40)))
    solution = minimize(problem.cost, jnp.asarray(problem.start), newton(), max_steps=200, record=None)
    assert solution.outcome.ok
    assert float(solution.cost) == pytest.approx(problem.minima[0], rel=1e-12)
    ends = {row.variant: row.value for row in end_rows(LOGISTIC, problem, runs(problem))}
    assert ends["jaxgd newton"] is not None
