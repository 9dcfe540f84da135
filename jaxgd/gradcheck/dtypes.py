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


def constants(jaxpr: Any, consts: Sequence[Any]) -> Iterator[Any]:
    """Every array that a jaxpr holds, in whatever it calls as well."""
    yield from consts
    for eqn in jaxpr.eqns:
        yield from (var.val for var in eqn.invars if hasattr(var, "val"))
        for inner, inner_consts in _called(eqn):
            yield from constants(inner, inner_consts)


def own_rounding(fn: Callable[[list[Any]], Any], f: Callable[[list[Any]], Any], v: Sequence[Any]) -> float | None:
    """The relative rounding of the coarsest numbers that fn, a derivative of f, holds and f does not; 0 for none.

    A derivative by hand may use constants that were computed in float32 before: it is then right to float32 only,
    wherever it is run. What JAX cannot trace, as NumPy and callbacks, may hold anything: None.
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
        if not all(_collect(inner, consts, found) for inner, consts in _called(eqn)):
            return False
    return True


def _called(eqn: Any) -> Iterator[tuple[Any, Sequence[Any]]]:
    """The jaxprs that an equation calls, each with its constants."""
    for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
        inner: Any = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
            yield inner, getattr(value, "consts", ())


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
        for inner, _ in _called(eqn):
            # Which of the inner inputs depend on v is not followed: all are taken to.
            yield from _dependent(inner, set(inner.invars))


def _is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.inexact))
