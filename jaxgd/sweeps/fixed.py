"""Prove that mini-batch descent can never change a network again."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxgd.activations import sigmoid, sigmoid_prime
from jaxgd.examples import Examples, inputs, targets
from jaxgd.network import Network
from jaxgd.typed import finfo, jit, tree_map

# Beyond this |z| every backend computes an output of exactly 0 or 1, and σ′(z) = 0: exp(−104) is 0 in float32, and
# exp(−746) in float64.
_DEAD = {"float32": 110.0, "float64": 750.0}
# The gradients are bounded for slices of this many examples. Nearly every proof fails after the first slice.
_ROWS = 100


@jit
def is_fixed(network: Network, i: Int[Array, ""], eta: Float[Array, " width"], examples: Examples) -> Bool[Array, ""]:
    """Return True only if no mini-batch of these examples can change a weight of network i of a batch.

    For each weight v, compute a g such that |∂C/∂v| ≤ g for each single example. The gradient of a mini-batch is a mean
    over examples, so its |∂C/∂v| is also at most g. If both v − 2ηg and v + 2ηg round to v, no update changes v. The
    factor 2 covers the rounding of the mean.

    Args:
        network: The networks of the batch.
        i: The index of the network.
        eta: The learning rates of the batch.
        examples: The training examples.

    Returns:
        True or False, a scalar. False means that the proof fails, not that a weight would change.
    """
    one, rate = tree_map(lambda x: x[i], (network, eta))
    n, rows = len(examples.y), min(_ROWS, len(examples.y))
    largest = [jnp.zeros_like(layer.b) for layer in one]

    def unchanged(carry: tuple[Array, Array, list[Array]]) -> Array:
        _, widest, bounds = carry
        equal = []
        for (w, b), bound in zip(one, bounds, strict=True):
            step = 2 * rate * bound
            for v, change in ((w, step[:, None] * widest[None]), (b, step)):
                equal.append(jnp.all((v + change == v) & (v - change == v)))
            widest = jnp.ones_like(b)
        return jnp.all(jnp.stack(equal))

    def more(carry: tuple[Array, Array, list[Array]]) -> tuple[Array, Array, list[Array]]:
        k, widest, bounds = carry
        # The last slice may overlap with the slice before it.
        x, y = (jax.lax.dynamic_slice_in_dim(v, jnp.minimum(k * rows, n - rows), rows) for v in examples)
        x = inputs(x, rate.dtype)
        new = _error_bounds(one, x, targets(y, len(one[-1].b), x.dtype))
        bounds = [jnp.maximum(old, jnp.max(bound, axis=0)) for old, bound in zip(bounds, new, strict=True)]
        return k + 1, jnp.maximum(widest, jnp.max(jnp.abs(x), axis=0)), bounds

    end = jax.lax.while_loop(
        lambda carry: (carry[0] * rows < n) & unchanged(carry),
        more,
        (jnp.array(0), jnp.zeros(one[0].w.shape[1], rate.dtype), largest),
    )
    return unchanged(end)


def _error_bounds(network: Network, x: Array, y: Array) -> list[Array]:
    """Return bounds on the |δ| of each layer and example. They hold for the rounding of every backend.

    dz and da are bounds on the rounding errors of z and a. The bounds are sums of absolute values, so their own
    rounding errors are relatively small.
    """
    dtype = network[-1].b.dtype
    limits = finfo(dtype)
    # Accelerators may round the factors of a product to TF32 or bfloat16.
    eps: ArrayLike = limits.eps if jax.default_backend() == "cpu" else 2**-7
    a, da, slopes = x, eps * jnp.abs(x), list[Array]()
    for w, b in network:
        z, size = a @ w.T + b[None], jnp.abs(w).T
        dz = da @ size + 2 * (len(size) + 2) * eps * (jnp.abs(a) @ size + jnp.abs(b)[None])
        least = jnp.maximum(jnp.abs(z) - dz, 0)
        slope = jnp.where(least > _DEAD[str(dtype)], 0, jnp.maximum(2 * sigmoid_prime(least), 4 * limits.tiny))
        a, da = sigmoid(z), jnp.where(slope == 0, 0, jnp.minimum(slope * dz + 4 * eps, 1))
        slopes.append(slope)
    error, bounds = jnp.abs(a - y) + da, list[Array]()
    for (w, _), slope in zip(reversed(network), reversed(slopes), strict=True):
        # A product of nonzero factors may underflow, so the bound has a lower limit.
        bound = jnp.where((slope == 0) | (error == 0), 0, jnp.maximum(error * slope, 4 * limits.tiny))
        bounds.append(bound)
        zero = jnp.all(bound == 0, axis=1, keepdims=True)
        error = jnp.where(zero, 0, jnp.maximum(bound @ jnp.abs(w), 4 * limits.tiny))
    return bounds[::-1]
