"""The order in which an epoch visits the examples."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt32

from jaxgd.mesh import control

# A round swaps each pair with a probability of 1/2, so 64 rounds nearly always swap every one of 2³¹ examples at least
# once.
_ROUNDS = 64


def random_order(key: PRNGKeyArray, n: int) -> Int[Array, " n"]:
    """Draw a random order of 0, …, n − 1.

    This is the swap-or-not shuffle. Each of 64 rounds draws a K and pairs every x with K − x (mod n). A hash of the
    pair decides if its two members swap. The positions are computed independently, so an order of 50,000 examples takes
    less than 1 ms. Sorting random numbers takes 18 ms, and a native epoch of [784, 30, 10] about 25 ms.

    Args:
        key: A JAX random key. The same key gives the same order.
        n: The number of examples, 1 ≤ n < 2³¹.

    Returns:
        A permutation of 0, …, n − 1, (n,), as int32.

    Source: Hoang, Morris and Rogaway, CRYPTO 2012, for the shuffle. The hash is two rounds of xor-shift and multiply.

    Example:
        >>> print(jnp.sort(random_order(jax.random.key(0), 5)))
        [0 1 2 3 4]
    """

    def swap_or_not(x: UInt32[Array, " n"], drawn: UInt32[Array, "2"]) -> tuple[UInt32[Array, " n"], None]:
        k = drawn[0] % np.uint32(n)
        partner = jnp.where(k >= x, k - x, k + np.uint32(n) - x)
        # Hash the larger member: both members of a pair must make the same decision.
        h = jnp.maximum(x, partner) ^ drawn[1]
        h = (h ^ (h >> 16)) * np.uint32(0x7FEB352D)
        h = (h ^ (h >> 15)) * np.uint32(0x846CA68B)
        return jnp.where(h >> 31 == 1, partner, x), None

    drawn = jax.random.bits(key, (_ROUNDS, 2), np.uint32)
    x, _ = control.scan(swap_or_not, jnp.arange(n, dtype=np.uint32), drawn)
    return x.astype(np.int32)
