"""Data sets by name, and the folders that are searched for their files."""

import hashlib
import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxgd.data.dataset import Dataset, Part, make_dataset
from jaxgd.data.fetch import download, find_cached
from jaxgd.data.folder import load_idx
from jaxgd.data.idx import is_gzip, parse_idx, read_bytes
from jaxgd.data.registry import DATASETS, Source
from jaxgd.errors import DataError, DtypeError, RangeError, describe
from jaxgd.files import as_path

_SIZE = (28, 28)


def default_data_dir() -> Path:
    """Return the folder for data files: the environment variable JAXGD_DATA_DIR, or `~/.cache/jaxgd` if it is not set.

    An empty variable counts as not set. Raise DataError if `~` cannot be expanded.

    >>> import os
    >>> os.environ["JAXGD_DATA_DIR"] = "/scratch/digits"
    >>> default_data_dir().as_posix()
    '/scratch/digits'
    >>> del os.environ["JAXGD_DATA_DIR"]
    """
    try:
        return Path(os.environ.get("JAXGD_DATA_DIR") or "~/.cache/jaxgd").expanduser()
    except RuntimeError as error:
        raise DataError(
            "load_dataset: the folder of data sets must be known, got no home folder.\nSet JAXGD_DATA_DIR."
        ) from error


def load_dataset(
    name: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    labels_from: int | None = None,
    transpose: bool | None = None,
) -> Dataset:
    """Load a data set by its name, such as 'digits' or 'mnist', or from a folder of IDX files.

    The package includes 'digits', 1,797 images of 8×8 pixels. 'mnist', 'fashion_mnist' and 'kmnist' have 70,000 images
    of 28×28 pixels each, 60,000 for training and 10,000 for tests. As in the book, the last 10,000 training examples in
    file order become the validation split.

    'mnist', 'fashion_mnist' and 'kmnist' have four IDX files each. They come from the first place in this list that has
    them:

    1. One of the folders `<data_dir>/<name>/`, `<data_dir>/MNIST/raw/` of torchvision (or `FashionMNIST`, `KMNIST`),
       `data_dir` and `<data_dir>/downloads/manual/`. The files have their usual names, such as
       `train-images-idx3-ubyte.gz`, and are gzipped or not. A folder is skipped if a checksum shows that one of its
       files belongs to another data set.
    2. `<data_dir>/downloads/`, where tensorflow-datasets stores its downloads.
    3. The network: tensorflow-datasets downloads the files into `<data_dir>/downloads/`.

    Gzipped files, and the unpacked files of MNIST, must have the SHA-256 of the original. No checksums are published
    for the unpacked files of Fashion-MNIST and KMNIST, so only their shapes are checked. They must be in
    `<data_dir>/<name>/` or in torchvision's folder, because all three sets have files of the same names and shapes.

    Args:
        name: Name of the data set, or the path of a folder for `load_idx`: a Path, an existing folder, or a text with a
            `/`.
        data_dir: Folder to search for files and to download them to. By default the environment variable
            JAXGD_DATA_DIR, or `~/.cache/jaxgd` if unset. Has no effect for 'digits' and for a folder.
        labels_from: Label of the first class in a folder's files, as in `load_idx`. Leave it out for the named sets.
        transpose: True to transpose the images of a folder, as in `load_idx`. Leave it out for the named sets.

    Returns:
        The data set, with labels from 0.

    Raises:
        RangeError: If the name is unknown, `labels_from` or `transpose` is given for a named set, or `labels_from` is
            out of range.
        DtypeError: If the name is neither a text nor a path, or another argument has the wrong type.
        DataError: If files are damaged, or missing and not available for download. An unreachable host takes a few
            seconds to detect.
        MissingDependencyError: If a download needs tensorflow-datasets, which is not installed.

    Source: Nielsen, chapter 1; MNIST, LeCun, Cortes and Burges; Fashion-MNIST, Xiao, Rasul and Vollgraf,
    arXiv:1708.07747; Kuzushiji-MNIST, Clanuwat et al., arXiv:1812.01718.

    Example:
        >>> load_dataset("digits").test.images.shape
        (300, 8, 8)
    """
    if not isinstance(name, str | os.PathLike):
        raise DtypeError(
            f"load_dataset: name must be a text or a path, got {describe(name)}.\nTry load_dataset('digits')."
        )
    if is_folder(name):
        return load_idx(name, labels_from=labels_from, transpose=transpose)
    if labels_from is not None or transpose is not None:
        raise RangeError(
            f"load_dataset: labels_from and transpose are for folders, but {name!r} has labels from 0 and upright "
            "images.\nLeave them out."
        )
    if name not in DATASETS:
        raise RangeError(
            f"load_dataset: name must be one of {', '.join(map(repr, DATASETS))}, got {name!r}.\n"
            "For a folder of your own IDX files use jaxgd.load_idx(folder)."
        )
    entry = DATASETS[name]
    # A set in the package needs no folder, so the home folder may be unknown.
    data_dir = Path() if entry.included else resolve_data_dir(data_dir)
    source = entry.source
    if source is None:
        return entry.load(data_dir)
    contents, remarks = _local(name, source, data_dir)
    if contents is None:
        downloads = data_dir / "downloads"
        remedy = _remedy(name, source, data_dir, remarks)
        paths = find_cached(downloads, name, source) or download(downloads, name, source, remedy)
        contents = {path: read_bytes(path) for path in paths}
        for (path, content), file in zip(contents.items(), source.files, strict=True):
            if _sha256(content) != file.sha256:  # the download manager does not check cached files again
                raise DataError(
                    f"load_dataset: {path}: expected {name!r}'s {file.name} with SHA-256 {file.sha256}, "
                    f"got {_sha256(content)}.\nDelete the file, and the next call downloads it again."
                )
    return _build(name, source, contents)


def _local(name: str, source: Source, data_dir: Path) -> tuple[dict[Path, bytes] | None, list[str]]:
    """Return the contents of the files in the first usable folder, or None, and remarks on the skipped folders.

    A folder without any of the files gets no remark.
    """
    remarks = []
    for folder in _folders(name, source, data_dir):
        paths = [_find(folder, file.name) for file in source.files]
        missing = [file.name for file, path in zip(source.files, paths, strict=True) if path is None]
        if len(missing) == len(paths):
            continue
        if missing:
            remarks.append(f"{folder} has only some of the files; missing: {', '.join(missing)}.")
            continue
        contents = {path: read_bytes(path) for path in paths if path is not None}
        if other := _check(name, source, contents):
            remarks.append(f"{folder} was skipped: it has files of {other!r}.")
            continue
        if folder not in _own_folders(name, source, data_dir) and any(
            file.unpacked_sha256 is None and not is_gzip(content)
            for file, content in zip(source.files, contents.values(), strict=True)
        ):
            # All sets with a source have files of the same names and shapes. Without a checksum, only the name of the
            # folder identifies the set.
            remarks.append(
                f"{folder} was skipped: its unpacked files may belong to any set. Move them to a folder named {name}."
            )
            continue
        return contents, remarks
    return None, remarks


def _own_folders(name: str, source: Source, data_dir: Path) -> list[Path]:
    """Return the folders whose names identify the data set."""
    return [data_dir / name, *([data_dir / source.torchvision / "raw"] if source.torchvision else [])]


def _folders(name: str, source: Source, data_dir: Path) -> list[Path]:
    return [*_own_folders(name, source, data_dir), data_dir, data_dir / "downloads" / "manual"]


def is_folder(name: str | os.PathLike[str]) -> bool:
    """Return True if `name` is a path, and False if it can only be the name of a data set.

    >>> is_folder("mnist"), is_folder("./mnist")
    (False, True)
    """
    if isinstance(name, str) and name in DATASETS:
        return False
    path = as_path("load_dataset", name)
    return not isinstance(name, str) or os.path.exists(name) or path.name != name


def find_files(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the folder that seems to have the files of this data set, or None.

    The files are not read. Gzipped files are recognized by their names and sizes. Unpacked files are recognized by
    their names and, except for MNIST, the name of their folder. Downloads of tensorflow-datasets are recognized by
    their recorded checksums.

    >>> find_files("mnist", "/nowhere") is None
    True
    """
    data_dir, source = resolve_data_dir(data_dir), DATASETS[name].source
    if source is None:
        return None
    for folder in _folders(name, source, data_dir):
        paths = [_find(folder, file.name) for file in source.files]
        own = folder in _own_folders(name, source, data_dir) or name == "mnist"
        if all(
            path and (path.stat().st_size == file.size if path.suffix == ".gz" else own)
            for path, file in zip(paths, source.files, strict=True)
        ):
            return folder
    downloads = data_dir / "downloads"
    return downloads if find_cached(downloads, name, source) else None


def resolve_data_dir(data_dir: str | os.PathLike[str] | None) -> Path:
    """Return `data_dir`, or the default folder if it is None."""
    return default_data_dir() if data_dir is None else as_path("load_dataset", data_dir).expanduser()


def _find(folder: Path, gz_name: str) -> Path | None:
    """Return the file under one of its usual names, or None. A gzipped file is preferred: its checksum is known."""
    name = gz_name.removesuffix(".gz")
    dotted = name.replace("-idx", ".idx")
    paths = (folder / candidate for candidate in (gz_name, f"{dotted}.gz", name, dotted))
    return next((path for path in paths if path.is_file()), None)


def _check(name: str, source: Source, contents: dict[Path, bytes]) -> str | None:
    """Return the name of another data set if a file has a checksum of this set, otherwise None.

    Raise DataError for any other wrong checksum. An unpacked file whose checksum is not published passes.
    """
    wrong = None
    for (path, content), file in zip(contents.items(), source.files, strict=True):
        digest = _sha256(content)
        expected = file.sha256 if is_gzip(content) else file.unpacked_sha256
        if expected is None or digest != expected:
            for other, entry in DATASETS.items():
                files = () if entry.source is None or other == name else entry.source.files
                if any(digest in (theirs.sha256, theirs.unpacked_sha256) for theirs in files):
                    return other
            if expected is not None:
                wrong = wrong or (path, file.name, expected, digest)
    if wrong is None:
        return None
    path, file_name, expected, digest = wrong
    raise DataError(
        f"load_dataset: {path}: expected {name!r}'s {file_name} with SHA-256 {expected}, got {digest}.\n"
        "Replace it with the original file. For data of your own use jaxgd.load_idx(folder)."
    )


def _build(name: str, source: Source, contents: dict[Path, bytes]) -> Dataset:
    """Parse the files, check their shapes and split them. The splits are views of the parsed arrays."""
    shapes = ((source.train, *_SIZE), (source.train,), (source.test, *_SIZE), (source.test,))
    arrays: list[UInt8[np.ndarray, "*shape"]] = []
    for (path, content), shape in zip(contents.items(), shapes, strict=True):
        array = parse_idx(content, path)
        if array.shape != shape:
            raise DataError(
                f"load_dataset: {path}: expected the shape {shape} of {name!r}, got {array.shape}.\n"
                "Replace it with the original file. For data of your own use jaxgd.load_idx(folder)."
            )
        arrays.append(array)
    images, labels, test_images, test_labels = arrays
    cut = source.train - source.validation
    return make_dataset(
        "load_dataset",
        name,
        Part(images[:cut], labels[:cut]),
        Part(images[cut:], labels[cut:]),
        Part(test_images, test_labels),
        classes=source.classes,
    )


def _remedy(name: str, source: Source, data_dir: Path, remarks: list[str]) -> str:
    """Return the advice for a failed download."""
    files = ", ".join(file.name for file in source.files)
    put = f"Put the four files {files} from {source.base_url}, gzipped or not, into {data_dir / name}."
    return "\n".join([put, *remarks, "The data set 'digits' needs no file and no network."])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
