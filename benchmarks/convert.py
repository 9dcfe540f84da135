"""Convert the four older formats of results into rows of the schema, without loss of a figure."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.case import DEFAULT_PRECISION
from benchmarks.minimize.evaluations import ON_MNIST, ON_NAMED, count_row
from benchmarks.nielsen import comparison, settings
from benchmarks.rows import Row, sampled
from benchmarks.store import ResultsError

Old = dict[str, Any]


def convert(path: Path) -> list[Row]:
    """Return the rows of a file of an older format, or raise ResultsError."""
    rows: list[Row] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            old = json.loads(line)
            converter = next(converter for field, converter in CONVERTERS.items() if field in old)
            rows += (dataclasses.replace(row, **_about(old)) for row in converter(old))
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise ResultsError(
            f"convert: expected lines of an older format of results in {path}, got {error!r}."
        ) from error
    return rows


def _about(old: Old) -> Old:
    """Return the fields for the host, the versions and the date. Older formats have only some of them."""
    host = {"processor": old["machine"], "device": old["device"]}
    if "native" in old:
        host |= {"threads": old["threads"], "isa": old["native"].split(",")[0]}
        host |= {name: old[name] for name in ("peak_gflops", "bandwidth_gb_s")}
    libraries: Old = {name: old.get(name) for name in ("jaxgd", "jax")}
    libraries |= old.get("peers", {}) | old.get("versions", {})
    versions = {name: version for name, version in libraries.items() if version}
    return {"host": host, "versions": versions, "commit": old.get("commit", ""), "date": old["date"]}


def _training(old: Old) -> Iterator[Row]:
    """Convert a line with times of training."""
    about: Old = {"case": old["case"], "variant": old["peer"], "precision": DEFAULT_PRECISION}
    median, low, high = old["seconds"]
    details: Old = {
        "cost": old["cost_first"],
        "accuracy": old["accuracy_first"],
        "gflops": old["gflops"],
        # The first peer of every older run was jaxgd.
        "baseline": "jaxgd",
        "ratio": old["ratio"],
        **{name: old[name] for name in ("growing", "size") if name in old},
    }
    yield Row(
        **about, quantity="time", value=median, unit=f"s/{old['unit']}", spread=(low, high), n=len(old["times"]),
        samples=tuple(old["times"]), details=details,
    )  # fmt: skip
    for quantity, unit, field in (("compile time", "s", "compile_seconds"), ("memory", "MB", "megabytes")):
        yield Row(**about, quantity=quantity, value=old[field], unit=unit, samples=(old[field],))


STEP_CASES = {
    "rosenbrock, 2 variables": "minimize-step-rosenbrock",
    "quadratic, 1,000 variables": "minimize-step-1000",
    "quadratic, 1,000,000 variables": "minimize-step-1000000",
    "MNIST, 10,000 images, [784, 30, 10]": "minimize-step-mnist",
}


def _minimize(old: Old) -> Iterator[Row]:
    """Convert a line about `minimize`: steps, a callback, evaluations or many starts."""
    result, name = old["result"], old["case"]
    if old["kind"] == "steps":
        for variant, found in result.items():
            if variant in ("repeats", "dtype"):
                continue
            median, low, high = found["microseconds"]
            details = {"baseline": found["to"], "ratio": found["ratio"], "difference after 5 steps": found["apart"]}
            yield Row(
                case=STEP_CASES[name], variant=variant.replace(", otherwise", ", reordered"), quantity="step time",
                value=median, unit="μs/step", spread=(low, high), n=result["repeats"], precision=DEFAULT_PRECISION,
                details=details,
            )  # fmt: skip
    elif old["kind"] == "callback":
        median, low, high = result["ratio"]
        yield Row(
            case="minimize-callback", variant="jaxgd", quantity="ratio", value=median, unit="×", spread=(low, high),
            precision=DEFAULT_PRECISION, details={"calls per run": result["chunks"]},
        )  # fmt: skip
    elif old["kind"] == "lanes":
        for variant, found in result.items():
            about: Old = {"precision": DEFAULT_PRECISION, "details": {"outcomes": found["outcomes"]}}
            for quantity, field in (("cold time", "seconds_with_compilation"), ("time", "seconds")):
                yield Row(
                    case="minimize-starts", variant=f"jaxgd, {variant}", quantity=quantity, value=found[field],
                    unit="s", n=1 if quantity == "cold time" else 3, **about,
                )  # fmt: skip
    elif "ways" in result:
        for variant, found in result["ways"].items():
            for target, count in zip(result["targets"], found["evaluations"], strict=True):
                yield count_row(f"{ON_MNIST}/{target}", variant, count, DEFAULT_PRECISION)
            yield sampled(
                ON_MNIST, variant, "step time", "ms/evaluation", [found["milliseconds"]], precision=DEFAULT_PRECISION
            )
    else:
        for variant, count in result.items():
            if variant != "dtype":
                yield count_row(f"{ON_NAMED}/{name}", variant, count, result["dtype"])


def _gradcheck(old: Old) -> Iterator[Row]:
    """Convert a line about the gradient checks of one family in one dtype."""
    for variant, found in old["checkers"].items():
        case = f"gradcheck-{old['family'].replace(', ', '-')}"
        about: Old = {"case": case, "variant": variant, "precision": old["dtype"]}
        counted: Old = {"unit": "checks", "n": old["count"]}
        details = {"seeds": old["seeds"], "seconds of all checkers": old["seconds"]}
        yield Row(quantity="as expected", value=found["as_expected"], details=details, **about, **counted)
        for quantity in ("missed", "false alarms", "cannot tell", "errors"):
            names = found[quantity.replace(" ", "_")]
            details = {"functions": names} if names else {}
            yield Row(quantity=quantity, value=sum(map(len, names.values())), details=details, **about, **counted)
        cold = old["functions"]
        for quantity, field, n in (("time", "warm", old["count"] - cold), ("cold time", "cold", cold)):
            yield Row(quantity=quantity, value=found[f"{field}_seconds_median"], unit="s/check", n=n, **about)


NIELSEN_CASES = {
    "784-30-10, eta 3": "nielsen-30",
    "784-30-10, eta 100": "nielsen-30-eta-100",
    "784-100-10, eta 3": "nielsen-100",
    "784-100-10, eta 0.001": "nielsen-100-eta-0.001",
}


def _nielsen(old: Old) -> Iterator[Row]:
    """Convert a line about one configuration of the book."""
    details = {
        "seconds": old["seconds"],
        **settings(old["sizes"], old["eta"], old["epochs"]),
        **comparison(old["correct"], old["book"], old["independent_p10_median_p90"]),
    }
    best = [max(counts) for counts in old["correct"]]
    yield sampled(
        NIELSEN_CASES[old["name"]], "jaxgd", "correct", "images", best, precision=DEFAULT_PRECISION, details=details
    )


# The converter of each older format, by a field that only this format has.
CONVERTERS: dict[str, Callable[[Old], Iterator[Row]]] = {
    "peer": _training,
    "kind": _minimize,
    "checkers": _gradcheck,
    "book": _nielsen,
}
