"""The store against a list in memory."""

from __future__ import annotations

import pytest

from tests.faults import model

pytestmark = pytest.mark.proof


@pytest.mark.timeout(900)
def test_any_sequence_of_events_leaves_what_the_list_says() -> None:
    """Appends, cancellations, batches, syncs, kills, failures, a full disk and rolls, in any
    order.
    """
    model.check(150)
