"""The extra time of a callback, and the time of many starts at once."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

import jaxgd
from benchmarks.case import DEFAULT_PRECISION, Case, Options
from benchmarks.rows import Row, sampled
from jaxgd.named_costs import NAMED_COSTS
from jaxgd.typed import block_until_ready, jit, vmap

Stop = jaxgd.Stop | Literal["auto"]


def callback_ratio(options: Options) -> Iterator[Row]:
    """Yield the time of a run with a callback, divided by the time without one.

    The callback runs after every chunk of the default length. A step on Rosenbrock's function takes only nanoseconds,
    so the callback's share of the time is large.
    """
    named = NAMED_COSTS["rosenbrock"]
    costs: list[float] = []

    def run(callback: Callable[[jaxgd.Solution[Array]], None] | None) -> float:
        began = time.perf_counter()
        rule, start = jaxgd.gradient_descent(1e-7), jnp.asarray(named.start)
        solution = jaxgd.minimize(
            named.cost, start, rule, max_steps=100_000_000, stop=None, record=None, callback=callback
        )
        block_until_ready(solution.v)
        return time.perf_counter() - began

    def callback(solution: jaxgd.Solution[Array]) -> None:
        costs.append(float(solution.cost))

    run(None), run(callback)
    costs.clear()
    ratios = [run(callback) / run(None) for _ in range(options.repeats)]
    details = {"calls per run": len(costs) // options.repeats}
    yield sampled("minimize-callback", "jaxgd", "ratio", "×", ratios, precision=DEFAULT_PRECISION, details=details)


def many_starts(options: Options) -> Iterator[Row]:
    """Yield the time of the first call and the times of later calls, for 10,000 starts at once."""
    cost = NAMED_COSTS["rosenbrock"].cost
    starts = 1.5 * jax.random.normal(jax.random.key(0), (10_000, 2))
    variants: tuple[tuple[str, Callable[[], jaxgd.Rule], int, Stop], ...] = (
        ("jaxgd, gradient descent, 10,000 updates", lambda: jaxgd.gradient_descent(1e-3), 10_000, "auto"),
        ("jaxgd, backtracking to 1e-8", jaxgd.backtracking, 2_000, jaxgd.Stop(cost=1e-8)),
    )
    for variant, make, steps, stop in variants:

        def one(v: Array, make: Callable[[], jaxgd.Rule], steps: int, stop: Stop) -> jaxgd.Solution[Array]:
            return jaxgd.minimize(cost, v, make(), max_steps=steps, stop=stop, record=None)

        run: Callable[[Array], jaxgd.Solution[Array]]
        run = jit(vmap(functools.partial(one, make=make, steps=steps, stop=stop)))
        times = []
        for _ in range(1 + options.repeats):
            began = time.perf_counter()
            solution = block_until_ready(run(starts))
            times.append(time.perf_counter() - began)
        about: dict[str, Any] = {"precision": DEFAULT_PRECISION, "details": {"outcomes": solution.outcome.message}}
        yield sampled("minimize-starts", variant, "cold time", "s", times[:1], **about)
        yield sampled("minimize-starts", variant, "time", "s", times[1:], precision=DEFAULT_PRECISION)


CASES = (
    Case("minimize-callback", "minimize", "time with a callback over time without, Rosenbrock", callback_ratio),
    Case("minimize-starts", "minimize", "10,000 starts at once under vmap, Rosenbrock", many_starts),
)
