"""Files from the network, through tensorflow-datasets' download manager: checksummed, kept, and without TensorFlow."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jaxgd.data.sources import Source
from jaxgd.errors import DataError, MissingDependencyError

_PATIENCE = 4.0  # seconds to wait for an answer


def find_cached(downloads: Path, name: str, source: Source) -> list[Path] | None:
    """All of the source's files that an earlier download left, or None if one is missing.

    Beside each file the download manager keeps a `.INFO` file that tells its checksum. Reading that spares the import
    of tensorflow-datasets, and the question whether the network is there.
    """
    found: dict[str, Path] = {}
    for folder in (downloads / name, downloads):
        for info in folder.glob("*.INFO"):
            path = info.with_suffix("")
            try:
                checksum = json.loads(info.read_text(encoding="utf-8"))["url_info"]["checksum"]
            except (OSError, ValueError, KeyError, TypeError):  # another version's, or damaged: not ours to mend
                continue
            if isinstance(checksum, str) and path.is_file():
                found.setdefault(checksum, path)
    paths = [found[file.sha256] for file in source.files if file.sha256 in found]
    return paths if len(paths) == len(source.files) else None


def download(downloads: Path, name: str, source: Source, remedy: str) -> list[Path]:
    """Fetch the source's files into `downloads` and return their paths, in the source's order.

    Raises: MissingDependencyError without tensorflow-datasets; DataError if the host does not answer in a few seconds,
    or sends something else. `remedy` ends every message.
    """
    try:
        import requests
        from tensorflow_datasets.core.download import DownloadManager, checksums
    except ImportError as error:
        raise MissingDependencyError(
            f"load_dataset: downloading {name!r} needs tensorflow-datasets, got: {error}.\n"
            f"pip install tensorflow-datasets importlib_resources\n{remedy}"
        ) from error
    urls = [source.base_url + file.name for file in source.files]
    if reason := _why_no_answer(requests, urls[0]):
        raise DataError(
            f"load_dataset: {name!r} is not there yet and {urlsplit(source.base_url).netloc} cannot be asked for it: "
            f"{reason}.\n{remedy}"
        )
    before = _unfinished(downloads, name)
    url = urls[0]
    try:
        manager = DownloadManager(
            download_dir=downloads,
            dataset_name=name,
            url_infos={
                url: checksums.UrlInfo(size=file.size, checksum=file.sha256, filename=file.name)
                for url, file in zip(urls, source.files, strict=True)
            },
            force_checksums_validation=True,
        )
        paths = []
        for url in urls:  # one after the other: where one fails, no other is still under way
            paths.append(Path(manager.download(url)))
        return paths
    except Exception as error:
        raise DataError(f"load_dataset: {url} could not be downloaded to {downloads}: {error}\n{remedy}") from error
    finally:
        for leftover in _unfinished(downloads, name) - before:
            shutil.rmtree(leftover, ignore_errors=True)


def _why_no_answer(requests: Any, url: str) -> str | None:
    """Why asking the host is in vain, or None if it answers.

    The download manager itself would try for over three minutes. The question goes the way that the download will
    go, proxies included, and in a thread of its own: looking up a name knows no timeout.
    """
    reasons: list[str | None] = []

    def ask() -> None:
        try:
            status = requests.head(url, timeout=_PATIENCE, allow_redirects=True).status_code
            # 405 and 501: it does not know the question, but it is there.
            reasons.append(None if status < 400 or status in (405, 501) else f"it answers with HTTP status {status}")
        except Exception as error:  # whatever it is, it is the answer
            reasons.append(f"it does not answer ({type(error).__name__})")

    thread = threading.Thread(target=ask, name="jaxgd-ask", daemon=True)
    thread.start()
    thread.join(_PATIENCE + 1)
    return reasons[0] if reasons else f"it does not answer in {_PATIENCE + 1:g} seconds"


def _unfinished(downloads: Path, name: str) -> set[Path]:
    """List the folders in which downloads wait until they are complete."""
    return {path for folder in (downloads, downloads / name) for path in folder.glob("*.tmp.*") if path.is_dir()}
