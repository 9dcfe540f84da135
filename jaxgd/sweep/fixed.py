"""The proof that a network of mini-batch descent can never change again."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxgd.examples import Examples, inputs, targets
from jaxgd.network import Network, sigmoid, sigmoid_prime

# Beyond this |z| every backend computes an output of exactly 0 or 1, and σ′(z) = 0: exp(−104) is 0 in float32, and
# exp(−746) in float64.
_DEAD = {"float32": 110.0, "float64": 750.0}


@jax.jit
def is_fixed(network: Network, i: Int[Array, ""], eta: Float[Array, " width"], examples: Examples) -> Bool[Array, ""]:
    """Return True only if no mini-batch of these examples can change a weight of network i of a batch.

    The mean gradient of a mini-batch is at most the largest gradient g of a single example, element by element. An
    update leaves v as it is if both v − 2ηg and v + 2ηg round to v. The factor 2 covers the rounding of the mean.

    Args:
        network: The networks of the batch.
        i: The index of the network.
        eta: The learning rates of the batch.
        examples: The training examples.
    """
    one, rate = jax.tree.map(lambda x: x[i], (network, eta))

    def fixed(x: Array, y: Array) -> Array:
        bounds = jax.lax.map(lambda pair: _error_bounds(one, *pair), (x, y), batch_size=1000)
        widest, unchanged = jnp.max(jnp.abs(inputs(x, rate.dtype)), axis=0), []
        for (w, b), bound in zip(one, bounds, strict=True):
            step = 2 * rate * jnp.max(bound, axis=0)
            for v, change in ((w, step[:, None] * widest), (b, step)):
                unchanged.append(jnp.all((v + change == v) & (v - change == v)))
            widest = jnp.ones_like(b)
        return jnp.all(jnp.stack(unchanged))

    # The first 100 examples decide for nearly all networks that can still change.
    out: Array = jax.lax.cond(
        fixed(examples.x[:100], examples.y[:100]), lambda: fixed(*examples), lambda: jnp.array(False)
    )
    return out


def _error_bounds(network: Network, x: Array, y: Array) -> list[Array]:
    """Return bounds on |δ| of each layer for one example, which hold for the rounding of every backend.

    dz and da are bounds on the rounding of z and a. Sums take absolute values, so that their own rounding is small.
    """
    dtype = network[-1].b.dtype
    limits = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    a = inputs(x, dtype)
    da, slopes = limits.eps * jnp.abs(a), []
    for w, b in network:
        z, size = w @ a + b, jnp.abs(w)
        dz = size @ da + 2 * (len(a) + 2) * limits.eps * (size @ jnp.abs(a) + jnp.abs(b))
        least = jnp.maximum(jnp.abs(z) - dz, 0)
        slope = jnp.where(least > _DEAD[str(dtype)], 0, jnp.maximum(2 * sigmoid_prime(least), 4 * limits.tiny))
        a, da = sigmoid(z), jnp.where(slope == 0, 0, jnp.minimum(slope * dz + 4 * limits.eps, 1))
        slopes.append(slope)
    error, bounds = jnp.abs(a - targets(y, len(a), dtype)) + da, []
    for (w, _), slope in zip(reversed(network), reversed(slopes), strict=True):
        # A product that is not 0 may underflow.
        is_zero = (slope == 0) | jnp.all(error == 0)
        bounds.append(jnp.where(is_zero, 0, jnp.maximum(error * slope, 4 * limits.tiny)))
        error = jnp.where(jnp.all(bounds[-1] == 0), 0, jnp.maximum(jnp.abs(w).T @ bounds[-1], 4 * limits.tiny))
    return bounds[::-1]
