"""A service dies under load; and the judge of its store sees what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aquipu import Record
from tests.services.kills import judge, run

pytestmark = pytest.mark.proof

KILLS = 2


def test_every_request_that_was_answered_has_its_record(tmp_path: Path) -> None:
    """256 connections, each POST audited under Always before its response, SIGKILL at a random
    moment.
    """
    ticks: list[int] = []
    tally = run(KILLS, 7, tmp_path, ticks.append)
    assert tally.violations == []
    assert sum(ticks) == tally.counts["services killed"] == KILLS
    assert tally.counts["records found"] >= tally.counts["requests answered"] >= KILLS


def signature(number: int, **changed: object) -> Record:
    """The record of a signature, as the service writes it."""
    entry = {"path": f"/documents/{number}/signatures", "status": 201, **changed}
    return Record(number, 0, json.dumps(entry).encode(), (f"document:{number}",))


def test_the_judge_of_a_store() -> None:
    """More may be there than was answered; less may not, and nothing twice."""
    assert list(judge({1, 2}, [signature(1), signature(2), signature(3)])) == []
    assert list(judge({1, 2}, [signature(2)])) == [
        "the signature of document 1 was answered and has no record"
    ]
    assert list(judge(set(), [signature(2)] * 2)) == [
        "the signature of document 2 was stored 2 times"
    ]
    with pytest.raises(AssertionError):
        list(judge({1}, [signature(1, status=422)]))
