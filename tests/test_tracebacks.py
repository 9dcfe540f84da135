"""`hide_own_frames` removes jaxgd's frames from tracebacks."""

import traceback
from pathlib import Path

import pytest

from jaxgd import tracebacks
from jaxgd.errors import RangeError, require_count
from jaxgd.tracebacks import hide_own_frames


def functions(error):
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def of_jaxgd(error):
    home = str(Path(tracebacks.__file__).parent)
    return [frame.name for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(home)]


def caught(f):
    with pytest.raises(Exception) as info:  # noqa: PT011
        f()
    return info.value


def refused():
    require_count("train", "epochs", 0)


def led_to_another():
    try:
        refused()
    except RangeError as error:
        raise LookupError from error


def during_another():
    try:
        refused()
    finally:
        raise LookupError


def in_a_group():
    try:
        refused()
    except RangeError as error:
        raise ExceptionGroup("several", [error]) from None


def test_only_the_users_frames_stay():
    error = caught(refused)
    assert "require_count" in of_jaxgd(error)
    hide_own_frames(error)
    assert of_jaxgd(error) == []
    assert functions(error)[:2] == ["caught", "refused"]


@pytest.mark.parametrize("f", [led_to_another, during_another, in_a_group])
def test_frames_in_chained_and_grouped_exceptions_are_hidden(f):
    error = caught(f)
    inner = error.exceptions[0] if f is in_a_group else error.__context__
    assert "require_count" in of_jaxgd(inner)
    hide_own_frames(error)
    assert of_jaxgd(inner) == []
    assert functions(error) == ["caught", f.__name__]
    assert functions(inner)[:2] == [f.__name__, "refused"]


def test_frames_are_hidden_in_a_cycle_of_errors():
    first, second = caught(refused), caught(refused)
    first.__context__, second.__cause__ = second, first
    hide_own_frames(first)
    assert of_jaxgd(second) == []
