"""Events can be read back, and a failed write raises WriteError."""

import errno
import os

import pytest

from jaxgd.errors import WriteError

pytest.importorskip("tensorboardX")
from jaxgd.report.events import Events


def read(path):
    """Return the events of a file. A record has a length, the length's checksum, the event and the event's checksum."""
    from tensorboardX.proto import event_pb2

    content, events = path.read_bytes(), []
    while content:
        length = int.from_bytes(content[:8], "little")
        events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def test_scalars_are_written_with_their_step(tmp_path):
    for purge in (None, 3):
        with Events(tmp_path / "events", purge) as events:
            events.add(4, "cost", 0.25)
    first, second = (read(path) for path in sorted((tmp_path / "events").iterdir()))
    (value,) = first[1].summary.value
    assert (first[1].step, value.tag, value.simple_value) == (4, "cost", 0.25)
    assert [event.step for event in second] == [0, 3, 4]
    assert second[1].session_log.status == second[1].session_log.START


class Full:
    """A file on a full disk."""

    def write(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    flush = close = lambda self: self.write(b"")


def write_to_full_disk(folder):
    with Events(folder) as events:
        records = events._writer._py_recordio_writer
        records.close()
        records._writer = Full()
        events.add(1, "cost", 0.25)


def test_a_full_disk_raises_write_error(tmp_path):
    with pytest.raises(WriteError, match="events cannot be written: No space left"):
        write_to_full_disk(tmp_path / "events")
