"""options.py: what `Store.open` can be told, and what cannot be."""

from __future__ import annotations

from datetime import timedelta
from math import inf, nan
from typing import Any

import pytest

from aquipu.local.retain.retention import Retention
from aquipu.options import MIB, Options
from aquipu.policy import Always, EveryN, OsManaged, SyncPolicy

USUAL = Options(
    sync_policy=EveryN(64),
    max_segment_bytes=64 * MIB,
    max_record_bytes=16 * MIB,
    buffer_records=65_536,
    buffer_bytes=64 * MIB,
    lock_timeout=20.0,
)


def with_changes(changes: dict[str, Any]) -> Options:
    return USUAL._replace(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sync_policy": Always()},
        {"sync_policy": OsManaged()},
        {"max_segment_bytes": 4096},
        {"max_segment_bytes": 2**50},
        {"max_record_bytes": 1},
        {"max_record_bytes": 64 * MIB},
        {"buffer_records": 1},
        {"buffer_bytes": 1, "max_record_bytes": 1},
        {"buffer_bytes": 1024 * MIB},
        {"lock_timeout": 0},
        {"lock_timeout": 0.5},
        {"lock_timeout": inf},
        {"retention": None},
        {"retention": Retention(max_bytes=1)},
        {"max_segment_age": 1e-9},
        {"max_segment_age": timedelta(days=1)},
    ],
    ids=str,
)
def test_options_up_to_their_bounds(changes: dict[str, Any]) -> None:
    """What can be is given back as it is."""
    options = with_changes(changes)
    assert options.checked() is options


@pytest.mark.parametrize(
    "name", ["max_segment_bytes", "max_record_bytes", "buffer_records", "buffer_bytes"]
)
@pytest.mark.parametrize("value", [1e6, "1000000", None, True, b"1", [1]], ids=repr)
def test_a_size_that_is_no_whole_number(name: str, value: object) -> None:
    """A size or count is an int and nothing like it; the TypeError names option and type."""
    with pytest.raises(TypeError, match=f"{name} is a whole number, not {type(value).__name__}"):
        with_changes({name: value}).checked()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_segment_bytes": 4095}, "max_segment_bytes is at least 4096, not 4095"),
        ({"max_segment_bytes": 0}, "max_segment_bytes is at least 4096, not 0"),
        ({"max_record_bytes": 0}, "max_record_bytes is at least 1, not 0"),
        ({"buffer_records": 0}, "buffer_records is at least 1, not 0"),
        ({"buffer_records": -1}, "buffer_records is at least 1, not -1"),
        ({"buffer_bytes": 0}, "buffer_bytes is at least 1, not 0"),
        ({"buffer_bytes": 1024 * MIB + 1}, "buffer_bytes is at most 1073741824, not 1073741825"),
        ({"max_record_bytes": 64 * MIB + 1}, "max_record_bytes is at most buffer_bytes"),
        ({"lock_timeout": -0.001}, "lock_timeout is 0 or more seconds"),
        ({"lock_timeout": nan}, "lock_timeout is 0 or more seconds"),
        ({"lock_timeout": -inf}, "lock_timeout is 0 or more seconds"),
    ],
    ids=str,
)
def test_a_number_out_of_its_bounds(changes: dict[str, Any], words: str) -> None:
    """A number that cannot be is a ValueError that names the option and its bound."""
    with pytest.raises(ValueError, match=words):
        with_changes(changes).checked()


@pytest.mark.parametrize(
    "policy",
    [Always, EveryN, "always", 64, None, SyncPolicy(), SyncPolicy],
    ids=lambda policy: getattr(policy, "__name__", type(policy).__name__),
)
def test_a_policy_that_is_none(policy: object) -> None:
    """sync_policy is an instance of one of the three policies: not its class, not its name, not
    their base.
    """
    with pytest.raises(TypeError, match=r"sync_policy is Always\(\), EveryN\(\) or OsManaged\(\)"):
        with_changes({"sync_policy": policy}).checked()


@pytest.mark.parametrize("timeout", ["20", None, True, 1j], ids=repr)
def test_a_lock_timeout_that_is_no_number(timeout: object) -> None:
    """lock_timeout is a number of seconds."""
    with pytest.raises(
        TypeError, match=f"lock_timeout is in seconds, not {type(timeout).__name__}"
    ):
        with_changes({"lock_timeout": timeout}).checked()


@pytest.mark.parametrize("retention", [0, 3600.0, "1 day", Retention, {"max_bytes": 1}], ids=repr)
def test_a_retention_that_is_none(retention: object) -> None:
    """retention is a Retention, and not what could be made into one."""
    with pytest.raises(
        TypeError, match=f"retention is a Retention or None, not {type(retention).__name__}"
    ):
        with_changes({"retention": retention}).checked()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, ValueError),
        (-1, ValueError),
        (nan, ValueError),
        (inf, ValueError),
        (timedelta(0), ValueError),
        ("60", TypeError),
        (True, TypeError),
    ],
    ids=repr,
)
def test_an_age_that_no_segment_reaches(value: object, kind: type[Exception]) -> None:
    """The age of a segment is a positive time, in seconds or as a timedelta; the error names the
    option.
    """
    with pytest.raises(kind, match="max_segment_age"):
        with_changes({"max_segment_age": value}).checked()
