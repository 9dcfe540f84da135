import hashlib
import importlib.resources

import numpy as np
import pytest

from jaxgd.data import load_dataset
from jaxgd.data.digits import read_original


def sha256(*arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_the_original_values_have_the_known_checksum():
    values, labels = read_original()
    assert values.shape == (1797, 8, 8)
    assert values.max() == 16
    assert sha256(values) == "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    assert sha256(labels) == "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"


def test_the_original_values_equal_those_of_scikit_learn():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    values, labels = read_original()
    np.testing.assert_array_equal(values, theirs.images)
    np.testing.assert_array_equal(labels, theirs.target)


def test_the_split_has_the_known_sizes_and_checksum():
    digits = load_dataset("digits")
    assert [len(part.labels) for part in (digits.train, digits.validation, digits.test)] == [1197, 300, 300]
    assert (digits.name, digits.classes, digits.image_shape, digits.inputs) == ("digits", 10, (8, 8), 64)
    # No version of NumPy or jaxgd may change the split.
    assert sha256(*digits.train, *digits.validation, *digits.test) == (
        "01f8fcc6986a77c07167e04749c9b780ab9a1f4b1e8daed8de88490ae5464fc8"
    )


def test_the_splits_are_the_original_values_shuffled():
    values, labels = read_original()
    digits = load_dataset("digits")
    images = np.concatenate([digits.train.images, digits.validation.images, digits.test.images])
    got = np.concatenate([digits.train.labels, digits.validation.labels, digits.test.labels])
    order = np.random.RandomState(0).permutation(1797)
    np.testing.assert_array_equal(got, labels[order])
    np.testing.assert_array_equal(np.rint(images * (16 / 255)), values[order])
    assert len(np.unique(digits.test.labels)) == 10


def test_pixels_use_the_whole_range():
    images = load_dataset("digits").train.images
    assert (images.min(), images.max(), images.dtype) == (0, 255, np.uint8)
    assert len(np.unique(images)) == 17


def test_digits_ignore_data_dir(tmp_path):
    assert load_dataset("digits", tmp_path / "absent").name == "digits"


def test_the_attribution_is_installed():
    text = (importlib.resources.files("jaxgd.data") / "digits" / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for fact in ("Alpaydin", "Kaynak", "UCI Machine Learning Repository", "1998", "CC BY 4.0", "10.24432/C50P49"):
        assert fact in text
