"""`jaxgd check`: whether gradients are right."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxgd.cli.common import CANNOT_TELL, DONE, FAILED, MISUSED

if TYPE_CHECKING:
    from jaxgd.cli.cases import Result
    from jaxgd.gradcheck import GradientReport
    from jaxgd.network import Network

DTYPES = ("float32", "float64", "bfloat16", "float16")
SIZES = (64, 30, 10)
# Enough that nine in ten digits are read, few enough that nobody waits for them.
EPOCHS = 10
DIGITS = 20


@dataclasses.dataclass(frozen=True)
class Check:
    """Check gradients: right, wrong or cannot tell.

    Without a file, whether backprop is the gradient of network_cost on this device: at random and at trained weights,
    in float32, float64, bfloat16 and float16. With files, the checks in them: a case is a function that returns what
    jaxgd.check_gradients returns, or has a parameter check_gradients and calls it, as in a test for pytest.

    Exit status: 0 all right, 1 any is wrong, 2 misused or something could not be run, 3 any cannot tell.
    """

    cases: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[FILE[::CASE] ...]", help_behavior_hint="")
    ] = ()
    """Cases, each as path/to/file.py::function; or files, of which all functions check_… and test_… are run."""
    seed: int = 0
    """Decides the directions tried and the random weights."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document instead: a list of objects with case and report."""
    verbose: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the whole report also where all is right."""

    def run(self, argv: list[str]) -> int:
        """Check; the result is the exit status."""
        from jaxgd.cli.cases import UserError, users_traceback
        from jaxgd.errors import require_count

        require_count("--seed", "it", self.seed, least=0, most=2**32 - 1)
        results: list[Result] = []
        # The document alone may go to stdout, whatever the user's own lines print.
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
        elif not self.cases:
            import jax

            kind = jax.devices()[0].device_kind
            print(f"backprop is the gradient of network_cost on {kind}: {_VERDICTS[_status(results)]}")
        return _status(results)

    def _show(self, result: "Result") -> None:
        if result.report is None:
            print(f"jaxgd check: {result.case}: {result.error.rstrip()}", file=sys.stderr)
        elif not self.json:
            print(_line(result.case, result.report), flush=True)
            if self.verbose or result.report.verdict != "right":
                print(f"\n{result.report}\n")


_VERDICTS = {DONE: "right", FAILED: "wrong", CANNOT_TELL: "cannot tell"}


def _status(results: "list[Result]") -> int:
    verdicts = [result.report.verdict for result in results if result.report is not None]
    if "wrong" in verdicts:
        return FAILED
    if any(result.report is None for result in results):
        return MISUSED
    return CANNOT_TELL if "cannot tell" in verdicts else DONE


def _of_files(words: tuple[str, ...], seed: int) -> "Iterator[Result]":
    from jaxgd.cli.cases import find_cases, run_case

    cases, left = find_cases(words)
    for test in left:
        print(f"not run: {test}, and a case is given check_gradients alone", file=sys.stderr)
    for case in cases:
        yield from run_case(case, seed)


def _of_backprop(seed: int) -> "Iterator[Result]":
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxgd
    from jaxgd.cli.cases import Result

    digits = jaxgd.load_dataset("digits")
    images, labels = (part[:DIGITS] for part in digits.test)
    for weights, network in _networks(digits, seed):
        for dtype in DTYPES:

            def cast(array: Any, dtype: str = dtype) -> jax.Array:
                return jnp.asarray(np.asarray(array).astype(jnp.dtype(dtype)))

            with jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext():
                report = jaxgd.check_gradients(
                    jaxgd.network_cost,
                    jax.tree.map(cast, network),
                    cast(images.reshape(len(images), -1) / 255),
                    cast(np.eye(SIZES[-1])[labels]),
                    gradient=jaxgd.backprop,
                    seed=seed,
                )
            yield Result(f"{weights} weights, {dtype}", report)


def _networks(digits: Any, seed: int) -> "Iterator[tuple[str, Network]]":
    import jax

    import jaxgd

    network_key, order_key = jax.random.split(jax.random.key(seed, impl="threefry2x32"))
    network = jaxgd.init_network(network_key, SIZES, "scaled")
    yield "random", network
    print("training…", file=sys.stderr)
    result = jaxgd.train(network, digits, epochs=EPOCHS, batch_size=10, eta=3.0, key=order_key, evaluate=False)
    yield "trained", result.network


def _line(case: str, report: "GradientReport") -> str:
    import math

    errors = [float(check.error) for leaf in report.leaves for check in leaf.checks]
    largest = max((error for error in errors if math.isfinite(error)), default=None)
    words = [f"{case}: {report.verdict}"]
    if largest is not None:
        words.append(f"largest error {largest:.0e}")
    # Where something is amiss, the report follows, which says this too.
    return ", ".join(words) + "".join(f"; {line}" for line in report.precision if report.verdict == "right")


def _print_json(results: "list[Result]") -> None:
    import json

    out: list[dict[str, Any]] = []
    for case, report, error in results:
        out.append({"case": case, "report": None if report is None else report.as_dict()})
        if error:
            out[-1]["error"] = error
    print(json.dumps(out, allow_nan=False, ensure_ascii=False, indent=1))
