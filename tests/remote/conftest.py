"""What holds for the tests of connections, here and in `tests.remote.daemon` and `tests.face`."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.remote.daemon.served import Served, served


@pytest.fixture(autouse=True)
def nothing_forgotten(caplog: pytest.LogCaptureFixture) -> Any:
    """asyncio logs what was not retrieved, and what a callback raised: no test leaves any."""
    yield
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


@pytest_asyncio.fixture
async def it(tmp_path: Path) -> AsyncIterator[Served]:
    """The place of a store, and what serves it."""
    async with served(tmp_path) as it:
        yield it


@pytest_asyncio.fixture
async def store(it: Served) -> AsyncIterator[Any]:
    """A store that is connected there."""
    async with it.connect() as store:
        yield store
