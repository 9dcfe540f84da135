"""Examples as training sees them: rows on the device, bytes kept as bytes until they are used."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxgd.errors import DataError, DtypeError, ShapeError, describe, is_traced, require_examples
from jaxgd.network import Network, feedforward, network_sizes

# Rows handled at once where all examples are wanted: 5,000 MNIST images are 16 MB in float32, and fewer rows would
# leave matrix products too small to be quick.
CHUNK = 5_000


class Examples(NamedTuple):
    """Inputs and what they should give.

    Shapes: `x` is (n, in), bytes or floating point; `y` is (n,) labels or (n, out) targets.
    """

    x: Array
    y: Array


def inputs(x: Array, dtype: DTypeLike) -> Float[Array, "*batch in"]:
    """What the network is fed: x/255 for bytes, x itself for floating point.

    >>> inputs(jnp.array([0, 255], jnp.uint8), jnp.float32)
    Array([0., 1.], dtype=float32)
    """
    return x.astype(dtype) / 255 if x.dtype == jnp.uint8 else x.astype(dtype)


def targets(y: Array, outputs: int, dtype: DTypeLike) -> Float[Array, "*batch out"]:
    """What the network should answer: the unit vector of a label, a target itself.

    >>> targets(jnp.array([1]), 3, jnp.float32)
    Array([[0., 1., 0.]], dtype=float32)
    """
    return jax.nn.one_hot(y, outputs, dtype=dtype) if jnp.issubdtype(y.dtype, jnp.integer) else y.astype(dtype)


def outputs_in_chunks(network: Network, x: Array, precision: jax.lax.PrecisionLike = None) -> Float[Array, "n out"]:
    """The network's outputs for all rows of x, CHUNK at a time.

    The way back through it recomputes each chunk, so that the gradient too needs the memory of one chunk only.
    """

    def outputs(rows: Array) -> Array:
        return feedforward(network, inputs(rows, network[-1].b.dtype), precision=precision)

    if len(x) <= CHUNK:
        return outputs(x)
    a: Array = jax.lax.map(jax.checkpoint(outputs), x, batch_size=CHUNK)
    return a


def require_fit(who: str, part: str, network: Network, x: Any, y: Any) -> Examples:
    """Flatten and place x and y on the device; raise unless they fit each other and the network."""
    sizes = network_sizes(network)
    x, y = (a if isinstance(a, jax.Array) else np.asarray(a) for a in (x, y))
    if x.ndim < 2 or x[:1].size != sizes[0]:
        raise ShapeError(
            f"{who}: the {part} inputs must be rows of {sizes[0]} for a network of sizes {sizes}, got {describe(x)}."
            f"\nMake the first of sizes {int(np.prod(x.shape[1:]))}."
        )
    if y.shape[:1] != x.shape[:1] or y.ndim not in (1, 2):
        raise ShapeError(
            f"{who}: one label or target for each {part} input is needed, got {describe(x)} and {describe(y)}."
        )
    require_examples(who, len(x))
    if x.dtype != np.uint8 and not jnp.issubdtype(x.dtype, jnp.floating):
        raise DtypeError(f"{who}: the {part} inputs must be bytes (uint8) or floating point, got {describe(x)}.")
    if jnp.issubdtype(y.dtype, jnp.integer) and y.ndim == 1:
        # As NumPy: inside jit, operations on a JAX array would be traced although its values are known.
        least, most = (0, 0) if is_traced(y) else (np.asarray(y).min(), np.asarray(y).max())
        if least < 0 or most >= sizes[-1]:
            raise DataError(
                f"{who}: the {part} labels run from {least} to {most}, but the network has {sizes[-1]} outputs "
                f"(labels 0 to {sizes[-1] - 1}).\nMake the last of sizes the number of classes."
            )
    elif not jnp.issubdtype(y.dtype, jnp.floating) or y.shape[1:] != sizes[-1:]:
        raise ShapeError(
            f"{who}: the {part} labels must be whole numbers (n,) or floating-point targets (n, {sizes[-1]}), "
            f"got {describe(y)}."
        )
    for name, a in (("inputs", x), ("targets", y)):
        if is_traced(a) or not jnp.issubdtype(a.dtype, jnp.floating):
            continue
        if not np.isfinite(np.asarray(a)).all():
            raise DataError(
                f"{who}: the {part} {name} have NaN or infinite values.\nReplace or leave out those examples."
            )
    y = y.astype(jnp.int32) if jnp.issubdtype(y.dtype, jnp.integer) else y
    return Examples(jnp.asarray(x.reshape(len(x), -1)), jnp.asarray(y))
