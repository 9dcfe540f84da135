"""The native kernels of the CPU: a small C++ library, called from inside compiled programs.

By JAX's foreign-function interface; what it computes, and how its data lie, is described in src.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int

from jaxgd.network import Layer, Network

LIBRARY = Path(__file__).parent / "_native.so"


@functools.cache
def library() -> ctypes.CDLL | str:
    """The library, with its functions known to JAX; or why it is not there, in words."""
    if not LIBRARY.exists():
        return "the native library was not built when jaxgd was installed, for want of a C++ compiler (GCC or Clang)"
    try:
        found = ctypes.CDLL(str(LIBRARY))
        for name in ("jaxgd_epoch", "jaxgd_evaluate"):
            capsule = jax.ffi.pycapsule(getattr(found, name))  # type: ignore[no-untyped-call]
            jax.ffi.register_ffi_target(name, capsule, platform="cpu")
    except (OSError, AttributeError) as error:
        return f"the native library cannot be loaded: {error}"
    found.jaxgd_machine.restype = ctypes.c_char_p
    return found


def machine() -> str:
    """The kind of machine that the kernels here are for, which decides their bits; or why they do not run."""
    found = library()
    return found if isinstance(found, str) else found.jaxgd_machine().decode()


def about() -> str:
    """In a few words, what the native kernels run with here, or why they do not."""
    found = library()
    if isinstance(found, str):
        return found
    threads = found.jaxgd_threads()
    return f"{machine()}, {threads} thread{'s' if threads > 1 else ''}"


def _result(shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def with_derivatives(f: Callable[..., Any], same: Callable[..., Any]) -> Callable[..., Any]:
    """A function that the library computes, with the derivatives of one that JAX knows and that computes the same."""
    g: Any = jax.custom_jvp(f)
    g.defjvp(lambda primals, tangents: jax.jvp(same, primals, tangents))
    return cast(Callable[..., Any], g)


def _flat(network: Network) -> list[Array]:
    return [x for layer in network for x in (layer.w, layer.b)]


def _network(flat: Any) -> Network:
    return tuple(Layer(w, b) for w, b in zip(flat[::2], flat[1::2], strict=True))


def epoch(
    network: Network, x: Array, y: Array, order: Int[Array, "*lanes n"], eta: Float[Array, "*lanes"], batch_size: int
) -> tuple[Network, Bool[Array, "*lanes"]]:
    """One update v → v − η∇C a mini-batch, over all examples in this order; and whether no output was NaN.

    The mini-batches are the order's first `batch_size` examples, and so on; the last may be short.

    Shapes: `y` is (n,) labels as int32 or (n, out) float32. Under vmap over networks, orders and η, many networks learn
    at once, one a thread; data are shared, or else mapped over one after the other. Threads that are left teach one
    network together, where a mini-batch is worth it; the result is the same to the bit for any number of them.
    """
    out: tuple[Network, Array] = _epoch(batch_size)(network, x, y, order, eta)
    return out


@functools.cache
def _epoch(batch_size: int) -> Any:
    @custom_vmap
    def run(network: Network, x: Array, y: Array, order: Array, eta: Array) -> tuple[Network, Array]:
        flat = _flat(network)
        lanes = order.shape[:-1]
        out = jax.ffi.ffi_call(
            "jaxgd_epoch",
            (_result(lanes, jnp.int32), *(_result(x.shape) for x in flat)),
            # The weights are updated where they lie.
            input_output_aliases={4 + i: 1 + i for i in range(len(flat))},
        )(x, y, order, eta, *flat, batch_size=np.int64(batch_size))
        return _network(out[1:]), out[0] == 1

    @run.def_vmap
    def _(axis_size: int, in_batched: Any, network: Any, x: Any, y: Any, order: Any, eta: Any) -> Any:
        batched = jax.tree.leaves(in_batched[1:3])
        mapped = (network, order, eta)

        def everywhere(x: Array, has: bool) -> Array:
            return x if has else jnp.broadcast_to(x, (axis_size, *x.shape))

        which = (in_batched[0], in_batched[3], in_batched[4])
        mapped = jax.tree.map(everywhere, mapped, which)
        if any(batched) or mapped[2].ndim > 1:
            # Of what the library does not do at once, one after the other.
            data = jax.tree.map(everywhere, (x, y), tuple(in_batched[1:3]))
            out = jax.lax.map(lambda z: run(z[0][0], z[1][0], z[1][1], z[0][1], z[0][2]), (mapped, data))
        else:
            out = run(mapped[0], x, y, mapped[1], mapped[2])
        return out, jax.tree.map(lambda _: True, out)

    return run


def evaluate(
    network: Network, x: Array, y: Array, gradient: bool
) -> tuple[Float[Array, ""], Float[Array, "n out"], Network | None]:
    """C over all examples, their outputs, and ∇C if it is wanted; summed up in float64.

    Shapes: as for `epoch`; under vmap, one network after the other.
    """
    flat = _flat(network)
    n, width = y.shape[0], flat[-1].shape[0]
    shapes = [_result(()), _result((n, width)), *(_result(x.shape) for x in flat if gradient)]
    c, a, *found = jax.ffi.ffi_call("jaxgd_evaluate", shapes, vmap_method="sequential")(x, y, *flat)
    return c, a, _network(found) if gradient else None
