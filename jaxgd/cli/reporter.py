"""Progress of a run: a line per epoch in the book's form, a progress bar and TensorBoard events."""

import contextlib
import math
import sys
from collections.abc import Iterator
from typing import Protocol, TextIO

from jaxgd.cli.output import discard_broken_output, say
from jaxgd.data import Dataset
from jaxgd.errors import MissingDependencyError
from jaxgd.history import NUMBERS, Best, History
from jaxgd.mesh.processes import is_main
from jaxgd.outcome import Outcome, Reason
from jaxgd.report.events import Events
from jaxgd.run_folder import RunFolder


class _Bar(Protocol):
    """The methods of tqdm's bar that a reporter calls. tqdm has no types of its own."""

    def set_description_str(self, text: str) -> None: ...
    def set_postfix_str(self, text: str, *, refresh: bool) -> None: ...
    def update(self) -> object: ...
    def write(self, line: str, *, file: TextIO) -> None: ...


class Reporter:
    """Print one line per epoch to stdout in the book's form, such as `Epoch 3: 9321 / 10000`.

    With `progress`, show a progress bar on stderr. With `tensorboard`, write TensorBoard events into the run folder.
    """

    def __init__(self, *, progress: bool, tensorboard: bool) -> None:
        self._progress, self._tensorboard = progress, tensorboard
        # The reason why a line could not be written to stdout, such as a full disk. Empty if all lines were written.
        self.broken = ""
        if tensorboard:
            try:
                import tensorboardX  # noqa: F401
            except ModuleNotFoundError as error:
                raise MissingDependencyError(
                    "--tensorboard: expected tensorboardX to be installed, got no such module.\n"
                    "Run in the folder of jaxgd's sources: pip install -e '.[tensorboard]'"
                ) from error

    @contextlib.contextmanager
    def over(self, folder: RunFolder, data: Dataset, epochs: int, entries: list[History]) -> Iterator[None]:
        """Report on a run of `epochs` epochs. `entries` is the history so far, empty for a new run."""
        from tqdm import tqdm

        done = max(len(entries) - 1, 0)
        self._test_images = len(data.test.labels)
        with contextlib.ExitStack() as stack:
            # disable=None hides the bar if stderr is not a terminal.
            hidden = True if not (self._progress and is_main()) else None
            bar = tqdm(total=epochs, initial=done, unit="epoch", disable=hidden)
            self._bar: _Bar = stack.enter_context(bar)
            self._events: Events | None = None
            if self._tensorboard and is_main():
                events = Events(folder.path / "tensorboard", purge_step=done + 1 if done else None)
                self._events = stack.enter_context(events)
            self._bar.set_description_str("compiling")
            yield

    def show(self, entry: History) -> None:
        """Report one entry of the history. In a job of several processes, only process 0 reports."""
        if not is_main():
            return
        k = int(entry.epoch)
        if self._events is not None:
            values = {name: getattr(entry, name).item() for name in NUMBERS[2:]}
            for name, recorded in entry.records.items():
                several = {f"{name}/{i + 1}": x for i, x in enumerate(recorded.ravel().tolist())}
                values |= several if recorded.ndim else {name: recorded.item()}
            for name, value in values.items():
                if math.isfinite(value):
                    self._events.add(k, name, value)
        if k == 0:
            return
        try:
            self._bar.write(f"Epoch {k - 1}: {self._correct(entry)}", file=sys.stdout)
            sys.stdout.flush()
        except OSError as error:
            self.broken = error.strerror or str(error)
            discard_broken_output()
        self._bar.set_description_str("training")
        self._bar.set_postfix_str(f"cost {entry.cost:.4f}, test accuracy {entry.test_accuracy:.2%}", refresh=False)
        self._bar.update()

    def conclude(self, outcome: Outcome, entries: list[History], best: Best | None, keep: str) -> None:
        """Print the outcome of the run, its best epoch, and the network that is kept.

        `best` is the best epoch on the validation images. If it is None, print the best epoch on the test images.
        """
        # The message of STOPPED would confuse the user: it names a callback. The command itself reports the signal.
        if outcome.reason is not Reason.STOPPED:
            say(outcome.message)
        if len(entries) > 1:
            last = f"test: {self._correct(entries[-1])} ({entries[-1].test_accuracy:.2%})"
            first = max(range(1, len(entries)), key=lambda k: entries[k].test_accuracy)
            # Print one best epoch only. The best epoch on the validation images may be another.
            best_test = f"; best: epoch {first - 1}, {self._correct(entries[first])}"
            say(last + (best_test if best is None else " after the last epoch"))
        if best is not None and best.epoch >= 0:
            k = int(best.epoch)
            value = f"{best.value:.2%}" if best.by == "accuracy" else f"{best.value:.6f}"
            where = f"epoch {k - 1}" if k else "the network before the first epoch"
            kept = "network.safetensors" if keep == "best" else "network.safetensors: the last network; best"
            say(f"{kept}: {where}, validation {best.by} {value}, test {self._correct(entries[k])}")

    def _correct(self, entry: History) -> str:
        return f"{round(float(entry.test_accuracy) * self._test_images)} / {self._test_images}"
