import numpy as np
import pytest

from jaxgd.data.dataset import Part, make_dataset, make_part
from jaxgd.errors import DataError, DtypeError


def part(n=3, height=5, width=4, label=0):
    return Part(np.zeros((n, height, width), np.uint8), np.full(n, label, np.uint8))


def test_dataset_properties_and_repr():
    dataset = make_dataset("test", "mine", part(4, label=1), part(label=6), part())
    assert dataset.image_shape == (5, 4)
    assert dataset.inputs == 20
    assert dataset.classes == 7
    assert repr(dataset) == "Dataset(name='mine', classes=7)"


def test_arrays_are_read_only_and_not_copied():
    mine = part()
    dataset = make_dataset("test", "mine", mine, mine, mine)
    assert np.shares_memory(dataset.train.images, mine.images)
    for array in (*dataset.train, *dataset.validation, *dataset.test):
        assert not array.flags.writeable
    mine.images[0, 0, 0] = 1  # The caller's own array stays writable.


def test_a_dataset_is_frozen():
    dataset = make_dataset("test", "mine", part(), part(), part())
    with pytest.raises(AttributeError):
        dataset.name = "yours"


def test_counts_of_images_and_labels_must_be_equal():
    with pytest.raises(DataError, match=r"test: .*3 images in a.gz and 2 labels in b.gz"):
        make_part("test", part(3).images, part(2).labels, images_name="a.gz", labels_name="b.gz")


def test_image_shapes_must_be_equal():
    with pytest.raises(DataError, match="train 5×4, validation 5×4, test 4×4"):
        make_dataset("test", "mine", part(), part(), part(height=4))


def test_labels_must_be_below_classes():
    with pytest.raises(DataError, match="below classes = 3, got 3 in validation"):
        make_dataset("test", "mine", part(label=2), part(label=3), part(), classes=3)


@pytest.mark.parametrize("shape", [(0, 5, 4), (3, 0, 4)])
def test_empty_images_are_refused(shape):
    with pytest.raises(DataError, match="at least one"):
        make_part("test", np.zeros(shape, np.uint8), np.zeros(shape[0], np.uint8))


@pytest.mark.bad_input
def test_a_wrong_rank_is_refused():
    with pytest.raises(DataError, match=r"\(n, height, width\), got \(3, 20\)"):
        make_part("test", part().images.reshape(3, 20), part().labels)
    with pytest.raises(DataError, match=r"\(n,\), got \(3, 1\)"):
        make_part("test", part().images, part().labels[:, None])


@pytest.mark.bad_input
def test_a_wrong_dtype_is_refused():
    with pytest.raises(DtypeError, match=r"images must be uint8, got float64\[3,5,4\]"):
        make_part("test", part().images / 255, part().labels)
    with pytest.raises(DtypeError, match=r"labels must be uint8, got int64\[3\]"):
        make_part("test", part().images, part().labels.astype(np.int64))
