"""Norms of trees neither overflow nor underflow, and sums over bfloat16 have the accuracy of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd.pytree import all_finite, axpy, dot, norm, select, subtract

# float32 has a relative rounding error of 6e-8, so a few operations stay below 1e-6.
RTOL = 1e-6


def test_dot_sums_over_all_leaves():
    u = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "b": (jnp.array(5.0), jnp.array([-1.0]))}
    v = {"w": jnp.array([[1.0, 0.0], [2.0, 1.0]]), "b": (jnp.array(2.0), jnp.array([3.0]))}
    assert float(dot(u, v)) == 1 + 6 + 4 + 10 - 3
    assert float(dot([], [])) == 0


def test_dot_is_the_square_of_the_norm(seed, x64):
    rng = np.random.default_rng(seed)
    v = {name: jnp.asarray(rng.normal(size=(i, 3))) for i, name in enumerate("abc", 1)}
    np.testing.assert_allclose(dot(v, v), norm(v) ** 2, rtol=1e-14)
    np.testing.assert_allclose(norm(v), np.linalg.norm(np.concatenate([x.ravel() for x in v.values()])), rtol=1e-14)


def test_bfloat16_is_summed_in_float32():
    """bfloat16 has eight binary digits, so 1001 would round to 1000."""
    ones = jnp.ones(1001, jnp.bfloat16)
    assert dot(ones, ones).dtype == norm(ones).dtype == jnp.float32
    assert float(dot(ones, ones)) == 1001
    np.testing.assert_allclose(norm(ones), np.sqrt(1001), rtol=RTOL)


def test_axpy_keeps_the_dtypes_of_y():
    y = {"a": jnp.zeros(2, jnp.bfloat16), "b": jnp.zeros(3)}
    moved = axpy(jnp.float32(0.5), jax.tree.map(jnp.ones_like, y), y)
    assert jax.tree.map(lambda x: x.dtype, moved) == {"a": jnp.bfloat16, "b": jnp.float32}
    np.testing.assert_array_equal(moved["b"], 0.5)


def test_dot_refuses_trees_that_differ():
    with pytest.raises(ValueError, match=r"[Dd]ict"):
        dot({"a": jnp.ones(2)}, {"b": jnp.ones(2)})
    with pytest.raises((TypeError, ValueError)):
        dot(jnp.ones(3), jnp.ones(2))


# The largest number of float32 is 3.4e38, and the smallest normal number is 1.2e-38.
@pytest.mark.parametrize("size", [1e-37, 1e-30, 1e-3, 1.0, 1e30, 8e37])
def test_norm_neither_overflows_nor_underflows(size):
    v = [jnp.array([3 * size, 0.0]), {"b": jnp.array(-4 * size)}] if size < 1e37 else [jnp.array([size, 0.0])]
    np.testing.assert_allclose(float(norm(v)), 5 * size if size < 1e37 else size, rtol=RTOL)


@pytest.mark.parametrize("size", [1e38, 2e38, 3e38])
def test_norm_is_accurate_near_the_largest_number(size):
    """1 / `size` is subnormal and XLA rounds it to 0, so `norm` must not multiply by it."""
    np.testing.assert_allclose(float(norm([jnp.array([size, 0.0])])), size, rtol=RTOL)
    np.testing.assert_allclose(float(jax.jit(norm)([jnp.array([size, 0.0])])), size, rtol=RTOL)


def test_the_plain_norm_overflows_and_underflows():
    """The plain formula fails at sizes of 1e30 and 1e-30, unlike `norm`."""
    assert float(jnp.sqrt(jnp.sum(jnp.array([3e30, 4e30]) ** 2))) == np.inf
    assert float(jnp.sqrt(jnp.sum(jnp.array([3e-30, 4e-30]) ** 2))) == 0


@pytest.mark.parametrize(
    "v", [[], (), None, [jnp.zeros(3)], [jnp.zeros((0, 2))], [jnp.zeros((0,)), jnp.zeros(())]], ids=str
)
def test_norm_of_an_empty_tree_and_of_zeros_is_0(v):
    assert float(norm(v)) == 0


def test_the_norm_is_infinite_or_nan_if_an_element_is():
    inf, nan = jnp.array([1.0, -jnp.inf]), jnp.array([jnp.nan, 1.0])
    assert float(norm([inf])) == np.inf
    assert np.isnan(norm([nan]))
    assert np.isnan(norm([inf, nan]))
    assert np.isnan(norm([jnp.ones(2), nan]))


def test_norm_works_under_jit_and_vmap(seed):
    v = (jnp.asarray(np.random.default_rng(seed).normal(size=(4, 3)), jnp.float32), jnp.arange(4.0))
    batch = jax.jit(jax.vmap(norm))(v)
    for i in range(4):
        np.testing.assert_allclose(batch[i], norm((v[0][i], v[1][i])), rtol=RTOL)


def test_subtract_works_leaf_by_leaf():
    difference = subtract({"a": jnp.array([3.0, 1.0]), "b": jnp.array(2.0)}, {"a": jnp.ones(2), "b": jnp.array(5.0)})
    np.testing.assert_array_equal(difference["a"], [2.0, 0.0])
    assert float(difference["b"]) == -3


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_all_finite_finds_one_bad_element(bad):
    good = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3), "n": jnp.array(7)}
    assert bool(all_finite(good))
    assert not bool(all_finite({**good, "w": good["w"].at[1, 2].set(bad)}))
    assert bool(all_finite([]))
    np.testing.assert_array_equal(jax.vmap(all_finite)([jnp.array([1.0, bad, 2.0])]), [True, False, True])


def test_select_chooses_the_whole_tree():
    u, v = {"a": jnp.ones(2), "n": jnp.array(1)}, {"a": jnp.zeros(2), "n": jnp.array(2)}
    for choose in (select, jax.jit(select)):
        assert int(choose(jnp.array(True), u, v)["n"]) == 1
        np.testing.assert_array_equal(choose(jnp.array(False), u, v)["a"], [0.0, 0.0])
    chosen = jax.vmap(select, in_axes=(0, None, None))(jnp.array([True, False]), u, v)
    np.testing.assert_array_equal(chosen["a"], [[1.0, 1.0], [0.0, 0.0]])


def test_select_ignores_a_nan_in_the_other_tree():
    assert float(select(jnp.array(False), jnp.array(jnp.nan), jnp.array(1.0))) == 1
