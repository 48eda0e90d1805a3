"""recovery: damage that opening refuses, and what it says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aquipu.errors import CorruptionError, UnsupportedFormatError
from aquipu.local.format.frame import HEADER_BYTES
from aquipu.local.format.manifest import MANIFEST_BYTES
from aquipu.local.format.names import MANIFEST
from aquipu.local.format.segment import FOOTER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader
from aquipu.local.format.structure import VERSION, extend
from aquipu.local.read.segment_reader import READ_BYTES
from tests.local.logs import (
    OTHER_ID,
    corruption,
    end_of,
    frame,
    live,
    put,
    refusal,
    reopen,
    rolled,
    successor,
)
from tests.support import (
    MIB,
    NOW,
    STORE_ID,
    commit,
    copy_of,
    data_in,
    flip,
    frames_in,
    header_in,
    open_log,
    segment_in,
    write,
)

# damage that a later frame proves


def test_a_bit_at_every_byte_of_a_synced_commit(store: Path) -> None:
    """Opening refuses: it names file, offset and reason, and changes nothing."""
    journal, _ = open_log(store)
    write(journal, b"a")
    journal.write(journal.prepare(commit(b"b", b"c" * 20, labels={1: ("user:7",)})))
    write(journal, b"d", sync=False)
    journal.close()
    offset, header, _ = frames_in(store)[1]
    for place in range(offset, offset + header.size):
        flip(segment_in(store), place, place % 8)
        error = corruption(store)
        assert (error.path, error.offset) == (str(segment_in(store)), offset), (
            f"byte {place - offset} of the frame"
        )
        assert "sequence 1 had been synced" in error.reason
        flip(segment_in(store), place, place % 8)
    assert reopen(store).clean


def test_a_bit_at_every_byte_of_the_last_commit_of_a_closed_store(store: Path) -> None:
    """The mark of the close proves the last commit too."""
    live(store, b"a", b"b")
    offset, header, _ = frames_in(store)[1]
    for place in range(offset, offset + header.size):
        flip(segment_in(store), place, place % 8)
        assert corruption(store).offset == offset
        flip(segment_in(store), place, place % 8)


def test_a_bit_at_every_byte_of_the_mark(tmp_path: Path, store: Path) -> None:
    """The mark itself proves nothing but what stands before it: without it no record is lost."""
    live(store, b"a", b"b")
    offset, header, _ = frames_in(store)[-1]
    for place in range(offset, offset + header.size):
        damaged = copy_of(store, f"bit-{place}")
        flip(segment_in(damaged), place, place % 8)
        report = reopen(damaged)
        assert (report.clean, report.next_sequence, report.cut_offset) == (False, 2, offset)
        assert data_in(damaged) == [b"a", b"b"]


def test_a_damaged_commit_before_a_torn_tail(store: Path) -> None:
    """Damage is damage, also when the store was not closed: a commit that was synced later on
    proves it.
    """
    live(store, b"a", b"b", b"c", close=False)
    put(store, b"torn")
    offset = frames_in(store)[0][0]
    flip(segment_in(store), offset + HEADER_BYTES)
    assert corruption(store).offset == offset


def test_a_timestamp_is_covered(store: Path) -> None:
    """A changed time is damage, as changed data is: in the body as in the header of a commit."""
    live(store, b"a", b"b")
    offset = frames_in(store)[0][0]
    for place in (offset + 24, offset + HEADER_BYTES + 4):
        flip(segment_in(store), place)
        assert corruption(store).offset == offset
        flip(segment_in(store), place)


def test_bytes_lost_from_the_middle(store: Path) -> None:
    """A commit that is gone as if it had never been is noticed by the one behind it."""
    live(store, b"a", b"b", b"c")
    offset, header, _ = frames_in(store)[1]
    whole = segment_in(store).read_bytes()
    segment_in(store).write_bytes(whole[:offset] + whole[offset + header.size :])
    error = corruption(store)
    assert error.offset == offset
    assert "sequence 2 instead of 1" in error.reason


def test_a_commit_that_does_not_follow_the_one_before(store: Path) -> None:
    """A frame that is sound, and links to another past, is not accepted behind this one."""
    live(store, b"a", close=False)
    put(store, frame(store, b"of another past", sequence=1, link=0x12345678))
    report = reopen(store)
    assert (report.next_sequence, report.cut_records) == (1, 1)
    assert report.cut_reason == "the frame at sequence 1 does not follow the one before it"
    assert data_in(store) == [b"a"]


def proven_at(store: Path, distance: int) -> int:
    """Damage the first frame, and let the header of the only one that proves it stand so far
    behind; gives its offset.
    """
    live(store, close=False)
    header = header_in(store)
    segment_in(store).write_bytes(header.encode())
    journal, _ = open_log(store)
    journal.drop()
    first = end_of(store)
    put(store, frame(store, bytes(distance - HEADER_BYTES - 12), sequence=0))
    put(store, frame(store, b"a proof", sequence=1, watermark=1))
    assert frames_in(store)[-1][0] == first + distance
    flip(segment_in(store), first)
    return first


@pytest.mark.parametrize("before", [0, 1, 20, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1])
def test_a_proof_across_two_reads(store: Path, before: int) -> None:
    """The frame that proves the damage is found wherever it stands, also where one read ends and
    the next begins.
    """
    offset = proven_at(store, READ_BYTES - before)
    assert corruption(store).offset == offset


def test_a_proof_far_behind(store: Path) -> None:
    """A proof counts at any distance."""
    offset = proven_at(store, 4 * MIB + 12_345)
    assert corruption(store).offset == offset


# bytes of another life


def test_stale_frames_behind_a_trimmed_tail(store: Path) -> None:
    """What was cut never comes back: not when the new frames end where an old one began, not if the
    old bytes return.
    """
    live(store, b"a", close=False)
    live(store, bytes(200), b"stale", sync=False, close=False)
    (bad, first, _), (stale_offset, stale, _) = frames_in(store)[2:]
    stale_bytes = segment_in(store).read_bytes()[stale_offset : stale_offset + stale.size]
    flip(segment_in(store), bad + HEADER_BYTES)
    live(
        store, bytes(first.body_size - 12 - HEADER_BYTES), close=False
    )  # the mark of the opening stands before it
    assert end_of(store) == stale_offset
    assert data_in(store) == [b"a", bytes(148)]
    put(store, stale_bytes)
    report = reopen(store)
    assert (report.next_sequence, report.cut_bytes) == (2, stale.size)
    assert data_in(store) == [b"a", bytes(148)]


def test_frames_of_another_store_behind_the_last(tmp_path: Path, store: Path) -> None:
    """Blocks that held another store are never taken for this one's, though sequence and link might
    fit.
    """
    live(store, b"a", close=False)
    other = tmp_path / "other"
    other.mkdir()
    live(other, b"a", b"stale", store_id=OTHER_ID)
    offset = frames_in(other)[1][0]
    put(store, segment_in(other).read_bytes()[offset:])
    report = reopen(store)
    assert (report.next_sequence, report.cut_records) == (1, 0)
    assert data_in(store) == [b"a"]


def test_frames_of_another_segment_are_no_proof(store: Path) -> None:
    """Only frames of the segment itself can prove damage in it."""
    rolled(store, close=False)
    offset = frames_in(store, 9)[0][0]
    stale = segment_in(store, 3).read_bytes()[frames_in(store, 3)[1][0] :]
    segment = segment_in(store, 9)
    segment.write_bytes(segment.read_bytes()[:offset] + stale)
    report = reopen(store)
    assert (report.next_sequence, report.cut_offset) == (9, offset)


def test_a_record_that_holds_a_frame_of_its_own_store(store: Path) -> None:
    """Data is never mistaken for the log: a torn record with an old frame in it proves nothing."""
    live(store, b"a", b"b")
    inside = segment_in(store).read_bytes()
    live(store, inside, close=False)
    offset, header, _ = frames_in(store)[-1]
    put(store, segment_in(store).read_bytes()[offset : offset + header.size - 1], at=offset)
    assert reopen(store).next_sequence == 2
    assert data_in(store) == [b"a", b"b"]


# segments


@pytest.mark.parametrize(("missing", "named"), [(0, 0), (3, 6), (6, 9), (9, 6)])
def test_a_missing_segment(store: Path, missing: int, named: int) -> None:
    """At the start, in the middle, at the end: the log is not whole, and the place of the gap is
    named.
    """
    rolled(store)
    segment_in(store, missing).unlink()
    assert corruption(store).path == str(segment_in(store, named))


def test_the_gap_of_a_missing_segment_is_named(store: Path) -> None:
    """The message says which sequences are missing."""
    rolled(store)
    segment_in(store, 3).unlink()
    assert "sequences 3 to 5 are missing" in corruption(store).reason


def test_every_segment_is_missing(store: Path) -> None:
    """A manifest without any segment has lost them all: that is no new store."""
    live(store, b"a")
    segment_in(store).unlink()
    error = corruption(store)
    assert (error.path, error.offset) == (str(segment_in(store)), 0)


@pytest.mark.parametrize("first", [0, 3, 6, 9])
@pytest.mark.parametrize(
    "to", ["00000000000000000004.segment", "00000000000000000020.segment", "segment.old"]
)
def test_a_renamed_segment(store: Path, first: int, to: str) -> None:
    """A segment belongs to its name: under another one it is not accepted, and under its own it is
    missed.
    """
    rolled(store)
    segment_in(store, first).rename(store / to)
    corruption(store)


@pytest.mark.parametrize(("one", "other"), [(0, 3), (3, 6), (6, 9), (0, 9)])
def test_two_segments_that_have_changed_places(store: Path, one: int, other: int) -> None:
    """Each is refused under the name of the other."""
    rolled(store)
    first, second = segment_in(store, one), segment_in(store, other)
    first.rename(store / "aside")
    second.rename(first)
    (store / "aside").rename(second)
    assert "another store or place" in corruption(store).reason


@pytest.mark.parametrize("first", [0, 3, 6, 9])
def test_a_segment_of_another_store(tmp_path: Path, store: Path, first: int) -> None:
    """The same sequences in a store of the same make are still not these: the header tells."""
    rolled(store)
    other = tmp_path / "other"
    other.mkdir()
    rolled(other, store_id=OTHER_ID)
    segment_in(store, first).write_bytes(segment_in(other, first).read_bytes())
    error = corruption(store)
    assert (error.path, error.offset) == (str(segment_in(store, first)), 0)
    assert "another store or place" in error.reason


def test_the_manifest_of_another_store(tmp_path: Path, store: Path) -> None:
    """Then no segment belongs to it."""
    live(store, b"a")
    other = tmp_path / "other"
    other.mkdir()
    live(other, b"a", store_id=OTHER_ID)
    (store / MANIFEST).write_bytes((other / MANIFEST).read_bytes())
    assert "another store or place" in corruption(store).reason


@pytest.mark.parametrize("commits", [0, 1, 2, 3])
def test_an_older_copy_of_a_sealed_segment(tmp_path: Path, store: Path, commits: int) -> None:
    """A copy from before its seal, however many of the records it holds, has no footer."""
    payloads = rolled(store)
    older = tmp_path / "older"
    older.mkdir()
    live(older, *payloads[:commits], close=commits < 3)
    copy = segment_in(older).read_bytes()
    if commits == 3:
        copy = copy[: end_of(older)]
    segment_in(store).write_bytes(copy)
    error = corruption(store)
    assert error.path == str(segment_in(store))
    assert "footer of a sealed segment is missing" in error.reason


def test_an_older_copy_of_the_last_segment(tmp_path: Path, store: Path) -> None:
    """A closed store knows how far it reached: a copy that is sound in itself and ends before that
    is refused.
    """
    live(store, b"a", b"b")
    older = copy_of(store, "older")
    live(store, b"c")
    segment_in(store).write_bytes(segment_in(older).read_bytes())
    error = corruption(store)
    assert (error.path, error.offset) == (str(segment_in(store)), end_of(store))
    assert "sequences 2 to 2 are missing" in error.reason


def test_a_closed_store_cut_at_every_byte_of_its_last_commit(tmp_path: Path, store: Path) -> None:
    """After a clean close nothing is a torn tail: what was synced and is not there is lost,
    wherever the cut is.
    """
    live(store, b"a", b"b")
    offset, header, _ = frames_in(store)[1]
    whole = segment_in(store).read_bytes()
    for cut in range(header.size):
        segment_in(store).write_bytes(whole[: offset + cut])
        error = corruption(store)
        assert (error.path, error.offset) == (str(segment_in(store)), offset), f"byte {cut}"


def test_a_close_is_a_lower_bound_only(store: Path) -> None:
    """What was written after the last clean close is judged by its frames alone: without it, its
    tail may be torn.
    """
    live(store, b"a")
    live(store, b"b", b"c", close=False)
    offset, header, _ = frames_in(store)[-1]
    put(store, segment_in(store).read_bytes()[offset : offset + header.size - 1], at=offset)
    assert reopen(store).next_sequence == 2
    assert data_in(store) == [b"a", b"b"]


def test_a_segment_that_does_not_follow_the_one_before(store: Path) -> None:
    """Also with a sound header of this store and this place: the link must be that of the last
    frame before.
    """
    rolled(store)
    segment = segment_in(store, 9)
    header = header_in(store, 9)._replace(link=0x12345678)
    segment.write_bytes(header.encode() + segment.read_bytes()[SEGMENT_HEADER_BYTES:])
    error = corruption(store)
    assert (error.path, error.offset) == (str(segment), 0)
    assert "does not follow" in error.reason


@pytest.mark.parametrize("first", [0, 3, 6, 9])
def test_a_bit_at_every_byte_of_a_segment_header(store: Path, first: int) -> None:
    """The header of every segment is covered, the sealed ones and the last; only its version is a
    matter of its own.
    """
    rolled(store)
    segment = segment_in(store, first)
    for place in range(SEGMENT_HEADER_BYTES):
        flip(segment, place, place % 8)
        error = refusal(store, UnsupportedFormatError if place in range(8, 12) else CorruptionError)
        assert error.args[0] == str(segment), f"byte {place}"
        flip(segment, place, place % 8)


@pytest.mark.parametrize("first", [0, 3, 6])
def test_a_bit_at_every_byte_of_a_footer(store: Path, first: int) -> None:
    """The footer of every sealed segment is checked at every opening."""
    rolled(store)
    segment = segment_in(store, first)
    size = segment.stat().st_size
    for place in range(size - FOOTER_BYTES - 24, size):
        flip(segment, place, place % 8)
        error = corruption(store)
        assert error.path == str(segment), f"byte {place}"
        assert "footer" in error.reason
        flip(segment, place, place % 8)


@pytest.mark.parametrize("first", [0, 3, 6])
@pytest.mark.parametrize("cut", [1, FOOTER_BYTES, FOOTER_BYTES + 24, 1000, 4000])
def test_a_sealed_segment_cut_short(store: Path, first: int, cut: int) -> None:
    """A sealed segment that has lost its end is damaged, wherever it was cut."""
    rolled(store)
    segment = segment_in(store, first)
    segment.write_bytes(segment.read_bytes()[:-cut])
    assert corruption(store).path == str(segment)


def test_a_segment_cut_shorter_than_its_header(store: Path) -> None:
    """A named segment without a sound header is damaged, never unfinished: the header was durable
    before the name.
    """
    live(store, b"a")
    header = header_in(store).encode()
    for size in (0, 1, SEGMENT_HEADER_BYTES - 1):
        segment_in(store).write_bytes(header[:size])
        assert corruption(store).path == str(segment_in(store))


# the manifest


def test_a_missing_manifest(store: Path) -> None:
    """A log without its manifest is damaged: it is never taken for a new store."""
    live(store, b"a")
    (store / MANIFEST).unlink()
    error = corruption(store)
    assert (error.path, error.reason) == (f"{store}/{MANIFEST}", "the manifest is missing")


def test_a_missing_manifest_and_first_segment(store: Path) -> None:
    """What is left of a log keeps a new one from being made over it."""
    rolled(store)
    (store / MANIFEST).unlink()
    for first in (0, 3, 6):
        segment_in(store, first).unlink()
        assert corruption(store).path == f"{store}/{MANIFEST}"


def test_a_bit_of_the_manifest(store: Path) -> None:
    """Every bit of it is covered; only its version is a matter of its own."""
    live(store, b"a")
    for place in range(8 * MANIFEST_BYTES):
        flip(store / MANIFEST, place // 8, place % 8)
        error = refusal(
            store, UnsupportedFormatError if place // 8 in range(8, 12) else CorruptionError
        )
        assert error.args[0] == f"{store}/{MANIFEST}", f"bit {place}"
        flip(store / MANIFEST, place // 8, place % 8)


@pytest.mark.parametrize("size", [0, 1, 8, 15, 16, MANIFEST_BYTES - 1, MANIFEST_BYTES + 1])
def test_a_manifest_of_another_size(store: Path, size: int) -> None:
    """It has its size, not a byte less or more."""
    live(store, b"a")
    data = (store / MANIFEST).read_bytes()
    (store / MANIFEST).write_bytes((data + b"\0")[:size])
    assert corruption(store).path == f"{store}/{MANIFEST}"


# later versions


def later(data: bytes, at: int, seed: int) -> bytes:
    """A structure with another number at this place, and a check that fits."""
    changed = data[:at] + (VERSION + 1).to_bytes(4, "little") + data[at + 4 :]
    return changed[:-4] + extend(seed, changed[:-4]).to_bytes(4, "little")


@pytest.mark.parametrize("at", [8, 12], ids=["version", "flags"])
def test_a_manifest_of_a_later_version(store: Path, at: int) -> None:
    """It is refused before anything is written, also when the later manifest is longer."""
    live(store, b"a", close=False)
    data = (store / MANIFEST).read_bytes()
    (store / MANIFEST).write_bytes(later(data, at, 0))
    assert refusal(store, UnsupportedFormatError).args[0] == f"{store}/{MANIFEST}"
    if at == 8:
        (store / MANIFEST).write_bytes(later(data + bytes(20), at, 0))
        refusal(store, UnsupportedFormatError)


@pytest.mark.parametrize("at", [8, 12], ids=["version", "flags"])
@pytest.mark.parametrize("first", [0, 3, 6, 9])
def test_a_segment_of_a_later_version(store: Path, first: int, at: int) -> None:
    """One such segment is enough: the store is refused before anything is written."""
    rolled(store)
    segment, header = segment_in(store, first), header_in(store, first)
    segment.write_bytes(
        later(header.encode(), at, header.seed) + segment.read_bytes()[SEGMENT_HEADER_BYTES:]
    )
    assert refusal(store, UnsupportedFormatError).args[0] == str(segment)


def test_an_empty_successor_of_a_later_version(store: Path) -> None:
    """A segment that a later version has begun is not removed as the rest of a roll."""
    live(store, b"a", close=False)
    seed = SegmentHeader(STORE_ID, 1, NOW, 0).seed
    last = successor(store, 1)
    last.write_bytes(later(last.read_bytes(), 8, seed))
    assert refusal(store, UnsupportedFormatError).args[0] == str(last)


@pytest.mark.parametrize("flags", [16, 1 << 31])
def test_a_frame_with_a_feature_that_is_not_known(store: Path, flags: int) -> None:
    """A sound frame with an unknown flag is no torn tail: nothing is cut, the store is left to a
    newer program.
    """
    live(store, b"a", close=False)
    put(store, frame(store, b"compressed", sequence=1, flags=flags))
    error = refusal(store, UnsupportedFormatError)
    assert error.args[0] == str(segment_in(store))
    assert f"{flags:#x}" in str(error)
