"""What holds for the tests of the daemon."""

from __future__ import annotations

from tests.remote.conftest import nothing_forgotten

__all__ = ["nothing_forgotten"]
