"""The settings of a task, and the pipe to which it writes its figures."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.device.sizes import DEVICE, REHEARSAL, Sizes
from benchmarks.rows import Row, sampled


class TaskError(Exception):
    """A failed check, or a missing requirement of the task. The message is the reason."""


@dataclasses.dataclass(frozen=True)
class Context:
    """The settings of a task.

    Attributes:
        task: Name of the task. The cases of its figures start with `device-` and this name.
        rehearse: True if the run is a rehearsal on a CPU.
        logs: Folder of the logs of the run.
        pipe: Descriptor of the pipe to the process that stores the figures.
    """

    task: str
    rehearse: bool
    logs: Path
    pipe: int

    @property
    def sizes(self) -> Sizes:
        """The sizes of the measurements."""
        return REHEARSAL if self.rehearse else DEVICE

    def require_gpu(self, platform: str) -> None:
        """Raise TaskError unless the device is a GPU or the run is a rehearsal."""
        if not self.rehearse and platform not in ("gpu", "cuda"):
            raise TaskError(f"expected a GPU, got the platform {platform}")

    def case(self, part: str = "") -> str:
        """Return the name of a case of this task."""
        return f"device-{self.task}" + (f"/{part}" if part else "")

    def row(self, part: str, variant: str, quantity: str, unit: str, samples: Sequence[float], **more: Any) -> Row:
        """Store the median and the spread of samples, and return their row."""
        return self.emit(sampled(self.case(part), variant, quantity, unit, samples, **more))

    def count(self, part: str, variant: str, quantity: str, unit: str, value: float, **more: Any) -> Row:
        """Store one value without a spread, and return its row."""
        row = Row(case=self.case(part), variant=variant, quantity=quantity, value=value, unit=unit, **more)
        return self.emit(row)

    def emit(self, row: Row) -> Row:
        """Store a row, and return it."""
        self._send("row", row.to_json())
        return row

    def note(self, text: str) -> None:
        """Add a line to the summary."""
        self._send("note", text)

    def _send(self, kind: Literal["row", "note"], text: str) -> None:
        line = json.dumps([kind, text]) + "\n"
        os.write(self.pipe, line.encode())
