"""keys: what becomes of a key, and what is kept of its producer."""

from __future__ import annotations

import pytest

from aquipu.commit.keys import Decision, Do, Keys
from aquipu.record import PRODUCERS, Known, Located, key_of

WRITER, OTHER = b"w" * 16, b"o" * 16
NOTHING = Known(-1, None)


def at(sequence: int) -> Located:
    return Located(sequence, 1, 1000 + sequence)


def knowing(last: int = -1, **bounds: int) -> Keys[str]:
    """Keys that have searched the log for the producer."""
    keys: Keys[str] = Keys(**bounds)
    keys.seek(WRITER)
    keys.learnt(WRITER, last + 1, Known(last, None))
    return keys


def test_a_producer_that_is_not_known() -> None:
    """The log is searched for it, once: then each higher number is new."""
    keys: Keys[str] = Keys()
    assert keys.decide(WRITER, 7).do is Do.SEARCH
    keys.seek(WRITER)
    assert keys.decide(WRITER, 7).do is Do.SEARCH
    assert not keys.learnt(WRITER, 7, NOTHING)
    assert keys.decide(WRITER, 7).do is Do.ACCEPT
    assert keys.decide(OTHER, 7).do is Do.SEARCH


def test_a_number_that_the_search_has_found() -> None:
    """Its receipts are given again, also when later numbers have come."""
    keys: Keys[str] = Keys()
    keys.seek(WRITER)
    assert not keys.learnt(WRITER, 3, Known(9, at(40)))
    assert keys.decide(WRITER, 3) == Decision(Do.REPEAT, located=at(40))
    assert keys.decide(WRITER, 4).do is Do.SEARCH
    assert keys.decide(WRITER, 10).do is Do.ACCEPT


def test_a_number_that_the_search_has_not_found() -> None:
    """It is stale if it is not above the last one in the log."""
    keys: Keys[str] = Keys()
    for number, is_stale in ((8, True), (9, True), (10, False)):
        keys.seek(WRITER)
        assert keys.learnt(WRITER, number, Known(9, None)) is is_stale


def test_a_search_that_has_failed() -> None:
    """Nothing is known after it: the next append searches again."""
    keys: Keys[str] = Keys()
    keys.seek(WRITER)
    assert not keys.learnt(WRITER, 3, None)
    assert keys.decide(WRITER, 3).do is Do.SEARCH


def test_a_number_under_way() -> None:
    """It is shared; a higher one is accepted behind it, and a lower one waits for the highest."""
    keys = knowing()
    keys.begin(WRITER, 5, "five")
    assert keys.decide(WRITER, 5) == Decision(Do.SHARE, "five")
    keys.begin(WRITER, 8, "eight")
    assert keys.decide(WRITER, 5) == Decision(Do.SHARE, "five")
    assert keys.decide(WRITER, 7) == Decision(Do.WAIT, "eight")
    assert keys.decide(WRITER, 9).do is Do.ACCEPT


def test_a_number_that_is_stored() -> None:
    """It is given again, and lower ones are sought in the log."""
    keys = knowing()
    keys.begin(WRITER, 5, "five")
    keys.complete(WRITER, 5, at(2))
    keys.complete(WRITER, 5, at(2))
    assert keys.decide(WRITER, 5) == Decision(Do.REPEAT, located=at(2))
    assert keys.decide(WRITER, 4).do is Do.SEARCH
    assert keys.decide(WRITER, 6).do is Do.ACCEPT


def test_a_number_that_is_dropped() -> None:
    """It may come again, and so may those below it; to drop it twice changes nothing."""
    keys = knowing()
    keys.begin(WRITER, 5, "first")
    keys.drop(WRITER, 5, "first")
    assert keys.decide(WRITER, 4).do is Do.ACCEPT
    keys.begin(WRITER, 5, "second")
    keys.drop(WRITER, 5, "first")
    assert keys.decide(WRITER, 5) == Decision(Do.SHARE, "second")


def test_a_search_is_behind_what_was_stored_meanwhile() -> None:
    """The last number never goes back."""
    keys = knowing(4)
    keys.seek(WRITER)
    keys.begin(WRITER, 5, "five")
    keys.complete(WRITER, 5, at(2))
    assert keys.learnt(WRITER, 3, Known(4, None))
    assert keys.last(WRITER) == 5
    assert keys.decide(WRITER, 6).do is Do.ACCEPT


def test_bounds() -> None:
    """Only so many producers and places are kept: the others are searched for again."""
    keys = knowing(producers_max=2, located_max=3)
    for number in range(5):
        keys.begin(WRITER, number, "")
        keys.complete(WRITER, number, at(number))
    assert [keys.decide(WRITER, number).do for number in range(5)] == [
        *[Do.SEARCH] * 2,
        *[Do.REPEAT] * 3,
    ]
    for n in range(2):
        keys.seek(b"%016d" % n)
        keys.learnt(b"%016d" % n, 0, NOTHING)
    assert keys.decide(WRITER, 9).do is Do.SEARCH


@pytest.mark.parametrize("reason", ["under way", "sought"])
def test_a_producer_that_must_be_kept(reason: str) -> None:
    """One with a number under way, or that is searched for, is kept beyond the bounds: what a
    search finds is never behind what was stored meanwhile.
    """
    keys = knowing(producers_max=1)
    if reason == "under way":
        keys.begin(WRITER, 5, "five")
    else:
        keys.seek(WRITER)
    for n in range(9):
        keys.seek(b"%016d" % n)
        keys.learnt(b"%016d" % n, 0, NOTHING)
    assert keys.decide(WRITER, 9).do is Do.ACCEPT


# keys as they are given


def test_a_key_as_it_is_stored() -> None:
    """The writer depends on the producer alone, and is the same in every process and version; the
    number has the bit that a daemon's clients never reach.
    """
    assert key_of(("orders-api", 4711)) == (
        bytes.fromhex("f05d15f1c8f55f2f1860977b5cbb7a48"),
        PRODUCERS | 4711,
    )
    assert key_of(("a" * 64, 0))[0] != key_of(("a" * 63, 0))[0]
    assert key_of(("\ud800", 2**63 - 1))[1] == 2**64 - 1


@pytest.mark.parametrize(
    ("key", "error", "said"),
    [
        (("", 1), ValueError, "1 to 64 characters, not 0"),
        (("a" * 65, 1), ValueError, "1 to 64 characters, not 65"),
        (("p", -1), ValueError, "not -1"),
        (("p", 2**63), ValueError, "less than 2.63"),
        (("p", True), TypeError, "not bool"),
        (("p", "1"), TypeError, "not str"),
        ((b"p", 1), TypeError, "not bytes"),
        (("p",), TypeError, "a pair"),
        (("p", 1, 2), TypeError, "a pair"),
        (["p", 1], TypeError, "a pair"),
        ("p1", TypeError, "a pair"),
    ],
)
def test_what_is_no_key(key: object, error: type[Exception], said: str) -> None:
    """One clear error each."""
    with pytest.raises(error, match=said):
        key_of(key)
