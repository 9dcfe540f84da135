"""How the tests of the checker run: programs are kept, and the corpus may be sampled."""

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


def pytest_collection_modifyitems(config, items):
    """Keep one in JAXGD_TEST_CORPUS of the slow tests of the corpus, by a hash of the name; all of them by default."""
    share = int(os.environ.get("JAXGD_TEST_CORPUS", "1"))
    left_out = {
        item
        for item in items
        if item.path.name == "test_known.py"
        and item.get_closest_marker("slow")
        and zlib.crc32(item.name.encode()) % share
    }
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))
