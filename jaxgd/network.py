"""The network of neurons: a tuple of layers, and the functions that create and run it."""

import functools
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgd.activations import Activation, activate, require_activation, require_activations
from jaxgd.errors import (
    DtypeError,
    RangeError,
    ShapeError,
    describe,
    given,
    is_float,
    is_traced,
    require_choice,
    require_float,
    require_key,
    require_precision,
    require_sizes,
    shown,
)
from jaxgd.files import free_memory
from jaxgd.pytree import WIDE
from jaxgd.typed import jit, optimization_barrier


class _Parameters(NamedTuple):
    w: Array
    b: Array


@jax.tree_util.register_pytree_with_keys_class
class Layer(_Parameters):
    """The weights and biases of one layer of neurons, and their activation.

    a = σ(w a_in + b), where σ is the activation.

    A layer is a tuple of two arrays: `w, b = layer`. It is a pytree with the leaves w and b. The activation is part
    of the pytree's structure, so a gradient has the activation of its layer.
    `layer._replace(w=…, b=…)` makes a layer with other leaves and the same activation.

    Attributes:
        w: Weights, (out, in). As in the book, w[j, k] connects input k to neuron j.
        b: Biases, (out,), one per neuron.
        activation: "sigmoid" (default), "tanh", "relu", "softmax" for the output layer, or a function from the weighted
            inputs z, (..., out), to outputs of the same shape. A new function object changes the structure and causes a
            recompilation, so define the function once.

    Source: Nielsen, chapter 1, equation (22).

    Example:
        >>> layer = Layer(w=jnp.zeros((10, 30)), b=jnp.zeros(10))  # 30 inputs, 10 neurons
        >>> layer.w.shape, layer.activation
        ((10, 30), 'sigmoid')
    """

    w: Float[Array, "out in"]
    b: Float[Array, " out"]
    activation: Activation

    def __new__(cls, w: Any, b: Any, activation: Activation = "sigmoid") -> "Layer":
        """Make a layer, and check its activation."""
        return cls._unchecked((w, b), require_activation("Layer", activation))

    @classmethod
    def _make(cls, iterable: Any) -> "Layer":  # type: ignore[override]
        """Return a layer with these values of w, b and, if given, the activation."""
        return cls(*iterable)

    @classmethod
    def _unchecked(cls, parameters: Iterable[Any], activation: Activation) -> "Layer":
        layer = tuple.__new__(cls, parameters)
        vars(layer)["activation"] = activation
        return layer

    def _replace(self, **changes: Any) -> "Layer":
        """Return the layer with the given weights, biases or activation in place of its own."""
        return Layer(**{"w": self.w, "b": self.b, "activation": self.activation} | changes)

    def __setattr__(self, name: str, value: Any) -> None:
        """Raise AttributeError: like every tuple, a layer cannot be changed."""
        raise AttributeError(f"Layer: {name} cannot be changed.\nMake a new layer with layer._replace({name}=…).")

    def __repr__(self) -> str:
        """Show the weights, the biases and the activation."""
        return f"Layer(w={self.w!r}, b={self.b!r}, activation={self.activation!r})"

    def __getnewargs__(self) -> tuple[Any, Any, Activation]:
        """Return the arguments of the constructor, for copy and pickle."""
        return self.w, self.b, self.activation

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[object, object], ...], Activation]:
        """Return the leaves with their names for JAX, and the activation."""
        names = map(jax.tree_util.GetAttrKey, self._fields)
        return tuple(zip(names, self, strict=True)), self.activation

    def tree_flatten(self) -> tuple[tuple[object, ...], Activation]:
        """Return the leaves for JAX, and the activation."""
        return tuple(self), self.activation

    @classmethod
    def tree_unflatten(cls, activation: Activation, leaves: Iterable[Any]) -> "Layer":
        """Return the layer with these leaves, unchecked: JAX also passes objects that are not arrays."""
        return cls._unchecked(leaves, activation)


Network = tuple[Layer, ...]
"""The layers of a network, first to last. Like any tuple of pytrees, a network is a pytree."""


def init_network(
    key: PRNGKeyArray,
    sizes: Sequence[int],
    scheme: str = "gaussian",
    dtype: DTypeLike | None = None,
    *,
    activation: Activation | Sequence[Activation] = "sigmoid",
) -> Network:
    """Draw a network's weights and biases at random.

    The scheme "gaussian" is the book's: w, b ~ N(0, 1). The scheme "scaled" draws w ~ N(0, 1/in) and b ~ N(0, 1), where
    in is the number of inputs of the layer. Scaled weights keep wide layers from starting saturated.

    Args:
        key: A JAX random key. The same key gives the same network.
        sizes: The widths (inputs, …, outputs): at least two whole numbers, each from 1 to 2³¹ − 1.
        scheme: "gaussian" (default) or "scaled".
        dtype: A real floating-point dtype. By default float32, or float64 if x64 is enabled.
        activation: The activation of all layers, or a sequence with one activation per layer. An activation is
            "sigmoid" (default), "tanh", "relu", "softmax" for the output layer, or a function of z; see `Layer`. The
            weights do not depend on it.

    Returns:
        A tuple of len(sizes) − 1 layers. Layer l has w (sizes[l + 1], sizes[l]) and b (sizes[l + 1],).

    Raises:
        RangeError: If sizes holds fewer than two numbers or a number outside 1 to 2³¹ − 1, or the scheme or an
            activation is unknown. Also if there is not one activation per layer, or softmax is not at the output.
            Outside jit, also if the weights need more memory than is free.
        DtypeError: If the key is not a random key, a width is not a whole number known before tracing, or the dtype is
            not real floating point of 16 bits or more. Also if an activation is neither a name nor a function.
        ShapeError: If the key is an array of keys.

    Source: Nielsen, chapter 1, "Implementing our network"; chapter 3, "Weight initialization".

    Example:
        >>> network = init_network(jax.random.key(0), (784, 30, 10))
        >>> [layer.w.shape for layer in network]
        [(30, 784), (10, 30)]
    """
    require_key("init_network", key)
    sizes = require_sizes("init_network", sizes)
    require_choice("init_network", "scheme", scheme, ("gaussian", "scaled"))
    try:
        dtype = jnp.result_type(float if dtype is None else dtype)
    except (TypeError, ValueError) as error:
        raise DtypeError(
            f"init_network: dtype must be real floating point, got {shown(dtype)}.\nPass jnp.float32."
        ) from error
    require_float("init_network", "dtype", jnp.zeros((), dtype))
    activations = require_activations("init_network", activation, len(sizes) - 1)
    if not is_traced(key):
        require_memory("init_network", sizes, dtype, 1, "the weights")
    layers = []
    keys = jax.random.split(key, len(sizes) - 1)
    for n_in, n_out, layer_key, its in zip(sizes[:-1], sizes[1:], keys, activations, strict=True):
        w_key, b_key = _two_keys(layer_key)
        w = _weights(w_key, n_out, n_in, dtype, scheme == "scaled", not is_traced(key))
        layers.append(Layer(w, jax.random.normal(b_key, (n_out,), dtype), its))
    return tuple(layers)


def _two_keys(key: Array) -> tuple[Array, Array]:
    first, second = jax.random.split(key)
    return first, second


def first_network(seed: int, sizes: Sequence[int], scheme: str) -> tuple[Network, PRNGKeyArray]:
    """Return an untrained network, and the key for the order of the examples, both drawn from a seed."""
    # Without `impl`, the user's default generator in JAX would change the numbers.
    network_key, order_key = _two_keys(jax.random.key(seed, impl="threefry2x32"))
    return init_network(network_key, sizes, scheme), order_key


def require_memory(
    who: str, sizes: Sequence[int], dtype: DTypeLike, copies: int, purpose: str, device: jax.Device | None = None
) -> None:
    """Raise RangeError if the free memory of a device cannot hold `copies` copies of a wide network."""
    weights = sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))
    if weights < WIDE:
        return
    need, free = copies * weights * np.dtype(dtype).itemsize, _free_memory(device or jax.devices()[0])
    if free is not None and need > free:
        raise RangeError(
            f"{who}: {weights:,} weights need {need / 1e9:.1f} GB for {purpose}, but {free / 1e9:.1f} GB are free.\n"
            f"Make the layers of {shown(tuple(sizes))} narrower, or use a device with more memory."
        )


def _free_memory(device: jax.Device) -> int | None:
    """Return the free memory in bytes: the host's for a CPU, otherwise the accelerator's; None if unknown."""
    if device.platform == "cpu":
        return free_memory()
    known: dict[str, int] = device.memory_stats() or {}
    return known["bytes_limit"] - known["bytes_in_use"] if {"bytes_limit", "bytes_in_use"} <= known.keys() else None


# A wide layer is drawn in blocks of rows, because a draw takes three times the memory of its result. A block has at
# most this number of weights, but at least one row.
_BLOCK = 2**22


@jit(static_argnames=("n_out", "n_in", "dtype", "scaled", "in_blocks"))
def _weights(key: PRNGKeyArray, n_out: int, n_in: int, dtype: np.dtype[Any], scaled: bool, in_blocks: bool) -> Array:
    """Draw the weights of a layer. A draw in blocks saves memory, but XLA cannot divide it among devices."""

    def drawn(key: PRNGKeyArray, rows: int) -> Array:
        w = jax.random.normal(key, (rows, n_in), dtype)
        if not scaled:
            return w
        # Without the barrier, XLA would not round w to its dtype first, and would multiply by 1/√in. Both change the
        # result.
        w, divisor = optimization_barrier((w, jnp.sqrt(jnp.asarray(n_in, dtype))))
        return jnp.asarray(w / divisor)

    rows = max(1, _BLOCK // n_in)
    threefry = str(jax.random.key_impl(key)) in ("fry", "threefry2x32")
    if not in_blocks or rows >= n_out or not threefry or not jax.config.jax_threefry_partitionable:  # type: ignore[attr-defined]
        return drawn(key, n_out)
    # The last block may overlap the one before it, so that all blocks have the same shape.
    first = [min(row, n_out - rows) for row in range(0, n_out, rows)]
    offsets = np.array([divmod(row * n_in, 2**32) for row in first], np.uint32)
    data = jax.random.key_data(key)

    def block(w: Array, start: tuple[Array, Array]) -> tuple[Array, None]:
        row, offset = start
        block_key = jax.random.wrap_key_data(jnp.concatenate([data, offset]), impl=_threefry_at_offset())
        return jax.lax.dynamic_update_slice(w, drawn(block_key, rows), (row, jnp.zeros_like(row))), None

    starts = jnp.array(first, jnp.int32), jnp.asarray(offsets)
    w: Array = jax.lax.scan(block, jnp.zeros((n_out, n_in), dtype), starts)[0]
    return w


@functools.cache
def _threefry_at_offset() -> object:
    """Return a variant of JAX's default random generator that skips the first values.

    Its keys have four words: the two words of a usual key, and two words for the number of values to skip.
    """

    def random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
        i = jax.lax.iota(jnp.uint32, int(np.prod(shape)))
        low = i + key[3]
        counts = jnp.concatenate([jnp.where(low < i, key[2] + 1, key[2]), low])
        first, second = jnp.split(jax.extend.random.threefry_2x32((key[0], key[1]), counts), 2)
        dtype = jnp.dtype(f"uint{bit_width}")
        bits = (first.astype(dtype) << 32) | second.astype(dtype) if bit_width == 64 else (first ^ second).astype(dtype)
        return bits.reshape(shape)

    def unused(*args: object) -> NoReturn:
        raise NotImplementedError("a key with an offset can only draw random bits")

    return jax.extend.random.define_prng_impl(
        key_shape=(4,),
        seed=unused,
        split=unused,
        fold_in=unused,
        random_bits=random_bits,
        name="threefry2x32_at_offset",
        tag="fryo",
    )


def network_sizes(network: Network) -> tuple[int, ...]:
    """Return the widths (inputs, …, outputs) of a network, as `init_network` takes them.

    Args:
        network: The layers, first to last.

    Returns:
        The widths, one more than the number of layers.

    Raises:
        DtypeError: If the network is not a tuple of layers with arrays of floats.
        ShapeError: If the network is a single Layer without a tuple, has no layer, or its layers do not fit together.

    Example:
        >>> network_sizes(init_network(jax.random.key(0), (5, 4, 3)))
        (5, 4, 3)
    """
    if isinstance(network, Layer):
        raise ShapeError("network: expected a tuple of layers, got one Layer.\nA network of one layer is (layer,).")
    if not isinstance(network, tuple | list) or not all(isinstance(layer, Layer) for layer in network):
        got = ", ".join(map(describe, network[:3])) if isinstance(network, tuple | list) else describe(network)
        raise DtypeError(f"network: expected a tuple of layers, got {got}.\nMake one with init_network(key, sizes).")
    if not network:
        raise ShapeError("network: expected at least one layer, got none.\nMake one with init_network(key, sizes).")
    for i, layer in enumerate(network):
        for name, x in zip(Layer._fields, layer, strict=True):
            # Accept a network from jax.eval_shape, which has shapes but no values.
            if not (isinstance(x, jax.ShapeDtypeStruct) or (hasattr(x, "shape") and is_float(x))):
                raise DtypeError(
                    f"network: {name} of layer [{i}] must be an array of floats, got {given(x)}.\n"
                    "Convert it with jnp.asarray(x, float)."
                )
    sizes = list(jnp.shape(network[0].w)[-1:])
    for i, (w, b) in enumerate(network):
        if jnp.ndim(w) != 2 or jnp.shape(w)[1] != sizes[-1] or jnp.shape(b) != jnp.shape(w)[:1]:
            raise ShapeError(
                f"network: layer [{i}] must have w (out, {sizes[-1] if sizes else 'in'}) and b (out,), "
                f"got w {describe(w)} and b {describe(b)}."
            )
        sizes.append(jnp.shape(w)[0])
    return tuple(sizes)


def weighted_input(
    layer: Layer, a: Float[Array, "*batch in"], *, precision: jax.lax.PrecisionLike = None
) -> Float[Array, "*batch out"]:
    """Return the weighted input of a layer's neurons.

    z = w a + b.

    Args:
        layer: The layer, with w (out, in) and b (out,).
        a: Activations of the layer before, (..., in).
        precision: Precision of the matrix product, as in `jax.numpy.matmul`. It matters on accelerators.

    Returns:
        Weighted inputs, (..., out).

    Source: Nielsen, chapter 2, equation (25).

    Example:
        >>> float(weighted_input(Layer(jnp.array([[2.0]]), jnp.array([1.0])), jnp.array([3.0]))[0])
        7.0
    """
    z = jnp.matmul(a, layer.w.T, precision=precision)
    return z + jnp.broadcast_to(layer.b, z.shape)


def feedforward(
    network: Network,
    x: Float[Array, "*batch in"],
    *,
    activation: Activation | Sequence[Activation] | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, "*batch out"]:
    """Return the network's output for the input x.

    a ← σ(w a + b), layer by layer, starting from a = x. Each layer has its own activation in place of σ.

    Args:
        network: The layers, first to last, as from `init_network`.
        x: Inputs, real floating point, (..., in): one example (in,) or a batch with any number of leading axes.
        activation: Activations in place of the network's own, as in `init_network`. Default None, the network's own.
        precision: Precision of the matrix products, as in `jax.numpy.matmul`. The default may be TF32 or bfloat16 on an
            accelerator; "highest" keeps float32. A `jax.lax.DotAlgorithmPreset`, or its name, is allowed if the device
            has this algorithm.

    Returns:
        Outputs, (..., out): between 0 and 1 for sigmoid and softmax, between −1 and 1 for tanh, and 0 or more for relu.

    Raises:
        ShapeError: If the last axis of x is not as wide as the network's input, the layers do not fit together, or an
            activation of your own returns another shape.
        DtypeError: If x is not real floating point, the network is not a tuple of layers with arrays of floats, or an
            activation is neither a name nor a function with a floating-point result.
        RangeError: If the precision or an activation is unknown, or the device does not have the algorithm of the
            precision. Also if `activation` is a sequence without one activation per layer, or softmax is not at the
            output.

    Source: Nielsen, chapter 1, equation (22).

    Example:
        >>> network = init_network(jax.random.key(0), (784, 30, 10))
        >>> feedforward(network, jnp.zeros((2, 784))).shape
        (2, 10)
    """
    network = activated("feedforward", network, activation)
    z = output_weighted_input("feedforward", network, x, precision)
    return activate(network[-1].activation, z)


def output_weighted_input(
    who: str, network: Network, x: Float[Array, "*batch in"], precision: jax.lax.PrecisionLike = None
) -> Float[Array, "*batch out"]:
    """Return the weighted input of the output layer for the input x.

    Raise if x does not fit the network, or the device does not have the precision.
    """
    require_input(who, network, x)
    require_precision(who, precision, jnp.result_type(x, network[0].w))
    a = x
    for layer in network[:-1]:
        a = activate(layer.activation, weighted_input(layer, a, precision=precision))
    return weighted_input(network[-1], a, precision=precision)


def activated(who: str, network: Network, activation: object) -> Network:
    """Return the network with these activations. None keeps the network's own."""
    if activation is None:
        return network
    network_sizes(network)
    each = require_activations(who, activation, len(network))
    return tuple(layer._replace(activation=its) for layer, its in zip(network, each, strict=True))


def require_input(who: str, network: Network, x: Array) -> None:
    """Raise unless x is real floating point and its last axis is as wide as the network's input."""
    sizes = network_sizes(network)
    require_float(who, "x", x)
    if jnp.ndim(x) == 0 or jnp.shape(x)[-1] != sizes[0]:
        raise ShapeError(
            f"{who}: x must be (..., {sizes[0]}) for a network of sizes {sizes}, got {describe(x)}.\n"
            "Flatten images first, for instance images.reshape(len(images), -1)."
        )
