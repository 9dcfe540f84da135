"""What descent makes small, and what a person asks instead: the cost and the accuracy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxgd.errors import DtypeError, ShapeError, describe, require_float, require_outputs, require_same_shape
from jaxgd.network import Network, feedforward

Cost = Callable[[Array, Array], Array]
"""A cost of outputs a and targets y, both (..., out): one real scalar."""


def quadratic_cost(a: Float[Array, "*batch out"], y: Float[Array, "*batch out"]) -> Float[Array, ""]:
    """Half the mean squared distance between outputs and targets.

    C = 1/(2n) Σ ‖y − a‖², with n the product of the leading axes.

    Shapes: `a` and `y` alike, (..., out); the result is a scalar.
    Range: 0 ≤ C ≤ out/2 for outputs and targets in [0, 1].
    Raises: ShapeError if the shapes differ or there is no example; DtypeError for whole or complex numbers. Nothing is
    broadcast.
    Source: Nielsen, chapter 1, equation (6).

    >>> float(quadratic_cost(jnp.array([[0.0, 1.0]]), jnp.array([[1.0, 1.0]])))
    0.5
    """
    require_same_shape("quadratic_cost", a=a, y=y)
    require_outputs("quadratic_cost", a)
    require_float("quadratic_cost", "y", y)
    return 0.5 * jnp.mean(jnp.sum((y - a) ** 2, axis=-1))


def network_cost(
    network: Network,
    x: Float[Array, "*batch in"],
    y: Float[Array, "*batch out"],
    *,
    cost: Cost = quadratic_cost,
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, ""]:
    """The cost as a function of the weights and biases, which is what descent needs.

    C(w, b) = cost(feedforward(network, x), y); `jax.grad(network_cost)` is ∇C.

    Shapes: `x` is (..., in), `y` is (..., out), with the same leading axes; the result is a scalar.
    Raises: ShapeError and DtypeError as `feedforward` and the cost do.
    Source: Nielsen, chapter 1, equation (6).

    >>> from jaxgd import init_network
    >>> network = init_network(jax.random.key(0), (2, 3, 1))
    >>> jax.grad(network_cost)(network, jnp.ones((5, 2)), jnp.ones((5, 1)))[0].w.shape
    (3, 2)
    """
    return cost(feedforward(network, x, precision=precision), y)


def accuracy(a: Float[Array, "*batch out"], y: Num[Array, "..."]) -> Float[Array, ""]:
    """The fraction of examples whose strongest output is the right one.

    Shapes: `a` is (..., out); `y` holds whole-number labels (...,), or targets (..., out), whose largest is right.
    Range: 0 to 1. Outputs with a NaN among them count as wrong; of equal outputs the first counts.
    Raises: ShapeError if the shapes do not fit or there is no example; DtypeError for labels that are not whole.
    Source: Nielsen, chapter 1, `evaluate`.

    >>> float(accuracy(jnp.array([[0.9, 0.2], [0.8, 0.1]]), jnp.array([0, 1])))
    0.5
    """
    require_outputs("accuracy", a)
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
    # argmax takes a NaN for the largest, which would credit a ruined network with every 0.
    right = (jnp.argmax(a, axis=-1) == labels) & ~jnp.any(jnp.isnan(a), axis=-1)
    fraction = jnp.mean(right, dtype=jnp.promote_types(jnp.result_type(a), jnp.float32))
    # XLA divides by way of the reciprocal, and 83 · (1/83) is not 1.
    return jnp.where(jnp.all(right), jnp.ones_like(fraction), fraction)
