"""The progress line of `minimize` and `train` on stderr."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

import jax


class _Bar(Protocol):
    """The members of tqdm's bar that jaxgd uses."""

    disable: bool
    n: int

    def set_postfix_str(self, s: str, refresh: bool) -> None: ...
    def update(self, n: int) -> object: ...


@contextlib.contextmanager
def progress_line(wanted: bool, total: int, name: str, unit: str) -> Iterator[Callable[[int, Callable[[], str]], None]]:
    """Yield a function that shows the number of units done, and a text. It shows nothing if stderr is not a terminal.

    Args:
        wanted: False to show nothing.
        total: The number of units of the run.
        name: The name of the function that runs.
        unit: The name of a unit.

    Yields:
        A function `show(done, text)`. `done` is the number of units done, and `text()` returns the text. `show`
        calls `text` only if the line is shown.
    """
    if not wanted:
        yield lambda done, text: None
        return
    from tqdm import tqdm

    bar: _Bar
    # In a job of several processes, only process 0 shows the line.
    with tqdm(total=total, desc=name, unit=unit, disable=jax.process_index() > 0 or None) as bar:

        def show(done: int, text: Callable[[], str]) -> None:
            if not bar.disable:
                bar.set_postfix_str(text(), refresh=False)
                bar.update(done - bar.n)

        yield show
