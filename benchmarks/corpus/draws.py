"""Random points at which functions are checked. NumPy draws them.

All functions except `array` return a function draw(rng, dtype) that returns the arguments. A point is the same in every
dtype, up to rounding, and drawing compiles nothing.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from numpy.typing import NDArray

Shape = tuple[int, ...]
# An array, a number, or a nested list of numbers.
Values = ArrayLike | Sequence["Values"]
Args = tuple[object, ...]
Draw = Callable[[np.random.Generator, DTypeLike], Args]
Reals = NDArray[np.float64]
Numbers = NDArray[np.float64] | NDArray[np.complex128]


def array(x: Values, dtype: DTypeLike) -> Array:
    """Return x in the dtype, or in the complex dtype of the same precision if x is complex."""
    values = np.asarray(x)
    wanted = np.result_type(dtype, np.complex64) if np.iscomplexobj(values) else dtype
    return jnp.asarray(values.astype(wanted))


def arrays(sample: Callable[[np.random.Generator, Shape], Numbers], *shapes: Shape) -> Draw:
    """Draw one argument per shape with sample(rng, shape). Without shapes, draw one argument of shape (5,)."""

    def draw(rng: np.random.Generator, dtype: DTypeLike) -> Args:
        return tuple(array(sample(rng, shape), dtype) for shape in shapes or ((5,),))

    return draw


def together(*draws: Draw) -> Draw:
    """Draw the arguments of several draws, one draw after the other."""
    return lambda rng, dtype: tuple(x for draw in draws for x in draw(rng, dtype))


def tree(make: Callable[..., object], *draws: Draw) -> Draw:
    """Draw one argument: make(*arguments of all draws)."""
    return lambda rng, dtype: (make(*together(*draws)(rng, dtype)),)


def fixed(*values: Values) -> Draw:
    """Return these values at every draw, converted by `array`."""
    return lambda rng, dtype: tuple(array(value, dtype) for value in values)


def whole(*values: Values) -> Draw:
    """Return these whole numbers at every draw, for any dtype."""
    return lambda rng, dtype: tuple(jnp.asarray(value) for value in values)


def scaled(draw: Draw, factor: float) -> Draw:
    """Draw arguments with `draw` and multiply the floats by a factor."""

    def scale(x: object, dtype: DTypeLike) -> object:
        floats = isinstance(x, Array) and jnp.issubdtype(x.dtype, jnp.floating)
        return array(np.asarray(x, float) * factor, dtype) if floats else x

    return lambda rng, dtype: tuple(scale(x, dtype) for x in draw(rng, dtype))


def normal(*shapes: Shape, scale: float = 1.0) -> Draw:
    """Draw from N(0, scale²)."""
    return arrays(lambda rng, shape: scale * rng.normal(size=shape), *shapes)


def complex_normal(*shapes: Shape) -> Draw:
    """Draw real and imaginary parts from N(0, 1)."""
    return arrays(lambda rng, shape: rng.normal(size=shape) + 1j * rng.normal(size=shape), *shapes)


def uniform(low: float, high: float, *shapes: Shape) -> Draw:
    """Draw numbers between low and high."""
    return arrays(lambda rng, shape: rng.uniform(low, high, shape), *shapes)


def away(*shapes: Shape, least: float = 0.2, most: float = 2.0) -> Draw:
    """Draw numbers of both signs, with absolute values between least and most."""
    return arrays(lambda rng, shape: rng.choice([-1.0, 1.0], shape) * rng.uniform(least, most, shape), *shapes)


def pieces(*intervals: tuple[float, float], shape: Shape = (6,)) -> Draw:
    """Draw element i from interval i, for piecewise functions. After the last interval, start again with the first."""

    def draw(rng: np.random.Generator, dtype: DTypeLike) -> Args:
        n = int(np.prod(shape))
        low, high = np.resize(np.array(intervals), (n, 2)).T
        return (array(rng.uniform(low, high).reshape(shape), dtype),)

    return draw


def fractions(*shapes: Shape) -> Draw:
    """Draw numbers that are at least 0.1 away from every multiple of 0.5."""
    return arrays(lambda rng, s: rng.integers(-3, 4, s) + rng.choice([0.0, 0.5], s) + rng.uniform(0.1, 0.4, s), *shapes)


def distinct(*shapes: Shape) -> Draw:
    """Draw numbers in random order, no two closer than 0.1."""

    def sample(rng: np.random.Generator, shape: Shape) -> Reals:
        n = int(np.prod(shape))
        return (0.3 * (rng.permutation(n) - n / 2) + rng.uniform(0, 0.2, n)).reshape(shape)

    return arrays(sample, *shapes)


def apart(n: int = 5) -> Draw:
    """Draw two arguments that differ by at least 0.2 in each element."""

    def draw(rng: np.random.Generator, dtype: DTypeLike) -> Args:
        x = rng.normal(size=n)
        return array(x, dtype), array(x + rng.choice([-1.0, 1.0], n) * rng.uniform(0.2, 1.0, n), dtype)

    return draw


def matrix(n: int = 3) -> Draw:
    """Draw a square matrix with a large diagonal. Its condition number is almost always below 20."""
    return arrays(lambda rng, s: rng.normal(size=s) + 4 * np.diag(rng.choice([-1.0, 1.0], n)), (n, n))


def definite(n: int = 3) -> Draw:
    """Draw a symmetric positive definite matrix."""

    def sample(rng: np.random.Generator, shape: Shape) -> Reals:
        a = rng.normal(size=shape)
        return a @ a.T + n * np.eye(n)

    return arrays(sample, (n, n))


def separated(n: int = 3) -> Draw:
    """Draw a symmetric matrix with separated eigenvalues: about 1, 2.5, 4, …"""

    def sample(rng: np.random.Generator, shape: Shape) -> Reals:
        q = np.linalg.qr(rng.normal(size=shape))[0]
        return np.asarray(q * (1 + 1.5 * np.arange(n) + rng.uniform(0, 0.5, n)) @ q.T)

    return arrays(sample, (n, n))


def singular(m: int = 4, n: int = 3) -> Draw:
    """Draw an (m, n) matrix with separated singular values: about 1, 2.5, 4, …"""

    def sample(rng: np.random.Generator, shape: Shape) -> Reals:
        u, v = (np.linalg.qr(rng.normal(size=(k, min(shape))))[0] for k in shape)
        return np.asarray(u * (1 + 1.5 * np.arange(min(shape)) + rng.uniform(0, 0.5, min(shape))) @ v.T)

    return arrays(sample, (m, n))
