import numpy as np
import pytest

from jaxgd.data import load_idx
from jaxgd.data.idx import write_idx
from jaxgd.errors import DataError, RangeError


def fill(folder, prefix="train", n=12, *, size=(5, 4), labels=None, suffix="-idx.gz"):
    labels = np.arange(n, dtype=np.uint8) % 3 if labels is None else np.array(labels, np.uint8)
    images = np.arange(n * size[0] * size[1]).astype(np.uint8).reshape(n, *size)
    write_idx(folder / f"{prefix}-images{suffix}", images)
    write_idx(folder / f"{prefix}-labels{suffix}", labels)
    return images, labels


@pytest.mark.parametrize("test", ["t10k", "test"])
@pytest.mark.parametrize("suffix", ["", ".gz", "-idx3-ubyte.gz"])
def test_all_usual_file_names_load(tmp_path, test, suffix):
    images, labels = fill(tmp_path, suffix=suffix)
    test_images, test_labels = fill(tmp_path, test, 3, suffix=suffix)
    dataset = load_idx(str(tmp_path))
    assert (dataset.name, dataset.classes, dataset.image_shape) == (tmp_path.name, 3, (5, 4))
    np.testing.assert_array_equal(dataset.train.images, images[:10])
    np.testing.assert_array_equal(dataset.train.labels, labels[:10])
    np.testing.assert_array_equal(dataset.validation.images, images[10:])
    np.testing.assert_array_equal(dataset.validation.labels, labels[10:])
    np.testing.assert_array_equal(dataset.test.images, test_images)
    np.testing.assert_array_equal(dataset.test.labels, test_labels)


def test_validation_files_are_the_validation_split(tmp_path):
    for prefix, n in (("train", 12), ("validation", 5), ("test", 3)):
        fill(tmp_path, prefix, n)
    dataset = load_idx(tmp_path)
    assert [len(part.labels) for part in (dataset.train, dataset.validation, dataset.test)] == [12, 5, 3]
    with pytest.raises(RangeError, match=r"has validation files, got validation = 4"):
        load_idx(tmp_path, validation=4)


@pytest.mark.parametrize(("n", "asked", "got"), [(12, 5, 5), (12, 11, 11), (17, None, 2), (2, None, 1)])
def test_validation_defaults_to_one_sixth(tmp_path, n, asked, got):
    fill(tmp_path, n=n)
    fill(tmp_path, "test", 3)
    assert len(load_idx(tmp_path, validation=asked).validation.labels) == got


@pytest.mark.parametrize("asked", [0, -1, 12])
def test_validation_out_of_range_is_refused(tmp_path, asked):
    fill(tmp_path)
    fill(tmp_path, "test", 3)
    with pytest.raises(RangeError, match=f"validation must be between 1 and 11, got {asked}"):
        load_idx(tmp_path, validation=asked)


def test_classes_defaults_to_the_largest_label_plus_one(tmp_path):
    fill(tmp_path, labels=[1] * 12)
    fill(tmp_path, "test", 2, labels=[0, 5])
    assert load_idx(tmp_path).classes == 6
    assert load_idx(tmp_path, classes=9).classes == 9
    with pytest.raises(DataError, match=r"below classes = 5, got 5 in test(.|\n)*larger classes") as caught:
        load_idx(tmp_path, classes=5)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(RangeError, match="classes must be at least 1"):
        load_idx(tmp_path, classes=0)


@pytest.mark.parametrize("missing", ["train-images", "train-labels", "test-images", "test-labels", "validation-labels"])
def test_a_missing_file_is_named(tmp_path, missing):
    for prefix in ("train", "validation", "test"):
        fill(tmp_path, prefix)
    (tmp_path / f"{missing}-idx.gz").unlink()
    with pytest.raises(DataError, match=rf"{missing}\*, got none\.\nPut it into this folder") as caught:
        load_idx(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_two_files_for_one_purpose_are_refused(tmp_path):
    fill(tmp_path)
    fill(tmp_path, "test", 3)
    fill(tmp_path, "t10k", 3)
    with pytest.raises(DataError, match=r"t10k-images-idx.gz and test-images-idx.gz.\nKeep one"):
        load_idx(tmp_path)


def test_a_gzipped_and_an_unpacked_file_must_be_equal(tmp_path):
    """The folder of torchvision has each file gzipped and unpacked, so equal copies are allowed."""
    for suffix in ("-idx", "-idx.gz"):
        fill(tmp_path, suffix=suffix)
        images, _ = fill(tmp_path, "test", 3, suffix=suffix)
    np.testing.assert_array_equal(load_idx(tmp_path).test.images, images)
    write_idx(tmp_path / "train-images-idx.gz", np.zeros((12, 5, 4), np.uint8))
    with pytest.raises(
        DataError, match=r"the same array in train-images-idx and train-images-idx.gz, got two arrays.\nKeep one"
    ):
        load_idx(tmp_path)


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Train", "Validation", "T10K"),
        ("emnist-letters-train", "emnist-letters-val", "emnist-letters-test"),
    ],
)
@pytest.mark.parametrize("dash", "-_")
def test_file_names_may_have_capitals_underscores_and_a_prefix(tmp_path, train, validation, test, dash):
    counts = {train: 12, validation: 5, test: 3}
    for prefix, n in counts.items():
        fill(tmp_path, prefix, n)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-", dash)))
    (tmp_path / "._train-images-idx.gz").write_bytes(b"of macOS")
    dataset = load_idx(tmp_path, transpose=False)
    assert [len(part.labels) for part in (dataset.train, dataset.validation, dataset.test)] == [12, 5, 3]
    assert dataset.name == ("emnist-letters" if "emnist" in train else tmp_path.name)


@pytest.mark.parametrize("place", ["raw", "MNIST/raw"])
def test_the_folder_of_torchvision_is_found(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    fill(folder)
    fill(folder, "t10k", 3)
    assert len(load_idx(tmp_path).test.labels) == 3
    other = tmp_path / "KMNIST/raw"
    other.mkdir(parents=True)
    fill(other)
    with pytest.raises(DataError, match=r"one data set, got (raw and KMNIST|KMNIST/raw and MNIST)/raw\.\nName one of"):
        load_idx(tmp_path)


def test_a_folder_with_several_data_sets_is_refused(tmp_path):
    """The folder of EMNIST has six data sets, whose file names differ only in their prefix."""
    for name in ("emnist-letters", "emnist-digits"):
        for split in ("train", "test"):
            fill(tmp_path, f"{name}-{split}")
    with pytest.raises(DataError, match=r"got 2: emnist-digits, emnist-letters.\nMove the files of one data set"):
        load_idx(tmp_path)


def test_the_error_lists_the_content_of_the_folder(tmp_path):
    with pytest.raises(DataError, match=r"expected one file train-images\*, got none.*\n.*The folder is empty\."):
        load_idx(tmp_path)
    (tmp_path / "0").mkdir()
    for i in range(9):
        (tmp_path / f"{i}.png").touch()
    with pytest.raises(DataError, match=r"The folder has 0.png, 0/, 1.png, .*, 6.png and 2 more\."):
        load_idx(tmp_path)


def test_different_image_sizes_are_refused(tmp_path):
    fill(tmp_path)
    fill(tmp_path, "test", 3, size=(5, 5))
    with pytest.raises(DataError, match=r"train 5×4, validation 5×4, test 5×5.\nCrop or scale"):
        load_idx(tmp_path)


def test_different_counts_of_images_and_labels_are_refused(tmp_path):
    fill(tmp_path, n=12, labels=[0] * 11)
    fill(tmp_path, "test", 3)
    with pytest.raises(DataError, match=r"12 images in .*train-images-idx.gz and 11 labels in .*train-labels-idx.gz"):
        load_idx(tmp_path)


@pytest.mark.parametrize("prefix", ["train", "test"])
def test_an_empty_split_is_refused(tmp_path, prefix):
    for each in ("train", "test"):
        fill(tmp_path, each, 0 if each == prefix else 6)
    with pytest.raises(DataError, match=rf"{prefix}-images-idx.gz must hold at least one image"):
        load_idx(tmp_path)


def test_one_training_example_cannot_be_split(tmp_path):
    fill(tmp_path, n=1)
    fill(tmp_path, "test", 3)
    with pytest.raises(DataError, match=r"at least two training examples.*got 1"):
        load_idx(tmp_path)


def test_labels_instead_of_images_are_refused(tmp_path):
    fill(tmp_path)
    fill(tmp_path, "test", 3)
    write_idx(tmp_path / "train-images-idx.gz", np.zeros(12, np.uint8))
    with pytest.raises(DataError, match=r"train-images-idx.gz must have the shape \(n, height, width\), got \(12,\)"):
        load_idx(tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    fill(tmp_path)
    fill(tmp_path, "test", 3)
    path = tmp_path / "test-labels-idx.gz"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"test-labels-idx.gz.*gzip"):
        load_idx(tmp_path)


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(DataError, match=r"absent: expected a folder.*No such file"):
        load_idx(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: expected a folder"):
        load_idx(tmp_path / "file")


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "own").mkdir()
    fill(tmp_path / "own")
    fill(tmp_path / "own", "test", 3)
    assert load_idx("~/own").name == "own"
