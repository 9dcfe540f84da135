"""Directions and cotangents are random and scaled, and points move by one rounding."""

import math

import hypothesis
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxgd.gradcheck.draws import cotangents, directions, evenly, jittered, norm, rms, scale_of, stacked


def generator():
    return np.random.default_rng(0)


def test_directions_have_the_size_of_the_leaf_or_of_each_element():
    x = np.array([1e-6, 0.0, -1.0, 1e6, np.nan])
    whole, own, again, _, fixed = directions(x, 4, generator())
    scale = scale_of(x)
    # The root mean square is rounded to a power of two, so that steps are exact. A zero or NaN takes the size of the
    # leaf.
    assert scale == 2.0**19
    for u in (whole, again):
        assert np.all((0.5 * scale <= np.abs(u)) & (np.abs(u) <= 1.5 * scale))
    assert not np.array_equal(whole, again)
    sizes = np.array([2.0**-20, scale, 1, 2.0**20, scale])
    np.testing.assert_array_equal(fixed, sizes)
    assert np.all((0.5 * sizes <= np.abs(own)) & (np.abs(own) <= 1.5 * sizes))
    assert len(set(np.sign(directions(np.ones(50), 1, generator())[0]))) == 2


def test_complex_directions_have_all_phases():
    u = directions(np.ones(200) * 1j, 2, generator())
    assert u.dtype == complex
    quadrants = {(a, b) for a, b in zip(u[0].real > 0, u[0].imag > 0, strict=True)}
    assert len(quadrants) == 4


def test_the_even_direction_moves_small_contributions_by_similar_amounts():
    g, x = np.array([1e6, 1.0, 1e-3, 0.0, 900.0, 1e5]), np.ones(6)
    u = directions(x, 3, generator())
    even = evenly(g, u)
    np.testing.assert_array_equal(even[[0, 5]], 0)
    share = np.abs(g * even)
    # The contribution 900 shrinks to about 1, the median of 1e-3, 1 and 900.
    assert share[4] < 4
    assert 0.2 < share[1] < 2
    assert evenly(np.ones(6), u) is None
    assert evenly(np.zeros(6), u) is None


def test_cotangents_are_inversely_proportional_to_the_output_or_its_change():
    y = np.array([100.0, 1.0, 0.0, np.inf], np.float32)
    whole, own, *_ = cotangents(y, y + np.float32([1, 1e-3, 0, 0]), 1e-7, 4, generator())
    assert np.all((64 * np.abs(whole) >= 0.5) & (64 * np.abs(whole) <= 1.5))
    share = np.abs(own[:2]) * [1, 1e-3]
    assert np.all((share >= 0.499) & (share <= 1.501))
    # A change below 1e-5 of the largest output counts as 1e-5 of this output.
    assert np.all(np.abs(own[2:]) <= 1.5e3)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_a_cotangent_of_a_tiny_output_stays_in_the_range_of_its_dtype(dtype):
    tiny = np.full(3, 1e-7).astype(dtype)
    assert np.all(np.isfinite(cotangents(tiny, tiny, 1e-2, 4, generator()).astype(dtype)))
    assert np.all(np.isfinite(cotangents(np.zeros(3, dtype), np.zeros(3, dtype), 1e-2, 4, generator()).astype(dtype)))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, float, complex])
def test_points_are_moved_by_one_rounding(dtype):
    x = np.array([1.0, 0.0, -3.0, 100.0]).astype(dtype)
    point, *moved = jittered([x], generator())
    assert len(moved) == 2
    eps = float(ml_dtypes.finfo(np.real(x).dtype).eps)
    for (y,) in moved:
        assert y.dtype == dtype
        off = np.abs(y.astype(complex) - x.astype(complex))
        assert np.all(off <= 1.5 * eps * np.abs(x.astype(complex)))
        assert np.all((off > 0) == (x != 0))
    assert stacked([point, *moved])[0].shape == (3, 4)


@hypothesis.given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9), st.sampled_from([1.0, 1e-200, 1e200]))
def test_the_norm_of_tiny_and_huge_numbers_neither_vanishes_nor_overflows(values, scale):
    x = np.array(values) * scale
    assert norm(x) == pytest.approx(scale * math.hypot(*values))
    assert rms(x) == pytest.approx(scale * math.hypot(*values) / math.sqrt(len(values)))


def test_norms_of_numbers_that_are_not_finite():
    assert norm(np.array([1.0, np.inf])) == math.inf
    assert rms(np.array([3.0, np.nan, np.inf, -3.0])) == 3
    assert rms(np.array([np.nan])) == rms(np.zeros(0)) == norm(np.zeros(0)) == 0
    assert scale_of(np.zeros(3)) == scale_of(np.zeros(0)) == 1
    assert scale_of(np.array([5.0, np.inf, 0.0])) == 4
