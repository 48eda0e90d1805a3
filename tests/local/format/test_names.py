"""The names of the files in a store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu.local.format.names import (
    BOOKMARK_NAME,
    BookmarkKind,
    bookmark_in_the_making,
    bookmark_name,
    bookmark_of,
    cut_name,
    first_sequence_of,
    is_bookmark_in_the_making,
    is_ours,
    is_unnamed,
    segment_name,
    whole_cut_name,
)
from tests.local.format.structures import u64s, unhurried


@pytest.mark.parametrize(
    ("sequence", "name"),
    [
        (0, "00000000000000000000.segment"),
        (262144, "00000000000000262144.segment"),
        (2**64 - 1, "18446744073709551615.segment"),
    ],
)
def test_the_name_of_a_segment(sequence: int, name: str) -> None:
    """A segment is named by its first sequence in twenty digits."""
    assert segment_name(sequence) == name
    assert first_sequence_of(name) == sequence


@unhurried
@given(st.lists(u64s, max_size=20))
def test_a_listing_is_the_log_in_order(sequences: list[int]) -> None:
    """Sorted by name, segments stand in the order of their sequences."""
    assert [first_sequence_of(name) for name in sorted(map(segment_name, sequences))] == sorted(
        sequences
    )


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".segment",
        "0.segment",
        "0000000000000000007.segment",
        "000000000000000000007.segment",
        "00000000000000000007",
        "00000000000000000007.Segment",
        "00000000000000000007.segment.bak",
        "00000000000000000007.segment\n",
        " 0000000000000000007.segment",
        "+0000000000000000007.segment",
        "-0000000000000000007.segment",
        "0x000000000000000007.segment",
        "0000000000000000000_7.segment",
        "a/00000000000000000007.segment",
        pytest.param("\u0660" * 20 + ".segment", id="digits of another script"),
        pytest.param("18446744073709551616.segment", id="more than a sequence can be"),
    ],
)
def test_a_name_of_something_else(name: str) -> None:
    """Only a name that `segment_name` gives is that of a segment, so no other file is ever taken
    for one.
    """
    assert first_sequence_of(name) is None
    assert not is_ours(name)


@pytest.mark.parametrize(
    "name",
    [
        "lock",
        "manifest",
        "00000000000000262144.segment",
        "00000000000000262144.cut-4711",
        "manifest.unnamed",
        "00000000000000262144.segment.unnamed",
        "00000000000000262144.cut-4711.unnamed",
        *("manifest.cut-0", "manifest.cut-0-2", "nightly.hold.cut-0", "billing.cursor.cut-0-2"),
    ],
)
def test_a_file_of_ours(name: str) -> None:
    """A store holds its lock, its manifest, segments, cut-off tails, and those being made."""
    assert is_ours(name)


@pytest.mark.parametrize(
    "name",
    [
        *("notes.txt", "LOCK", "lock.1", "manifest~", "Manifest", "data.db", ".git", "lost+found"),
        *(
            "00000000000000262144.cut",
            "00000000000000262144.cut-",
            "00000000000000262144.cut-x",
            "262144.cut-4711",
        ),
        *("manifest.cut", "lock.cut-0", "nightly.cut-0", "manifest.bak.cut-0"),
        *(
            "00000000000000262144.cut-4711.bak",
            "00000000000000262144.cut-4711\n",
            "00000000000000262144.cut-\u0664",
        ),
        *("notes.unnamed", ".unnamed", "manifest.unnamed.txt", "262144.segment.unnamed"),
    ],
)
def test_a_file_of_somebody_else(name: str) -> None:
    """Any other name is not ours: a directory that holds one is no place for a new store, and
    opening removes none.
    """
    assert not is_ours(name)


def test_a_file_that_was_being_made() -> None:
    """Opening may remove what was being made and never got its name: nothing that is finished, and
    nothing of others.
    """
    being_made = [
        "manifest.unnamed",
        "00000000000000262144.segment.unnamed",
        "00000000000000262144.cut-4711.unnamed",
    ]
    assert all(map(is_unnamed, being_made))
    finished = ["lock", "manifest", "00000000000000262144.segment", "00000000000000262144.cut-4711"]
    assert not any(map(is_unnamed, [*finished, "notes.unnamed", ".unnamed", "unnamed"]))


def test_the_name_of_a_tail_that_was_cut_off() -> None:
    """A tail is named by its segment and by the offset where it was cut."""
    assert cut_name(262144, 4711) == "00000000000000262144.cut-4711"
    assert cut_name(262144, 4711, 2) == "00000000000000262144.cut-4711-2"
    assert whole_cut_name("manifest") == "manifest.cut-0"
    assert whole_cut_name("nightly.hold", 2) == "nightly.hold.cut-0-2"
    assert first_sequence_of(cut_name(262144, 4711)) is None


@pytest.mark.parametrize(
    ("file_name", "kind", "name"),
    [
        ("nightly-backup.hold", BookmarkKind.HOLD, "nightly-backup"),
        ("billing.cursor", BookmarkKind.CURSOR, "billing"),
        ("a.hold.cursor", BookmarkKind.CURSOR, "a.hold"),
        ("00000000000000262144.segment.hold", BookmarkKind.HOLD, "00000000000000262144.segment"),
        ("manifest.unnamed.hold", BookmarkKind.HOLD, "manifest.unnamed"),
        ("_.cursor", BookmarkKind.CURSOR, "_"),
        ("x" * 100 + ".hold", BookmarkKind.HOLD, "x" * 100),
    ],
)
def test_the_name_of_a_bookmark(file_name: str, kind: BookmarkKind, name: str) -> None:
    """A bookmark's file is named by what its user calls it and its kind, and is ours, also while it
    is being made.
    """
    assert bookmark_name(kind, name) == file_name
    assert bookmark_of(file_name) == (kind, name)
    assert is_ours(file_name)
    assert is_ours(bookmark_in_the_making(file_name, 4711, 1))
    assert not is_unnamed(file_name)
    assert first_sequence_of(file_name) is None


@unhurried
@given(st.sampled_from(BookmarkKind), st.from_regex(BOOKMARK_NAME, fullmatch=True))
def test_any_bookmark_by_its_file_name(kind: BookmarkKind, name: str) -> None:
    """From each kind and name comes a file name of its own, from which both come back."""
    assert bookmark_of(bookmark_name(kind, name)) == (kind, name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "hold",
            ".hold",
            "a.Hold",
            "a.hold~",
            "a.holds",
            "a.hold\n",
            "a\n.hold",
            "a b.hold",
            "a/b.hold",
            "-a.hold",
        ),
        *(
            "..hold",
            "a.bookmark",
            "\u00e4.hold",
            "a.hold.txt",
            "hold.unnamed",
            ".hold.unnamed",
            "a.hold.bak.unnamed",
        ),
        pytest.param("x" * 101 + ".hold", id="101 characters"),
    ],
)
def test_what_is_no_name_of_a_bookmark(name: str) -> None:
    """Any other name is that of something else, and nobody's of ours."""
    assert bookmark_of(name) is None
    assert not is_ours(name)
    assert not is_unnamed(name)


def test_a_bookmark_that_was_being_made() -> None:
    """Its file is told apart from those that only the writer makes: somebody else may be at it just
    now.
    """
    made = [
        bookmark_in_the_making("billing.cursor", 4711, 1),
        "backup.hold.4711-12.unnamed",
        "a.hold.cursor.1-1.unnamed",
    ]
    assert made[0] == "billing.cursor.4711-1.unnamed"
    assert all(map(is_bookmark_in_the_making, made))
    assert not any(map(is_unnamed, made))
    others = [
        "billing.cursor",
        "billing.cursor.unnamed",
        "billing.cursor.4711.unnamed",
        "b.4711-1.unnamed",
    ]
    assert not any(map(is_bookmark_in_the_making, others))
