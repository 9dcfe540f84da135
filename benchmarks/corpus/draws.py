"""Random points for functions to be checked at: each factory returns draw(rng, dtype) -> tuple of arguments.

Drawn by NumPy, so that a point is the same in every dtype but for rounding, and that drawing compiles nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Shape = tuple[int, ...]
Args = tuple[Any, ...]
Draw = Callable[[np.random.Generator, Any], Args]


def array(x: Any, dtype: Any) -> jax.Array:
    """x in that dtype, or in the complex dtype of the same precision if x is complex."""
    x = np.asarray(x)
    return jnp.asarray(x.astype(np.result_type(dtype, np.complex64) if np.iscomplexobj(x) else dtype))


def arrays(sample: Callable[[np.random.Generator, Shape], Any], *shapes: Shape) -> Draw:
    """One argument a shape, each from sample(rng, shape)."""

    def draw(rng: np.random.Generator, dtype: Any) -> Args:
        return tuple(array(sample(rng, shape), dtype) for shape in shapes or ((5,),))

    return draw


def together(*draws: Draw) -> Draw:
    """The arguments of the first draw, then those of the second, and so on."""
    return lambda rng, dtype: tuple(x for draw in draws for x in draw(rng, dtype))


def tree(make: Callable[..., Any], *draws: Draw) -> Draw:
    """One argument, make(*arguments of all the draws)."""
    return lambda rng, dtype: (make(*together(*draws)(rng, dtype)),)


def fixed(*values: Any) -> Draw:
    """These floats."""
    return lambda rng, dtype: tuple(array(value, dtype) for value in values)


def whole(*values: Any) -> Draw:
    """These whole numbers, as they are."""
    return lambda rng, dtype: tuple(jnp.asarray(value) for value in values)


def scaled(draw: Draw, factor: float) -> Draw:
    """What draw draws, its floats times a factor."""

    def draw_scaled(rng: np.random.Generator, dtype: Any) -> Args:
        return tuple(
            array(np.asarray(x, float) * factor, dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
            for x in draw(rng, dtype)
        )

    return draw_scaled


def normal(*shapes: Shape, scale: float = 1.0) -> Draw:
    """From N(0, scale²)."""
    return arrays(lambda rng, shape: scale * rng.normal(size=shape), *shapes)


def complex_normal(*shapes: Shape) -> Draw:
    """Real and imaginary parts from N(0, 1)."""
    return arrays(lambda rng, shape: rng.normal(size=shape) + 1j * rng.normal(size=shape), *shapes)


def uniform(low: float, high: float, *shapes: Shape) -> Draw:
    """Between low and high."""
    return arrays(lambda rng, shape: rng.uniform(low, high, shape), *shapes)


def away(*shapes: Shape, least: float = 0.2, most: float = 2.0) -> Draw:
    """Of either sign, with absolute values between least and most."""
    return arrays(lambda rng, shape: rng.choice([-1.0, 1.0], shape) * rng.uniform(least, most, shape), *shapes)


def pieces(*intervals: tuple[float, float], shape: Shape = (6,)) -> Draw:
    """Element i from interval i, over and over: every piece of a function that is put together."""

    def draw(rng: np.random.Generator, dtype: Any) -> Args:
        n = int(np.prod(shape))
        low, high = np.resize(np.array(intervals), (n, 2)).T
        return (array(rng.uniform(low, high).reshape(shape), dtype),)

    return draw


def fractions(*shapes: Shape) -> Draw:
    """Numbers at least a tenth away from every whole and every half."""
    return arrays(lambda rng, s: rng.integers(-3, 4, s) + rng.choice([0.0, 0.5], s) + rng.uniform(0.1, 0.4, s), *shapes)


def distinct(*shapes: Shape) -> Draw:
    """Numbers in random order, no two closer than 0.1."""

    def sample(rng: np.random.Generator, shape: Shape) -> Any:
        n = int(np.prod(shape))
        return (0.3 * (rng.permutation(n) - n / 2) + rng.uniform(0, 0.2, n)).reshape(shape)

    return arrays(sample, *shapes)


def apart(n: int = 5) -> Draw:
    """Two arguments no two elements of which are closer than 0.2."""

    def draw(rng: np.random.Generator, dtype: Any) -> Args:
        x = rng.normal(size=n)
        return array(x, dtype), array(x + rng.choice([-1.0, 1.0], n) * rng.uniform(0.2, 1.0, n), dtype)

    return draw


def matrix(n: int = 3) -> Draw:
    """A square matrix with a condition below 20 or so: random and dominated by its diagonal."""
    return arrays(lambda rng, s: rng.normal(size=s) + 4 * np.diag(rng.choice([-1.0, 1.0], n)), (n, n))


def definite(n: int = 3) -> Draw:
    """A symmetric positive definite matrix."""

    def sample(rng: np.random.Generator, shape: Shape) -> Any:
        a = rng.normal(size=shape)
        return a @ a.T + n * np.eye(n)

    return arrays(sample, (n, n))


def separated(n: int = 3) -> Draw:
    """A symmetric matrix with eigenvalues that lie apart: about 1, 2.5, 4, …"""

    def sample(rng: np.random.Generator, shape: Shape) -> Any:
        q = np.linalg.qr(rng.normal(size=shape))[0]
        return q * (1 + 1.5 * np.arange(n) + rng.uniform(0, 0.5, n)) @ q.T

    return arrays(sample, (n, n))


def singular(m: int = 4, n: int = 3) -> Draw:
    """An (m, n) matrix with singular values that lie apart: about 1, 2.5, 4, …"""

    def sample(rng: np.random.Generator, shape: Shape) -> Any:
        u, v = (np.linalg.qr(rng.normal(size=(k, min(shape))))[0] for k in shape)
        return u * (1 + 1.5 * np.arange(min(shape)) + rng.uniform(0, 0.5, min(shape))) @ v.T

    return arrays(sample, (m, n))
