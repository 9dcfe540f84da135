"""Checks on four forced CPU devices, for test_mesh.py: run one group of checks, and print the results as JSON.

The number of devices must be set before JAX starts, so the checks run in a separate program.
"""

import functools
import json
import os
import sys

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxgd
from jaxgd.mesh import place

MESHES = {}
RNG = np.random.default_rng(0)
# 41 examples cannot be divided evenly among 4 devices.
X, Y = RNG.random((41, 16), np.float32), RNG.integers(0, 4, 41)
KEY, NETWORK = jax.random.key(1), jaxgd.init_network(jax.random.key(0), (16, 8, 4), "scaled")
A = RNG.normal(size=(64, 8)).astype(np.float32)
COLLECTIVES = ("all-gather(", "all-reduce(", "all-to-all(", "collective-permute(")


def put(mesh, x, *spec):
    return jax.device_put(x, NamedSharding(mesh, P(*spec)))


def error_of(f):
    try:
        f()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def difference(a, b):
    """Return the largest |x − y| / max(|y|, 10⁻³) over the elements of two trees. NaN equals only NaN."""
    largest = 0.0
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x, float), np.asarray(y, float)
        gap = np.where(np.isnan(x) & np.isnan(y), 0.0, np.abs(x - y) / np.maximum(np.abs(y), 1e-3))
        largest = max(largest, float(np.max(np.where(np.isnan(gap), np.inf, gap))))
    return largest


def train(network, data, batch_size, **settings):
    return jaxgd.train(network, data, epochs=3, batch_size=batch_size, eta=1.0, key=KEY, **settings)


def placed():
    """Compare `train` on four devices and on one, with padded examples, two costs and divided weights."""
    results = {}
    for kind, mesh in MESHES.items():
        data = place((X, Y), mesh)
        for size in (None, 10):
            one, many = train(NETWORK, (X, Y), size, kernel="xla"), train(NETWORK, data, size)
            results[f"{kind} {size} cost"] = difference(many.history.cost, one.history.cost)
            results[f"{kind} {size}"] = difference(many.network, one.network)
            results[f"{kind} {size} backend"] = many.kernel.name
    own = lambda a, y: jnp.mean(jnp.sum((a - y) ** 4, axis=1))  # noqa: E731
    one, many = (train(NETWORK, d, None, cost=own) for d in ((X, Y), place((X, Y), MESHES["Auto"])))
    results["own cost"] = difference(many.history.cost, one.history.cost)
    wide = tuple(jaxgd.Layer(put(MESHES["Auto"], w, None, "d"), put(MESHES["Auto"], b)) for w, b in NETWORK)
    many = train(wide, (X, Y), None)
    results["weights cost"] = difference(many.history.cost, train(NETWORK, (X, Y), None, kernel="xla").history.cost)
    results["weights stay divided"] = str(many.network[0].w.sharding.spec)
    return results


def many_networks(kernel):
    def run(key):
        # Each network has its own weight decay.
        settings = {"cost": jaxgd.cross_entropy, "l2": jax.random.uniform(key), "kernel": kernel}
        result = jaxgd.train(NETWORK, (X, Y), epochs=2, batch_size=10, eta=1.0, key=key, **settings)
        return result.network, result.history.cost

    return jax.vmap(run)


def quick():
    """Check padded examples, one native network per device, and the errors for bad input."""
    one, many = train(NETWORK, (X, Y), None, kernel="xla"), train(NETWORK, place((X, Y), MESHES["Auto"]), None)
    keys = jax.random.split(KEY, 4)
    compiled = jax.jit(many_networks("native")).lower(put(MESHES["Auto"], keys, "d")).compile()
    text = compiled.as_text()
    placed_data = place((X, Y), MESHES["Auto"])
    settings = {"evaluate": False, "gradient_norm": False}
    traced = jax.eval_shape(lambda v: train(v, placed_data, None, **settings).network, NETWORK)
    whole = jax.jit(lambda v, data: train(v, data, None, **settings).network).lower(NETWORK, placed_data).compile()
    nan = X.copy()
    nan[1, 1] = np.nan  # only the first device holds row 1
    return {
        "error nan": error_of(lambda: train(NETWORK, place((nan, Y), MESHES["Auto"]), None)),
        "a closure may hold placed data": jax.tree.map(jnp.shape, traced) == jax.tree.map(jnp.shape, NETWORK),
        "examples stay divided under jit": "f32[44,16]" not in whole.as_text(),
        "padded cost": difference(many.history.cost, one.history.cost),
        "padded": difference(many.network, one.network),
        "collectives": sum(map(text.count, COLLECTIVES)),
        "one network per device": "f32[1,8,16]" in text and "f32[4,8,16]" not in text,
        **errors_of_place(),
    }


def errors_of_place():
    mesh = MESHES["Auto"]
    return {
        "error axis": error_of(lambda: place((X, Y), mesh, axis="e")),
        "error pad": error_of(lambda: place((X, Y), mesh, pad=False)),
        "error mesh": error_of(lambda: place((X, Y), 4)),
        "error lengths": error_of(lambda: place((X, Y[1:]), mesh)),
    }


def batch():
    """Compare eight networks on four devices and on one, for the native kernels and XLA."""
    keys = jax.random.split(KEY, 8)
    results = {}
    for kernel in ("native", "xla"):
        run = many_networks(kernel)
        one = jax.jit(run)(keys)
        compiled = jax.jit(run).lower(put(MESHES["Auto"], keys, "d")).compile()
        text = compiled.as_text()
        many = compiled(put(MESHES["Auto"], keys, "d"))
        results[f"{kernel} collectives"] = sum(map(text.count, COLLECTIVES))
        results[f"{kernel} networks per device"] = text.count("f32[2,8,16]") > 0 and text.count("f32[8,8,16]") == 0
        results[kernel] = difference(many, one)
        results[f"{kernel} same bits"] = jax.tree.all(jax.tree.map(np.array_equal, many[0], one[0]))
        divided = jax.shard_map(run, mesh=MESHES["Auto"], in_specs=P("d"), out_specs=P("d"))
        results[f"{kernel} shard_map"] = difference(jax.jit(divided)(put(MESHES["Auto"], keys, "d")), one)
        explicit = jax.jit(run)(put(MESHES["Explicit"], keys, "d"))
        results[f"{kernel} explicit"] = difference(explicit, one)
    nested = jax.jit(jax.vmap(run, in_axes=0))(jnp.stack([keys[:2], keys[2:4]]))
    results["nested"] = difference(nested, jax.tree.map(lambda x: x[:4].reshape(2, 2, *x.shape[1:]), one))
    return results


def cost(v, a):
    return jnp.mean((a @ v - 1.0) ** 2)


def descents():
    """Compare `minimize`, `sharpness` and `check_gradients` on four devices and on one, and `minimize` in shard_map."""
    v0, results = jnp.zeros(8), {}
    descend = functools.partial(jaxgd.minimize, rule=jaxgd.wolfe(), max_steps=50)
    one = descend(cost, v0, args=(jnp.asarray(A),))
    starts = RNG.normal(size=(8, 8)).astype(np.float32)
    each = jax.vmap(lambda v, a: descend(cost, v, args=(a,)).v, in_axes=(0, None))
    several = jax.jit(each)(starts, A)
    for kind, mesh in MESHES.items():
        for name, v, a in (
            ("rows", put(mesh, v0), put(mesh, A, "d")),
            ("variables", put(mesh, v0, "d"), put(mesh, A, None, "d")),
        ):
            s = descend(cost, v, args=(a,))
            results[f"{kind} {name}"] = difference((s.v, s.cost), (one.v, one.cost))
            results[f"{kind} {name} outcome"] = s.outcome.reason.name == one.outcome.reason.name
        sharp = jaxgd.sharpness(cost, put(mesh, v0, "d"), args=(put(mesh, A, None, "d"),)).value
        results[f"{kind} sharpness"] = difference(sharp, jaxgd.sharpness(cost, v0, args=(A,)).value)
        # This check compiles programs for one device. The check on four devices must not use them.
        jaxgd.check_gradients(cost, v0, jnp.asarray(A))
        results[f"{kind} check"] = jaxgd.check_gradients(cost, put(mesh, v0, "d"), put(mesh, A, None, "d")).verdict
        inside = jax.shard_map(
            lambda v, a: descend(lambda v, a: jax.lax.pmean(cost(v, a), "d"), v, args=(a,)).v,
            **{"mesh": mesh, "in_specs": (P(), P("d")), "out_specs": P()},
        )
        results[f"{kind} shard_map"] = difference(jax.jit(inside)(put(mesh, v0), put(mesh, A, "d")), one.v)
        results[f"{kind} batch"] = difference(jax.jit(each)(put(mesh, starts, "d"), put(mesh, A)), several)
        inside = jax.shard_map(each, mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"))
        results[f"{kind} batch in shard_map"] = difference(
            jax.jit(inside)(put(mesh, starts, "d"), put(mesh, A)), several
        )
    forgotten = jax.shard_map(
        lambda v, a: descend(cost, v, args=(a,)).v,
        **{"mesh": MESHES["Auto"], "in_specs": (P(), P("d")), "out_specs": P()},
    )
    results["error pmean"] = error_of(lambda: jax.jit(forgotten)(v0, A))
    return results


if __name__ == "__main__":
    for kind in ("Auto", "Explicit"):
        MESHES[kind] = jax.make_mesh((4,), ("d",), axis_types=(getattr(AxisType, kind),))
    print(json.dumps({name: str(value) for name, value in globals()[sys.argv[1]]().items()}))
