"""What many tests of the files of a log begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disk import FailingDisk


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty directory for a store."""
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    """A disk whose files are closed behind the test."""
    made = FailingDisk()
    yield made
    made.end_process()
