"""Functions at points without a derivative. A checker must answer "cannot tell" and name the cause."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax, nn
from jax.typing import DTypeLike

from .case import undecided
from .draws import Args, array, fixed, normal, together
from .jumps import JUMPS


def relu_network(network: tuple[tuple[Array, Array], tuple[Array, Array]], x: Array) -> Array:
    """Return the mean square of the outputs of two layers with relu between them."""
    (w, b), (v, c) = network
    return jnp.mean((nn.relu(x @ w.T + b[None]) @ v.T + c[None]) ** 2)


def draw_unit_at_zero(rng: np.random.Generator, dtype: DTypeLike) -> Args:
    """Draw a network and inputs. For the first example, the weighted input of the first hidden unit is 0."""
    w, x = rng.normal(size=(4, 2)), rng.normal(size=(3, 2))
    w[0], x[0] = [0.5, 0.5], [1.0, -1.0]
    b = rng.normal(size=4)
    b[0] = 0.0
    layers = (
        (array(w, dtype), array(b, dtype)),
        (array(rng.normal(size=(2, 4)), dtype), array(rng.normal(size=2), dtype)),
    )
    return layers, array(x, dtype)


KINKS = (
    undecided("relu at 0", nn.relu, fixed(0.0)),
    undecided("relu, one element at 0", nn.relu, fixed([0.7, 0.0, -1.2])),
    undecided("leaky relu at 0", nn.leaky_relu, fixed([0.7, 0.0, -1.2])),
    undecided("relu6 at 6", nn.relu6, fixed([0.7, 6.0, 2.0])),
    undecided("hard tanh at 1", nn.hard_tanh, fixed([0.5, 1.0, -0.3])),
    undecided("abs at 0", jnp.abs, fixed([0.0])),
    undecided("abs, one element at 0", jnp.abs, fixed([0.0, 1.0, -2.0])),
    undecided("root of a square at 0", lambda x: jnp.sqrt(x**2), fixed([0.0, 1.0, -2.0])),
    undecided("length at 0", jnp.linalg.norm, fixed([0.0, 0.0, 0.0])),
    undecided("hypot at 0", jnp.hypot, fixed([0.0, 1.0], [0.0, 2.0])),
    undecided("modulus at 0", jnp.abs, fixed([0.0 + 0j, 1 + 2j])),
    undecided("max of two ties", jnp.max, fixed([1.0, 3.0, 2.0, 3.0])),
    undecided("max of all ties", jnp.max, fixed([2.0, 2.0, 2.0])),
    undecided("max by rows with ties", lambda x: jnp.max(x, axis=1), fixed([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]])),
    undecided("max pool of ties", lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (2,), "VALID"),
              fixed([1.0, 1.0, 0.0, 3.0])),
    undecided("cummax of ties", lambda x: lax.cummax(x), fixed([1.0, 2.0, 2.0, 0.5])),
    undecided("maximum of equal elements", jnp.maximum, fixed([1.0, 2.0, 3.0], [1.0, 0.5, 4.0])),
    undecided("minimum of equal elements", jnp.minimum, fixed([1.0, 2.0, 3.0], [1.0, 0.5, 4.0])),
    undecided("sort of ties", jnp.sort, fixed([2.0, 1.0, 2.0, 0.0])),
    undecided("top_k of ties", lambda x: lax.top_k(x, 2)[0], fixed([2.0, 1.0, 2.0, 0.0])),
    undecided("median of two ties", jnp.median, fixed([2.0, 1.0, 2.0, 3.0, 0.5])),
    # The median is linear along every line through this point. Its gradient selects one of
    # the three ties. After a rounding of the point, it may select another tie.
    undecided("median of three ties", jnp.median, fixed([2.0, 1.0, 2.0, 3.0, 2.0]),
              "a rounding of the point changes the gradient"),
    undecided("equal eigenvalues", jnp.linalg.eigvalsh,
              fixed([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 5.0]])),
    undecided("clip at its bound", lambda x: jnp.clip(x, -1, 1), fixed([0.3, 1.0, -0.5])),
    undecided("piecewise", lambda x: jnp.where(x < 1, x, 3 * x - 2), fixed([0.3, 1.0, 2.0])),
    undecided("hinge at the margin", lambda w, x: jnp.mean(jnp.maximum(0, 1 - x @ w)),
              fixed([1.0, -0.5], [[2.0, 2.0], [0.5, 1.0], [1.5, -1.0]])),
    undecided("distance of equal elements", lambda x, y: jnp.sum(jnp.abs(x - y)),
              fixed([1.0, 2.0, 3.0], [1.0, 2.5, 4.0])),
    undecided("soft threshold", lambda x: jnp.sign(x) * nn.relu(jnp.abs(x) - 0.5), fixed([0.5, 1.0, -2.0])),
    undecided("tent", lambda x: jnp.abs(x - 2 * jnp.floor(x / 2) - 1), fixed([1.0, 0.4, 2.7])),
    undecided("lasso", lambda w, x, y: jnp.mean((x @ w - y) ** 2) + 0.1 * jnp.sum(jnp.abs(w)),
              together(fixed([0.0, 1.0, -0.5]), normal((6, 3), (6,)))),
    undecided("relu network", relu_network, draw_unit_at_zero),
    undecided("kink next to large smooth terms", lambda x: 1e3 * jnp.sum(jnp.sin(x)) + jnp.abs(x[0]),
              fixed([0.0, 0.7, 1.9])),
    undecided("small kink in one argument", lambda x, y: jnp.sum(jnp.exp(y)) + 1e-2 * jnp.sum(nn.relu(x)), together(
        fixed([0.0, 1.0]), normal((3,)))),
    undecided("kink times a smooth function", lambda x: jnp.sum(jnp.abs(x) * jnp.cos(x)), fixed([0.0, 0.7, 1.9])),
    *JUMPS,
)  # fmt: skip
