"""What the tests of logs in a database share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgres.server import Server, log_name, shared
from tests.remote.conftest import nothing_forgotten

__all__ = ["nothing_forgotten"]


@pytest.fixture
def server() -> Server:
    """The server of this run."""
    return shared()


@pytest.fixture
def address(server: Server, tmp_path: Path) -> str:
    """The address of a log that is not there yet."""
    return server.log(log_name(tmp_path))
