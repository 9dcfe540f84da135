"""Thirteen faults of the gradient of a network of two layers. A checker should find each of them.

SPOILED maps a name to (function from gradient to gradient, the names of the leaves it spoils). The functions can be
traced. They choose rows and elements of large size from the gradient itself, so that the fault matters.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Change = Callable[[Any], Any]

W0, B0, W1, B1 = LEAVES = ("[0].w", "[0].b", "[1].w", "[1].b")


def on(leaf: str, change: Change) -> tuple[Change, tuple[str, ...]]:
    """Apply a change to one leaf."""

    def spoil(gradient: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, g: change(g) if jax.tree_util.keystr(path) == leaf else g, gradient
        )

    return spoil, (leaf,)


def on_all(change: Change) -> tuple[Change, tuple[str, ...]]:
    """Apply a change to every leaf."""
    return lambda gradient: jax.tree.map(change, gradient), LEAVES


def times(factor: float) -> Change:
    """Multiply all elements by a factor."""
    return lambda g: factor * g


def row_zero(g: Any) -> Any:
    """Set the row of the element with the largest absolute value to zero."""
    return g.at[jnp.argmax(jnp.max(jnp.abs(g), axis=1))].set(0)


def element_zero(g: Any) -> Any:
    """Set the element of the largest absolute value to zero."""
    return g.at[jnp.argmax(jnp.abs(g))].set(0)


def swapped(g: Any) -> Any:
    """Exchange the largest and the smallest element."""
    flat = jnp.ravel(g)
    i, j = jnp.argmax(flat), jnp.argmin(flat)
    return flat.at[jnp.stack([i, j])].set(flat[jnp.stack([j, i])]).reshape(g.shape)


SPOILED: dict[str, tuple[Change, tuple[str, ...]]] = {
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
