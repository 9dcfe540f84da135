"""The run of a minimizer on a problem.

C and ∇C at one point together count as one evaluation. A Hessian-vector product counts as one too.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from numpy.typing import NDArray

import jaxgd
from benchmarks.minimize.classical.problem import Task
from benchmarks.minimize.evaluations import watched
from benchmarks.minimize.problems import is_installed
from jaxgd.rules.rule import Transformation
from jaxgd.typed import block_until_ready, jit, value_and_grad

# The largest number of steps. Backtracking may make more, because its steps are single moves along −∇C.
STEPS, BACKTRACKING_STEPS = 1_000, 3_000
# The tolerance of the minimizers that do not run with their own defaults. It limits the gradient. In optimistix, it
# limits the changes of v and of C.
TIGHT = 1e-10


class Run(NamedTuple):
    """A finished run.

    Attributes:
        v: The point that the minimizer returns.
        cost: C at this point.
        evaluations: The number of evaluations.
        steps: The number of steps that the minimizer reports.
        ok: True if the minimizer reports success.
        outcome: The reason for the end, in the minimizer's own words.
        trace: Pairs of the evaluations so far and C, in the order of the run.
    """

    v: NDArray[Any]
    cost: float
    evaluations: int
    steps: int
    ok: bool
    outcome: str
    trace: list[tuple[int, float]]


def by_rule(problem: Task, make: Callable[[], Transformation], steps: int = STEPS, dtype: DTypeLike = float) -> Run:
    """Run one of jaxgd's rules with the default stopping tests. The callback keeps C after every update."""
    trace: list[tuple[int, float]] = []

    def keep(solution: jaxgd.Solution[Array]) -> None:
        trace.append((int(solution.evaluations), float(solution.cost)))

    start = jnp.asarray(np.asarray(problem.start, dtype))
    solution = jaxgd.minimize(problem.cost, start, make(), max_steps=steps, record=None, callback=keep, chunk=1)
    return Run(
        np.asarray(solution.v, float), float(solution.cost), int(solution.evaluations), int(solution.steps),
        bool(solution.outcome.ok), solution.outcome.reason.name, trace,
    )  # fmt: skip


def by_scipy(problem: Task, method: str, **options: Any) -> Run:
    """Run one of SciPy's minimizers with the gradient from JAX."""
    import scipy.optimize

    evaluated = jit(value_and_grad(problem.cost))
    trace: list[tuple[int, float]] = []

    def evaluate(v: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        c, g = evaluated(jnp.asarray(v))
        trace.append((len(trace) + 1, float(c)))
        return float(c), np.asarray(g)

    start = np.asarray(problem.start, float)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        end = scipy.optimize.minimize(evaluate, start, jac=True, method=method, options={"maxiter": STEPS, **options})
    return Run(end.x, float(end.fun), len(trace), int(end.nit), bool(end.success), str(end.message), trace)


class _Trace:
    """The costs that a compiled program evaluates.

    Consecutive equal costs count once, because C and ∇C at one point are one evaluation.
    """

    def __init__(self) -> None:
        self.costs: list[float] = []

    def __call__(self, c: Array) -> None:
        if not self.costs or self.costs[-1] != float(c):
            self.costs.append(float(c))

    def pairs(self) -> list[tuple[int, float]]:
        return list(enumerate(self.costs, 1))


def by_jaxopt(problem: Task) -> Run:
    """Run jaxopt's L-BFGS with its default line search, until ‖∇C‖ ≤ 1e-10."""
    import jaxopt

    trace = _Trace()
    solver = jaxopt.LBFGS(watched(problem.cost, trace), maxiter=STEPS, tol=TIGHT)
    v, state = block_until_ready(solver.run(jnp.asarray(np.asarray(problem.start, float))))
    jax.effects_barrier()  # type: ignore[no-untyped-call]
    ok = float(state.error) <= TIGHT
    words = f"error {float(state.error):.2g}"
    return Run(np.asarray(v), float(problem.cost(v)), len(trace.costs), int(state.iter_num), ok, words, trace.pairs())


def by_optimistix(problem: Task, name: str) -> Run:
    """Run one of optimistix's minimizers with rtol = atol = 1e-10. optimistix counts each evaluation as a step."""
    import optimistix

    trace = _Trace()
    counting = watched(problem.cost, trace)
    solver = getattr(optimistix, name)(rtol=TIGHT, atol=TIGHT)
    start = jnp.asarray(np.asarray(problem.start, float))
    end = optimistix.minimise(lambda v, _: counting(v), solver, start, max_steps=STEPS, throw=False)
    block_until_ready(end.value)
    jax.effects_barrier()  # type: ignore[no-untyped-call]
    ok = bool(end.result == optimistix.RESULTS.successful)
    return Run(
        np.asarray(end.value), float(problem.cost(end.value)), len(trace.costs), int(end.stats["num_steps"]), ok,
        "successful" if ok else "not successful", trace.pairs(),
    )  # fmt: skip


RULES: dict[str, tuple[Callable[[], Transformation], int]] = {
    "jaxgd wolfe": (jaxgd.wolfe, STEPS),
    "jaxgd backtracking": (jaxgd.backtracking, BACKTRACKING_STEPS),
    "jaxgd newton": (jaxgd.newton, STEPS),
}
# SciPy's L-BFGS-B also stops after 15,000 evaluations, its default limit.
PEERS: dict[str, Callable[[Task], Run]] = {
    "scipy L-BFGS-B, tight": lambda p: by_scipy(p, "L-BFGS-B", ftol=1e-15, gtol=TIGHT),
    "scipy L-BFGS-B": lambda p: by_scipy(p, "L-BFGS-B"),
    "scipy BFGS, tight": lambda p: by_scipy(p, "BFGS", gtol=TIGHT),
    "scipy BFGS": lambda p: by_scipy(p, "BFGS"),
    "jaxopt LBFGS": by_jaxopt,
    "optimistix BFGS": lambda p: by_optimistix(p, "BFGS"),
    "optimistix LBFGS": lambda p: by_optimistix(p, "LBFGS"),
}


# BFGS, which keeps a dense n × n matrix, runs only up to this n. An update of SciPy's BFGS takes O(n³).
DENSE = 100


def runs(problem: Task) -> dict[str, Run]:
    """Return the run of each installed minimizer, in float64."""
    peers = {name: run for name, run in PEERS.items() if is_installed(name.split()[0])}
    if len(problem.start) > DENSE:
        peers = {name: run for name, run in peers.items() if " BFGS" not in name}
    with jax.enable_x64(True):
        ours = {name: by_rule(problem, make, steps) for name, (make, steps) in RULES.items()}
        return ours | {name: run(problem) for name, run in peers.items()}


@contextlib.contextmanager
def quick_compilation() -> Iterator[None]:
    """Compile without most of XLA's optimizations. Compilation takes most of the time, and no time is measured."""
    before = jax.config.read("jax_disable_most_optimizations")  # type: ignore[no-untyped-call]
    jax.config.update("jax_disable_most_optimizations", True)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)  # type: ignore[no-untyped-call]
