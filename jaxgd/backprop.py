"""The gradient of the network's cost, derived by hand: the four equations of chapter 2, without autodiff."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgd.errors import ShapeError, describe, require_examples, require_float, require_precision
from jaxgd.network import Layer, Network, require_input, sigmoid, sigmoid_prime, weighted_input


def backprop(
    network: Network,
    x: Float[Array, "*batch in"],
    y: Float[Array, "*batch out"],
    *,
    precision: jax.lax.PrecisionLike = None,
) -> Network:
    """Return the gradient ∇C of the quadratic cost, by backpropagation.

    δᴸ = (a − y) ⊙ σ′(zᴸ)/n;  δˡ = (wˡ⁺¹)ᵀδˡ⁺¹ ⊙ σ′(zˡ);  ∂C/∂b = Σ δ;  ∂C/∂w = Σ δ aᵀ, with sums over the n examples.

    The result equals `jax.grad(network_cost)(network, x, y)` up to rounding.

    Args:
        network: The layers, first to last.
        x: Inputs, real floating point, (..., in): one example (in,), or a batch whose leading axes have the product n.
        y: Targets, real floating point, (..., out), with the leading axes of x.
        precision: Precision of the matrix products, as in `jax.numpy.matmul`. It matters on accelerators.

    Returns:
        The gradient, a network with the shapes and dtypes of `network`.

    Raises:
        ShapeError: If x or y does not fit the network, or the batch has no example.
        DtypeError: If x or y is not real floating point, or the network is not a tuple of layers with arrays of floats.
        RangeError: If the precision is unknown, or the device does not have its algorithm.

    Source: Nielsen, chapter 2, equations (BP1) to (BP4).

    Example:
        >>> network = (Layer(jnp.array([[0.6]]), jnp.array([0.9])),)
        >>> gradient = backprop(network, jnp.array([1.0]), jnp.array([0.0]))
        >>> print(f"{gradient[0].w[0, 0]:.4f} {gradient[0].b[0]:.4f}")
        0.1219 0.1219
    """
    require_input("backprop", network, x)
    require_precision("backprop", precision, jnp.result_type(x, network[0].w))
    require_float("backprop", "y", y)
    if jnp.shape(y) != (*jnp.shape(x)[:-1], jnp.shape(network[-1].b)[0]):
        raise ShapeError(
            f"backprop: y must be {(*jnp.shape(x)[:-1], jnp.shape(network[-1].b)[0])} for x {describe(x)}, "
            f"got {describe(y)}."
        )
    require_examples("backprop", jnp.size(y))
    x, y = jnp.reshape(x, (-1, jnp.shape(x)[-1])), jnp.reshape(y, (-1, jnp.shape(y)[-1]))

    # The backward pass needs every z and a.
    activations, weighted_inputs = [x], []
    for layer in network:
        weighted_inputs.append(weighted_input(layer, activations[-1], precision=precision))
        activations.append(sigmoid(weighted_inputs[-1]))

    # The mean over the examples puts 1/n into the error of the outputs.
    error = (activations[-1] - y) / len(x)
    gradient: list[Layer] = []
    for layer, z, a in zip(reversed(network), reversed(weighted_inputs), reversed(activations[:-1]), strict=True):
        delta = error * sigmoid_prime(z)
        dw = jnp.matmul(delta.T, a, precision=precision)
        gradient.append(Layer(dw.astype(layer.w.dtype), jnp.sum(delta, axis=0).astype(layer.b.dtype)))
        error = jnp.matmul(delta, layer.w, precision=precision)
    return tuple(reversed(gradient))
