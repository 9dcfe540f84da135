"""Check f in the dtype of its arguments.

All runs must return the same values, and the gradient must be close to the gradient in float64.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxgd.gradcheck import constants
from jaxgd.gradcheck.claims import Claim
from jaxgd.gradcheck.derive import AUTODIFF, Derivative, Derivatives
from jaxgd.gradcheck.draws import jittered, norm, scale_of, stacked
from jaxgd.gradcheck.problem import Numbers, Prepared, evaluation
from jaxgd.gradcheck.programs import Outputs, Reverse
from jaxgd.gradcheck.report import Check, Consistency
from jaxgd.gradcheck.run import Runner, eps_of, single
from jaxgd.gradcheck.sample import Floats, Sampler
from jaxgd.gradcheck.verdicts import Cause, Verdict
from jaxgd.mesh.processes import on_host
from jaxgd.typed import finfo

# Two runs of f may differ by NOISES times its noise, plus the smaller of _ROUNDINGS roundings and the fraction _MOST of
# f. Without _MOST, a difference as large as f would be allowed in bfloat16.
_ROUNDINGS, _MOST = 1e3, 0.5
# In the user's dtype, rounding alone can cause a large error, and no test can tell it from a wrong rule. So an error
# of autodiff counts only under all of three conditions. The relative error exceeds _GROSS, or _GROSS_IN_FEW_DIGITS in
# dtypes with fewer digits than float32. The error exceeds a hundred times the noise. The gradient far exceeds the
# rounding in f and the smallest normal number of the dtype.
_GROSS, _GROSS_IN_FEW_DIGITS, _FEW_DIGITS = 0.05, 0.5, 1e-5
# A claim may always have an error of up to this multiple of autodiff's error in the same dtype.
_TIMES = 30.0


@dataclasses.dataclass
class UsersDtype:
    """f and its gradient in the dtype of the arguments.

    Attributes:
        outputs: The values of f.
        gradient: The gradient by autodiff, or None if JAX cannot trace or differentiate f.
        noise: For each leaf, the largest change of a gradient element when the point moves by one rounding.
        consistency: The comparisons between runs of f, and between runs of its gradient.
        value_noise: The largest relative change of an output of f when the point moves by one rounding.
    """

    outputs: Sequence[Numbers]
    gradient: Sequence[Numbers] | None
    noise: list[float]
    consistency: list[Consistency]
    value_noise: float = 0.0

    @property
    def vmap_differs(self) -> bool:
        """True if f or its gradient differs under vmap."""
        return any(c.verdict is not Verdict.RIGHT for c in self.consistency if "vmap" in c.name)

    @property
    def one_function(self) -> bool:
        """True if all comparisons without vmap agree."""
        return all(c.verdict is Verdict.RIGHT for c in self.consistency if "vmap" not in c.name)


def run_in_users_dtype(
    prepared: Prepared,
    first: list[Array],
    w: list[Array],
    eps: float,
    rng: np.random.Generator,
    nondeterminism: float,
    rtol: float,
) -> UsersDtype:
    """Compare runs of f: eager, a second eager run, jit, vmap, and the value of f under `jax.vjp`.

    Also compare runs of its gradient: jit, a second run, and vmap.

    `first` is the result of an eager run, `w` is a cotangent, and `eps` is the coarsest rounding in f. Two gradients
    may differ by `nondeterminism`. The value under `jax.vjp` may differ from f by `rtol`.
    """
    problem, v, traced = prepared.problem, prepared.v, prepared.traced
    lines: list[Consistency] = []

    def compare(
        name: str, cause: Cause, a: Sequence[Numbers], b: Sequence[Numbers], noise: Floats, allowed: float = 0.0
    ) -> None:
        distance = _distance(b, a)
        limit = max(min(_ROUNDINGS * eps, _MOST), allowed) + constants.NOISES * noise
        agrees = bool(np.all(distance <= limit))
        verdict = Verdict.RIGHT if agrees else Verdict.CANNOT_TELL
        if cause is Cause.OTHER_VALUE and not agrees and all(c.verdict is Verdict.RIGHT for c in lines):
            verdict = Verdict.WRONG
        lines.append(
            Consistency(name, verdict, Cause.AGREES if agrees else cause, float(np.max(distance, initial=0.0)))
        )

    second = problem(v, traced)
    compare("second run", Cause.NOT_DETERMINISTIC, first, second, np.zeros(len(first)))
    fn: Reverse | Outputs = Reverse(problem)
    try:
        out, gradient = single(fn, traced, (v, w))
    except Exception:
        fn = Outputs(problem)
        try:
            out, gradient = single(fn, traced, (v, w))
        except Exception:
            # JAX cannot trace f, so it runs eagerly only.
            return UsersDtype(first, None, [], lines)
    runner = Runner()
    ws = [np.broadcast_to(on_host(x), (3, *np.shape(x))) for x in w]
    outs, gradients = runner(fn, traced, (stacked(jittered(v, rng)), ws))
    noise = _spread(outs)
    plain = out
    if gradient:
        plain = single(Outputs(problem), traced, (v, w))[0]
    compare("eager = jit", Cause.NOT_ONE_FUNCTION, first, plain, noise)
    if gradient:
        compare("f = its value under jax.vjp", Cause.OTHER_VALUE, plain, out, noise, rtol)
    vmapped = runner.modes[fn] == "vmap"
    if vmapped:
        compare("jit = vmap", Cause.NOT_ONE_FUNCTION, out, _element(outs, 0), noise)
    if not gradient:
        return UsersDtype(out, None, [], lines, float(np.max(noise, initial=0.0)))
    again, spread = single(fn, traced, (v, w))[1], _spread(gradients)
    still = np.zeros(len(gradient))
    compare("autodiff's second run", Cause.NOT_DETERMINISTIC, gradient, again, still, nondeterminism)
    if vmapped:
        one = _element(gradients, 0)
        compare("autodiff's jit = vmap", Cause.NOT_ONE_FUNCTION, gradient, one, spread, nondeterminism)
    sizes = [float(np.max(np.nan_to_num(np.abs(_wide(g)), posinf=0), initial=0.0)) for g in gradient]
    moved = [float(a * size) if np.isfinite(a) else math.inf for a, size in zip(spread, sizes, strict=True)]
    return UsersDtype(out, gradient, moved, lines, float(np.max(noise, initial=0.0)))


def _spread(stacks: Sequence[Numbers]) -> Floats:
    """Return, for each leaf, the largest relative change from point 0 of the batch to point 1 or 2."""
    return np.asarray(np.max([_distance(_element(stacks, i), _element(stacks, 0)) for i in (1, 2)], axis=0))


def _element(stacks: Sequence[Numbers], i: int) -> list[Numbers]:
    return [np.asarray(x[i]) for x in stacks]


def _distance(a: Sequence[Numbers], b: Sequence[Numbers]) -> Floats:
    """Return ‖a − b‖/‖b‖ for each leaf, in the maximum norm over the finite elements.

    Return ‖a − b‖ if ‖b‖ is 0, and infinity if an element is finite in only one of a and b.
    """
    out: list[float] = []
    for x, y in zip(map(_wide, a), map(_wide, b), strict=True):
        finite = np.isfinite(y)
        largest = float(np.max(np.abs(y[finite]), initial=0.0))
        off = float(np.max(np.abs(x[finite] - y[finite]), initial=0.0))
        out.append((off / largest if largest else off) if np.array_equal(np.isfinite(x), finite) else math.inf)
    return np.array(out)


# The gradient in the dtype of the arguments, compared with float64.


@np.errstate(all="ignore")
def compare_with_float64(
    d: Derivatives, sampler: Sampler, run: UsersDtype, claims: list[Claim], w: list[Array]
) -> tuple[list[str], dict[int, list[Check]]]:
    """Compare the gradients in the user's dtype, by autodiff and by the claims, with the same gradients in float64.

    Return lines for the report and, for each leaf, the checks that fail only in the user's dtype.
    """
    leaves = d.prepared.leaves
    dtypes = sorted({leaf.dtype for leaf in leaves})
    names = ", ".join(dtypes)
    if not _finite(run.outputs) and _finite(d.outputs):
        note = f"f itself is infinite or NaN in {names}, but finite in float64"
        check = Check("in its own dtype", Verdict.CANNOT_TELL, Cause.NOT_FINITE, math.nan, math.inf, note)
        return [], {i: [check] for i, leaf in enumerate(leaves) if math.prod(leaf.shape)}
    if (apart := _values_apart(d, run)) > _GROSS:
        words = f"f differs by {apart:.0e} between {names} and float64: "
        words += "does it draw random numbers of the default dtype?"
        return [words, "the gradients in these dtypes were not compared"], {}
    checks: dict[int, list[Check]] = {}
    errors: dict[int, float] = {}
    for i, g in enumerate(run.gradient or []):
        if d.reverse is not None and _comparable(d, sampler, d.reverse, i):
            errors[i], failed = _compare(d, sampler, run, d.reverse, i, g, _gross(leaves[i].dtype), Verdict.CANNOT_TELL)
            checks.setdefault(i, []).extend(failed)
    for claim in claims:
        wide = next((x for x in d.claims if x.name == claim.name and x.gradients), None)
        for i, value in enumerate(claim.values):
            if value is not None and wide is not None and _comparable(d, sampler, wide, i):
                close = max(min(1e3 * eps_of(leaves[i].dtype), 0.3), _TIMES * errors.get(i, 0.0))
                checks.setdefault(i, []).extend(_compare(d, sampler, run, wide, i, value, close, Verdict.WRONG)[1])
    lines = []
    if errors and not set(dtypes) <= {"float64", "complex128"}:
        i = max(errors, key=lambda i: errors[i])
        how = f"within {errors[i]:.0e} of" if errors[i] else "equal to"
        lines.append(f"autodiff's gradient in {names} is {how} float64's ({leaves[i].name})")
    return [*lines, *_default_precision(d.prepared, run, w)], checks


def _comparable(d: Derivatives, sampler: Sampler, wide: Derivative, i: int) -> bool:
    """Return True if the gradient is finite in float64 and larger than rounding."""
    return _finite([wide.gradients[i]]) and _signal(d, wide, i) >= 1e-13 * sampler.zeros[0][1] > 0


def _signal(d: Derivatives, wide: Derivative, i: int) -> float:
    """Return ‖gradient‖ times the scale of the leaf's values. This is the scale of the changes of f."""
    return norm(wide.gradients[i][0]) * scale_of(_wide(d.prepared.v[i]))


def _compare(
    d: Derivatives,
    sampler: Sampler,
    run: UsersDtype,
    wide: Derivative,
    i: int,
    g: Numbers,
    allowed: float,
    worst: Verdict,
) -> tuple[float, list[Check]]:
    """Return the relative error of the gradient of one leaf, and a check if the error is more than rounding.

    The verdict is `worst` for a gross error, otherwise CANNOT_TELL. An infinite or NaN gradient is WRONG, unless the
    gradient in float64 is too large for the dtype.
    """
    reference, dtype = wide.gradients[i][0], d.prepared.leaves[i].dtype
    limits = finfo(dtype)
    name = f"{'' if wide.name == AUTODIFF else wide.name + ' in '}{dtype} = float64"
    size, off = norm(reference), norm(_wide(g) - reference)
    error = off / size if size else off
    if not _finite([g]):
        if np.max(np.abs(reference)) >= 0.1 * float(limits.max):
            return error, []
        note = f"infinite or NaN in {dtype}, where f is finite"
        return error, [Check(name, Verdict.WRONG, Cause.GRADIENT_NOT_FINITE, math.inf, 0.0, note)]
    n = math.sqrt(reference.size)
    noise = 100 * run.noise[i] * n if run.noise else 0.0
    above = 1e4 if limits.eps < _FEW_DIGITS else 10
    visible = _signal(d, wide, i) > above * float(limits.eps) * sampler.zeros[0][1]
    if off <= max(allowed * size, noise) or not visible or size <= 1e4 * float(limits.tiny) * n:
        return error, []
    verdict = worst if error > _gross(dtype) else Verdict.CANNOT_TELL
    return error, [Check(name, verdict, Cause.ONLY_IN_USER_DTYPE, error, allowed)]


def _gross(dtype: str) -> float:
    return _GROSS if eps_of(dtype) < _FEW_DIGITS else _GROSS_IN_FEW_DIGITS


def _values_apart(d: Derivatives, run: UsersDtype) -> float:
    """Return the relative difference of f between the user's dtype and float64, or 0 if it cannot be measured."""
    if not d.outputs or run.value_noise > 0.01:
        # Rounding of the point changes f by over 1%, so two right values may differ.
        return 0.0
    pairs = [(_wide(a), _wide(b)) for a, b in zip(run.outputs, d.outputs, strict=True)]
    if not _finite([x for pair in pairs for x in pair]):
        return 0.0
    scale = max(norm(b) for _, b in pairs)
    if d.reverse is not None:
        # If f is a small difference of large terms, its rounding is relative to the terms, not to f.
        sizes = [_signal(d, d.reverse, i) for i in range(len(d.reverse.gradients))]
        scale = max([scale, *(s for s in sizes if math.isfinite(s))])
    return max(norm(a - b) for a, b in pairs) / scale if scale else 0.0


def _default_precision(prepared: Prepared, run: UsersDtype, w: list[Array]) -> list[str]:
    """Return a line on the change of the gradient by the default precision of matrix products, or [] on a CPU."""
    device = jax.default_backend()
    if device == "cpu" or run.gradient is None:
        return []
    with evaluation(float64=False), jax.default_matmul_precision("default"):
        _, loose = single(Reverse(prepared.problem), prepared.traced, (prepared.v, w))
    errors = [norm(_wide(a) - _wide(b)) / (norm(_wide(b)) or 1.0) for a, b in zip(loose, run.gradient, strict=True)]
    return [f"the default precision of matrix products on {device} changes the gradient by {max(errors):.0e}"]


def _finite(arrays: Sequence[Numbers]) -> bool:
    return all(np.all(np.isfinite(_wide(x))) for x in arrays)


def _wide(x: Numbers) -> NDArray[np.inexact]:
    return np.asarray(on_host(x), complex if np.iscomplexobj(x) else float)
