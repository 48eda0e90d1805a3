"""A damaged store made whole: what is damaged is found, then what to do is decided, then it is done. Blocking.

`repairing` takes the lock and gives the `Repair`: what is damaged, and what would be done, as steps. Nothing is changed
before `Repair.carry_out`.

=====================================================  ================================================================
damaged                                                done
=====================================================  ================================================================
frames of a segment                                    the segment is written anew, every sound frame as it was, and
                                                       stand-ins where a frame is lost (see `lost`)
the header or the footer of a segment                  made anew from its neighbours and its frames
a segment is missing                                   made of stand-ins: what lies behind stays readable
the last one is missing, or its end, and the manifest  stand-ins up to where the manifest proves the log to have
says that there was more                               reached; what came after that, nobody knows
the manifest                                           made anew from the segments
a hold or a cursor                                     set to the first record kept: everything is held, and the consumer
                                                       reads everything again
the index of a segment                                 removed: it is derived from the segment, and built again
=====================================================  ================================================================

The rules: the damaged bytes are put aside first, durably, in a ``.cut-`` file beside. Then the file is replaced as a whole,
durably, or removed. So after a crash each file is the damaged one or the sound one, and repairing goes on from there. What
is sound is never written to; a torn tail is left to the next opening.

Not healed: segments that overlap, a store of which no segment tells whose it is, and what the disk cannot read at all.

Downsides: a damaged segment is read whole into memory, and needs its size once more on the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, pairwise, zip_longest
from typing import NamedTuple

from aquipu.bookmark import read_bookmark
from aquipu.disk import Disk, explained, opened, process_id
from aquipu.durable import OutcomeUnknown, put_aside, sync_directory, write_whole
from aquipu.errors import CorruptionError, NotAStoreError, StoreLockedError, StoreUnavailableError, UnsupportedFormatError
from aquipu.frame import header_at
from aquipu.indexes import damaged_indexes
from aquipu.journal import Extent
from aquipu.layout import (
    ACKNOWLEDGED,
    MANIFEST,
    SEGMENT_HEADER_BYTES,
    Bookmark,
    Contents,
    Damage,
    Manifest,
    SegmentHeader,
    Unsupported,
    bookmark_in_the_making,
    bookmark_of,
    cut_name,
    first_sequence_of,
    relations_name,
    seed_of,
    segment_name,
    whole_cut_name,
)
from aquipu.lock import Lock, holder_of
from aquipu.lost import End, Healed, Hole, heal, stand_ins
from aquipu.manifest import read_manifest
from aquipu.recovery import Progress, check_place, examine, verify
from aquipu.segment import is_unwritten, read_footer, read_header


@dataclass(frozen=True, slots=True)
class Mended:
    """One damage, and what is, or would be, done about it."""

    path: str
    """The damaged file."""
    offset: int
    bytes: int
    """That do not check."""
    reason: str
    action: str
    kept_in: str | None
    """The file that keeps the damaged bytes; None as long as nothing is done, and where there are none."""
    lost_from: int | None
    """The sequence of the first record that is lost; None for none."""
    lost_before: int | None
    """One past the last."""

    @property
    def lost(self) -> int:
        """How many records."""
        return 0 if self.lost_from is None or self.lost_before is None else self.lost_before - self.lost_from


class Step(NamedTuple):
    """One file that is replaced, or removed, as a whole."""

    name: str
    mended: tuple[Mended, ...]
    content: Callable[[], bytes] | None
    """The bytes of the new file; None: the file is removed."""
    cut_name: Callable[[int, int], str] | None = None
    """The file that keeps damaged bytes, by offset and number; None: they are worth nothing."""
    stale_index: str | None = None
    """An index that speaks of what is replaced: it goes first."""
    unnamed: str | None = None
    """What the new file is called until it is whole, if that is special."""


class Repair:
    """What is damaged in a store that is locked, and what is to be done."""

    def __init__(self, disk: Disk, path: str, progress: Progress) -> None:
        self.path = path
        self._disk = disk
        self._steps = plan(disk, path, progress)

    @property
    def plan(self) -> list[Mended]:
        """What would be done. Nothing: the store is sound."""
        return [mended for step in self._steps for mended in step.mended]

    def carry_out(self, progress: Progress = lambda size: None) -> list[Mended]:
        """Do it, and read everything once more. What was done.

        Raises CorruptionError when that is not enough, StoreUnavailableError.
        """
        with _explained(self.path):
            done = [mended for step in self._steps for mended in _take(self._disk, self.path, step)]
            left = plan(self._disk, self.path, progress)
        if left:
            worst = left[0].mended[0]
            raise CorruptionError(worst.path, worst.offset, f"{worst.reason}; repairing it did not help")
        return done


@contextmanager
def repairing(disk: Disk, path: str, progress: Progress = lambda size: None) -> Iterator[Repair]:
    """Find out what is to be repaired, and keep everyone from the store until the end.

    Raises NotAStoreError, StoreLockedError, StoreUnavailableError, UnsupportedFormatError, and CorruptionError for damage
    that cannot be repaired here. ``progress`` hears of bytes that were read.
    """
    if not disk.exists(path):
        raise NotAStoreError(path, "there is nothing of this name")
    with suppress(CorruptionError):  # that is what we are here for
        check_place(disk, path)
    with explained(path, "lock"):
        if not any(name == MANIFEST or first_sequence_of(name) is not None for name in disk.list(path)):
            raise NotAStoreError(path, "the directory holds none")
        lock = Lock.take(disk, path)
    if lock is None:
        raise StoreLockedError(path, holder_of(disk, path))
    try:
        with _explained(path):
            repair = Repair(disk, path, progress)
        yield repair
    finally:
        lock.release()


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        with explained(path, "repair"):
            yield
    except OutcomeUnknown as unknown:
        reason = f"{unknown.doing}: {unknown.error.strerror}"
        raise StoreUnavailableError(path, "repair", reason) from unknown.error


# deciding


def plan(disk: Disk, path: str, progress: Progress = lambda size: None) -> list[Step]:
    """What is to be done, in this order; nothing for a sound store. Changes nothing."""
    steps: list[Step] = []
    try:
        findings = examine(disk, path)
        if findings is None:
            raise NotAStoreError(path, "the directory holds none")
        manifest = findings.manifest
    except CorruptionError:
        findings = None
        manifest, manifest_steps = _plan_manifest(disk, path)
        steps += manifest_steps
    chain = _Chain(disk, path, manifest, progress)
    steps += chain.plan() if findings is None else chain.plan_sealed(len(findings.sealed))
    steps += _plan_bookmarks(disk, path, manifest)
    return steps


def _plan_manifest(disk: Disk, path: str) -> tuple[Manifest, list[Step]]:
    """The manifest of the store, made anew if need be. Raises CorruptionError when the segments do not tell enough."""
    name = f"{path}/{MANIFEST}"
    try:
        return read_manifest(disk, path), []
    except FileNotFoundError:
        size, reason = 0, "the manifest is missing"
    except CorruptionError as error:
        size, reason = _size(disk, name), error.reason
    firsts = _firsts(disk, path)
    store_ids = {store_id for first in firsts if (store_id := _store_id(disk, path, first)) is not None}
    if len(store_ids) != 1:
        raise CorruptionError(name, 0, f"{reason}, and the segments do not tell which store this is")
    # The last segment may be what is left of a roll, so only what lies before the last but one was surely synced.
    manifest = Manifest(store_ids.pop(), firsts[0], firsts[-2:][0])
    action = f"made anew from the segments: the log begins at sequence {firsts[0]}"
    mended = Mended(name, 0, size, reason, action, None, None, None)
    return manifest, [Step(MANIFEST, (mended,), manifest.encode, _cut_beside(MANIFEST))]


def _store_id(disk: Disk, path: str, first: int) -> bytes | None:
    """The id of the store that a segment says to belong to, if its header is sound."""
    with opened(disk, f"{path}/{segment_name(first)}") as descriptor:
        data = disk.read(descriptor, SEGMENT_HEADER_BYTES, 0)
    try:
        return SegmentHeader.decode(data, data[16:32], first).store_id
    except Damage:
        return None
    except Unsupported as unsupported:
        raise UnsupportedFormatError(f"{path}/{segment_name(first)}", str(unsupported)) from None


def _plan_bookmarks(disk: Disk, path: str, manifest: Manifest) -> Iterator[Step]:
    for name in sorted(disk.list(path)):
        bookmark = bookmark_of(name)
        if bookmark is None:
            continue
        try:
            read_bookmark(disk, path, manifest.store_id, *bookmark)
        except CorruptionError as error:
            anew = Bookmark(manifest.store_id, name, manifest.first_sequence)
            action = f"set to the first record kept, sequence {manifest.first_sequence}"
            mended = Mended(error.path, 0, _size(disk, error.path), error.reason, action, None, None, None)
            unnamed = bookmark_in_the_making(name, process_id(), 0)
            yield Step(name, (mended,), anew.encode, _cut_beside(name), unnamed=unnamed)


class _Part(NamedTuple):
    """A segment file, and what of it is sound."""

    first: int
    path: str
    size: int
    header: SegmentHeader | None
    header_fault: str
    footer: Contents | None
    footer_fault: str
    link: int | None
    """The check of the last frame before it, as its header or its first frame says."""
    is_empty: bool
    """It holds no frame, and never did."""


class _Chain:
    """The segments of a store, the oldest first: each one goes on where the one before ends."""

    def __init__(self, disk: Disk, path: str, manifest: Manifest, progress: Progress) -> None:
        self._disk = disk
        self._path = path
        self._manifest = manifest
        self._progress = progress
        firsts = [first for first in _firsts(disk, path) if first >= manifest.first_sequence]
        self._parts = [_part(disk, path, manifest.store_id, first) for first in firsts]
        self._before: Contents | None = None

    @property
    def _expected(self) -> int:
        return self._manifest.first_sequence if self._before is None else self._before.next_sequence

    def plan_sealed(self, number: int) -> Iterator[Step]:
        """Of a store that can be opened: what only reading the sealed segments shows, which are so many."""
        for part, following in islice(pairwise(self._parts), number):
            end = self._end_of(part, following)
            assert end is not None, "it was examined as sealed"
            yield from self._plan_sealed(part, end)

    def plan(self) -> Iterator[Step]:
        """Of a store that cannot be opened."""
        for part, following in zip_longest(self._parts, self._parts[1:]):
            if part.first < self._expected:
                raise CorruptionError(
                    part.path, 0, f"the segment overlaps the one before it, which ends at {self._expected}"
                )
            if part.first > self._expected:
                yield self._missing(part.first, part.link, is_last=False)
            end = self._end_of(part, following)
            if end is None:
                yield from self._plan_active(part, following)
                return
            yield from self._plan_sealed(part, end)
        yield self._missing(max(self._manifest.synced_sequence, self._expected), None, is_last=True)

    def _end_of(self, part: _Part, following: _Part | None) -> End | None:
        """Where the frames of a segment end, as its footer says and the one behind it; None for the one being written."""
        footer = part.footer
        if following is None or (footer is None and following is self._parts[-1] and following.is_empty):
            return None if footer is None else End(footer.next_sequence, footer.link)
        if footer is None:
            return End(following.first, following.link)
        if footer.next_sequence != following.first or following.link is None:  # another one, between them, is missing
            return End(footer.next_sequence, footer.link)
        return End(following.first, following.link)

    def _plan_sealed(self, part: _Part, end: End) -> Iterator[Step]:
        footer, reason = part.footer, part.footer_fault
        if part.header is not None and footer is not None and end == (footer.next_sequence, footer.link):
            extent = Extent(part.first, part.path, part.header, None)
            errors = list(verify(self._disk, self._path, [extent], self._progress))
            if not errors:
                self._before = footer
                yield from self._plan_index(extent)
                return
            reason = errors[0].reason
        header = self._header(part)
        healed = self._healed(part, header, end)
        self._before = healed.contents
        holes = healed.holes
        if part.header is not None and not holes:  # what is left is the footer: missing, or it does not fit
            offset = part.size if footer is None else footer.end
            holes = [Hole(offset, part.size - offset, reason, end.next_sequence, end.next_sequence)]
        yield self._replaced(part, holes, partial(self._sealed_bytes, part, header, end))

    def _plan_active(self, part: _Part, following: _Part | None) -> Iterator[Step]:
        """The segment that was being written. What may stand behind it is a roll that was cut short."""
        header = self._header(part)
        healed = self._healed(part, header, None)
        if part.header is None or healed.holes:
            yield self._replaced(part, healed.holes, partial(self._active_bytes, part, header))
        if following is not None and following.header is None:
            action = "removed: it never held a record"
            mended = Mended(following.path, 0, following.size, following.header_fault, action, None, None, None)
            yield Step(segment_name(following.first), (mended,), None, partial(cut_name, following.first))

    def _plan_index(self, extent: Extent) -> Iterator[Step]:
        for error in damaged_indexes(self._disk, [extent]):
            action = "removed: it is built again from its segment"
            mended = Mended(error.path, 0, _size(self._disk, error.path), error.reason, action, None, None, None)
            yield Step(relations_name(extent.first_sequence), (mended,), None)

    def _missing(self, stop: int, target: int | None, *, is_last: bool) -> Step:
        """A segment that is not there, made of stand-ins. ``target`` is the check that its last frame must have."""
        first, before = self._expected, self._before
        time, link = (before.last_time, before.link) if before is not None else (0, 0)
        header = SegmentHeader(self._manifest.store_id, first, time, link)
        contents, frames = Contents(first, link), []
        for records, frame in stand_ins(first, stop, time=time, link=link, target=target, seed=header.seed):
            contents.take(contents.next_sequence, records, time, frame.size, frame.check)
            frames += frame.buffers
        self._before = contents
        footer = b"" if is_last else contents.encode_footer(header.seed)
        name = segment_name(first)
        action = "made anew, with empty records for those that are lost" if first < stop else "made anew, without a record"
        lost = (first, stop) if first < stop else (None, None)
        mended = Mended(f"{self._path}/{name}", 0, 0, "the segment is missing", action, None, *lost)
        data = b"".join((header.encode(), *frames, footer))
        return Step(name, (mended,), lambda: data, stale_index=relations_name(first))

    def _header(self, part: _Part) -> SegmentHeader:
        """Its own, or one made anew: when it was created, nobody asks but for the time of the last record before it."""
        if part.header is not None:
            return part.header
        time, link = (self._before.last_time, self._before.link) if self._before is not None else (0, 0)
        return SegmentHeader(self._manifest.store_id, part.first, time, link if part.link is None else part.link)

    def _replaced(self, part: _Part, holes: list[Hole], content: Callable[[], bytes]) -> Step:
        mended = [_mended(part.path, hole) for hole in holes]
        if part.header is None:
            size, action = min(part.size, SEGMENT_HEADER_BYTES), "made anew from what stands around it"
            mended.insert(0, Mended(part.path, 0, size, part.header_fault, action, None, None, None))
        kept = partial(cut_name, part.first)
        return Step(segment_name(part.first), tuple(mended), content, kept, stale_index=relations_name(part.first))

    def _healed(self, part: _Part, header: SegmentHeader, end: End | None) -> Healed:
        with opened(self._disk, part.path) as descriptor:
            data = self._disk.read(descriptor, part.size, 0).ljust(SEGMENT_HEADER_BYTES, b"\0")
        if end is not None and part.footer is not None:
            data = data[: part.footer.end]
        try:
            return heal(data, header, end=end, proven=self._manifest.synced_sequence)
        except Unsupported as unsupported:
            raise UnsupportedFormatError(part.path, str(unsupported)) from None

    def _sealed_bytes(self, part: _Part, header: SegmentHeader, end: End) -> bytes:
        healed = self._healed(part, header, end)
        return healed.data + healed.contents.encode_footer(header.seed)

    def _active_bytes(self, part: _Part, header: SegmentHeader) -> bytes:
        healed = self._healed(part, header, None)
        return healed.data + healed.tail


def _mended(path: str, hole: Hole) -> Mended:
    if hole.first_sequence == hole.next_sequence:
        return Mended(path, hole.offset, hole.size, hole.reason, "made anew: no record is lost", None, None, None)
    action = "empty records stand in for those that are lost"
    return Mended(path, hole.offset, hole.size, hole.reason, action, None, hole.first_sequence, hole.next_sequence)


# looking


def _part(disk: Disk, path: str, store_id: bytes, first: int) -> _Part:
    name, seed = f"{path}/{segment_name(first)}", seed_of(store_id, first)
    header, header_fault, footer, footer_fault = None, "", None, "the footer of a sealed segment is missing"
    with opened(disk, name) as descriptor:
        size = disk.size(descriptor)
        try:
            header = read_header(disk, descriptor, name, store_id, first)
        except CorruptionError as error:
            header_fault = error.reason
        try:
            footer = read_footer(disk, descriptor, name, seed)
        except CorruptionError as error:
            footer_fault = error.reason
        frame = header_at(disk.read(descriptor, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES), 0, seed)
        is_empty = is_unwritten(disk, descriptor)
    link = header.link if header is not None else frame.link if frame is not None else None
    return _Part(first, name, size, header, header_fault, footer, footer_fault, link, is_empty)


def _firsts(disk: Disk, path: str) -> list[int]:
    return sorted(first for name in disk.list(path) if (first := first_sequence_of(name)) is not None)


def _size(disk: Disk, path: str) -> int:
    with opened(disk, path) as descriptor:
        return disk.size(descriptor)


def _cut_beside(name: str) -> Callable[[int, int], str]:
    return lambda offset, number: whole_cut_name(name, number, offset)


# acting


def _take(disk: Disk, path: str, step: Step) -> list[Mended]:
    """Do one step. It is durable when this returns."""
    name = f"{path}/{step.name}"
    done = [_kept(disk, path, mended, step.cut_name) for mended in step.mended]
    if step.stale_index is not None:
        _remove(disk, f"{path}/{step.stale_index}")
        _remove(disk, f"{path}/{ACKNOWLEDGED}")  # what it says of the log may no longer hold
    if step.content is None:
        _remove(disk, name)
    else:
        write_whole(disk, name, step.content(), unnamed=step.unnamed and f"{path}/{step.unnamed}")
    return done


def _kept(disk: Disk, path: str, mended: Mended, name_of: Callable[[int, int], str] | None) -> Mended:
    """Put the damaged bytes aside, if there are any, and say where."""
    if not mended.bytes or name_of is None:
        return mended
    with opened(disk, mended.path) as descriptor:
        data = disk.read(descriptor, mended.bytes, mended.offset)
    return replace(mended, kept_in=put_aside(disk, path, partial(name_of, mended.offset), data))


def _remove(disk: Disk, name: str) -> None:
    if disk.exists(name):
        disk.remove(name)
        sync_directory(disk, name.rpartition("/")[0])
