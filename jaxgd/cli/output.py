"""Lines on standard output and standard error, in any encoding."""

import codecs
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

# ASCII text for the signs in jaxgd's messages, for encodings that lack them.
_ASCII = {
    **{"η": "eta", "ε": "epsilon", "μ": "mu", "λ": "lambda", "∇": "grad ", "Δ": "Delta", "θ": "theta", "σ": "sigma"},
    **{"−": "-", "–": "-", "—": "-", "×": "x", "·": "*", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "→": "->"},
    **{"‖": "||", "√": "sqrt", "∞": "inf", "…": "...", "′": "'", "’": "'", "²": "^2", "₀": "0", "₁": "1", "₂": "2"},
    **{"─": "-", "│": "|", "╭": "+", "╮": "+", "╰": "+", "╯": "+", "█": "#", "•": "*"},
}


def _readable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace one character that the encoding lacks by ASCII text or by its escape.

    A surrogate, which stands for an undecodable byte of a file name, becomes that byte again.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character, end = error.object[error.start], error.start + 1
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), end
    return _ASCII.get(character) or character.encode("ascii", "backslashreplace").decode(), end


codecs.register_error("jaxgd", _readable)


@contextlib.contextmanager
def readable_everywhere() -> Iterator[None]:
    """Inside the block, stdout and stderr are not None and accept every character."""
    with contextlib.ExitStack() as stack:
        # Python sets a stream to None if the parent process has closed its file descriptor.
        for stream, redirect in ((sys.stdout, contextlib.redirect_stdout), (sys.stderr, contextlib.redirect_stderr)):
            if stream is None:
                stack.enter_context(redirect(stack.enter_context(open(os.devnull, "w", encoding="utf-8"))))
            elif isinstance(stream, io.TextIOWrapper):
                stack.callback(_restore, stream, stream.errors)
                stream.reconfigure(errors="jaxgd")
        yield


def _restore(stream: io.TextIOWrapper, errors: str | None) -> None:
    discard_broken_output(stream)
    with contextlib.suppress(OSError, ValueError):
        stream.reconfigure(errors=errors)


def discard_broken_output(stream: TextIO | None = None) -> bool:
    """Return True if the stream cannot be written. In this case, discard its buffer.

    Python would otherwise flush the buffer at exit, and fail again. The default stream is standard output.
    """
    stream = stream or sys.stdout
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return True
    return False


def one_line(message: str) -> str:
    r"""Return the message as one line. Control characters, which could move the cursor, become visible.

    >>> one_line("model 1\x1b[2J:\nno file")
    'model 1\\x1b[2J: no file'
    """
    line = " ".join(part.strip() for part in message.split("\n") if part.strip())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class Speaker:
    """The index of this process in a job.

    Attributes:
        process: Index of this process. Process 0 prints all messages, the others only errors and warnings.
    """

    process = 0


def say(message: str) -> None:
    """Print the message as one line to standard error, on process 0 only.

    Ignore a failure: the terminal or pipe may be gone.
    """
    if Speaker.process == 0:
        _print(message)


def _print(message: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(one_line(message), file=sys.stderr, flush=True)


# Functions whose names start messages. A user of the command does not call them, so the command omits the names.
_FUNCTIONS = (
    *("find_digits", "fit_to_frame", "init_network", "load_dataset", "load_idx", "load_network", "load_state"),
    *("merge_sweep", "read_idx", "read_picture", "save_network", "save_state"),
)


def without_function(message: str) -> str:
    """Return the message without the name of the Python function at its start.

    >>> without_function("read_picture: seven.png: expected a picture")
    'seven.png: expected a picture'
    """
    name, colon, rest = message.partition(": ")
    return rest if colon and name in _FUNCTIONS else message


def error_line(name: str, message: str) -> None:
    """Print the name of the command and an error or warning, as one line.

    If the message starts with the name of a function or of this command, drop that name.
    """
    where = f" (process {Speaker.process})" if Speaker.process else ""
    _print(f"{name}{where}: {without_function(message).removeprefix(name.removeprefix('jaxgd ') + ': ')}")


@contextlib.contextmanager
def warnings_as_lines(name: str) -> Iterator[None]:
    """Inside the block, print a warning as one line on standard error. For the user's code, name the line of code."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        words = without_function(str(message)).removeprefix(name.removeprefix("jaxgd ") + ": ")
        ours = filename.startswith((_HOME, "<")) or "site-packages" in filename
        error_line(name, f"warning: {words}" + ("" if ours else f" ({filename}:{lineno})"))

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield
