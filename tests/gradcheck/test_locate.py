"""The wrong elements of a gradient show the pattern of the error, which the report names."""

import numpy as np
import pytest

from jaxgd.gradcheck.derive import Derivative
from jaxgd.gradcheck.locate import ElementSearch, outliers
from jaxgd.gradcheck.patterns import exchanged, pattern_of, places, worst

RNG = np.random.default_rng(0)
SHAPE = (6, 6)
RIGHT = RNG.normal(size=SHAPE)
AXES = (("axis 0 of x", 50), ("axis 1 of x", 7))


def searched(claimed, reference=RIGHT, index=None):
    index = np.arange(reference.size) if index is None else index
    c, r = claimed.reshape(-1)[index], reference.reshape(-1)[index]
    return ElementSearch(index, c, r, np.full(len(index), 1e-12), np.zeros(len(index), bool))


def pattern(claimed, reference=RIGHT, index=None, axes=()):
    return pattern_of(searched(claimed, reference, index), claimed.reshape(-1), reference.shape, axes)


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
    (RIGHT + 0.25, "off by the same amount, 0.25"),
    (changed((2, 3), 0.0), r"one element is wrong, [2, 3]"),
    (changed((2, 3), lambda x: 1.2 * x), r"one element is wrong, [2, 3]"),
    (swapped, "two elements are swapped, [1, 2] and [4, 5]"),
    (changed(4, 0.0), "the leaf is zero only at index 4 of axis 0"),
    (changed((slice(None), 1), lambda x: 2 * x), "the leaf is wrong only at index 1 of axis 1"),
    (changed((2, 3), np.nan), "1 of 36 elements is NaN"),
    (changed((slice(None), 1), np.nan), "6 of 36 elements are NaN"),
    (RIGHT * (1 + 2e-6), "too large by 2e-06 relative"),
    (changed((slice(2), slice(None, None, 2)), 9.0), "6 of 36 searched elements are wrong"),
    (RIGHT * np.inf, "the whole leaf is infinite"),
]


@pytest.mark.parametrize(("claimed", "words"), PATTERNS, ids=[words or "right" for _, words in PATTERNS])
def test_each_pattern_is_named(claimed, words):
    sentence = pattern(claimed, axes=AXES)
    assert words in sentence
    assert bool(sentence) == bool(words)


def test_a_transpose_reshaped_to_the_shape_of_the_leaf_is_named():
    right = RNG.normal(size=(3, 8))
    claimed = right.T.reshape(3, 8)
    assert pattern(claimed, right) == "the leaf is transposed"


def test_a_leaf_that_should_be_zero_is_named():
    assert pattern(RIGHT, np.zeros(SHAPE)) == "the whole leaf should be zero"


def test_a_complex_conjugate_is_named():
    right = RIGHT + 1j * RIGHT.T
    assert "conjugate" in pattern(right.conj(), right)


def test_a_sample_of_elements_shows_a_pattern_of_the_whole_leaf():
    index = np.array([3, 7, 8, 20, 31])
    for claimed, words in ((-RIGHT, "sign"), (RIGHT.T, "transposed"), (np.roll(RIGHT, 1, 0), "shifted by 1")):
        assert words in pattern(claimed, index=index)


def test_the_worst_elements_come_first_with_index_and_ratio():
    claimed = changed((2, 3), lambda x: 1.2 * x)
    claimed[5, 0] += 100
    first, second = worst(searched(claimed), SHAPE)
    assert (first.index, second.index) == ((5, 0), (2, 3))
    assert second.ratio == pytest.approx(1.2)
    assert second.reference == RIGHT[2, 3]


def test_an_element_at_a_kink_is_not_wrong():
    search = searched(changed((2, 3), 0.0))
    search.kink[15] = True
    assert not search.wrong.any()
    assert pattern_of(search, None, SHAPE, ()) == ""


def test_a_difference_within_its_error_is_not_wrong():
    search = searched(RIGHT * (1 + 1e-6))
    assert search.wrong.all()
    search.error[:] = 1e-3
    assert not search.wrong.any()


def test_an_inverse_transform_is_named():
    """The inverse Fourier transform has the elements of the transform in mirrored order, divided by their number."""
    w = RNG.normal(size=12) + 1j * RNG.normal(size=12)
    right, inverse = np.fft.fft(w).real, np.fft.ifft(w).real
    words = "the leaf is mirrored around index 0 of axis 0"
    assert pattern(inverse, right) == f"{words} and divided by its length 12: is it the inverse transform"
    assert pattern(12 * inverse, right) == f"{words}: is it the inverse transform"
    assert pattern(right, inverse) == f"{words} and multiplied by 12: is it the inverse transform"


def test_a_function_that_reads_one_triangle_is_named():
    triangle = np.tril(RIGHT)
    symmetric = (triangle + triangle.T) / 2
    words = "the leaf is right in symmetric directions: f may read one triangle of a symmetric matrix"
    assert pattern(symmetric, triangle) == words
    assert "symmetric" not in pattern(1.5 * symmetric, triangle)


def test_a_leaf_with_large_errors_is_not_called_zero():
    search = searched(2 * RIGHT)
    search.error[:] = 0.05 * np.abs(RIGHT.reshape(-1))
    assert search.wrong.all()
    assert "zero" not in pattern_of(search, None, SHAPE, ())


def test_two_leaves_with_exchanged_gradients_are_named():
    other = RNG.normal(size=SHAPE)
    searches = {
        ("gradient", 0): searched(other),
        ("gradient", 1): searched(RIGHT, other),
        ("gradient", 2): searched(RIGHT**2, RIGHT**3),
    }
    expected = {0: "the leaf holds the gradient of y", 1: "the leaf holds the gradient of x"}
    assert exchanged(searches, "xyz") == expected
    # No exchange is reported if the claims differ, if a leaf is right, or if the searches have different sizes.
    assert exchanged({("vjp", 0): searched(other), ("gradient", 1): searched(RIGHT, other)}, "xy") == {}
    assert exchanged({("gradient", 0): searched(RIGHT), ("gradient", 1): searched(RIGHT, other)}, "xy") == {}
    few = searched(other, index=np.arange(5))
    assert exchanged({("gradient", 0): few, ("gradient", 1): searched(RIGHT, other)}, "xy") == {}


def derivative(gradient, moved):
    """Return a derivative with one leaf. Each element changes by `moved` when the point moves by one rounding."""
    return Derivative("claim", 1e-8, *np.zeros((3, 1, 1)), gradients=[gradient[None]], moved=[moved])


def test_a_small_element_that_is_wrong_is_an_outlier():
    """The error is 2e-13 of the largest element, far above the noise of the small element."""
    right = np.array([1e6, 1.0, 1e-6, 1e-9])
    claimed, still = right * [1, 1, 1.2, 1.2], 1e-17 * right
    mask = outliers(derivative(claimed, still), derivative(right, still), 0)
    # An error below 1e-14 of the largest element may be rounding.
    assert mask.tolist() == [False, False, True, False]
    # An element's noise may be 0 by chance. Another element of similar size shows the noise.
    noisy = np.array([0.0, 0.0, 0.0, 0.0, 1e-7])
    longer = [np.append(x, 3e-6) for x in (claimed, right)]
    assert not outliers(derivative(longer[0], noisy), derivative(longer[1], noisy), 0).any()
    # If moving the point changes nothing, the rounding is unknown.
    assert not outliers(derivative(claimed, np.zeros(4)), derivative(right, np.zeros(4)), 0).any()
    # An error of up to 1% is no outlier. The comparison of the whole leaf judges it.
    assert not outliers(derivative(right * 1.009, still), derivative(right, still), 0).any()


def test_places_are_indices_of_the_leaf():
    assert places(np.array([0, 7]), (2, 4)) == "[0, 0], [1, 3]"
    assert places(np.arange(5), (5,)) == "[0], [1], [2] and 2 more"
