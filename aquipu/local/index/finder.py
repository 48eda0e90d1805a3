"""Finding records by their labels, segment by segment. Blocking, from any thread.

A sealed segment is asked through its table. Where there is none, or one that does not check or does
not fit, the segment itself is read and its postings are kept in memory; the table is then due to be
built. The same goes for the segment that is being written: once its postings are gathered, a query
reads only the frames that have come since. Without queries there is no cost.

A search (`search`) does not wait for that. It asks for `candidates`, and looks through the frames
of which nothing is known yet: to gather their postings would take twenty times as long. From the
second search on, each gathers a share of them: the first one is answered in half the time, and who
searches once has paid for no more.
"""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain
from threading import Lock
from typing import NamedTuple, Protocol, TypeVar

from aquipu.errors import AquipuError, copy_error
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.frame import labels as labels_of
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES
from aquipu.local.format.structure import Damage
from aquipu.local.index.meter import Meter, Pause
from aquipu.local.index.plan import plan
from aquipu.local.index.postings import (
    PRODUCER_MARK,
    Counted,
    PostingsBuilder,
    add_counts,
    combine,
)
from aquipu.local.index.search import Candidates
from aquipu.local.index.table import GATHERED_BYTES_MAX, Table
from aquipu.local.index.throttle import Throttle
from aquipu.local.read.frames import Place
from aquipu.local.read.segment_reader import SegmentReader, SegmentRef
from aquipu.local.read.snapshot import Snapshot
from aquipu.options import Wanted

T = TypeVar("T")

TABLES_MAX = 1000
"""Most tables that are kept open: their ends are in memory, about 50 KiB of each."""
GATHERINGS_MAX = 3
"""Most segments that have their postings in memory."""
_SHARES = 16  # of a segment, of which a search gathers one
_SHARE_BYTES_MIN = 256 * 1024
_REST = 0.25  # of the time that was worked: a caller waits for the answer


class _Source(Protocol):
    """Where labels of one segment can be looked up: `Table`, or postings in memory."""

    def size(self, label: str) -> int: ...

    def positions(self, label: str, pause: Pause) -> array[int]: ...


class Finder:
    """Finds the records of one log by their labels.

    ``due`` is called with each segment whose table is to be built, ``searching`` at each step of a
    search; both from any thread.
    """

    def __init__(
        self,
        due: Callable[[SegmentRef], None] = lambda segment: None,
        searching: Callable[[], None] = lambda: None,
    ) -> None:
        self._due = due
        self.searching = searching
        self._lock = Lock()  # of the two below; never held while a file is read
        self._tables: OrderedDict[int, Table] = OrderedDict()
        self._gathered: OrderedDict[int, _Gathered] = OrderedDict()
        self._closed: AquipuError | None = None

    def close(self, error: AquipuError) -> None:
        """End what is under way, with this error, and forget everything."""
        self._closed = error
        self._tables, self._gathered = (
            OrderedDict(),
            OrderedDict(),
        )  # no lock: an interrupt could leave it behind

    def candidates(self, view: Snapshot, segment: SegmentRef, wanted: Wanted) -> Candidates:
        """Return what is known of the sought records of a segment, without much ado.

        Of a sealed segment without a table that is nothing. The postings of the one that is being
        written are gathered a share further each time but the first, so that no search waits for
        all of them.
        """
        self.searching()
        first, behind = segment.first_sequence, view.behind(segment)
        table, pause = self._table(view, segment), self._rest()
        if table is not None and behind is not None:
            known = range(first, behind.first_sequence)
            try:
                return _planned(table, wanted, known, pause)
            except (Damage, OSError):
                self.distrust(segment)
        if behind is not None:
            return Candidates(array("I"), wanted, first)
        gathered = self._gathered_of(segment)
        with translate_os_errors(segment.path, "read"), gathered.lock:
            if not gathered.was_searched:
                gathered.was_searched = True
                return Candidates(array("I"), wanted, first)
            gathered.reach(view, view.stop, pause, share=True)
            postings = gathered.postings
            labels = (*wanted.every, *wanted.any_of)
            if postings.ceiling is not None and max(labels) >= postings.ceiling:
                return Candidates(array("I"), wanted, first)
            return _planned(postings, wanted, range(first, postings.next_sequence), pause)

    def positions(
        self, view: Snapshot, segment: SegmentRef, wanted: Wanted, *, trusting: bool = True
    ) -> array[int]:
        """Return the positions of the sought records in a segment.

        With ``trusting=False`` the segment itself is read.
        """
        pause = self._rest()

        def among(source: _Source) -> array[int]:
            return _positions(source, wanted, pause)

        table = self._table(view, segment) if trusting else None
        if table is not None:
            try:
                return among(table)
            except (Damage, OSError):
                self.distrust(segment)
        return self._of_segment(view, segment, among, pause)

    def counts(self, view: Snapshot, prefix: str) -> dict[str, int]:
        """Return the labels with this prefix, in order, and how many records carry each."""
        total: dict[str, int] = {}
        for segment in view.segments:
            self.searching()
            for counted in self._counts(view, segment, prefix, self._rest()):
                add_counts(total, counted)
        return {
            label: total[label] for label in sorted(total) if not label.startswith(PRODUCER_MARK)
        }

    def distrust(self, segment: SegmentRef) -> None:
        """Drop a table that does not fit its segment, and have it built anew."""
        with self._lock:
            self._tables.pop(segment.first_sequence, None)
        self._due(segment)

    # one segment

    def _counts(
        self, view: Snapshot, segment: SegmentRef, prefix: str, pause: Pause
    ) -> list[Counted]:
        table = self._table(view, segment)
        if table is not None:
            try:
                return list(table.counts(prefix, pause))
            except (Damage, OSError):
                self.distrust(segment)
        known = _nothing_counted(segment)
        if view.behind(segment) is None:
            gathered = self._gathered_of(segment)
            with translate_os_errors(segment.path, "read"), gathered.lock:
                gathered.reach(view, view.stop, pause, share=True)
                known = gathered.counted(prefix, pause)
        return _counted_on(view, segment, known, prefix, pause)

    def _table(self, view: Snapshot, segment: SegmentRef) -> Table | None:
        """Return the table of a sealed segment, if there is one that fits."""
        first, behind = segment.first_sequence, view.behind(segment)
        if segment.growing is not None or behind is None:
            return None
        with self._lock:
            tables = self._tables
            table = tables.get(first)
            if table is not None:
                tables.move_to_end(first)
                return table
        try:
            table = Table.open(view.disk, segment, behind.first_sequence, behind.header.link)
        except (Damage, OSError):
            self._due(segment)
            return None
        with self._lock:
            tables[first] = table
            self._gathered.pop(first, None)
            if len(tables) > TABLES_MAX:
                tables.popitem(last=False)
        return table

    def _of_segment(
        self, view: Snapshot, segment: SegmentRef, question: Callable[[_Source], T], pause: Pause
    ) -> T:
        """Ask the postings in memory, when they reach as far as may be seen."""
        gathered = self._gathered_of(segment)
        with translate_os_errors(segment.path, "read"), gathered.lock:
            return question(_Postings(view, segment, gathered, pause))

    def _gathered_of(self, segment: SegmentRef) -> _Gathered:
        with self._lock:
            known = self._gathered
            gathered = known.setdefault(segment.first_sequence, _Gathered(segment))
            known.move_to_end(segment.first_sequence)
            if len(known) > GATHERINGS_MAX:
                known.popitem(last=False)
            return gathered

    def _rest(self) -> Throttle:
        return Throttle(_REST, self._check)

    def _check(self) -> None:
        if self._closed is not None:
            raise copy_error(self._closed)


class _Gathered:
    """Postings in memory, and how far the segment has been read for them."""

    def __init__(self, segment: SegmentRef, floor: str = "") -> None:
        self.lock = Lock()
        self.was_searched = False
        """Whether a search has asked for candidates."""
        self._segment_ref = segment
        self._floor = floor
        self._begin()

    def _begin(self) -> None:
        self.postings = PostingsBuilder(
            self._segment_ref.first_sequence, floor=self._floor, bytes_max=GATHERED_BYTES_MAX
        )
        self._place = _beginning(self._segment_ref)
        self._plain_bytes = 0  # of the file in which the place is

    def reach(self, view: Snapshot, end: int, pause: Pause, *, share: bool = False) -> None:
        """Read on, up to ``end``, or a share of what lies before it. After any error, begin anew.

        To gather a share takes about as long as to look through the rest.
        """
        if self.postings.next_sequence >= end:
            return
        segment, meter = self._segment_ref, Meter(pause)
        try:
            with segment.open(view.disk) as reader:
                self._go_to(reader)
                begin = self._place[1]
                left = reader.place_before(end)[1] - begin if share else 0
                for frame in reader.frames_before(end, self._place):
                    header = frame.header
                    with frame.decoding():
                        self.postings.take(header, frame.body, meter)
                    self._place = header.next_sequence, frame.offset + header.size
                    if share and self._place[1] - begin >= max(left // _SHARES, _SHARE_BYTES_MIN):
                        break
        except BaseException:
            self._begin()
            raise

    def _go_to(self, reader: SegmentReader) -> None:
        """Go on in this file; begin anew when it was compressed: its frames stand elsewhere."""
        plain_bytes = reader.plain_bytes
        if plain_bytes != self._plain_bytes:
            self._begin()
            self._plain_bytes = plain_bytes

    def counted(self, prefix: str, pause: Pause) -> _CountedUpTo:
        """Return the labels with this prefix up to where it was read; nothing when some are out."""
        if self.postings.ceiling is not None:
            return _nothing_counted(self._segment_ref)
        known = list(self.postings.counts(prefix, pause))
        counted = ([label for label, _ in known], [count for _, count in known])
        return _CountedUpTo(self._place, self._plain_bytes, counted)


class _CountedUpTo(NamedTuple):
    """How many records carry each label, up to a place in a segment."""

    place: Place
    plain_bytes: int
    """Of the file in which the place is: when that is compressed, it is elsewhere."""
    counted: Counted


def _beginning(segment: SegmentRef) -> Place:
    return segment.first_sequence, SEGMENT_HEADER_BYTES


def _nothing_counted(segment: SegmentRef) -> _CountedUpTo:
    return _CountedUpTo(_beginning(segment), 0, ([], []))


def _counted_on(
    view: Snapshot, segment: SegmentRef, known: _CountedUpTo, prefix: str, pause: Pause
) -> list[Counted]:
    """Count the labels of a segment behind those known; all of them, when it was compressed."""
    end = view.end_of(segment)
    if known.place[0] >= end:
        return [known.counted]
    with translate_os_errors(segment.path, "read"), segment.open(view.disk) as reader:
        if reader.plain_bytes != known.plain_bytes:
            known = _nothing_counted(segment)
        return [known.counted, _counted_from(reader, end, known.place, prefix, pause)]


def _counted_from(
    reader: SegmentReader, end: int, place: Place, prefix: str, pause: Pause
) -> Counted:
    """Count the labels of a segment from a place on: a quarter of the work of gathering them."""
    counts: Counter[str] = Counter()
    for frame in reader.frames_before(end, place):
        with frame.decoding():
            carried = labels_of(frame.header, frame.body)
        # a label may stand twice at one record
        each = chain.from_iterable(map(frozenset, carried))
        counts.update([it for it in each if it.startswith(prefix)] if prefix else each)
        pause()
    return counts.keys(), counts.values()


def _planned(
    source: Table | PostingsBuilder, wanted: Wanted, known: range, pause: Pause
) -> Candidates:
    """Return what a source knows of the sought records, as far as it is worth looking that up."""
    labels, records = (*wanted.every, *wanted.any_of), len(known)
    way = plan(wanted, {label: min(source.size(label), records) for label in labels}, records)
    if way is None:
        return Candidates(array("I"), wanted, known.start)
    return Candidates(_positions(source, way.sure, pause), way.sure, known.stop)


def _positions(source: _Source, wanted: Wanted, pause: Pause) -> array[int]:
    columns = []
    for label in wanted.every:
        columns.append(source.positions(label, pause))
        if not columns[-1]:
            return columns[-1]
    if wanted.any_of:
        some = [source.positions(label, pause) for label in wanted.any_of]
        columns.append(combine(some, every=False, pause=pause))
    return combine(columns, every=True, pause=pause)


class _Postings:
    """The postings of a segment as far as a view reaches.

    They are gathered in one pass, or with very many labels in several.
    """

    def __init__(
        self, view: Snapshot, segment: SegmentRef, gathered: _Gathered, pause: Pause
    ) -> None:
        self._view = view
        self._segment_ref = segment
        self._gathered = gathered
        self._pause = pause

    def size(self, label: str) -> int:
        return self._gathered.postings.size(label)

    def positions(self, label: str, pause: Pause) -> array[int]:
        reaching = (
            postings
            for postings in self._passes()
            if postings.ceiling is None or label < postings.ceiling
        )
        return next(reaching).positions(label)

    def _passes(self) -> Iterator[PostingsBuilder]:
        gathered, end = self._gathered, self._view.end_of(self._segment_ref)
        gathered.reach(self._view, end, self._pause)
        yield gathered.postings
        while gathered.postings.ceiling is not None:
            gathered = _Gathered(self._segment_ref, gathered.postings.ceiling)
            gathered.reach(self._view, end, self._pause)
            yield gathered.postings
