"""In which dtypes a function computes on its way from its arguments to its result, read off its trace."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def eps_of(dtype: Any) -> float:
    """The relative rounding of a dtype: the distance from 1 to the next number."""
    return float(jnp.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def coarsest_eps(fn: Callable[[list[Any]], Any], v: Sequence[Any]) -> float:
    """The relative rounding of the narrowest float that fn computes with on its way from v, at least float64's.

    A function may cast to float32 whatever its inputs are. Where fn cannot be traced there is no knowing.
    """
    fine = eps_of("float64")
    try:
        jaxpr: Any = jax.make_jaxpr(fn)(list(v)).jaxpr
    except Exception:
        return fine
    dtypes = {getattr(var.aval, "dtype", None) for var in _dependent(jaxpr, set(jaxpr.invars))} - {None}
    return max([fine, *(eps_of(dtype) for dtype in dtypes if dtype is not None and _is_float(dtype))])


def is_rounded(fn: Callable[[list[Any]], Any], f: Callable[[list[Any]], Any], v: Sequence[Any]) -> bool:
    """Whether fn, a derivative of f, holds numbers of fewer digits than float64 that f does not, or may.

    A derivative by hand may use constants that were computed in float32 before: it is then right to float32 only,
    wherever it is run. What JAX cannot trace, as NumPy and callbacks, may hold anything.
    """
    ours, its = _narrow_material(f, v), _narrow_material(fn, v)
    return its is None or bool(its - (ours or set()))


def _narrow_material(fn: Callable[[list[Any]], Any], v: Sequence[Any]) -> set[Any] | None:
    try:
        closed = jax.make_jaxpr(fn)(list(v))
    except Exception:
        return None
    found: set[Any] = set()
    return found if _collect(closed.jaxpr, closed.consts, found) else None


def _collect(jaxpr: Any, constants: Sequence[Any], found: set[Any]) -> bool:
    """Adds the narrow constants and results of a jaxpr; false if it holds a callback."""
    found.update(("constant", *_key_of(x)) for x in constants if _is_narrow(x))
    for eqn in jaxpr.eqns:
        if "callback" in eqn.primitive.name:
            return False
        found.update(
            ("constant", *_key_of(var.val)) for var in eqn.invars if hasattr(var, "val") and _is_narrow(var.val)
        )
        if eqn.primitive.name not in _EXACT:
            found.update((eqn.primitive.name, *_kind_of(var.aval)) for var in eqn.outvars if _is_narrow(var.aval))
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner: Any = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns") and not _collect(inner, getattr(value, "consts", ()), found):
                return False
    return True


# What moves numbers and rounds none, and what only calls something else.
_EXACT = {
    *("transpose", "reshape", "broadcast_in_dim", "squeeze", "expand_dims", "slice", "dynamic_slice", "gather", "rev"),
    *("concatenate", "copy", "copy_p", "neg", "select_n", "pad", "iota", "stop_gradient", "pjit", "jit", "closed_call"),
}


def _is_narrow(x: Any) -> bool:
    dtype = getattr(x, "dtype", None)
    return dtype is not None and _is_float(dtype) and eps_of(dtype) > eps_of("float64")


def _kind_of(x: Any) -> tuple[str, tuple[int, ...]]:
    return str(x.dtype), tuple(x.shape)


def _key_of(x: Any) -> tuple[Any, ...]:
    return *_kind_of(x), np.asarray(x).tobytes()


def _dependent(jaxpr: Any, tainted: set[Any]) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        if not any(not hasattr(var, "val") and var in tainted for var in eqn.invars):
            continue
        tainted.update(eqn.outvars)
        yield from eqn.outvars
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner: Any = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                # Which of the inner inputs depend on v is not followed: all are taken to.
                yield from _dependent(inner, set(inner.invars))


def _is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.inexact))
