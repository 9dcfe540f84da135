"""Cost functions from the literature with reference values, and a quadratic cost. All are independent of jaxgd."""

import jax
import jax.numpy as jnp
import numpy as np


def valley(v):
    return v[0] ** 2 + v[1] ** 2


def rosenbrock(v):
    return 100 * (v[1] - v[0] ** 2) ** 2 + (1 - v[0]) ** 2


def beale(v):
    x, y = v
    return (1.5 - x * (1 - y)) ** 2 + (2.25 - x * (1 - y**2)) ** 2 + (2.625 - x * (1 - y**3)) ** 2


def freudenstein_roth(v):
    x, y = v
    return (-13 + x + ((5 - y) * y - 2) * y) ** 2 + (-29 + x + ((y + 1) * y - 14) * y) ** 2


def powell_singular(v):
    a, b, c, d = v
    return (a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4


rosenbrock_gradient = jax.jit(jax.grad(rosenbrock))
rosenbrock_along = jax.jit(jax.vmap(jax.value_and_grad(rosenbrock)))


def in_numpy(solution):
    """Return a solution as NumPy arrays, so that indexing and comparing compile nothing."""
    return jax.tree.map(np.asarray, solution)


# For each cost C: the start, C at the start, and the values of C at its minima.
COSTS = {
    valley: ((1.0, 1.0), 2.0, (0.0,)),
    rosenbrock: ((-1.2, 1.0), 24.2, (0.0,)),
    beale: ((1.0, 1.0), 14.203125, (0.0,)),
    freudenstein_roth: ((0.5, -2.0), 400.5, (0.0, 48.9842536792)),
    powell_singular: ((3.0, -1.0, 0.0, 1.0), 215.0, (0.0,)),
}


def quadratic(v, a):
    return jnp.sum(v * jnp.sum(a * v[None], axis=-1)) / 2
