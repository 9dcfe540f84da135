"""Small replacements for the genuine data files, and a server that serves them."""

import hashlib
import http.server
import sys
import threading

import numpy as np
import pytest

from jaxgd.data.idx import write_idx
from jaxgd.data.registry import DATASETS, Entry, Source, SourceFile

NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


@pytest.fixture(autouse=True)
def _tensorflow_is_never_imported():
    before = "tensorflow" in sys.modules
    yield
    assert before or "tensorflow" not in sys.modules


@pytest.fixture(autouse=True)
def _no_proxy_for_loopback(monkeypatch):
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, "127.0.0.1")


def fabricate(folder, *, seed, train=12, test=4, suffix=".gz"):
    """Write four random files under MNIST's names, with labels below 10, and return their arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    arrays = (
        random.integers(0, 256, (train, 28, 28), np.uint8),
        random.integers(0, 10, train, np.uint8),
        random.integers(0, 256, (test, 28, 28), np.uint8),
        random.integers(0, 10, test, np.uint8),
    )
    for name, array in zip(NAMES, arrays, strict=True):
        write_idx(folder / (name.removesuffix(".gz") + suffix), array)
    return arrays


def source_of(folder, base_url):
    """Return a `Source` for the gzipped files in a folder."""

    def entry(name):
        content = (folder / name).read_bytes()
        return SourceFile(name, len(content), hashlib.sha256(content).hexdigest())

    return Source(base_url, tuple(entry(name) for name in NAMES), train=12, validation=2, test=4, torchvision="MNIST")


class Tiny:
    """A fabricated data set that `load_dataset` loads under a genuine name."""

    def __init__(self, folder, name, seed, monkeypatch):
        self.folder, self.name, self._monkeypatch = folder, name, monkeypatch
        self.arrays = fabricate(folder, seed=seed)
        self.serve_from("http://127.0.0.1:1/")  # a port without a server

    def serve_from(self, base_url):
        self._monkeypatch.setitem(DATASETS, self.name, Entry(source_of(self.folder, base_url)))

    def copy_to(self, folder, names=NAMES):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_bytes((self.folder / name).read_bytes())

    def assert_loaded(self, dataset):
        images, labels, test_images, test_labels = self.arrays
        np.testing.assert_array_equal(dataset.train.images, images[:10])
        np.testing.assert_array_equal(dataset.train.labels, labels[:10])
        np.testing.assert_array_equal(dataset.validation.images, images[10:])
        np.testing.assert_array_equal(dataset.validation.labels, labels[10:])
        np.testing.assert_array_equal(dataset.test.images, test_images)
        np.testing.assert_array_equal(dataset.test.labels, test_labels)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    return Tiny(tmp_path / "served", "mnist", 0, monkeypatch)


@pytest.fixture
def other(tmp_path, monkeypatch):
    return Tiny(tmp_path / "other", "fashion_mnist", 1, monkeypatch)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body):
        self.server.asked.append((self.command, self.path))
        content = self.server.contents.get(self.path.removeprefix("/"))
        self.send_response(self.server.status if content is not None else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body and content is not None:
            self.wfile.write(content[: -self.server.cut] if self.server.cut else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tiny):
    """A running server for `tiny`'s files. It omits the last `server.cut` bytes of each file."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.contents = {name: (tiny.folder / name).read_bytes() for name in NAMES}
        running.asked, running.cut, running.status = [], 0, 200
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        tiny.serve_from(f"http://127.0.0.1:{running.server_port}/")
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()
