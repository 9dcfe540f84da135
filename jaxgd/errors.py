"""The exceptions of jaxgd, and the checks that raise them.

Most messages name the function that complains, the expected value, the given value and the remedy. A descent that fails
at run time reports it in its `Outcome` and raises no exception. Outside jit, some values of arrays are checked before
the work starts, such as η, the tolerances and the directions of `cost_slice`.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxgd.typed import eval_shape, jit

X = TypeVar("X")


class JaxgdError(Exception):
    """The base class of jaxgd's public exceptions. Each of them is a built-in exception too."""


class ShapeError(JaxgdError, ValueError):
    """Arrays or trees with unsuitable shapes; also a ValueError.

    For instance, the shapes do not fit together, the batch has no example, the tree has no variable, or the cost is not
    a scalar.
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
    """A file or folder that cannot be written, for instance for lack of space or permission; also an OSError."""


class MissingDependencyError(JaxgdError, ImportError):
    """An optional library that is not installed; also an ImportError."""


def describe(x: object) -> str:
    """Return the dtype and shape of an array, such as `float32[10]`. Return the type's name for any other object.

    >>> describe(jnp.zeros((2, 3)))
    'float32[2,3]'
    """
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return shown(f"{x.dtype}[{','.join(map(str, x.shape))}]", str)
    return type(x).__name__


def given(x: object) -> str:
    """Describe an argument as `describe` does. Begin with the type if it is an array that `dtype_of` refuses.

    >>> given(np.ma.zeros(2))
    'MaskedArray float64[2]'
    """
    text, kind = describe(x), type(x).__name__
    return text if text == kind or dtype_of(x) is not None else f"{kind} {text}"


def shown(x: X, text_of: Callable[[X], str] = repr) -> str:
    """Return the text of a value for a message: one line of at most 80 characters.

    >>> shown("a" * 1000)[-3:]
    'aa…'
    """
    try:
        text = " ".join(text_of(x).split())
    except Exception:  # text_of may raise, as repr does for an int of more than 4,300 digits.
        text = type(x).__name__
    return text if len(text) <= 80 else f"{text[:79]}…"


# Types that jaxgd refuses: NumPy would use the values under a mask, and the * of np.matrix is a matrix product.
_NOT_PLAIN = (np.ma.MaskedArray, np.matrix)


def dtype_of(x: object) -> np.dtype[Any] | None:
    """Return the dtype that JAX gives to a number or an array. Return None for any other object.

    Text, dates, records, arrays of objects, masked arrays, np.matrix and random keys do not count as numbers.

    >>> print(dtype_of(1.5), dtype_of(np.array(["a"])))
    float32 None
    """
    numbers = (bool, int, float, complex, np.generic, np.ndarray, jax.Array)
    if not isinstance(x, numbers) or isinstance(x, _NOT_PLAIN):
        return None
    try:
        dtype = jnp.result_type(x)
    except TypeError:
        return None
    return None if jnp.issubdtype(dtype, jax.dtypes.extended) else dtype


def is_float(x: object) -> bool:
    """Return True if x is a number or an array in real floating point of 16 bits or more."""
    dtype = dtype_of(x)
    # JAX does not promote floats of 8 bits or fewer in arithmetic with other dtypes.
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize > 1


def as_array(who: str, name: str, x: object) -> Any:
    """Return x as a JAX or NumPy array. Raise DtypeError unless it holds numbers."""
    array, cause = x, None
    if not isinstance(x, jax.Array | np.ma.MaskedArray):
        try:
            array = np.asarray(x)
            # JAX takes only the host's byte order.
            array = array.astype(array.dtype.newbyteorder("="), copy=False)
        except Exception as error:  # The object's own conversion may fail in any way.
            array, cause = None, error
    if dtype_of(array) is None:
        raise DtypeError(
            f"{who}: {name} must be an array of numbers, got {given(x)}.\nPass an array of NumPy or JAX."
        ) from cause
    return array


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


def require_float(who: str, name: str, x: object) -> None:
    """Raise DtypeError unless x is a Python float, or an array in real floating point of 16 bits or more."""
    if not is_float(x):
        dtype = dtype_of(x)
        pixels = dtype is not None and not jnp.issubdtype(dtype, jnp.floating)
        remedy = "Scale pixels first, for instance pixels / 255." if pixels else "Pass an array of float32."
        raise DtypeError(f"{who}: {name} must be real floating point, got {given(x)}.\n{remedy}")


def _leaves(who: str, name: str, tree: object) -> list[tuple[tuple[Any, ...], Any]]:
    """Return the leaves of a tree with their paths. Raise DtypeError if JAX cannot flatten it."""
    try:
        return jax.tree_util.tree_leaves_with_path(tree)
    except Exception as error:  # The keys of a dict may not be sortable, for instance.
        raise DtypeError(
            f"{who}: {name} must be a tree of arrays, got {describe(tree)}.\n{shown(error, str)}"
        ) from error


def require_variables(who: str, name: str, v: object) -> None:
    """Raise unless v holds at least one variable and every leaf is real floating point."""
    leaves = _leaves(who, name, v)
    for path, x in leaves:
        place = f"{name}{jax.tree_util.keystr(path)}"
        dtype = dtype_of(x)
        if dtype is None or not (hasattr(x, "dtype") or isinstance(x, float)):
            raise DtypeError(f"{who}: {place} must be an array of floats, got {given(x)}.\nPass jnp.asarray(x, float).")
        if not is_float(x):
            is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
            remedy = "its real and imaginary parts as two arrays" if is_complex else f"{place}.astype(float)"
            raise DtypeError(
                f"{who}: {place} must be real floating point, got {describe(x)}.\n"
                f"Pass {remedy}, or pass fixed arrays through args."
            )
    if not sum(jnp.size(x) for _, x in leaves):
        raise ShapeError(f"{who}: {name} must hold at least one variable, got none.\nPass an array, or a tree of them.")


def require_scalar(who: str, cost: Callable[..., object], *args: object) -> None:
    """Raise unless cost is a function and cost(*args) is one floating-point scalar. The cost is traced but not run."""
    require_callable(who, "cost", cost)
    try:
        # Trace a lambda, because JAX needs a weak reference to the function, and an object with `__slots__` may not
        # allow one.
        out = eval_shape(lambda *args: cost(*args), *args)
        real = hasattr(out, "dtype") and jnp.issubdtype(out.dtype, jnp.floating) and getattr(out, "shape", None) == ()
        result = describe(out)
    except (TypeError, ValueError, OverflowError):
        # The error may come from the cost, or from JAX for a result that is not an array. Trace the cost again in a
        # function that returns nothing: only an error of the cost is raised again.
        results: list[object] = []
        eval_shape(lambda *args: results.append(cost(*args)), *args)
        result, real = given(results[0]), False
    if not real:
        raise ShapeError(
            f"{who}: the cost must return one real scalar, got {result}.\n"
            "Average over the examples first, for instance jnp.mean(jax.vmap(cost)(batch))."
        )


def require_callable(who: str, name: str, x: object, remedy: str = "") -> None:
    """Raise DtypeError unless x is a function."""
    if not callable(x):
        raise DtypeError(f"{who}: {name} must be a function, got {describe(x)}.\n{remedy}".rstrip())


def require_bool(who: str, name: str, x: object) -> None:
    """Raise DtypeError unless x is True or False, known before tracing."""
    if not isinstance(x, bool | np.bool_):
        raise DtypeError(f"{who}: {name} must be True or False, got {shown(x)}.")


def require_choice(who: str, name: str, x: object, choices: Sequence[str]) -> None:
    """Raise RangeError unless x is one of the choices."""
    if not (isinstance(x, str) and x in choices):
        words = ", ".join(map(repr, choices[:-1]))
        raise RangeError(f"{who}: {name} must be {words} or {choices[-1]!r}, got {shown(x)}.")


def require_precision(who: str, precision: Any, dtype: DTypeLike = np.float32) -> None:
    """Raise RangeError unless `jax.numpy.matmul` takes this precision and the device has its algorithm for this dtype.

    None stands for JAX's setting jax_default_matmul_precision, which may name an algorithm too.
    """
    name = "precision"
    if precision is None:
        name = "JAX's setting jax_default_matmul_precision"
        precision = getattr(jax.config, "jax_default_matmul_precision", None)
    if precision is None:
        return
    try:
        hash(precision)
        eval_shape(lambda x: jnp.matmul(x, x, precision=precision), jnp.zeros((1, 1)))
    except (TypeError, ValueError) as error:
        raise RangeError(
            f"{who}: precision must be one that jax.numpy.matmul takes, got {shown(precision)}.\n"
            'Pass "highest" for float32, or None for the default of the device.'
        ) from error
    algorithms = jax.lax.DotAlgorithmPreset.__members__
    is_algorithm = isinstance(precision, jax.lax.DotAlgorithm | jax.lax.DotAlgorithmPreset) or (
        isinstance(precision, str) and precision in algorithms
    )
    dtype, platform = np.dtype(dtype), jax.default_backend()
    if is_algorithm and not _has_algorithm(precision, dtype, platform):
        known = [repr(x) for x in algorithms if x != "DEFAULT" and _has_algorithm(x, dtype, platform)]
        raise RangeError(
            f"{who}: {name} must be an algorithm that the {platform} has for {dtype}, got {shown(precision, str)}.\n"
            f'Use {", ".join(known)}{" or " if known else ""}"highest", or None for the default of the device.'
        )


@functools.cache
def _has_algorithm(precision: Any, dtype: np.dtype[Any], platform: str) -> bool:
    """Return True if XLA compiles matrix products with this algorithm for the default device.

    `platform` is the platform of that device. It is an argument only to be part of the cache's key.
    """
    square = jax.ShapeDtypeStruct((16, 16), dtype)  # type: ignore[no-untyped-call]

    def products(x: Array) -> list[Array]:
        # XLA has separate code for products of matrices, vectors and scalars. Each may lack the algorithm.
        return [jnp.matmul(a, b, precision=precision) for a, b in ((x, x), (x[0], x), (x[:1, :1], x[:1, :1]))]

    try:
        jit(products).lower(square).compile()
    except Exception:  # JAX and XLA raise several types.
        return False
    return True


def require_key(who: str, key: object) -> None:
    """Raise unless the key is one random key: jax.random.key(…), or the raw uint32 array of jax.random.PRNGKey(…)."""
    new = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not isinstance(key, jax.Array) or not (new or key.dtype == np.uint32):
        raise DtypeError(
            f"{who}: key must be a random key of JAX, got {given(key)}.\nPass jax.random.key(0), or another seed."
        )
    if key.shape != (() if new else eval_shape(lambda: jax.random.PRNGKey(0)).shape):
        raise ShapeError(f"{who}: key must be one random key, got {describe(key)}.\nTo use several, use jax.vmap.")


def require_rule(who: str, name: str, rule: object) -> None:
    """Raise DtypeError unless rule has `init` and `update`, as jaxgd's rules and optax's transformations have."""
    if not (callable(getattr(rule, "init", None)) and callable(getattr(rule, "update", None))):
        hint = f"\nCall it: {getattr(rule, '__name__', 'rule')}(…)." if callable(rule) else ""
        raise DtypeError(
            f"{who}: {name} must be a rule such as jaxgd.gradient_descent(0.1), or a transformation of optax, "
            f"got {describe(rule)}.{hint}"
        )


def require_args(who: str, args: object) -> None:
    """Raise unless args is a tuple of arrays, random keys, numbers and trees of them."""
    if not isinstance(args, tuple):
        raise DtypeError(f"{who}: args must be a tuple, got {describe(args)}.\nFor one argument, pass args=(x,).")
    require_arrays(who, "args", args, "Let the cost close over other objects.")


def require_arrays(who: str, name: str, tree: object, remedy: str = "") -> None:
    """Raise unless every leaf of a tree is an array, a random key or a number. An int must fit JAX's integers."""
    for path, x in _leaves(who, name, tree):
        place = f"{name}{jax.tree_util.keystr(path)}"
        if dtype_of(x) is None and not isinstance(x, jax.Array):
            raise DtypeError(
                f"{who}: {name} must hold arrays and numbers, got {given(x)} at {place}.\n{remedy}".rstrip()
            )
        _require_narrow(who, place, x)


def outline(tree: object) -> tuple[str, list[tuple[tuple[int, ...], str]]]:
    """Return the structure of a tree, and the shape and dtype of each leaf, to compare two trees.

    >>> outline([jnp.zeros(2)]) == outline([np.ones(2, np.float32)])
    True
    """
    leaves, structure = jax.tree.flatten(tree)
    dtypes: list[object] = [dtype_of(x) or getattr(x, "dtype", None) or type(x) for x in leaves]
    return str(structure), [(getattr(x, "shape", ()), str(dtype)) for x, dtype in zip(leaves, dtypes, strict=True)]


def require_like(who: str, name: str, u: object, like: str, v: object, remedy: str = "") -> None:
    """Raise ShapeError unless u has the structure and the shapes of v. The message calls u `name`, and v `like`."""
    (structure_u, leaves_u), (structure_v, leaves_v) = outline(u), outline(v)
    if structure_u != structure_v or [shape for shape, _ in leaves_u] != [shape for shape, _ in leaves_v]:
        expected, actual = (shown(jax.tree.map(describe, tree), str) for tree in (v, u))
        raise ShapeError(f"{who}: {name} must be a tree like {like}, {expected}, got {actual}.\n{remedy}".rstrip())


def is_traced(x: object) -> bool:
    """Return True if x is a tracer, as the arguments of a function inside jit, grad or vmap are.

    Arrays from outside are not tracers.
    """
    return isinstance(x, jax.core.Tracer)


def is_real(x: Any) -> bool:
    """Return True if x is one real number: a scalar, neither bool nor complex. It may be traced."""
    dtype = dtype_of(x)
    return dtype is not None and jnp.ndim(x) == 0 and (jnp.issubdtype(dtype, jnp.integer) or is_float(x))


def require_real(who: str, name: str, x: object) -> None:
    """Raise unless x is one real number. It may be traced."""
    if not is_real(x):
        raise DtypeError(f"{who}: {name} must be one real number, got {given(x)}.\nTo try several, use jax.vmap.")
    _require_narrow(who, name, x)


def largest_int() -> int:
    """Return the largest of JAX's default integers: 2³¹ − 1, or 2⁶³ − 1 if x64 is enabled."""
    return int(jnp.iinfo(jnp.result_type(int)).max)  # type: ignore[no-untyped-call]


def _require_narrow(who: str, name: str, x: object) -> None:
    """Raise RangeError if x is a Python int outside the range of JAX's integers."""
    if isinstance(x, int) and not -largest_int() - 1 <= x <= largest_int():
        raise RangeError(f"{who}: {name} must fit {jnp.result_type(int)}, got {shown(x)}.\nWrite it as a float.")


def require_positive(who: str, name: str, x: Any) -> None:
    """Raise DtypeError or RangeError unless x is one finite real number above 0.

    A traced x passes if it is a real scalar, because its value is unknown.
    """
    dtype = dtype_of(x)
    is_complex = dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating) and jnp.ndim(x) == 0
    if not is_complex:
        require_real(who, name, x)
    if is_complex or not (is_traced(x) or 0 < float(x) < math.inf):
        raise RangeError(
            f"{who}: {name} must be a finite number above 0, got {shown(x, str)}.\nTry 1.0 and halve it until C falls."
        )


def require_count(who: str, name: str, x: Any, *, least: int = 1, most: int | None = None) -> None:
    """Raise unless x is a whole number with least ≤ x ≤ most, known before tracing."""
    try:
        value = operator.index(np.asarray(x) if isinstance(x, jax.Array) and not is_traced(x) else x)
    except TypeError:
        value = None
    if value is None or isinstance(x, bool):
        remedy = "Pass a Python int, or name the argument in static_argnames." if is_traced(x) else "Pass a Python int."
        raise DtypeError(
            f"{who}: {name} must be a whole number known before tracing, got {describe(x)}"
            f"{', traced' if is_traced(x) else ''}.\n{remedy}"
        )
    if value < least or (most is not None and value > most):
        # Name the limit of JAX's integers only if x exceeds it.
        unlimited = most is None or (value < least and most == largest_int())
        allowed = f"at least {least}" if unlimited else f"between {least} and {most}"
        remedy = f"Pass {least} or more." if value < least else f"Pass {most} or less."
        raise RangeError(f"{who}: {name} must be {allowed}, got {shown(value)}.\n{remedy}")


def require_sizes(who: str, sizes: Any) -> tuple[int, ...]:
    """Return sizes as ints.

    Raise unless sizes hold the number of inputs and the width of at least one layer, all from 1 to 2³¹ − 1.
    """
    several = isinstance(sizes, Sequence | np.ndarray | jax.Array) and not isinstance(sizes, (str, bytes, *_NOT_PLAIN))
    if not several or getattr(sizes, "shape", None) == ():
        raise DtypeError(
            f"{who}: sizes must be several whole numbers, got {describe(sizes)}.\nThe book's network is (784, 30, 10)."
        )
    if len(sizes) < 2:
        raise RangeError(
            f"{who}: sizes must hold the number of inputs and the width of at least one layer, got "
            f"{shown(tuple(sizes))}.\nThe book's network is (784, 30, 10)."
        )
    for size in sizes:
        require_count(who, f"each of sizes {shown(tuple(sizes))}", size, most=2**31 - 1)
    return tuple(map(int, sizes))
