"""Power cuts: what CI judges of them; ``python -m tests.faults`` does it at any size."""

from __future__ import annotations

import pytest

from aquipu import EveryN, SyncPolicy
from tests.faults import crashes

pytestmark = pytest.mark.proof

STATES = 12_000
SELDOM = {
    "power cuts while a purge was under way": 100,
    "power cuts while a cursor was being saved": 100,
    "power cuts that left tables": 100,
    "power cuts that left compressed segments": 20,
}
"""Of these there must be more than so many: how many come of 12,000 is another number each time."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", crashes.POLICIES, ids=lambda policy: type(policy).__name__)
def test_power_cuts_at_every_moment_of_a_store(policy: SyncPolicy) -> None:
    """No more is lost than the policy says, nothing reads back other than it was written, and every
    state can be opened.
    """
    tally, lost = crashes.run(policy, STATES, 20261122, lambda done: None, seldom=SELDOM)
    assert tally.violations == []
    assert tally.counts[f"states, {type(policy).__name__}"] >= STATES
    for name, least in SELDOM.items():
        assert tally.counts[name] > least, name
    bound = crashes.loss_bound(policy)
    assert bound is None or max(lost) <= bound
    if isinstance(policy, EveryN):
        assert max(lost) == policy.n - 1, "the bound of EveryN is really reached"
