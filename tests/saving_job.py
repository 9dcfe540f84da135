"""Save and restore trees that are sharded over the devices of one or several processes.

python saving_job.py FOLDER save|restore|fail DEVICES [PORT PROCESSES INDEX]

DEVICES is the number of devices of each process. `restore` and `fail` read the checkpoints of `save`.
"""

import os
import sys
from pathlib import Path

folder, action, devices, *job = sys.argv[1:]
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"

import jax  # noqa: E402

if job:
    jax.distributed.initialize(f"127.0.0.1:{job[0]}", int(job[1]), int(job[2]))

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jax.sharding import AxisType, NamedSharding, PartitionSpec  # noqa: E402

from jaxgd import checkpoint, load_network, pieces, save_network  # noqa: E402
from jaxgd.checkpoint import Checkpoints  # noqa: E402
from jaxgd.errors import CheckpointError, WriteError  # noqa: E402
from jaxgd.network import Layer  # noqa: E402

folder, index = Path(folder), jax.process_index()
checkpoint._SMALL = 1000
checkpoint.PIECE = pieces.PIECE = 3000
rng = np.random.default_rng(0)
HOST = tuple(
    Layer(rng.standard_normal((m, n), np.float32), rng.standard_normal(m, np.float32)) for n, m in ((40, 64), (64, 12))
)
LINE = jax.make_mesh((jax.device_count(),), ("a",))  # explicit axes
GRID = jax.make_mesh((2, jax.device_count() // 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)


def tree(mesh, w, b):
    """Return weights sharded by the spec `w`, biases sharded by the spec `b`, and some arrays that are not sharded."""

    def put(x):
        sharding = NamedSharding(mesh, PartitionSpec(*(w if x.ndim == 2 else b)))
        return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])

    v = tuple(Layer(*map(put, layer)) for layer in HOST)
    return {"v": v, "key": jax.random.key(3), "local": jax.numpy.arange(1000.0), "host": np.arange(3)}


TREES = {
    "rows": tree(LINE, ("a",), ()),
    "columns": tree(LINE, (None, "a"), ("a",)),
    "grid": tree(GRID, ("b", "a"), (("a", "b"),)),
    "replicated": tree(GRID, (), ()),
}


def require_same(restored, like):
    for x, y, z in zip(jax.tree.leaves(restored["v"]), jax.tree.leaves(HOST), jax.tree.leaves(like["v"]), strict=True):
        assert x.sharding.is_equivalent_to(z.sharding, x.ndim)
        for shard in x.addressable_shards:
            np.testing.assert_array_equal(shard.data, y[shard.index])
    for x, y in (
        (jax.random.key_data(restored["key"]), jax.random.key_data(like["key"])),
        (restored["local"], like["local"]),
    ):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(restored["host"], like["host"])


def restore(name, like):
    with Checkpoints(folder / name, {}) as checkpoints:
        return checkpoints.restore(like)


def save():
    """Save each tree as the checkpoints of epochs 1 and 2, and its network as a file."""
    for name, x in TREES.items():
        with Checkpoints(folder / name, {}) as checkpoints:
            checkpoints.save(1, x)
            checkpoints.save(2, x)
        save_network(folder / f"{name}.safetensors", x["v"])
        # The file is complete as soon as any process returns.
        for a, b in zip(
            jax.tree.leaves(load_network(folder / f"{name}.safetensors")), jax.tree.leaves(HOST), strict=True
        ):
            np.testing.assert_array_equal(a, b)
        save_network(folder / f"host{index}.safetensors", HOST)
        assert (folder / f"{name}.safetensors").read_bytes() == (folder / f"host{index}.safetensors").read_bytes()


def restore_all():
    """Restore each tree with the shardings of the next tree in TREES, and the last tree with those of the first."""
    for name, like in zip(TREES, [*[*TREES.values()][1:], TREES["rows"]], strict=True):
        outlines = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like["v"])
        restored = restore(name, {**like, "v": outlines})
        assert (restored.epoch, restored.refused) == (2, ())
        require_same(restored.tree, like)


def fail():
    """Check that an error on one process is raised on all.

    If one process cannot read the newest checkpoint, all processes use the same older one. Every process refuses a
    damaged checkpoint.
    """
    last = jax.process_count() - 1
    x = TREES["grid"]
    with pytest.raises(WriteError, match="No such file"):
        save_network(folder / "absent" / "n.safetensors", x["v"])

    def guard():
        if index == last:
            raise WriteError("the folder is lost")

    with Checkpoints(folder / "lost", {}) as checkpoints:
        checkpoints._guard = guard
        with pytest.raises(WriteError, match="the folder is lost"):
            checkpoints.save(1, x)
        checkpoints._guard = lambda: None

    intact = checkpoint._opened

    def unreadable(place, name, *rest):
        if index == last and place.parent.name == "2" and name != "values":
            raise OSError("no route to the disk")
        return intact(place, name, *rest)

    checkpoint._opened = unreadable
    restored = restore("grid", x)
    checkpoint._opened = intact
    assert restored.epoch == 1
    assert "no route to the disk" in restored.refused[0]
    require_same(restored.tree, x)
    assert (folder / "grid-refused" / "2").exists()
    # Damage one shard: every process refuses the checkpoint. It is not moved, because no other checkpoint is intact.
    if index == 0:
        shards = (folder / "grid" / "1" / "state").glob("[0-9]*/[0-9]*")
        largest = max(shards, key=lambda path: path.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:-5] + b"\0\1\2\3\4")
    pieces.together(lambda: None, WriteError)
    with pytest.raises(CheckpointError, match="1 is refused"):
        restore("grid", x)


{"save": save, "restore": restore_all, "fail": fail}[action]()
print("done")
