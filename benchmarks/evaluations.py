"""How many evaluations a way of minimizing needs, and what one of them costs: jaxgd's rules and other libraries.

An evaluation is of C, ∇C or a Hessian-vector product, each counted as one, and C with ∇C at one point as one too.
jaxgd counts its own; of the others the cost itself counts how often it is evaluated while the program runs.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import jaxgd
from jaxgd.named_costs import NAMED_COSTS

RULES: dict[str, Callable[[], Any]] = {
    "jaxgd backtracking": jaxgd.backtracking,
    "jaxgd wolfe": jaxgd.wolfe,
    "jaxgd wolfe, memory 0": lambda: jaxgd.wolfe(0),
    "jaxgd newton": jaxgd.newton,
}
SCIPY = ("BFGS", "L-BFGS-B", "CG", "Newton-CG")


@dataclasses.dataclass
class Watch:
    """Counts evaluations, and notes at which one C first met each of the targets."""

    met: Sequence[Callable[[float], bool]]
    limit: int | None = None

    def __post_init__(self) -> None:
        self.calls, self.reached = 0, [None] * len(self.met)

    def __call__(self, c: Any) -> None:
        self.calls += 1
        for i, met in enumerate(self.met):
            if self.reached[i] is None and met(float(c)):
                self.reached[i] = self.calls  # type: ignore[call-overload]
        if (self.limit is not None and self.calls >= self.limit) or None not in self.reached:
            raise StopIteration

    def product(self) -> None:
        self.calls += 1


def by_scipy(cost: Any, v0: Any, method: str, watch: Watch, max_steps: int) -> float:
    """Minimize by SciPy until all targets are met; the seconds it took, without compiling."""
    import scipy.optimize

    start, unravel = ravel_pytree(v0)
    value_and_grad = jax.jit(jax.value_and_grad(lambda v: cost(unravel(v))))
    hvp = jax.jit(lambda v, u: jax.jvp(jax.grad(lambda v: cost(unravel(v))), (v,), (u,))[1])
    dtype = start.dtype

    def evaluated(v: Any) -> Any:
        c, g = value_and_grad(np.asarray(v, dtype))
        watch(c)
        return float(c), np.asarray(g, float)

    def product(v: Any, u: Any) -> Any:
        watch.product()
        return np.asarray(hvp(np.asarray(v, dtype), np.asarray(u, dtype)), float)

    jax.block_until_ready(value_and_grad(np.asarray(start)))  # type: ignore[no-untyped-call]
    products: dict[str, Any] = {}
    if method == "Newton-CG":
        jax.block_until_ready(hvp(np.asarray(start), np.asarray(start)))  # type: ignore[no-untyped-call]
        products = {"hessp": product}
    began = time.perf_counter()
    with contextlib.suppress(StopIteration):
        scipy.optimize.minimize(
            evaluated, np.asarray(start, float), jac=True, method=method, tol=1e-12,
            options={"maxiter": max_steps}, **products,
        )  # fmt: skip
    return time.perf_counter() - began


def watched(cost: Any, watch: Watch) -> Any:
    """The cost, which tells the watch of every evaluation while the program runs."""

    def tell(c: Any) -> None:
        # Nothing may be raised inside a program: what comes after the end is not counted.
        with contextlib.suppress(StopIteration):
            watch(c)

    @jax.custom_jvp
    def counting(v: Any) -> Any:
        c = cost(v)
        jax.debug.callback(tell, c)
        return c

    @counting.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        c, dc = jax.jvp(cost, primals, tangents)
        jax.debug.callback(tell, c)
        return c, dc

    return counting


def by_jaxopt(cost: Any, v0: Any, watch: Watch, max_steps: int) -> None:
    """L-BFGS of jaxopt, with the line search it has by default."""
    import jaxopt

    jax.block_until_ready(jaxopt.LBFGS(watched(cost, watch), maxiter=max_steps, tol=1e-12).run(v0))  # type: ignore[no-untyped-call]
    jax.effects_barrier()  # type: ignore[no-untyped-call]


def by_optimistix(cost: Any, v0: Any, name: str, watch: Watch, max_steps: int) -> None:
    """A minimizer of optimistix."""
    import optimistix

    solver = getattr(optimistix, name)(rtol=1e-12, atol=1e-12)
    counting = watched(cost, watch)
    run = jax.jit(lambda v: optimistix.minimise(lambda v, _: counting(v), solver, v, max_steps=max_steps, throw=False))
    jax.block_until_ready(run(v0).value)  # type: ignore[no-untyped-call]
    jax.effects_barrier()  # type: ignore[no-untyped-call]


def on_named(name: str) -> dict[str, Any]:
    """For each way, evaluations until C is within 1e-8 of a minimum, or None; in float64, within 5,000 steps."""
    named = NAMED_COSTS[name]
    minima = [0.0, 48.98425367924] if name == "freudenstein-roth" else [c for _, c in named.minima]
    near = [lambda c: any(abs(c - minimum) <= 1e-8 for minimum in minima)]
    found: dict[str, Any] = {}
    with jax.enable_x64(True):
        start = jnp.asarray(named.start)
        for rule, make in RULES.items():
            found[rule] = None
            for minimum in minima:
                target = jaxgd.Stop(cost=minimum + 1e-8)
                solution = jaxgd.minimize(named.cost, start, make(), max_steps=5_000, stop=target, record=None)
                if abs(float(solution.cost) - minimum) <= 1e-8:
                    found[rule] = int(solution.evaluations)
        for method in SCIPY:
            watch = Watch(near)
            by_scipy(named.cost, start, method, watch, 5_000)
            found[f"scipy {method}"] = watch.reached[0]
        watch = Watch(near)
        by_jaxopt(named.cost, start, watch, 500)
        found["jaxopt LBFGS"] = watch.reached[0]
        for solver in ("BFGS", "NonlinearCG"):
            watch = Watch(near)
            by_optimistix(named.cost, start, solver, watch, 500)
            found[f"optimistix {solver}"] = watch.reached[0]
    return found


# Of C on the network's 10,000 images; saying 0 to everything makes 0.5.
TARGETS = (0.2, 0.1, 0.05)
LIMIT = 2_000


def on_mnist(data_dir: Path, images: int = 10_000) -> dict[str, Any]:
    """Evaluations until the full batch's cost is at each target, and milliseconds for one; in float32."""
    part = jaxgd.load_dataset("mnist", data_dir).train
    x = jnp.asarray(part.images[:images].reshape(images, -1) / 255, jnp.float32)
    y = jax.nn.one_hot(part.labels[:images], 10)
    v0 = jaxgd.init_network(jax.random.key(0), (784, 30, 10))

    def cost(network: Any) -> Any:
        return jaxgd.network_cost(network, x, y)

    met = [lambda c, target=target: c <= target for target in TARGETS]
    found: dict[str, Any] = {}
    rules = {"jaxgd gradient_descent(3)": lambda: jaxgd.gradient_descent(3.0), **RULES}
    for name, make in rules.items():
        # Compiled first.
        jaxgd.minimize(cost, v0, make(), max_steps=1, stop=jaxgd.Stop(cost=TARGETS[0]), record=None)
        reached: list[int | None] = []
        state: Any = None
        began = time.perf_counter()
        for target in TARGETS:
            before = 1 if state is None else int(state.evaluations)
            solution = jaxgd.minimize(
                cost, v0, make(), max_steps=LIMIT - before if before < LIMIT else 0,
                stop=jaxgd.Stop(cost=target), record=None, state=state,
            )  # fmt: skip
            state = solution.state
            evaluations = int(solution.evaluations)
            reached.append(evaluations if float(solution.cost) <= target and evaluations <= LIMIT else None)
        found[name] = _row(reached, time.perf_counter() - began, int(state.evaluations))
    for method in ("L-BFGS-B", "CG", "Newton-CG"):
        watch = Watch(met, LIMIT)
        seconds = by_scipy(cost, v0, method, watch, LIMIT)
        found[f"scipy {method}"] = _row(watch.reached, seconds, watch.calls)
    compiled: dict[str, Callable[[Watch, int], None]] = {
        "jaxopt LBFGS": lambda watch, n: by_jaxopt(cost, v0, watch, n),
        "optimistix NonlinearCG": lambda watch, n: by_optimistix(cost, v0, "NonlinearCG", watch, n),
    }
    for name, run in compiled.items():
        # The difference of two runs leaves compiling out.
        short, watch = Watch(met, LIMIT), Watch(met, LIMIT)
        began = time.perf_counter()
        run(short, 10)
        middle = time.perf_counter()
        run(watch, 800)
        seconds = time.perf_counter() - middle - (middle - began)
        found[name] = _row(watch.reached, seconds, watch.calls - short.calls)
    return found


def _row(reached: Sequence[int | None], seconds: float, evaluations: int) -> dict[str, Any]:
    return {"evaluations": list(reached), "milliseconds": round(1e3 * seconds / max(evaluations, 1), 3)}
