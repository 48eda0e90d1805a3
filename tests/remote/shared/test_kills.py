"""The process that writes for the others is killed again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.remote.daemon.restarts import repeat

pytestmark = [pytest.mark.proof, pytest.mark.timeout(300)]


def test_nothing_acknowledged_is_lost_or_stored_twice(tmp_path: Path) -> None:
    """Whichever of the processes is killed: each record is where its receipt says, once."""
    tally = repeat(tmp_path, 4, 2, shared=True)
    assert (tally.lost, tally.doubled, tally.disordered) == (0, 0, 0)
    assert (tally.kills, tally.clients_killed) == (4, 2)
    assert tally.acknowledged > 1000
