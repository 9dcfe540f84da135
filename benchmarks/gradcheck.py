"""Two gradient checkers on functions whose derivatives are known to be right, to be wrong, or not to exist.

`jaxgd.check_gradients` is compared with `jax.test_util.check_grads`. Both run with their defaults, `check_grads` with
order 1 and in reverse mode only. The first check of a function includes compilation and gives the cold time. Checks at
further points give the time. jaxgd runs first at each point, so its cold time includes the compilation of operations
that both checkers use.
"""

import dataclasses
import functools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

import jaxgd
from benchmarks.case import Case as Benchmark
from benchmarks.case import Options
from benchmarks.corpus.case import CANNOT_TELL, IS_WRONG, RIGHT, Case
from benchmarks.corpus.correct import CORRECT
from benchmarks.corpus.draws import Args, Draw
from benchmarks.corpus.kinds import pulled, with_vjp
from benchmarks.corpus.kinks import KINKS
from benchmarks.corpus.spoiled import SPOILED
from benchmarks.corpus.wrong import WRONG
from benchmarks.rows import Row, sampled
from jaxgd.typed import fori_loop, grad, jit

Point = tuple[jaxgd.Network, Array, Array]

ERROR = "error"
# For each verdict, the quantity that counts the checks that should have given another verdict.
UNEXPECTED = {RIGHT: "missed", IS_WRONG: "false alarms", CANNOT_TELL: "cannot tell", ERROR: "errors"}
SEEDS = 5
CORPUS: dict[str, tuple[Case, ...]] = {"correct": CORRECT, "wrong": WRONG, "kinks": KINKS}
# The compiled programs are dropped after this number of functions, because all of them would fill the memory.
FUNCTIONS_AT_ONCE = 40


def by_jaxgd(function: Case, args: Args, seed: int) -> str:
    return str(jaxgd.check_gradients(function.f, *args, **function.keywords(), seed=seed).verdict)


def by_check_grads(function: Case, args: Args, seed: int) -> str:
    """Return the verdict of `check_grads`, which accepts floats only.

    Integers among the arguments are held fixed, and integers in the result are left out.
    """
    place = function.argnums
    assert not isinstance(place, tuple), f"{function.name}: expected one position in argnums, got {place}"
    leaves, structure = jax.tree.flatten(args if place is None else args[place])
    places = [i for i, x in enumerate(leaves) if _is_float(x)]

    def f(*floats: ArrayLike) -> list[ArrayLike]:
        filled = list(leaves)
        for i, x in zip(places, floats, strict=True):
            # check_grads passes NumPy arrays, which the checked function need not accept.
            filled[i] = jnp.asarray(x)
        varied: Args = jax.tree.unflatten(structure, filled)
        if place is not None:
            varied = (*args[:place], varied, *args[place + 1 :])
        return [y for y in jax.tree.leaves(function.f(*varied)) if _is_float(y)]

    try:
        jax.test_util.check_grads(f, tuple(leaves[i] for i in places), order=1, modes=("rev",))  # type: ignore[no-untyped-call]
    except AssertionError:
        return IS_WRONG
    return RIGHT


CHECKERS = {"jaxgd": by_jaxgd, "check_grads": by_check_grads}


def _is_float(x: ArrayLike) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(x), jnp.inexact))


class Digits:
    """Ten digits of MNIST, and networks [784, 30, 10] with random or trained weights."""

    def __init__(self, data_dir: Path | None) -> None:
        self.data_dir = data_dir
        self.points: dict[tuple[int, str, int], Point] = {}

    @functools.cached_property
    def part(self) -> jaxgd.Part:
        """MNIST's training images and labels."""
        train = jaxgd.load_dataset("mnist", self.data_dir).train
        return jaxgd.Part(train.images, train.labels)

    def draw(self, steps: int) -> Draw:
        """Return a function that draws a point: a network and the ten digits.

        The network has made `steps` steps of gradient descent at η = 3 on these digits.
        """

        def drawn(rng: np.random.Generator, dtype: DTypeLike) -> Point:
            point = steps, np.dtype(dtype).name, int(rng.integers(2**31))
            if point not in self.points:
                self.points[point] = self._point(*point)
            return self.points[point]

        return drawn

    def _point(self, steps: int, dtype: str, seed: int) -> Point:
        x = jnp.asarray(self.part.images[:10].reshape(10, -1) / 255, dtype)
        y = jax.nn.one_hot(self.part.labels[:10], 10, dtype=dtype)
        network = jaxgd.init_network(jax.random.key(seed), (784, 30, 10), dtype=dtype)

        def step(_: Array, network: jaxgd.Network) -> jaxgd.Network:
            updated: jaxgd.Network = jaxgd.update(network, grad(network_cost)(network, x, y), 3.0)
            return updated

        return jit(lambda network: fori_loop(0, steps, step, network))(network), x, y


def network_cost(network: jaxgd.Network, x: Array, y: Array) -> Array:
    """Return jaxgd's network cost, with its default options."""
    return jaxgd.network_cost(network, x, y)


def spoiled_function(name: str, draw: Draw, claimed: bool) -> Case:
    """Return the network's cost with a spoiled gradient: as `gradient=` if `claimed`, otherwise as a custom VJP."""
    spoil, _ = SPOILED[name]

    def gradient(network: jaxgd.Network, x: Array, y: Array) -> object:
        return spoil(grad(network_cost)(network, x, y))

    def backward(network: jaxgd.Network, x: Array, y: Array, ct: Array) -> tuple[object, ...]:
        by_network, *others = pulled(network_cost, (network, x, y), ct)
        return spoil(by_network), *others

    if claimed:
        return Case(name, network_cost, draw, (IS_WRONG,), argnums=0, gradient=gradient)
    return Case(name, with_vjp(network_cost, backward), draw, (IS_WRONG,), argnums=0)


def functions_of(part: str, digits: Digits) -> tuple[Case, ...]:
    """Return the functions of one part. A part named "…-claimed" needs a checker that accepts a gradient."""
    random, trained = digits.draw(0), digits.draw(2_000)
    if part == "network-right":
        return (
            Case("at random weights", network_cost, random, argnums=0),
            Case("trained", network_cost, trained, argnums=0),
        )
    if part.startswith("network"):
        draw = random if "random" in part else trained
        return tuple(spoiled_function(name, draw, part.endswith("claimed")) for name in SPOILED)
    return CORPUS[part]


@dataclasses.dataclass(frozen=True)
class Check:
    """One check by one checker, with its time in seconds."""

    checker: str
    name: str
    seed: int
    expected: tuple[str, ...]
    verdict: str
    seconds: float


def checks(functions: Iterable[Case], dtype: str, seeds: int) -> Iterator[Check]:
    """Check every function at every point by each checker in turn, and yield the checks.

    check_grads is left out if the case has a claimed `gradient`.
    """
    for i, function in enumerate(functions):
        if i % FUNCTIONS_AT_ONCE == 0:
            jax.clear_caches()  # type: ignore[no-untyped-call]
        for seed in range(seeds):
            args = function.draw(np.random.default_rng(seed), dtype)
            for checker, check in CHECKERS.items():
                if function.gradient is not None and checker == "check_grads":
                    continue
                start = time.perf_counter()
                try:
                    verdict = check(function, args, seed)
                except Exception:
                    verdict = ERROR
                seconds = time.perf_counter() - start
                yield Check(checker, function.name, seed, function.expected, verdict, seconds)


def rows_of(case: str, checker: str, dtype: str, done: list[Check]) -> Iterator[Row]:
    """Yield the counts of one checker's verdicts and the times of its checks.

    A check counts as missed if the verdict is "right" for a derivative that is wrong or does not exist. It counts as a
    false alarm if the verdict is "wrong" for a derivative that is right or does not exist. `details["functions"]` maps
    the name of a function to the seeds of the checks that the row counts.
    """
    about: dict[str, Any] = {"case": case, "variant": checker, "precision": dtype}
    counted: dict[str, Any] = {"unit": "checks", "n": len(done)}
    expected = sum(c.verdict in c.expected for c in done)
    seeds = {"seeds": len({c.seed for c in done})}
    yield Row(quantity="as expected", value=expected, details=seeds, **about, **counted)
    for verdict, quantity in UNEXPECTED.items():
        names: dict[str, list[int]] = {}
        for c in done:
            if c.verdict == verdict and verdict not in c.expected:
                names.setdefault(c.name, []).append(c.seed)
        details = {"functions": names} if names else {}
        yield Row(quantity=quantity, value=sum(map(len, names.values())), details=details, **about, **counted)
    for quantity, cold in (("time", False), ("cold time", True)):
        if seconds := [c.seconds for c in done if (c.seed == 0) is cold]:
            # Keep only the quantiles of the times: there are thousands, and they belong to different functions.
            row = sampled(unit="s/check", samples=seconds, quantity=quantity, **about)
            yield dataclasses.replace(row, samples=())


def measure(part: str, options: Options) -> Iterator[Row]:
    """Yield the rows of each checker in each dtype, for the functions of one part."""
    functions = functions_of(part, Digits(options.data_dir))
    for dtype in options.dtypes:
        with jax.enable_x64(dtype == "float64"):
            done = list(checks(functions, dtype, options.seeds or SEEDS))
        for checker in CHECKERS:
            if mine := [c for c in done if c.checker == checker]:
                yield from rows_of(f"gradcheck-{part}", checker, dtype, mine)


TITLES = {
    "correct": f"{len(CORRECT)} functions with right derivatives",
    "wrong": f"{len(WRONG)} functions with wrong derivatives",
    "kinks": f"{len(KINKS)} functions at points without a derivative",
    "network-right": "the cost of the network [784, 30, 10], at random weights and trained",
    "network-random": f"{len(SPOILED)} spoiled gradients of the network's cost at random weights",
    "network-random-claimed": f"{len(SPOILED)} spoiled gradients at random weights, passed as `gradient=`",
    "network-trained": f"{len(SPOILED)} spoiled gradients of the network's cost at trained weights",
    "network-trained-claimed": f"{len(SPOILED)} spoiled gradients at trained weights, passed as `gradient=`",
}
CASES = tuple(
    Benchmark(f"gradcheck-{part}", "gradcheck", title, functools.partial(measure, part), part.startswith("network"))
    for part, title in TITLES.items()
)
