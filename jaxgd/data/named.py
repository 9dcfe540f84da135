"""Data sets by name, and where their files are looked for."""

import hashlib
import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxgd.data.dataset import Dataset, Part, make_dataset
from jaxgd.data.digits import load_digits
from jaxgd.data.fetch import download, find_cached
from jaxgd.data.idx import is_gzip, parse_idx, read_bytes
from jaxgd.data.sources import SOURCES, Source
from jaxgd.errors import DataError, RangeError

_SIZE = (28, 28)


def default_data_dir() -> Path:
    """Name the folder for data files: the environment variable JAXGD_DATA_DIR, or else `~/.cache/jaxgd`.

    >>> import os
    >>> os.environ["JAXGD_DATA_DIR"] = "/scratch/digits"
    >>> default_data_dir().as_posix()
    '/scratch/digits'
    >>> del os.environ["JAXGD_DATA_DIR"]
    """
    return Path(os.environ.get("JAXGD_DATA_DIR") or "~/.cache/jaxgd").expanduser()


def load_dataset(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load the data set called 'digits', 'mnist', 'fashion_mnist' or 'kmnist'.

    'digits' comes with the package. The others have the book's split: the first 50,000 of the 60,000 training
    examples for training, the last 10,000 for validation, and the 10,000 test examples, all in file order.

    Their four IDX files are taken from the first of these places that has them:

    1. `<data_dir>/<name>/`, `data_dir` itself, `<data_dir>/downloads/manual/`: under their usual names
       (`train-images-idx3-ubyte.gz` and so on), gzipped or not. A folder with the files of another of these data sets
       is passed over.
    2. `<data_dir>/downloads/`: what tensorflow-datasets downloaded earlier.
    3. The network, through tensorflow-datasets, which keeps them there.

    Every gzipped file must have the genuine file's SHA-256, and so must an unpacked file of MNIST. Unpacked files of
    the other two are taken from `<data_dir>/<name>/` alone and checked for their shapes only, since no checksum of
    theirs is published and all three sets look alike.

    Shapes: images `(n, 28, 28)`, labels `(n,)`; 'digits' has images of 8×8.
    Range: pixels 0 (paper) to 255 (ink), labels 0 to 9.
    Raises: RangeError for an unknown name; DataError if files are damaged or can be had nowhere, which takes a few
    seconds to find out; MissingDependencyError if a download needs tensorflow-datasets and it is not installed.
    Source: Nielsen, chapter 1; MNIST, LeCun, Cortes and Burges; Fashion-MNIST, Xiao, Rasul and Vollgraf,
    arXiv:1708.07747; Kuzushiji-MNIST, Clanuwat et al., arXiv:1812.01718.

    >>> load_dataset("digits").test.images.shape
    (300, 8, 8)
    """
    if name == "digits":
        return load_digits()
    if name not in SOURCES:
        names = ", ".join(repr(known) for known in ("digits", *SOURCES))
        raise RangeError(
            f"load_dataset: name must be one of {names}, got {name!r}.\n"
            "For a folder of your own IDX files use jaxgd.load_idx(folder)."
        )
    source = SOURCES[name]
    data_dir = resolve_data_dir(data_dir)
    contents, remarks = _local(name, source, data_dir)
    if contents is None:
        downloads = data_dir / "downloads"
        remedy = _remedy(name, source, data_dir, remarks)
        paths = find_cached(downloads, name, source) or download(downloads, name, source, remedy)
        contents = {path: read_bytes(path) for path in paths}
        for (path, content), file in zip(contents.items(), source.files, strict=True):
            if _sha256(content) != file.sha256:  # the download manager trusts what it has kept
                raise DataError(
                    f"load_dataset: {path}: expected {name!r}'s {file.name} with SHA-256 {file.sha256}, "
                    f"got {_sha256(content)}.\nDelete the file and it will be downloaded again."
                )
    return _build(name, source, contents)


def _local(name: str, source: Source, data_dir: Path) -> tuple[dict[Path, bytes] | None, list[str]]:
    """Read the contents of the first folder that has all files, or None, and what was seen on the way."""
    remarks = []
    for folder in _folders(name, data_dir):
        paths = [_find(folder, file.name) for file in source.files]
        missing = [file.name for file, path in zip(source.files, paths, strict=True) if path is None]
        if len(missing) == len(paths):
            continue
        if missing:
            remarks.append(f"{folder} has only some of the files; missing: {', '.join(missing)}.")
            continue
        contents = {path: read_bytes(path) for path in paths if path is not None}
        if other := _check(name, source, contents):
            remarks.append(f"{folder} was passed over: it has files of {other!r}.")
            continue
        if folder != data_dir / name and any(
            file.unpacked_sha256 is None and not is_gzip(content)
            for file, content in zip(source.files, contents.values(), strict=True)
        ):
            # All these sets name and shape their files alike: only the folder's name can tell whose they are.
            remarks.append(f"{folder} was passed over: its unpacked files could be any set's, unlike {name}/'s.")
            continue
        return contents, remarks
    return None, remarks


def _folders(name: str, data_dir: Path) -> tuple[Path, ...]:
    return data_dir / name, data_dir, data_dir / "downloads" / "manual"


def find_files(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder that has files of the names and sizes of this data set's, without reading them; None if none has.

    >>> find_files("mnist", "/nowhere") is None
    True
    """
    data_dir, source = resolve_data_dir(data_dir), SOURCES[name]
    for folder in _folders(name, data_dir):
        paths = [_find(folder, file.name) for file in source.files]
        own = folder == data_dir / name or name == "mnist"
        if all(
            path and (path.stat().st_size == file.size if path.suffix == ".gz" else own)
            for path, file in zip(paths, source.files, strict=True)
        ):
            return folder
    downloads = data_dir / "downloads"
    return downloads if find_cached(downloads, name, source) else None


def resolve_data_dir(data_dir: str | os.PathLike[str] | None) -> Path:
    """The folder given, or else the default one."""
    return default_data_dir() if data_dir is None else Path(data_dir).expanduser()


def _find(folder: Path, gz_name: str) -> Path | None:
    """Find the file under one of its usual names; gzipped first, because then its checksum is known."""
    name = gz_name.removesuffix(".gz")
    dotted = name.replace("-idx", ".idx")
    paths = (folder / candidate for candidate in (gz_name, f"{dotted}.gz", name, dotted))
    return next((path for path in paths if path.is_file()), None)


def _check(name: str, source: Source, contents: dict[Path, bytes]) -> str | None:
    """Name the other data set that one of these files belongs to, or None if all may be used; DataError if not."""
    wrong = None
    for (path, content), file in zip(contents.items(), source.files, strict=True):
        got = _sha256(content)
        expected = file.sha256 if is_gzip(content) else file.unpacked_sha256
        if expected is None or got != expected:
            for other, its in SOURCES.items():
                if other != name and any(got in (theirs.sha256, theirs.unpacked_sha256) for theirs in its.files):
                    return other
            if expected is not None:
                wrong = wrong or (path, file.name, expected, got)
    if wrong is None:
        return None
    path, file_name, expected, got = wrong
    raise DataError(
        f"load_dataset: {path}: expected {name!r}'s {file_name} with SHA-256 {expected}, got {got}.\n"
        "Replace it by the genuine file. For data of your own use jaxgd.load_idx(folder)."
    )


def _build(name: str, source: Source, contents: dict[Path, bytes]) -> Dataset:
    """Unpack, check the shapes and split; the parts are views of what was read."""
    shapes = ((source.train, *_SIZE), (source.train,), (source.test, *_SIZE), (source.test,))
    arrays: list[UInt8[np.ndarray, "*shape"]] = []
    for (path, content), shape in zip(contents.items(), shapes, strict=True):
        array = parse_idx(content, path)
        if array.shape != shape:
            raise DataError(
                f"load_dataset: {path}: expected the shape {shape} of {name!r}, got {array.shape}.\n"
                "Replace it by the genuine file. For data of your own use jaxgd.load_idx(folder)."
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
    """Say what to do where the network is of no help."""
    files = ", ".join(file.name for file in source.files)
    put = f"Put the four files {files} from {source.base_url}, gzipped or not, into {data_dir / name}."
    return "\n".join([put, *remarks, "load_dataset('digits') needs no file and no network."])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
