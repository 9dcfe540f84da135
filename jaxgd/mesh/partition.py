"""Divide a batch of networks among devices, along the leading axis of its arrays."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from jaxgd.typed import eval_shape, tree_leaves, tree_map

M = TypeVar("M")
S = TypeVar("S")
R = TypeVar("R")
T = TypeVar("T")


def divided(f: Callable[[M, S], R], mapped: M, shared: S) -> R:
    """Return f(mapped, shared), where each device computes its own part of the batch.

    XLA cannot divide the work of an external library among devices. Without this function, every device would gather
    and compute the whole batch.

    Args:
        f: A function of the mapped and the shared arrays. Element i of each result depends on element i of every
            mapped array, and on all shared arrays.
        mapped: A tree of arrays with a leading batch axis.
        shared: A tree of arrays. Every device needs all of them.

    Returns:
        The result of f: a tree of arrays with the same leading axis.
    """

    @custom_vmap
    def run(mapped: M, shared: S) -> R:
        return _partitioned(f, mapped, shared)

    @run.def_vmap
    def _(axis_size: int, in_batched: Sequence[object], mapped: M, shared: S) -> tuple[R, object]:
        mapped = with_axis(axis_size, mapped, in_batched[0])
        if any(tree_leaves(in_batched[1])):
            shared = with_axis(axis_size, shared, in_batched[1])

            out: R = jax.lax.map(lambda both: divided(f, *both), (mapped, shared))
        else:
            # Merge the axis of this `vmap` and the batch axis of `mapped` into one axis.
            out = divided(f, tree_map(lambda x: x.reshape(-1, *x.shape[2:]), mapped), shared)
            out = tree_map(lambda x: x.reshape(axis_size, -1, *x.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    result: R = run(mapped, shared)
    return result


def with_axis(axis_size: int, tree: T, batched: object) -> T:
    """Add a leading batch axis to every array that `vmap` does not batch, and return the tree."""
    return tree_map(lambda x, b: x if b else jnp.broadcast_to(x, (axis_size, *x.shape)), tree, batched)


def _partitioned(f: Callable[[M, S], R], mapped: M, shared: S) -> R:
    leaves: list[Array]
    leaves, structure = jax.tree.flatten((mapped, shared))
    n_mapped = len(tree_leaves(mapped))
    outlines: list[Array]
    outlines, out_structure = jax.tree.flatten(eval_shape(f, mapped, shared))

    def flat(*leaves: Array) -> tuple[Array, ...]:
        mapped, shared = jax.tree.unflatten(structure, leaves)
        return tuple(tree_leaves(f(mapped, shared)))

    Shardings = tuple[NamedSharding, ...]

    def shardings(mesh: Mesh, operands: Sequence[Array]) -> tuple[Shardings, Shardings]:
        sharding = operands[0].sharding
        spec = sharding.spec if isinstance(sharding, NamedSharding) else ()
        along = NamedSharding(mesh, P(*spec[:1]))  # type: ignore[no-untyped-call]
        whole = NamedSharding(mesh, P())  # type: ignore[no-untyped-call]
        return (along,) * n_mapped + (whole,) * (len(operands) - n_mapped), (along,) * len(outlines)

    def partition(
        mesh: Mesh, operands: Sequence[Array], _: object
    ) -> tuple[Mesh, Callable[..., tuple[Array, ...]], Shardings, Shardings]:
        inputs, outputs = shardings(mesh, operands)
        return mesh, flat, outputs, inputs

    # The sharding rule is for Shardy, XLA's partitioner. Only the axis "batch" may be divided. Every other axis has its
    # own name.
    names = (f"axis{i}" for i in itertools.count())
    inputs = [_axes(x.ndim, i < n_mapped, names) for i, x in enumerate(leaves)]
    outputs = [_axes(x.ndim, True, names) for x in outlines]
    whole = tuple(name for axes in (*inputs, *outputs) for name in axes if name != "batch")
    call: Any = custom_partitioning(flat)  # type: ignore[no-untyped-call]
    call.def_partition(
        partition,
        infer_sharding_from_operands=lambda mesh, operands, _: shardings(mesh, operands)[1],
        sharding_rule=f"{', '.join(map(' '.join, inputs))} -> {', '.join(map(' '.join, outputs))}",
        need_replication_factors=whole,
    )
    result: R = jax.tree.unflatten(out_structure, call(*leaves))
    return result


def _axes(ndim: int, mapped: bool, names: Iterator[str]) -> list[str]:
    return ["batch"] * mapped + list(itertools.islice(names, ndim - mapped))
