"""Tracebacks that show the user's own lines. This module imports no other module of jaxgd, so it loads fast."""

import os
import types

_HOME = os.path.dirname(os.path.abspath(__file__)) + os.sep
# Prefix of the file names of Python's import machinery. Its frames stand between an import statement and the imported
# module's own lines.
_IMPORTING = "<frozen importlib"


def hide_own_frames(error: BaseException) -> None:
    """Remove the frames of jaxgd and of Python's import machinery from an error's traceback.

    The tracebacks of the error's causes, contexts and sub-exceptions lose these frames too.
    """
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        queue += [current.__cause__, current.__context__, *getattr(current, "exceptions", ())]
        current.__traceback__ = _without_own(current.__traceback__)


def _without_own(link: types.TracebackType | None) -> types.TracebackType | None:
    kept = []
    while link is not None:
        if not link.tb_frame.f_code.co_filename.startswith((_HOME, _IMPORTING)):
            kept.append(link)
        link = link.tb_next
    out = None
    for link in reversed(kept):
        out = types.TracebackType(out, link.tb_frame, link.tb_lasti, link.tb_lineno)
    return out
