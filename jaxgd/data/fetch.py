"""Downloads through the download manager of tensorflow-datasets, which checks and caches files without TensorFlow."""

import shutil
import threading
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from jaxgd.data.registry import Source
from jaxgd.errors import DataError, MissingDependencyError
from jaxgd.files import read_json

_TIMEOUT = 4.0  # seconds to wait for the host's answer


def find_cached(downloads: Path, name: str, source: Source) -> list[Path] | None:
    """Return the source's files from an earlier download, or None if one is missing.

    The download manager writes a `.INFO` file with the checksum next to each file. Reading these files avoids the
    import of tensorflow-datasets and any use of the network.
    """
    by_checksum: dict[str, Path] = {}
    for folder in (downloads / name, downloads):
        for info in folder.glob("*.INFO"):
            path = info.with_suffix("")
            try:
                checksum = read_json(info)["url_info"]["checksum"]
            except (OSError, ValueError, KeyError, TypeError):  # a damaged file, or a file in another format
                continue
            if isinstance(checksum, str) and path.is_file():
                by_checksum.setdefault(checksum, path)
    paths = [by_checksum[file.sha256] for file in source.files if file.sha256 in by_checksum]
    return paths if len(paths) == len(source.files) else None


def download(downloads: Path, name: str, source: Source, remedy: str) -> list[Path]:
    """Download the source's files into `downloads`, and return their paths in the source's order.

    Every error message ends with `remedy`. If the host does not answer, raise DataError after a few seconds.
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
    if reason := _why_unreachable(requests, urls[0]):
        raise DataError(
            f"load_dataset: {name!r} is not on this machine and cannot be downloaded: "
            f"{urlsplit(source.base_url).netloc} {reason}.\n{remedy}"
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
        for url in urls:  # one by one, so that no download is still running when another fails
            paths.append(Path(manager.download(url)))
        return paths
    except Exception as error:
        raise DataError(f"load_dataset: {url} could not be downloaded to {downloads}: {error}\n{remedy}") from error
    finally:
        for leftover in _unfinished(downloads, name) - before:
            shutil.rmtree(leftover, ignore_errors=True)


@runtime_checkable
class _Response(Protocol):
    status_code: int


@runtime_checkable
class _Requests(Protocol):
    """The part of the library `requests` that the probe uses."""

    def head(self, url: str, *, timeout: float, allow_redirects: bool) -> _Response: ...


def _why_unreachable(requests: _Requests, url: str) -> str | None:
    """Return the reason why the host cannot be used, or None if it can.

    Without this probe, the download manager would retry for over three minutes. The probe uses the same route as the
    download, including proxies. It runs in a thread, because a name lookup has no timeout.
    """
    reasons: list[str | None] = []

    def probe() -> None:
        try:
            status = requests.head(url, timeout=_TIMEOUT, allow_redirects=True).status_code
            # 405 and 501 mean that the host answers but does not support HEAD.
            reasons.append(None if status < 400 or status in (405, 501) else f"answers with HTTP status {status}")
        except Exception as error:  # any failure means that the host cannot be reached
            reasons.append(f"does not answer ({type(error).__name__})")

    thread = threading.Thread(target=probe, name="jaxgd-probe", daemon=True)
    thread.start()
    thread.join(_TIMEOUT + 1)
    return reasons[0] if reasons else f"does not answer in {_TIMEOUT + 1:g} seconds"


def _unfinished(downloads: Path, name: str) -> set[Path]:
    """Return the folders of incomplete downloads."""
    return {path for folder in (downloads, downloads / name) for path in folder.glob("*.tmp.*") if path.is_dir()}
