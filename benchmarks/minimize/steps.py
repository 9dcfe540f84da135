"""The time of a step of `minimize`, compared with a bare `lax.while_loop`, a loop in Python and other libraries.

The time of a step is the time of 2N steps minus the time of N steps, divided by N, so that work done once per run
cancels. All programs run in turn in one process. Before the timing, the points that the programs reach in 5 steps are
compared.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from numpy.typing import NDArray

import jaxgd
from benchmarks.case import DEFAULT_PRECISION, Case, Options
from benchmarks.minimize.problems import is_installed, mnist_problem
from benchmarks.rows import Row, sampled, significant
from jaxgd.named_costs import NAMED_COSTS
from jaxgd.typed import Tree, V, block_until_ready, grad, jit, tree_leaves, tree_map

Run = Callable[[int], object]

# The largest allowed distance between the points that a program and the bare loop reach in 5 steps, relative to their
# distance from the start. Programs with the same updates differ only by rounding, which is far below this limit.
PARITY = 1e-3


class Problem(NamedTuple):
    """A cost, a start, an η that all programs use, and the number of steps N of a run."""

    cost: Callable[[Any], Array]
    v0: Any
    eta: float
    steps: int


def rosenbrock() -> Problem:
    """Return the problem of Rosenbrock's function of two variables."""
    named = NAMED_COSTS["rosenbrock"]
    return Problem(named.cost, jnp.asarray(named.start), 1e-7, 4_000_000)


def quadratic(n: int, steps: int) -> Problem:
    """Return the problem of a quadratic cost of n variables, whose Hessian has eigenvalues from 0.5 to 1.5."""
    d = jnp.linspace(0.5, 1.5, n)
    v0 = jnp.asarray(np.random.default_rng(0).normal(size=n), jnp.float32)
    return Problem(lambda v: 0.5 * jnp.sum(d * v * v), v0, 1e-5, steps)


def bare(problem: Problem, with_cost: bool, reordered: bool = False) -> Run:
    """Return the loop that a user would write: gradient, update and test. With `with_cost`, it also computes C.

    With `reordered`, the loop carries the same state in reverse order. The order changes the time only by chance, for
    example by the layout that the compiler chooses. Programs are compared with the mean time of the two orders.
    """
    gradient = jax.grad(problem.cost)
    evaluate = jax.value_and_grad(problem.cost) if with_cost else lambda v: (jnp.array(0.0), gradient(v))

    def length(g: Tree) -> Array:
        return jnp.sqrt(sum(jnp.sum(x**2) for x in tree_leaves(g)))

    @jit
    def run(v: V, eta: ArrayLike, rtol: ArrayLike, n: ArrayLike) -> tuple[Any, ...]:
        c, g = evaluate(v)
        tolerance = rtol * length(g)

        def going(s: Any) -> Any:
            _, c, g, k = s
            return (k < n) & (length(g) > tolerance) & jnp.isfinite(c if with_cost else length(g))

        def step(s: Any) -> Any:
            v, _, g, k = s
            v = tree_map(lambda x, u: x - eta * u, v, g)
            return v, *evaluate(v), k + 1

        def reversed_step(s: Any) -> Any:
            k, g, c, v = s
            v, c, g, k = step((v, c, g, k))
            return k, g, c, v

        if reordered:
            return lax.while_loop(lambda s: going(s[::-1]), reversed_step, (0, g, c, v))[::-1]
        return lax.while_loop(going, step, (v, c, g, 0))[:1]

    return lambda n: run(problem.v0, problem.eta, 1e-6, n)[0]


def by_jaxgd(problem: Problem, stop: Callable[[], jaxgd.Stop], record: Literal["auto"] | None = None) -> Run:
    """Return a run of `minimize` with these stopping tests and this `record`."""

    def run(n: int) -> Any:
        rule = jaxgd.gradient_descent(problem.eta)
        return jaxgd.minimize(problem.cost, problem.v0, rule, max_steps=n, stop=stop(), record=record).v

    return run


def gradient_tested() -> jaxgd.Stop:
    """Return the stopping tests of the bare loop without C."""
    return jaxgd.Stop(gradient_rtol=1e-6, diverging=None, stalled=False)


def all_tests() -> jaxgd.Stop:
    """Return the default stopping tests, but with the gradient tolerance of the bare loop."""
    return jaxgd.Stop(gradient_rtol=1e-6)


def by_optimistix(problem: Problem) -> Run:
    """Return a run of optimistix's gradient descent."""
    import optimistix

    solver: Any = optimistix.GradientDescent(problem.eta, rtol=0.0, atol=0.0)

    def cost(v: Tree, _: object) -> Array:
        return problem.cost(v)

    def run(v: Any, n: int) -> Any:
        # The first step of optimistix evaluates the cost at the start and does not move.
        return optimistix.minimise(cost, solver, v, max_steps=n + 1, throw=False).value

    # The number of steps of optimistix is a static argument.
    jitted = jax.jit(run, static_argnames="n")
    return lambda n: jitted(problem.v0, n)


def by_jaxopt(problem: Problem) -> Run:
    """Return a run of jaxopt's gradient descent."""
    import jaxopt

    compiled: dict[int, Any] = {}

    def run(n: int) -> Any:
        if n not in compiled:
            options = {"stepsize": problem.eta, "acceleration": False, "maxiter": n, "tol": 0.0}
            compiled[n] = jax.jit(jaxopt.GradientDescent(problem.cost, **options).run)
        return compiled[n](problem.v0).params

    return run


def fewer(problem: Problem) -> int:
    """Return the divisor of N for the slow loop in Python. It leaves about 4,000 steps, or N if N is below 4,000."""
    return max(1, problem.steps // 4_000)


def by_python(problem: Problem) -> Run:
    """Return a loop in Python that calls a jitted step."""

    @jit
    def step(v: V, eta: ArrayLike) -> V:
        return tree_map(lambda x, u: x - eta * u, v, grad(problem.cost)(v))

    def run(n: int) -> Any:
        v = problem.v0
        for _ in range(n // fewer(problem) if n >= problem.steps else n):
            v = step(v, problem.eta)
        return v

    return run


LOOP, COST_LOOP, PYTHON = "bare loop, no C", "bare loop", "jitted step, no test"
REORDERED = ", reordered"


def runners(problem: Problem) -> dict[str, tuple[Run, str]]:
    """Return each program with the name of its bare loop: COST_LOOP if the program evaluates C, otherwise LOOP."""
    return {
        "jaxgd, gradient tested": (by_jaxgd(problem, gradient_tested), LOOP),
        "jaxgd, default tests": (by_jaxgd(problem, all_tests), COST_LOOP),
        "jaxgd, 1,000 entries": (by_jaxgd(problem, all_tests, "auto"), COST_LOOP),
        LOOP: (bare(problem, False), LOOP),
        LOOP + REORDERED: (bare(problem, False, reordered=True), LOOP),
        COST_LOOP: (bare(problem, True), COST_LOOP),
        COST_LOOP + REORDERED: (bare(problem, True, reordered=True), COST_LOOP),
        **({"optimistix": (by_optimistix(problem), COST_LOOP)} if is_installed("optimistix") else {}),
        **({"jaxopt": (by_jaxopt(problem), LOOP)} if is_installed("jaxopt") else {}),
        PYTHON: (by_python(problem), LOOP),
    }


def seconds(run: Run, n: int) -> float:
    """Return the seconds that `run(n)` takes."""
    start = time.perf_counter()
    block_until_ready(run(n))
    return time.perf_counter() - start


def flat(v: object) -> NDArray[Any]:
    """Return the leaves of a pytree as one NumPy vector."""
    return np.concatenate([np.ravel(x) for x in tree_leaves(v)])


def differences(problem: Problem, runs: dict[str, tuple[Run, str]]) -> dict[str, float]:
    """Return the distance of each program from the bare loop after 5 steps, relative to the distance from the start."""
    want = flat(bare(problem, True)(5))
    walked = np.linalg.norm(want - flat(problem.v0))
    return {name: float(np.linalg.norm(flat(run(5)) - want) / walked) for name, (run, _) in runs.items()}


def measure(case: str, problem_of: Callable[[Options], Problem], options: Options) -> Iterator[Row]:
    """Yield the time of a step of each program. Exit if the programs do not reach the same point in 5 steps."""
    problem = problem_of(options)
    runs = runners(problem)
    distances = differences(problem, runs)
    if unlike := {name: x for name, x in distances.items() if not x < PARITY}:
        raise SystemExit(
            f"{case}: after 5 steps, expected all programs within {PARITY:g} of the bare loop, got distances {unlike}."
        )
    for run, _ in runs.values():
        for n in (problem.steps, 2 * problem.steps):
            seconds(run, n)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, (run, _) in runs.items():
            made = problem.steps // fewer(problem) if name == PYTHON else problem.steps
            once, twice = seconds(run, problem.steps), seconds(run, 2 * problem.steps)
            times[name].append(1e6 * (twice - once) / made)
    for name, (_, loop) in runs.items():
        base = [(x + y) / 2 for x, y in zip(times[loop], times[loop + REORDERED], strict=True)]
        ratio = statistics.median(x / y for x, y in zip(times[name], base, strict=True))
        details = {"baseline": loop, "ratio": significant(ratio), "difference after 5 steps": distances[name]}
        yield sampled(case, name, "step time", "μs/step", times[name], precision=DEFAULT_PRECISION, details=details)


def _case(name: str, title: str, problem: Callable[[Options], Problem], needs_mnist: bool = False) -> Case:
    return Case(name, "minimize", f"step time, {title}", functools.partial(measure, name, problem), needs_mnist)


CASES = (
    _case("minimize-step-rosenbrock", "Rosenbrock's function, 2 variables", lambda _: rosenbrock()),
    _case("minimize-step-1000", "a quadratic cost, 1,000 variables", lambda _: quadratic(1_000, 50_000)),
    _case("minimize-step-1000000", "a quadratic cost, 1,000,000 variables", lambda _: quadratic(1_000_000, 200)),
    _case(
        "minimize-step-mnist", "[784, 30, 10] on 10,000 images",
        lambda options: Problem(*mnist_problem(options.data_dir), eta=1.0, steps=25), needs_mnist=True,
    ),
)  # fmt: skip
