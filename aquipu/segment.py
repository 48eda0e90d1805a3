"""One file of the log: created, appended to, synced, sealed; and read back frame by frame. Blocking.

Only the worker thread touches a `Segment`. Two kinds of failure leave it: an OSError says that a write did not go through,
and `contents` counts only what was written whole; `OutcomeUnknown` says that what is on the disk is no longer known.

**Space written ahead.** A sync of a file that grows must also journal the file's new size, which costs about as much as
the data. So for small commits that are synced, zeros are written a stride ahead and synced along; the frames then replace
zeros that are on the disk already. Zeros are never a frame, so a reader stops there. A large commit gains nothing by it.

**Prepared ahead.** Making a file durable costs several syncs, so the file of the next segment is made before it is needed
(`Spare`): zeros, under a name that recovery removes. What is left for the roll is its header, its name, and the footer of
the segment before, which is written over zeros too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import monotonic_ns

from aquipu.disk import Disk, is_no_space
from aquipu.durable import OutcomeUnknown, sync, sync_directory
from aquipu.errors import CorruptionError, UnsupportedFormatError
from aquipu.frame import HEADER_BYTES, KNOWN_FLAGS, Encoded, Header, Walk, header_at, is_sound
from aquipu.layout import (
    INDEX_STRIDE,
    SEGMENT_HEADER_BYTES,
    UNNAMED,
    Contents,
    Damage,
    SegmentHeader,
    Unsupported,
    footer_bytes,
    is_sealed,
)

AHEAD_BYTES = 256 * 1024
"""How far zeros are written ahead at a time."""
_SMALL_BYTES = AHEAD_BYTES // 4
READ_BYTES = 1024 * 1024
"""How much of a file is read at a time."""
TAIL_BYTES = 4096
"""How much of the end of a file is read at first: the whole footer of a segment of 10 MiB."""
_TOO_EARLY = "the frames end too early"


class Spare:
    """A file that has still to become a segment, under a name that is none: whoever finds it there may remove it."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.path = path + UNNAMED
        self.size = 0
        self.dirty = False
        self._disk = disk
        self.descriptor = disk.create(self.path)

    @classmethod
    def prepared(cls, disk: Disk, path: str) -> Spare:
        """With zeros where the header and the first frames will stand. After an OSError nothing of it is left."""
        spare = cls(disk, path)
        try:
            spare.write(bytes(SEGMENT_HEADER_BYTES + AHEAD_BYTES))
        except OSError:
            spare.drop()
            raise
        return spare

    def write(self, data: bytes) -> None:
        self.dirty = True
        self._disk.write(self.descriptor, [data], 0)
        self.size = max(self.size, len(data))

    def sync(self) -> None:
        sync(self._disk, self.descriptor)
        self.dirty = False

    def close(self) -> None:
        """Let go of the file and leave it where it is."""
        with suppress(OSError):
            self._disk.close(self.descriptor)

    def drop(self) -> None:
        """It is not needed."""
        self.close()
        self._disk.remove(self.path)


class Segment:
    """The segment that is being written. ``dirty`` says whether it holds anything that no sync has covered, ``size`` how
    large the file is, and ``sync_time`` how many nanoseconds its last sync took."""

    def __init__(
        self, disk: Disk, path: str, descriptor: int, header: SegmentHeader, contents: Contents, size: int
    ) -> None:
        self.path = path
        self.header = header
        self.contents = contents
        self.dirty = False
        self._disk = disk
        self._descriptor = descriptor
        self.size = size  # zeros between the end of the frames and here
        self.sync_time = 0

    @classmethod
    def create(cls, disk: Disk, path: str, header: SegmentHeader, spare: Spare | None = None) -> Segment:
        """A new segment whose header and name are both durable, made of the spare file if there is one.

        After an OSError nothing of it is left.
        """
        file = Spare(disk, path) if spare is None else spare
        try:
            file.write(header.encode())
            file.sync()
            disk.rename(file.path, path)
            sync_directory(disk, path.rpartition("/")[0])
        except OSError:
            file.drop()
            raise
        except OutcomeUnknown:
            file.close()
            raise
        contents = Contents(header.first_sequence, header.link)
        return cls(disk, path, file.descriptor, header, contents, file.size)

    @property
    def seed(self) -> int:
        return self.header.seed

    def append(self, frame: Encoded, first_sequence: int, count: int, time: int, *, durable: bool) -> None:
        """Write a frame at the end. With ``durable`` it may be synced in the same call; `dirty` says whether it was."""
        offset = self.contents.end
        end = offset + frame.size
        if durable and end > self.size and frame.size <= _SMALL_BYTES:
            self._write_ahead(end)
        covers_all = durable and not self.dirty
        if not (covers_all and self._write_synced(frame.buffers, offset)):
            self.dirty = True
            self._disk.write(self._descriptor, frame.buffers, offset)
        self.size = max(self.size, end)
        self.contents.take(first_sequence, count, time, frame.size, frame.check)

    def _write_synced(self, buffers: Sequence[bytes], offset: int) -> bool:
        begun = monotonic_ns()
        done = self._disk.write_synced(self._descriptor, buffers, offset)
        self.sync_time = monotonic_ns() - begun
        return done

    def _write_ahead(self, end: int) -> None:
        """Lengthen the file with zeros to a stride beyond ``end``. Without the space for them it stays as it was."""
        ahead = end + AHEAD_BYTES
        self.dirty = True
        try:
            self._disk.write(self._descriptor, [bytes(ahead - self.size)], self.size)
        except OSError as error:
            if not is_no_space(error):
                raise
            self._truncate(self.size)
        else:
            self.size = ahead

    def sync(self) -> None:
        """Make everything written so far durable."""
        begun = monotonic_ns()
        sync(self._disk, self._descriptor)
        self.sync_time = monotonic_ns() - begun
        self.dirty = False

    def cut_back(self) -> None:
        """Remove whatever stands behind the last whole frame, durably: half a commit must not come back after a crash."""
        self._truncate(self.contents.end)
        self.sync()

    def _truncate(self, size: int) -> None:
        try:
            self._disk.truncate(self._descriptor, size)
        except OSError as error:
            raise OutcomeUnknown("truncating a segment", error) from error
        self.size = size
        self.dirty = True

    def nears(self, size: int) -> bool:
        """Whether it is time to prepare the segment behind this one, which is full at that size. A small one needs none."""
        return 0 <= size - 2 * AHEAD_BYTES <= self.contents.end

    def trim(self) -> None:
        """Let the zeros end where the footer will: written over them, it changes no size that a sync must journal."""
        size = self.contents.end + self.contents.footer_bytes
        if size < self.size:
            self._truncate(size)

    def seal(self) -> int:
        """Write the footer behind the frames and make the whole segment durable. The size of the file."""
        self.trim()
        footer = self.contents.encode_footer(self.seed)
        self._disk.write(self._descriptor, [footer], self.contents.end)
        self.sync()
        return self.contents.end + len(footer)

    def close(self) -> None:
        """Let go of the file. An error says nothing of what is on the disk: what matters was synced before."""
        with suppress(OSError):
            self._disk.close(self._descriptor)


def read_header(disk: Disk, descriptor: int, path: str, store_id: bytes, first_sequence: int) -> SegmentHeader:
    """The header of a segment file. Raises CorruptionError or UnsupportedFormatError."""
    data = disk.read(descriptor, SEGMENT_HEADER_BYTES, 0)
    try:
        return SegmentHeader.decode(data, store_id, first_sequence)
    except Damage as damage:
        raise CorruptionError(path, 0, str(damage)) from None
    except Unsupported as unsupported:
        raise UnsupportedFormatError(path, str(unsupported)) from None


def is_unwritten(disk: Disk, descriptor: int) -> bool:
    """Whether a segment file holds no frame and never did: behind its header stand zeros at most."""
    offset = SEGMENT_HEADER_BYTES
    while piece := disk.read(descriptor, INDEX_STRIDE, offset):
        if piece.strip(b"\0"):
            return False
        offset += len(piece)
    return True


def read_footer(disk: Disk, descriptor: int, path: str, seed: int) -> Contents | None:
    """What the footer says; None for a file without one. Raises CorruptionError for a footer that does not check."""
    size = disk.size(descriptor)
    tail = disk.read(descriptor, TAIL_BYTES, max(size - TAIL_BYTES, 0))
    if not is_sealed(tail):
        return None
    whole = min(footer_bytes(tail), size - SEGMENT_HEADER_BYTES)
    offset = size - whole
    footer = tail[-whole:] if whole <= len(tail) else disk.read(descriptor, whole, offset)
    try:
        contents = Contents.decode_footer(footer, seed)
    except Damage as damage:
        raise CorruptionError(path, offset, str(damage)) from None
    if contents.end != offset:
        raise CorruptionError(path, offset, "the footer of the segment stands in another place than it says")
    return contents


def walk_frames(
    disk: Disk, descriptor: int, walk: Walk, end: int, progress: Callable[[int], None] = lambda size: None
) -> Iterator[tuple[int, Header, bytes]]:
    """The frames of a file up to ``end``, until one does not check (`walk.fault`). ``progress`` hears of bytes read."""
    known = walk.offset
    while known < end and walk.fault is None:
        walk.restart()  # a frame that was cut off is read again: cheaper than to join its two parts
        piece = disk.read(descriptor, min(max(READ_BYTES, walk.wanted), end - walk.offset), walk.offset)
        if walk.offset + len(piece) <= known:
            return
        progress(walk.offset + len(piece) - known)
        known = walk.offset + len(piece)
        walk.feed(piece)
        yield from walk


def frame_holding(
    disk: Disk, descriptor: int, path: str, seed: int, place: tuple[int, int], sequence: int
) -> tuple[Header, bytes]:
    """The frame that holds the sequence, found from ``place``: the sequence and the offset of it or of one before it.

    Of the frames in between only the headers are read. Raises CorruptionError or UnsupportedFormatError.
    """
    following, offset = place
    piece, begin = b"", offset  # of the file, from offset ``begin`` on
    while True:
        if offset + HEADER_BYTES > begin + len(piece):
            piece, begin = disk.read(descriptor, INDEX_STRIDE, offset), offset
        header = header_at(piece, offset - begin, seed)
        if header is None or header.first_sequence != following:
            raise CorruptionError(path, offset, _no_header(header, len(piece) + begin - offset, following))
        following = header.next_sequence
        if following > sequence:
            break
        offset += header.size
    body = piece[offset - begin + HEADER_BYTES :][: header.body_size]
    if len(body) < header.body_size:
        body = disk.read(descriptor, header.body_size, offset + HEADER_BYTES)
    if not is_sound(header, body, seed):
        raise CorruptionError(path, offset, _no_body(header, body))
    if header.flags & ~KNOWN_FLAGS:
        raise _unknown_flags(path, offset, header.flags & ~KNOWN_FLAGS)
    return header, body


def _no_header(header: Header | None, left: int, following: int) -> str:
    if header is not None:
        return f"a frame begins with sequence {header.first_sequence} instead of {following}"
    return "the header of a frame does not check" if left >= HEADER_BYTES else _TOO_EARLY


def _no_body(header: Header, body: bytes) -> str:
    if len(body) < header.body_size:
        return _TOO_EARLY
    return f"the body of the frame at sequence {header.first_sequence} does not check"


def what_stopped(path: str, walk: Walk) -> CorruptionError | UnsupportedFormatError:
    """The error for a walk that should have gone further in this file."""
    if walk.unknown_flags:
        return _unknown_flags(path, walk.offset, walk.unknown_flags)
    return CorruptionError(path, walk.offset, walk.fault or _TOO_EARLY)


def _unknown_flags(path: str, offset: int, flags: int) -> UnsupportedFormatError:
    return UnsupportedFormatError(path, f"a frame at offset {offset} has the flags {flags:#x}")
