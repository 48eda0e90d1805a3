"""The directory of a running store, or its lock, is no longer what it was: all of it, in CI too."""

from __future__ import annotations

import pytest

from tests.faults import places

pytestmark = pytest.mark.proof


@pytest.mark.timeout(900)
def test_a_directory_that_is_not_where_it_was() -> None:
    """Nothing is acknowledged that is nowhere, nothing comes to be elsewhere, and nobody is let in
    beside the writer.
    """
    tally = places.run()
    assert tally.violations == []
    every = len(places.POLICIES) * places.MOMENTS
    assert tally.counts == {f"directories {what}": every for what in places.ENDS | places.PASSES}
