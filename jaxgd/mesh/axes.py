"""The axes of a mesh: run a function with automatic axes, and cast values to vary over manual axes."""

import functools
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jaxgd.errors import RangeError, is_traced
from jaxgd.typed import tree_leaves, tree_map

_COMMUNICATES = re.compile(r"\b(psum\w*|pmax|pmin|ppermute|all_gather\w*|all_to_all|reduce_scatter)\[")

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def explicit_mesh(tree: object) -> Mesh | AbstractMesh | None:
    """Return the mesh, concrete or abstract, of the first array with explicit axes; None if no array has any."""
    for x in tree_leaves(tree):
        mesh = _type_mesh(x)
        if mesh is not None and AxisType.Explicit in mesh.axis_types:
            return mesh if is_traced(x) or not isinstance(x.sharding, NamedSharding) else x.sharding.mesh
    return None


def automatic(f: Callable[..., R], args: tuple[object, ...], shardings: Callable[[NamedSharding], object]) -> R:
    """Return f(*args), computed with automatic axes.

    With explicit axes, JAX refuses an operation whose output sharding is ambiguous, and jaxgd names no output
    shardings. With automatic axes, XLA chooses them. The results have explicit axes again.

    Args:
        f: A function of arrays and static pytrees.
        args: The arguments, trees of arrays.
        shardings: A function from the sharding of replicated arrays to the shardings of f's result: a tree like the
            result, or a prefix of this tree. It is called only while JAX traces. Otherwise, XLA chooses the shardings.

    Returns:
        The result of f.
    """
    mesh = explicit_mesh(args)
    if mesh is None:
        return f(*args)
    if any(map(is_traced, tree_leaves(args))) or isinstance(mesh, AbstractMesh):
        out_sharding = shardings(NamedSharding(mesh, PartitionSpec()))  # type: ignore[no-untyped-call]
        traced: R = jax.sharding.auto_axes(f, out_sharding=out_sharding)(*args)
        return traced
    auto = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
    with jax.set_mesh(auto):
        out = f(*tree_map(lambda x: _moved(x, mesh, auto), args))
    return tree_map(lambda x: _moved(x, auto, mesh), out)


def automatic_axes(f: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function of a cost so that it computes with automatic axes if an argument has explicit axes.

    If the cost names the shardings of its results or calls `jax.shard_map`, the function runs with explicit axes.
    Otherwise, the results are replicated under `jit` or `vmap`.
    """

    @functools.wraps(f)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        leaves: list[object]
        leaves, structure = jax.tree.flatten((args, kwargs))
        if explicit_mesh(leaves) is None:
            return f(*args, **kwargs)
        places = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array)]

        def call(*arrays: jax.Array) -> R:
            ours = list(leaves)
            for i, x in zip(places, arrays, strict=True):
                ours[i] = x
            args, kwargs = jax.tree.unflatten(structure, ours)
            return f(*args, **kwargs)

        try:
            return automatic(call, tuple(leaves[i] for i in places), lambda replicated: replicated)
        except Exception as error:  # JAX raises exceptions of several types
            # The second text is from JAX's message for a cost that calls `jax.shard_map`.
            if "AxisType.Auto" not in str(error) and "mesh passed to shard_map" not in str(error):
                raise
            return f(*args, **kwargs)

    return run


def _moved(x: jax.Array, old: Mesh, new: Mesh) -> jax.Array:
    """Move an array from the mesh `old` to the mesh `new` of the same devices, without a copy.

    Other arrays are returned unchanged.
    """
    sharding = getattr(x, "sharding", None)
    if isinstance(sharding, NamedSharding) and sharding.mesh == old:
        # Not device_put, which refuses an array that spans several processes.
        return jax.make_array_from_single_device_arrays(
            x.shape, NamedSharding(new, sharding.spec), [shard.data for shard in x.addressable_shards]
        )
    return x


def sharding_like(x: jax.Array, replicated: NamedSharding) -> NamedSharding:
    """Return the sharding of an array whose mesh has explicit axes. Return `replicated` for any other array."""
    mesh = _type_mesh(x)
    if mesh is None or AxisType.Explicit not in mesh.axis_types:
        return replicated
    spec: PartitionSpec = jax.typeof(x).sharding.spec
    return NamedSharding(replicated.mesh, spec)


def _type_mesh(x: object) -> AbstractMesh | None:
    """Return the mesh in the type of an array; None for an object without one."""
    sharding = getattr(jax.typeof(x), "sharding", None) if isinstance(x, jax.Array) else None
    if not isinstance(sharding, NamedSharding) or sharding.mesh.empty:
        return None
    mesh: AbstractMesh = sharding.mesh.abstract_mesh
    return mesh


def varying(tree: T, like: object) -> T:
    """Cast every array and float of the tree to vary over all manual axes over which any array of `like` varies.

    Inside `jax.shard_map`, a value that varies over a mesh axis may differ between the devices along this axis. The
    cast is needed for the carry of a loop, which must keep its type. It is also needed before a gradient: with respect
    to an array that does not vary, JAX returns the sum of the devices' gradients.
    """
    axes = _axes_of_tree(like)

    def cast(x: Any) -> Any:
        # Functions, texts and whole numbers are constants of the program, so they vary over no axis.
        return cast_to_vary(jnp.asarray(x), axes) if isinstance(x, jax.Array | np.ndarray | float) else x

    return tree_map(cast, tree) if axes else tree


def cast_to_vary(x: jax.Array, axes: frozenset[str]) -> jax.Array:
    """Cast an array to vary over these axes, in addition to its own axes."""
    missing = axes - varying_axes(x)
    cast: jax.Array = jax.lax.pcast(x, tuple(missing), to="varying") if missing else x
    return cast


def varying_axes(x: object) -> frozenset[str]:
    """Return the manual axes over which a traced array, or its `jax.ShapeDtypeStruct`, varies."""
    kind = x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x) if is_traced(x) else None
    manual = getattr(kind, "manual_axis_type", None)
    axes: frozenset[str] = frozenset() if manual is None else manual.varying
    return axes


def _axes_of_tree(tree: object) -> frozenset[str]:
    return frozenset[str]().union(*map(varying_axes, tree_leaves(tree)))


def require_equal_cost(who: str, c: object, v: object) -> None:
    """Raise RangeError if the cost c, or its ShapeDtypeStruct, varies over a manual axis over which v does not vary.

    JAX would differentiate the sum of the devices' costs, but each device computes only its own cost.
    """
    if shared := sorted(_axes_of_tree(c) - _axes_of_tree(v)):
        raise RangeError(
            f"{who}: inside jax.shard_map, the cost must be equal on all devices with the same v, but it varies over "
            f"{', '.join(map(repr, shared))}.\nReturn jax.lax.pmean(cost, {tuple(shared)!r})."
        )


def require_checked_axes(who: str, cost: Callable[..., object], *args: object) -> None:
    """Raise RangeError if a cost communicates inside `jax.shard_map` with `check_vma=False`.

    JAX then confuses the gradient of a mean over the devices with the gradient of one device.
    """
    axes: tuple[str, ...] = jax.sharding.get_abstract_mesh().manual_axes
    # JAX marks axis_index as varying over its axis only with check_vma=True.
    if not axes or varying_axes(jax.lax.axis_index(axes[0])):
        return
    if _COMMUNICATES.search(str(jax.make_jaxpr(cost)(*args))):
        raise RangeError(
            f"{who}: inside jax.shard_map, a cost that communicates between devices needs check_vma=True, got False.\n"
            "Leave check_vma out, or compute the cost on each device alone."
        )
