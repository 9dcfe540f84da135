"""Ctrl-C, SIGTERM and SIGHUP stop the command at once, or during training after the current epoch.

A thread receives the signals, because Python runs a handler only after the main thread has returned from C++. A
compilation or an epoch may stay in C++ for minutes. No handler raises an exception. An exception could get lost inside
an import, a callback or a destructor, and it can crash the process inside XLA.

This module is imported before all others of the command, so it imports little.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


_TWICE = 0.1  # signals within this number of seconds count as one


class Stop:
    """The request to stop after the current epoch.

    Attributes:
        number: Number of the first signal that arrived, or 0.
    """

    number = 0
    _time = 0.0

    def takes(self, number: int) -> bool:
        """Record the first signal, and return True. Return False for a later signal: the command must stop at once.

        Return True for a signal within 0.1 s of the first: `timeout` sends each signal to the process and to its group.
        """
        if not self.number:
            self._request(number)
            return True
        return time.monotonic() - self._time < _TWICE

    def _request(self, number: int) -> None:
        self.number, self._time = number, time.monotonic()
        again = "press Ctrl-C" if number == signal.SIGINT else "send the signal"
        _write(f"finishing this epoch and saving; {again} again to stop at once")


class _State:
    who = "jaxgd"
    advice = ""
    stop: Stop | None = None
    listening = False
    # Guards `stop`, which the main thread sets and the listening thread reads.
    lock = threading.Lock()


def describe(who: str, advice: str = "") -> None:
    """Set the name of the command, and the advice to print if a signal or an error ends the process."""
    _State.who, _State.advice = who, advice


def advice() -> str:
    """Return the advice that `describe` has set."""
    return _State.advice


def name(number: int) -> str:
    """Return the user's word for a signal: Ctrl-C or, for instance, SIGTERM."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def status(number: int) -> int:
    """Return the exit status of a process that a signal has stopped: 130 after Ctrl-C."""
    return 128 + number


def leave_on_signals() -> None:
    """Let each signal end this process with a message. A signal that the parent ignores, as nohup does, stays ignored.

    Call this first, and only in a process that belongs to the command.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    _open_standard_streams()
    numbers = _not_ignored()
    for number in numbers:
        signal.signal(number, lambda number, _: _leave(number))
    if os.name != "posix":
        return
    try:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        threading.Thread(target=_listen, args=(reader,), name="jaxgd-signals", daemon=True).start()
    except (OSError, RuntimeError):  # no file descriptor or thread is left: keep the handlers above
        return
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _State.listening = True
    for number in numbers:
        signal.signal(number, lambda *_: None)


def _open_standard_streams() -> None:
    """Open the null device in place of each standard stream that the parent has closed.

    Otherwise a checkpoint could get file descriptor 2, and C++ would log into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free file descriptor: `number`


@contextlib.contextmanager
def finishing_first() -> Iterator[Stop]:
    """Let the first signal inside the block only request a stop. A later signal acts as outside of the block."""
    stop = Stop()
    if _State.listening:
        with _State.lock:
            _State.stop = stop
        try:
            yield stop
        finally:
            with _State.lock:
                _State.stop = None
    elif threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in _not_ignored()}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def ask(number: int, _: object) -> None:
            if not stop.takes(number):
                restore()
                os.kill(os.getpid(), number)

        for number in before:
            signal.signal(number, ask)
        try:
            yield stop
        finally:
            restore()
    else:
        yield stop


def _not_ignored() -> list[int]:
    # getsignal returns None for a handler that was installed by C and cannot be restored.
    return [number for number in NUMBERS if signal.getsignal(number) not in (signal.SIG_IGN, None)]


def _listen(reader: int) -> None:
    while True:
        for number in os.read(reader, 1):
            if number in NUMBERS:
                with _State.lock:
                    stop = _State.stop
                    if stop is not None and stop.takes(number):
                        continue
                _leave(number)


def _leave(number: int) -> None:
    """End the process without cleaning up. The run can still be continued from its folder."""
    word = "interrupted" if number == signal.SIGINT else f"stopped by {name(number)}"
    _write(f"{_State.who}: {word}{_State.advice and '; '}{_State.advice}")
    os._exit(status(number))


def _write(line: str) -> None:
    """Write a line to standard error without Python's buffer, whose lock another thread may hold."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    start = "\n" if os.isatty(2) else ""
    with contextlib.suppress(OSError, ValueError):
        # Wait 0.2 s at most: a full pipe could block this process forever.
        if select.select([], [2], [], 0.2)[1]:
            os.write(2, f"{start}{line}\n".encode(encoding, "backslashreplace"))
