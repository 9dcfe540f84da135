"""The gradient of the network's cost, derived by hand: the four equations of Nielsen's chapter 2.

Autodiff computes only the derivatives of activations of your own.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgd.activations import Activation, activate, backward
from jaxgd.cost import Cost, cross_entropy, from_inputs, quadratic_cost, require_cost_fits
from jaxgd.errors import RangeError, ShapeError, describe, require_examples, require_float, require_precision
from jaxgd.network import Layer, Network, activated, require_input, weighted_input


def backprop(
    network: Network,
    x: Float[Array, "*batch in"],
    y: Float[Array, "*batch out"],
    *,
    cost: Cost = quadratic_cost,
    activation: Activation | Sequence[Activation] | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> Network:
    """Return the gradient ∇C of the quadratic cost or the cross-entropy, by backpropagation.

    δᴸ = (aᴸ − y) ⊙ σ′(zᴸ)/n;  δˡ = (wˡ⁺¹)ᵀδˡ⁺¹ ⊙ σ′(zˡ);  ∂C/∂bˡ = Σ δˡ;  ∂C/∂wˡ = Σ δˡ(aˡ⁻¹)ᵀ, with sums over the n
    examples. For the cross-entropy, δᴸ = (aᴸ − y)/n. With softmax outputs, this holds if the targets of each example
    add up to 1.

    In place of σ′, each layer uses the derivative of its own activation: 4σ(2z)σ(−2z) for tanh, and 1 or 0 for relu.
    For softmax, the product of the Jacobian with v, a ⊙ (v − a · v), replaces v ⊙ σ′. For a function of
    your own, `jax.vjp` computes this product.

    `jax.grad(network_cost)` returns the same gradient, up to rounding.

    Args:
        network: The layers, first to last.
        x: Inputs, real floating point, (..., in): one example (in,), or a batch whose leading axes have the product n.
        y: Targets, real floating point, (..., out), with the leading axes of x.
        cost: `quadratic_cost` (default), or `cross_entropy` for outputs of "sigmoid" or "softmax". For other costs, use
            `jax.grad(network_cost)`.
        activation: Activations in place of the network's own, as in `init_network`. Default None, the network's own.
        precision: Precision of the matrix products, as in `jax.numpy.matmul`. It matters on accelerators.

    Returns:
        The gradient: a network with the shapes and dtypes of `network`, and with the activations that were used.

    Raises:
        ShapeError: If x, y and the layers do not fit together, the batch has no example, or an activation of your own
            returns another shape.
        DtypeError: If x or y is not real floating point, the network is not a tuple of layers with arrays of floats, or
            an activation is neither a name nor a function with a floating-point result.
        RangeError: If the precision or an activation is unknown, or the device does not have the algorithm of the
            precision. Also if `cost` is another function, or the outputs do not fit `cross_entropy`.

    Source: Nielsen, chapter 2, equations (BP1) to (BP4); chapter 3, equation (66).

    Example:
        >>> network = (Layer(jnp.array([[0.6]]), jnp.array([0.9])),)
        >>> gradient = backprop(network, jnp.array([1.0]), jnp.array([0.0]))
        >>> print(f"{gradient[0].w[0, 0]:.4f} {gradient[0].b[0]:.4f}")
        0.1219 0.1219
    """
    network = activated("backprop", network, activation)
    require_input("backprop", network, x)
    require_precision("backprop", precision, jnp.result_type(x, network[0].w))
    require_float("backprop", "y", y)
    if jnp.shape(y) != (*jnp.shape(x)[:-1], jnp.shape(network[-1].b)[0]):
        raise ShapeError(
            f"backprop: y must be {(*jnp.shape(x)[:-1], jnp.shape(network[-1].b)[0])} for x {describe(x)}, "
            f"got {describe(y)}."
        )
    require_examples("backprop", jnp.size(y))
    if cost is not quadratic_cost and cost is not cross_entropy:
        raise RangeError(
            f"backprop: cost must be jaxgd.quadratic_cost or jaxgd.cross_entropy, got {describe(cost)}.\n"
            "For another cost, use jax.grad(jaxgd.network_cost)."
        )
    require_cost_fits("backprop", cost, network[-1].activation)
    x, y = jnp.reshape(x, (-1, jnp.shape(x)[-1])), jnp.reshape(y, (-1, jnp.shape(y)[-1]))

    # The backward pass needs every z and a.
    activations, weighted_inputs = [x], list[Array]()
    for layer in network:
        weighted_inputs.append(weighted_input(layer, activations[-1], precision=precision))
        activations.append(activate(layer.activation, weighted_inputs[-1]))

    # The cost is a mean over n examples, so the error of the outputs has the factor 1/n.
    z, outputs = weighted_inputs[-1], network[-1].activation
    form = from_inputs(cost, outputs)
    delta = backward(outputs, z, (activations[-1] - y) / len(x)) if form is None else form.error(z, y) / len(x)
    gradient: list[Layer] = []
    for i in reversed(range(len(network))):
        layer = network[i]
        dw = jnp.matmul(delta.T, activations[i], precision=precision)
        db = jnp.sum(delta, axis=0)
        gradient.append(layer._replace(w=dw.astype(layer.w.dtype), b=db.astype(layer.b.dtype)))
        if i > 0:
            error = jnp.matmul(delta, layer.w, precision=precision)
            delta = backward(network[i - 1].activation, weighted_inputs[i - 1], error)
    return tuple(gradient[::-1])
