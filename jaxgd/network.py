"""The network of sigmoid neurons: a tuple of layers, and functions of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgd.errors import RangeError, ShapeError, describe, require_float, require_sizes


class Layer(NamedTuple):
    """One layer's weights and biases: a = σ(w a_in + b).

    Shapes: `w` is (out, in), `b` is (out,), as in the book.
    Source: Nielsen, chapter 1, equation (22).
    """

    w: Float[Array, "out in"]
    b: Float[Array, " out"]


Network = tuple[Layer, ...]
"""A network is the tuple of its layers, first to last; a pytree like any other."""


def init_network(
    key: PRNGKeyArray, sizes: Sequence[int], scheme: str = "gaussian", dtype: DTypeLike | None = None
) -> Network:
    """Draw a network's weights and biases at random.

    "gaussian": w, b ~ N(0, 1), the book's. "scaled": w ~ N(0, 1/fan-in), b ~ N(0, 1), which keeps wide layers from
    starting saturated.

    Shapes: `sizes` is (inputs, …, outputs), at least two numbers; the result has len(sizes) − 1 layers.
    Units: `dtype` defaults to the default float: float32, or float64 where x64 is enabled.
    Raises: RangeError for sizes or a scheme that cannot be; DtypeError for a width that is no whole number.
    Source: Nielsen, chapter 1, "Implementing our network"; chapter 3, "Weight initialization".

    >>> [layer.w.shape for layer in init_network(jax.random.key(0), (784, 30, 10))]
    [(30, 784), (10, 30)]
    """
    require_sizes("init_network", sizes)
    if scheme not in ("gaussian", "scaled"):
        raise RangeError(f"init_network: scheme must be 'gaussian' or 'scaled', got {scheme!r}.")
    dtype = jnp.result_type(float) if dtype is None else dtype
    require_float("init_network", "dtype", jnp.zeros((), dtype))
    layers = []
    for n_in, n_out, layer_key in zip(sizes[:-1], sizes[1:], jax.random.split(key, len(sizes) - 1), strict=True):
        w_key, b_key = jax.random.split(layer_key)
        w = jax.random.normal(w_key, (n_out, n_in), dtype)
        if scheme == "scaled":
            w = w / jnp.sqrt(jnp.asarray(n_in, dtype))
        layers.append(Layer(w, jax.random.normal(b_key, (n_out,), dtype)))
    return tuple(layers)


def network_sizes(network: Network) -> tuple[int, ...]:
    """The widths (inputs, …, outputs) that `init_network` would be given.

    Raises: ShapeError if the layers do not fit together.

    >>> network_sizes(init_network(jax.random.key(0), (5, 4, 3)))
    (5, 4, 3)
    """
    if not network:
        raise ShapeError("network: expected at least one layer, got none.\nMake one with init_network(key, sizes).")
    if isinstance(network, Layer):
        raise ShapeError("network: expected a tuple of layers, got one Layer.\nA network of one layer is (layer,).")
    sizes = list(jnp.shape(network[0].w)[-1:])
    for i, (w, b) in enumerate(network):
        if jnp.ndim(w) != 2 or jnp.shape(w)[1] != sizes[-1] or jnp.shape(b) != jnp.shape(w)[:1]:
            raise ShapeError(
                f"network: layer [{i}] must have w (out, {sizes[-1] if sizes else 'in'}) and b (out,), "
                f"got w {describe(w)} and b {describe(b)}."
            )
        sizes.append(jnp.shape(w)[0])
    return tuple(sizes)


@jax.custom_jvp
def sigmoid(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The sigmoid neuron's output for the weighted input z.

    σ(z) = 1 / (1 + exp(−z)), finite for every finite z, with the derivative σ′(z) = σ(z)σ(−z) to every order.
    The textbook's a(1 − a), which autodiff would use, is exactly 0 in float32 from about z = 17.5 on: there a saturated
    neuron could never learn again.

    Range: 0 ≤ σ ≤ 1.
    Source: Nielsen, chapter 1, equation (3).

    >>> float(sigmoid(jnp.array(0.0)))
    0.5
    """
    return jax.nn.sigmoid(z)


@sigmoid.defjvp
def _sigmoid_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    return sigmoid(z), sigmoid_prime(z) * dz


def sigmoid_prime(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The sigmoid's slope.

    σ′(z) = σ(z)(1 − σ(z)) = σ(z)σ(−z); the second form keeps its relative accuracy where the neuron saturates.

    Range: 0 ≤ σ′ ≤ 1/4.
    Source: Nielsen, chapter 1, `sigmoid_prime`.

    >>> float(sigmoid_prime(jnp.array(0.0)))
    0.25
    """
    return sigmoid(z) * sigmoid(-z)


def weighted_input(
    layer: Layer, a: Float[Array, "*batch in"], *, precision: jax.lax.PrecisionLike = None
) -> Float[Array, "*batch out"]:
    """The weighted input of a layer's neurons.

    z = w a + b.

    Shapes: `a` is (..., in); the result is (..., out).
    Source: Nielsen, chapter 2, equation (25).

    >>> float(weighted_input(Layer(jnp.array([[2.0]]), jnp.array([1.0])), jnp.array([3.0]))[0])
    7.0
    """
    z = jnp.matmul(a, layer.w.T, precision=precision)
    return z + jnp.broadcast_to(layer.b, z.shape)


def feedforward(
    network: Network, x: Float[Array, "*batch in"], *, precision: jax.lax.PrecisionLike = None
) -> Float[Array, "*batch out"]:
    """The network's output for the input x.

    a ← σ(w a + b), layer by layer, starting from a = x.

    Shapes: `x` is (..., in), one example or many; the result is (..., out).
    Range: 0 ≤ a ≤ 1.
    Units: `precision` is that of the matrix products, as in `jax.numpy.matmul`; it matters on accelerators.
    Raises: ShapeError if x does not fit the network; DtypeError if x is not floating point.
    Source: Nielsen, chapter 1, equation (22).

    >>> feedforward(init_network(jax.random.key(0), (784, 30, 10)), jnp.zeros((2, 784))).shape
    (2, 10)
    """
    require_input("feedforward", network, x)
    a = x
    for layer in network:
        a = sigmoid(weighted_input(layer, a, precision=precision))
    return a


def require_input(who: str, network: Network, x: Any) -> None:
    """Raise unless x is floating point and as wide as the network's input."""
    sizes = network_sizes(network)
    require_float(who, "x", x)
    if jnp.ndim(x) == 0 or jnp.shape(x)[-1] != sizes[0]:
        raise ShapeError(
            f"{who}: x must be (..., {sizes[0]}) for a network of sizes {sizes}, got {describe(x)}.\n"
            "Flatten images first, for instance images.reshape(len(images), -1)."
        )
