"""The kernel gives the same bits in every run. Other networks in the launch do not change them."""

import functools

import jax
import numpy as np
import pytest
from kernel_examples import drawn
from support import assert_leaves_close

from jaxgd import Layer, load_dataset
from jaxgd.kernels.cuda import backend
from jaxgd.kernels.cuda.shape import Shape

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.usefixtures("cuda")]

SHAPE = Shape(64, 20, 10, 10, parts=2)


@functools.cache
def few():
    """Return 203 images and labels: 20 mini-batches of 10, and one of 3."""
    images, labels = load_dataset("digits").train
    return np.asarray(images[:203]).reshape(203, 64), np.asarray(labels[:203])


def networks(count, seed=0):
    """Return networks with a leading axis, their orders and their η."""
    x, _ = few()
    flat, _, _, _ = drawn(SHAPE, 1, True, count, seed)
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(len(x)) for _ in range(count)]).astype(np.int32)
    return (Layer(*flat[:2]), Layer(*flat[2:])), orders, np.linspace(0.5, 5, count, dtype=np.float32)


@jax.jit
def one_epoch(network, x, y, order, eta):
    return backend.epoch(network, x, y, order, eta, SHAPE.batch_size)


many_epochs = jax.jit(jax.vmap(one_epoch, in_axes=(0, None, None, 0, 0)))


def test_a_network_has_the_same_bits_alone_and_in_grids_of_any_size(on_gpu):
    """Each network is one block. Some sizes exceed the 132 multiprocessors of an H100 or H200."""
    sizes = (1, 2, 66, 132, 133, 300) if on_gpu else (1, 2, 9)
    x, labels = few()
    y = np.int32(labels)
    batch, orders, etas = networks(sizes[-1])
    whole, finite = jax.tree.map(np.asarray, many_epochs(batch, x, y, orders, etas))
    assert finite.all()
    for size in sizes[:-1]:
        # Take the last networks of the grid, so that each network has another block than before.
        last = jax.tree.map(lambda v, size=size: v[-size:], (batch, orders, etas))
        part, _ = many_epochs(last[0], x, y, *last[1:])
        assert_leaves_close(part, jax.tree.map(lambda v, size=size: v[-size:], whole), rtol=0)
    for i in (0, sizes[-1] // 2, sizes[-1] - 1):
        single, _ = one_epoch(*jax.tree.map(lambda v, i=i: v[i], (batch,)), x, y, orders[i], etas[i])
        assert_leaves_close(single, jax.tree.map(lambda v, i=i: v[i], whole), rtol=0)


def test_a_nan_in_one_network_does_not_change_the_others():
    x, labels = few()
    batch, orders, etas = networks(3)
    spoiled = jax.tree.map(np.copy, batch)
    spoiled[0].w[1, 0, 0] = np.nan
    (want, _), (actual, finite) = (many_epochs(v, x, np.int32(labels), orders, etas) for v in (batch, spoiled))
    assert np.asarray(finite).tolist() == [True, False, True]
    for i in (0, 2):
        assert_leaves_close(*(jax.tree.map(lambda v, i=i: v[i], tree) for tree in (actual, want)), rtol=0)


def test_repeated_runs_give_the_same_bits():
    x, labels = few()
    batch, orders, etas = networks(9)
    first = many_epochs(batch, x, np.int32(labels), orders, etas)
    for _ in range(5):
        assert_leaves_close(many_epochs(batch, x, np.int32(labels), orders, etas), first, rtol=0)
