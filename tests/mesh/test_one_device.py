"""The package jaxgd.mesh in one process with one device: bad input, and programs that are only traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxgd
from jaxgd.errors import DtypeError, RangeError, ShapeError, WriteError
from jaxgd.mesh import place
from jaxgd.mesh.job import join_job, leave_job, on_main
from jaxgd.mesh.processes import decided, on_host

X, Y = np.ones((5, 4), np.float32), np.arange(5) % 2


def mesh():
    return jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"JAXGD_COORDINATOR": "node"}, r"JAXGD_COORDINATOR must be host:port .* got 'node'"),
        ({"JAXGD_COORDINATOR": "node:99999"}, "JAXGD_COORDINATOR must be host:port"),
        ({"JAXGD_COORDINATOR": "node:1"}, "JAXGD_PROCESSES must be a whole number from 1"),
        ({"JAXGD_COORDINATOR": "node:1", "JAXGD_PROCESSES": "2", "JAXGD_PROCESS": "2"}, "JAXGD_PROCESS must .* 0 to 1"),
        ({"JAXGD_PROCESSES": "2"}, "JAXGD_PROCESSES needs JAXGD_COORDINATOR too"),
        ({"JAXGD_HEARTBEAT": "soon"}, "JAXGD_HEARTBEAT must be a whole number from 10"),
    ],
)
def test_wrong_environment_variables_of_a_job_are_refused(monkeypatch, variables, words):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RangeError, match=words):
        join_job()


def test_one_process_does_not_join_a_job(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert join_job() == 0
    leave_job(1)  # does nothing without a job
    assert decided(False, 3) == 3
    assert on_main(lambda: 3) == 3
    assert on_host(jnp.ones(2)).tolist() == [1.0, 1.0]
    with pytest.raises(WriteError, match="full"):
        on_main(lambda: (_ for _ in ()).throw(WriteError("full")))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("data", "options", "error", "words"),
    [
        ((X, Y), {"axis": "e"}, RangeError, r"axis must be an axis of the mesh \('d'\), got 'e'"),
        ((X, Y), {"mesh": 4}, DtypeError, "mesh must be a jax.sharding.Mesh, got int"),
        ((X, Y), {"pad": 1}, DtypeError, "pad must be True or False"),
        ((X, Y[1:]), {}, ShapeError, "one label or target for each input"),
        ((X[:0], Y[:0]), {}, ShapeError, "at least one example"),
        (X, {}, DtypeError, "must be a pair"),
    ],
)
def test_bad_arguments_of_place_are_refused(data, options, error, words):
    with pytest.raises(error, match=words):
        place(data, **{"mesh": mesh(), **options})


def test_place_refuses_data_that_are_already_placed():
    placed = place((X, Y), mesh())
    assert (placed.images.shape, placed.n, placed.devices) == ((5, 4), 5, 1)
    with pytest.raises(DtypeError, match="already placed"):
        place(placed, mesh())


def test_descents_are_traced_inside_shard_map():
    """Each device runs its own descents. Tracing suffices: JAX refuses a loop whose carry changes its type."""

    rule = jaxgd.wolfe()

    def run(v, a):
        each = jax.vmap(lambda v: jaxgd.minimize(lambda v, a: jnp.sum((v - a) ** 4), v, rule, args=(a,), max_steps=9).v)
        return each(v)

    inside = jax.shard_map(run, mesh=mesh(), in_specs=(P("d"), P()), out_specs=P("d"))
    assert jax.eval_shape(inside, jnp.ones((3, 2)), jnp.ones(2)).shape == (3, 2)


@pytest.mark.parametrize(("kernel", "explicit"), [("xla", False), ("native", True)], ids=["shard_map", "explicit axes"])
def test_training_is_traced_inside_shard_map_and_with_explicit_axes(kernel, explicit):
    def run(key):
        network = jaxgd.init_network(key, (4, 3, 2))
        return jaxgd.train(network, (X, Y), epochs=1, batch_size=2, eta=1.0, key=key, kernel=kernel).network[0].w

    keys = jax.random.split(jax.random.key(0), 2)
    if explicit:
        axes = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Explicit,))
        keys = jax.device_put(keys, jax.sharding.NamedSharding(axes, P("d")))
        assert jax.eval_shape(jax.vmap(run), keys).shape == (2, 3, 4)
    else:
        inside = jax.shard_map(jax.vmap(run), mesh=mesh(), in_specs=P("d"), out_specs=P("d"))
        assert jax.eval_shape(inside, keys).shape == (2, 3, 4)
