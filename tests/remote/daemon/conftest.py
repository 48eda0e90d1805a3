"""What holds for the tests of the daemon."""

from __future__ import annotations

from tests.remote.conftest import it, nothing_forgotten, store

__all__ = ["it", "nothing_forgotten", "store"]
