import pytest

from jaxgd.gradcheck import lanes


@pytest.fixture(scope="package", autouse=True)
def _every_program_is_kept():
    """Keep every compiled program, so that tests that check the same function compile it once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "_MOST_PROGRAMS", 10_000)
        yield
