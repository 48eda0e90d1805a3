"""Keys and expected sequences across processes and SIGKILLs: a small run of `keys`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.remote.daemon.keys import kill, run_race


@pytest.mark.proof
def test_appends_that_are_sent_again_across_kills(tmp_path: Path) -> None:
    """Each key is stored exactly once, however often it is sent and its writer killed, and every
    receipt names its record. ``python -m tests.remote.daemon.keys kills`` does 100,000 across
    100 kills.
    """
    tally = kill(tmp_path, appends=6400, kills=8)
    assert (tally.missing, tally.doubled, tally.different) == (0, 0, 0)
    assert (tally.records, tally.kills) == (6400, 8)
    assert tally.sent > 1.4 * tally.appends


@pytest.mark.proof
def test_a_race_of_several_processes(tmp_path: Path) -> None:
    """Each sequence has exactly one winner, who knows it; the others are told a later one.

    ``python -m tests.remote.daemon.keys race`` does it for 20,000 sequences.
    """
    raced = run_race(tmp_path, rounds=500)
    assert raced.records == raced.winners >= 500
    assert raced.wrong == 0
    assert raced.losers > raced.winners
