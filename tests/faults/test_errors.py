"""Errors of the disk: what CI injects of them; ``python -m tests.faults`` does it at any size."""

from __future__ import annotations

import pytest

from tests.faults import errors

pytestmark = pytest.mark.proof

ERRORS = 1_000


@pytest.mark.timeout(900)
def test_every_call_to_the_disk_fails_in_some_way() -> None:
    """Every future ends, nothing acknowledged is lost beyond the policy, and a failed sync is never
    tried again.
    """
    tally = errors.run(ERRORS, seed=20261122, tick=lambda done: None)
    assert tally.violations == []
    assert tally.counts["injected errors"] >= ERRORS
    changing = (
        "create",
        "write",
        "write_synced",
        "sync",
        "truncate",
        "rename",
        "remove",
        "sync_directory",
    )
    for call in (*changing, "read", "open", "try_hold"):
        assert tally.counts[f"injected into {call}"] > 0
    assert tally.counts["injected beside the log"] > 0


def test_system_calls_that_write_less_than_they_were_given() -> None:
    """A short write is continued until everything is written."""
    tally = errors.short_writes()
    assert tally.violations == []
    assert tally.counts["short writes"] > 20
