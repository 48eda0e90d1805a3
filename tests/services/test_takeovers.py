"""Workers that share a store take it over from each other, under load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services.takeovers import COMMANDS, run

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]


@pytest.mark.parametrize("server", COMMANDS)
def test_the_worker_that_writes_is_killed_or_replaced(tmp_path: Path, server: str) -> None:
    """Whoever was answered has one entry; no socket and no lock is left behind."""
    tally, _ = run(server, 3, 1, tmp_path, lambda done: None)
    assert tally.violations == []
    assert tally.counts["records found"] >= tally.counts["requests answered"] > 100
