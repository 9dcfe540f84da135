"""The elements of a wrong gradient determine the name of its pattern."""

import numpy as np
import pytest

from jaxgd.gradcheck.locate import Looked, pattern, worst

RNG = np.random.default_rng(0)
SHAPE = (6, 6)
RIGHT = RNG.normal(size=SHAPE)
AXES = (("axis 0 of x", 50), ("axis 1 of x", 7))


def looked(claimed, reference=RIGHT, index=None):
    index = np.arange(reference.size) if index is None else index
    c, r = claimed.reshape(-1)[index], reference.reshape(-1)[index]
    return Looked(index, c, r, np.full(len(index), 1e-12), np.zeros(len(index), bool))


def changed(where, value):
    out = RIGHT.copy()
    out[where] = value(RIGHT[where]) if callable(value) else value
    return out


swapped = RIGHT.copy()
swapped[1, 2], swapped[4, 5] = RIGHT[4, 5], RIGHT[1, 2]

PATTERNS = [
    (RIGHT, ""),
    (RIGHT * 0, "the whole leaf is zero"),
    (-RIGHT, "the whole leaf has its sign flipped"),
    (RIGHT * 1.05, "the whole leaf is 1.05 times the reference"),
    (RIGHT * 50, "50 times too large, and 50 is the length of axis 0 of x"),
    (RIGHT / 50, "50 times too small, and 50 is the length of axis 0 of x"),
    (RIGHT * -7, "with its sign flipped, 7 times too large"),
    (RIGHT.T, "the leaf is transposed"),
    (np.roll(RIGHT, 1, 0), "shifted by 1 along axis 0"),
    (np.roll(RIGHT, -2, 1), "shifted by -2 along axis 1"),
    (RIGHT[::-1], "reversed along axis 0"),
    (RIGHT + 0.25, "off by the same 0.25"),
    (changed((2, 3), 0.0), r"one element is wrong, [2, 3]"),
    (changed((2, 3), lambda x: 1.2 * x), r"one element is wrong, [2, 3]"),
    (swapped, "two elements are swapped, [1, 2] and [4, 5]"),
    (changed(4, 0.0), "the leaf is zero only at index 4 of axis 0"),
    (changed((slice(None), 1), lambda x: 2 * x), "the leaf is wrong only at index 1 of axis 1"),
    (changed((2, 3), np.nan), "1 of 36 elements is NaN"),
    (RIGHT * np.inf, "the whole leaf is infinite"),
]


@pytest.mark.parametrize(("claimed", "words"), PATTERNS, ids=[words or "right" for _, words in PATTERNS])
def test_each_pattern_is_named(claimed, words):
    found = pattern(looked(claimed), claimed.reshape(-1), SHAPE, AXES)
    assert words in found
    assert bool(found) == bool(words)


def test_a_transpose_reshaped_to_the_shape_of_the_leaf_is_named():
    right = RNG.normal(size=(3, 8))
    claimed = right.T.reshape(3, 8)
    assert pattern(looked(claimed, right), claimed.reshape(-1), (3, 8), ()) == "the leaf is transposed"


def test_a_leaf_that_should_be_zero_is_named():
    right = np.zeros(SHAPE)
    assert pattern(looked(RIGHT, right), RIGHT.reshape(-1), SHAPE, ()) == "the whole leaf should be zero"


def test_a_complex_conjugate_is_named():
    right = RIGHT + 1j * RIGHT.T
    assert "conjugate" in pattern(looked(right.conj(), right), right.conj().reshape(-1), SHAPE, ())


def test_a_sample_of_elements_shows_a_pattern_of_the_whole_leaf():
    index = np.array([3, 7, 8, 20, 31])
    for claimed, words in ((-RIGHT, "sign"), (RIGHT.T, "transposed"), (np.roll(RIGHT, 1, 0), "shifted by 1")):
        assert words in pattern(looked(claimed, index=index), claimed.reshape(-1), SHAPE, ())


def test_the_worst_elements_come_first_with_index_and_ratio():
    claimed = changed((2, 3), lambda x: 1.2 * x)
    claimed[5, 0] += 100
    first, second = worst(looked(claimed), SHAPE)
    assert (first.index, second.index) == ((5, 0), (2, 3))
    assert second.ratio == pytest.approx(1.2)
    assert second.reference == RIGHT[2, 3]


def test_an_element_at_a_kink_is_not_wrong():
    found = looked(changed((2, 3), 0.0))
    found.kink[15] = True
    assert not found.wrong.any()
    assert pattern(found, None, SHAPE, ()) == ""


def test_a_difference_within_its_error_is_not_wrong():
    found = looked(RIGHT * (1 + 1e-6))
    assert found.wrong.all()
    found.error[:] = 1e-3
    assert not found.wrong.any()
