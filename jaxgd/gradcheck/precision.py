"""Compare gradients in the user's dtype with float64, for a line of the report, or a check if they differ by far."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgd.gradcheck.claims import Claim
from jaxgd.gradcheck.derive import AUTODIFF, norm
from jaxgd.gradcheck.examine import Examination
from jaxgd.gradcheck.lanes import single
from jaxgd.gradcheck.measure import ReverseValues, scale_of
from jaxgd.gradcheck.native import Native
from jaxgd.gradcheck.problem import Prepared
from jaxgd.gradcheck.programs import Reverse
from jaxgd.gradcheck.report import Cause, Check, Verdict

# In the user's dtype, rounding alone can cause a large error, and no test can tell it from a wrong rule. A gradient is
# in doubt only if its relative error exceeds _GROSS (_GROSS_IN_FEW_DIGITS in dtypes with fewer digits than float32), if
# its error exceeds a hundred times its noise, and if the gradient exceeds the rounding in f by far.
_GROSS, _GROSS_IN_FEW_DIGITS = 0.05, 0.5
_FEW_DIGITS = 1e-5
# A claim may have this multiple of autodiff's error in the same dtype.
_TIMES = 30.0


@dataclasses.dataclass(frozen=True)
class Precision:
    """Lines for the report, and for each leaf the checks that fail in the user's dtype only."""

    lines: tuple[str, ...]
    checks: dict[int, list[Check]]


def compare_natively(
    prepared: Prepared, examination: Examination, native: Native, claims: list[Claim], w: list[Any]
) -> Precision:
    """Compare gradients in the user's dtype, by autodiff and by the claims, with the same gradients in float64."""
    checks: dict[int, list[Check]] = {}
    lines: list[str] = []
    dtypes = sorted({leaf.dtype for leaf in prepared.leaves})
    if not _finite(native.outputs) and _finite(examination.d.outputs):
        note = f"f itself is infinite or NaN in {', '.join(dtypes)}, but finite in float64"
        check = Check("in its own dtype", Verdict.CANNOT_TELL, Cause.NOT_FINITE, math.nan, math.inf, note)
        return Precision((), {i: [check] for i, leaf in enumerate(prepared.leaves) if math.prod(leaf.shape)})
    if (apart := _value_apart(examination, native)) > 0.05:
        words = (
            f"f differs by {apart:.0e} between {', '.join(dtypes)} and float64: "
            "does it draw random numbers of the default dtype?"
        )
        return Precision((words, "the gradients in these dtypes were not compared"), {})
    wide = examination.d.reverse
    errors: dict[str, float] = {}
    autodiff: dict[int, float] = {}
    if wide is not None and native.gradient is not None:
        for i, g in enumerate(native.gradient):
            compared = _Compared(examination, native, wide, i, g)
            if not compared.comparable:
                continue
            errors[prepared.leaves[i].name] = autodiff[i] = compared.error
            found = compared.verdict(_gross(prepared.leaves[i].dtype), Verdict.CANNOT_TELL)
            checks.setdefault(i, []).extend([found] if found else [])
    for claim in claims:
        values = next((v for v in examination.d.values if v.name == claim.name), None)
        for i, g in enumerate(claim.native):
            if g is None or not isinstance(values, ReverseValues):
                continue
            compared = _Compared(examination, native, values, i, g)
            eps = _eps(prepared.leaves[i].dtype)
            close = max(min(1e3 * eps, 0.3), _TIMES * autodiff.get(i, 0.0))
            found = compared.verdict(close, Verdict.WRONG) if compared.comparable else None
            checks.setdefault(i, []).extend([found] if found else [])
    if errors and dtypes not in (["float64"], ["complex128"]):
        name = max(errors, key=lambda key: errors[key])
        how = f"within {errors[name]:.0e} of" if errors[name] else "equal to"
        lines.append(f"autodiff's gradient in {', '.join(dtypes)} is {how} float64's ({name})")
    lines.append(_default_precision(prepared, native, w))
    return Precision(tuple(filter(None, lines)), checks)


@dataclasses.dataclass(frozen=True)
class _Compared:
    """One leaf of a gradient in the user's dtype, and the same leaf in float64."""

    examination: Examination
    native: Native
    wide: ReverseValues
    leaf: int
    gradient: Any

    @property
    def reference(self) -> np.ndarray:
        return np.asarray(self.wide.cotangents[self.leaf][0])

    @property
    def size(self) -> float:
        return norm(self.reference)

    @property
    def off(self) -> float:
        return norm(_wide(self.gradient) - self.reference)

    @property
    def error(self) -> float:
        return self.off / self.size if self.size else self.off

    @property
    def signal(self) -> float:
        """The gradient times the size of the leaf: a change of f, to compare with the rounding in f."""
        return self.size * scale_of(_wide(self.examination.d.prepared.v[self.leaf]))

    @property
    def comparable(self) -> bool:
        """True if the gradient is finite in float64 and larger than rounding."""
        if not self.reference.size or (self.wide.name, self.leaf) in self.examination.d.not_finite:
            return False
        return self.signal >= 1e-13 * self.examination.ladders.measure.zeros[0][1]

    def verdict(self, allowed: float, worst: Verdict) -> Check | None:
        """Return a check if the difference exceeds rounding, otherwise None.

        The verdict is `worst` for a gross difference, otherwise CANNOT_TELL. An infinite or NaN gradient is WRONG.
        """
        dtype = self.examination.d.prepared.leaves[self.leaf].dtype
        limits = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
        name = f"{'' if self.wide.name == AUTODIFF else self.wide.name + ' in '}{dtype} = float64"
        if not _finite([self.gradient]):
            if np.max(np.abs(self.reference), initial=0.0) < 0.1 * float(limits.max):
                note = f"infinite or NaN in {dtype}, where f is finite"
                return Check(name, Verdict.WRONG, Cause.GRADIENT_NOT_FINITE, math.inf, 0.0, note)
            return None
        n = math.sqrt(self.reference.size)
        noise = 100 * self.native.noise[self.leaf] * n if self.native.noise else 0.0
        hidden = float(limits.eps) * self.examination.ladders.measure.zeros[0][1]
        above = 1e4 if _eps(dtype) < _FEW_DIGITS else 10
        visible = self.signal > above * hidden and self.size > 1e4 * float(limits.tiny) * n
        if self.off <= max(allowed * self.size, noise) or not visible:
            return None
        verdict = worst if self.error > _gross(dtype) else Verdict.CANNOT_TELL
        note = f"off by {self.error:.2g} relative"
        return Check(name, verdict, Cause.ONLY_NATIVE, self.error, allowed, note)


def _eps(dtype: str) -> float:
    return float(jnp.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def _gross(dtype: str) -> float:
    return _GROSS if _eps(dtype) < _FEW_DIGITS else _GROSS_IN_FEW_DIGITS


def _value_apart(examination: Examination, native: Native) -> float:
    """Return the relative difference of f between the user's dtype and float64; 0 if not comparable."""
    if not examination.d.outputs or native.value_noise > 0.01:
        # Rounding changes the value of f by over 1%, so that two right values may differ.
        return 0.0
    pairs = [(_wide(a), _wide(b)) for a, b in zip(native.outputs, examination.d.outputs, strict=True)]
    if not _finite([x for pair in pairs for x in pair]):
        return 0.0
    scale = max(norm(b) for _, b in pairs)
    if (reverse := examination.d.reverse) is not None:
        # f may be a small difference of large terms. Its value is then too small to be the scale of its rounding.
        leaves = zip(reverse.cotangents, examination.d.shared.v, strict=True)
        scale = max(scale, *(norm(g[0]) * scale_of(np.asarray(x)) for g, x in leaves))
    return max(norm(a - b) for a, b in pairs) / scale if scale else 0.0


def _default_precision(prepared: Prepared, native: Native, w: list[Any]) -> str:
    """Return a line on the error that the default precision of matrix products adds, such as TF32 or bfloat16.

    Return "" on a CPU.
    """
    device = jax.default_backend()
    if device == "cpu" or native.gradient is None:
        return ""
    with jax.default_matmul_precision("default"):
        _, loose = single(Reverse(prepared.problem), prepared.traced, (prepared.v, w))
    errors = [norm(_wide(a) - _wide(b)) / (norm(_wide(b)) or 1.0) for a, b in zip(loose, native.gradient, strict=True)]
    return f"the default precision of matrix products on {device} changes the gradient by another {max(errors):.0e}"


def _finite(arrays: Any) -> bool:
    return all(np.all(np.isfinite(_wide(x))) for x in arrays)


def _wide(x: Any) -> np.ndarray:
    return np.asarray(x, complex if np.iscomplexobj(x) else float)
