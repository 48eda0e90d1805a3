"""segment: one file of the log.

What is in it after each step, and in what order the disk was asked for it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aquipu.errors import CorruptionError, UnsupportedFormatError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import OutcomeUnknown
from aquipu.local.format.frame import Encoded, Header, encode
from aquipu.local.format.names import UNNAMED, segment_name
from aquipu.local.format.segment import (
    FOOTER_BYTES,
    INDEX_STRIDE,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    SegmentSummary,
)
from aquipu.local.format.structure import VERSION, extend
from aquipu.local.read.frames import FrameWalk
from aquipu.local.read.segment_reader import (
    READ_BYTES,
    SegmentReader,
    SegmentRef,
    is_unwritten,
    read_footer,
    read_header,
)
from aquipu.local.write.segment_writer import AHEAD_BYTES, SegmentWriter, Spare
from tests.disk import FailingDisk
from tests.support import (
    MIB,
    NOW,
    STORE_ID,
    flip,
)

FIRST = 7
HEADER = SegmentHeader(STORE_ID, FIRST, NOW, 0x11111111)
LARGE = bytes(200_000)  # more than what is worth writing ahead for


class Bench:
    """A segment on a disk of its own, and the frames that go into it."""

    def __init__(self, path: Path, disk: FailingDisk) -> None:
        self.disk = disk
        self.file = path / segment_name(FIRST)
        self.segment = SegmentWriter.create(disk, str(self.file), HEADER)
        disk.calls.clear()

    def frame(self, payload: bytes) -> Encoded:
        contents = self.segment.contents
        return encode(
            (payload,),
            (NOW,),
            first_sequence=contents.next_sequence,
            time=NOW,
            watermark=FIRST,
            link=contents.link,
            seed=HEADER.seed,
        )

    def append(self, payload: bytes, *, durable: bool) -> bytes:
        """Append a frame that holds one record; gives its bytes."""
        frame = self.frame(payload)
        self.segment.append(frame, self.segment.contents.next_sequence, 1, NOW, durable=durable)
        return b"".join(frame.buffers)

    def behind_header(self) -> bytes:
        return self.file.read_bytes()[SEGMENT_HEADER_BYTES:]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, FailingDisk())
    yield made
    made.disk.end_process()


@pytest.fixture
def bench_without_synced_writes(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, FailingDisk(writes_synced=False))
    yield made
    made.disk.end_process()


def signed(data: bytes, seed: int = HEADER.seed) -> bytes:
    """The structure with a last field that checks."""
    return data[:-4] + extend(seed, data[:-4]).to_bytes(4, "little")


# creating


def test_header_and_name_are_durable_before_use(tmp_path: Path) -> None:
    """The header is on the disk before the file has its name, and the name is before the segment is
    given out.
    """
    disk = FailingDisk()
    name = segment_name(FIRST)
    segment = SegmentWriter.create(disk, f"{tmp_path}/{name}", HEADER)
    assert [(call.method, call.name) for call in disk.calls] == [
        ("create", name + UNNAMED),
        ("write", name + UNNAMED),
        ("sync", name + UNNAMED),
        ("rename", name),
        ("sync_directory", tmp_path.name),
    ]
    segment.close()


def test_a_new_segment(tmp_path: Path) -> None:
    """It holds its header and nothing else, and goes on from the sequence and the link that it was
    given.
    """
    disk = FailingDisk()
    segment = SegmentWriter.create(disk, f"{tmp_path}/{segment_name(FIRST)}", HEADER)
    assert (tmp_path / segment_name(FIRST)).read_bytes() == HEADER.encode()
    assert segment.contents == SegmentSummary(FIRST, HEADER.link)
    assert not segment.dirty
    assert segment.seed == HEADER.seed
    segment.close()
    assert disk.open_files == {}


@pytest.mark.parametrize("method", ["create", "write", "rename"])
def test_a_segment_that_cannot_be_made(tmp_path: Path, method: str) -> None:
    """After an OSError nothing of it is left: no name, no unfinished file, no open descriptor."""
    disk = FailingDisk()
    disk.fail(method, errno.ENOSPC, written=10)
    with pytest.raises(OSError, match="No space left"):
        SegmentWriter.create(disk, f"{tmp_path}/{segment_name(FIRST)}", HEADER)
    assert list(tmp_path.iterdir()) == []
    assert disk.open_files == {}


@pytest.mark.parametrize(
    ("method", "doing"), [("sync", "fdatasync"), ("sync_directory", "fsync of the directory")]
)
def test_a_new_segment_that_cannot_be_synced(tmp_path: Path, method: str, doing: str) -> None:
    """A failed sync leaves the outcome unknown: it is not repeated, and the file is let go of."""
    disk = FailingDisk()
    disk.fail(method, errno.EIO)
    with pytest.raises(OutcomeUnknown) as caught:
        SegmentWriter.create(disk, f"{tmp_path}/{segment_name(FIRST)}", HEADER)
    assert caught.value.doing == doing
    assert caught.value.__cause__ is caught.value.error
    assert caught.value.error.errno == errno.EIO
    assert disk.calls[-1].method == "close"
    assert disk.count(method) == 1
    assert disk.open_files == {}


# appending


def test_frames_stand_one_behind_another(bench: Bench) -> None:
    """Each frame begins where the one before ended, and the contents count it."""
    first = bench.append(b"one", durable=False)
    second = bench.append(b"three", durable=False)
    contents = bench.segment.contents
    assert bench.behind_header() == first + second
    assert contents.end == SEGMENT_HEADER_BYTES + len(first) + len(second)
    assert (contents.next_sequence, contents.frames) == (FIRST + 2, 2)
    assert list(contents.index.offsets) == [SEGMENT_HEADER_BYTES]


def test_a_frame_that_need_not_be_durable(bench: Bench) -> None:
    """It is one write: no space ahead, no sync; the segment knows that it holds unsynced bytes."""
    bench.append(b"record", durable=False)
    assert bench.disk.steps("write", "write_synced", "sync", "truncate") == [
        ("write", bench.file.name)
    ]
    assert bench.file.stat().st_size == bench.segment.contents.end
    assert bench.segment.dirty


def test_a_small_durable_frame_gets_space_written_ahead(bench: Bench) -> None:
    """A stride of zeros goes behind the frame, to be synced along with it."""
    frame = bench.append(b"record", durable=True)
    assert bench.behind_header() == frame + bytes(AHEAD_BYTES)
    assert bench.segment.dirty
    bench.segment.sync()
    assert not bench.segment.dirty


def test_a_small_durable_frame_within_the_space_written_ahead(bench: Bench) -> None:
    """It replaces zeros: one system call writes and syncs it, and the file does not grow."""
    bench.append(b"first", durable=True)
    bench.segment.sync()
    size = bench.file.stat().st_size
    bench.disk.calls.clear()
    bench.append(b"second", durable=True)
    assert [call.method for call in bench.disk.calls] == ["write_synced"]
    assert bench.file.stat().st_size == size
    assert not bench.segment.dirty


def test_space_is_written_ahead_again_when_it_is_used_up(bench: Bench) -> None:
    """The frame that would end beyond the zeros has the next stride written; those before it have
    not.
    """
    payload, writes = bytes(25_000), []
    for _ in range(12):
        bench.append(payload, durable=True)
        bench.segment.sync()
        writes.append(bench.disk.count("write"))
    assert writes == [2] * 11 + [
        4
    ]  # zeros and the first frame; and then eleven frames are more than a stride
    assert bench.file.stat().st_size == bench.segment.contents.end + AHEAD_BYTES


def test_zeros_ahead_begin_where_the_file_ends(bench: Bench) -> None:
    """Frames that are there already are never written over by zeros."""
    first = bench.append(b"first", durable=False)
    second = bench.append(b"second", durable=True)
    assert bench.behind_header() == first + second + bytes(AHEAD_BYTES)


def test_a_large_durable_frame(bench: Bench) -> None:
    """It gains nothing by space ahead: one call writes and syncs it, and the file ends with it."""
    frame = bench.append(LARGE, durable=True)
    assert [call.method for call in bench.disk.calls] == ["write_synced"]
    assert bench.behind_header() == frame
    assert not bench.segment.dirty


def test_a_durable_frame_behind_one_that_is_not_synced(bench: Bench) -> None:
    """A synced write covers only itself, so with unsynced bytes before it a plain write and a whole
    sync are needed.
    """
    bench.append(b"first", durable=False)
    bench.append(LARGE, durable=True)
    assert bench.disk.count("write_synced") == 0
    assert bench.segment.dirty


def test_a_durable_frame_where_no_write_syncs_by_itself(bench_without_synced_writes: Bench) -> None:
    """Where the system has no synced writes, the frame is written and the segment still wants its
    sync.
    """
    bench = bench_without_synced_writes
    frame = bench.append(LARGE, durable=True)
    assert bench.behind_header() == frame
    assert bench.segment.dirty


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_space_to_write_ahead(bench: Bench, number: int) -> None:
    """It is no error: what came of the zeros is taken back, and the frame is still written."""
    first = bench.append(b"first", durable=False)
    bench.disk.fail("write", number, written=1000)
    second = bench.append(b"second", durable=True)
    assert bench.behind_header() == first + second
    assert bench.segment.dirty
    third = bench.append(b"third", durable=True)  # there is space again
    assert bench.behind_header() == first + second + third + bytes(AHEAD_BYTES)


def test_writing_ahead_fails_for_another_reason(bench: Bench) -> None:
    """Only a lack of space is passed over; any other error leaves the segment as an OSError."""
    bench.disk.fail("write", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        bench.append(b"record", durable=True)
    assert bench.segment.contents == SegmentSummary(FIRST, HEADER.link)


def test_zeros_that_cannot_be_taken_back(bench: Bench) -> None:
    """If the file cannot be cut either, nobody knows what it holds."""
    bench.disk.fail("write", errno.ENOSPC, written=1000)
    bench.disk.fail("truncate", errno.EIO)
    with pytest.raises(OutcomeUnknown, match="truncating"):
        bench.append(b"record", durable=True)


@pytest.mark.parametrize(("method", "payload"), [("write", b"record"), ("write_synced", LARGE)])
def test_a_frame_that_is_not_written(bench: Bench, method: str, payload: bytes) -> None:
    """The contents count only what was written whole."""
    first = bench.append(b"first", durable=True)
    bench.segment.sync()
    before = bench.segment.contents.end
    bench.disk.fail(method, errno.ENOSPC, written=30)
    with pytest.raises(OSError, match="No space left"):
        bench.append(payload, durable=method == "write_synced")
    assert (bench.segment.contents.end, bench.segment.contents.next_sequence) == (before, FIRST + 1)
    assert bench.behind_header().startswith(first)


# cutting back


def test_half_a_frame_is_cut_back(bench: Bench) -> None:
    """After the cut the file ends with its last whole frame, and the cut is on the disk."""
    first = bench.append(b"first", durable=True)
    bench.segment.sync()
    bench.disk.fail("write", errno.ENOSPC, written=30)
    with pytest.raises(OSError, match="No space left"):
        bench.append(b"second", durable=False)
    bench.disk.calls.clear()
    bench.segment.cut_back()
    assert bench.behind_header() == first
    assert bench.disk.steps("truncate", "sync") == [
        ("truncate", bench.file.name),
        ("sync", bench.file.name),
    ]
    assert not bench.segment.dirty


def test_after_a_cut_the_segment_goes_on(bench: Bench) -> None:
    """The next frame takes the place of the one that was cut, with zeros ahead as before."""
    first = bench.append(b"first", durable=True)
    bench.segment.cut_back()
    second = bench.append(b"second", durable=True)
    assert bench.behind_header() == first + second + bytes(AHEAD_BYTES)


@pytest.mark.parametrize(
    ("method", "doing"), [("truncate", "truncating a segment"), ("sync", "fdatasync")]
)
def test_a_cut_that_fails(bench: Bench, method: str, doing: str) -> None:
    """Then the outcome is unknown, and nothing is tried again."""
    bench.append(b"first", durable=True)
    bench.disk.fail(method, errno.EIO)
    with pytest.raises(OutcomeUnknown, match=doing):
        bench.segment.cut_back()
    assert bench.disk.calls[-1].method == method


# prepared ahead


def test_a_spare_file(tmp_path: Path) -> None:
    """It has zeros for the header and the first frames, no name of a segment, and is durable once
    it is synced.
    """
    disk = FailingDisk()
    spare = Spare.prepared(disk, f"{tmp_path}/{segment_name(FIRST)}")
    assert (tmp_path / (segment_name(FIRST) + UNNAMED)).read_bytes() == bytes(
        SEGMENT_HEADER_BYTES + AHEAD_BYTES
    )
    assert spare.dirty
    spare.sync()
    assert not spare.dirty
    assert [call.method for call in disk.calls] == ["create", "write", "sync"]
    spare.drop()
    assert list(tmp_path.iterdir()) == []
    assert disk.open_files == {}


@pytest.mark.parametrize("method", ["create", "write"])
def test_a_spare_file_that_cannot_be_made(tmp_path: Path, method: str) -> None:
    """After an OSError nothing of it is left."""
    disk = FailingDisk()
    disk.fail(method, errno.ENOSPC, written=10)
    with pytest.raises(OSError, match="No space left"):
        Spare.prepared(disk, f"{tmp_path}/{segment_name(FIRST)}")
    assert list(tmp_path.iterdir()) == []
    assert disk.open_files == {}


@pytest.mark.parametrize("synced", [True, False])
def test_a_segment_made_of_a_spare_file(tmp_path: Path, synced: bool) -> None:
    """Header and name are durable before it is given out, whether or not the file was; its zeros
    are space for frames.
    """
    disk = FailingDisk()
    spare = Spare.prepared(disk, f"{tmp_path}/{segment_name(0)}")
    if synced:
        spare.sync()
    disk.calls.clear()
    file = tmp_path / segment_name(FIRST)
    segment = SegmentWriter.create(disk, str(file), HEADER, spare)
    unnamed = segment_name(0) + UNNAMED
    assert [(call.method, call.name) for call in disk.calls] == [
        ("write", unnamed),
        ("sync", unnamed),
        ("rename", file.name),
        ("sync_directory", tmp_path.name),
    ]
    assert file.read_bytes() == HEADER.encode() + bytes(AHEAD_BYTES)
    assert list(tmp_path.iterdir()) == [file]
    assert not segment.dirty
    frame = encode(
        (b"",),
        (NOW,),
        first_sequence=FIRST,
        time=NOW,
        watermark=FIRST,
        link=HEADER.link,
        seed=HEADER.seed,
    )
    disk.calls.clear()
    segment.append(frame, FIRST, 1, NOW, durable=True)
    assert [call.method for call in disk.calls] == ["write_synced"]
    segment.close()


@pytest.mark.parametrize("method", ["write", "rename"])
def test_a_spare_file_that_becomes_no_segment(tmp_path: Path, method: str) -> None:
    """After an OSError nothing of it is left."""
    disk = FailingDisk()
    spare = Spare.prepared(disk, f"{tmp_path}/{segment_name(0)}")
    disk.fail(method, errno.ENOSPC, written=10)
    with pytest.raises(OSError, match="No space left"):
        SegmentWriter.create(disk, f"{tmp_path}/{segment_name(FIRST)}", HEADER, spare)
    assert list(tmp_path.iterdir()) == []
    assert disk.open_files == {}


def test_when_to_prepare(bench: Bench) -> None:
    """Two strides before a segment is full; never for one that is hardly larger than that."""
    end = bench.segment.contents.end
    assert not bench.segment.nears(2 * AHEAD_BYTES + end + 1)
    assert bench.segment.nears(2 * AHEAD_BYTES + end)
    assert bench.segment.nears(2 * AHEAD_BYTES)
    assert not bench.segment.nears(2 * AHEAD_BYTES - 1)


@pytest.mark.parametrize(
    ("behind", "unwritten"),
    [
        (b"", True),
        (b"\0", True),
        (bytes(3 * INDEX_STRIDE), True),
        (b"\1", False),
        (bytes(INDEX_STRIDE) + b"\1", False),
        (bytes(2 * INDEX_STRIDE - 1) + b"\1", False),
    ],
)
def test_a_segment_without_a_frame(opened: Opener, behind: bytes, unwritten: bool) -> None:
    """Zeros are no frame, however many; anything else was written, wherever it stands."""
    disk, descriptor, _ = opened(HEADER.encode() + behind)
    assert is_unwritten(disk, descriptor) is unwritten


# sealing


def test_a_sealed_segment_ends_with_its_footer(bench: Bench) -> None:
    """The zeros go, the footer says what the frames amount to, and nothing stands behind it."""
    frames = bench.append(b"first", durable=True) + bench.append(b"second", durable=True)
    bench.segment.seal()
    contents = bench.segment.contents
    assert bench.behind_header() == frames + contents.encode_footer(HEADER.seed)
    descriptor = bench.disk.open(str(bench.file))
    assert read_footer(bench.disk, descriptor, str(bench.file), HEADER.seed) == contents


def test_a_seal_is_durable(bench: Bench) -> None:
    """The footer is synced after it has been written, and so are the frames before it."""
    bench.append(b"first", durable=False)
    bench.disk.calls.clear()
    bench.segment.seal()
    name = bench.file.name
    assert bench.disk.steps("truncate", "write", "sync") == [("write", name), ("sync", name)]
    assert not bench.segment.dirty


def test_a_footer_takes_the_place_of_zeros(bench: Bench) -> None:
    """Trimmed before, a segment with zeros ahead keeps its size when it is sealed; until then it
    ends with zeros.
    """
    frame = bench.append(b"first", durable=True)
    footer = bench.segment.contents.encode_footer(HEADER.seed)
    bench.segment.trim()
    assert bench.segment.dirty
    assert bench.behind_header() == frame + bytes(len(footer))
    bench.disk.calls.clear()
    bench.segment.seal()
    assert bench.disk.steps("truncate", "write", "sync") == [
        ("write", bench.file.name),
        ("sync", bench.file.name),
    ]
    assert bench.behind_header() == frame + footer


def test_a_trimmed_segment_goes_on(bench: Bench) -> None:
    """A roll for which there was no space leaves one behind."""
    frames = bench.append(b"first", durable=True)
    bench.segment.trim()
    frames += bench.append(b"second", durable=True)
    bench.segment.cut_back()
    assert bench.behind_header() == frames


def test_no_space_for_the_footer(bench: Bench) -> None:
    """The OSError leaves the segment, whose frames are untouched; a cut makes it as it was."""
    frame = bench.append(b"first", durable=True)
    bench.disk.fail("write", errno.ENOSPC, written=20)
    with pytest.raises(OSError, match="No space left"):
        bench.segment.seal()
    bench.segment.cut_back()
    assert bench.behind_header() == frame


@pytest.mark.parametrize(
    ("method", "doing"), [("truncate", "truncating a segment"), ("sync", "fdatasync")]
)
def test_a_seal_that_fails(bench: Bench, method: str, doing: str) -> None:
    """A failed cut or sync leaves the outcome unknown."""
    bench.append(b"first", durable=True)
    bench.disk.fail(method, errno.EIO)
    with pytest.raises(OutcomeUnknown, match=doing):
        bench.segment.seal()
    assert bench.disk.calls[-1].method == method


# reading the header


Opener = Callable[[bytes], tuple[Disk, int, str]]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Makes a file of these bytes and opens it."""
    disk = FailingDisk()
    file = tmp_path / segment_name(FIRST)

    def opener(data: bytes) -> tuple[Disk, int, str]:
        file.write_bytes(data)
        return disk, disk.open(str(file)), str(file)

    yield opener
    disk.end_process()


def test_a_sound_header(opened: Opener) -> None:
    """What was written is read back."""
    assert read_header(*opened(HEADER.encode() + b"frames"), STORE_ID, FIRST) == HEADER


@pytest.mark.parametrize("size", [0, 1, 8, 63])
def test_a_header_cut_short(opened: Opener, size: int) -> None:
    """A file that is shorter than a header is damaged, and named."""
    disk, descriptor, path = opened(HEADER.encode()[:size])
    with pytest.raises(CorruptionError) as caught:
        read_header(disk, descriptor, path, STORE_ID, FIRST)
    assert (caught.value.path, caught.value.offset) == (path, 0)


def test_a_bit_of_the_header(opened: Opener, tmp_path: Path) -> None:
    """Every bit of it is covered: magic, version, flags, store, sequence, time, link, zeros and the
    check itself.
    """
    disk, descriptor, path = opened(HEADER.encode())
    for place in range(8 * SEGMENT_HEADER_BYTES):
        flip(Path(path), place // 8, place % 8)
        with pytest.raises((CorruptionError, UnsupportedFormatError)) as caught:
            read_header(disk, descriptor, path, STORE_ID, FIRST)
        its_version = place // 8 in range(8, 12)
        assert isinstance(caught.value, UnsupportedFormatError) is its_version, f"bit {place}"
        flip(Path(path), place // 8, place % 8)


def test_a_header_of_another_store_or_place(opened: Opener) -> None:
    """A sound header is refused where it does not belong."""
    disk, descriptor, path = opened(HEADER.encode())
    for store_id, first in ((bytes(16), FIRST), (STORE_ID, FIRST + 1)):
        with pytest.raises(CorruptionError, match="another store or place"):
            read_header(disk, descriptor, path, store_id, first)


def test_a_header_of_another_place_that_checks(opened: Opener) -> None:
    """Also when the checksum happens to fit, store and sequence are compared themselves."""
    elsewhere = HEADER._replace(first_sequence=FIRST + 1).encode()
    disk, descriptor, path = opened(signed(elsewhere))
    with pytest.raises(CorruptionError, match="belongs to another store or place"):
        read_header(disk, descriptor, path, STORE_ID, FIRST)


@pytest.mark.parametrize("at", [8, 12])
def test_a_header_of_a_later_version(opened: Opener, at: int) -> None:
    """A version or a flag that is not known here is no damage: it is left to a newer program."""
    data = bytearray(HEADER.encode())
    data[at] = VERSION + 1
    disk, descriptor, path = opened(signed(bytes(data)))
    with pytest.raises(UnsupportedFormatError) as caught:
        read_header(disk, descriptor, path, STORE_ID, FIRST)
    assert caught.value.path == path


# reading the footer


def sealed_bytes(bench: Bench) -> bytes:
    """A sealed segment with several entries in its index."""
    for _ in range(3):
        bench.append(bytes(70_000), durable=False)
    bench.segment.seal()
    return bench.file.read_bytes()


def test_a_file_without_a_footer(opened: Opener, bench: Bench) -> None:
    """A segment that is not sealed has none; that is no error."""
    bench.append(b"record", durable=True)
    for data in (b"", HEADER.encode(), bench.file.read_bytes()):
        disk, descriptor, path = opened(data)
        assert read_footer(disk, descriptor, path, HEADER.seed) is None


def test_a_bit_of_the_footer(opened: Opener, bench: Bench) -> None:
    """Every byte of it is covered, the index too; without its magic it is no footer at all."""
    whole = sealed_bytes(bench)
    size = len(whole) - bench.segment.contents.end
    assert size == FOOTER_BYTES + 3 * 24
    disk, descriptor, path = opened(whole)
    for offset in range(len(whole) - size, len(whole)):
        flip(Path(path), offset, offset % 8)
        if len(whole) - FOOTER_BYTES <= offset < len(whole) - FOOTER_BYTES + 8:
            assert read_footer(disk, descriptor, path, HEADER.seed) is None
        else:
            with pytest.raises(CorruptionError, match="does not check") as caught:
                read_footer(disk, descriptor, path, HEADER.seed)
            assert caught.value.path == path
        flip(Path(path), offset, offset % 8)


def test_a_footer_of_another_segment(opened: Opener, bench: Bench) -> None:
    """A footer checks only with the seed of its own segment."""
    disk, descriptor, path = opened(sealed_bytes(bench))
    with pytest.raises(CorruptionError, match="footer"):
        read_footer(disk, descriptor, path, HEADER.seed + 1)


def test_a_footer_in_another_place_than_it_says(opened: Opener, bench: Bench) -> None:
    """Bytes lost or added between the frames and a sound footer are noticed."""
    whole, end = sealed_bytes(bench), bench.segment.contents.end
    for data in (whole[: end - 1] + whole[end:], whole[:end] + b"\0" + whole[end:]):
        disk, descriptor, path = opened(data)
        with pytest.raises(CorruptionError, match="another place") as caught:
            read_footer(disk, descriptor, path, HEADER.seed)
        assert caught.value.offset == len(data) - (len(whole) - end)


def test_a_footer_that_claims_more_than_the_file(opened: Opener, bench: Bench) -> None:
    """A count of entries that the file cannot hold is damage, and never read beyond the frames."""
    whole = bytearray(sealed_bytes(bench))
    whole[-FOOTER_BYTES + 8 : -FOOTER_BYTES + 12] = b"\xff\xff\xff\xff"
    disk, descriptor, path = opened(bytes(whole))
    with pytest.raises(CorruptionError, match="footer"):
        read_footer(disk, descriptor, path, HEADER.seed)


# walking the frames


def walk_of(bench: Bench) -> FrameWalk:
    return FrameWalk(str(bench.file), HEADER)


def walked(
    bench: Bench, walk: FrameWalk, end: int, heard: list[int] | None = None
) -> list[tuple[int, Header, bytes]]:
    descriptor = bench.disk.open(str(bench.file))
    progress = (lambda size: None) if heard is None else heard.append
    reader = SegmentReader(bench.disk, SegmentRef(FIRST, str(bench.file), HEADER, None), descriptor)
    return [frame[1:] for frame in reader.frames(walk, end, progress)]


def test_frames_are_walked_in_their_order(bench: Bench) -> None:
    """Every frame comes once, with its offset; the progress hears of every byte."""
    sizes = [len(bench.append(bytes([n]) * n * 1000, durable=False)) for n in range(1, 5)]
    heard: list[int] = []
    end = bench.segment.contents.end
    found = walked(bench, walk_of(bench), end, heard)
    assert [offset for offset, _, _ in found] == [
        SEGMENT_HEADER_BYTES + sum(sizes[:n]) for n in range(4)
    ]
    assert [header.first_sequence for _, header, _ in found] == [
        FIRST,
        FIRST + 1,
        FIRST + 2,
        FIRST + 3,
    ]
    assert sum(heard) == end - SEGMENT_HEADER_BYTES


def test_frames_larger_than_a_read(bench: Bench) -> None:
    """A frame that no single read brings whole is put together, and read in as few reads as it
    needs.
    """
    for payload in (b"small", bytes(3 * MIB + 17), b"small again", bytes(READ_BYTES)):
        bench.append(payload, durable=False)
    bench.disk.calls.clear()
    walk = walk_of(bench)
    assert [len(body) - 12 for _, _, body in walked(bench, walk, bench.segment.contents.end)] == [
        5,
        3 * MIB + 17,
        11,
        READ_BYTES,
    ]
    assert walk.fault is None
    assert bench.disk.count("read") == 4  # the second one brings all that the large frame wants


def test_the_walk_stops_at_what_does_not_check(bench: Bench) -> None:
    """Nothing behind a bad frame is given, and the walk says where and why."""
    first = bench.append(b"first", durable=False)
    bench.append(b"second", durable=False)
    bench.append(b"third", durable=False)
    flip(bench.file, SEGMENT_HEADER_BYTES + len(first) + 20)
    walk = walk_of(bench)
    assert len(walked(bench, walk, bench.segment.contents.end)) == 1
    assert walk.offset == SEGMENT_HEADER_BYTES + len(first)
    assert walk.fault is not None


def test_the_walk_does_not_look_beyond_its_end(bench: Bench) -> None:
    """What stands behind the given end is never read."""
    first = bench.append(b"first", durable=False)
    bench.append(b"second", durable=False)
    bench.disk.calls.clear()
    end = SEGMENT_HEADER_BYTES + len(first)
    assert len(walked(bench, walk_of(bench), end)) == 1
    assert max(call.offset + call.size for call in bench.disk.calls if call.method == "read") == end


def test_the_walk_of_a_file_that_is_shorter_than_expected(bench: Bench) -> None:
    """Where the file ends the walk ends: it does not wait for bytes that never come."""
    bench.append(b"first", durable=False)
    assert len(walked(bench, walk_of(bench), bench.segment.contents.end + 10_000)) == 1


@pytest.mark.parametrize("at_once", [True, False])
def test_the_time_of_a_sync(tmp_path: Path, at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what the last sync took, by itself or in one call with its write; nothing before there
    was one.
    """
    ticks = iter([1000, 1700])
    monkeypatch.setattr("aquipu.local.write.segment_writer.monotonic_ns", lambda: next(ticks))
    disk = FailingDisk()
    segment = SegmentWriter.create(disk, str(tmp_path / segment_name(FIRST)), HEADER)
    assert segment.sync_time == 0
    options: dict[str, Any] = {
        "first_sequence": FIRST,
        "time": NOW,
        "watermark": FIRST,
        "link": HEADER.link,
    }
    frame = encode([bytes(200_000)], [NOW], **options, seed=HEADER.seed)
    segment.append(frame, FIRST, 1, NOW, durable=at_once)
    if not at_once:
        segment.sync()
    assert segment.sync_time == 700
    disk.end_process()
