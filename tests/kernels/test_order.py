"""The order of examples is a permutation, and all permutations are equally likely."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import often

from jaxgd.kernels import random_order

one_order = jax.jit(random_order, static_argnums=1)


@given(n=st.sampled_from([1, 2, 3, 17, 1000, 4096]), seed=st.integers(0, 2**31))
def test_an_order_has_each_example_once(n, seed):
    order = one_order(jax.random.key(seed), n)
    assert order.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


@functools.cache
def orders(n, count):
    @jax.jit
    def draw(key):
        return jax.vmap(lambda key: random_order(key, n))(jax.random.split(key, count))

    return np.asarray(draw(jax.random.key(0)))


@pytest.mark.parametrize("n", often([2, 3, 4, 5], [2, 5]))
def test_all_orders_are_equally_likely(n):
    """χ² over all n! orders is within five standard deviations of its mean."""
    drawn = orders(n, 24_000)
    names = {order: i for i, order in enumerate(itertools.permutations(range(n)))}
    counts = np.bincount([names[tuple(order)] for order in drawn.tolist()], minlength=len(names))
    expected, freedom = len(drawn) / len(names), len(names) - 1
    chi2 = np.sum((counts - expected) ** 2) / expected
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)


def test_positions_are_uniform_and_uncorrelated():
    n, count = 500, 2000
    drawn = orders(n, count)
    # All positions of an example are equally likely: χ² over bins of 10 positions, for three examples.
    for example in (0, n // 2, n - 1):
        counts = np.bincount(np.argmax(drawn == example, axis=1) // 10, minlength=n // 10)
        assert np.sum((counts - 40) ** 2) / 40 < 50 + 5 * np.sqrt(2 * 50)
    # The number of examples that keep their position has a Poisson distribution with mean 1.
    stay = np.sum(drawn == np.arange(n), axis=1)
    assert abs(stay.mean() - 1) < 5 / np.sqrt(count)
    assert abs(stay.var() - 1) < 0.2
    # Examples are uncorrelated at neighboring positions, and at the same position in successive orders.
    centered = drawn - (n - 1) / 2
    scale = n * np.mean(centered[0] ** 2)
    for pairs in (np.sum(centered[:, 1:] * centered[:, :-1], 1), np.sum(centered[1:] * centered[:-1], 1)):
        assert abs(np.mean(pairs / scale)) < 5 / np.sqrt(n * count)


def test_a_batch_of_orders_equals_single_draws():
    keys = jax.random.split(jax.random.key(0), 2000)
    np.testing.assert_array_equal(orders(500, 2000)[2], one_order(keys[2], 500))
