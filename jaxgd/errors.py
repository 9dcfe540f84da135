"""The exceptions, and the checks that raise them.

A message names the function that complains, the expected value, the given value and the remedy. A failure that depends
on the values of arrays at run time is an `Outcome`, not an exception.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class JaxgdError(Exception):
    """The base class of every exception that jaxgd raises on purpose."""


class ShapeError(JaxgdError, ValueError):
    """Arrays or trees with shapes that do not fit together."""


class DtypeError(JaxgdError, TypeError):
    """A value of an unsuitable dtype or type."""


class RangeError(JaxgdError, ValueError):
    """A number or a name outside the allowed values."""


class DataError(JaxgdError, ValueError):
    """Data that is missing, damaged or inconsistent."""


class CheckpointError(JaxgdError, ValueError):
    """A run folder, checkpoint or saved network that cannot be used."""


class WriteError(JaxgdError, OSError):
    """A file or folder that cannot be written: no space, no permission or no such folder."""


class MissingDependencyError(JaxgdError, ImportError):
    """An optional library that is not installed."""


def describe(x: Any) -> str:
    """Return the dtype and shape of an array as JAX prints them, such as `float32[10]`; otherwise the name of the type.

    >>> describe(jnp.zeros((2, 3)))
    'float32[2,3]'
    """
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{x.dtype}[{','.join(map(str, x.shape))}]"
    return type(x).__name__


def require_same_shape(who: str, **arrays: Any) -> None:
    """Raise ShapeError unless all arrays have the same shape. Nothing is broadcast."""
    if len({jnp.shape(x) for x in arrays.values()}) > 1:
        given = ", ".join(f"{name} {describe(x)}" for name, x in arrays.items())
        raise ShapeError(f"{who}: {' and '.join(arrays)} must have the same shape, got {given}.\nNothing is broadcast.")


def require_outputs(who: str, a: Any) -> None:
    """Raise unless `a` is real floating point, of shape (..., out), with at least one example."""
    require_float(who, "a", a)
    if jnp.ndim(a) == 0:
        raise ShapeError(f"{who}: the outputs must be (..., out), got {describe(a)}.")
    require_examples(who, jnp.size(a))


def require_examples(who: str, n: int) -> None:
    """Raise ShapeError unless the number of examples n is above 0."""
    if n == 0:
        raise ShapeError(f"{who}: expected at least one example, got none.\nPass a batch with one row or more.")


def require_float(who: str, name: str, x: Any) -> None:
    """Raise DtypeError unless x is an array or number of real floating point."""
    number = isinstance(x, (float, np.generic, np.ndarray, jax.Array))
    if not number or not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise DtypeError(
            f"{who}: {name} must be real floating point, got {describe(x)}.\n"
            "Scale pixels first, for instance pixels / 255."
        )


def require_variables(who: str, name: str, v: Any) -> None:
    """Raise unless v holds at least one variable and every leaf is real floating point."""
    leaves = jax.tree_util.tree_leaves_with_path(v)
    for path, x in leaves:
        place = f"{name}{jax.tree_util.keystr(path)}"
        if not hasattr(x, "dtype") and not isinstance(x, float):
            raise DtypeError(
                f"{who}: {place} must be an array of floats, got {describe(x)}.\nPass jnp.asarray(x, float)."
            )
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            raise DtypeError(
                f"{who}: {place} must be real floating point, got {describe(x)}.\n"
                f"Pass {name}.astype(float), or pass fixed arrays through args."
            )
    if not sum(jnp.size(x) for _, x in leaves):
        raise ShapeError(f"{who}: {name} must hold at least one variable, got none.\nPass an array, or a tree of them.")


def require_scalar(who: str, cost: Callable[..., Any], *args: Any) -> None:
    """Raise ShapeError unless cost(*args) is one real scalar. The cost is traced and not computed."""
    out = jax.eval_shape(cost, *args)
    real = hasattr(out, "dtype") and jnp.issubdtype(out.dtype, jnp.floating)
    if not real or out.shape != ():
        raise ShapeError(
            f"{who}: the cost must return one real scalar, got {describe(out)}.\n"
            "Average over the examples first, for instance jnp.mean(jax.vmap(cost)(batch))."
        )


def is_traced(x: Any) -> bool:
    """Return True inside jit, grad or vmap, where x has no value yet."""
    return isinstance(x, jax.core.Tracer)


def require_positive(who: str, name: str, x: Any) -> None:
    """Raise DtypeError or RangeError unless x is one finite real number above 0.

    A traced x passes because its value is unknown.
    """
    if is_traced(x):
        return
    number = isinstance(x, (int, float, complex, np.generic, np.ndarray, jax.Array)) and not isinstance(x, bool)
    # Compare in NumPy: under jit, JAX would trace x > 0 even for an array with a known value.
    value = np.asarray(x) if number else np.empty(2)
    if value.shape != () or value.dtype.kind not in "iufcV":
        raise DtypeError(f"{who}: {name} must be one real number, got {describe(x)}.\nTo try several, use jax.vmap.")
    if value.dtype.kind == "c" or not (math.isfinite(value) and value > 0):
        raise RangeError(
            f"{who}: {name} must be a finite number above 0, got {x}.\nTry 1.0 and halve it until C falls."
        )


def require_count(who: str, name: str, x: Any, *, least: int = 1, most: int | None = None) -> None:
    """Raise unless x is a whole number with least ≤ x ≤ most."""
    try:
        value = operator.index(np.asarray(x) if isinstance(x, jax.Array) and not is_traced(x) else x)
    except TypeError:
        value = None
    if value is None or isinstance(x, bool):
        raise DtypeError(f"{who}: {name} must be a whole number known before tracing, got {describe(x)}.")
    if value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"between {least} and {most}"
        raise RangeError(f"{who}: {name} must be {allowed}, got {value}.")


def require_sizes(who: str, sizes: Sequence[int]) -> None:
    """Raise unless sizes names the inputs and at least one layer, each of width 1 or more."""
    if not hasattr(sizes, "__len__"):
        raise DtypeError(f"{who}: sizes must be several whole numbers such as (784, 30, 10), got {describe(sizes)}.")
    if len(sizes) < 2:
        raise RangeError(
            f"{who}: sizes must name the inputs and at least one layer, got {tuple(sizes)}.\n"
            "The book's network is (784, 30, 10)."
        )
    for size in sizes:
        require_count(who, f"each of sizes {tuple(sizes)}", size)
