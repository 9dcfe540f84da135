"""Two checkers of gradients on functions of which it is known what is right: `python -m benchmarks.gradcheck`.

`jaxgd.check_gradients` beside `jax.test_util.check_grads`, both with their defaults and in reverse mode. Cold is the
first check of a function, compilation included; warm are the checks at further points. The two take turns, and jaxgd's,
going first, pays for the operations that both compile.
"""

import dataclasses
import functools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import tyro

import jaxgd
from benchmarks.corpus.correct import CORRECT
from benchmarks.corpus.kinds import with_vjp
from benchmarks.corpus.spoiled import SPOILED
from benchmarks.corpus.wrong import KINKS, WRONG
from jaxgd.files import write_atomically

RIGHT, IS_WRONG, CANNOT_TELL, ERROR = "right", "wrong", "cannot tell", "error"

# Compiled programs are let go after so many functions, lest they fill the memory.
_FUNCTIONS_AT_ONCE = 40


@dataclasses.dataclass(frozen=True)
class Case:
    """A function with points to check it at, and the verdict that is expected there.

    `argnums` are the arguments that are checked, all of them by default. With `gradient`, that is what is claimed
    instead of what autodiff says.
    """

    name: str
    f: Callable[..., Any]
    draw: Callable[[np.random.Generator, Any], tuple[Any, ...]]
    expected: str
    argnums: int | None = None
    gradient: Callable[..., Any] | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """Check functions whose derivatives are known to be right or wrong, with jaxgd and with JAX's own checker."""

    only: tuple[str, ...] = ()
    """Families to run, of correct, wrong, kinks, network-right, network-random, network-trained; all by default."""
    seeds: int = 5
    """At how many points each function is checked."""
    dtypes: tuple[str, ...] = ("float32", "float64")
    """In which dtypes."""
    data_dir: Path | None = None
    """Where MNIST is; else JAXGD_DATA_DIR, else ~/.cache/jaxgd."""
    names: bool = False
    """Print the names of what was not judged as expected, too; they are in the results in any case."""
    out: Path = Path("benchmarks/results/gradcheck.jsonl")
    """Where results are kept, one line a family and dtype."""


# The checkers: from a case, its arguments and a seed to a verdict.


def by_jaxgd(case: Case, args: tuple[Any, ...], seed: int) -> str:
    report = jaxgd.check_gradients(case.f, *args, gradient=case.gradient, argnums=case.argnums, seed=seed)
    return str(report.verdict)


def by_check_grads(case: Case, args: tuple[Any, ...], seed: int) -> str:
    """JAX's own; it takes floats only, so whole numbers are held fixed for it and left out of the results."""
    leaves, structure = jax.tree.flatten(args if case.argnums is None else args[case.argnums])
    places = [i for i, x in enumerate(leaves) if _is_float(x)]

    def f(*floats: Any) -> Any:
        filled = list(leaves)
        for i, x in zip(places, floats, strict=True):
            # It hands over NumPy's arrays in places, which f need not take.
            filled[i] = jnp.asarray(x)
        varied = jax.tree.unflatten(structure, filled)
        if case.argnums is not None:
            varied = (*args[: case.argnums], varied, *args[case.argnums + 1 :])
        return [y for y in jax.tree.leaves(case.f(*varied)) if _is_float(y)]

    try:
        jax.test_util.check_grads(f, tuple(leaves[i] for i in places), order=1, modes=("rev",))  # type: ignore[no-untyped-call]
    except AssertionError:
        return IS_WRONG
    return RIGHT


CHECKERS = {"jaxgd": by_jaxgd, "check_grads": by_check_grads}


def _is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(x), jnp.inexact))


# The families.


class Digits:
    """Ten digits of MNIST and networks [784, 30, 10] for them, at random weights or trained."""

    def __init__(self, data_dir: Path | None) -> None:
        self.data_dir = data_dir
        self.points: dict[tuple[int, str, int], tuple[Any, ...]] = {}

    @functools.cached_property
    def part(self) -> jaxgd.Part:
        """MNIST's training images."""
        return jaxgd.load_dataset("mnist", self.data_dir).train

    def draw(self, steps: int) -> Callable[[np.random.Generator, Any], tuple[Any, ...]]:
        """A network after so many steps of descent at η = 3, with the digits it was trained on."""

        def drawn(rng: np.random.Generator, dtype: Any) -> tuple[Any, ...]:
            point = steps, jnp.dtype(dtype).name, int(rng.integers(2**31))
            if point not in self.points:
                self.points[point] = self._point(*point)
            return self.points[point]

        return drawn

    def _point(self, steps: int, dtype: str, seed: int) -> tuple[Any, ...]:
        x = jnp.asarray(self.part.images[:10].reshape(10, -1) / 255, dtype)
        y = jax.nn.one_hot(self.part.labels[:10], 10, dtype=dtype)
        network = jaxgd.init_network(jax.random.key(seed), (784, 30, 10), dtype=dtype)

        def step(_: int, network: Any) -> Any:
            return jaxgd.update(network, jax.grad(jaxgd.network_cost)(network, x, y), 3.0)

        return jax.jit(lambda network: jax.lax.fori_loop(0, steps, step, network))(network), x, y


def network_cost(network: Any, x: Any, y: Any) -> Any:
    """The cost with autodiff's gradient, as a function of these three alone."""
    return jaxgd.network_cost(network, x, y)


def spoiled_case(name: str, draw: Any, claimed: bool) -> Case:
    """The network's cost with a spoiled gradient: as a rule of its own, or claimed beside it."""
    spoil, _ = SPOILED[name]

    def gradient(network: Any, x: Any, y: Any) -> Any:
        return spoil(jax.grad(network_cost)(network, x, y))

    def backward(network: Any, x: Any, y: Any, ct: Any) -> Any:
        by_network, *others = jax.vjp(network_cost, network, x, y)[1](ct)
        return spoil(by_network), *others

    if claimed:
        return Case(name, network_cost, draw, IS_WRONG, argnums=0, gradient=gradient)
    return Case(name, with_vjp(network_cost, backward), draw, IS_WRONG, argnums=0)


def families(digits: Digits) -> dict[str, tuple[Case, ...]]:
    """All of them, by name; those that end in "claimed" are for a checker that can be given a gradient."""
    random, trained = digits.draw(0), digits.draw(2_000)
    return {
        "correct": tuple(Case(c.name, c.f, c.draw, RIGHT) for c in CORRECT),
        "wrong": tuple(Case(c.name, c.f, c.draw, IS_WRONG) for c in WRONG),
        "kinks": tuple(Case(c.name, c.f, c.draw, CANNOT_TELL) for c in KINKS),
        "network-right": (
            Case("at random weights", network_cost, random, RIGHT, argnums=0),
            Case("trained", network_cost, trained, RIGHT, argnums=0),
        ),
        "network-random": tuple(spoiled_case(name, random, False) for name in SPOILED),
        "network-random, claimed": tuple(spoiled_case(name, random, True) for name in SPOILED),
        "network-trained": tuple(spoiled_case(name, trained, False) for name in SPOILED),
        "network-trained, claimed": tuple(spoiled_case(name, trained, True) for name in SPOILED),
    }


# Running and counting.


@dataclasses.dataclass(frozen=True)
class Check:
    """One check by one checker."""

    checker: str
    name: str
    seed: int
    expected: str
    verdict: str
    seconds: float
    cold: bool


def checks(cases: Iterable[Case], dtype: str, seeds: int) -> Iterator[Check]:
    """Every case at every point, the checkers taking turns."""
    for i, case in enumerate(cases):
        if i % _FUNCTIONS_AT_ONCE == 0:
            jax.clear_caches()  # type: ignore[no-untyped-call]
        for seed in range(seeds):
            args = case.draw(np.random.default_rng(seed), dtype)
            for checker, check in CHECKERS.items():
                if case.gradient is not None and checker == "check_grads":
                    continue
                start = time.perf_counter()
                try:
                    verdict = check(case, args, seed)
                except Exception:
                    verdict = ERROR
                seconds = time.perf_counter() - start
                yield Check(checker, case.name, seed, case.expected, verdict, seconds, seed == 0)


def summary(done: list[Check]) -> dict[str, Any]:
    """What one checker made of one family: how often it was as expected, and where it was not.

    Missed is what is wrong, or has no derivative, and was called right; a false alarm is what is right, or has no
    derivative, and was called wrong.
    """

    def where(verdict: str) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for c in done:
            if c.verdict == verdict != c.expected:
                found.setdefault(c.name, []).append(c.seed)
        return found

    cold, warm = ([c.seconds for c in done if c.cold is which] for which in (True, False))
    return {
        "as_expected": sum(c.verdict == c.expected for c in done),
        "missed": where(RIGHT),
        "false_alarms": where(IS_WRONG),
        "cannot_tell": where(CANNOT_TELL),
        "errors": where(ERROR),
        "cold_seconds_median": round(statistics.median(cold), 4),
        "warm_seconds_median": round(statistics.median(warm), 4) if warm else None,
    }


def measure(family: str, cases: tuple[Case, ...], dtype: str, seeds: int) -> dict[str, Any]:
    """One line of results."""
    start = time.perf_counter()
    with jax.enable_x64(dtype == "float64"):
        done = list(checks(cases, dtype, seeds))
    by_checker = {checker: [c for c in done if c.checker == checker] for checker in CHECKERS}
    return {
        "family": family,
        "dtype": dtype,
        "functions": len(cases),
        "seeds": seeds,
        "count": len(cases) * seeds,
        "checkers": {checker: summary(mine) for checker, mine in by_checker.items() if mine},
        "seconds": round(time.perf_counter() - start, 1),
        "jax": jax.__version__,
        "jaxgd": jaxgd.__version__,
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "date": time.strftime("%Y-%m-%d"),
    }


HEADER = (
    f"{'':40} {'':11} {'count':>6} {'as expected':>12} {'missed':>7} {'false alarms':>12} {'cannot tell':>11}"
    f" {'errors':>6} {'warm':>9} {'cold':>9}"
)


def table(row: dict[str, Any], names: bool) -> str:
    """One row, as a person reads it: a line for each checker."""
    lines: list[str] = []
    for checker, s in row["checkers"].items():
        title = f"{row['family']}, {row['dtype']}" if not lines else ""
        n = {key: sum(map(len, s[key].values())) for key in ("missed", "false_alarms", "cannot_tell", "errors")}
        warm, cold = (
            "–" if x is None else f"{x * 1e3:.0f} ms" for x in (s["warm_seconds_median"], s["cold_seconds_median"])
        )
        lines.append(
            f"{title:40} {checker:11} {row['count']:6} {s['as_expected']:12} {n['missed']:7} {n['false_alarms']:12}"
            f" {n['cannot_tell']:11} {n['errors']:6} {warm:>9} {cold:>9}"
        )
        if names:
            lines += [f"    {key.replace('_', ' ')}: {'; '.join(s[key])}" for key in n if s[key]]
    return "\n".join(lines)


def main(options: Options) -> int:
    """Run, print and keep; a family's line in a dtype replaces its earlier one."""
    digits = Digits(options.data_dir)
    everything = families(digits)
    known = [name for name in everything if not name.endswith("claimed")]
    if unknown := set(options.only) - set(known):
        print(f"no family is called {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    if not options.only or any(name.startswith("network") for name in options.only):
        # Here, for it would be a pity to find out at the end that there is no MNIST.
        digits.part  # noqa: B018
    kept = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    print(HEADER, flush=True)
    for family, cases in everything.items():
        if options.only and family.removesuffix(", claimed") not in options.only:
            continue
        for dtype in options.dtypes:
            row = measure(family, cases, dtype, options.seeds)
            print(table(row, options.names), flush=True)
            kept = [old for old in kept if (old["family"], old["dtype"]) != (family, dtype)] + [row]
            write_atomically(options.out, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m benchmarks.gradcheck")))
