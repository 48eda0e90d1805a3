"""Stores for the tests of the command line: they hold the sample, line by line."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from aquipu import Always, Store
from tests.cli.support import LINES, SAMPLE, well
from tests.support import segments_in


@pytest.fixture(scope="module")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "store"
    well("append", "--raw", path, input=SAMPLE)
    return path


@pytest.fixture
def store(made_store: Path, tmp_path: Path) -> Path:
    """A store that holds the sample."""
    return Path(shutil.copytree(made_store, tmp_path / "store"))


@pytest.fixture(scope="module")
def made_segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "store"

    async def fill() -> None:
        async with Store.open(path, sync_policy=Always(), max_segment_bytes=4096) as store:
            for line in LINES:
                await store.append(line)

    asyncio.run(fill())
    assert len(segments_in(path)) > 2
    return path


@pytest.fixture
def segments(made_segments: Path, tmp_path: Path) -> Path:
    """A store that holds the sample in several segments."""
    return Path(shutil.copytree(made_segments, tmp_path / "store"))


@pytest.fixture(scope="module")
def made_labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "store"

    async def fill() -> None:
        async with Store.open(path, sync_policy=Always(), max_segment_bytes=4096) as store:
            for number, line in enumerate(LINES):
                await store.append(
                    line, relations=(f"third:{number % 3}", *(["tens"] if number % 10 == 0 else []))
                )

    asyncio.run(fill())
    return path


@pytest.fixture
def labelled(made_labelled: Path, tmp_path: Path) -> Path:
    """A store that holds the sample in several segments, with labels: third:0 to third:2, and tens
    on 0, 10, 20, 30.
    """
    return Path(shutil.copytree(made_labelled, tmp_path / "store"))
