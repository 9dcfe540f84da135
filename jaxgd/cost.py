"""The costs that descent minimizes, and the accuracy.

A new cost needs a function and an entry in `COSTS`. A cost that must be computed from the weighted inputs z of the
output layer also needs an entry in `_FROM_INPUTS`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxgd.activations import Activation, activate, is_largest, name_of, sigmoid, softmax
from jaxgd.errors import (
    DtypeError,
    RangeError,
    ShapeError,
    as_array,
    describe,
    require_callable,
    require_float,
    require_outputs,
    require_same_shape,
)
from jaxgd.network import Network, activated, output_weighted_input

Cost = Callable[[Array, Array], Array]
"""A cost function: it takes outputs a and targets y, both (..., out), and returns one real scalar."""


def quadratic_cost(a: Float[Array, "*batch out"], y: Float[Array, "*batch out"]) -> Float[Array, ""]:
    """Return half the mean squared distance between outputs and targets.

    C = 1/(2n) Σ ‖y − a‖², with n examples. Here ‖y − a‖² is the sum of the squared differences over the outputs of one
    example.

    Args:
        a: Outputs, real floating point, (..., out). The leading axes are the examples: n is their product.
        y: Targets, real floating point, of the same shape. Nothing is broadcast.

    Returns:
        The cost, a scalar in the wider dtype of a and y; between 0 and out/2 for outputs and targets in [0, 1].

    Raises:
        ShapeError: If the shapes differ, a is a scalar, or the batch has no example or no output.
        DtypeError: If a or y is not real floating point.

    Source: Nielsen, chapter 1, equation (6).

    Example:
        >>> float(quadratic_cost(jnp.array([[0.0, 1.0]]), jnp.array([[1.0, 1.0]])))
        0.5
    """
    _require_pair("quadratic_cost", a, y)
    return 0.5 * jnp.mean(jnp.sum((y - a) ** 2, axis=-1))


def cross_entropy(a: Float[Array, "*batch out"], y: Float[Array, "*batch out"]) -> Float[Array, ""]:
    """Return the cross-entropy of outputs and targets.

    C = −1/n Σ [y ln a + (1 − y) ln(1 − a)], with n examples and the sum over all their outputs.

    This formula is infinite for a wrong output that rounds to 0 or 1. `network_cost`, `backprop` and `train` with
    `cost=cross_entropy` therefore compute a finite cost from the weighted inputs z of the output layer:

    - "sigmoid" outputs: C = 1/n Σ [ln(1 + exp(z)) − y z], the same cost;
    - "softmax" outputs: C = −1/n Σ y ln a, the log-likelihood cost of the book, which is another cost.

    For "sigmoid", the gradient with respect to z is (a − y)/n. For "softmax", it is (a − y)/n if the targets of each
    example sum to 1. `network_cost`, `backprop` and `train` refuse `cross_entropy` with other activations of the output
    layer. A cost of your own that calls `cross_entropy` uses the formula above.

    Args:
        a: Outputs, real floating point, (..., out), from 0 to 1. The leading axes are the examples: n is their product.
        y: Targets, real floating point, of the same shape, from 0 to 1. Nothing is broadcast.

    Returns:
        The cost, a scalar in the wider dtype of a and y, 0 or more. An output that equals its target, 0 or 1, adds 0.

    Raises:
        ShapeError: If the shapes differ, a is a scalar, or the batch has no example or no output.
        DtypeError: If a or y is not real floating point.

    Source: Nielsen, chapter 3, equations (63) and (80).

    Example:
        >>> print(f"{cross_entropy(jnp.array([[0.5, 0.0]]), jnp.array([[1.0, 0.0]])):.4f}")  # ln 2
        0.6931
    """
    _require_pair("cross_entropy", a, y)
    terms = jax.scipy.special.xlogy(y, a) + jax.scipy.special.xlog1py(1 - y, -a)
    return -jnp.mean(jnp.sum(terms, axis=-1))


def _require_pair(who: str, a: object, y: object) -> None:
    require_float(who, "a", a)
    require_float(who, "y", y)
    require_same_shape(who, a=a, y=y)
    require_outputs(who, a)


@jax.custom_jvp
def _sigmoid_entropy(z: Array, y: Array) -> Array:
    """Return Σ [ln(1 + exp(z)) − y z] of each example, without cancellation if y is 0 or 1."""
    terms = jnp.where(z > 0, (1 - y) * z, -y * z) + jnp.log1p(jnp.exp(-jnp.abs(z)))
    return jnp.sum(terms, axis=-1)


@_sigmoid_entropy.defjvp
def _sigmoid_entropy_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (z, y), (dz, dy) = primals, tangents
    return _sigmoid_entropy(z, y), jnp.sum(sigmoid_error(z, y) * dz - z * dy, axis=-1)


def sigmoid_error(z: Array, y: Array) -> Array:
    """Return σ(z) − y, the derivative of the cross-entropy of one example, computed as (1 − y) σ(z) − y σ(−z).

    For y = 1, σ(z) − y would be 0 in float32 from z = 17 on.
    """
    return (1 - y) * sigmoid(z) - y * sigmoid(-z)


@jax.custom_jvp
def _softmax_entropy(z: Array, y: Array) -> Array:
    """Return −Σ y ln a of each example, where a is the softmax of z."""
    # ln a is −∞ if the difference of two z overflows. For y = 0, the product y ln a would then be NaN.
    return -jnp.sum(jnp.where(y == 0, 0, y * _log_softmax(z)), axis=-1)


@_softmax_entropy.defjvp
def _softmax_entropy_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (z, y), (dz, dy) = primals, tangents
    return _softmax_entropy(z, y), jnp.sum(softmax_error(z, y) * dz - _log_softmax(z) * dy, axis=-1)


def _log_softmax(z: Array) -> Array:
    shifted = z - jnp.max(z, axis=-1, keepdims=True)
    rest = jnp.sum(jnp.where(is_largest(z), 0, jnp.exp(shifted)), axis=-1, keepdims=True)
    return shifted - jnp.log1p(rest)


def softmax_error(z: Array, y: Array) -> Array:
    """Return a_j Σ_k y_k − y_j, where a is the softmax of z: the derivative of −Σ y ln a of one example.

    The value is computed as a_j Σ_{k≠j} y_k − y_j (1 − a_j). For the largest output a_m, the sum of the other outputs
    replaces 1 − a_m, which could round to 0.
    """
    a, largest = softmax(z), is_largest(z)
    others = jnp.sum(jnp.where(largest, 0, a), axis=-1, keepdims=True)
    return a * (jnp.sum(y, axis=-1, keepdims=True) - y) - y * jnp.where(largest, others, 1 - a)


class FromInputs(NamedTuple):
    """A cost as a function of the weighted inputs z of the output layer, for one activation of that layer.

    Attributes:
        value: The cost of each example for z and the targets, both (..., out).
        error: The derivative of that cost with respect to z, (..., out): the error δ of the outputs.
    """

    value: Callable[[Array, Array], Array]
    error: Callable[[Array, Array], Array]


COSTS = {
    "quadratic": quadratic_cost,
    "cross-entropy": cross_entropy,
}
"""The costs by their names in `jaxgd train --cost`."""

_FROM_INPUTS = {
    cross_entropy: {
        "sigmoid": FromInputs(_sigmoid_entropy, sigmoid_error),
        "softmax": FromInputs(_softmax_entropy, softmax_error),
    }
}


def from_inputs(cost: Cost, activation: Activation) -> FromInputs | None:
    """Return the cost as a function of z, or None if `_FROM_INPUTS` has none for this activation."""
    forms = next((forms for known, forms in _FROM_INPUTS.items() if known is cost), None)
    return None if forms is None or not isinstance(activation, str) else forms.get(activation)


def cost_from(
    cost: Cost, activation: Activation, z: Float[Array, "*batch out"], y: Float[Array, "*batch out"]
) -> Array:
    """Return the cost of an output layer with the weighted inputs z and this activation.

    Args:
        cost: The cost function. `cross_entropy` is computed from z, and any other from the outputs.
        activation: The activation of the output layer.
        z: Weighted inputs of the output layer, (..., out).
        y: Targets, (..., out).

    Returns:
        The cost, a scalar.
    """
    require_cost_fits("cross_entropy", cost, activation)
    form = from_inputs(cost, activation)
    if form is None:
        return cost(activate(activation, z), y)
    _require_pair("cross_entropy", z, y)
    return jnp.mean(form.value(z, y))


def require_cost_fits(who: str, cost: Cost, activation: Activation) -> None:
    """Raise RangeError if the cost is `cross_entropy` and the activation is neither "sigmoid" nor "softmax"."""
    if cost is cross_entropy and from_inputs(cost, activation) is None:
        raise RangeError(
            f"{who}: the cross-entropy needs an output layer with the activation "
            f"{' or '.join(map(repr, _FROM_INPUTS[cost]))}, got {name_of(activation)}.\n"
            'Give the last layer one of these activations, for instance "softmax".'
        )


def network_cost(
    network: Network,
    x: Float[Array, "*batch in"],
    y: Float[Array, "*batch out"],
    *,
    cost: Cost = quadratic_cost,
    activation: Activation | Sequence[Activation] | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, ""]:
    """Return the cost of a network. Descent minimizes it as a function of the weights and biases.

    C(w, b) = cost(feedforward(network, x), y). `jax.grad(network_cost)` is ∇C.

    Args:
        network: The layers, first to last.
        x: Inputs, real floating point, (..., in).
        y: Targets, (..., out), with the same leading axes as x.
        cost: A function of outputs and targets that returns one real scalar; by default `quadratic_cost`. For
            `cross_entropy`, the cost is computed from the weighted inputs of the output layer; see `cross_entropy`.
        activation: Activations in place of the network's own, as in `init_network`. Default None, the network's own.
        precision: Precision of the matrix products, as in `jax.numpy.matmul`. By default None, JAX's default precision,
            which may be TF32 or bfloat16 on an accelerator; "highest" keeps float32.

    Returns:
        The cost, a scalar in the dtype that `cost` returns.

    Raises:
        ShapeError: If the network is empty, its layers do not fit together, x does not fit the network, or an
            activation of your own returns another shape. `quadratic_cost` and `cross_entropy` also raise it if y does
            not fit the outputs or the batch has no example.
        DtypeError: If x is not real floating point, the network is not a tuple of layers with arrays of floats, or
            `cost` is not a function. Also if an activation is neither a name nor a function with a floating-point
            result.
            `quadratic_cost` and `cross_entropy` also raise it if y is not real floating point.
        RangeError: If the precision or an activation is unknown, or the device does not have the algorithm of the
            precision. Also if `cost` is `cross_entropy` and the output layer is neither "sigmoid" nor "softmax".

    Source: Nielsen, chapter 1, equation (6).

    Example:
        >>> from jaxgd import init_network
        >>> network = init_network(jax.random.key(0), (2, 3, 1))
        >>> gradient = jax.grad(network_cost)(network, jnp.ones((5, 2)), jnp.ones((5, 1)))
        >>> gradient[0].w.shape
        (3, 2)
    """
    require_callable("network_cost", "cost", cost, "It takes outputs and targets.")
    network = activated("network_cost", network, activation)
    z = output_weighted_input("network_cost", network, x, precision)
    return cost_from(cost, network[-1].activation, z, y)


def accuracy(a: Float[Array, "*batch out"], y: Num[Array, "..."]) -> Float[Array, ""]:
    """Return the fraction of examples whose largest output is at the right label.

    An example with a NaN among its outputs counts as wrong. If several outputs share the largest value, the first of
    them counts.

    Args:
        a: Outputs, real floating point, (..., out).
        y: Whole-number labels, (...), or targets, (..., out), whose largest element marks the right label. A label
            outside 0, …, out − 1 counts as wrong.

    Returns:
        The fraction, a scalar between 0 and 1, in the dtype of a, or in float32 if a is narrower.

    Raises:
        ShapeError: If a is a scalar, y fits neither form, or the batch has no example or no output.
        DtypeError: If a is not real floating point, y is not an array of numbers, or the labels are not whole numbers.

    Source: Nielsen, chapter 1, `evaluate`.

    Example:
        >>> float(accuracy(jnp.array([[0.9, 0.2], [0.8, 0.1]]), jnp.array([0, 1])))
        0.5
    """
    require_outputs("accuracy", a)
    y = as_array("accuracy", "y", y)
    if jnp.shape(y) == jnp.shape(a):
        labels = jnp.argmax(y, axis=-1)
    elif jnp.shape(y) == jnp.shape(a)[:-1]:
        if not jnp.issubdtype(jnp.result_type(y), jnp.integer):
            raise DtypeError(f"accuracy: labels must be whole numbers, got {describe(y)}.")
        labels = jnp.asarray(y)
    else:
        raise ShapeError(
            f"accuracy: y must be labels {jnp.shape(a)[:-1]} or targets {jnp.shape(a)}, got {describe(y)}."
        )
    # argmax treats NaN as the largest. Without the test for NaN, a NaN at the right label would count as right.
    right = (jnp.argmax(a, axis=-1) == labels) & ~jnp.any(jnp.isnan(a), axis=-1)
    fraction = jnp.mean(right, dtype=jnp.promote_types(jnp.result_type(a), jnp.float32))
    # Return exactly 1 if all are right. XLA computes the mean as a product with 1/n, and 83 · (1/83) is below 1 in
    # float32.
    return jnp.where(jnp.all(right), jnp.ones_like(fraction), fraction)
