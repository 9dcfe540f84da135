"""Helpers that the native and the CUDA backend share for their calls of the native library."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.custom_batching import custom_vmap
from jax.typing import DTypeLike
from jaxtyping import Array

from jaxgd.mesh.partition import divided, with_axis
from jaxgd.network import Layer, Network
from jaxgd.typed import map_rows, tree_leaves

M = TypeVar("M")
D = TypeVar("D")
R = TypeVar("R")


def result(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of a result of the library."""
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def arrays_of(network: Network) -> list[Array]:
    """Return the weights and biases of all layers, w and b of the first layer first."""
    return [x for layer in network for x in (layer.w, layer.b)]


def network_of(arrays: Sequence[Array]) -> Network:
    """Return the network of sigmoid neurons with these weights and biases, in the order of `arrays_of`."""
    return tuple(Layer(w, b) for w, b in zip(arrays[::2], arrays[1::2], strict=True))


def batched(one: Callable[[M, D], R], many: Callable[[M, D], R], *, divide: bool) -> Callable[[M, D], R]:
    """Give a call of the library a rule for vmap.

    Args:
        one: The call, a function of two trees of arrays. The second holds the data.
        many: The call for a batch: every array of the first tree has a leading axis, and the data are shared.
        divide: True to divide a batch among the devices if its data are batched too.

    Returns:
        The call with this rule. If the data are batched too, each device runs one element after the other.
    """

    def rule(axis_size: int, in_batched: Sequence[object], mapped: M, data: D) -> tuple[R, object]:
        mapped = with_axis(axis_size, mapped, in_batched[0])
        if any(tree_leaves(in_batched[1])):
            pairs = (mapped, with_axis(axis_size, data, in_batched[1]))
            out = divided(one_by_one, pairs, ()) if divide else one_by_one(pairs, ())
        else:
            out = many(mapped, data)
        return out, jax.tree.map(lambda _: True, out)

    def one_by_one(pairs: tuple[M, D], _: tuple[()]) -> R:
        return map_rows(lambda pair: run(*pair), pairs)

    with_rule = custom_vmap(one)
    with_rule.def_vmap(rule)
    run: Callable[[M, D], R] = with_rule
    return run
