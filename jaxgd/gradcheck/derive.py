"""The derivatives of f at the point, by autodiff and by the claims, projected on random directions."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from jaxgd.gradcheck import constants, core
from jaxgd.gradcheck.claims import Claim
from jaxgd.gradcheck.draws import directions, evenly, jittered, norm, rms, stacked
from jaxgd.gradcheck.problem import Numbers, Prepared, evaluation, upcast
from jaxgd.gradcheck.programs import Forward, LeavesAndCotangents, Point, Reverse, Shared
from jaxgd.gradcheck.run import Objective, Runner, Traits, eps_of, traits
from jaxgd.mesh.processes import on_host

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Gradients = Objective[list[Array], LeavesAndCotangents, tuple[Sequence[Numbers], Sequence[Numbers]]]

AUTODIFF = "autodiff"
# Factors of a cotangent. A linear rule multiplies its result by the same factor. Powers of two keep the product exact.
_FAR = (2.0**20, -(2.0**-20))
# A deviation from linearity counts only above _LINEAR times the result of the rule, and above _ROUNDINGS roundings.
_LINEAR, _ROUNDINGS = 1e-6, 1e3
# A rule that iterates counts as approximate if it deviates from linearity by at most this fraction of its result.
_APPROXIMATE = 1e-3
# The noise of a claim includes 10 eps of its size, but at most _OWN_ROUNDING. Relative differences up to 100 eps, but
# at most _OWN_FLOOR, do not count. Without the two limits, a doubled gradient in bfloat16 would not be wrong.
_OWN_ROUNDING, _OWN_FLOOR = 0.005, 0.1
# A gradient element below this fraction of the largest one may be pure rounding.
_NOTHING = 1e-14
# The index of the direction that moves only elements that contribute little to the slope, if a leaf has such elements.
EVEN = 2


@dataclasses.dataclass
class Derivative:
    """A derivative, claimed or by autodiff: its gradient, and its projections on the directions.

    Attributes:
        name: "gradient", "vjp", "jvp", "autodiff" or "forward mode".
        floor: Relative differences up to this value do not count.
        along: ⟨Jᵀw, u⟩ or ⟨w, Ju⟩, (leaves, directions).
        size: √Σ(gᵢuᵢ)² with g = Jᵀw, the expected size of `along`. By chance, ⟨g, u⟩ may be far smaller. In forward
            mode, the size is at least |along|, and g comes from reverse mode. If reverse mode failed, the root mean
            square of `along` replaces √Σ(gᵢuᵢ)².
        noise: The change of `along` when the point moves by one rounding, plus the rounding of the claim and the error
            of an approximate rule. In forward mode, the noise is not measured and is 0.
        gradients: Jᵀw for each leaf, stacked over the cotangents; empty in forward mode.
        moved: For each leaf, the change of each element of Jᵀw when the point moves by one rounding, with the first w.
            It is at least the error of an approximate rule. Empty in forward mode.
        linear: For each leaf, four numbers: ‖Jᵀ(cw)/c − Jᵀw‖ for c far from 1, or 0 if it was not tested; the noise
            of Jᵀw; ‖Jᵀw‖; and the largest relative difference that does not count. Empty in forward mode.
        iterates: True if the computation of Jᵀw iterates until a condition holds. Always False in forward mode.
        approximate: The leaves where the error of Jᵀw does not grow with w. A rule that iterates to an absolute
            tolerance has such an error.
        program: The program of ⟨w, Ju⟩; None in reverse mode.
    """

    name: str
    floor: float
    along: Floats
    size: Floats
    noise: Floats
    gradients: list[NDArray[Any]] = dataclasses.field(default_factory=list)
    moved: list[Floats] = dataclasses.field(default_factory=list)
    linear: list[tuple[float, float, float, float]] = dataclasses.field(default_factory=list)
    iterates: bool = False
    approximate: set[int] = dataclasses.field(default_factory=set)
    program: Objective[Shared, Point, Numbers] | None = None

    def claim(self, leaf: int, n: int) -> core.Claim:
        """Return the claimed slopes along the first n directions in a leaf."""
        return core.Claim(self.along[leaf, :n], self.noise[leaf, :n], self.size[leaf, :n], self.floor)


@dataclasses.dataclass
class Derivatives:
    """All derivatives at the point.

    Attributes:
        prepared: The problem and its point.
        shared: The point, the fixed arrays, the directions and the cotangents, in float64 or complex128.
        runner: The runner of batches.
        claims: The derivatives to compare with quotients. The claims come first, then autodiff.
        reverse: Autodiff by reverse mode; None if it failed.
        forward: Autodiff by forward mode; None if it failed.
        notes: Sentences on parts that were not checked.
        outputs: The values of f(x) that reverse mode returns.
        nondeterminism: The relative difference allowed between two runs of one derivative.
        even: The leaves whose direction EVEN moves only elements that contribute little to the slope.
    """

    prepared: Prepared
    shared: Shared
    runner: Runner
    claims: list[Derivative] = dataclasses.field(default_factory=list)
    reverse: Derivative | None = None
    forward: Derivative | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    outputs: list[NDArray[Any]] = dataclasses.field(default_factory=list)
    nondeterminism: float = 0.0
    even: set[int] = dataclasses.field(default_factory=set)

    @property
    def floor(self) -> float:
        """The largest relative difference at which two derivatives count as equal.

        For arguments in float32 or a narrower dtype, it allows for constants of f that are rounded to float32.
        """
        own = max(eps_of(x.dtype) for x in self.prepared.v)
        return max(constants.FLOOR, 4 * min(own, constants.EPS32), self.nondeterminism)


@np.errstate(all="ignore")
def derive(
    prepared: Prepared,
    claims: Sequence[Claim],
    w: list[NDArray[Any]],
    runner: Runner,
    n: int,
    rng: np.random.Generator,
    nondeterminism: float = 0.0,
) -> Derivatives:
    """Run autodiff and the claims, and draw n random directions for each leaf.

    The exception of a claim passes through. If autodiff fails in both modes and no claim can run, raise the exception
    of reverse mode.
    """
    with evaluation(float64=True):
        v, traced = upcast(prepared.v), upcast(prepared.traced)
        drawn = [directions(on_host(x), n, rng) for x in v]
    d = Derivatives(prepared, Shared(v, traced, drawn, w), runner, nondeterminism=nondeterminism)
    programs = {claim.name: claim.reverse for claim in claims if claim.reverse is not None}
    fn: Gradients
    stacks, reverse_error = {}, None
    for name, fn in (programs | {AUTODIFF: Reverse(prepared.problem)}).items():
        try:
            stacks[name] = _gradients(d, name, fn, rng)
        except Exception as error:
            if name in programs:
                raise
            reverse_error = error
            d.notes.append(f"reverse mode: {first_line(error)}")
    if stacks and n > EVEN:
        first, _ = next(iter(stacks.values()))
        for i, (u, g) in enumerate(zip(drawn, first, strict=True)):
            if (even := evenly(on_host(g[EVEN % len(w[0])]), u)) is not None:
                u[EVEN] = even
                d.even.add(i)
    derivatives = {name: _reverse(d, name, *stack) for name, stack in stacks.items()}
    d.reverse = derivatives.pop(AUTODIFF, None)
    d.claims = list(derivatives.values())
    d.claims += [_forward(d, claim.name, claim.forward) for claim in claims if claim.forward is not None]
    try:
        d.forward = _forward(d, "forward mode", Forward(prepared.problem))
    except Exception as error:
        d.notes.append(f"forward mode: {first_line(error)}")
        if reverse_error is not None and not d.claims:
            # Reverse mode explains best why JAX cannot differentiate f.
            raise reverse_error from None
    d.claims += [x for x in (d.reverse or d.forward,) if x is not None]
    return d


def _gradients(d: Derivatives, name: str, fn: Gradients, rng: np.random.Generator) -> tuple[list[NDArray[Any]], Traits]:
    """Return Jᵀw for each leaf, and the traits of its computation.

    The batch holds every cotangent at the point, the first cotangent at two points moved by one rounding, and multiples
    of the first cotangent. It runs in float64 if possible, otherwise in the user's dtype.
    """
    w = d.shared.cotangents
    ws = [np.concatenate([x, x[:1], x[:1], *(x[:1] * c for c in _FAR)]) for x in w]
    one = [x[0] for x in w]

    def run(v: list[Array], traced: list[Array]) -> tuple[list[NDArray[Any]], Traits]:
        points = jittered(v, rng)
        batch = stacked([points[0]] * len(w[0]) + points[1:] + [points[0]] * len(_FAR)), ws
        outputs, stack = d.runner(fn, traced, batch)
        if name == AUTODIFF:
            d.outputs = [np.asarray(y[0]) for y in outputs]
        traits_of_fn = traits(lambda vw: fn(traced, (vw[: len(v)], vw[len(v) :]))[1], [*v, *one])
        eps = max(traits_of_fn.eps, *(eps_of(g.dtype) for g in stack))
        wide = [np.asarray(g).astype(complex if np.iscomplexobj(g) else float) for g in stack]
        return wide, traits_of_fn._replace(eps=eps)

    try:
        with evaluation(float64=True):
            return run(d.shared.v, d.shared.traced)
    except Exception:
        with evaluation(float64=False):
            result = run(d.prepared.v, d.prepared.traced)
    d.notes.append(f"{name} in float64: it fails, so the check ran it in {d.prepared.leaves[0].dtype}")
    return result


def _reverse(d: Derivatives, name: str, stack: list[NDArray[Any]], traits_of: Traits) -> Derivative:
    n, count = len(d.shared.cotangents[0]), len(d.shared.directions[0]) - 1
    shape = len(stack), count
    eps = traits_of.eps
    own = min(10 * eps, _OWN_ROUNDING)
    derivative = Derivative(name, max(d.floor, rounding_of(eps)), *np.zeros((3, *shape)))
    derivative.iterates = traits_of.iterates
    for i, (g, u) in enumerate(zip(stack, d.shared.directions, strict=True)):
        moved: Floats = np.maximum(np.abs(g[n] - g[0]), np.abs(g[n + 1] - g[0]))
        finite: Floats = np.nan_to_num(np.abs(g[:n]), posinf=0)
        # The tolerance already allows for nondeterminism, so subtract it from the noise.
        moved = np.maximum(moved - d.nondeterminism * finite[0], 0) if d.nondeterminism else moved
        # By chance, an element may hardly change at the moved points. Assume at least the median relative change.
        nonzero = (finite[0] > _NOTHING * np.max(finite[0], initial=0.0)) & np.isfinite(moved)
        usual = float(np.median(moved[nonzero] / finite[0][nonzero])) if np.any(nonzero) else 0.0
        for k in range(count):
            derivative.along[i, k] = np.sum(np.real(g[k % n] * u[k]))
            derivative.size[i, k] = norm(finite[k % n] * u[k])
            spread = np.maximum(np.nan_to_num(moved), usual * finite[k % n])
            # In a dtype of few digits, all elements may have the rounding of the largest one.
            few = k == EVEN and eps > constants.NARROW
            rounded = np.max(finite[k % n], initial=0.0) * norm(u[k]) if few else derivative.size[i, k]
            derivative.noise[i, k] = 2 * norm(spread * u[k]) + own * rounded
        derivative.gradients.append(g[:n])
        derivative.moved.append(moved)
        size, (large, small) = norm(g[0]), (np.abs(x / c - g[0]) for x, c in zip(g[n + 2 :], _FAR, strict=True))
        off, rest = norm(large), norm(small)
        if traits_of.iterates and 0 < off <= _APPROXIMATE * size:
            # A rule that iterates to an absolute tolerance is nearly exact for the large cotangent cw. So
            # Jᵀ(cw)/c − Jᵀw is the error of the rule for w.
            derivative.approximate.add(i)
            derivative.noise[i] += [np.max(large) * norm(x) for x in u[:-1]]
            derivative.moved[i] = np.maximum(moved, np.max(large))
            off, rest = 0.0, max(0.0, rest - 10 * off * _FAR[0])
        # Linearity is tested only if the scaled results stay in the range of the dtype.
        in_range = 1e-30 < size < 1e30 and np.isfinite(g).all() and not traits_of.float16
        off = max(off, rest) if in_range else 0.0
        derivative.linear.append((off, norm(moved) + own * size, size, max(_LINEAR, _ROUNDINGS * eps)))
    return derivative


def rounding_of(eps: float) -> float:
    """Return the relative difference that rounding with this eps may cause between two derivatives."""
    return min(100 * eps, _OWN_FLOOR)


def _forward(d: Derivatives, name: str, program: Objective[Shared, Point, Numbers]) -> Derivative:
    leaves, n = len(d.shared.v), len(d.shared.directions[0]) - 1
    leaf, direction = (x.reshape(-1) for x in np.indices((leaves, n)))
    sizes = np.array([np.size(x) for x in d.shared.v])
    batch = points(d.shared, leaf, direction, 0, sizes[leaf], 0.0)
    floor = d.floor
    try:
        with evaluation(float64=True):
            along = d.runner(program, d.shared, batch)
    except Exception:
        with evaluation(float64=False):
            along = d.runner(program, narrowed(d), batch)
        floor = max(floor, 100 * max(eps_of(x.dtype) for x in d.prepared.v))
    along = np.asarray(along, float).reshape(leaves, n)
    # Reverse mode gives the size of the terms of each slope. Without it, assume the root mean square of the slopes.
    known = d.reverse.size if d.reverse is not None else np.array([[rms(row)] for row in along])
    size = np.maximum(np.nan_to_num(np.abs(along), posinf=0), known)
    return Derivative(name, floor, along, size, np.zeros_like(along), program=program)


def narrowed(d: Derivatives) -> Shared:
    """Return the shared data with the point, the fixed arrays and the directions in the user's dtypes."""
    kept = [u.astype(x.dtype) for u, x in zip(d.shared.directions, d.prepared.v, strict=True)]
    return d.shared._replace(v=d.prepared.v, traced=d.prepared.traced, directions=kept)


def points(
    shared: Shared,
    leaf: ArrayLike,
    direction: ArrayLike,
    start: ArrayLike,
    stop: ArrayLike,
    t: ArrayLike,
    phase: float | complex = 1.0,
) -> Point:
    """Return a batch of points. Direction k uses cotangent k modulo their number, but the last one uses cotangent 0."""
    n, last = len(shared.cotangents[0]), len(shared.directions[0]) - 1
    index: Ints = np.asarray(direction)
    cotangent = np.where(index < last, index % n, 0)
    fields = np.broadcast_arrays(leaf, index, cotangent, start, stop, t, np.asarray(phase, complex))
    return Point(*(np.ascontiguousarray(x).reshape(-1) for x in fields))


def first_line(error: Exception) -> str:
    """Return the type of an exception and the first line of its message, cut to 160 characters."""
    lines = str(error).strip().splitlines()
    if lines and lines[0].endswith("Traceback (most recent call last):"):
        # The message is the traceback of a callback. Its last line names the exception.
        lines.reverse()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]
