"""Thirteen ways to spoil the gradient of a network of two layers. A checker should notice all of them.

Each value of SPOILED is a pair: a function that changes a gradient, and the names of the leaves that it changes. JAX
can trace the functions.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxgd.typed import tree_map

Change = Callable[[Array], Array]
# A function of a whole gradient.
Spoil = Callable[[object], object]

W0, B0, W1, B1 = LEAVES = ("[0].w", "[0].b", "[1].w", "[1].b")


def on(leaf: str, change: Change) -> tuple[Spoil, tuple[str, ...]]:
    """Return a function that changes one leaf, and the name of the leaf."""

    def spoil(gradient: object) -> object:
        spoiled: object = jax.tree_util.tree_map_with_path(
            lambda path, g: change(g) if jax.tree_util.keystr(path) == leaf else g, gradient
        )
        return spoiled

    return spoil, (leaf,)


def on_all(change: Change) -> tuple[Spoil, tuple[str, ...]]:
    """Return a function that changes every leaf, and the names of the leaves."""
    return lambda gradient: tree_map(change, gradient), LEAVES


def times(factor: float) -> Change:
    """Return a change that multiplies all elements by a factor."""
    return lambda g: factor * g


def row_zero(g: Array) -> Array:
    """Set the row that holds the largest absolute value to zero."""
    return g.at[jnp.argmax(jnp.max(jnp.abs(g), axis=1))].set(0)


def element_zero(g: Array) -> Array:
    """Set the element with the largest absolute value to zero."""
    return g.at[jnp.argmax(jnp.abs(g))].set(0)


def swapped(g: Array) -> Array:
    """Exchange the largest and the smallest element."""
    flat = jnp.ravel(g)
    i, j = jnp.argmax(flat), jnp.argmin(flat)
    return flat.at[jnp.stack([i, j])].set(flat[jnp.stack([j, i])]).reshape(g.shape)


SPOILED: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "[0].w zero": on(W0, jnp.zeros_like),
    "[0].b zero": on(B0, jnp.zeros_like),
    "[1].w negated": on(W1, jnp.negative),
    "[1].b negated": on(B1, jnp.negative),
    "everything zero": on_all(jnp.zeros_like),
    "everything ×1.05": on_all(times(1.05)),
    "everything ×2": on_all(times(2.0)),
    "everything negated": on_all(jnp.negative),
    "one row of [0].w zero": on(W0, row_zero),
    "one element of [1].b zero": on(B1, element_zero),
    "[1].w ×0.9": on(W1, times(0.9)),
    "two elements of [0].w swapped": on(W0, swapped),
    "[0].b ×0.9": on(B0, times(0.9)),
}
