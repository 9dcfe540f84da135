"""Functions with right derivatives, at smooth points.

A checker must not report any of them as wrong, and should report each as right.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, nn

from jaxgd.typed import fori_loop

from .arrays import ARRAYS, COMPLEX, LINEAR_ALGEBRA
from .case import Case
from .draws import away, fixed, normal, scaled, together, tree, uniform
from .elementwise import ROWS
from .flows import FLOWS
from .networks import NEURAL


def mixed_sizes(tree: dict[str, Array]) -> Array:
    """Return a sum that depends about equally on a leaf of size 1e-6 and on a leaf of size 1e6."""
    return jnp.sum(jnp.sin(1e6 * tree["small"])) + jnp.sum(jnp.log(tree["large"]))


# Functions for all scales. Each is one object, so that JAX compiles it once.
FUNCTIONS_AT_SCALES = (
    ("sum of logs", lambda x: jnp.sum(jnp.log(x))),
    ("sum of squares", lambda x: jnp.sum(x**2)),
    ("x/(1 + x)", lambda x: x / (1 + x)),
    ("mean of roots", lambda x: jnp.mean(jnp.sqrt(x))),
    ("1 + sum of squares", lambda x: 1 + jnp.sum(x**2)),
)


def tanh_at(scale: float) -> Callable[..., Array]:
    """Return the function tanh(x/scale)."""
    return lambda x: jnp.tanh(x / scale)


SCALES = (
    *(
        Case(f"{name}, x near {scale:g}", f, uniform(0.5 * scale, 2 * scale))
        for name, f in FUNCTIONS_AT_SCALES
        for scale in (1e-6, 1e-3, 1e3, 1e6)
    ),
    *(
        Case(f"tanh of x/{scale:g}, x near {scale:g}", tanh_at(scale), normal(scale=scale))
        for scale in (1e-6, 1e-3, 1e3, 1e6)
    ),
    Case("leaves of 1e-6 and 1e6", mixed_sizes, tree(
        lambda a, b: {"small": a, "large": b}, normal((4,), scale=1e-6), uniform(0.5e6, 2e6, (4,)))),
    Case("elements of 1e-6 and 1e6", jnp.log, fixed([1e-6, 2e-3, 1.0, 3e3, 1e6])),
    Case("results of 1e-6 and 1e6", lambda x: (1e-6 * jnp.sin(x), 1e6 * jnp.cos(x)), normal()),
    Case("cost of 1e12", lambda x: 1e12 * jnp.sum(jnp.cos(x)), normal()),
    Case("cost of 1e-12", lambda x: 1e-12 * jnp.sum(jnp.cos(x)), normal()),
)  # fmt: skip


# Functions that are smooth at the point but hard to check, for instance because of a kink nearby or many waves.
HARD = (
    Case("relu a thousandth from its kink", nn.relu, away((6,), least=1e-3, most=2e-3)),
    Case("relu, some close to the kink", nn.relu, fixed([1e-4, -2e-4, 1.0, -1.5, 0.7])),
    Case("log close to 0", jnp.log, fixed([1e-5, 0.3, 1.0])),
    Case("sqrt close to 0", jnp.sqrt, fixed([1e-5, 0.3, 1.0])),
    Case("maximum, nearly tied", jnp.maximum, fixed([1.0, 2.0, 3.0], [1.001, 1.999, 5.0])),
    Case("a thousand waves", lambda x: jnp.sin(1000 * x), normal()),
    Case("steep sigmoid", lambda x: nn.sigmoid(200 * x), uniform(-0.01, 0.01)),
    Case("narrow bump", lambda x: jnp.exp(-((x - 1) ** 2) / 2e-6), uniform(0.999, 1.001)),
    Case("cancellation", lambda x: (1 - jnp.cos(x)) / x**2, uniform(0.01, 0.02)),
    Case("difference of large numbers", lambda x: (1e4 + x) ** 2 - (1e4 - x) ** 2, normal()),
    Case("gradient of 1e-9 next to a value of 1", lambda x: 1 + 1e-9 * jnp.sum(jnp.sin(x)), normal()),
    Case("stationary in one leaf", lambda x, y: jnp.sum(jnp.cos(x)) + jnp.sum(jnp.sin(y)), together(
        fixed([0.0, 0.0, 0.0]), normal((3,)))),
    Case("x², one element at 0", jnp.square, fixed([0.0, 1.0, -2.0])),
    Case("x³ at 0", lambda x: x**3, fixed([0.0, 0.0])),
    Case("Runge's function", lambda x: 1 / (1 + 25 * x**2), uniform(-1.0, 1.0)),
    Case("nearly singular", jnp.linalg.inv, fixed([[1.0, 1.0], [1.0, 1.0001]])),
    Case("nearly equal eigenvalues", jnp.linalg.eigvalsh, fixed([[1.0, 1e-3], [1e-3, 1.001]])),
    Case("twenty layers of tanh", lambda x: fori_loop(0, 20, lambda _, x: jnp.tanh(1.5 * x), x), normal()),
)  # fmt: skip


def _elementwise() -> list[Case]:
    cases = []
    for name, f, draw, scales in ROWS:
        cases.append(Case(name, f, draw))
        cases += [Case(f"{name}, arguments × {scale:g}", f, scaled(draw, scale)) for scale in scales]
    return cases


CORRECT = (*_elementwise(), *NEURAL, *ARRAYS, *LINEAR_ALGEBRA, *FLOWS, *COMPLEX, *SCALES, *HARD)
