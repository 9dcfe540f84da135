"""The schema of all results: a row holds one value, its samples, and the host and versions that gave it."""

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeGuard

import numpy as np

# Case, variant, quantity and precision.
Key = tuple[str, str, str, str]


class Quantity(NamedTuple):
    """A kind of value.

    Attributes:
        better: The direction of an improvement.
        noise: Source of the noise. "host": the host may be slower on one day than on another, for all programs.
            "sample": the samples differ, for instance over seeds. "none": the value is exact, such as a count.
        positive: True if every value and sample must be above 0. Otherwise 0 and below are valid.
    """

    better: Literal["lower", "higher", "neither"]
    noise: Literal["host", "sample", "none"]
    positive: bool = False


QUANTITIES = {
    "time": Quantity("lower", "host", positive=True),
    # Seconds of all processors together.
    "processor time": Quantity("lower", "host", positive=True),
    # The time per step, from the difference of the times of a long and a short run. Noise can push it below 0.
    "step time": Quantity("lower", "host"),
    # A first call, with compilation.
    "cold time": Quantity("lower", "host", positive=True),
    "compile time": Quantity("lower", "host"),
    "ratio": Quantity("lower", "sample", positive=True),
    "memory": Quantity("lower", "sample"),
    "correct": Quantity("higher", "sample"),
    # Photographs with a confident wrong answer and no warning, and photographs with a warning.
    "confident errors": Quantity("lower", "none"),
    "warned": Quantity("neither", "none"),
    "evaluations": Quantity("lower", "none", positive=True),
    # Verdicts of a checker of gradients.
    "as expected": Quantity("higher", "none"),
    "missed": Quantity("lower", "none"),
    "false alarms": Quantity("lower", "none"),
    "cannot tell": Quantity("neither", "none"),
    "errors": Quantity("lower", "none"),
    # Problems whose minimum a minimizer reaches, and problems on which it reports success without reaching a minimum.
    "reached": Quantity("higher", "none"),
    "false success": Quantity("lower", "none"),
    # Attacks on jaxgd that succeeded.
    "succeeded": Quantity("lower", "none"),
    # Work or bytes per second.
    "rate": Quantity("higher", "host", positive=True),
    # A relative error against float64. It is the same in every run.
    "error": Quantity("lower", "none"),
    # Registers or bytes of a compiled kernel.
    "resources": Quantity("lower", "none"),
    # Faults that a check or a sanitizer found.
    "faults": Quantity("lower", "none"),
    # A value that a profiler reports, or a property of the hardware.
    "counter": Quantity("neither", "sample"),
    # Tasks that did not finish.
    "unfinished": Quantity("lower", "none"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One value of one program in one case.

    Attributes:
        case: Name of the case. A name after "/" is a part of the case, such as a target, an input or a mode.
        variant: Name of the program, such as "jaxgd" or "numpy".
        quantity: Meaning of the value, a key of QUANTITIES.
        value: The median of the samples, a single figure or a count. None if the program did not reach its target.
        unit: Unit of the value, the spread and the samples, such as "s/epoch".
        spread: Tenth and ninetieth percentile of the samples. None for a single sample or a count, and if unknown.
        n: Number of samples. If the value counts checks, problems or photographs, the number of all of them.
        samples: The samples in the order in which they were taken. Empty if they were not kept.
        precision: dtype and matmul precision.
        host: Processor, device, threads, instruction set (isa) and measured peak, as far as they are known.
        versions: Version of each installed library of `hardware.LIBRARIES`.
        commit: Short hash of the commit that was measured. Empty if unknown.
        date: Day of the run, YYYY-MM-DD.
        details: Further numbers and texts of this case.
    """

    case: str
    variant: str
    quantity: str
    value: float | None
    unit: str
    spread: tuple[float, float] | None = None
    n: int = 1
    samples: tuple[float, ...] = ()
    precision: str = "float32"
    host: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    commit: str = ""
    date: str = ""
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a field of a wrong type, and numbers that contradict each other."""
        _require(self.quantity in QUANTITIES, "quantity", f"one of {', '.join(QUANTITIES)}", self.quantity)
        for name in ("case", "variant", "unit", "precision"):
            text = getattr(self, name)
            _require(isinstance(text, str) and bool(text), name, "a text", text)
        for name in ("commit", "date"):
            _require(isinstance(getattr(self, name), str), name, "a text", getattr(self, name))
        for name in ("host", "versions", "details"):
            _require(isinstance(getattr(self, name), Mapping), name, "a mapping", getattr(self, name))
        _require(isinstance(self.n, int) and self.n >= 1, "n", "a whole number, at least 1", self.n)
        kind = "numbers above 0" if QUANTITIES[self.quantity].positive else "finite numbers"
        _require(all(map(self._is_valid, self.samples)), "samples", kind, self.samples)
        _require(not self.samples or len(self.samples) == self.n, "samples", f"n = {self.n} samples", len(self.samples))
        if self.value is None:
            _require(self.quantity == "evaluations", "value", f"a number for the quantity {self.quantity}", None)
            return
        _require(self._is_valid(self.value), "value", kind, self.value)
        if self.samples:
            # A file may hold rounded numbers, so the value may differ from the median in its last digits.
            median = statistics.median(self.samples)
            close = math.isclose(self.value, median, rel_tol=1e-3, abs_tol=1e-9)
            _require(close, "value", f"the median of the samples, {median:g}", self.value)
        if self.spread is not None:
            finite = all(_is_number(x) for x in self.spread)
            ordered = finite and len(self.spread) == 2 and self.spread[0] <= self.value <= self.spread[1]
            _require(ordered, "spread", f"[low, high] with low <= {self.value:g} <= high", self.spread)

    def _is_valid(self, x: object) -> bool:
        return _is_number(x) and (x > 0 or not QUANTITIES[self.quantity].positive)

    @property
    def key(self) -> Key:
        """Case, variant, quantity and precision, which together name one row of a file."""
        return self.case, self.variant, self.quantity, self.precision

    @property
    def better(self) -> str:
        """The direction of an improvement: "lower", "higher" or "neither"."""
        return QUANTITIES[self.quantity].better

    def text(self, name: str) -> str:
        """Return the text of this name in `details`; "" if `details` has no such text."""
        value: object = self.details.get(name)
        return value if isinstance(value, str) else ""

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return the number or numbers of this name in `details`; () if `details` has no such numbers."""
        value: object = self.details.get(name)
        values: Sequence[object] = value if isinstance(value, list | tuple) else (value,)
        return tuple(x for x in values if _is_number(x))

    def to_json(self) -> str:
        """Return the row as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(line: str) -> "Row":
        """Return the row of a line of JSON. Raise ValueError or TypeError if the line holds no valid row."""
        fields = json.loads(line)
        names = {field.name for field in dataclasses.fields(Row)}
        if not isinstance(fields, dict) or set(fields) != names:
            keys = ", ".join(fields) if isinstance(fields, dict) else str(fields)
            raise ValueError(f"expected an object with the fields {', '.join(sorted(names))}, got {keys[:80]}.")
        for name in ("samples", "spread"):
            optional = name == "spread" and fields[name] is None
            _require(optional or isinstance(fields[name], list), name, "a list", fields[name])
            fields[name] = None if optional else tuple(fields[name])
        return Row(**fields)


def sampled(case: str, variant: str, quantity: str, unit: str, samples: Sequence[float], **more: Any) -> Row:
    """Return the row for a series of samples, with the median and the 10th and 90th percentiles."""
    kept = tuple(significant(x) for x in samples)
    low, high = (float(q) for q in np.quantile(kept, [0.1, 0.9]))
    spread = (low, high) if len(kept) > 1 else None
    value = statistics.median(kept)
    return Row(
        case=case, variant=variant, quantity=quantity, value=value, unit=unit, spread=spread, n=len(kept),
        samples=kept, **more,
    )  # fmt: skip


def significant(x: float, digits: int = 6) -> float:
    """Round to significant digits, so that short times keep the same number of digits as long times."""
    return float(f"{x:.{digits}g}")


def _is_number(x: object) -> TypeGuard[float]:
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)


def _require(condition: bool, name: str, expected: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {str(got)[:80]}.")
