"""What a step of `minimize` costs, and how many evaluations a rule needs: `python -m benchmarks.minimize`.

Time a step: the same cost and update in a bare `lax.while_loop`, and other libraries, taking turns in one process. A
step is the difference between a run of 2N steps and one of N, over N, so that what happens once is left out; that all
make the same steps is checked first. Evaluations: of C, ∇C or a Hessian-vector product, each counted as one, until C
is within 1e-8 of a minimum. Peers: pip install 'jaxgd[bench]'.
"""

import dataclasses
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import lax

import jaxgd
from jaxgd.files import write_atomically
from jaxgd.named_costs import NAMED_COSTS

Run = Callable[[int], Any]


@dataclasses.dataclass(frozen=True)
class Options:
    """Time steps and count evaluations, beside a bare loop and other libraries."""

    only: tuple[str, ...] = ()
    """Of "steps", "evaluations", "lanes"; all by default."""
    repeats: int = 9
    """Runs of each, taking turns."""
    data_dir: Path | None = None
    """Where MNIST is; without it that case is left out."""
    out: Path = Path("benchmarks/results/minimize.jsonl")
    """Where results are kept, one line a case."""


# Time a step.


@dataclasses.dataclass(frozen=True)
class Case:
    """A cost at a start, with an η at which all go the same way, and steps enough to be timed."""

    name: str
    cost: Callable[[Any], Any]
    v0: Any
    eta: float
    steps: int


def quadratic_case(n: int, steps: int) -> Case:
    d = jnp.linspace(0.5, 1.5, n)
    v0 = jnp.asarray(np.random.default_rng(0).normal(size=n), jnp.float32)
    return Case(f"quadratic, {n:,} variables", lambda v: 0.5 * jnp.sum(d * v * v), v0, 1e-5, steps)


def cases(data_dir: Path | None) -> list[Case]:
    start = jnp.asarray(NAMED_COSTS["rosenbrock"].start)
    found = [
        Case("rosenbrock, 2 variables", NAMED_COSTS["rosenbrock"].cost, start, 1e-7, 1_000_000),
        quadratic_case(1_000, 50_000),
        quadratic_case(1_000_000, 200),
    ]
    if data_dir is not None:
        part = jaxgd.load_dataset("mnist", data_dir).train
        x = jnp.asarray(part.images[:10_000].reshape(10_000, -1) / 255, jnp.float32)
        y = jax.nn.one_hot(part.labels[:10_000], 10)
        network = jaxgd.init_network(jax.random.key(0), (784, 30, 10))
        found.append(
            Case("MNIST, 10,000 images, [784, 30, 10]", lambda v: jaxgd.network_cost(v, x, y), network, 1.0, 12)
        )
    return found


def bare(case: Case) -> Run:
    """What anybody would write: value, gradient, step, and the same test."""
    value_and_grad = jax.value_and_grad(case.cost)

    def length(g: Any) -> Any:
        return jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(g)))

    @jax.jit
    def run(v: Any, eta: Any, rtol: Any, n: Any) -> Any:
        c, g = value_and_grad(v)
        tolerance = rtol * length(g)

        def going(s: Any) -> Any:
            _, c, g, k = s
            return (k < n) & (length(g) > tolerance) & jnp.isfinite(c)

        def step(s: Any) -> Any:
            v, _, g, k = s
            v = jax.tree.map(lambda x, u: x - eta * u, v, g)
            return v, *value_and_grad(v), k + 1

        return lax.while_loop(going, step, (v, c, g, 0))

    return lambda n: run(case.v0, case.eta, 1e-6, n)[0]


def bare_without_cost(case: Case) -> Run:
    """The gradient alone: nobody would learn that C is no number any more. It is what jaxopt's fixed step does."""
    gradient = jax.grad(case.cost)

    @jax.jit
    def run(v: Any, eta: Any, n: Any) -> Any:
        def step(s: Any) -> Any:
            v, g, k = s
            v = jax.tree.map(lambda x, u: x - eta * u, v, g)
            return v, gradient(v), k + 1

        return lax.while_loop(lambda s: s[2] < n, step, (v, gradient(v), 0))

    return lambda n: run(case.v0, case.eta, n)[0]


def ours(case: Case, stop: Callable[[], Any], record: Any = None) -> Run:
    def run(n: int) -> Any:
        rule = jaxgd.gradient_descent(case.eta)
        return jaxgd.minimize(case.cost, case.v0, rule, max_steps=n, stop=stop(), record=record).v

    return run


def same_test() -> Any:
    return jaxgd.Stop(gradient_rtol=1e-6, diverging=None, stalled=False)


def all_tests() -> Any:
    return jaxgd.Stop(gradient_rtol=1e-6)


def by_optimistix(case: Case) -> Run:
    import optimistix

    solver: Any = optimistix.GradientDescent(case.eta, rtol=0.0, atol=0.0)

    def cost(v: Any, _: Any) -> Any:
        return case.cost(v)

    def run(v: Any, n: int) -> Any:
        # Its first step evaluates at the start, and moves nothing.
        return optimistix.minimise(cost, solver, v, max_steps=n + 1, throw=False).value

    # The count of steps is static there.
    jitted = jax.jit(run, static_argnames="n")
    return lambda n: jitted(case.v0, n)


def by_jaxopt(case: Case) -> Run:
    import jaxopt

    made: dict[int, Any] = {}

    def run(n: int) -> Any:
        if n not in made:
            options = {"stepsize": case.eta, "acceleration": False, "maxiter": n, "tol": 0.0}
            made[n] = jax.jit(jaxopt.GradientDescent(case.cost, **options).run)
        return made[n](case.v0).params

    return run


def by_python(case: Case) -> Run:
    """A jitted step in a loop of Python."""

    @jax.jit
    def step(v: Any, eta: Any) -> Any:
        return jax.tree.map(lambda x, u: x - eta * u, v, jax.grad(case.cost)(v))

    def run(n: int) -> Any:
        # What is asked for in millions is done in thousands here.
        v = case.v0
        for _ in range(n if n <= 4_000 else n // 1_000):
            v = step(v, case.eta)
        return v

    return run


def runners(case: Case) -> dict[str, Run]:
    """What takes part, ours first."""
    return {
        "jaxgd": ours(case, same_test),
        "jaxgd, default tests": ours(case, all_tests),
        "jaxgd, 1,000 entries": ours(case, same_test, "auto"),
        "bare loop": bare(case),
        "bare loop, no cost": bare_without_cost(case),
        "optimistix": by_optimistix(case),
        "jaxopt": by_jaxopt(case),
        "jit in a loop": by_python(case),
    }


def seconds(run: Run, n: int) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(n))  # type: ignore[no-untyped-call]
    return time.perf_counter() - start


def flat(v: Any) -> Any:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(v)])


def step_times(case: Case, repeats: int) -> dict[str, Any]:
    """Median and spread of the time a step, and the median of the ratios to the bare loop, round by round."""
    runs = runners(case)
    want = flat(bare(case)(5))
    compared = {}
    for name, run in runs.items():
        got = flat(run(5))
        compared[name] = float(np.linalg.norm(got - want) / np.linalg.norm(want - flat(case.v0)))
        assert compared[name] < 1e-3, f"{name} goes another way on {case.name}: {compared[name]}"
        for n in (case.steps, 2 * case.steps):
            seconds(run, n)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            made = case.steps if name != "jit in a loop" or 2 * case.steps <= 4_000 else case.steps // 1_000
            once, twice = seconds(run, case.steps), seconds(run, 2 * case.steps)
            times[name].append((twice - once) / made)
    base = times["bare loop"]
    return {
        name: {
            "microseconds": [round(1e6 * q, 5) for q in np.quantile(t, [0.5, 0.1, 0.9])],
            "ratio": round(statistics.median(x / y for x, y in zip(t, base, strict=True)), 3),
            "apart": compared[name],
        }
        for name, t in times.items()
    }


# Evaluations.


class Counted:
    """A cost and its gradient for SciPy, counting."""

    def __init__(self, cost: Any) -> None:
        self.calls, self.lowest = 0, np.inf
        self._value_and_grad = jax.jit(jax.value_and_grad(cost))
        self._product = jax.jit(lambda v, u: jax.jvp(jax.grad(cost), (v,), (u,))[1])

    def __call__(self, v: Any) -> Any:
        self.calls += 1
        c, g = self._value_and_grad(v)
        return float(c), np.asarray(g)

    def product(self, v: Any, u: Any) -> Any:
        self.calls += 1
        return np.asarray(self._product(v, u))


RULES: dict[str, Callable[[], Any]] = {
    "backtracking": jaxgd.backtracking,
    "wolfe": jaxgd.wolfe,
    "newton": jaxgd.newton,
    "wolfe, memory 0": lambda: jaxgd.wolfe(0),
}
SCIPY = ("BFGS", "L-BFGS-B", "CG", "Newton-CG")


def evaluations(name: str) -> dict[str, Any]:
    """For each way, evaluations until C is within 1e-8 of a minimum, or None."""
    import scipy.optimize

    named = NAMED_COSTS[name]
    with jax.enable_x64(True):
        start = jnp.asarray(named.start)
        minima = [0.0, 48.98425367924] if name == "freudenstein-roth" else [c for _, c in named.minima]
        found: dict[str, Any] = {}
        for rule, make in RULES.items():
            best: int | None = None
            for minimum in minima:
                target = jaxgd.Stop(cost=minimum + 1e-8)
                solution = jaxgd.minimize(named.cost, start, make(), max_steps=5_000, stop=target, record=None)
                if abs(float(solution.cost) - minimum) <= 1e-8:
                    best = int(solution.evaluations)
            found[f"jaxgd {rule}"] = best
        for method in SCIPY:
            counted = Counted(named.cost)
            reached: list[int] = []

            def watched(v: Any, counted: Counted = counted, reached: list[int] = reached) -> Any:
                c, g = counted(v)
                if not reached and any(abs(c - minimum) <= 1e-8 for minimum in minima):
                    reached.append(counted.calls)
                return c, g

            options: dict[str, Any] = {"maxiter": 5_000}
            products = {"hessp": counted.product} if method == "Newton-CG" else {}
            scipy.optimize.minimize(
                watched, np.asarray(start), jac=True, method=method, tol=1e-12, options=options, **products
            )
            found[f"scipy {method}"] = reached[0] if reached else None
    return found


def lanes() -> dict[str, Any]:
    """Ten thousand starts of Rosenbrock's function at once."""
    cost = NAMED_COSTS["rosenbrock"].cost
    starts = 1.5 * jax.random.normal(jax.random.key(0), (10_000, 2))
    out = {}
    for name, make, steps, stop in (
        ("gradient descent, 10,000 updates", lambda: jaxgd.gradient_descent(1e-3), 10_000, "auto"),
        ("backtracking to 1e-8", jaxgd.backtracking, 2_000, jaxgd.Stop(cost=1e-8)),
    ):

        def one(v: Any, make: Any = make, steps: int = steps, stop: Any = stop) -> Any:
            return jaxgd.minimize(cost, v, make(), max_steps=steps, stop=stop, record=None)

        run = jax.jit(jax.vmap(one))
        began = time.perf_counter()
        solution = jax.block_until_ready(run(starts))  # type: ignore[no-untyped-call]
        cold = time.perf_counter() - began
        warm = [seconds(lambda _, run=run: run(starts), 0) for _ in range(3)]  # type: ignore[misc]
        out[name] = {
            "seconds_with_compilation": round(cold, 3),
            "seconds": round(statistics.median(warm), 3),
            "outcomes": solution.outcome.message,
        }
    return out


def main(options: Options) -> int:
    """Measure, print and keep; a case's line replaces its earlier one."""
    about = {
        "jax": jax.__version__,
        "jaxgd": jaxgd.__version__,
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "peers": {name: version(name) for name in ("optimistix", "jaxopt", "scipy")},
        "date": time.strftime("%Y-%m-%d"),
    }
    kept = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []

    def keep(kind: str, name: str, result: Any) -> None:
        nonlocal kept
        kept = [row for row in kept if (row["kind"], row["case"]) != (kind, name)]
        kept.append({"kind": kind, "case": name, "result": result, **about})
        write_atomically(options.out, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept).encode())

    wanted = options.only or ("steps", "evaluations", "lanes")
    if "steps" in wanted:
        for case in cases(options.data_dir):
            result = step_times(case, options.repeats)
            print(f"\n{case.name}: μs a step, median (tenth to ninetieth percentile), ratio to the bare loop")
            for name, row in result.items():
                median, low, high = row["microseconds"]
                print(f"  {name:22} {median:12.4g} ({low:.4g} to {high:.4g})  {row['ratio']:.3f}", flush=True)
            keep("steps", case.name, result | {"repeats": options.repeats, "dtype": "float32"})
    if "evaluations" in wanted:
        names = [name for name in NAMED_COSTS if name != "valley"]
        results = {name: evaluations(name) for name in names}
        print("\nevaluations to 1e-8 of a minimum")
        print(" " * 24 + "".join(f"{name:>18}" for name in names))
        for way in next(iter(results.values())):
            print(f"  {way:22}" + "".join(f"{results[name][way] or '–':>18}" for name in names))
        for name, result in results.items():
            keep("evaluations", name, result | {"dtype": "float64"})
    if "lanes" in wanted:
        result = lanes()
        print("\n10,000 starts on rosenbrock")
        for name, row in result.items():
            print(
                f"  {name}: {row['seconds']} s ({row['seconds_with_compilation']} s compiled first); {row['outcomes']}"
            )
        keep("lanes", "rosenbrock", result)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m benchmarks.minimize")))
