"""`jaxgd check`: check gradients from the command line."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxgd.cli.common import CANNOT_TELL, DONE, FAILED, MISUSED, Int
from jaxgd.cli.output import say

if TYPE_CHECKING:
    from jaxgd.cli.cases import Result
    from jaxgd.data import Dataset
    from jaxgd.gradcheck import GradientReport
    from jaxgd.network import Network

DTYPES = ("float32", "float64", "bfloat16", "float16")
SIZES = (64, 30, 10)
# With seed 0, the network reads 96% of the test digits after 10 epochs.
EPOCHS = 10
DIGITS = 20


@dataclasses.dataclass(frozen=True)
class Check:
    """Check gradients, with the verdict right, wrong or cannot tell.

    Without FILE, checks that backprop is the gradient of network_cost on this device. Each of float32, float64,
    bfloat16 and float16 is checked with random and with trained weights.

    With FILE, runs the cases in it. A case is a function that returns the report of jaxgd.check_gradients, or a
    function that takes check_gradients as a parameter and calls it, like a pytest test. A case is skipped if it needs
    other parameters, is a method, or has a skip mark of pytest. FILE::CASE must not name such a case. The last line
    counts the cases.

    Exit status: 0 all are right or skipped; 1 at least one is wrong; 2 misuse, or a case could not run; 3 at least one
    cannot tell or, with --strict, was skipped. If several of 1, 2 and 3 apply, the smallest counts.
    """

    cases: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[FILE[::CASE] ...]", help_behavior_hint="")
    ] = ()
    """Cases to run: path/to/file.py::function for one, path/to/file.py for all check_… and test_… cases in the file."""
    seed: Int = 0
    """Seed of the directions to test and, without FILE, of the random weights and the training."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON list. Each object has the keys case and report.
    If report is null, the key error or skipped gives the reason."""
    verbose: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the full report of right gradients too."""
    strict: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Exit with status 3 if a case was skipped."""

    def run(self, argv: list[str]) -> int:
        """Check the gradients and return the exit status."""
        from jaxgd.cli.cases import UserError, users_traceback
        from jaxgd.errors import require_count

        require_count("check", "--seed", self.seed, least=0, most=2**32 - 1)
        results: list[Result] = []
        # With --json, stdout holds the document only: prints from the user's code go to stderr.
        with contextlib.redirect_stdout(sys.stderr) if self.json else contextlib.nullcontext():
            try:
                for result in _of_files(self.cases, self.seed) if self.cases else _of_backprop(self.seed):
                    results.append(result)
                    self._show(result)
            except UserError as error:
                print(f"jaxgd check: {error}\n{users_traceback(error.__cause__ or error)}", end="", file=sys.stderr)
                return MISUSED
        if self.json:
            _print_json(results)
        elif self.cases:
            print(_summary(results))
        else:
            import jax

            kind = jax.devices()[0].device_kind
            print(f"backprop as the gradient of network_cost on {kind}: {_VERDICTS[_status(results, self.strict)]}")
        return _status(results, self.strict)

    def _show(self, result: "Result") -> None:
        if result.skipped:
            say(f"skipped: {result.case}: {result.skipped}")
        elif result.report is None:
            print(f"jaxgd check: {result.case}: {result.error.rstrip()}", file=sys.stderr)
        elif not self.json:
            print(_line(result.case, result.report), flush=True)
            if self.verbose or result.report.verdict != "right":
                print(f"\n{result.report}\n", flush=True)


_VERDICTS = {DONE: "right", FAILED: "wrong", CANNOT_TELL: "cannot tell"}
# The outcomes of a case, in the order of the summary.
_OUTCOMES = ("right", "wrong", "cannot tell", "could not run", "skipped")
_WORST_FIRST = ("wrong", "could not run", "cannot tell", "skipped", "right")


def _status(results: "list[Result]", strict: bool) -> int:
    outcomes = {result.outcome for result in results}
    if "wrong" in outcomes:
        return FAILED
    if "could not run" in outcomes:
        return MISUSED
    return CANNOT_TELL if "cannot tell" in outcomes or (strict and "skipped" in outcomes) else DONE


def _summary(results: "list[Result]") -> str:
    """Return the line that counts the cases by outcome. A case with several reports counts by its worst outcome."""
    worst: dict[str, str] = {}
    for result in results:
        worst[result.case] = min(worst.get(result.case, "right"), result.outcome, key=_WORST_FIRST.index)
    counted = list(worst.values())
    counts = [f"{counted.count(outcome)} {outcome}" for outcome in _OUTCOMES if outcome in counted]
    if all(result.skipped for result in results):
        counts.insert(0, "0 ran")
    return f"{len(worst)} case{'s' if len(worst) > 1 else ''}: {', '.join(counts)}"


def _of_files(words: tuple[str, ...], seed: int) -> "Iterator[Result]":
    from jaxgd.cli.cases import find_cases, run_case

    for case in find_cases(words):
        yield from run_case(case, seed)


def _of_backprop(seed: int) -> "Iterator[Result]":
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.typing import ArrayLike

    import jaxgd
    from jaxgd.cli.cases import Result
    from jaxgd.typed import tree_map

    digits = jaxgd.load_dataset("digits")
    images, labels = digits.test.images[:DIGITS], digits.test.labels[:DIGITS]
    for weights, network in _networks(digits, seed):
        for dtype in DTYPES:

            def cast(array: ArrayLike, dtype: str = dtype) -> jax.Array:
                return jnp.asarray(np.asarray(array).astype(jnp.dtype(dtype)))

            with jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext():
                report = jaxgd.check_gradients(
                    jaxgd.network_cost,
                    tree_map(cast, network),
                    cast(images.reshape(len(images), -1) / 255),
                    cast(np.eye(SIZES[-1])[labels]),
                    gradient=jaxgd.backprop,
                    seed=seed,
                )
            yield Result(f"{weights} weights, {dtype}", report)


def _networks(digits: "Dataset", seed: int) -> "Iterator[tuple[str, Network]]":
    import jax

    import jaxgd

    network_key, order_key = jax.random.split(jax.random.key(seed, impl="threefry2x32"))
    network = jaxgd.init_network(network_key, SIZES, "scaled")
    yield "random", network
    say("training…")
    result = jaxgd.train(network, digits, epochs=EPOCHS, batch_size=10, eta=3.0, key=order_key, evaluate=False)
    yield "trained", result.network


def _line(case: str, report: "GradientReport") -> str:
    import math

    errors = [float(check.error) for leaf in report.leaves for check in leaf.checks]
    largest = max((error for error in errors if math.isfinite(error)), default=None)
    words = [f"{case}: {report.verdict}"]
    if largest is not None:
        words.append(f"largest error {largest:.0e}")
    # If the verdict is not right, the full report follows, which states the precision.
    return ", ".join(words) + "".join(f"; {line}" for line in report.precision if report.verdict == "right")


def _print_json(results: "list[Result]") -> None:
    import json

    out: list[dict[str, object]] = []
    for case, report, error, skipped in results:
        out.append({"case": case, "report": None if report is None else report.as_dict()})
        if error:
            out[-1]["error"] = error
        if skipped:
            out[-1]["skipped"] = skipped
    print(json.dumps(out, allow_nan=False, indent=1))
