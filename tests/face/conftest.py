"""What holds for the statements about the face: each is run for all five."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from aquipu import Store
from tests.daemon.served import KIND, Served, served
from tests.face.faces import FACES
from tests.remote.conftest import nothing_forgotten

__all__ = ["nothing_forgotten"]


@pytest.fixture(autouse=True, params=list(FACES.values()), ids=list(FACES))
def face(request: pytest.FixtureRequest) -> Iterator[type[Served]]:
    """A store opened alone, shared as the one that writes, shared as another, connected to a
    daemon, and without a loop.
    """
    before = KIND.set(request.param)
    yield request.param
    KIND.reset(before)


@pytest_asyncio.fixture
async def it(face: type[Served], tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as it:
        yield it


@pytest_asyncio.fixture
async def store(it: Served) -> AsyncIterator[Store]:
    async with it.connect() as store:
        yield store
