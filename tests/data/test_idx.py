import gzip
import re
import struct
import tempfile
import time
import tracemalloc
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgd.data.idx import is_idx, read_idx, write_idx
from jaxgd.errors import DataError, DtypeError, WriteError

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
HEADER = b"\0\0\x08\x03" + struct.pack(">3I", 2, 3, 4)
PLAIN = HEADER + ARRAY.tobytes()


def damaged(path, expected, *, content=None):
    """Assert that reading fails, with a message that names the file, the damage and the remedy."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert re.search(r"expected .*got", str(caught.value))
    assert str(caught.value).count("\n") == 1  # the second line is the remedy


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)), st.booleans())
def test_write_and_read_return_the_array(array, zipped):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("x.gz" if zipped else "x")
        write_idx(path, array)
        assert path.read_bytes().startswith(b"\x1f\x8b") == zipped
        got = read_idx(path)
        assert [file.name for file in Path(folder).iterdir()] == [path.name]
    assert got.dtype == np.uint8
    assert got.shape == array.shape
    np.testing.assert_array_equal(got, array)


def test_the_file_has_the_layout_of_the_format(tmp_path):
    write_idx(tmp_path / "x", ARRAY)
    assert (tmp_path / "x").read_bytes() == PLAIN


def test_gzip_is_detected_by_content_and_not_by_name(tmp_path):
    (tmp_path / "plain.gz").write_bytes(PLAIN)
    (tmp_path / "zipped").write_bytes(gzip.compress(PLAIN))
    np.testing.assert_array_equal(read_idx(tmp_path / "plain.gz"), ARRAY)
    np.testing.assert_array_equal(read_idx(str(tmp_path / "zipped")), ARRAY)


def test_a_gzip_file_may_have_several_members_and_padding(tmp_path):
    (tmp_path / "x").write_bytes(gzip.compress(PLAIN[:7]) + gzip.compress(PLAIN[7:]) + b"\0" * 9)
    np.testing.assert_array_equal(read_idx(tmp_path / "x"), ARRAY)


def test_equal_arrays_give_equal_files(tmp_path):
    write_idx(tmp_path / "a.gz", ARRAY)
    write_idx(tmp_path / "b.gz", ARRAY)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert (tmp_path / "a.gz").read_bytes()[4:8] == b"\0\0\0\0"  # no time stamp


def test_fortran_order_is_written_row_by_row(tmp_path):
    write_idx(tmp_path / "x", np.asfortranarray(ARRAY))
    np.testing.assert_array_equal(read_idx(tmp_path / "x"), ARRAY)


def test_the_array_is_read_only(tmp_path):
    write_idx(tmp_path / "x", ARRAY)
    with pytest.raises(ValueError, match="read-only"):
        read_idx(tmp_path / "x")[0, 0, 0] = 1


DAMAGE = {
    "empty": (b"", "begins 00 00 08"),
    "reversed magic number": (b"\x03\x08\0\0" + PLAIN[4:], "begins 00 00 08.*03 08 00 00"),
    "zip": (b"PK\x03\x04" + PLAIN[4:], r"begins 00 00 08, got a ZIP archive\.\nUnpack it"),
    "gzipped twice": (gzip.compress(gzip.compress(PLAIN)), r"got a file that was gzipped twice\.\nUnpack it once"),
    "a web page": (b"<!DOCTYPE html>", "got a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", "got a pointer of Git LFS"),
    "float32": (b"\0\0\x0d\x03" + PLAIN[4:], "float32"),
    "unknown type": (b"\0\0\x42\x03" + PLAIN[4:], "unknown type.*42"),
    "too many dimensions": (b"\0\0\x08\xff" + bytes(4 * 255), "at most 64 dimensions, got 255"),
    "header cut": (PLAIN[:9], "3 dimensions.*truncated"),
    "payload cut": (PLAIN[:-1], r"24 bytes.*\(2, 3, 4\).*23 bytes.*truncated"),
    "trailing byte": (PLAIN + b"\0", "24 bytes.*trailing"),
    "huge shape, 4 bytes of data": (b"\0\0\x08\x03" + b"\xff" * 12 + b"1234", "4 bytes: it is truncated"),
    "empty shape that overflows": (b"\0\0\x08\x04" + bytes(4) + b"\xff" * 12, "a shape that an array can have"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_content_is_refused(tmp_path, case, zipped):
    content, expected = DAMAGE[case]
    damaged(tmp_path / "x", expected, content=gzip.compress(content) if zipped else content)


ZIPPED = gzip.compress(PLAIN, mtime=0)
ZIP_DAMAGE = {
    "only the magic number": ZIPPED[:2],
    "cut in the header": ZIPPED[:7],
    "cut in the data": ZIPPED[:20],
    "cut in the checksum": ZIPPED[:-1],
    "wrong checksum": ZIPPED[:-6] + bytes([ZIPPED[-6] ^ 1]) + ZIPPED[-5:],
    "wrong length": ZIPPED[:-1] + bytes([ZIPPED[-1] ^ 1]),
    "changed data": ZIPPED[:12] + bytes(8) + ZIPPED[20:],
    "other bytes after the end": ZIPPED + b"rubbish",
    "half a member after the end": ZIPPED + ZIPPED[:20],
    "a member after the padding": ZIPPED + b"\0" + gzip.compress(b""),
}


@pytest.mark.parametrize("case", ZIP_DAMAGE)
def test_a_damaged_gzip_file_is_refused(tmp_path, case):
    damaged(tmp_path / "x.gz", "complete gzip file|trailing", content=ZIP_DAMAGE[case])


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(ZIPPED) - 1), st.integers(1, 255))
def test_a_changed_byte_never_changes_the_array(position, mask):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(ZIPPED[:position] + bytes([ZIPPED[position] ^ mask]) + ZIPPED[position + 1 :])
        try:
            np.testing.assert_array_equal(read_idx(path), ARRAY)  # some bytes of a gzip header are ignored
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize("zipped", [False, True])
def test_a_false_header_allocates_less_than_a_megabyte(tmp_path, zipped):
    header = b"\0\0\x08\x03" + struct.pack(">3I", 60_000, 2_000, 2_000)  # 240 GB
    tracemalloc.start()
    try:
        damaged(tmp_path / "x", "truncated", content=gzip.compress(header) if zipped else header)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    (tmp_path / "x").write_bytes(gzip.compress(PLAIN + bytes(2**26)))
    tracemalloc.start()
    try:
        damaged(tmp_path / "x", "trailing")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


MANY = {
    "members of one byte": (
        gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 20_000)) + gzip.compress(b"\7", 1) * 20_000,
        None,
    ),
    "empty members": (gzip.compress(b"") * 50_000, "begins 00 00 08"),
    "long padding": (ZIPPED + bytes(2**24), None),
}


@pytest.mark.parametrize("case", MANY)
def test_many_members_and_long_padding_take_linear_time(tmp_path, case):
    content, expected = MANY[case]
    start = time.process_time()
    if expected is None:
        (tmp_path / "x").write_bytes(content)
        assert read_idx(tmp_path / "x").size in (20_000, ARRAY.size)
    else:
        damaged(tmp_path / "x", expected, content=content)
    assert time.process_time() - start < 2.0  # Linear time is at most 0.15 s, quadratic time 5 s or more.


IS_IDX = {
    "plain": (PLAIN, True),
    "zipped": (ZIPPED, True),
    "long name in the gzip header": (b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 3000 + b"\0" + ZIPPED[10:], True),
    "cut short": (PLAIN[:9], True),
    "float32": (b"\0\0\x0d\x03" + PLAIN[4:], True),
    "scalar": (b"\0\0\x08\0\7", True),
    "empty": (b"", False),
    "png": (b"\x89PNG\r\n\x1a\n", False),
    "zipped picture": (gzip.compress(b"\x89PNG\r\n\x1a\n"), False),
    "icon": (b"\0\0\1\0\1\0", False),
    "run-length coded gray TGA": (b"\0\0\x0b" + bytes(15), False),
    "AVIF": (b"\0\0\0\x1cftypavif", False),
    "damaged gzip": (ZIPPED[:10] + b"\xff" * 20, False),
}


@pytest.mark.parametrize("case", IS_IDX)
def test_is_idx_depends_only_on_the_first_bytes(tmp_path, case):
    content, expected = IS_IDX[case]
    (tmp_path / "t10k-images-idx3-ubyte.png").write_bytes(content)
    assert is_idx(tmp_path / "t10k-images-idx3-ubyte.png") is expected


def test_a_file_that_cannot_be_read_is_not_idx(tmp_path):
    assert not is_idx(tmp_path)
    assert not is_idx(tmp_path / "nothing")


def test_a_file_that_cannot_be_read_is_reported(tmp_path):
    damaged(tmp_path / "nothing", "No such file")
    damaged(tmp_path, "directory|denied")


def test_writing_into_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(WriteError, match=r"absent.x.*No such file"):
        write_idx(tmp_path / "absent" / "x", ARRAY)


def test_a_failed_write_leaves_no_file(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(WriteError, match="cannot be written"):
        write_idx(tmp_path / "x", ARRAY)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.bad_input
def test_write_idx_refuses_other_dtypes_than_uint8(tmp_path):
    with pytest.raises(DtypeError, match=r"write_idx: .*uint8, got float64\[2\]"):
        write_idx(tmp_path / "x", np.zeros(2))
    assert not list(tmp_path.iterdir())
