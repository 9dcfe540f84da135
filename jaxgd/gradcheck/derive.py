"""The derivatives of f at the point, by autodiff and by the claims, in float64 if they can run in it."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxgd.gradcheck.claims import Claim
from jaxgd.gradcheck.dtypes import coarsest_eps, eps_of, own_rounding
from jaxgd.gradcheck.judge import FLOOR
from jaxgd.gradcheck.lanes import Lanes
from jaxgd.gradcheck.measure import ForwardValues, ReverseValues, Values
from jaxgd.gradcheck.measure import directions as random_directions
from jaxgd.gradcheck.native import jittered, stacked
from jaxgd.gradcheck.problem import Prepared, in_float64, raised
from jaxgd.gradcheck.programs import Forward, Reverse, Shared

AUTODIFF = "autodiff"
# The index of the direction that avoids the dominant elements.
MINOR = 2
# Factors for a cotangent, far from 1. A linear rule multiplies its result by the same factor. The product is exact,
# because the factors are powers of two.
_FAR = (2.0**20, 2.0**-20)


@dataclasses.dataclass
class Derivatives:
    """The derivatives to compare with quotients.

    Attributes:
        prepared: The problem and its point.
        shared: The point in float64, the directions and the cotangents.
        lanes: The runner of batched programs.
        values: The derivatives by the claims, then by autodiff.
        reverse: Autodiff by reverse mode, or None if f has none.
        forward: Autodiff by forward mode, or None if f has none.
        not_finite: A mask of the infinite and NaN elements, by claim and leaf. These elements are 0 in `values` and in
            all directions, and are examined separately.
        absent: The pairs of claim and leaf without a usable value.
        notes: Sentences for the report on parts that were not checked.
        outputs: The values of f under reverse mode.
        with_minor: The leaves whose direction MINOR moves only elements that contribute little.
    """

    prepared: Prepared
    shared: Shared
    lanes: Lanes
    values: list[Values]
    reverse: ReverseValues | None
    forward: ForwardValues | None
    not_finite: dict[tuple[str, int], np.ndarray]
    absent: set[tuple[str, int]]
    notes: list[str]
    outputs: list[Any] = dataclasses.field(default_factory=list)
    with_minor: set[int] = dataclasses.field(default_factory=set)

    def saying(self, leaf: int) -> list[Values]:
        """Return the claims that have a value for a leaf."""
        return [values for values in self.values if (values.name, leaf) not in self.absent]

    def move_to(self, shared: Shared) -> None:
        """Replace the point and the directions."""
        self.shared = shared
        for values in (*self.values, self.reverse, self.forward):
            if values is not None:
                values.shared = shared

    @property
    def floor(self) -> float:
        """The largest relative difference between two derivatives that agree.

        A constant in f may be rounded to the user's dtype or to float32.
        """
        own = max(eps_of(x.dtype) for x in self.prepared.v)
        return max(FLOOR, 4 * min(own, eps_of("float32")))


def derive(
    prepared: Prepared, claims: Sequence[Claim], w: list[np.ndarray], lanes: Lanes, n: int, rng: np.random.Generator
) -> Derivatives:
    """Run autodiff and the claims, and draw n directions for each leaf.

    If f has no derivative and none is claimed, its exception passes through.
    """
    problem = prepared.problem
    with in_float64():
        v, traced = raised(prepared.v), raised(prepared.traced)
        drawn = [random_directions(np.asarray(x), n, rng) for x in v]
    absent = {(claim.name, i) for claim in claims for i in claim.absent}
    found = Derivatives(prepared, Shared(v, traced, drawn, w), lanes, [], None, None, {}, absent, [])
    trouble: Exception | None = None
    try:
        found.reverse = _reverse(found, AUTODIFF, Reverse(problem), rng)
    except Exception as error:
        trouble = error
        found.notes.append(f"reverse mode: {first_line(error)}")
    found.values = [_reverse(found, c.name, c.reverse, rng) for c in claims if c.reverse is not None]
    blank = [np.zeros(np.shape(x), bool) for x in v]
    for (_, i), where in found.not_finite.items():
        blank[i] |= where
    kept = [np.where(b, 0, d) if b.any() else d for b, d in zip(blank, drawn, strict=True)]
    for i, directions in enumerate(kept):
        given = next((x for x in (*found.values, found.reverse) if isinstance(x, ReverseValues)), None)
        if given is not None and n > MINOR:
            minor = among_minor_elements(np.asarray(given.cotangents[i][MINOR % len(w[0])]), directions)
            if minor is not None:
                directions[MINOR] = minor
                found.with_minor.add(i)
    found.move_to(found.shared._replace(directions=kept))
    found.values += [
        ForwardValues(c.name, c.forward, found.shared, lanes, found.floor) for c in claims if c.forward is not None
    ]
    forward = ForwardValues("forward mode", Forward(problem), found.shared, lanes, found.floor)
    try:
        with in_float64():
            forward.along_all()
        found.forward = forward
    except Exception as error:
        found.notes.append(f"forward mode: {first_line(error)}")
        if trouble is not None and not found.values:
            # f has no derivative at all, and its own exception explains that best.
            raise trouble from None
    if found.reverse is not None:
        found.values.append(found.reverse)
    elif found.forward is not None:
        found.values.append(found.forward)
    return found


def among_minor_elements(g: np.ndarray, directions: np.ndarray) -> np.ndarray | None:
    """Return a direction that moves only the minor elements; None if there are none.

    The contribution of an element to the derivative is |gᵢuᵢ|. An element is minor if its contribution is less than a
    thousandth of the largest. Each minor element moves by about its own size, reduced if its contribution exceeds the
    median contribution of the minor elements.
    """
    contribution = np.abs(g) * np.abs(directions[-1])
    minor = contribution < 1e-3 * np.max(contribution, initial=0.0)
    if not minor.any():
        return None
    seen = contribution[minor & (contribution > 0)]
    median = np.median(seen) if seen.size else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        # Powers of two keep the steps exact.
        shrink = np.where(contribution > median, 2.0 ** np.floor(np.log2(median / contribution)), 1.0)
    return np.asarray(np.where(minor, directions[1] * shrink, 0))


def _reverse(found: Derivatives, name: str, fn: Callable[..., Any], rng: np.random.Generator) -> ReverseValues:
    """Return the values of one derivative in float64, or in the user's dtype if it cannot run in float64."""
    try:
        with in_float64():
            return _reverse_at(found, name, fn, found.shared.v, found.shared.traced, rng)
    except Exception:
        with jax.default_matmul_precision("highest"):
            values = _reverse_at(found, name, fn, found.prepared.v, found.prepared.traced, rng)
    found.notes.append(f"{name} in float64: it cannot run there, so its values are {found.prepared.leaves[0].dtype}")
    return values


def _reverse_at(
    found: Derivatives, name: str, fn: Callable[..., Any], v: list[Any], traced: list[Any], rng: np.random.Generator
) -> ReverseValues:
    w = found.shared.cotangents
    n = len(w[0])
    points = jittered(v, rng)
    # The lanes are every cotangent at the point, the first cotangent at two points moved by one rounding, and large and
    # small multiples of the first cotangent at the point.
    far = [np.stack([x[0] * c for c in _FAR]) for x in w]
    ws = [np.concatenate([x, x[:1], x[:1], scaled]) for x, scaled in zip(w, far, strict=True)]
    lanes = stacked([points[0]] * n + points[1:] + [points[0]] * len(_FAR)), ws
    outputs, stack = found.lanes(fn, traced, lanes)
    if name == AUTODIFF:
        found.outputs = [y[0] for y in outputs]
    one = [x[0] for x in w]

    def at_one(v: list[Any]) -> Any:
        return fn(traced, (v, one))[1]

    eps = max(coarsest_eps(at_one, v), *(eps_of(g.dtype) for g in stack))
    rounding = own_rounding(at_one, lambda v: found.prepared.problem(v, traced), v)
    if rounding is None:
        # The constants of fn are unknown. Assume that they have the user's dtype, or float32 if that is finer.
        rounding = min(max(eps_of(x.dtype) for x in found.prepared.v), eps_of("float32"))
    eps = max(eps, rounding)
    values = ReverseValues(name, [], found.shared, max(found.floor, 100 * eps), [], [], eps)
    for i, g in enumerate(stack):
        g = g.astype(complex if np.iscomplexobj(g) else float)
        bad = ~np.isfinite(g[: n + 2]).all(axis=0)
        if bad.any():
            found.not_finite[name, i] = np.asarray(bad)
            g = np.where(bad, 0, g)
        moved = np.maximum(np.abs(g[n] - g[0]), np.abs(g[n + 1] - g[0]))
        values.cotangents.append(g[:n])
        values.moved.append(moved)
        values.noise.append(norm(moved) + 10 * eps * norm(g[0]))
        off = [norm(g[n + 2 + k] / c - g[0]) for k, c in enumerate(_FAR)]
        # Linearity is tested only if the scaled results stay in the range of the dtype.
        ranged = 1e-30 < norm(g[0]) < 1e30 and np.isfinite(g).all()
        values.linear.append(bool(not ranged or max(off) <= max(1e-6, 1e3 * eps) * norm(g[0]) + values.noise[-1]))
    return values


def first_line(error: Exception) -> str:
    """Return an exception as one line of at most 160 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]


def norm(x: Any) -> float:
    """Return the Euclidean length of x, with squares kept in range; infinite if x is not finite."""
    size = np.abs(x)
    largest = float(np.max(size, initial=0.0))
    if not 0 < largest < math.inf:
        return 0.0 if largest == 0 else math.inf
    return largest * float(np.sqrt(np.sum((size / largest) ** 2)))


def rms(x: Sequence[float]) -> float:
    """Return the root mean square of the finite numbers; 0 if none is finite."""
    values = np.array([y for y in x if math.isfinite(y)])
    return norm(values) / math.sqrt(len(values)) if len(values) else 0.0
