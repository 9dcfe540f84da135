"""The reader takes only regular files of limited size. Writers write a whole file, a whole line or nothing."""

import errno
import os
import socket

import pytest

from jaxgd import files
from jaxgd.errors import DtypeError, RangeError, WriteError
from jaxgd.files import append, as_path, read_file, read_head, read_json, seal, unseal, write_atomically


def listening(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


NOT_REGULAR = {
    "pipe": (lambda path: os.mkfifo(path), "not a regular file"),
    "link to a device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "link to a pseudo-file": (lambda path: path.symlink_to("/proc/self/status"), "stated a size of 0"),
    "folder": (os.mkdir, "Is a directory"),
    "socket": (listening, "No such device"),
    "link to itself": (lambda path: path.symlink_to(path), "Too many levels"),
    "no file": (lambda path: None, "No such file"),
}


@pytest.mark.skipif(os.name != "posix", reason="needs pipes and devices")
@pytest.mark.parametrize("case", NOT_REGULAR)
def test_only_regular_files_are_read(tmp_path, case):
    make, reason = NOT_REGULAR[case]
    make(tmp_path / "x")
    with pytest.raises(OSError, match=reason) as caught:
        read_file(tmp_path / "x", 100)
    assert caught.value.strerror


def test_a_file_above_the_limit_is_not_read(tmp_path):
    with (tmp_path / "x").open("wb") as file:
        file.truncate(2**40)  # a sparse file
    with pytest.raises(OSError, match=r"1,099,511,627,776 bytes, more than the limit of 1,000"):
        read_file(tmp_path / "x", 1000)
    assert read_head(tmp_path / "x", 3) == b"\0\0\0"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("path", "error"),
    [(3, DtypeError), (None, DtypeError), (b"x", DtypeError), ("a\0b", RangeError), ("\ud800", RangeError)],
)
def test_an_invalid_path_is_refused(path, error):
    with pytest.raises(error, match="f: path must be"):
        as_path("f", path)


def test_free_memory_is_inactive_cache_plus_limit_minus_use(tmp_path, monkeypatch):
    group = (tmp_path, "", "memory.max", "memory.current", "inactive_file ")
    monkeypatch.setattr(files, "_GROUPS", (group,))
    monkeypatch.setattr(files, "_OWN_GROUPS", tmp_path / "none")
    without_limit = files.free_memory()
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (without_limit is None) == (files.free_memory() is None)
    (tmp_path / "memory.max").write_text("1000\n")
    assert files.free_memory() == 100
    (tmp_path / "memory.stat").write_text("active_file 7\ninactive_file 50\n")
    assert files.free_memory() == 150


@pytest.mark.parametrize(("version", "line"), [(0, "0::/jobs/7\n"), (1, "4:cpu,memory:/jobs/7\n3:cpuset:/\n")])
def test_free_memory_obeys_the_limit_of_an_outer_control_group(tmp_path, monkeypatch, version, line):
    _, controller, limit, used, cached = files._GROUPS[version]
    monkeypatch.setattr(files, "_GROUPS", ((tmp_path, controller, limit, used, cached),))
    monkeypatch.setattr(files, "_OWN_GROUPS", tmp_path / "own")
    (tmp_path / "own").write_text(line)
    for folder, most in (("jobs/8", 400), ("jobs/7", 700), ("jobs", 600)):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / limit).write_text(f"{most}\n")
        (tmp_path / folder / used).write_text("100\n")
    assert files.free_memory() == 500
    (tmp_path / "jobs/7" / limit).write_text("200\n")
    assert files.free_memory() == 100


NO_JSON = {
    "nested": b"[" * 100_000,
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "not unicode": b'{"a": "\xff"}',
    "huge number": b"9" * 5000,
    "repeated name": b'{"a": 1, "a": 2}',
    "repeated name in a nested object": b'{"a": {"b": 1, "b": 2}}',
    "NaN": b'{"a": NaN}',
    "cut short": b'{"a": 1',
    "empty": b"",
}


@pytest.mark.parametrize("content", NO_JSON.values(), ids=NO_JSON)
def test_bad_json_raises_a_value_error(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=r"\w"):
        read_json(tmp_path / "x")


def test_unseal_detects_every_change():
    content = {"eta": 3.0, "sizes": [2, 1], "name": None}
    sealed = seal(content)
    assert unseal(sealed) == content
    changes = (
        sealed | {"eta": 3.5},
        sealed | {"more": 1},
        content,
        sealed | {"sha256": "0" * 64},
        content | {"sha255": 0},
    )
    for changed in changes:
        with pytest.raises(ValueError, match="differ from the saved ones"):
            unseal(changed)


def full(handle, content):
    """Act as a nearly full disk: write half of the content, or raise OSError if it has at most 4 bytes."""
    if len(content) > 4:
        return WRITE(handle, content[: len(content) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


WRITE = os.write


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    with pytest.raises(WriteError, match="No such file"):
        append(tmp_path / "x", b"first line\n")
    (tmp_path / "x").touch()
    append(tmp_path / "x", b"first line\n")
    monkeypatch.setattr(files.os, "write", full)
    with pytest.raises(WriteError, match="x cannot be written: No space left"):
        append(tmp_path / "x", b"second line\n")
    monkeypatch.undo()
    assert (tmp_path / "x").read_bytes() == b"first line\n"
    append(tmp_path / "x", b"third line\n")
    assert (tmp_path / "x").read_bytes() == b"first line\nthird line\n"


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    def fail(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_atomically(tmp_path / "x", b"old")
    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(WriteError, match="x cannot be written: No space left"):
        write_atomically(tmp_path / "x", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"old"}


@pytest.mark.skipif(os.name != "posix", reason="needs pipes")
def test_a_special_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "x")
    with pytest.raises(WriteError, match="not a regular file"):
        write_atomically(tmp_path / "x", b"new")
    assert (tmp_path / "x").is_fifo()


def test_a_new_file_has_the_usual_permissions(tmp_path):
    write_atomically(tmp_path / "a", b"")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
