"""The activation functions of the neurons, with derivatives written by hand.

To add an activation, add one entry to `ACTIVATIONS`, and one row to the table in `tests/test_activations.py`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxgd.errors import DtypeError, RangeError, ShapeError, describe, is_float, require_float, shown
from jaxgd.seen import hashable
from jaxgd.typed import finfo, vjp

Activation = str | Callable[[Array], Array]
"""An activation: the name of an entry of `ACTIVATIONS`, or a function of the weighted inputs z."""


def sigmoid(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the output of a sigmoid neuron for the weighted input z.

    σ(z) = 1 / (1 + exp(−z)), finite for every finite z.

    Derivatives of every order use σ′(z) = σ(z)σ(−z). `jax.nn.sigmoid` has the derivative a(1 − a), which is exactly 0
    in float32 for z above about 17. With a derivative of 0, the neuron could never learn again.

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
    return _sigmoid(z)


@jax.custom_jvp
def _sigmoid(z: Array) -> Array:
    return jax.nn.sigmoid(z)


@_sigmoid.defjvp
def _sigmoid_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
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
    return _sigmoid(z) * _sigmoid(-z)


@jax.custom_jvp
def tanh(z: Array) -> Array:
    """Return the hyperbolic tangent of z. Derivatives of every order use `tanh_prime`."""
    return jnp.tanh(z)


@tanh.defjvp
def _tanh_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    return tanh(z), tanh_prime(z) * dz


def tanh_prime(z: Array) -> Array:
    """Return the derivative of tanh, 1 − tanh²(z) = 4σ(2z)σ(−2z).

    The first form is exactly 0 in float32 for z above about 9, so this function uses the second.
    """
    return 4 * sigmoid_prime(2 * z)


def relu_prime(z: Array) -> Array:
    """Return the derivative of max(z, 0): 1 above 0, and 0 elsewhere, also at 0."""
    return (z > 0).astype(z.dtype)


@jax.custom_jvp
def softmax(z: Array) -> Array:
    """Return exp(z_j) / Σ_k exp(z_k) over the last axis. Derivatives of every order use `softmax_product`."""
    return jax.nn.softmax(z, axis=-1)


@softmax.defjvp
def _softmax_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    return softmax(z), softmax_product(z, dz)


def softmax_product(z: Array, v: Array) -> Array:
    """Return the product of the softmax's Jacobian with v, a_j (v_j − Σ_k a_k v_k). The Jacobian is symmetric.

    The elements of the product add up to 0. The element j with the largest output is computed as minus the sum of
    the others, because its formula contains 1 − a_j, which rounds to 0 near a_j = 1.
    """
    a, largest = softmax(z), is_largest(z)
    product = jnp.where(largest, 0, a * (v - jnp.sum(a * v, axis=-1, keepdims=True)))
    return jnp.where(largest, -jnp.sum(product, axis=-1, keepdims=True), product)


def is_largest(z: Array) -> Array:
    """Return True at the largest element of each row, and False elsewhere. The first of equal elements counts."""
    return jax.lax.broadcasted_iota(int, z.shape, z.ndim - 1) == jnp.argmax(z, axis=-1, keepdims=True)


def _by_slope(prime: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda z, v: v * prime(z)


def _is_0_or_1(a: Array, eps: float) -> Array:
    return (a <= eps) | (a >= 1 - eps)


class Entry(NamedTuple):
    """An activation of the registry.

    Attributes:
        function: The outputs a of the weighted inputs z, both (..., out).
        product: The product of the transposed Jacobian ∂a/∂z at z with a vector v, (..., out). For an
            elementwise function f, it is v ⊙ f′(z).
        at_limit: True for each output a where the function is flat, within the machine epsilon.
        output_only: True if only the output layer may have this activation.
    """

    function: Callable[[Array], Array]
    product: Callable[[Array, Array], Array]
    at_limit: Callable[[Array, float], Array]
    output_only: bool = False


ACTIVATIONS = {
    "sigmoid": Entry(sigmoid, _by_slope(sigmoid_prime), _is_0_or_1),
    "tanh": Entry(tanh, _by_slope(tanh_prime), lambda a, eps: jnp.abs(a) >= 1 - eps),
    # For an infinite v, v × 0 would be NaN. `jnp.where` gives 0.
    "relu": Entry(jax.nn.relu, lambda z, v: jnp.where(z > 0, v, 0), lambda a, eps: a <= 0),
    "softmax": Entry(softmax, softmax_product, _is_0_or_1, output_only=True),
}


def activate(activation: Activation, z: Float[Array, "*batch out"]) -> Float[Array, "*batch out"]:
    """Return the outputs of neurons with the weighted inputs z.

    Args:
        activation: The activation.
        z: Weighted inputs, (..., out).

    Returns:
        Outputs, (..., out).

    Raises:
        ShapeError: If a function of your own returns another shape than that of z.
        DtypeError: If a function of your own does not return real floating point.
    """
    if isinstance(activation, str):
        return ACTIVATIONS[activation].function(z)
    a = activation(z)
    if not is_float(a):
        raise DtypeError(f"activation: {name_of(activation)} must return real floating point, got {describe(a)}.")
    if jnp.shape(a) != jnp.shape(z):
        raise ShapeError(
            f"activation: {name_of(activation)} must return an output for each weighted input, got {describe(a)} for "
            f"{describe(z)}."
        )
    return jnp.asarray(a)


def backward(activation: Activation, z: Array, v: Array) -> Array:
    """Return (∂a/∂z)ᵀ v, the product of the transposed Jacobian of the outputs at z with the vector v.

    The registry holds this product for its activations. Autodiff computes it for a function of your own.
    """
    if isinstance(activation, str):
        return ACTIVATIONS[activation].product(z, v)
    a, pullback = vjp(lambda z: activate(activation, z), z)
    return pullback(v.astype(a.dtype))[0]


def at_limit(activation: Activation, a: Array) -> Bool[Array, "..."]:
    """Return True for each output where the activation is flat, within the machine epsilon.

    The flat outputs are 0 and 1 for sigmoid and softmax, ±1 for tanh, and 0 for relu. For a function of your own, the
    flat outputs are unknown, so the result is False.
    """
    if not isinstance(activation, str):
        return jnp.zeros(jnp.shape(a), bool)
    return ACTIVATIONS[activation].at_limit(a, float(finfo(a.dtype).eps))


def name_of(activation: Activation) -> str:
    """Return the name of an activation for a message.

    >>> name_of("tanh"), name_of(jnp.sin)
    ("'tanh'", 'the function sin')
    """
    if isinstance(activation, str):
        return repr(activation)
    return f"the function {getattr(activation, '__name__', type(activation).__name__)}"


def require_activation(who: str, activation: object) -> Activation:
    """Return an activation as a hashable value. Raise unless it is a name in the registry or a function."""
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise RangeError(
                f"{who}: activation must be {_names()} or a function of z, got {shown(activation)}.\n"
                'The book uses "sigmoid".'
            )
        return activation
    if not callable(activation):
        raise DtypeError(
            f"{who}: activation must be {_names()} or a function of z, got {describe(activation)}.\n"
            'The book uses "sigmoid".'
        )
    return hashable(activation)


def require_activations(who: str, activation: object, layers: int) -> tuple[Activation, ...]:
    """Return the activation of each layer, given one activation for all layers, or a sequence with one per layer."""
    given: Sequence[object] = (activation,) * layers
    if isinstance(activation, Sequence) and not isinstance(activation, str):
        given = activation
    if len(given) != layers:
        raise RangeError(
            f"{who}: activation must be one activation for all layers, or one for each of the {layers} layers, "
            f"got {len(given)}.\n"
            'For instance ("sigmoid", "softmax") for two layers.'
        )
    each = tuple(require_activation(who, x) for x in given)
    for x in each[:-1]:
        if isinstance(x, str) and ACTIVATIONS[x].output_only:
            raise RangeError(
                f"{who}: activation {x!r} is only for the output layer, got it for an earlier layer.\n"
                f'Pass one activation for each of the {layers} layers, for instance ("sigmoid", "{x}") for two.'
            )
    return each


def _names() -> str:
    return ", ".join(map(repr, ACTIVATIONS))
