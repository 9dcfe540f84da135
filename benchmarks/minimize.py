"""What a step of `minimize` costs, and how many evaluations a rule needs: `python -m benchmarks.minimize`.

Time a step: the same cost and update in a bare `lax.while_loop`, and other libraries, taking turns in one process. A
step is the difference between a run of 2N steps and one of N, over N, so that what happens once is left out; that all
make the same steps is checked first. Peers: pip install 'jaxgd[bench]'.
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
from benchmarks.evaluations import TARGETS, on_mnist, on_named
from jaxgd.files import write_atomically
from jaxgd.named_costs import NAMED_COSTS

Run = Callable[[int], Any]


@dataclasses.dataclass(frozen=True)
class Options:
    """Time steps and count evaluations, beside a bare loop and other libraries."""

    only: tuple[str, ...] = ()
    """Of "steps", "callback", "evaluations", "mnist", "lanes"; all by default."""
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
        Case("rosenbrock, 2 variables", NAMED_COSTS["rosenbrock"].cost, start, 1e-7, 4_000_000),
        quadratic_case(1_000, 50_000),
        quadratic_case(1_000_000, 200),
    ]
    if data_dir is not None:
        part = jaxgd.load_dataset("mnist", data_dir).train
        x = jnp.asarray(part.images[:10_000].reshape(10_000, -1) / 255, jnp.float32)
        y = jax.nn.one_hot(part.labels[:10_000], 10)
        network = jaxgd.init_network(jax.random.key(0), (784, 30, 10))
        found.append(
            Case("MNIST, 10,000 images, [784, 30, 10]", lambda v: jaxgd.network_cost(v, x, y), network, 1.0, 25)
        )
    return found


def bare(case: Case, with_cost: bool, otherwise: bool = False) -> Run:
    """What anybody would write: gradient, step and test; with the cost too where somebody looks at it.

    `otherwise` writes the same another way. What differs between the two is luck, of the compiler and of where in
    memory things come to lie; ours is held against their mean.
    """
    gradient = jax.grad(case.cost)
    evaluate = jax.value_and_grad(case.cost) if with_cost else lambda v: (jnp.array(0.0), gradient(v))

    def length(g: Any) -> Any:
        return jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(g)))

    @jax.jit
    def run(v: Any, eta: Any, rtol: Any, n: Any) -> Any:
        c, g = evaluate(v)
        tolerance = rtol * length(g)

        def going(s: Any) -> Any:
            _, c, g, k = s
            return (k < n) & (length(g) > tolerance) & jnp.isfinite(c if with_cost else length(g))

        def step(s: Any) -> Any:
            v, _, g, k = s
            v = jax.tree.map(lambda x, u: x - eta * u, v, g)
            return v, *evaluate(v), k + 1

        def turned(s: Any) -> Any:
            k, g, c, v = s
            v, c, g, k = step((v, c, g, k))
            return k, g, c, v

        if otherwise:
            return lax.while_loop(lambda s: going(s[::-1]), turned, (0, g, c, v))[::-1]
        return lax.while_loop(going, step, (v, c, g, 0))[:1]

    return lambda n: run(case.v0, case.eta, 1e-6, n)[0]


def ours(case: Case, stop: Callable[[], Any], record: Any = None) -> Run:
    def run(n: int) -> Any:
        rule = jaxgd.gradient_descent(case.eta)
        return jaxgd.minimize(case.cost, case.v0, rule, max_steps=n, stop=stop(), record=record).v

    return run


def gradient_tested() -> Any:
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


LOOP, COSTLY_LOOP, OTHERWISE = "bare loop, no C", "bare loop", ", otherwise"
LOOPS = (LOOP, COSTLY_LOOP)


def runners(case: Case) -> dict[str, tuple[Run, str]]:
    """What takes part, and the bare loop that evaluates as much: C is evaluated where something looks at it."""
    return {
        "jaxgd, gradient tested": (ours(case, gradient_tested), LOOP),
        "jaxgd, default tests": (ours(case, all_tests), COSTLY_LOOP),
        "jaxgd, 1,000 entries": (ours(case, all_tests, "auto"), COSTLY_LOOP),
        LOOP: (bare(case, False), LOOP),
        LOOP + OTHERWISE: (bare(case, False, otherwise=True), LOOP),
        COSTLY_LOOP: (bare(case, True), COSTLY_LOOP),
        COSTLY_LOOP + OTHERWISE: (bare(case, True, otherwise=True), COSTLY_LOOP),
        "optimistix": (by_optimistix(case), COSTLY_LOOP),
        "jaxopt": (by_jaxopt(case), LOOP),
        "jitted step, no test": (by_python(case), LOOP),
    }


def seconds(run: Run, n: int) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(n))  # type: ignore[no-untyped-call]
    return time.perf_counter() - start


def flat(v: Any) -> Any:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(v)])


def step_times(case: Case, repeats: int) -> dict[str, Any]:
    """Median and spread of the time a step, and the median of the ratios to its bare loop, round by round."""
    runs = runners(case)
    want = flat(bare(case, True)(5))
    compared = {}
    for name, (run, _) in runs.items():
        got = flat(run(5))
        compared[name] = float(np.linalg.norm(got - want) / np.linalg.norm(want - flat(case.v0)))
        assert compared[name] < 1e-3, f"{name} goes another way on {case.name}: {compared[name]}"
        for n in (case.steps, 2 * case.steps):
            seconds(run, n)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, (run, _) in runs.items():
            made = case.steps if name != "jitted step, no test" or 2 * case.steps <= 4_000 else case.steps // 1_000
            once, twice = seconds(run, case.steps), seconds(run, 2 * case.steps)
            times[name].append((twice - once) / made)
    base = {loop: [(x + y) / 2 for x, y in zip(times[loop], times[loop + OTHERWISE], strict=True)] for loop in LOOPS}
    return {
        name: {
            "microseconds": [round(1e6 * q, 5) for q in np.quantile(t, [0.5, 0.1, 0.9])],
            "ratio": round(statistics.median(x / y for x, y in zip(t, base[runs[name][1]], strict=True)), 3),
            "to": runs[name][1],
            "apart": compared[name],
        }
        for name, t in times.items()
    }


def callback_times(repeats: int) -> dict[str, Any]:
    """What it costs to be told of progress at the default chunks, on a cost whose step costs next to nothing."""
    named, told = NAMED_COSTS["rosenbrock"], []

    def run(callback: Any) -> float:
        began = time.perf_counter()
        rule, start = jaxgd.gradient_descent(1e-7), jnp.asarray(named.start)
        solution = jaxgd.minimize(
            named.cost, start, rule, max_steps=100_000_000, stop=None, record=None, callback=callback
        )
        jax.block_until_ready(solution.v)  # type: ignore[no-untyped-call]
        return time.perf_counter() - began

    def tell(solution: Any) -> None:
        told.append(float(solution.cost))

    run(None), run(tell)
    told.clear()
    ratios = [run(tell) / run(None) for _ in range(repeats)]
    quantiles = [round(float(q), 4) for q in np.quantile(ratios, [0.5, 0.1, 0.9])]
    return {"ratio": quantiles, "chunks": len(told) // repeats}


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

    wanted = options.only or ("steps", "callback", "evaluations", "mnist", "lanes")
    if "steps" in wanted:
        for case in cases(options.data_dir):
            result = step_times(case, options.repeats)
            print(f"\n{case.name}: μs a step, median (tenth to ninetieth percentile), ratio to the bare loop")
            for name, row in result.items():
                median, low, high = row["microseconds"]
                print(f"  {name:22} {median:12.4g} ({low:.4g} to {high:.4g})  {row['ratio']:.3f}", flush=True)
            keep("steps", case.name, result | {"repeats": options.repeats, "dtype": "float32"})
    if "callback" in wanted:
        result = callback_times(options.repeats)
        print(f"\na callback at chunks of {result['chunks']} a run, ratio to none: {result['ratio']}")
        keep("callback", "rosenbrock", result)
    if "evaluations" in wanted:
        names = [name for name in NAMED_COSTS if name != "valley"]
        results = {name: on_named(name) for name in names}
        print("\nevaluations to 1e-8 of a minimum")
        print(" " * 24 + "".join(f"{name:>18}" for name in names))
        for way in next(iter(results.values())):
            print(f"  {way:22}" + "".join(f"{results[name][way] or '–':>18}" for name in names))
        for name, result in results.items():
            keep("evaluations", name, result | {"dtype": "float64"})
    if "mnist" in wanted and options.data_dir is not None:
        result = on_mnist(options.data_dir)
        print(f"\nMNIST, 10,000 images: evaluations to C ≤ {', '.join(map(str, TARGETS))}, and ms for one")
        for way, row in result.items():
            print(
                f"  {way:26}" + "".join(f"{n or '–':>8}" for n in row["evaluations"]) + f"{row['milliseconds']:10.2f}"
            )
        keep("evaluations", "MNIST, 10,000 images, [784, 30, 10]", {"ways": result, "targets": TARGETS})
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
