"""The evaluation of a network on a split: cost, accuracy, saturation and gradient."""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxgd.cost import accuracy
from jaxgd.network import Network


class Evaluation(NamedTuple):
    """The evaluation of a network on all examples of a split.

    Attributes:
        cost: The mean cost C, a scalar.
        accuracy: The fraction of examples whose largest output is at the right label, a scalar. It means nothing for
            a network with a single output.
        saturated: True if every output is within the machine epsilon of 0 or 1, a scalar.
        gradient: ∇C, like the network; None if it was not computed.
    """

    cost: Float[Array, ""]
    accuracy: Float[Array, ""]
    saturated: Bool[Array, ""]
    gradient: Network | None


def evaluation_of(cost: Array, a: Array, y: Array, gradient: Network | None) -> Evaluation:
    """Return the evaluation of a network that has this cost, the outputs a for the answers y, and this gradient."""
    return Evaluation(cost, accuracy(a, y), is_saturated(a), gradient)


def is_saturated(a: Array) -> Array:
    """Return True if every output is within the machine epsilon of 0 or 1, so that σ′ is at most that."""
    eps = jnp.finfo(a.dtype).eps  # type: ignore[no-untyped-call]

    def within(a: Array) -> Array:
        return jnp.all((a <= eps) | (a >= 1 - eps))

    # The first 100 examples nearly always decide, which saves 0.4 ms per epoch of 50,000 examples.
    first = within(a[:100])
    return cast(Array, jax.lax.cond(first, lambda: within(a), lambda: first))
