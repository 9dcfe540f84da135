"""The scalars of a run in TensorBoard's format."""

import contextlib
import time
from pathlib import Path
from types import TracebackType

from jaxgd.files import writing

_SECONDS = 10.0  # least number of seconds between two flushes by `add`


class Events:
    """A writer of one event file. It writes in the calling thread.

    A failed write raises WriteError. The usual writer of tensorboardX writes in a second thread. On a full disk this
    thread ends, and the program later hangs.

    Args:
        folder: Folder for the event files. It is created if its parent folder exists.
        purge_step: The step from which TensorBoard hides the scalars of earlier files. By default, it hides none.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self._folder, self._flushed, self._event = folder, time.monotonic(), event_pb2.Event
        with writing(folder):
            folder.mkdir(exist_ok=True)
            # Without the nanoseconds, two files of the same second would have the same name.
            self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
            if purge_step is not None:
                start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
                self._writer.write_event(self._event(wall_time=time.time(), step=purge_step, session_log=start))

    def __enter__(self) -> "Events":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error in the block, suppress an error of `close`, so that the caller sees the first error.
        with contextlib.suppress(*([OSError] if error else [])), writing(self._folder):
            self._writer.close()

    def add(self, step: int, name: str, value: float) -> None:
        """Write one scalar."""
        from tensorboardX.summary import scalar

        with writing(self._folder):
            self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=scalar(name, value)))
            if time.monotonic() - self._flushed > _SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()
