"""The evaluation of a network on a split: cost, accuracy, saturation and gradient."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxgd.activations import Activation, at_limit
from jaxgd.cost import accuracy
from jaxgd.mesh import control
from jaxgd.network import Network
from jaxgd.pytree import dot


class Evaluation(NamedTuple):
    """The evaluation of a network on all examples of a split.

    Attributes:
        cost: The mean cost C, a scalar.
        accuracy: The fraction of examples whose largest output is at the right label, a scalar. It means nothing for
            a network with a single output.
        saturated: True if every output is at a limit of its activation, within the machine epsilon; a scalar.
        gradient: ∇C, like the network; None if it was not computed.
    """

    cost: Float[Array, ""]
    accuracy: Float[Array, ""]
    saturated: Bool[Array, ""]
    gradient: Network | None


def evaluation_of(
    cost: Array, a: Array, y: Array, gradient: Network | None, activation: Activation = "sigmoid"
) -> Evaluation:
    """Return the evaluation of a network that has this cost, the outputs a for the answers y, and this gradient."""
    return Evaluation(cost, accuracy(a, y), is_saturated(a, activation), gradient)


def penalty(network: Network, decay: Float[Array, ""]) -> Float[Array, ""]:
    """Return the term of L2 regularization, (λ/2n) Σ w² over all weights without the biases, for a decay of λ/n."""
    weights = [layer.w for layer in network]
    return 0.5 * decay * dot(weights, weights)


def penalized(result: Evaluation, network: Network, decay: Float[Array, ""]) -> Evaluation:
    """Return the evaluation with the term of L2 regularization in its cost, and the term's slope (λ/n) w in ∇C."""
    result = result._replace(cost=result.cost + penalty(network, decay))
    if result.gradient is None:
        return result
    pairs = zip(result.gradient, network, strict=True)
    slopes = (slope._replace(w=(slope.w + decay * layer.w).astype(slope.w.dtype)) for slope, layer in pairs)
    return result._replace(gradient=tuple(slopes))


def is_saturated(a: Array, activation: Activation = "sigmoid") -> Array:
    """Return True if every output is at a limit of its activation, where σ′ is at most the machine epsilon."""

    def within(a: Array) -> Array:
        return jnp.all(at_limit(activation, a))

    # The first 100 examples nearly always decide, which saves 0.4 ms per epoch of 50,000 examples.
    return control.cond(within(a[:100]), lambda: within(a), lambda: jnp.array(False))
