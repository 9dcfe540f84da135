import gzip
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from jaxgd.data import default_data_dir, load_dataset
from jaxgd.data.idx import read_idx, write_idx
from jaxgd.data.named import find_files, is_folder
from jaxgd.data.registry import DATASETS, Entry
from jaxgd.errors import DataError, RangeError

CLASS_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
PLACES = ["mnist", "MNIST/raw", ".", "downloads/manual"]


def unpack(folder, *, dotted=False):
    """Unpack the files of a folder. With `dotted`, rename them to names such as train-images.idx3-ubyte."""
    for path in list(folder.iterdir()):
        name = path.name.removesuffix(".gz")
        (folder / (name.replace("-idx", ".idx") if dotted else name)).write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def test_loading_digits_imports_no_optional_library():
    code = (
        "import sys, jaxgd.data; jaxgd.data.load_dataset('digits'); "
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'PIL', 'requests', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_unknown_name_is_refused():
    with pytest.raises(RangeError, match=rf"{', '.join(map(repr, DATASETS))}, got 'cifar10'(.|\n)*load_idx"):
        load_dataset("cifar10")


def test_a_registered_module_is_a_data_set(tiny, tmp_path, monkeypatch):
    """`load_dataset` passes `data_dir` to `load`. Messages list the name, and `is_folder` returns False for it."""
    tiny.copy_to(tmp_path / "mnist")
    module = types.ModuleType("mine")
    module.load = lambda data_dir: load_dataset("mnist", data_dir)
    monkeypatch.setitem(sys.modules, "mine", module)
    monkeypatch.setitem(DATASETS, "mine", Entry(module="mine"))
    tiny.assert_loaded(load_dataset("mine", tmp_path))
    assert not is_folder("mine")
    with pytest.raises(RangeError, match="'mine', got 'cifar10'"):
        load_dataset("cifar10")


def test_default_data_dir_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("JAXGD_DATA_DIR", raising=False)
    assert default_data_dir() == tmp_path / ".cache" / "jaxgd"
    monkeypatch.setenv("JAXGD_DATA_DIR", "")
    assert default_data_dir() == tmp_path / ".cache" / "jaxgd"
    monkeypatch.setenv("JAXGD_DATA_DIR", "~/elsewhere")
    assert default_data_dir() == tmp_path / "elsewhere"


def test_load_dataset_reads_the_folder_in_the_environment(tiny, tmp_path, monkeypatch):
    tiny.copy_to(tmp_path / "env" / "mnist")
    monkeypatch.setenv("JAXGD_DATA_DIR", str(tmp_path / "env"))
    tiny.assert_loaded(load_dataset("mnist"))


@pytest.mark.parametrize("as_type", [str, Path])
@pytest.mark.parametrize("place", PLACES)
def test_local_files_need_neither_network_nor_tensorflow_datasets(tiny, tmp_path, monkeypatch, place, as_type):
    tiny.copy_to(tmp_path / "data" / place)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # its import fails
    monkeypatch.setitem(sys.modules, "requests", None)
    dataset = load_dataset("mnist", as_type(tmp_path / "data"))
    tiny.assert_loaded(dataset)
    assert (dataset.name, dataset.classes, dataset.inputs) == ("mnist", 10, 784)


@pytest.mark.parametrize("dotted", [False, True])
def test_unpacked_files_load(tiny, tmp_path, dotted):
    tiny.copy_to(tmp_path / "data" / "mnist")
    unpack(tmp_path / "data" / "mnist", dotted=dotted)
    tiny.assert_loaded(load_dataset("mnist", tmp_path / "data"))
    assert find_files("mnist", tmp_path / "data") == tmp_path / "data" / "mnist"


def test_unpacked_files_without_a_checksum_need_a_folder_named_after_the_data_set(tiny, tmp_path):
    """Unpacked files may belong to another data set, because MNIST, Fashion-MNIST and KMNIST share names and shapes."""
    tiny.copy_to(tmp_path / "data")
    unpack(tmp_path / "data")
    with pytest.raises(DataError, match="unpacked files may belong to any set"):
        load_dataset("mnist", tmp_path / "data")


def test_gzipped_files_with_dotted_names_load(tiny, tmp_path):
    tiny.copy_to(tmp_path / "data")
    for path in list((tmp_path / "data").iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    tiny.assert_loaded(load_dataset("mnist", tmp_path / "data"))


def test_folders_are_searched_in_a_fixed_order(tiny, tmp_path):
    places = [tmp_path / place for place in PLACES]
    for place in places:
        tiny.copy_to(place)
    for place in places:
        assert find_files("mnist", tmp_path) == place
        for path in [*place.glob("t*")]:
            path.unlink()


def test_files_of_another_set_are_skipped(tiny, other, tmp_path):
    other.copy_to(tmp_path / "data")
    tiny.copy_to(tmp_path / "data" / "downloads" / "manual")
    tiny.assert_loaded(load_dataset("mnist", tmp_path / "data"))
    other.assert_loaded(load_dataset("fashion_mnist", tmp_path / "data"))


def test_a_skipped_folder_is_reported(tiny, other, tmp_path):
    other.copy_to(tmp_path / "data")
    with pytest.raises(DataError, match=r"data was skipped: it has files of 'fashion_mnist'"):
        load_dataset("mnist", tmp_path / "data")


def test_a_wrong_checksum_is_refused(tiny, tmp_path):
    tiny.copy_to(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    write_idx(path, read_idx(path)[::-1])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: expected .*SHA-256 (.|\n)*load_idx"):
        load_dataset("mnist", tmp_path)


@pytest.mark.parametrize("cut", [1, 100])
def test_a_truncated_file_is_refused(tiny, tmp_path, cut):
    tiny.copy_to(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: .*SHA-256"):
        load_dataset("mnist", tmp_path)


def test_unpacked_files_of_a_wrong_shape_are_refused(tiny, tmp_path):
    folder = tmp_path / "mnist"
    tiny.copy_to(folder)
    unpack(folder)
    write_idx(folder / "t10k-labels-idx1-ubyte", np.zeros(5, np.uint8))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte: expected the shape \(4,\).*got \(5,\)"):
        load_dataset("mnist", tmp_path)


def test_an_incomplete_folder_is_skipped_and_reported(tiny, tmp_path):
    missing = ["train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz"]
    tiny.copy_to(tmp_path / "data" / "mnist", [path.name for path in tiny.folder.iterdir() if path.name not in missing])
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", tmp_path / "data")
    assert f"{tmp_path / 'data' / 'mnist'} has only some of the files; missing: {', '.join(missing)}." in str(
        caught.value
    )
    tiny.copy_to(tmp_path / "data")  # a complete folder
    tiny.assert_loaded(load_dataset("mnist", tmp_path / "data"))


def test_genuine_mnist_loads_with_the_books_split(genuine_mnist, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    start = time.perf_counter()
    mnist = load_dataset("mnist", genuine_mnist)
    # Loading takes about 0.3 s. A loop over single images would take half a minute.
    assert time.perf_counter() - start < 3
    assert [len(part.labels) for part in (mnist.train, mnist.validation, mnist.test)] == [50_000, 10_000, 10_000]
    assert mnist.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(mnist.test.labels).tolist() == CLASS_COUNTS
    for part in (mnist.train, mnist.validation, mnist.test):
        assert part.images.dtype == part.labels.dtype == np.uint8
        assert part.images.shape[1:] == mnist.image_shape == (28, 28)
        assert part.images.base is not None  # views of the files' bytes
    assert (mnist.train.images.min(), mnist.train.images.max()) == (0, 255)


def test_unpacked_genuine_mnist_is_checked(genuine_mnist, tmp_path, monkeypatch):
    files = DATASETS["mnist"].source.files
    for file in files:
        content = gzip.decompress((genuine_mnist / file.name).read_bytes())
        (tmp_path / file.name.removesuffix(".gz")).write_bytes(content)
    assert load_dataset("mnist", tmp_path).train.labels[:4].tolist() == [5, 0, 4, 1]
    unreachable = DATASETS["kmnist"].source._replace(base_url="http://127.0.0.1:1/")
    monkeypatch.setitem(DATASETS, "kmnist", Entry(unreachable))
    with pytest.raises(DataError, match="it has files of 'mnist'"):
        load_dataset("kmnist", tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte: expected .*SHA-256"):
        load_dataset("mnist", tmp_path)
