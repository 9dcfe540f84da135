"""Find out how the tensor core's adder rounds. Different adders round the test sums differently.

An adder aligns its addends to the largest one, and keeps some bits below that addend's last float32 bit. It adds the
aligned addends exactly, and rounds the sum to float32. A model states these properties of an adder. A model is right if
it predicts every result of the device.
"""

import itertools
from collections.abc import Iterator, Sequence
from math import frexp, ldexp
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.device.context import Context, TaskError

SOURCE = Path(__file__).with_name("adder.cu")
# Bits of a float32's significand, with the leading one.
BITS = 24
# Fractional bits of the fixed-point numbers in a model.
POINT = 80
# Numbers of bits that an adder may keep below float32's last bit. None stands for all bits.
EXTRA = (0, 1, 2, 3, 4, 5, 6, 7, 8, None)
ROUNDINGS = ("toward zero", "to nearest", "down")


class Sum(NamedTuple):
    """A test: c + Σ aₖ bₖ, with eight products.

    Attributes:
        c: The accumulator.
        products: The eight products, each exact in float32.
    """

    c: float
    products: tuple[float, ...]


class Model(NamedTuple):
    """The properties of an adder.

    Attributes:
        extra: Number of bits kept below the largest addend's last float32 bit. None keeps all bits.
        aligning: The rounding of an addend to these bits.
        rounding: The rounding of the sum to float32.
        group: Number of products that are added in one step: 1, 4 or 8. A step of one product that keeps all bits is a
            fused multiply-add.
    """

    extra: int | None
    aligning: str
    rounding: str
    group: int

    def __str__(self) -> str:
        kept = "all bits" if self.extra is None else f"{self.extra} extra bits"
        aligned = "" if self.extra is None else f", rounds addends {self.aligning}"
        return f"rounds sums {self.rounding}, keeps {kept}{aligned}, adds {self.group} products at once"

    def add(self, test: Sum) -> float:
        """Return the sum as this adder computes it."""
        total, *products = (fixed(x) for x in (test.c, *test.products))
        for start in range(0, len(products), self.group):
            total = self._once([total, *products[start : start + self.group]])
        return ldexp(total, -POINT)

    def _once(self, addends: Sequence[int]) -> int:
        if self.extra is not None:
            kept = max(abs(x) for x in addends).bit_length() - BITS - self.extra
            addends = [rounded(x, kept, self.aligning) for x in addends]
        total = sum(addends)
        return rounded(total, total.bit_length() - BITS, self.rounding)


def fixed(x: float) -> int:
    """Return x as a fixed-point number, which is exact for the sums of the tests."""
    numerator, denominator = x.as_integer_ratio()
    return numerator * ((1 << POINT) // denominator)


def rounded(x: int, bits: int, rounding: str) -> int:
    """Round x to a multiple of 2**bits."""
    if bits <= 0:
        return x
    low, rest = divmod(x, 1 << bits)
    if rounding == "to nearest":
        half = 1 << (bits - 1)
        low += rest > half or (rest == half and low % 2 == 1)  # ties to even
    elif rounding == "toward zero":
        low += x < 0 and rest > 0
    return low << bits


# Float32's own rounding of the exact sum.
EXACT = Model(None, "toward zero", "to nearest", 8)


def models() -> Iterator[Model]:
    """Yield every combination of the properties. `aligning` has no effect if all bits are kept."""
    for extra, rounding, group in itertools.product(EXTRA, ROUNDINGS, (1, 4, 8)):
        for aligning in ROUNDINGS if extra is not None else ROUNDINGS[:1]:
            yield Model(extra, aligning, rounding, group)


def tests() -> list[Sum]:
    """Return the sums that different adders round differently."""
    sums = []
    for sign in (1.0, -1.0):
        # One product of either sign, of up to 1.5 times the last bit of c.
        sums += [_sum(sign, sign * part * 2.0**-23) for part in (0.25, 0.5, 0.75, 1.25, 1.5, -0.25, -0.5, -0.75)]
        # Several small products of equal size: a wide adder sums them before it rounds.
        sums += [_sum(sign, *[sign * 2.0**-e] * k) for e in (24, 25, 26, 27, 28) for k in (2, 3, 4, 5, 8)]
        # A small product next to two large addends that cancel: the sum shows the bits that the alignment keeps.
        sums += [_sum(0.0, sign, sign * 2.0**-e, -sign) for e in range(22, 34)]
        sums += [_sum(sign, sign * 1.5 * 2.0**-e, -sign) for e in range(22, 34)]
        sums += [_sum(0.0, sign, -sign * 1.75 * 2.0**-e, -sign) for e in range(22, 34)]
        # Sums that reach the next power of two, so that even an adder without extra bits must round.
        sums += [_sum(sign * (1 + odd * 2.0**-23), *[sign] * k) for odd in (1, 3, 5, 7) for k in (1, 2, 3, 6, 7)]
        # Products that cancel across two groups of four: they show how many products are added in one step.
        sums += [Sum(0.0, (sign, 0, 0, 0, sign * 2.0**-e, 0, 0, -sign)) for e in range(22, 34)]
        sums += [Sum(0.0, (sign, sign * 2.0**-e, 0, 0, -sign, 0, 0, 0)) for e in range(22, 34)]
    return sums


def _sum(c: float, *products: float) -> Sum:
    return Sum(c, (*products, *[0.0] * (8 - len(products))))


def consistent(results: Sequence[float]) -> list[Model]:
    """Return the models that predict every result of the tests."""
    return [m for m in models() if all(m.add(t) == r for t, r in zip(tests(), results, strict=True))]


def described(right: Sequence[Model], results: Sequence[float]) -> str:
    """Describe up to three right models and count the rest. If no model is right, describe the best one."""
    if not right:
        differing = {m: sum(m.add(t) != r for t, r in zip(tests(), results, strict=True)) for m in models()}
        best = min(differing, key=lambda m: differing[m])
        return f"no model predicts all {len(results)} sums; the best fails for {differing[best]}: {best}"
    return " or ".join(str(m) for m in right[:3]) + (f" or {len(right) - 3} more" if len(right) > 3 else "")


def run(context: Context) -> None:
    """Compute the sums on the device, and store the models that predict them."""
    # A CPU has no tensor core, so a rehearsal takes its results from a model.
    adder = Model(2, "toward zero", "toward zero", 8)
    results = [adder.add(t) for t in tests()] if context.rehearse else _on_device()
    right = consistent(results)
    text = described(right, results)
    exact = [EXACT.add(t) for t in tests()]
    wrong = sum(r != e for r, e in zip(results, exact, strict=True))
    context.note(f"adder of the tensor core: {text}")
    details = {"rounding": text, "results": [float(r).hex() for r in results], "sums": len(results)}
    context.count("", "tensor core", "counter", "sums not rounded to nearest", wrong, precision="TF32", details=details)
    if not right:
        raise TaskError(text)


def _on_device() -> list[float]:
    from benchmarks.device.launcher import compiled
    from jaxgd.kernels.cuda import driver

    count = len(tests())
    factors = [_factors(t.products) for t in tests()]
    a, b = (np.array([f[side] for f in factors], np.float32) for side in (0, 1))
    c = np.array([t.c for t in tests()], np.float32)
    with driver.Context() as device:
        kernel = device.load(compiled(SOURCE, device.device.capability), 0, "adder")
        out = device.empty(4 * count)
        out.fill(0xFF)
        device.launch(kernel, count, 32, 0, device.put(a), device.put(b), device.put(c), out)
        device.synchronize()
        actual: NDArray[Any] = out.read((count,), np.float32)
    return [float(x) for x in actual]


def _factors(products: Sequence[float]) -> tuple[list[float], list[float]]:
    """Split each product into two factors that are exact in TF32: its significand and a power of two."""
    pairs = [frexp(p) for p in products]
    return [m for m, _ in pairs], [ldexp(1.0, e) if m else 0.0 for m, e in pairs]
