"""Backups and copies beside a writer at full speed, a few of each kind: part of the proof."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backups.runs import MIB, SEGMENT_BYTES, backups, copies, killed, tools

pytestmark = pytest.mark.proof


@pytest.mark.parametrize("segment_bytes", SEGMENT_BYTES)
def test_backups(tmp_path: Path, segment_bytes: int) -> None:
    """Each opens, verifies, and is the log up to what was acknowledged when it began, at least."""
    counts = backups(tmp_path, 10, segment_bytes)
    begun_anew = counts.pop("begun anew", 0)
    assert (counts["whole"], counts["gone on with"] + begun_anew) == (5, 5)
    assert not begun_anew or segment_bytes > MIB


@pytest.mark.timeout(600)  # beside a busy writer a backup rests most of the time
def test_killed_backups(tmp_path: Path) -> None:
    """What a killed backup leaves opens, and the next one goes on."""
    assert killed(tmp_path, 3, SEGMENT_BYTES[0], seed=1)["killed"]


@pytest.mark.parametrize("segment_bytes", SEGMENT_BYTES)
@pytest.mark.parametrize("tool", tools())
def test_copies(tmp_path: Path, segment_bytes: int, tool: str) -> None:
    """Each copy by other means opens, or says that it is one and what of it is whole."""
    assert set(copies(tmp_path, 10, segment_bytes, tool)) <= {"opens", "says what"}
