"""The scalars of a run in TensorBoard's format."""

import contextlib
import time
from pathlib import Path
from types import TracebackType

from jaxgd.files import writing

_SECONDS = 10.0  # `add` flushes the file if the last flush was longer ago than this


class Events:
    """A writer of one event file. It writes in the calling thread.

    A failed write raises WriteError. The usual writer of tensorboardX uses a second thread and a queue of limited
    length: on a full disk the thread ends, and the program hangs when the queue is full.

    Args:
        folder: Folder for the event files. It is created if its parent folder exists.
        purge_step: TensorBoard hides the scalars of earlier files from this step on. By default it hides no scalar.
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
        # After an error in the block, report that error and not a second one from `close`.
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
