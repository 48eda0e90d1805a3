"""What holds for the tests of connections, here and in `tests.daemon`."""

from __future__ import annotations

import gc
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def nothing_forgotten(caplog: pytest.LogCaptureFixture) -> Any:
    """asyncio logs what was not retrieved, and what a callback raised: no test leaves any."""
    yield
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
