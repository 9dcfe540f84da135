"""How far the gradient in the user's dtype is from float64's: rounding, on its own lines."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgd.gradcheck.derive import AUTODIFF, norm
from jaxgd.gradcheck.examine import Examination
from jaxgd.gradcheck.lanes import single
from jaxgd.gradcheck.measure import scale_of
from jaxgd.gradcheck.native import Native
from jaxgd.gradcheck.problem import Prepared
from jaxgd.gradcheck.programs import Reverse
from jaxgd.gradcheck.report import Cause, Check, Verdict

# In the user's dtype a gradient may be far off for rounding alone, and no one can tell from outside. It is doubted if
# it is off by more than this, by a hundred times more than its point's rounding moves it, and well above what rounding
# in f can hide.
_GROSS = 0.5


def precision_lines(
    prepared: Prepared, examination: Examination, native: Native, w: list[Any]
) -> tuple[tuple[str, ...], dict[int, Check]]:
    """Lines for the report, and a check for each leaf whose gradient is far off in the user's dtype only."""
    wide = examination.d.reverse
    if wide is None or native.gradient is None:
        return (), {}
    dtypes = sorted({leaf.dtype for leaf in prepared.leaves})
    lines, wrong = [], {}
    if (apart := _value_apart(examination, native)) > 0.05:
        words = (
            f"f itself is {apart:.0e} apart in {', '.join(dtypes)} and in float64: random numbers of the default dtype?"
        )
        return (words, "the gradients in both were not compared"), {}
    if dtypes not in (["float64"], ["complex128"]):
        errors = {}
        for i, (g, leaf) in enumerate(zip(native.gradient, prepared.leaves, strict=True)):
            reference = wide.cotangents[i][0]
            if (
                leaf.dtype in ("float64", "complex128")
                or not reference.size
                or (AUTODIFF, i) in examination.d.not_finite
            ):
                continue
            size, off = norm(reference), norm(_wide(g) - reference)
            if size * scale_of(np.asarray(examination.d.shared.v[i])) < 1e-13 * examination.measure.zeros[0][1]:
                continue  # zero but for rounding
            errors[leaf.name] = off / size if size else off
            if check := _only_natively(examination, native, i, leaf.dtype, off, size):
                wrong[i] = check
        if errors:
            name = max(errors, key=lambda key: errors[key])
            how = f"within {errors[name]:.0e} of" if errors[name] else "equal to"
            lines.append(f"the gradient in {', '.join(dtypes)} is {how} float64's ({name})")
    lines.append(_default_precision(prepared, native, w))
    return tuple(filter(None, lines)), wrong


def _value_apart(examination: Examination, native: Native) -> float:
    """The relative difference between the values of f in the user's dtype and in float64; 0 where there is none."""
    pairs = [(_wide(a), _wide(b)) for a, b in zip(native.outputs, examination.d.outputs, strict=True)]
    if not all(np.isfinite(a).all() and np.isfinite(b).all() for a, b in pairs):
        return 0.0
    scale = max(norm(b) for _, b in pairs)
    if (reverse := examination.d.reverse) is not None:
        # Where f is a difference of large terms, its own size says nothing.
        pairs_ = zip(reverse.cotangents, examination.d.shared.v, strict=True)
        sizes = [norm(g[0]) * scale_of(np.asarray(x)) for g, x in pairs_]
        scale = max(scale, *sizes)
    return max(norm(a - b) for a, b in pairs) / scale if scale else 0.0


def _only_natively(
    examination: Examination, native: Native, i: int, dtype: str, off: float, size: float
) -> Check | None:
    limits = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    gradient = np.asarray(native.gradient[i])  # type: ignore[index]
    reference = examination.d.reverse.cotangents[i][0]  # type: ignore[union-attr]
    name = f"{dtype} = float64"
    representable = np.max(np.abs(reference), initial=0.0) < 0.1 * float(limits.max)
    finite_f = all(np.all(np.isfinite(_wide(y))) for y in native.outputs)
    if not np.all(np.isfinite(_wide(gradient))):
        if representable and finite_f:
            note = f"infinite or NaN in {dtype}, where f is finite"
            return Check(name, Verdict.WRONG, Cause.GRADIENT_NOT_FINITE, math.inf, 0.0, note)
        return None
    if float(limits.eps) > 1e-5 or not size or not native.noise:
        return None
    x = np.asarray(examination.d.prepared.v[i])
    hidden = float(limits.eps) * examination.measure.zeros.get(0, (0.0, 0.0))[1]
    signal = size * scale_of(x.astype(complex if np.iscomplexobj(x) else float))
    smallest = 1e4 * float(limits.tiny) * math.sqrt(x.size)
    noise = 100 * native.noise[i] * math.sqrt(x.size)
    if off > max(_GROSS * size, noise) and signal > 1e4 * hidden and size > smallest:
        note = f"off by {off / size:.2g} relative"
        return Check(name, Verdict.CANNOT_TELL, Cause.ONLY_NATIVE, off / size, _GROSS, note)
    return None


def _default_precision(prepared: Prepared, native: Native, w: list[Any]) -> str:
    """What the device's default precision of matrix products adds: TF32, bfloat16."""
    device = jax.default_backend()
    if device == "cpu":
        return ""
    with jax.default_matmul_precision("default"):
        lane = prepared.v, [jnp.asarray(x) for x in w]
        _, loose = single(Reverse(prepared.problem), prepared.traced, lane)
    errors = [
        norm(_wide(a) - _wide(b)) / (norm(_wide(b)) or 1.0)
        for a, b in zip(loose, native.gradient, strict=True)  # type: ignore[arg-type]
    ]
    return f"products at {device}'s default precision move the gradient by {max(errors):.0e} more"


def _wide(x: Any) -> np.ndarray:
    return np.asarray(x, complex if np.iscomplexobj(x) else float)
