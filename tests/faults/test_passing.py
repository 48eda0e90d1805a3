"""What passes: every call of a roll that is refused, and every write on a full disk, as CI does it:
a part of them.
"""

from __future__ import annotations

import pytest

from tests.faults import passing

pytestmark = pytest.mark.proof


@pytest.mark.timeout(900)
def test_trouble_that_passes() -> None:
    """The store goes on, and opens with all that was SYNCED whenever the power is cut after it."""
    tally = passing.run(seed=20261201, step=3)
    assert tally.violations == []
    for call in ("create", "rename", "sync_directory", "truncate", "write", "write_synced"):
        assert tally.counts[f"refused: {call}"] > 0
    assert tally.counts["power cuts"] > 500
    assert tally.counts["full disks"] == 1
    assert tally.counts["power cuts on a full disk"] > 500
