"""The dtypes in which a function computes, read from its jaxpr.

The eps of a dtype is its relative rounding: the distance from 1 to the next larger number.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def eps_of(dtype: Any) -> float:
    """Return the eps of a dtype."""
    return float(jnp.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def coarsest_eps(fn: Callable[[list[Any]], Any], v: Sequence[Any]) -> float:
    """Return the largest eps among the float dtypes that fn computes from v, but never less than the eps of float64.

    A function may cast to float32 for inputs of any dtype. If JAX cannot trace fn, return the eps of float64.
    """
    fine = eps_of("float64")
    try:
        jaxpr: Any = jax.make_jaxpr(fn)(list(v)).jaxpr
    except Exception:
        return fine
    dtypes = {getattr(var.aval, "dtype", None) for var in _dependent(jaxpr, set(jaxpr.invars))} - {None}
    return max([fine, *(eps_of(dtype) for dtype in dtypes if dtype is not None and _is_float(dtype))])


def constants(jaxpr: Any, consts: Sequence[Any]) -> Iterator[Any]:
    """Yield every array that a jaxpr holds, and every array of each jaxpr that it calls."""
    yield from consts
    for eqn in jaxpr.eqns:
        yield from (var.val for var in eqn.invars if hasattr(var, "val"))
        for inner, inner_consts in _called(eqn):
            yield from constants(inner, inner_consts)


def own_rounding(fn: Callable[[list[Any]], Any], f: Callable[[list[Any]], Any], v: Sequence[Any]) -> float | None:
    """Return the eps of the coarsest constant or result that appears in fn but not in f. fn is a derivative of f.

    Return 0.0 if fn has none that is coarser than float64. Return None if JAX cannot trace fn, as with NumPy, or if fn
    has a callback, which hides its constants.

    A hand-written derivative may hold constants that were computed in float32 before the trace. Its result is then
    accurate to float32 only, for any dtype of v.
    """
    ours, its = _narrow_material(f, v), _narrow_material(fn, v)
    if its is None:
        return None
    return max((eps_of(dtype) for _, dtype, *_ in its - (ours or set())), default=0.0)


def _narrow_material(fn: Callable[[list[Any]], Any], v: Sequence[Any]) -> set[Any] | None:
    try:
        closed = jax.make_jaxpr(fn)(list(v))
    except Exception:
        return None
    found: set[Any] = set()
    return found if _collect(closed.jaxpr, closed.consts, found) else None


def _collect(jaxpr: Any, constants: Sequence[Any], found: set[Any]) -> bool:
    """Add the constants and rounded results of a jaxpr that are coarser than float64 to `found`.

    Results of the primitives in _EXACT are not added, because they are not rounded. Return False if the jaxpr has a
    callback.
    """
    found.update(("constant", *_key_of(x)) for x in constants if _is_narrow(x))
    for eqn in jaxpr.eqns:
        if "callback" in eqn.primitive.name:
            return False
        found.update(
            ("constant", *_key_of(var.val)) for var in eqn.invars if hasattr(var, "val") and _is_narrow(var.val)
        )
        if eqn.primitive.name not in _EXACT:
            found.update((eqn.primitive.name, *_kind_of(var.aval)) for var in eqn.outvars if _is_narrow(var.aval))
        if not all(_collect(inner, consts, found) for inner, consts in _called(eqn)):
            return False
    return True


def _called(eqn: Any) -> Iterator[tuple[Any, Sequence[Any]]]:
    """Yield the jaxprs that an equation calls, each with its constants."""
    for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
        inner: Any = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
            yield inner, getattr(value, "consts", ())


# Primitives that move numbers without rounding, or only call another jaxpr.
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
        for inner, _ in _called(eqn):
            # This counts every input of the inner jaxpr as dependent on v, which may overestimate.
            yield from _dependent(inner, set(inner.invars))


def _is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.inexact))
