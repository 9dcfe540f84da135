"""Examples for training, one in each row. Inputs in bytes stay bytes until use, to save memory."""

import math
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxgd.data import Dataset
from jaxgd.errors import (
    DataError,
    DtypeError,
    ShapeError,
    as_array,
    describe,
    is_traced,
    require_examples,
)
from jaxgd.mesh import Placed
from jaxgd.network import Network, network_sizes
from jaxgd.typed import jit

# Inputs count as unscaled if the smallest is at least 0 and the largest is at least this value. Pixels from 0 to 16 or
# from 0 to 255 are examples.
_UNSCALED = 10


class Examples(NamedTuple):
    """Inputs, and their labels or targets.

    Attributes:
        x: Inputs, (n, in), bytes or floating point.
        y: Labels, (n,), whole numbers; or targets, (n, out), floating point.
    """

    x: Array
    y: Array


def inputs(x: Array, dtype: DTypeLike) -> Float[Array, "*batch in"]:
    """Convert inputs to a dtype, and divide bytes by 255.

    Args:
        x: Inputs, (..., in), bytes or floating point.
        dtype: The floating-point dtype of the result.

    Returns:
        The inputs of the network, (..., in).

    Example:
        >>> inputs(jnp.array([0, 255], jnp.uint8), jnp.float32)
        Array([0., 1.], dtype=float32)
    """
    return x.astype(dtype) / 255 if x.dtype == jnp.uint8 else x.astype(dtype)


def targets(y: Array, outputs: int, dtype: DTypeLike) -> Float[Array, "*batch out"]:
    """Return the targets in a dtype. Labels become unit vectors.

    Args:
        y: Labels, (...,), whole numbers; or targets, (..., out), floating point.
        outputs: The number of outputs of the network.
        dtype: The floating-point dtype of the result.

    Returns:
        The targets, (..., out).

    Example:
        >>> targets(jnp.array([1]), 3, jnp.float32)
        Array([[0., 1., 0.]], dtype=float32)
    """
    return jax.nn.one_hot(y, outputs, dtype=dtype) if jnp.issubdtype(y.dtype, jnp.integer) else y.astype(dtype)


def require_fit(who: str, part: str, network: Network, inputs: object, labels: object) -> Examples:
    """Flatten the inputs, and place inputs and labels on the device. Raise if they do not fit the network.

    Warn if the smallest floating-point input is at least 0 and the largest is at least 10. Traced values are not
    checked.
    """
    sizes = network_sizes(network)
    x: Array | np.ndarray = as_array(who, f"the {part} inputs", inputs)
    y: Array | np.ndarray = as_array(who, f"the {part} labels", labels)
    if x.ndim < 2 or math.prod(x.shape[1:]) != sizes[0]:
        raise ShapeError(
            f"{who}: the {part} inputs must be rows of {sizes[0]} values for a network of sizes {sizes}, "
            f"got {describe(x)}."
            f"\nSet the first of sizes to {int(np.prod(x.shape[1:]))}."
        )
    if y.shape[:1] != x.shape[:1] or y.ndim not in (1, 2):
        raise ShapeError(
            f"{who}: expected one label or target for each {part} input, got {describe(x)} and {describe(y)}."
        )
    require_examples(who, len(x))
    if x.dtype != np.uint8 and not jnp.issubdtype(x.dtype, jnp.floating):
        raise DtypeError(f"{who}: the {part} inputs must be bytes (uint8) or floating point, got {describe(x)}.")
    if jnp.issubdtype(y.dtype, jnp.integer) and y.ndim == 1:
        least, most = (0, 0) if is_traced(y) else _extremes(y)
        if least < 0 or most >= sizes[-1]:
            raise DataError(
                f"{who}: the {part} labels run from {least} to {most}, but the network has {sizes[-1]} outputs "
                f"(labels 0 to {sizes[-1] - 1}).\nSet the last of sizes to the number of classes."
            )
    elif not jnp.issubdtype(y.dtype, jnp.floating) or y.shape[1:] != sizes[-1:]:
        raise ShapeError(
            f"{who}: the {part} labels must be whole numbers (n,) or floating-point targets (n, {sizes[-1]}), "
            f"got {describe(y)}."
        )
    for name, a in (("inputs", x), ("targets", y)):
        if is_traced(a) or not jnp.issubdtype(a.dtype, jnp.floating):
            continue
        least, most = _extremes(a)
        if not np.isfinite((least, most)).all():
            raise DataError(
                f"{who}: the {part} {name} have NaN or infinite values.\nReplace or leave out those examples."
            )
        if name == "inputs" and least >= 0 and most >= _UNSCALED:
            warnings.warn(
                f"{who}: the {part} inputs reach {most:g}, but a network expects inputs from about 0 to 1. "
                f"Divide them by {most:g}, or pass bytes (uint8) from 0 to 255.",
                stacklevel=4,
            )
    y = y.astype(jnp.int32) if jnp.issubdtype(y.dtype, jnp.integer) else y
    return Examples(jnp.asarray(x.reshape(len(x), -1)), jnp.asarray(y))


def _extremes(a: Array | np.ndarray) -> tuple[int | float, int | float]:
    """Return the least and the largest value. Both are NaN if any value is NaN."""
    if isinstance(a, jax.Array) and len(a.sharding.device_set) > 1:
        # Without this context, jit would trace the computation although the values are known.
        with jax.ensure_compile_time_eval():
            least, most = _sharded_extremes(a)
        return np.asarray(least).item(), np.asarray(most).item()
    # Use NumPy, because jit would trace operations of JAX although the values are known.
    with np.errstate(invalid="ignore"):
        return np.min(np.asarray(a)).item(), np.max(np.asarray(a)).item()


@jit
def _sharded_extremes(a: Array) -> tuple[Array, Array]:
    least, most = jnp.min(a), jnp.max(a)
    if not jnp.issubdtype(a.dtype, jnp.floating):
        return least, most
    # On several CPU devices, jnp.min and jnp.max ignore a NaN that is on one device only.
    nan = jnp.any(jnp.isnan(a))
    return jnp.where(nan, jnp.nan, least), jnp.where(nan, jnp.nan, most)


def fit_splits(who: str, network: Network, data: object) -> tuple[dict[str, Examples], dict[str, int]]:
    """Return the examples and their number for each split. Rows beyond this number are padding.

    Raise if the examples do not fit the network.
    """
    named: dict[str, object] = (
        {"train": data.train, "validation": data.validation, "test": data.test}
        if isinstance(data, Dataset)
        else {"train": data}
    )
    fitted, counts = {}, {}
    for name, pair in named.items():
        n = pair.n if isinstance(pair, Placed) else None
        if isinstance(pair, Placed):
            pair = (pair.images, pair.labels)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            got = f"{len(pair)} parts" if isinstance(pair, tuple | list) else describe(pair)
            raise DtypeError(f"{who}: the {name} data must be a pair (x, y), got {got}.\nOr pass a jaxgd.Dataset.")
        fitted[name] = require_fit(who, name, network, *pair)
        counts[name] = len(fitted[name].y) if n is None else n
    return fitted, counts


def fit_traced_labels(examples: Examples, outputs: int) -> tuple[Examples, Array | bool]:
    """Clip traced labels to 0, …, outputs − 1. Return the examples, and True if no label was out of range.

    A label out of range must not reach the kernels. `require_fit` has already checked labels with known values.
    """
    if not is_traced(examples.y) or not jnp.issubdtype(examples.y.dtype, jnp.integer):
        return examples, True
    labels = jnp.clip(examples.y, 0, outputs - 1)
    return examples._replace(y=labels), jnp.all(labels == examples.y)
