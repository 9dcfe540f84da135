"""Kinds of wrong derivatives, and helpers that give a function a wrong derivative.

A kind is a function of (f, args, ct). It returns a wrong result for `jax.vjp(f, *args)[1](ct)`.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxgd.typed import grad, tree_leaves, tree_map

R = TypeVar("R")
Function = Callable[..., object]
Change = Callable[[Array], Array]
Cotangents = tuple[Array, ...]
Kind = Callable[[Function, tuple[object, ...], object], Iterable[object]]


def with_vjp(f: Callable[..., R], backward: Callable[..., Iterable[object]]) -> Callable[..., R]:
    """Return f with the reverse mode backward(*args, ct), which returns one cotangent per argument."""

    @jax.custom_vjp
    def wrong(*args: object) -> R:
        return f(*args)

    wrong.defvjp(lambda *args: (f(*args), args), lambda args, ct: tuple(backward(*args, ct)))
    return wrong


def with_jvp(f: Callable[..., R], forward: Callable[..., R]) -> Callable[..., R]:
    """Return f with the forward mode forward(*args, *tangents). JAX derives the reverse mode from it."""

    @jax.custom_jvp
    def wrong(*args: object) -> R:
        return f(*args)

    wrong.defjvp(lambda args, tangents: (f(*args), forward(*args, *tangents)))
    return wrong


def of_kind(f: Callable[..., R], kind: Kind) -> Callable[..., R]:
    """Return f with a wrong reverse mode of this kind."""
    return with_vjp(f, lambda *args: kind(f, args[:-1], args[-1]))


def times_gradient(f: Callable[..., Array], factor: float) -> Function:
    """Return autodiff's gradient of f with respect to the first argument, times a factor."""
    return lambda *args: tree_map(lambda g: factor * g, grad(f)(*args))


def pulled(f: Function, args: Iterable[object], ct: object) -> Cotangents:
    """Return the cotangents of f by `jax.vjp`."""
    cotangents: Cotangents = jax.vjp(f, *args)[1](ct)
    return cotangents


def leaves(change: Change, leaf: int | None = None) -> Kind:
    """Return the kind that changes all leaves of the gradient, or only the leaf with this index."""

    def kind(f: Function, args: tuple[object, ...], ct: object) -> Cotangents:
        gradient = pulled(f, args, ct)
        parts = tree_leaves(gradient)
        chosen = range(len(parts)) if leaf is None else [leaf % len(parts)]
        changed = [change(g) if i in chosen else g for i, g in enumerate(parts)]
        spoiled: Cotangents = jax.tree.unflatten(jax.tree.structure(gradient), changed)
        return spoiled

    return kind


def times(factor: float) -> Change:
    """Return a change that multiplies all elements by a factor."""
    return lambda g: factor * g


def largest(change: Change) -> Change:
    """Return a function that applies `change` only to the element with the largest absolute value."""

    def changed(g: Array) -> Array:
        at_largest = jnp.arange(g.size).reshape(g.shape) == jnp.argmax(jnp.abs(g))
        return jnp.where(at_largest, change(g), g)

    return changed


def row_zero(g: Array) -> Array:
    """Set the row with the largest sum of absolute values to zero."""
    sizes = jnp.sum(jnp.abs(g).reshape(g.shape[0], -1), axis=1)
    return g.at[jnp.argmax(sizes)].set(0)


def swapped(g: Array) -> Array:
    """Exchange the largest and the smallest element. Complex elements are compared by their real parts."""
    flat = jnp.ravel(g)
    i, j = jnp.argmax(jnp.real(flat)), jnp.argmin(jnp.real(flat))
    return flat.at[jnp.stack([i, j])].set(flat[jnp.stack([j, i])]).reshape(g.shape)


def clipped(g: Array) -> Array:
    """Clip all elements to ± half of the largest absolute value, like gradient clipping that was left in the code."""
    bound = 0.5 * jnp.max(jnp.abs(g))
    return jnp.clip(g, -bound, bound)


def narrowed(g: Array) -> Array:
    """Round to bfloat16, which has eight significant bits."""
    return g.astype(jnp.bfloat16).astype(g.dtype)


def _cotangent(change: Change) -> Kind:
    return lambda f, args, ct: pulled(f, args, tree_map(change, ct))


def _moved(f: Function, args: tuple[object, ...], ct: object) -> Cotangents:
    return pulled(f, tree_map(lambda x: x + 0.01 * jnp.max(jnp.abs(x)), args), ct)


def _leaves_exchanged(f: Function, args: tuple[object, ...], ct: object) -> Cotangents:
    g = pulled(f, args, ct)
    return (g[1], g[0], *g[2:])


def _by_length(power: int) -> Kind:
    def kind(f: Function, args: tuple[object, ...], ct: object) -> Cotangents:
        n = tree_leaves(args)[-1].shape[0]
        return tree_map(lambda g: g * float(n) ** power, pulled(f, args, ct))

    return kind


KINDS: dict[str, Kind] = {
    "zero": leaves(jnp.zeros_like),
    "sign flipped": leaves(times(-1.0)),
    "×2": leaves(times(2.0)),
    "×1.05": leaves(times(1.05)),
    "×1.0005": leaves(times(1.0005)),
    "first leaf zero": leaves(jnp.zeros_like, 0),
    "first leaf negated": leaves(times(-1.0), 0),
    "last leaf zero": leaves(jnp.zeros_like, -1),
    "last leaf ×0.9": leaves(times(0.9), -1),
    "second leaf ×1.001": leaves(times(1.001), 1),
    "first two leaves exchanged": _leaves_exchanged,
    "one element zero": leaves(largest(jnp.zeros_like), 0),
    "one element ×1.2": leaves(largest(times(1.2)), 0),
    "one element negated": leaves(largest(times(-1.0)), 0),
    "one element NaN": leaves(largest(lambda g: jnp.full_like(g, jnp.nan)), 0),
    "one element infinite": leaves(largest(lambda g: jnp.full_like(g, jnp.inf)), 0),
    "one row zero": leaves(row_zero, 0),
    "two elements swapped": leaves(swapped, 0),
    "transposed": leaves(lambda g: g.T, 0),
    "rolled by one": leaves(lambda g: jnp.roll(g, 1, axis=0), 0),
    "reversed": leaves(lambda g: jnp.flip(g, axis=0), 0),
    "offset": leaves(lambda g: g + 0.01 * jnp.max(jnp.abs(g)), 0),
    "absolute value": leaves(jnp.abs),
    "clipped": leaves(clipped),
    "unit length": leaves(lambda g: g / jnp.linalg.norm(g), 0),
    "rounded to bfloat16": leaves(narrowed),
    "conjugated": leaves(jnp.conj),
    "real part only": leaves(lambda g: jnp.real(g).astype(g.dtype)),
    "sum instead of mean": _by_length(1),
    "mean instead of sum": _by_length(-1),
    "cotangent forgotten": _cotangent(jnp.ones_like),
    "cotangent squared": _cotangent(lambda g: g * g),
    "cotangent's sign only": _cotangent(jnp.sign),
    "at another point": _moved,
}
