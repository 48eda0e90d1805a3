"""What holds for the tests of shared stores."""

from __future__ import annotations

from tests.remote.conftest import nothing_forgotten

__all__ = ["nothing_forgotten"]
