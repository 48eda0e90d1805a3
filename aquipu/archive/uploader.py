"""Uploader: carries a log to its archive, beside whatever writes it. Blocking, on its own thread.

It only reads the log, and nothing waits for it. While the object store is away it goes on asking,
less and less often; what has come meanwhile goes up afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from sys import is_finalizing
from threading import Event, Timer
from time import monotonic
from typing import NamedTuple, TypeVar

from aquipu.archive.agreement import check_same, next_young, read, sealed_in, whole_segment
from aquipu.archive.bucket import Bucket, Different, Doubt, insist
from aquipu.archive.errors import ArchiveRefusedError, ArchiveUnavailableError
from aquipu.archive.fetch import State
from aquipu.archive.format.entry import (
    EntryKind,
    Head,
    Segment,
    encode_bookmarks,
    encode_list,
)
from aquipu.archive.format.keys import Kind, ObjectKey
from aquipu.archive.format.pieces import check_segment, described, frames_in
from aquipu.archive.format.plan import (
    Refused,
    Step,
    step,
)
from aquipu.archive.line import Line, Overtaken, claim
from aquipu.archive.log import Log, hold_name, may_pass
from aquipu.errors import (
    AquipuError,
    RecordPurgedError,
    StoreFullError,
    StoreUnavailableError,
)
from aquipu.local.backup.pace import Pace, Stopped
from aquipu.local.compress.blocks import compressed
from aquipu.local.format.names import relations_name
from aquipu.local.format.segment import SegmentHeader
from aquipu.local.read.snapshot import Snapshot

_PAUSE = 0.1  # seconds
_BLOCKED_PAUSE = 1.0  # seconds until a log is tried again that could not be read
_BOOKMARKS_SECONDS = 10.0
"""Between two looks at the holds and cursors."""
_LATE_TABLES = 8  # segments whose label index is looked for after they were archived

T = TypeVar("T")


class Progress(NamedTuple):
    """How far an archive has come."""

    next_sequence: int = 0
    """One past the last archived record."""
    covered: float = 0.0
    """Time by the monotonic clock: what was acknowledged by then is archived."""
    trouble: str | None = None
    """Why the last request came to nothing; None: it did not."""
    blocked: str | None = None
    """Why the log could not be read, or no hold be set; None: all went well."""
    ended: AquipuError | None = None
    """What has ended it; None: it goes on."""


class Uploader:
    """Carries one log to one archive."""

    def __init__(
        self,
        bucket: Bucket,
        log: Log,
        writer: str,
        stop: Event | None = None,
        *,
        interval: float = 1.0,
        hold: bool = False,
        compress: bool = False,
        patience: float | None = None,
        told: Callable[[Progress], object] = lambda progress: None,
    ) -> None:
        """Prepare it; ``told`` is called with each change, on its thread.

        ``hold``: nothing is to be purged that is not archived. ``compress``: full segments are to
        be compressed. ``patience`` is for how many seconds it asks an object store that is away;
        None: until ``stop`` is set.
        """
        self._stop = stop = Event() if stop is None else stop
        self._bucket = bucket.until(stop)
        self._log = log
        self._writer = writer
        self._wake, self._is_last = Event(), False
        self._interval = interval
        self._hold = hold_name(bucket.url) if hold else None
        self._held: int | None = None
        self._compress = compress
        self._patience = patience
        self._told = told
        self._line: Line | None = None
        self._view: Snapshot | None = None
        self._pace = Pace(lambda: log.next_sequence, stop)
        self._seen: tuple[int, float] | None = None  # end of the log, when it was looked at
        self._bookmarks: dict[str, bytes] | None = None  # that were put by this one
        self._bookmarked = -_BOOKMARKS_SECONDS  # when they were looked at
        self.progress = Progress(covered=monotonic())

    def follow(self) -> None:
        """Archive what there is, and what comes, until it is told to end.

        A log that cannot be read for a while, or takes no hold, is tried again. Raises what
        `catch_up` raises.
        """
        try:
            while True:
                began, is_last = monotonic(), self._is_last
                if not self._caught_up(is_last):
                    self._stop.wait(min(self._interval, _BLOCKED_PAUSE))
                elif is_last:
                    return
                else:
                    self._wake.wait(max(began + self._interval - monotonic(), 0))
                if self._stop.is_set():
                    return
        except Stopped:
            return
        except AquipuError as error:
            self._tell(ended=error)
            raise

    def finish(self, seconds: float) -> None:
        """Have `follow` archive what there is now, and end, after so many seconds at most.

        From any thread; the second time nothing is changed.
        """
        if self._is_last or is_finalizing():  # no thread begins any more: to start one hangs
            return
        timer = Timer(seconds, self._stop.set)
        timer.daemon = True
        with suppress(RuntimeError):  # the program ends
            timer.start()
        self._is_last = True
        self._wake.set()

    def catch_up(self) -> int:
        """Archive what there is now; return one past the last archived record.

        Raises ArchiveTakenError, ArchiveRefusedError, ArchiveUnavailableError,
        ArchiveDamagedError, UnsupportedFormatError, CorruptionError and StoreUnavailableError for
        the log, and Stopped.
        """
        self._catch_up(True)
        return self.progress.next_sequence

    def _caught_up(self, is_last: bool) -> bool:
        """Archive what there is now; False when the log is in the way just now."""
        try:
            self._catch_up(is_last)
        except (StoreUnavailableError, StoreFullError) as error:
            if not may_pass(error):
                raise
            doing = error.action if isinstance(error, StoreUnavailableError) else "set a hold in"
            self._tell(blocked=f"cannot {doing} {error.path}: {error.reason}")
            return False
        self._tell(blocked=None)
        return True

    def _catch_up(self, is_last: bool) -> None:
        while True:
            with suppress(Overtaken):  # the archive begins later now
                self._carry(is_last)
                return

    def _carry(self, is_last: bool) -> None:
        view, end = self._look(), None
        line = self._line or self._claimed()
        while True:
            end = view.stop if end is None else end
            log = sealed_in(view)
            try:
                next_step = step(line.head, log, view.stop)
            except Refused as refused:
                raise ArchiveRefusedError(self._bucket.url, str(refused)) from None
            if next_step is None:
                break
            try:
                self._put(next_step, line, view)
            except StoreUnavailableError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
                self._purged(line, error)  # a purge was quicker
            self._tell(next_sequence=line.head.next_sequence)
            if line.head.next_sequence >= end:
                break
            view = self._look()
        self._keep(line.head.base)
        self._put_tables(line, view)
        if is_last or monotonic() - self._bookmarked >= _BOOKMARKS_SECONDS:
            self._put_bookmarks(line)
        with suppress(Doubt, ArchiveUnavailableError):  # it takes room, and does no harm
            line.tidy()
        self._tell(next_sequence=line.head.next_sequence)

    def _purged(self, line: Line, error: StoreUnavailableError) -> None:
        """Raise unless the log begins later by now, of which the next step speaks."""
        if self._log.look().start <= line.head.base:
            raise error

    def _look(self) -> Snapshot:
        now = monotonic()
        view = self._view = self._log.look()
        if self._seen is None:
            self._seen = view.stop, now
        return view

    def _keep(self, sequence: int) -> bool:
        """Have the log keep what is not archived, and no more; False when that is gone already."""
        if self._hold is None or self._held == sequence:
            return True
        try:
            while not self._log.hold(self._hold, sequence):
                if self._stop.wait(_PAUSE):
                    raise Stopped
        except RecordPurgedError:  # the next step says so, unless that was archived
            return False
        self._held = sequence
        return True

    # the claim

    def _claimed(self) -> Line:
        while not self._keep(self._base()):  # before anything is promised
            continue
        self._line = self._insist(
            lambda: claim(
                self._bucket, self._log.store_id, self._base(), self._writer, self._check_state
            )
        )
        self._tell(next_sequence=self._line.head.next_sequence)
        return self._line

    def _base(self) -> int:
        return self._look().segments[0].first_sequence

    def _check_state(self, state: State) -> None:
        check_same(self._bucket, state, self._look())

    # what is put

    def _next_head(self, line: Line) -> Head:
        """Return the head of the next entry, as far as it is as the last one."""
        history = self._log.history()
        return line.next_head()._replace(generations=history.generations if history else ())

    def _put(self, next_step: Step, line: Line, view: Snapshot) -> None:
        if next_step is Step.SEGMENT:
            self._put_segment(line, view)
        elif next_step is Step.YOUNG:
            self._put_young(line, view)
        else:
            self._put_own(line, view)

    def _put_segment(self, line: Line, view: Snapshot) -> None:
        state = State(self._next_head(line), line.segments)
        found = self._insist(lambda: whole_segment(self._bucket, state, view))
        self._put_sealed(line, state.head, view, *found)

    def _put_own(self, line: Line, view: Snapshot) -> None:
        """Put the segment of which the archive has all records, and which the log has purged."""
        head, successor = self._next_head(line), view.segments[0].header
        header, data = self._insist(lambda: line.fetch_own(successor))
        self._put_sealed(line, head, view, self._bucket.url, header, data)

    def _put_sealed(
        self,
        line: Line,
        head: Head,
        view: Snapshot,
        path: str,
        header: SegmentHeader,
        data: bytes,
    ) -> None:
        summary = check_segment(path, header, data, self._pace.computed)
        if self._compress and summary.next_sequence > head.base and not header.plain_bytes:
            frames = frames_in(path, header, data, summary.end)
            header = header._replace(plain_bytes=len(data))
            data = self._joined(compressed(frames, header, summary))
            summary = check_segment(path, header, data, self._pace.computed)
        span = header.first_sequence, summary.next_sequence
        key = ObjectKey.of(head.store_id, *span, data, Kind.SEGMENT)
        self._put_object(key, data)
        named = described(header, summary, data, key.sha256)
        segments = [*line.segments, self._with_table(head, named, view)]
        reached = max(head.next_sequence, summary.next_sequence)
        self._put_list(
            line,
            head._replace(
                base=summary.next_sequence, next_sequence=reached, young=(), active=b"", last=None
            ),
            segments,
        )

    def _joined(self, pieces: Iterable[bytes]) -> bytes:
        made = bytearray()
        for piece in pieces:
            made += piece
            self._pace.computed()
        return bytes(made)

    def _put_tables(self, line: Line, view: Snapshot) -> None:
        """Put the label indexes that have come since their segments were archived."""
        found = list(line.segments)
        for place in range(max(len(found) - _LATE_TABLES, 0), len(found)):
            if not found[place].table_sha256:
                found[place] = self._with_table(line.head, found[place], view)
        if found != line.segments:
            self._put_list(line, self._next_head(line), found)

    def _put_list(self, line: Line, head: Head, segments: list[Segment]) -> None:
        said = head._replace(kind=EntryKind.LIST, listed=head.number)
        body = encode_list(segments)
        self._insist(lambda: line.put(said, body))
        line.segments = segments

    def _with_table(self, head: Head, named: Segment, view: Snapshot) -> Segment:
        """Return it with its label index, which is put if there is one by now."""
        directory = view.segments[-1].path.rpartition("/")[0]
        try:
            data = read(view, f"{directory}/{relations_name(named.first_sequence)}")
        except StoreUnavailableError:
            return named
        span = named.first_sequence, named.next_sequence
        key = ObjectKey.of(head.store_id, *span, data, Kind.RELATIONS)
        self._put_object(key, data)
        return named._replace(table_sha256=key.sha256, table_size=len(data))

    def _put_bookmarks(self, line: Line) -> None:
        """Put the holds and cursors, unless they are there."""
        self._bookmarked = monotonic()
        try:
            found = self._log.bookmarks()
        except StoreUnavailableError:  # the records matter more; they are looked at again
            return
        if found == self._bookmarks or not (found or line.head.marked):
            return
        head = self._next_head(line)
        said = head._replace(kind=EntryKind.BOOKMARKS, marked=head.number)
        self._insist(lambda: line.put(said, encode_bookmarks(found)))
        self._bookmarks = found

    def _put_young(self, line: Line, view: Snapshot) -> None:
        state = State(self._next_head(line), line.segments)
        said, data = self._insist(lambda: next_young(self._bucket, state, view))
        self._insist(lambda: line.put(said, data))

    def _put_object(self, key: ObjectKey, data: bytes) -> None:
        def put() -> None:
            try:
                self._bucket.put_new(str(key), data)
            except Different:  # or it is the answer that is damaged
                self._bucket.get_object(key)

        self._insist(put)

    # patience

    def _insist(self, call: Callable[[], T]) -> T:
        return insist(
            self._bucket, call, self._stop, patience=self._patience, said=self._tell_trouble
        )

    def _tell_trouble(self, trouble: str | None) -> None:
        if trouble != self.progress.trouble:
            self._tell(trouble=trouble)

    def _tell(self, **changes: object) -> None:
        before = self.progress
        now = before._replace(**changes)  # type: ignore[arg-type]
        if self._seen is not None and now.next_sequence >= self._seen[0]:
            now, self._seen = now._replace(covered=self._seen[1]), None
        if now != before:
            self.progress = now
            self._told(now)
