"""A function of a batch of networks, divided among devices by its leading axis."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

P: Any = jax.sharding.PartitionSpec


def divided(
    f: Callable[[PyTree[Any], PyTree[Any]], PyTree[Any]], mapped: PyTree[Any], shared: PyTree[Any]
) -> PyTree[Any]:
    """Return f(mapped, shared), where each device computes its own part of the batch.

    XLA cannot divide a call of a library. It would gather the whole batch on every device, and each would compute all
    of it.

    Args:
        f: A function of the mapped and the shared arrays. Element i of each result depends on element i of the mapped
            arrays, and on all shared ones.
        mapped: A tree of arrays with a leading axis of batch elements.
        shared: A tree of arrays. Every device needs all of them.

    Returns:
        The result of f: a tree of arrays with the same leading axis.
    """

    @custom_vmap
    def run(mapped: PyTree[Any], shared: PyTree[Any]) -> PyTree[Any]:
        return _partitioned(f, mapped, shared)

    @run.def_vmap
    def _(axis_size: int, in_batched: Any, mapped: PyTree[Any], shared: PyTree[Any]) -> Any:
        mapped = with_axis(axis_size, mapped, in_batched[0])
        if any(jax.tree.leaves(in_batched[1])):
            shared = with_axis(axis_size, shared, in_batched[1])
            out = jax.lax.map(lambda x: divided(f, *x), (mapped, shared))
        else:
            # Two axes of batch elements are one longer axis.
            out = divided(f, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), mapped), shared)
            out = jax.tree.map(lambda x: x.reshape(axis_size, -1, *x.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    return run(mapped, shared)


def with_axis(axis_size: int, tree: PyTree[Any], batched: PyTree[Any]) -> PyTree[Any]:
    """Return the tree with a leading batch axis in every array, for the rule of a `custom_vmap`."""
    return jax.tree.map(lambda x, b: x if b else jnp.broadcast_to(x, (axis_size, *x.shape)), tree, batched)


def _partitioned(f: Callable[[Any, Any], Any], mapped: PyTree[Any], shared: PyTree[Any]) -> PyTree[Any]:
    leaves, structure = jax.tree.flatten((mapped, shared))
    n_mapped = len(jax.tree.leaves(mapped))
    out, out_structure = jax.tree.flatten(jax.eval_shape(f, mapped, shared))

    def flat(*leaves: Any) -> tuple[Any, ...]:
        return tuple(jax.tree.leaves(f(*jax.tree.unflatten(structure, leaves))))

    def shardings(mesh: Mesh, arrays: Sequence[Any]) -> tuple[tuple[NamedSharding, ...], tuple[NamedSharding, ...]]:
        spec = arrays[0].sharding.spec
        along, whole = NamedSharding(mesh, P(*spec[:1])), NamedSharding(mesh, P())
        return (along,) * n_mapped + (whole,) * (len(arrays) - n_mapped), (along,) * len(out)

    def partition(mesh: Mesh, arrays: Sequence[Any], _: Any) -> Any:
        inputs, outputs = shardings(mesh, arrays)
        return mesh, flat, outputs, inputs

    # In the rule of Shardy, a partitioner, "batch" is the axis that may be divided. Each other axis has its own name.
    names = (f"axis{i}" for i in itertools.count())
    inputs = [_axes(x.ndim, i < n_mapped, names) for i, x in enumerate(leaves)]
    outputs = [_axes(x.ndim, True, names) for x in out]
    whole = tuple(name for axes in (*inputs, *outputs) for name in axes if name != "batch")
    call: Any = custom_partitioning(flat)  # type: ignore[no-untyped-call]
    call.def_partition(
        partition,
        infer_sharding_from_operands=lambda mesh, arrays, _: shardings(mesh, arrays)[1],
        sharding_rule=f"{', '.join(map(' '.join, inputs))} -> {', '.join(map(' '.join, outputs))}",
        need_replication_factors=whole,
    )
    return jax.tree.unflatten(out_structure, call(*leaves))


def _axes(ndim: int, mapped: bool, names: Any) -> list[str]:
    return ["batch"] * mapped + list(itertools.islice(names, ndim - mapped))
