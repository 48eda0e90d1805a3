"""The runs beside a writer at full speed, a few of each kind: part of the proof."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.archive.runs import INTERVAL, MIB, killed, lost, reads, restores

pytestmark = pytest.mark.proof


@pytest.mark.timeout(300)
def test_killed_while_it_carries(tmp_path: Path) -> None:
    """However often it was killed, everything is archived in the end, byte for byte."""
    assert killed(tmp_path, 3, MIB, seed=1)["killed"] == 3


@pytest.mark.timeout(300)
def test_a_machine_that_is_lost(tmp_path: Path) -> None:
    """The restore has everything but the last moments, dense and the same."""
    assert lost(tmp_path, 1, MIB, seed=1, seconds=(1, 2))["most seconds lost"] < INTERVAL + 5


def test_a_restore_that_is_killed(tmp_path: Path) -> None:
    """It goes on, and ends with the same bytes."""
    assert restores(tmp_path, 20_000, 2, seed=1)["records"] == 20_000


def test_a_label_is_found_with_few_requests(tmp_path: Path) -> None:
    """No more than twenty, in an archive that is not restored."""
    found = reads(tmp_path, 100_000)
    assert found["for the second label"] <= found["for the first label"] <= 20
