"""Checks in a job of several processes, for test_mesh.py: each process prints the results as JSON."""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxgd
from jaxgd.checkpoint import Checkpoints
from jaxgd.mesh import place
from jaxgd.mesh.job import join_job
from jaxgd.mesh.processes import on_host

RNG = np.random.default_rng(0)
X, Y = RNG.random((41, 16), np.float32), RNG.integers(0, 4, 41)
A = RNG.random((40, 16), np.float32)


def cost(v, a):
    return jnp.mean((a @ v - 1.0) ** 2)


@jax.custom_vjp
def spoiled(v, a):
    return cost(v, a)


spoiled.defvjp(lambda v, a: (cost(v, a), (v, a)), lambda saved, c: (1.01 * c * jax.grad(cost)(*saved), None))


def spread(mesh, x, *spec):
    return jax.make_array_from_callback(x.shape, NamedSharding(mesh, P(*spec)), lambda i: np.asarray(x)[i])


def difference(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    gaps = (np.abs(on_host(x) - on_host(y)) / np.maximum(np.abs(on_host(y)), 1e-3) for x, y in pairs)
    return float(max(np.max(gap) for gap in gaps))


def error_of(f):
    try:
        f()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def run(index, folder):
    # `jax.make_mesh` makes explicit axes by default. jaxgd computes with automatic axes.
    explicit = place((X, Y), jax.make_mesh((jax.device_count(),), ("d",), axis_types=(AxisType.Explicit,)))
    mesh = jax.make_mesh((jax.device_count(),), ("d",), axis_types=(AxisType.Auto,))
    key, network = jax.random.key(1), jaxgd.init_network(jax.random.key(0), (16, 8, 4), "scaled")
    results = {}
    data = place((X, Y), mesh)
    for size in (None, 10):
        settings = {"epochs": 3, "batch_size": size, "eta": 1.0, "key": key}
        many, one = jaxgd.train(network, data, **settings), jaxgd.train(network, (X, Y), kernel="xla", **settings)
        results[f"train {size}"] = difference((many.history.cost, many.network), (one.history.cost, one.network))
    many = jaxgd.train(network, explicit, **settings)
    results["train explicit"] = difference((many.history.cost, many.network), (one.history.cost, one.network))
    seen = []
    # Only process 1 asks to stop. Process 0 decides, so the run continues.
    jaxgd.train(network, data, callback=lambda state, entry: seen.append(int(entry.epoch)) or index == 1, **settings)
    results["callback of process 0 decides"] = seen == [0, 1, 2, 3]
    v0, a = spread(mesh, np.zeros(16, np.float32)), spread(mesh, A, "d")
    # Without a stopping test, `one` and `many` end at the same update in spite of rounding.
    rule = jaxgd.gradient_descent(0.05)
    one = jaxgd.minimize(cost, jnp.zeros(16), rule, args=(A,), max_steps=50, stop=None)
    many = jaxgd.minimize(cost, v0, rule, args=(a,), max_steps=50, stop=None)
    results["minimize"] = difference((many.v, many.cost), (one.v, one.cost))
    settings = {"args": (a,), "max_steps": 10**6, "stop": None, "record": None}
    limited = jaxgd.minimize(cost, v0, jaxgd.gradient_descent(0.01), seconds=0.5 + index, **settings)
    results["seconds"] = limited.outcome.reason.name == "SECONDS"
    results["steps"] = (
        len({int(n) for n in on_host(spread(mesh, np.full(jax.device_count(), int(limited.steps)), "d"))}) == 1
    )
    slow = jaxgd.minimize(
        cost,
        v0,
        jaxgd.gradient_descent(0.01),
        callback=lambda s: time.sleep(0.05 * index) or (index == 0 and s.steps >= 30),
        **{**settings, "chunk": 10},
    )
    results["callback of minimize"] = int(slow.steps) == 30
    results["right check"] = jaxgd.check_gradients(cost, v0, a).verdict
    results["wrong"] = jaxgd.check_gradients(spoiled, v0, a).verdict == "wrong"
    results["sharpness"] = difference(
        jaxgd.sharpness(cost, v0, args=(a,)).value, jaxgd.sharpness(cost, jnp.zeros(16), args=(A,)).value
    )
    other = X + np.float32(index == 1)
    results["other data"] = "process 1 has other data" in error_of(lambda: place((other, Y), mesh))
    with Checkpoints(folder / "checkpoints", config={}) as checkpoints:
        checkpoints.save(1, {"a": a, "v": v0})
        checkpoints.wait()
        restored = checkpoints.restore({"a": a, "v": v0}).tree
    results["checkpoint"] = difference(restored, {"a": A, "v": np.zeros(16)})
    results["checkpoint keeps its sharding"] = restored["a"].sharding.spec == a.sharding.spec
    divided = (jaxgd.Layer(a, spread(mesh, np.zeros(40, np.float32), "d")),)
    jaxgd.save_network(folder / "network.safetensors", divided)
    results["network file"] = difference(jaxgd.load_network(folder / "network.safetensors"), divided)
    return results


if __name__ == "__main__":
    print(json.dumps({name: str(value) for name, value in run(join_job(), Path(sys.argv[1])).items()}))
