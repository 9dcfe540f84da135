"""Files in other formats are refused. The message contains Python code that converts them to the same data."""

import gzip
import pickle

import numpy as np
import pytest

from jaxgd.data import load_dataset, load_idx
from jaxgd.data.idx import write_idx
from jaxgd.errors import DataError

SIDE = 28
RNG = np.random.default_rng(0)
ARRAYS = {
    split: (RNG.integers(0, 256, (n, SIDE, SIDE), np.uint8), np.arange(n, dtype=np.uint8) % 3)
    for split, n in (("train", 9), ("validation", 4), ("test", 5))
}
for _images, _ in ARRAYS.values():
    _images[0, 0, 0] = 255


def rows(split, labels_last=False):
    images, labels = ARRAYS[split]
    pixels, column = images.reshape(len(images), -1), labels[:, None]
    return np.hstack([pixels, column] if labels_last else [column, pixels])


def save_pickle(scale):
    def save(folder):
        pairs = [((x.reshape(len(x), -1) / scale).astype(np.float32), y.astype(int)) for x, y in ARRAYS.values()]
        (folder / "mnist.pkl.gz").write_bytes(gzip.compress(pickle.dumps(tuple(pairs), protocol=2)))
        return "mnist.pkl.gz"

    return save


def save_csv(header, *, labels_last=False, ending=".csv"):
    def save(folder):
        for split in ("train", "test"):
            text = f"{header}\n" * bool(header) + "".join(
                ",".join(map(str, row)) + "\n" for row in rows(split, labels_last).tolist()
            )
            content = text.encode()
            (folder / f"mnist_{split}{ending}").write_bytes(gzip.compress(content) if ".gz" in ending else content)
        return f"mnist_train{ending}"

    return save


def save_npz(images, labels, validation):
    def save(folder):
        pairs = {"train": "train", "test": "test", **({"val": "validation"} if validation else {})}
        arrays = {images.format(short): ARRAYS[split][0] for short, split in pairs.items()}
        arrays |= {labels.format(short): ARRAYS[split][1][:, None] for short, split in pairs.items()}
        np.savez_compressed(folder / "mnist.npz", **arrays)
        return "mnist.npz"

    return save


PIXELS = ",".join(f"pixel{i}" for i in range(SIDE**2))
FORMATS = {
    "the book's pickle, pixels / 256": (save_pickle(256), ["train", "validation", "test"]),
    "pickle, pixels / 255": (save_pickle(255), ["train", "validation", "test"]),
    "csv with a header": (save_csv(f"label,{PIXELS}"), ["train", "test"]),
    "csv without a header": (save_csv(""), ["train", "test"]),
    "csv with the label at the end": (save_csv(f"{PIXELS},class", labels_last=True), ["train", "test"]),
    "gzipped csv": (save_csv("", ending=".csv.gz"), ["train", "test"]),
    "npz as in Keras": (save_npz("x_{}", "y_{}", False), ["train", "test"]),
    "npz with validation images": (save_npz("{}_images", "{}_labels", True), ["train", "validation", "test"]),
}


@pytest.mark.parametrize("named_by", ["file", "folder"])
@pytest.mark.parametrize("kind", FORMATS)
def test_the_lines_of_the_message_convert_the_file(tmp_path, kind, named_by):
    save, splits = FORMATS[kind]
    folder = tmp_path / "it's mine"  # a name that needs quotes
    folder.mkdir()
    file = folder / save(folder)
    with pytest.raises(DataError, match="These two lines of Python write the folder") as caught:
        load_dataset(file if named_by == "file" else folder)
    message = str(caught.value)
    assert len(message) - 4 * len(str(folder)) < 600
    *_, first, second = message.splitlines()
    written = folder / "mnist-idx"
    assert f"write the folder {written}:" in message
    for lines in (f"{first}\n{second}", f"{first} {second}"):  # the command prints both lines as one
        exec(compile(lines, "message", "exec"), {})
        for split in splits:
            images, labels = ARRAYS[split]
            dataset = load_idx(written)
            joined = [np.concatenate([dataset.train[i], dataset.validation[i]]) for i in range(2)]
            ours = joined if split == "train" and "validation" not in splits else getattr(dataset, split)
            np.testing.assert_array_equal(ours[0], images)
            np.testing.assert_array_equal(ours[1], labels)
        for path in written.iterdir():
            path.unlink()


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("mnist.npz", b"x", "mnist.npz is not a complete .npz file"),
        ("train.csv", b"a;b\n1;2\n", "rows of one label and the pixels of a square image"),
        ("train.csv", b"label,a,b\n1,2,3\n", "rows of one label and the pixels of a square image"),
        ("train.csv", b"label,a\n1,0.5\n", "rows of one label and the pixels of a square image"),
        ("test.csv", b"pixel0,pixel1\n1,2\n", "rows of one label and the pixels of a square image"),
        ("train.csv", b"", "rows of one label and the pixels of a square image"),
        ("train.csv.gz", b"\x1f\x8bdamaged", "train.csv.gz cannot be read"),
        ("train.csv", b"label,a\n1,2\n", "jaxgd also needs test-images and test-labels in that folder"),
    ],
)
def test_unusable_or_incomplete_files_are_refused_with_a_reason(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=match):
        load_idx(tmp_path / name)


def test_arrays_of_unknown_names_are_listed(tmp_path):
    np.savez(tmp_path / "a.npz", first=np.zeros(1), second=np.zeros(1))
    with pytest.raises(DataError, match=r"a.npz has the arrays first, second. Write each array with jaxgd.data.idx"):
        load_idx(tmp_path)


def test_idx_files_next_to_other_files_are_read(tmp_path):
    for split, (images, labels) in ARRAYS.items():
        write_idx(tmp_path / f"{split}-images", images)
        write_idx(tmp_path / f"{split}-labels", labels)
    (tmp_path / "train.csv").write_text("1,2\n")
    assert load_idx(tmp_path).classes == 3
