"""Bounds of the variables: the projection onto the box, the reduced gradient and the predicted change of C.

Bounds of None mean no bounds: `project` and `reduced` then return their last argument unchanged.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxgd.pytree import dot, subtract
from jaxgd.typed import Tree, V, tree_leaves, tree_map


class Bounds(NamedTuple):
    """The box of the allowed variables.

    Attributes:
        lower: The lower bounds: a tree like v. A leaf has the shape of v's leaf, or is one number. −∞ means no bound.
        upper: The upper bounds, like lower. ∞ means no bound.
    """

    lower: Tree
    upper: Tree

    @property
    def valid(self) -> Bool[Array, ""]:
        """True if no bound is NaN, and some finite number lies between each pair of bounds."""

        def fits(low: Array, high: Array) -> Array:
            return jnp.all((low <= high) & (low < jnp.inf) & (high > -jnp.inf))

        return jnp.all(jnp.array(tree_leaves(tree_map(fits, self.lower, self.upper))))


def project(bounds: Bounds | None, v: V) -> V:
    """Return the nearest point in the box. The derivative is 1 inside the box and on a bound, and 0 outside.

    >>> print(project(Bounds(0.0, 1.0), jnp.array(3.0)))
    1.0
    """
    if bounds is None:
        return v
    return tree_map(lambda x, low, high: jnp.where(x < low, low, jnp.where(x > high, high, x)), v, *bounds)


def hold(bounds: Bounds, v: V) -> V:
    """Return the nearest point in the box.

    For a variable on or beyond a bound, the derivative by the variable is 0, and the derivative by the bound is 1.
    """
    return tree_map(lambda x, low, high: jnp.where(x <= low, low, jnp.where(x >= high, high, x)), v, *bounds)


def inside(bounds: Bounds, v: V) -> V:
    """Return True for each variable that lies strictly between its bounds."""
    return tree_map(lambda x, low, high: (x > low) & (x < high), v, *bounds)


def free(bounds: Bounds, v: V, g: V) -> V:
    """Return True for each variable that can move along −g.

    A variable cannot move if it is on a bound where −g points out of the box, or if its two bounds are equal.
    """
    return tree_map(
        lambda x, g, low, high: ~((x <= low) & (g > 0) | (x >= high) & (g < 0) | (low >= high)), v, g, *bounds
    )


def masked(mask: Tree | None, u: V) -> V:
    """Return u with 0 where the mask is False. A mask of None is True everywhere."""
    return u if mask is None else tree_map(lambda x, m: jnp.where(m, x, 0), u, mask)


def reduced(bounds: Bounds | None, v: V, g: V) -> V:
    """Return the reduced gradient: g with 0 for each variable on a bound where −g points out of the box.

    >>> print(reduced(Bounds(0.0, 1.0), jnp.array([0.0, 0.0]), jnp.array([2.0, -2.0])))
    [ 0. -2.]
    """
    return g if bounds is None else masked(free(bounds, v, g), g)


def predicted(bounds: Bounds | None, v: V, slope: Array, short: V | None, t: Array, point: V) -> Array:
    """Return the predicted change of C for a step of t times the direction. The step ends at `point`.

    With bounds, the step may take some variables to a bound. `short` is the gradient for these variables, and 0 for the
    others. They add ⟨short, point − v⟩ to the change. `slope` is the slope of C over the other variables.
    """
    change = t * slope
    return change if bounds is None or short is None else change + dot(short, subtract(point, v)).astype(change.dtype)
