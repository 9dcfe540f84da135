"""The exceptions, and the checks that raise them.

Most messages name the function that complains, the expected value, the given value and the remedy. A descent that fails
at run time returns an `Outcome` and raises no exception. Outside jit, some values of arrays are checked before the work
starts, such as η, the tolerances and the directions of `cost_slice`.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class JaxgdError(Exception):
    """The base class of the exceptions that jaxgd defines. Each of them is a built-in exception too."""


class ShapeError(JaxgdError, ValueError):
    """Arrays or trees with unsuitable shapes; also a ValueError.

    The shapes do not fit together, the batch has no example, the tree has no variable, or the cost is not a scalar.
    """


class DtypeError(JaxgdError, TypeError):
    """A value of an unsuitable dtype or type; also a TypeError."""


class RangeError(JaxgdError, ValueError):
    """A number or a name outside the allowed values; also a ValueError."""


class DataError(JaxgdError, ValueError):
    """Data that is missing, damaged or inconsistent; also a ValueError."""


class CheckpointError(JaxgdError, ValueError):
    """A run folder, checkpoint or saved network that cannot be used; also a ValueError."""


class WriteError(JaxgdError, OSError):
    """A file or folder that cannot be written: no space, no permission or no such folder; also an OSError."""


class MissingDependencyError(JaxgdError, ImportError):
    """An optional library that is not installed; also an ImportError."""


def describe(x: Any) -> str:
    """Return the dtype and shape of an array, such as `float32[10]`. Return the type's name for any other object.

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
    """Raise unless `a` is real floating point, of shape (..., out), with at least one example and one output."""
    require_float(who, "a", a)
    if jnp.ndim(a) == 0:
        raise ShapeError(
            f"{who}: the outputs must be (..., out), got {describe(a)}.\nFor one output per example, pass a[..., None]."
        )
    if jnp.shape(a)[-1] == 0:
        raise ShapeError(
            f"{who}: expected at least one output per example, got {describe(a)}.\nThe last axis holds the outputs."
        )
    require_examples(who, jnp.size(a))


def require_examples(who: str, n: int) -> None:
    """Raise ShapeError unless the number of examples n is above 0."""
    if n == 0:
        raise ShapeError(f"{who}: expected at least one example, got none.\nPass a batch with one row or more.")


def require_float(who: str, name: str, x: Any) -> None:
    """Raise DtypeError unless x is a Python float or an array with a real floating-point dtype."""
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
            is_complex = jnp.issubdtype(jnp.result_type(x), jnp.complexfloating)
            remedy = "its real and imaginary parts as two arrays" if is_complex else f"{place}.astype(float)"
            raise DtypeError(
                f"{who}: {place} must be real floating point, got {describe(x)}.\n"
                f"Pass {remedy}, or pass fixed arrays through args."
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
    """Return True if x is a tracer, as the arguments of a function inside jit, grad or vmap are.

    Arrays from outside are not tracers.
    """
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
        raise DtypeError(
            f"{who}: {name} must be a whole number known before tracing, got {describe(x)}.\nPass a Python int."
        )
    if value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"between {least} and {most}"
        remedy = f"Pass {least} or more." if value < least else f"Pass {most} or less."
        raise RangeError(f"{who}: {name} must be {allowed}, got {value}.\n{remedy}")


def require_sizes(who: str, sizes: Sequence[int]) -> None:
    """Raise unless sizes holds the number of inputs and the width of at least one layer, all 1 or more."""
    if not hasattr(sizes, "__len__"):
        raise DtypeError(
            f"{who}: sizes must be several whole numbers, got {describe(sizes)}.\nThe book's network is (784, 30, 10)."
        )
    if len(sizes) < 2:
        raise RangeError(
            f"{who}: sizes must hold the number of inputs and the width of at least one layer, got {tuple(sizes)}.\n"
            "The book's network is (784, 30, 10)."
        )
    for size in sizes:
        require_count(who, f"each of sizes {tuple(sizes)}", size)
