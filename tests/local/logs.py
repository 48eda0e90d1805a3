"""What the tests of the files of a log share: logs in every state, made by writing them, and what
opening them says.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from aquipu.engine import CommitResult
from aquipu.errors import AquipuError, CorruptionError
from aquipu.local.format.frame import HEADER_BYTES, encode
from aquipu.local.format.names import segment_name
from aquipu.local.format.segment import SegmentHeader, SegmentSummary
from aquipu.local.format.structure import extend
from aquipu.local.read.examine import examine, verify
from aquipu.local.write.journal import Journal
from aquipu.local.write.recovery import RecoveryReport
from tests.disk import FailingDisk
from tests.support import (
    NOW,
    STORE_ID,
    frames_in,
    header_in,
    open_log,
    segment_in,
    segments_in,
    snapshot,
    write,
)

NO_SPACE = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]
OTHER_ID = bytes(range(16, 32))
SEGMENT_BYTES = 4096
THIRD = bytes(range(250)) * 6
"""Three records of this size fill a segment."""


def live(
    store: Path, *payloads: bytes, sync: bool = True, close: bool = True, store_id: bytes = STORE_ID
) -> list[bytes]:
    """A life of a store with one commit for each payload; ended by a clean close, or by a crash
    with nothing under way.
    """
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES, store_id=store_id)
    for payload in payloads:
        write(journal, payload, sync=sync)
        journal.maintain()
    if close:
        journal.close()
    else:
        journal.drop()
    return list(payloads)


def rolled(store: Path, *, close: bool = True, store_id: bytes = STORE_ID) -> list[bytes]:
    """A store of four segments that begin with 0, 3, 6 and 9; only the last one, of one record, is
    not sealed.
    """
    payloads = [bytes([number]) + THIRD for number in range(10)]
    live(store, *payloads, close=close, store_id=store_id)
    assert [segment.name for segment in segments_in(store)] == [
        segment_name(first) for first in (0, 3, 6, 9)
    ]
    return payloads


def successor(store: Path, first_sequence: int) -> Path:
    """Make the empty segment that a roll would make next, and give its path."""
    header = SegmentHeader(STORE_ID, first_sequence, NOW, frames_in(store)[-1][1].check)
    segment_in(store, first_sequence).write_bytes(header.encode())
    return segment_in(store, first_sequence)


def seal(store: Path) -> bytes:
    """Make the first segment a sealed one, and give its footer."""
    frames, seed = frames_in(store), header_in(store).seed
    contents = SegmentSummary(0, header_in(store).link)
    for _, header, _ in frames:
        contents.take(header.first_sequence, header.records, header.time, header.size, header.check)
    footer = contents.encode_footer(seed)
    segment_in(store).write_bytes(segment_in(store).read_bytes()[: contents.end] + footer)
    return footer


def frame(
    store: Path,
    payload: bytes,
    *,
    sequence: int,
    watermark: int = 0,
    link: int | None = None,
    owes_sync: bool = False,
    flags: int = 0,
) -> bytes:
    """Make a frame for the first segment of a store, as a writer with these values would."""
    seed = header_in(store).seed
    made = b"".join(
        encode(
            (payload,),
            (NOW,),
            owes_sync=owes_sync,
            first_sequence=sequence,
            time=NOW,
            watermark=watermark,
            link=frames_in(store)[-1][1].check if link is None else link,
            seed=seed,
        ).buffers
    )
    head = made[:4] + (flags | made[4]).to_bytes(4, "little") + made[8 : HEADER_BYTES - 4]
    return head + extend(seed, head).to_bytes(4, "little") + made[HEADER_BYTES:]


def end_of(store: Path) -> int:
    """Where the frames of the first segment end."""
    offset, header, _ = frames_in(store)[-1]
    return offset + header.size


def put(store: Path, *pieces: bytes, at: int | None = None) -> None:
    """Let the first segment end with these bytes, behind its frames or from an offset on."""
    file = segment_in(store)
    file.write_bytes(file.read_bytes()[: end_of(store) if at is None else at] + b"".join(pieces))


def reopen(store: Path, disk: FailingDisk | None = None) -> RecoveryReport:
    """Open and close, and give what the opening found; then the store must be clean."""
    journal, report = open_log(store, disk)
    journal.close()
    again, clean = open_log(store)
    again.drop()
    assert clean.clean
    return report


def refusal(store: Path, kind: type[AquipuError] = CorruptionError) -> AquipuError:
    """The error with which opening refuses a store; it must have changed nothing and left nothing
    open.
    """
    before, disk = snapshot(store), FailingDisk()
    with pytest.raises(kind) as caught:
        open_log(store, disk)
    assert snapshot(store) == before
    assert disk.open_files == {}
    return caught.value


def corruption(store: Path) -> CorruptionError:
    """The damage that opening names."""
    error = refusal(store)
    assert isinstance(error, CorruptionError)
    assert error.path in str(error)
    assert str(error.offset) in str(error)
    assert error.reason in str(error)
    return error


def damages(store: Path) -> list[CorruptionError]:
    """What verify finds, reading every sealed segment."""
    disk = FailingDisk()
    findings = examine(disk, str(store))
    assert findings is not None
    found = list(verify(disk, str(store), findings.segments, lambda size: None))
    assert disk.open_files == {}
    return found


def without_zeros_ahead(file: Path) -> bytes:
    return file.read_bytes().rstrip(b"\0")


def write_and_maintain(journal: Journal, *payloads: bytes, sync: bool = True) -> CommitResult:
    """One turn of the worker."""
    result = write(journal, *payloads, sync=sync)
    journal.maintain()
    return result


def fill(journal: Journal, *, sync: bool = True) -> None:
    """Make the segment at hand full; what rolls it is the next `maintain`."""
    for _ in range(3):
        write(journal, THIRD, sync=sync)
