"""What the tests of several rooms share: stores under audit, and their entries read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support import records_in


def entries_in(path: Path) -> list[dict[str, Any]]:
    """The entries of a store, read from its files by themselves."""
    return [json.loads(record.data) for record in records_in(path)]


def labels_in(path: Path) -> list[tuple[str, ...]]:
    """The labels of the entries."""
    return [record.relations for record in records_in(path)]
