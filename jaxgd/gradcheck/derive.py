"""All derivatives of f at the point: by autodiff and as claimed, in float64 where they run there."""

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
# Which of the directions avoids the elements that hide all the others.
MINOR = 2
# Factors of a cotangent far from 1, by which a rule that is linear just multiplies: as powers of two, to the bit.
_FAR = (2.0**20, 2.0**-20)


@dataclasses.dataclass
class Derivatives:
    """What there is to be held against quotients, and what autodiff says of it.

    `values` are the claims, then autodiff. `not_finite` tells by claim and leaf which elements are infinite or NaN:
    they are 0 in `values` and in all directions, and looked into on their own. `absent` are the leaves that a claim
    says nothing about. `outputs` are the values of f that reverse mode found on its way. In the leaves `with_minor`,
    the direction MINOR is one among minor elements.
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
        """The claims that say something of a leaf."""
        return [values for values in self.values if (values.name, leaf) not in self.absent]

    def move_to(self, shared: Shared) -> None:
        """Use another point or other directions from now on."""
        self.shared = shared
        for values in (*self.values, self.reverse, self.forward):
            if values is not None:
                values.shared = shared

    @property
    def floor(self) -> float:
        """What counts as no difference: for who works in float32, a constant rounded to that is as right as can be."""
        own = max(eps_of(x.dtype) for x in self.prepared.v)
        return max(FLOOR, 4 * min(own, eps_of("float32")))


def derive(
    prepared: Prepared, claims: Sequence[Claim], w: list[np.ndarray], lanes: Lanes, n: int, rng: np.random.Generator
) -> Derivatives:
    """Run autodiff and the claims, and draw the n directions that are tried in each leaf.

    Raises: what the user's code raises, if f has no derivative and none is claimed.
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
            # f has no derivative at all: what the user's own code raised says it best.
            raise trouble from None
    if found.reverse is not None:
        found.values.append(found.reverse)
    elif found.forward is not None:
        found.values.append(found.forward)
    return found


def among_minor_elements(g: np.ndarray, directions: np.ndarray) -> np.ndarray | None:
    """A direction in which only elements move that contribute less than a thousandth of the largest; None if none do.

    Moved by their own sizes, unless they contribute more than the median of them.
    """
    contribution = np.abs(g) * np.abs(directions[-1])
    minor = contribution < 1e-3 * np.max(contribution, initial=0.0)
    if not minor.any():
        return None
    seen = contribution[minor & (contribution > 0)]
    median = np.median(seen) if seen.size else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        # As powers of two, so that steps stay exact.
        shrink = np.where(contribution > median, 2.0 ** np.floor(np.log2(median / contribution)), 1.0)
    return np.asarray(np.where(minor, directions[1] * shrink, 0))


def _reverse(found: Derivatives, name: str, fn: Callable[..., Any], rng: np.random.Generator) -> ReverseValues:
    """A derivative's values in float64; where it cannot run in float64, in the user's dtype."""
    try:
        with in_float64():
            return _reverse_at(found, name, fn, found.shared.v, found.shared.traced, rng)
    except Exception:
        with jax.default_matmul_precision("highest"):
            values = _reverse_at(found, name, fn, found.prepared.v, found.prepared.traced, rng)
    found.notes.append(f"{name} in float64: it cannot run there, its values are {found.prepared.leaves[0].dtype}")
    return values


def _reverse_at(
    found: Derivatives, name: str, fn: Callable[..., Any], v: list[Any], traced: list[Any], rng: np.random.Generator
) -> ReverseValues:
    w = found.shared.cotangents
    n = len(w[0])
    points = jittered(v, rng)
    # For every cotangent at the point; for the first at two points that are it to within a rounding; for large and
    # small multiples of the first.
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
        # As constants would be that were made for the user's own arguments, or for no dtype in particular.
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
        # Beyond rounding, and where neither end leaves the range of the dtype.
        ranged = 1e-30 < norm(g[0]) < 1e30 and np.isfinite(g).all()
        values.linear.append(bool(not ranged or max(off) <= max(1e-6, 1e3 * eps) * norm(g[0]) + values.noise[-1]))
    return values


def first_line(error: Exception) -> str:
    """An exception in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]


def norm(x: Any) -> float:
    """Euclidean length, with squares kept in range; infinite if x is not finite."""
    size = np.abs(x)
    largest = float(np.max(size, initial=0.0))
    if not 0 < largest < math.inf:
        return 0.0 if largest == 0 else math.inf
    return largest * float(np.sqrt(np.sum((size / largest) ** 2)))


def rms(x: Sequence[float]) -> float:
    """Root mean square of what is finite; 0 for nothing."""
    values = np.array([y for y in x if math.isfinite(y)])
    return norm(values) / math.sqrt(len(values)) if len(values) else 0.0
