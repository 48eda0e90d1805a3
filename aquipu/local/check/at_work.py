"""A store at work: what it holds, and whether that is sound, beside its writer. Blocking.

It is seen as every reader sees it (`Catalog`): up to the last record that was acknowledged when the
look began. Nothing is locked, and nobody waits: what a purge takes meanwhile is left out.
"""

from __future__ import annotations

from contextlib import closing, suppress

from aquipu.errors import CorruptionError, StoreLockedError, StoreUnavailableError
from aquipu.local.check.indexes import damaged_indexes
from aquipu.local.check.inspect import (
    Info,
    Writer,
    compressed_in,
    footer_of,
    hold_at_rest,
    inspect,
    iso_time,
    sizes_of,
)
from aquipu.local.check.verify import (
    Remaining,
    Verdict,
    damaged_bookmarks,
    damages_of,
    kept,
    note,
    readable_segments,
    verify_all,
)
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.disk.paths import is_shared
from aquipu.local.format.names import BookmarkKind, is_ours
from aquipu.local.format.structure import VERSION
from aquipu.local.read.catalog import Catalog
from aquipu.local.read.examine import verify
from aquipu.local.read.segment_reader import OnProgress, SegmentRef
from aquipu.local.read.snapshot import Snapshot, find
from aquipu.local.retain.bookmarks import list_bookmarks
from aquipu.local.retain.manifest import read_manifest


def look_into(disk: Disk, path: str) -> Info:
    """Sum up what the store holds, at rest or beside its writer; raises what `inspect` raises."""
    try:
        with hold_at_rest(disk, path):
            return inspect(disk, path)
    except StoreLockedError as locked:
        return inspect_at_work(disk, path, writer_of(path, locked.pid))


def check(disk: Disk, path: str, progress: OnProgress) -> Verdict:
    """Read every byte of a store, at rest or beside its writer; see `verify_all`."""
    try:
        with hold_at_rest(disk, path):
            return verify_all(disk, path, progress)
    except StoreLockedError as locked:
        return verify_at_work(disk, path, writer_of(path, locked.pid), progress)


def writer_of(path: str, pid: int | None) -> Writer:
    """Return what is known of the process that has the lock of a store."""
    return Writer(pid, is_shared(path))


# what it holds


def inspect_at_work(disk: Disk, path: str, writer: Writer) -> Info:
    """Sum up what the readers of a store may see.

    Raises CorruptionError, UnsupportedFormatError or StoreUnavailableError.
    """
    with closing(Catalog(disk, path)) as catalog:
        view, times = _seen(catalog)
    with translate_os_errors(path, "read"):
        size = sum(sizes_of(disk, path, is_ours).values())
        holds = list_bookmarks(disk, path, catalog.store_id, BookmarkKind.HOLD)
    return Info(
        path=path,
        store_id=catalog.store_id.hex(),
        format_version=VERSION,
        first_sequence=view.start,
        next_sequence=view.stop,
        records=view.stop - view.start,
        segments=len(view.segments),
        bytes=size,
        first_time=times[0],
        last_time=times[1],
        clean=None,
        torn_tail=None,
        holds=holds,
        compressed=compressed_in(disk, view.segments),
        writer=writer,
    )


def _seen(catalog: Catalog) -> tuple[Snapshot, tuple[str | None, str | None]]:
    """Return what may be seen, and when the first and the last record of it were accepted."""
    while True:
        view = catalog.look()
        if view.start == view.stop:
            return view, (None, None)
        try:
            return view, (_time_at(view, view.start), _time_at(view, view.stop - 1))
        except StoreUnavailableError as error:
            was_purged = isinstance(error.__cause__, FileNotFoundError)
            if not was_purged or catalog.look().start <= view.start:
                raise


def _time_at(view: Snapshot, sequence: int) -> str:
    return iso_time(find(view._replace(start=sequence, stop=sequence + 1)).timestamp)


# whether it is sound


def verify_at_work(
    disk: Disk, path: str, writer: Writer, progress: OnProgress = lambda size: None
) -> Verdict:
    """Read every byte that the readers of a store may see, and check it; see `verify_all`."""
    with translate_os_errors(path, "read"):
        sizes = sizes_of(disk, path, kept(disk, path))
        bar = Remaining(sum(sizes.values()), progress)
        seen = _Checked(disk, path, bar.read)
        seen.check()
        bar.finish()
    is_known = seen.stop is not None
    return Verdict(
        path=path,
        next_sequence=seen.stop,
        records=None if seen.stop is None else seen.stop - seen.start,
        frames=seen.frames if is_known else None,
        segments=len(sizes),
        bytes=sum(sizes.values()),
        damages=damages_of(seen.errors),
        torn_tail=None,
        writer=writer,
    )


class _Checked:
    """What a check beside a writer has come to."""

    def __init__(self, disk: Disk, path: str, progress: OnProgress) -> None:
        self.errors: list[CorruptionError] = []
        self.start = 0
        """Sequence of the first record that is kept at the end of the check."""
        self.stop: int | None = None
        """One past the last record that may be seen; None when damage hides that."""
        self.frames = 0
        self._disk = disk
        self._path = path
        self._progress = progress

    def check(self) -> None:
        """Check everything; what is damaged is in `errors`. Raises OSError."""
        try:
            with closing(Catalog(self._disk, self._path)) as catalog:
                view = catalog.look()
        except CorruptionError as error:
            self._note(error)
            for segment in readable_segments(self._disk, self._path, self.errors):
                self._note(*verify(self._disk, self._path, [segment], self._progress))
        else:
            self.start, self.stop = view.start, view.stop
            self._check_active(view.segments[-1], view.stop)
            for segment in view.segments[:-1]:
                self._check_sealed(segment)
        self._note(*damaged_bookmarks(self._disk, self._path))

    def _check_sealed(self, segment: SegmentRef) -> None:
        try:
            self._note(*verify(self._disk, self._path, [segment], self._progress))
            with suppress(CorruptionError):  # of its footer: that was found just now
                self.frames += footer_of(self._disk, segment).frames
        except FileNotFoundError:
            self.start = max(self.start, read_manifest(self._disk, self._path).first_sequence)
            if segment.first_sequence >= self.start:
                self._note(CorruptionError(segment.path, 0, "the segment is missing"))
        self._note(*damaged_indexes(self._disk, [segment]))

    def _check_active(self, segment: SegmentRef, stop: int) -> None:
        with segment.open(self._disk) as reader:
            walk = reader.walk()
            frames = reader.frames(walk, reader.size, self._progress)
            while walk.sequence < stop:
                if next(frames, None) is None:
                    break
                self.frames += 1
        if walk.sequence < stop:
            error = walk.stopped()
            if not isinstance(error, CorruptionError):
                raise error
            self._note(error)

    def _note(self, *errors: CorruptionError) -> None:
        for error in errors:
            note(self.errors, error)
