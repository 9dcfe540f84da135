"""The network of sigmoid neurons: a tuple of layers, and the functions that create and run it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgd.errors import (
    DtypeError,
    ShapeError,
    describe,
    given,
    is_float,
    require_choice,
    require_float,
    require_key,
    require_precision,
    require_sizes,
    shown,
)


class Layer(NamedTuple):
    """The weights and biases of one layer of sigmoid neurons.

    a = σ(w a_in + b).

    Attributes:
        w: Weights, (out, in). As in the book, w[j, k] connects input k to neuron j.
        b: Biases, (out,), one per neuron.

    Source: Nielsen, chapter 1, equation (22).

    Example:
        >>> layer = Layer(w=jnp.zeros((10, 30)), b=jnp.zeros(10))  # 30 inputs, 10 neurons
        >>> layer.w.shape
        (10, 30)
    """

    w: Float[Array, "out in"]
    b: Float[Array, " out"]


Network = tuple[Layer, ...]
"""The layers of a network, first to last. Like any tuple of arrays, a network is a pytree."""


def init_network(
    key: PRNGKeyArray, sizes: Sequence[int], scheme: str = "gaussian", dtype: DTypeLike | None = None
) -> Network:
    """Draw a network's weights and biases at random.

    The scheme "gaussian" is the book's: w, b ~ N(0, 1). The scheme "scaled" draws w ~ N(0, 1/in) and b ~ N(0, 1), where
    in is the number of inputs of the layer. Scaled weights keep wide layers from starting saturated.

    Args:
        key: A JAX random key. The same key gives the same network.
        sizes: The widths (inputs, …, outputs): at least two whole numbers, each 1 or more.
        scheme: "gaussian" (default) or "scaled".
        dtype: A real floating-point dtype. By default JAX's default float: float32, or float64 where x64 is enabled.

    Returns:
        A tuple of len(sizes) − 1 layers. Layer l has w (sizes[l + 1], sizes[l]) and b (sizes[l + 1],).

    Raises:
        RangeError: If sizes holds fewer than two numbers or a number below 1, the layers have more than 2³⁰
            weights, or the scheme is unknown.
        DtypeError: If the key is not a random key, a width is not a whole number known before tracing, or the dtype is
            not real floating point of 16 bits or more.
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
    layers = []
    for n_in, n_out, layer_key in zip(sizes[:-1], sizes[1:], jax.random.split(key, len(sizes) - 1), strict=True):
        w_key, b_key = jax.random.split(layer_key)
        w = jax.random.normal(w_key, (n_out, n_in), dtype)
        if scheme == "scaled":
            w = w / jnp.sqrt(jnp.asarray(n_in, dtype))
        layers.append(Layer(w, jax.random.normal(b_key, (n_out,), dtype)))
    return tuple(layers)


def first_network(seed: int, sizes: Sequence[int], scheme: str) -> tuple[Network, PRNGKeyArray]:
    """Return the network before training and the key of the order of examples, both drawn from a seed."""
    # Name the generator: otherwise a user's JAX setting for it would change the numbers drawn from a seed.
    network_key, order_key = jax.random.split(jax.random.key(seed, impl="threefry2x32"))
    return init_network(network_key, sizes, scheme), order_key


def network_sizes(network: Network) -> tuple[int, ...]:
    """Return the widths (inputs, …, outputs) of a network, as `init_network` takes them.

    Args:
        network: The layers, first to last.

    Returns:
        One width more than the network has layers.

    Raises:
        DtypeError: If the network is not a tuple of layers with arrays of floats.
        ShapeError: If the network has no layer, or its layers do not fit together.

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
            # A network from jax.eval_shape has sizes too.
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


def sigmoid(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the output of a sigmoid neuron for the weighted input z.

    σ(z) = 1 / (1 + exp(−z)), finite for every finite z.

    Derivatives of every order use σ′(z) = σ(z)σ(−z). Autodiff of the formula would use a(1 − a), which is exactly 0 in
    float32 for z above about 17. A neuron saturated that far could never learn again.

    Args:
        z: Weighted inputs, real floating point of any shape.

    Returns:
        Outputs of z's shape and dtype, between 0 and 1.

    Raises:
        DtypeError: If z is not real floating point.

    Source: Nielsen, chapter 1, equation (3).

    Example:
        >>> float(sigmoid(jnp.array(0.0)))
        0.5
    """
    require_float("sigmoid", "z", z)
    a: Array = _sigmoid(z)
    return a


@jax.custom_jvp
def _sigmoid(z: Any) -> Any:
    return jax.nn.sigmoid(z)


@_sigmoid.defjvp
def _sigmoid_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    return _sigmoid(z), sigmoid_prime(z) * dz


def sigmoid_prime(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the derivative of the sigmoid.

    σ′(z) = σ(z)(1 − σ(z)) = σ(z)σ(−z). The second form, used here, stays accurate where the neuron saturates.

    Args:
        z: Weighted inputs, real floating point of any shape.

    Returns:
        Derivatives of z's shape and dtype, between 0 and 1/4.

    Raises:
        DtypeError: If z is not real floating point.

    Source: Nielsen, chapter 1, `sigmoid_prime`.

    Example:
        >>> float(sigmoid_prime(jnp.array(0.0)))
        0.25
    """
    require_float("sigmoid_prime", "z", z)
    slope: Array = _sigmoid(z) * _sigmoid(-z)
    return slope


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
    network: Network, x: Float[Array, "*batch in"], *, precision: jax.lax.PrecisionLike = None
) -> Float[Array, "*batch out"]:
    """Return the network's output for the input x.

    a ← σ(w a + b), layer by layer, starting from a = x.

    Args:
        network: The layers, first to last, as from `init_network`.
        x: Inputs, real floating point, (..., in): one example (in,) or a batch with any number of leading axes.
        precision: Precision of the matrix products, as in `jax.numpy.matmul`. The default may be TF32 or bfloat16 on an
            accelerator; "highest" keeps float32. An algorithm of `jax.lax.DotAlgorithmPreset`, or its name, must be one
            that the device has.

    Returns:
        Outputs, (..., out), each between 0 and 1.

    Raises:
        ShapeError: If the last axis of x is not as wide as the network's input, or the layers do not fit together.
        DtypeError: If x is not real floating point, or the network is not a tuple of layers with arrays of floats.
        RangeError: If the precision is unknown, or the device does not have its algorithm.

    Source: Nielsen, chapter 1, equation (22).

    Example:
        >>> network = init_network(jax.random.key(0), (784, 30, 10))
        >>> feedforward(network, jnp.zeros((2, 784))).shape
        (2, 10)
    """
    require_input("feedforward", network, x)
    require_precision("feedforward", precision, jnp.result_type(x, network[0].w))
    a = x
    for layer in network:
        a = sigmoid(weighted_input(layer, a, precision=precision))
    return a


def require_input(who: str, network: Network, x: Any) -> None:
    """Raise unless x is real floating point and its last axis is as wide as the network's input."""
    sizes = network_sizes(network)
    require_float(who, "x", x)
    if jnp.ndim(x) == 0 or jnp.shape(x)[-1] != sizes[0]:
        raise ShapeError(
            f"{who}: x must be (..., {sizes[0]}) for a network of sizes {sizes}, got {describe(x)}.\n"
            "Flatten images first, for instance images.reshape(len(images), -1)."
        )
