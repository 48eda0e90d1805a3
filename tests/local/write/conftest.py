"""What the tests of a journal begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from aquipu.local.write.journal import Journal
from tests.disk import FailingDisk
from tests.local.logs import SEGMENT_BYTES
from tests.support import open_log


@pytest.fixture
def journal(disk: FailingDisk, store: Path) -> Journal:
    """The log of a new store; its segments are full after three records of THIRD."""
    journal, _ = open_log(store, disk, max_segment_bytes=SEGMENT_BYTES)
    disk.calls.clear()
    return journal
