import json
import socket
import sys
import threading
import time

import pytest

from jaxgd.data import fetch, load_dataset
from jaxgd.data.registry import DATASETS
from jaxgd.errors import DataError, MissingDependencyError


def assert_nothing_incomplete(folder):
    """Assert that the folder holds neither a file nor a temporary folder of a download."""
    assert [path for path in folder.rglob("*") if path.is_file() or ".tmp." in path.name] == []


def test_sizes_and_checksums_equal_those_of_tensorflow_datasets():
    checksums = pytest.importorskip("tensorflow_datasets.core.download.checksums")
    theirs = checksums.get_all_url_infos()
    for name in ("mnist", "fashion_mnist", "kmnist"):
        source = DATASETS[name].source
        assert len(source.files) == 4
        for file in source.files:
            info = theirs[source.base_url + file.name]
            assert (info.filename, info.size, info.checksum) == (file.name, file.size, file.sha256)


def test_a_second_load_needs_no_server(tiny, server, tmp_path, capsys):
    data = tmp_path / "data"
    tiny.assert_loaded(load_dataset("mnist", data))
    assert sum(command == "GET" for command, _ in server.asked) == 4
    assert capsys.readouterr().out == ""
    assert [path for path in data.rglob("*") if ".tmp." in path.name] == []

    asked = len(server.asked)
    tiny.assert_loaded(load_dataset("mnist", data))
    assert len(server.asked) == asked  # The second load makes no request.

    # The cache is searched by checksum, so another address changes nothing.
    tiny.serve_from("http://127.0.0.1:1/")
    tiny.assert_loaded(load_dataset("mnist", data))
    assert capsys.readouterr() == ("", "")


def test_only_missing_files_are_downloaded(tiny, server, tmp_path):
    load_dataset("mnist", tmp_path / "data")
    (lost,) = (tmp_path / "data" / "downloads" / "mnist").glob("*t10k-labels*.gz")
    lost.unlink()
    server.asked.clear()
    tiny.assert_loaded(load_dataset("mnist", tmp_path / "data"))
    assert [path for command, path in server.asked if command == "GET"] == ["/t10k-labels-idx1-ubyte.gz"]


def test_a_cache_of_tensorflow_datasets_is_used(tiny, tmp_path, monkeypatch):
    """The cache holds each file and its .INFO file. Older versions of tensorflow-datasets have no folder `mnist`."""
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    for downloads in (tmp_path / "new" / "downloads" / "mnist", tmp_path / "old" / "downloads"):
        tiny.copy_to(downloads)
        (downloads / "unrelated.INFO").write_text("not JSON")
        (downloads / "older.INFO").write_text('{"urls": []}')
        for file in DATASETS["mnist"].source.files:
            info = {"url_info": {"checksum": file.sha256, "size": file.size, "filename": file.name}}
            (downloads / f"{file.name}.INFO").write_text(json.dumps(info))
    tiny.assert_loaded(load_dataset("mnist", tmp_path / "new"))
    tiny.assert_loaded(load_dataset("mnist", tmp_path / "old"))


def test_a_damaged_cache_is_refused(tiny, server, tmp_path):
    load_dataset("mnist", tmp_path / "data")
    (path,) = (tmp_path / "data" / "downloads" / "mnist").glob("*t10k-labels*.gz")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"t10k-labels.*SHA-256.*\nDelete the file") as caught:
        load_dataset("mnist", tmp_path / "data")
    assert str(path) in str(caught.value)
    path.unlink()
    tiny.assert_loaded(load_dataset("mnist", tmp_path / "data"))


def test_a_download_with_a_wrong_checksum_is_refused(server, tmp_path):
    server.contents["t10k-labels-idx1-ubyte.gz"] = server.contents["t10k-labels-idx1-ubyte.gz"][::-1]
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz could not be downloaded(.|\n)*checksum"):
        load_dataset("mnist", tmp_path / "data")
    left = [path for path in (tmp_path / "data").rglob("*") if "t10k-labels" in path.name or ".tmp." in path.name]
    assert left == []  # The three correct files may stay.


def test_a_truncated_download_is_refused(server, tmp_path):
    server.cut = 10
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz could not be downloaded(.|\n)*needs no file"):
        load_dataset("mnist", tmp_path / "data")
    assert_nothing_incomplete(tmp_path / "data")


@pytest.mark.parametrize("status", [403, 503])
def test_an_http_error_is_reported_without_retries(server, tmp_path, status):
    server.status = status
    with pytest.raises(DataError, match=f"HTTP status {status}"):
        load_dataset("mnist", tmp_path / "data")
    assert [command for command, _ in server.asked] == ["HEAD"]


def test_a_download_folder_that_cannot_be_made_is_reported(tiny, server, tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(DataError, match=f"could not be downloaded to {tmp_path / 'data'}"):
        load_dataset("mnist", tmp_path / "data")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_without_a_network_the_error_names_the_files_to_get(tmp_path, monkeypatch, name):
    source = DATASETS[name].source._replace(base_url="http://127.0.0.1:1/")
    monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(source=source))
    start = time.perf_counter()
    with pytest.raises(DataError) as caught:
        load_dataset(name, tmp_path / "data")
    assert time.perf_counter() - start < 10
    message = str(caught.value)
    assert "cannot be downloaded: 127.0.0.1:1 does not answer" in message
    assert f"from {source.base_url}, gzipped or not, into {tmp_path / 'data' / name}." in message
    for file in source.files:
        assert file.name in message
    assert "The data set 'digits' needs no file" in message
    assert not (tmp_path / "data").exists()


def test_a_hanging_name_lookup_times_out(tiny, tmp_path, monkeypatch):
    # The test above allows 10 s: 6 s for this limit and 4 s to import tensorflow-datasets.
    assert fetch._TIMEOUT + 1 <= 6
    monkeypatch.setattr(fetch, "_TIMEOUT", 0.2)
    over = threading.Event()

    def hang(*_, **__):
        over.wait(30)
        raise socket.gaierror("test")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    tiny.serve_from("http://files.invalid/")
    start = time.perf_counter()
    try:
        with pytest.raises(DataError, match=r"cannot be downloaded: files\.invalid does not answer in 1\.2 seconds"):
            load_dataset("mnist", tmp_path)
        assert time.perf_counter() - start < 5
    finally:
        over.set()
        for thread in threading.enumerate():
            if thread.name == "jaxgd-probe":
                thread.join(5)


@pytest.mark.parametrize("module", ["tensorflow_datasets.core.download", "requests"])
def test_without_tensorflow_datasets_the_error_says_what_to_install_or_download(tiny, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match="pip install tensorflow-datasets importlib_resources") as caught:
        load_dataset("mnist", tmp_path)
    assert f"into {tmp_path / 'mnist'}." in str(caught.value)
