"""Power cuts: what CI judges of them; ``python -m tests.faults`` does it at any size."""

from __future__ import annotations

import pytest

from aquipu import EveryN, SyncPolicy
from tests.faults import crashes

pytestmark = pytest.mark.proof

STATES = 12_000


@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", crashes.POLICIES, ids=lambda policy: type(policy).__name__)
def test_power_cuts_at_every_moment_of_a_store(policy: SyncPolicy) -> None:
    """No more is lost than the policy says, nothing reads back other than it was written, and every
    state can be opened.
    """
    tally, lost = crashes.run(policy, STATES, seed=20261122, tick=lambda done: None)
    assert tally.violations == []
    assert tally.counts[f"states, {type(policy).__name__}"] >= STATES
    assert tally.counts["power cuts while a purge was under way"] > 100
    assert tally.counts["power cuts while a cursor was being saved"] > 100
    assert tally.counts["power cuts that left tables"] > 100
    assert tally.counts["power cuts that left compressed segments"] > 20
    bound = crashes.loss_bound(policy)
    assert bound is None or max(lost) <= bound
    if isinstance(policy, EveryN):
        assert max(lost) == policy.n - 1, "the bound of EveryN is really reached"
