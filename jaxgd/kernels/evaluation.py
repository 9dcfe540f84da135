"""The cost to minimize, and the evaluation of a network on a split: cost, accuracy, saturation and gradient."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxgd.activations import Activation, activate, at_limit
from jaxgd.chunks import UNBATCHED, Batched, Budget, weighted_inputs_in_chunks
from jaxgd.cost import Cost, accuracy, cost_from, network_cost
from jaxgd.examples import Examples, inputs, targets
from jaxgd.mesh import control
from jaxgd.network import Network
from jaxgd.pytree import dot
from jaxgd.typed import value_and_grad


class Evaluation(NamedTuple):
    """The evaluation of a network on all examples of a split.

    Attributes:
        cost: The mean cost C, a scalar.
        accuracy: The fraction of examples whose largest output is at the right label, a scalar. It means nothing for
            a network with a single output.
        saturated: True if every output is at a limit of its activation, within the machine epsilon; a scalar.
        gradient: ∇C, with the shapes of the network. None if it was not computed.
    """

    cost: Float[Array, ""]
    accuracy: Float[Array, ""]
    saturated: Bool[Array, ""]
    gradient: Network | None


def evaluation_of(
    cost: Array, a: Array, y: Array, gradient: Network | None, activation: Activation = "sigmoid"
) -> Evaluation:
    """Return the evaluation that follows from the cost, the outputs a, the answers y and the gradient."""
    return Evaluation(cost, accuracy(a, y), is_saturated(a, activation), gradient)


@dataclasses.dataclass(frozen=True)
class Objective:
    """The cost to minimize, and how to compute it: the precision of matrix products, and the memory that XLA may use.

    Attributes:
        cost: The cost function of outputs and targets.
        precision: The precision of the matrix products. Default None, the device's default.
        budget: The limits on the memory of an evaluation. Default None, the budget of the device's platform.
        batched: How many networks and how many data sets vmap evaluates at once.
    """

    cost: Cost
    precision: jax.lax.PrecisionLike = None
    budget: Budget | None = None
    batched: Batched = UNBATCHED

    def batch(self, network: Network, examples: Examples) -> Array:
        """Return the cost over all examples, computed without chunks."""
        dtype, width = network[-1].b.dtype, network[-1].b.shape[0]
        x, y = inputs(examples.x, dtype), targets(examples.y, width, dtype)
        return network_cost(network, x, y, cost=self.cost, precision=self.precision)

    def full(self, network: Network, examples: Examples) -> tuple[Array, Array]:
        """Return the cost over all examples, and their outputs, computed in chunks that fit the budget."""
        z = weighted_inputs_in_chunks(network, examples.x, self.precision, self.budget, self.batched)
        activation, y = network[-1].activation, targets(examples.y, z.shape[-1], z.dtype)
        return cost_from(self.cost, activation, z, y), activate(activation, z)

    def evaluate(self, network: Network, examples: Examples, gradient: bool) -> Evaluation:
        """Evaluate the network on all examples in one pass, with ∇C if `gradient` is True."""
        if not gradient:
            c, a = self.full(network, examples)
            return evaluation_of(c, a, examples.y, None, network[-1].activation)
        (c, a), slopes = value_and_grad(self.full, has_aux=True)(network, examples)
        return evaluation_of(c, a, examples.y, slopes, network[-1].activation)


def penalty(network: Network, decay: Float[Array, ""]) -> Float[Array, ""]:
    """Return the term of L2 regularization: (λ/2n) Σ w² over all weights w. `decay` is λ/n."""
    weights = [layer.w for layer in network]
    return 0.5 * decay * dot(weights, weights)


def penalized(result: Evaluation, network: Network, decay: Float[Array, ""]) -> Evaluation:
    """Add the term of L2 regularization to the cost, and its gradient (λ/n) w to ∇C. `decay` is λ/n."""
    result = result._replace(cost=result.cost + penalty(network, decay))
    if result.gradient is None:
        return result
    pairs = zip(result.gradient, network, strict=True)
    slopes = (slope._replace(w=(slope.w + decay * layer.w).astype(slope.w.dtype)) for slope, layer in pairs)
    return result._replace(gradient=tuple(slopes))


def is_saturated(a: Array, activation: Activation = "sigmoid") -> Array:
    """Return True if every output is at a limit of its activation, within the machine epsilon."""

    def within(a: Array) -> Array:
        return jnp.all(at_limit(activation, a))

    # The first 100 examples nearly always have an output that is not at a limit. Checking them first saves 0.4 ms per
    # evaluation of 50,000 examples.
    return control.cond(within(a[:100]), lambda: within(a), lambda: jnp.array(False))
