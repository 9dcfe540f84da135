"""Settings of the checker's tests: keep all compiled programs, and sample the corpus on request."""

import os
import zlib

import pytest

from jaxgd.gradcheck import run


@pytest.fixture(scope="package", autouse=True)
def _every_program_is_kept():
    """Keep every compiled program, so that tests that check the same function compile it once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_MOST_PROGRAMS", 10_000)
        yield


def is_sampled(item):
    """Return True for a slow test of the corpus or of the spoiled gradients."""
    slow, file = item.get_closest_marker("slow"), item.path.name
    return slow and (file == "test_known.py" or (file == "test_network.py" and "test_a_spoiled" in item.name))


def pytest_collection_modifyitems(config, items):
    """Keep part k of n of the sampled tests if JAXGD_TEST_CORPUS is "k/n". Count k from 0.

    A hash of the case's name, or of the fault's name, assigns each test to a part.
    """
    part, parts = map(int, os.environ.get("JAXGD_TEST_CORPUS", "0/1").split("/"))
    left_out = set()
    for item in filter(is_sampled, items):
        function = next(item.callspec.params[key] for key in ("case", "name") if key in item.callspec.params)
        if zlib.crc32(getattr(function, "name", function).encode()) % parts != part:
            left_out.add(item)
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))
