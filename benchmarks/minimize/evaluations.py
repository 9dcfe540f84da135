"""The number of evaluations until a minimizer reaches a target, and the time of one evaluation.

The minimizers are jaxgd's rules and those of other libraries. C, ∇C and a Hessian-vector product each count as one
evaluation, but C and ∇C that are computed together count as one. jaxgd counts its own evaluations. Other libraries get
a cost that counts them while the program runs.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

import jaxgd
from benchmarks.case import DEFAULT_PRECISION, Case, Options
from benchmarks.minimize.problems import is_installed, mnist_problem
from benchmarks.rows import Row, sampled
from jaxgd.named_costs import NAMED_COSTS
from jaxgd.typed import V, block_until_ready, grad, jvp, ravel_pytree, value_and_grad

RULES: dict[str, Callable[[], jaxgd.Rule]] = {
    "jaxgd backtracking": jaxgd.backtracking,
    "jaxgd wolfe": jaxgd.wolfe,
    "jaxgd wolfe, memory 0": lambda: jaxgd.wolfe(0),
    "jaxgd newton": jaxgd.newton,
}
SCIPY = ("BFGS", "L-BFGS-B", "CG", "Newton-CG")


@dataclasses.dataclass
class Watch:
    """A counter of evaluations. It stores, for each target, the count at which C first met the target.

    Attributes:
        met: For each target, a function that returns True if C meets it.
        limit: The count at which a run of SciPy ends; None for no limit. Compiled programs ignore it.
    """

    met: Sequence[Callable[[float], bool]]
    limit: int | None = None

    def __post_init__(self) -> None:
        self.calls = 0
        self.reached: list[int | None] = [None] * len(self.met)

    def __call__(self, c: Array | float) -> None:
        self.calls += 1
        for i, met in enumerate(self.met):
            if self.reached[i] is None and met(float(c)):
                self.reached[i] = self.calls
        if (self.limit is not None and self.calls >= self.limit) or None not in self.reached:
            raise StopIteration

    def product(self) -> None:
        """Count a Hessian-vector product."""
        self.calls += 1


def by_scipy(cost: Callable[[V], Array], v0: V, method: str, watch: Watch, max_steps: int) -> float:
    """Minimize with SciPy until the minimizer or `watch` ends the run. Return the seconds without compilation."""
    import scipy.optimize

    start, unravel = ravel_pytree(v0)
    dtype = start.dtype

    def flat_cost(v: Array) -> Array:
        return cost(unravel(v))

    def product_of(v: Array, u: Array) -> Array:
        return jvp(grad(flat_cost), (v,), (u,))[1]

    compiled: Callable[[NDArray[Any]], tuple[Array, Array]] = jax.jit(value_and_grad(flat_cost))
    hvp: Callable[[NDArray[Any], NDArray[Any]], Array] = jax.jit(product_of)

    def evaluated(v: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        c, g = compiled(np.asarray(v, dtype))
        watch(c)
        return float(c), np.asarray(g, float)

    def product(v: NDArray[Any], u: NDArray[Any]) -> NDArray[Any]:
        watch.product()
        return np.asarray(hvp(np.asarray(v, dtype), np.asarray(u, dtype)), float)

    block_until_ready(compiled(np.asarray(start)))
    products: dict[str, Any] = {}
    if method == "Newton-CG":
        block_until_ready(hvp(np.asarray(start), np.asarray(start)))
        products = {"hessp": product}
    began = time.perf_counter()
    with contextlib.suppress(StopIteration):
        scipy.optimize.minimize(
            evaluated, np.asarray(start, float), jac=True, method=method, tol=1e-12,
            options={"maxiter": max_steps}, **products,
        )  # fmt: skip
    return time.perf_counter() - began


def watched(cost: Callable[[V], Array], watch: Callable[[Array], None]) -> Callable[[V], Array]:
    """Return the cost with a callback that counts each evaluation while the program runs."""

    def count(c: Array) -> None:
        # An exception must not end the compiled program. Evaluations after the last target do not change `reached`.
        with contextlib.suppress(StopIteration):
            watch(c)

    @jax.custom_jvp
    def counting(v: V) -> Array:
        c = cost(v)
        jax.debug.callback(count, c)
        return c

    @counting.defjvp
    def _(primals: tuple[V], tangents: tuple[V]) -> tuple[Array, Array]:
        c, dc = jvp(cost, primals, tangents)
        jax.debug.callback(count, c)
        return c, dc

    return counting


def by_jaxopt(cost: Callable[[V], Array], v0: V, watch: Watch, max_steps: int) -> None:
    """Minimize with jaxopt's L-BFGS and its default line search."""
    import jaxopt

    solver = jaxopt.LBFGS(watched(cost, watch), maxiter=max_steps, tol=1e-12)
    block_until_ready(solver.run(v0))
    jax.effects_barrier()  # type: ignore[no-untyped-call]


def by_optimistix(cost: Callable[[V], Array], v0: V, name: str, watch: Watch, max_steps: int) -> None:
    """Minimize with one of optimistix's minimizers."""
    import optimistix

    solver = getattr(optimistix, name)(rtol=1e-12, atol=1e-12)
    counting = watched(cost, watch)
    run = jax.jit(lambda v: optimistix.minimise(lambda v, _: counting(v), solver, v, max_steps=max_steps, throw=False))
    jax.block_until_ready(run(v0).value)  # type: ignore[no-untyped-call]
    jax.effects_barrier()  # type: ignore[no-untyped-call]


def on_named(name: str) -> dict[str, int | None]:
    """Return, for each minimizer, the evaluations until C is within 1e-8 of a minimum; None if C never is.

    The arithmetic is float64. jaxgd and SciPy may make 5,000 steps. jaxopt and optimistix may make 500, because they do
    not stop at the target.
    """
    named = NAMED_COSTS[name]
    minima = [0.0, 48.98425367924] if name == "freudenstein-roth" else [c for _, c in named.minima]
    near = [lambda c: any(abs(c - minimum) <= 1e-8 for minimum in minima)]
    counts: dict[str, int | None] = {}
    with jax.enable_x64(True):
        start = jnp.asarray(named.start)
        for rule, make in RULES.items():
            counts[rule] = None
            for minimum in minima:
                target = jaxgd.Stop(cost=minimum + 1e-8)
                solution = jaxgd.minimize(named.cost, start, make(), max_steps=5_000, stop=target, record=None)
                if abs(float(solution.cost) - minimum) <= 1e-8:
                    counts[rule] = int(solution.evaluations)
        for method in SCIPY:
            watch = Watch(near)
            by_scipy(named.cost, start, method, watch, 5_000)
            counts[f"scipy {method}"] = watch.reached[0]
        if is_installed("jaxopt"):
            watch = Watch(near)
            by_jaxopt(named.cost, start, watch, 500)
            counts["jaxopt LBFGS"] = watch.reached[0]
        for solver in ("BFGS", "NonlinearCG") if is_installed("optimistix") else ():
            watch = Watch(near)
            by_optimistix(named.cost, start, solver, watch, 500)
            counts[f"optimistix {solver}"] = watch.reached[0]
    return counts


class Progress(NamedTuple):
    """The count of evaluations at which C met each target, and the time of one evaluation in milliseconds."""

    reached: Sequence[int | None]
    milliseconds: float


# Targets of C on 10,000 images; a network that outputs 0 for everything has C = 0.5.
TARGETS = (0.2, 0.1, 0.05)
# Evaluations after which jaxgd and SciPy are stopped. jaxopt and optimistix may make 800 steps.
LIMIT = 2_000


def progress_of_rule(cost: Callable[[V], Array], v0: V, make: Callable[[], jaxgd.Rule]) -> Progress:
    """Run one of jaxgd's rules until C reaches each target in turn."""
    # Compile the program before the timing.
    jaxgd.minimize(cost, v0, make(), max_steps=1, stop=jaxgd.Stop(cost=TARGETS[0]), record=None)
    reached: list[int | None] = []
    state: jaxgd.DescentState[V] | None = None
    evaluations = 0
    began = time.perf_counter()
    for target in TARGETS:
        before = 1 if state is None else evaluations
        solution = jaxgd.minimize(
            cost, v0, make(), max_steps=LIMIT - before if before < LIMIT else 0,
            stop=jaxgd.Stop(cost=target), record=None, state=state,
        )  # fmt: skip
        state = solution.state
        evaluations = int(solution.evaluations)
        reached.append(evaluations if float(solution.cost) <= target and evaluations <= LIMIT else None)
    return _progress(reached, time.perf_counter() - began, evaluations)


def progress_on(cost: Callable[[V], Array], v0: V) -> dict[str, Progress]:
    """Return, for each minimizer, the evaluations until C reaches each target, and an evaluation's time, in float32."""
    met = [lambda c, target=target: c <= target for target in TARGETS]
    rules = {"jaxgd gradient_descent(3)": lambda: jaxgd.gradient_descent(3.0), **RULES}
    results = {name: progress_of_rule(cost, v0, make) for name, make in rules.items()}
    for method in ("L-BFGS-B", "CG", "Newton-CG"):
        watch = Watch(met, LIMIT)
        seconds = by_scipy(cost, v0, method, watch, LIMIT)
        results[f"scipy {method}"] = _progress(watch.reached, seconds, watch.calls)
    compiled: dict[str, Callable[[Watch, int], None]] = {
        "jaxopt LBFGS": lambda watch, n: by_jaxopt(cost, v0, watch, n),
        "optimistix NonlinearCG": lambda watch, n: by_optimistix(cost, v0, "NonlinearCG", watch, n),
    }
    for name, run in compiled.items():
        if not is_installed(name.split()[0]):
            continue
        # Both runs compile, so the difference of their times excludes the compilation.
        short, watch = Watch(met, LIMIT), Watch(met, LIMIT)
        began = time.perf_counter()
        run(short, 10)
        middle = time.perf_counter()
        run(watch, 800)
        seconds = time.perf_counter() - middle - (middle - began)
        results[name] = _progress(watch.reached, seconds, watch.calls - short.calls)
    return results


def _progress(reached: Sequence[int | None], seconds: float, evaluations: int) -> Progress:
    within = [None if count is None or count > LIMIT else count for count in reached]
    return Progress(within, 1e3 * seconds / max(evaluations, 1))


def count_row(case: str, variant: str, count: int | None, precision: str) -> Row:
    """Return the row of a count of evaluations. The count is None if the target was not reached."""
    return Row(
        case=case, variant=variant, quantity="evaluations", value=count, unit="evaluations",
        samples=() if count is None else (count,), precision=precision,
    )  # fmt: skip


ON_NAMED, ON_MNIST = "minimize-evaluations", "minimize-evaluations-mnist"


def rows_on_named(options: Options) -> Iterator[Row]:
    """Yield the counts of each minimizer on each named cost. Leave out the valley, which is too easy."""
    for name in NAMED_COSTS:
        if name != "valley":
            for variant, count in on_named(name).items():
                yield count_row(f"{ON_NAMED}/{name}", variant, count, "float64")


def rows_on_mnist(options: Options) -> Iterator[Row]:
    """Yield the counts for each target of the full-batch cost on MNIST, and the time of one evaluation."""
    for variant, progress in progress_on(*mnist_problem(options.data_dir)).items():
        for target, count in zip(TARGETS, progress.reached, strict=True):
            yield count_row(f"{ON_MNIST}/{target}", variant, count, DEFAULT_PRECISION)
        milliseconds = [progress.milliseconds]
        yield sampled(ON_MNIST, variant, "step time", "ms/evaluation", milliseconds, precision=DEFAULT_PRECISION)


CASES = (
    Case(ON_NAMED, "minimize", "evaluations until C is within 1e-8 of a minimum, for each named cost", rows_on_named),
    Case(
        ON_MNIST, "minimize", f"evaluations until C is {', '.join(map(str, TARGETS))}; [784, 30, 10], 10,000 images",
        rows_on_mnist, needs_mnist=True,
    ),
)  # fmt: skip
