"""examine: sealed segments read frame by frame."""

from __future__ import annotations

from pathlib import Path

import pytest

from aquipu.errors import UnsupportedFormatError
from aquipu.local.format.frame import HEADER_BYTES
from aquipu.local.format.segment import SegmentSummary
from aquipu.local.format.structure import extend
from aquipu.local.read.examine import examine, verify
from tests.disk import FailingDisk
from tests.local.logs import SEGMENT_BYTES, damages, live, rolled
from tests.support import flip, frames_in, header_in, open_log, segment_in, segments_in, write


def test_a_sound_store_is_verified(store: Path) -> None:
    """Nothing comes out, and the progress hears of every byte of the sealed frames."""
    rolled(store)
    disk, heard = FailingDisk(), list[int]()
    findings = examine(disk, str(store))
    assert findings is not None
    assert list(verify(disk, str(store), findings.segments, heard.append)) == []
    assert sum(heard) == sum(
        header.size for first in (0, 3, 6) for _, header, _ in frames_in(store, first)
    )


def test_a_bit_at_every_byte_of_a_sealed_segment(store: Path) -> None:
    """Opening reads only headers and footers; verify reads it all, and names file, offset and
    reason.
    """
    payloads = [b"%d" % number for number in range(3)]
    journal, _ = open_log(store)
    for payload in payloads:
        write(journal, payload)
    journal.drop()
    live(store, bytes(SEGMENT_BYTES), b"in the next segment")
    assert len(segments_in(store)) == 2
    frames = frames_in(store)
    for offset, header, _ in frames[:-1]:
        for place in range(offset, offset + header.size):
            flip(segment_in(store), place, place % 8)
            (error,) = damages(store)
            assert (error.path, error.offset) == (str(segment_in(store)), offset), f"byte {place}"
            assert error.reason
            flip(segment_in(store), place, place % 8)
    assert damages(store) == []


def test_every_damaged_segment_is_found(store: Path) -> None:
    """One damage does not hide another: verify goes on with the next segment."""
    rolled(store)
    for first in (0, 6):
        flip(segment_in(store, first), 2000)
    assert [error.path for error in damages(store)] == [
        str(segment_in(store, first)) for first in (0, 6)
    ]


def test_zeros_in_a_sealed_segment(store: Path) -> None:
    """A commit that has become zeros is damage there too."""
    rolled(store)
    segment = segment_in(store, 3)
    offset, header, _ = frames_in(store, 3)[-1]
    whole = segment.read_bytes()
    segment.write_bytes(whole[:offset] + bytes(header.size) + whole[offset + header.size :])
    (error,) = damages(store)
    assert (error.path, error.offset) == (str(segment), offset)


def test_a_footer_that_does_not_fit_the_frames(store: Path) -> None:
    """A footer that is sound in itself is not trusted: verify compares it with what stands before
    it.
    """
    rolled(store)
    contents, seed = SegmentSummary(0, header_in(store).link), header_in(store).seed
    for _, header, _ in frames_in(store):
        contents.take(header.first_sequence, header.records, header.time, header.size, header.check)
    contents.frames += 1
    whole = segment_in(store).read_bytes()
    segment_in(store).write_bytes(whole[: contents.end] + contents.encode_footer(seed))
    (error,) = damages(store)
    assert (error.path, error.offset) == (str(segment_in(store)), contents.end)
    assert "footer" in error.reason


def test_a_sealed_frame_with_a_feature_that_is_not_known(store: Path) -> None:
    """Verify cannot read it and does not call it damage."""
    rolled(store)
    offset = frames_in(store)[-1][0]
    segment, seed = segment_in(store), header_in(store).seed
    whole = segment.read_bytes()
    head = (
        whole[offset : offset + 4] + b"\x80\0\0\0" + whole[offset + 8 : offset + HEADER_BYTES - 4]
    )
    check = extend(seed, head).to_bytes(4, "little")
    segment.write_bytes(whole[:offset] + head + check + whole[offset + HEADER_BYTES :])
    with pytest.raises(UnsupportedFormatError, match="0x80"):
        damages(store)
