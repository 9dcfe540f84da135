"""The cost that descent minimizes, and the accuracy, which is reported next to it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxgd.errors import (
    DtypeError,
    ShapeError,
    as_array,
    describe,
    require_callable,
    require_float,
    require_outputs,
    require_same_shape,
)
from jaxgd.network import Network, feedforward

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
    require_float("quadratic_cost", "a", a)
    require_float("quadratic_cost", "y", y)
    require_same_shape("quadratic_cost", a=a, y=y)
    require_outputs("quadratic_cost", a)
    return 0.5 * jnp.mean(jnp.sum((y - a) ** 2, axis=-1))


def network_cost(
    network: Network,
    x: Float[Array, "*batch in"],
    y: Float[Array, "*batch out"],
    *,
    cost: Cost = quadratic_cost,
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, ""]:
    """Return the cost as a function of the weights and biases, the function that descent minimizes.

    C(w, b) = cost(feedforward(network, x), y). `jax.grad(network_cost)` is ∇C.

    Args:
        network: The layers, first to last.
        x: Inputs, real floating point, (..., in).
        y: Targets, (..., out), with the same leading axes as x.
        cost: A function of outputs and targets that returns one real scalar; by default `quadratic_cost`.
        precision: Precision of the matrix products, as in `jax.numpy.matmul`. By default None, JAX's default precision,
            which may be TF32 or bfloat16 on an accelerator; "highest" keeps float32.

    Returns:
        The cost, a scalar in the dtype that `cost` returns.

    Raises:
        ShapeError: If the network is empty, its layers do not fit together or x does not fit the network.
            `quadratic_cost` also raises it if y does not fit the outputs or the batch has no example.
        DtypeError: If x, or y for `quadratic_cost`, is not real floating point, the network is not a tuple of layers
            with arrays of floats, or `cost` is not a function.
        RangeError: If the precision is unknown, or the device does not have its algorithm.

    Source: Nielsen, chapter 1, equation (6).

    Example:
        >>> from jaxgd import init_network
        >>> network = init_network(jax.random.key(0), (2, 3, 1))
        >>> gradient = jax.grad(network_cost)(network, jnp.ones((5, 2)), jnp.ones((5, 1)))
        >>> gradient[0].w.shape
        (3, 2)
    """
    require_callable("network_cost", "cost", cost, "It takes outputs and targets.")
    return cost(feedforward(network, x, precision=precision), y)


def accuracy(a: Float[Array, "*batch out"], y: Num[Array, "..."]) -> Float[Array, ""]:
    """Return the fraction of examples whose largest output is at the right label.

    An example with a NaN among its outputs counts as wrong. If several outputs are the largest, the first one counts.

    Args:
        a: Outputs, real floating point, (..., out).
        y: Whole-number labels, (...), or targets, (..., out), whose largest element marks the right label. A label
            outside 0, …, out − 1 counts as wrong.

    Returns:
        The fraction, a scalar between 0 and 1, in the dtype of a and at least float32.

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
    # argmax treats NaN as the largest. Without the second test, a NaN at the right label would count as right.
    right = (jnp.argmax(a, axis=-1) == labels) & ~jnp.any(jnp.isnan(a), axis=-1)
    fraction = jnp.mean(right, dtype=jnp.promote_types(jnp.result_type(a), jnp.float32))
    # Return exactly 1 if all are right. XLA computes the mean as a product with 1/n, and 83 · (1/83) is below 1 in
    # float32.
    return jnp.where(jnp.all(right), jnp.ones_like(fraction), fraction)
