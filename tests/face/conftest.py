"""What holds for the statements about the face: each is run for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.face.faces import FACES, PAGE_RECORDS, params_of
from tests.remote.conftest import it, nothing_forgotten, store
from tests.remote.daemon.served import KIND, Served

__all__ = ["it", "nothing_forgotten", "store"]


@pytest.fixture(autouse=True, params=params_of(FACES))
def face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Served]]:
    """A store opened alone, shared as the one that writes, shared as another, connected to a
    daemon, without a loop, and in a database, without a standby and with one.
    """
    monkeypatch.setattr("aquipu.remote.daemon.answers.PAGE_RECORDS", PAGE_RECORDS)
    monkeypatch.setattr("aquipu.postgres.read.rows._PAGE_RECORDS", PAGE_RECORDS)
    before = KIND.set(request.param)
    yield request.param
    KIND.reset(before)
