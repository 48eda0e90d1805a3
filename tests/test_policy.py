"""policy.py: the stages, and what each policy lets a power cut take."""

from __future__ import annotations

import copy
import pickle
from math import inf, nan
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aquipu.policy import Always, EveryN, OsManaged, Stage, SyncPolicy

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
counts = st.integers(0, 300)
POLICIES: list[SyncPolicy] = [Always(), EveryN(), EveryN(1), EveryN(3, within=None), OsManaged()]
by_policy = pytest.mark.parametrize("policy", POLICIES, ids=repr)


def test_later_stages_are_greater() -> None:
    """The stages have an order, so that the strictest of several is their maximum."""
    assert [stage.name for stage in sorted(Stage)] == [
        "BUFFERED",
        "FLUSHED",
        "SYNCED",
        "REPLICATED",
        "ARCHIVED",
    ]
    assert max(Stage.FLUSHED, Stage.SYNCED) is Stage.SYNCED


@pytest.mark.parametrize(
    ("policy", "stage", "within"),
    [
        (Always(), Stage.SYNCED, None),
        (EveryN(), Stage.FLUSHED, 1.0),
        (EveryN(64), Stage.FLUSHED, 1.0),
        (EveryN(n=3, within=None), Stage.FLUSHED, None),
        (EveryN(3, 0.25), Stage.FLUSHED, 0.25),
        (EveryN(3, within=2), Stage.FLUSHED, 2),
        (OsManaged(), Stage.FLUSHED, None),
    ],
    ids=repr,
)
def test_what_an_append_waits_for(policy: SyncPolicy, stage: Stage, within: float | None) -> None:
    """Always waits for SYNCED, the others for FLUSHED; only EveryN bounds the age of a record, by
    default at a second.
    """
    assert policy.stage is stage
    assert policy.within == within


def test_every_n_without_a_number() -> None:
    """64 records is what a policy named without a number allows to gather."""
    assert EveryN() == EveryN(64, within=1.0)


@unhurried
@given(counts, counts)
def test_always_and_os_managed_owe_nothing_by_count(unsynced: int, arriving: int) -> None:
    """Under Always each record asks by itself, under OsManaged none does: their number decides
    nothing.
    """
    assert not Always().owes_sync(unsynced, arriving)
    assert not OsManaged().owes_sync(unsynced, arriving)


@unhurried
@given(st.integers(1, 100), st.lists(st.integers(0, 120), max_size=40))
def test_every_n_through_many_commits(n: int, commits: list[int]) -> None:
    """However the records are spread over commits, at most n - 1 are told and not synced; a sync
    comes only at the n-th.
    """
    unsynced = 0
    for arriving in commits:
        owed = EveryN(n).owes_sync(unsynced, arriving)
        assert owed == (unsynced + arriving >= n)
        unsynced = 0 if owed else unsynced + arriving
        assert unsynced <= n - 1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"n": 0}, ValueError, "at least 1 record, not 0"),
        ({"n": -64}, ValueError, "at least 1 record, not -64"),
        ({"n": 64.0}, TypeError, "not float"),
        ({"n": "64"}, TypeError, "not str"),
        ({"n": None}, TypeError, "not NoneType"),
        ({"n": True}, TypeError, "not bool"),
        ({"within": 0}, ValueError, "positive number of seconds, not 0"),
        ({"within": 0.0}, ValueError, "positive"),
        ({"within": -1.0}, ValueError, "positive"),
        ({"within": inf}, ValueError, "positive"),
        ({"within": nan}, ValueError, "positive"),
        ({"within": 10**400}, ValueError, "positive"),
        ({"within": "1"}, TypeError, "not str"),
        ({"within": True}, TypeError, "not bool"),
    ],
)
def test_every_n_of_something_that_cannot_be(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    """n is a whole number from 1 on, within a positive number of seconds or None; a bool is
    neither.
    """
    with pytest.raises(error, match=words):
        EveryN(**arguments)


def test_the_base_is_no_policy() -> None:
    """SyncPolicy itself decides nothing."""
    with pytest.raises(NotImplementedError):
        SyncPolicy().owes_sync(0, 1)


@by_policy
def test_a_policy_is_a_value(policy: SyncPolicy) -> None:
    """A policy is equal to its copy, hashes like it, survives pickling, and is unequal to each of
    the others.
    """
    for again in (copy.copy(policy), copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert again == policy
        assert hash(again) == hash(policy)
    assert POLICIES.count(policy) == 1


@pytest.mark.parametrize("field", ["n", "within"])
def test_a_policy_does_not_change(field: str) -> None:
    """A policy that a store was opened with cannot be changed under it."""
    with pytest.raises(AttributeError, match=f"cannot assign to field '{field}'"):
        setattr(EveryN(), field, 1)
