"""Transposed digits give a warning, and so do labels that do not start at 0. The name EMNIST gives an error.

The arguments `labels_from` and `transpose` correct the data.
"""

import warnings

import numpy as np
import pytest

from jaxgd.data import load_dataset, load_idx
from jaxgd.data.conventions import _are_transposed_digits
from jaxgd.data.dataset import Part
from jaxgd.data.idx import write_idx
from jaxgd.errors import DataError, DtypeError, RangeError

BOTH = {"labels_from": 1, "transpose": True}


def write(folder, *, prefix="", labels_from=0, transpose=False):
    """Write digits as IDX files with this prefix, first label and orientation."""
    data = load_dataset("digits")
    for split in ("train", "test"):
        images, labels = getattr(data, split)
        images = np.ascontiguousarray(images.swapaxes(1, 2)) if transpose else images
        write_idx(folder / f"{prefix}{split}-images-idx3-ubyte", images)
        write_idx(folder / f"{prefix}{split}-labels-idx1-ubyte", labels + np.uint8(labels_from))


def silently(folder, **arguments):
    """Load a folder, and raise an error if it gives a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_idx(folder, **arguments)


def same(ours, theirs):
    for split in ("train", "validation", "test"):
        for one, other in zip(getattr(ours, split), getattr(theirs, split), strict=True):
            np.testing.assert_array_equal(one, other)
    return ours.classes == theirs.classes


@pytest.fixture
def upright(tmp_path):
    write(tmp_path)
    return silently(tmp_path)


@pytest.mark.parametrize("in_files", [True, False], ids=["EMNIST in the file names", "EMNIST in the folder name"])
def test_names_of_transposed_data_sets_require_both_arguments(tmp_path, upright, in_files):
    folder = tmp_path / ("mine" if in_files else "EMNIST")
    folder.mkdir()
    write(folder, prefix="emnist-letters-" * in_files, labels_from=1, transpose=True)
    for given in ({}, {"labels_from": 1}):
        with pytest.raises(DataError, match="say EMNIST, whose images are transposed") as caught:
            load_idx(folder, **given)
        labels = "" if given else "labels_from=1, "
        assert f"Pass {labels}transpose=True (" in str(caught.value)
        assert "--no-transpose" in str(caught.value)
    with pytest.raises(DataError, match=r"Pass labels_from=1, transpose=True \(--labels-from 1 --transpose\)."):
        load_idx(folder, transpose=True)
    assert same(silently(folder, **BOTH), upright)
    assert same(load_dataset(folder, **BOTH), upright)
    assert same(load_dataset(str(folder), **BOTH), upright)


def test_labels_that_do_not_start_at_0_give_a_warning(tmp_path, upright):
    """Without labels_from, the labels do not change."""
    write(tmp_path, labels_from=3)
    with pytest.warns(UserWarning, match=r"labels run from 3 to 12.*pass labels_from=3 \(--labels-from 3\)\.$"):
        dataset = load_idx(tmp_path)
    assert (dataset.classes, dataset.train.labels.min()) == (13, 3)
    assert silently(tmp_path, labels_from=0).classes == 13
    assert same(silently(tmp_path, labels_from=3), upright)
    with pytest.raises(DataError, match=r"labels must be labels_from = 4 or more, got 3.\nPass labels_from=3"):
        load_idx(tmp_path, labels_from=4)


def test_labels_from_1_to_26_give_a_warning_about_letters(tmp_path):
    images, labels = np.zeros((52, 4, 4), np.uint8), np.arange(52, dtype=np.uint8) % 26 + 1
    for split in ("train", "test"):
        write_idx(tmp_path / f"{split}-images", images)
        write_idx(tmp_path / f"{split}-labels", labels)
    with pytest.warns(UserWarning, match="EMNIST's letters have these labels, and its images are transposed"):
        load_idx(tmp_path)
    assert silently(tmp_path, labels_from=1).classes == 26


def test_transposed_digits_give_a_warning(tmp_path, upright):
    write(tmp_path, transpose=True)
    with pytest.warns(UserWarning, match=r"look like transposed digits.*Pass transpose=True \(--transpose\)"):
        dataset = load_idx(tmp_path)
    np.testing.assert_array_equal(dataset.train.images, upright.train.images.swapaxes(1, 2))
    assert same(silently(tmp_path, transpose=True), upright)
    silently(tmp_path, transpose=False)
    write(tmp_path)
    with pytest.warns(UserWarning, match="look like transposed digits.*Leave out transpose=True"):
        load_idx(tmp_path, transpose=True)


@pytest.mark.parametrize("n", [500, 50_000])
def test_only_transposed_digits_of_mnist_give_a_warning(genuine_mnist, n):
    images, labels = load_idx(genuine_mnist, transpose=False).train
    order = np.argsort(labels[:n], kind="stable")  # sorted by class, as in some files
    part = Part(images[:n][order], labels[:n][order])
    assert not _are_transposed_digits(part)
    assert _are_transposed_digits(part._replace(images=part.images.swapaxes(1, 2)))


def test_other_images_are_not_taken_for_digits(seed):
    """Permuted labels, rotated or mirrored digits, blots and other images give no warning, upright or transposed."""
    rng, (images, labels) = np.random.default_rng(seed), load_dataset("digits").train
    blots = np.repeat(rng.integers(0, 256, (10, 3, 3)).repeat(3, 1).repeat(3, 2), 5, 0).astype(np.uint8)
    others = [
        *(Part(images, rng.permutation(10).astype(np.uint8)[labels]) for _ in range(20)),
        *(Part(np.rot90(images, turns, (1, 2)), labels) for turns in (1, 2, 3)),
        Part(images[:, :, ::-1], labels),
        Part(images // 2 + images.swapaxes(1, 2) // 2, labels),  # symmetric images
        Part(blots, np.arange(50, dtype=np.uint8) // 5),
        Part(np.zeros_like(images), labels),
        Part(images[:, :, :7], labels),
        Part(images[labels < 9], labels[labels < 9]),
    ]
    for part in others:
        for images in (part.images, part.images.swapaxes(1, 2)):
            assert not _are_transposed_digits(part._replace(images=images))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"labels_from": -1}, RangeError, "labels_from must be between 0 and 255, got -1"),
        ({"labels_from": 1.0}, DtypeError, "labels_from must be a whole number"),
        ({"transpose": 1}, DtypeError, "transpose must be True or False, got 1"),
    ],
    ids=str,
)
def test_invalid_arguments_are_refused(tmp_path, arguments, error, match):
    write(tmp_path)
    with pytest.raises(error, match=match):
        load_idx(tmp_path, **arguments)


def test_named_data_sets_refuse_labels_from_and_transpose():
    for given in ({"labels_from": 0}, {"transpose": False}):
        with pytest.raises(RangeError, match="'digits' has labels from 0 and upright images"):
            load_dataset("digits", **given)
