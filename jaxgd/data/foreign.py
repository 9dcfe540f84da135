"""Advice for files in formats other than IDX: two lines of Python that convert such a file."""

import csv
import io
import math
import re
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from jaxgd.data.idx import is_gzip
from jaxgd.files import read_head

_HEAD = 2**16  # bytes of a CSV file that are read to describe it
_ENDINGS = (".pkl", ".pickle", ".pkl.gz", ".csv", ".csv.gz", ".npz")
_LABELS = ("label", "labels", "class", "target", "y")  # possible names of the column of labels


def is_foreign(path: Path) -> bool:
    """Return True if the name has the ending of a format that `conversion` knows.

    >>> is_foreign(Path("mnist.pkl.gz")), is_foreign(Path("train-images.gz"))
    (True, False)
    """
    return path.name.lower().endswith(_ENDINGS)


def conversion(paths: Iterable[Path]) -> str:
    """Return advice for the alphabetically first foreign file. Without a foreign file, the advice is empty.

    The advice is two lines of Python that write IDX files, or a sentence that says why the file is unsuitable. The
    first line ends with a semicolon, so that the lines also run if they are joined into one.
    """
    path = min(filter(is_foreign, paths), default=None)
    if path is None:
        return ""
    name = path.name.lower()
    return (_of_csv if ".csv" in name else _of_npz if name.endswith(".npz") else _of_pickle)(path)


def _lines(path: Path, modules: str, images: str, labels: str, loop: str) -> str:
    """Return two lines of Python, with an introduction.

    `images` and `labels` are Python expressions that may contain s, the name of a split. `loop` is the for clause that
    sets s.
    """
    name = re.sub("[-_]?(train|test)", "", path.name.split(".")[0]) or "data"
    folder = str(path.parent / f"{name}-idx")
    return (
        f"These two lines of Python write the folder {folder}:\n"
        f"import {modules}numpy as np, os; from jaxgd.data.idx import write_idx as w; f = {folder!r}; "
        "os.makedirs(f, exist_ok=True);\n"
        f'[(w(f"{{f}}/{{s}}-images", {images}), w(f"{{f}}/{{s}}-labels", {labels})) {loop}]'
    )


def _of_pickle(path: Path) -> str:
    """Return the lines for a pickle like the book's mnist.pkl.gz: three pairs of images (rows of 784) and labels."""
    unzip = "gzip." if path.name.lower().endswith(".gz") else ""
    lines = _lines(
        path,
        "gzip, pickle, " if unzip else "pickle, ",
        # Divide by the largest value, which is 255/256 in the book's file and 1 in others.
        "np.rint(x * (255 / x.max())).astype(np.uint8).reshape(-1, 28, 28)",
        "y.astype(np.uint8)",
        f"for s, (x, y) in zip(['train', 'validation', 'test'], "
        f"pickle.load({unzip}open({str(path)!r}, 'rb'), encoding='latin1'))",
    )
    return f"A pickle runs code when it is read: convert only a file that you trust. {lines}"


def _of_npz(path: Path) -> str:
    """Return the lines for arrays with names as in Keras, x_train and so on, or with names such as train_images."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return f"{path.name} is not a complete .npz file: download it again."
    for images, labels in (("x_{s}", "y_{s}"), ("{s}_images", "{s}_labels")):
        splits = [s for s in ("train", "val", "test") if {images.format(s=s), labels.format(s=s)} <= set(names)]
        if {"train", "test"} <= set(splits):
            arrays = (f'a[f"{name}"].astype(np.uint8)' for name in (images, labels))
            return _lines(
                path,
                "",
                next(arrays),
                f"{next(arrays)}.ravel()",
                f"for a in [np.load({str(path)!r})] for s in {splits}",
            )
    return f"{path.name} has the arrays {', '.join(names[:8])}. {_BY_HAND}"


def _of_csv(path: Path) -> str:
    """Return the lines for a CSV file with one image per row, and for a matching file of the other split."""
    try:
        head = read_head(path, _HEAD)
        head = zlib.decompressobj(wbits=31).decompress(head, _HEAD) if is_gzip(head) else head
    except (OSError, zlib.error):
        return f"{path.name} cannot be read."
    first, second = [*csv.reader(io.StringIO(head.decode("latin-1"))), [], []][:2]
    header = not all(map(_is_byte, first))
    names = [cell.strip().lower() for cell in first] if header else ["label"]
    column = next((i for i, name in enumerate(names) if name in _LABELS), None)
    side = math.isqrt(max(len(first) - 1, 0))
    if column is None or side == 0 or side**2 != len(first) - 1 or not all(map(_is_byte, second if header else first)):
        return f"{path.name} must have rows of one label and the pixels of a square image, from 0 to 255. {_BY_HAND}"
    x, y = ("a[:, 1:]", "a[:, 0]") if column == 0 else (f"np.delete(a, {column}, 1)", f"a[:, {column}]")
    files = {_split(path): str(path)}
    for old, new in (("train", "test"), ("test", "train")):
        other = path.with_name(path.name.replace(old, new))
        if other != path and other.is_file():
            files[new] = str(other)
    lines = _lines(
        path,
        "",
        f"{x}.reshape(-1, {side}, {side})",
        y,
        f"for s, p in {files}.items() for a in [np.loadtxt(p, np.uint8, delimiter=',', skiprows={int(header)})]",
    )
    missing = {"train", "test"} - files.keys()
    return lines + "".join(
        f"\njaxgd also needs {split}-images and {split}-labels in that folder." for split in sorted(missing)
    )


_BY_HAND = "Write each array with jaxgd.data.idx.write_idx(path, array): train-images, train-labels and so on."


def _is_byte(cell: str) -> bool:
    return cell.strip().isdecimal() and int(cell) < 256


def _split(path: Path) -> str:
    return "test" if "test" in path.name.lower() else "validation" if "val" in path.name.lower() else "train"
