"""Finding by relation: at which records labels stand, asked segment by segment. Blocking, from any thread.

A sealed segment is asked through its table. Where there is none, or one that does not check or does not fit, the segment
itself is read and its postings are kept in memory; the table is then due to be built. The same goes for the segment that is
being written: its postings are gathered from the first question on, and each later one reads only the frames that have come
since. A log that nobody asks costs nothing.

The log is the truth: a record that was found is given only if it carries what was sought.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator
from threading import Lock
from typing import NamedTuple, Protocol, TypeVar

from aquipu.disk import explained, opened
from aquipu.errors import AquipuError, CorruptionError, twin
from aquipu.journal import Extent
from aquipu.layout import SEGMENT_HEADER_BYTES, Damage, Index
from aquipu.postings import Gathering, Pace, Pause, combine, summed
from aquipu.record import Record
from aquipu.relations import GATHERED_BYTES_MAX, Table
from aquipu.rest import Rest
from aquipu.segment import frame_holding
from aquipu.view import View, frames_from, place_in, record_in, records_in

T = TypeVar("T")

TABLES_MAX = 1000
"""How many tables are kept open: their ends are in memory, about 50 KiB of each."""
GATHERINGS_MAX = 3
"""How many segments may have their postings in memory."""
_REST = 0.25  # of the time that was worked: somebody waits for the answer


class Wanted(NamedTuple):
    """A record is sought when it carries every one of these labels, and any of those (if there are any)."""

    every: tuple[str, ...]
    any_of: tuple[str, ...]

    def fits(self, record: Record) -> bool:
        carried = record.relations
        return all(label in carried for label in self.every) and (
            not self.any_of or any(label in carried for label in self.any_of)
        )


class _Source(Protocol):
    """Where labels of one segment can be looked up: `Table`, or postings in memory."""

    def positions(self, label: str, pause: Pause) -> array[int]: ...

    def counts(self, prefix: str, pause: Pause) -> Iterator[tuple[str, int]]: ...


class Finder:
    """Answers for one log. ``due`` is told of each segment whose table is to be built, from whatever thread."""

    def __init__(self, due: Callable[[Extent], None] = lambda extent: None) -> None:
        self._due = due
        self._lock = Lock()  # of the two below; never held while a file is read
        self._tables: OrderedDict[int, Table] = OrderedDict()
        self._gathered: OrderedDict[int, _Gathered] = OrderedDict()
        self._closed: AquipuError | None = None

    def close(self, error: AquipuError) -> None:
        """End what is under way, with this error, and forget everything."""
        self._closed = error
        with self._lock:
            self._tables.clear()
            self._gathered.clear()

    def positions(self, view: View, extent: Extent, wanted: Wanted, *, trusting: bool = True) -> array[int]:
        """Where the sought records stand in a segment. With ``trusting=False`` the segment itself is read."""
        pause = self._rest()

        def among(source: _Source) -> array[int]:
            columns = []
            for label in wanted.every:
                columns.append(source.positions(label, pause))
                if not columns[-1]:
                    return columns[-1]
            if wanted.any_of:
                some = [source.positions(label, pause) for label in wanted.any_of]
                columns.append(combine(some, every=False, pause=pause))
            return combine(columns, every=True, pause=pause)

        table = self._table(view, extent) if trusting else None
        if table is not None:
            try:
                return among(table)
            except (Damage, OSError):
                self.distrust(extent)
        return self._of_segment(view, extent, among, pause)

    def counts(self, view: View, prefix: str) -> dict[str, int]:
        """The labels that begin so, in order, and how many records of the view carry each."""
        damaged: set[int] = set()
        pause = self._rest()
        while True:
            try:
                return dict(summed([self._counts(view, extent, prefix, damaged, pause) for extent in view.extents]))
            except _Distrusted:
                continue  # of what is damaged now, the segment is read

    def distrust(self, extent: Extent) -> None:
        """A table does not say what stands in its segment."""
        with self._lock:
            self._tables.pop(extent.first_sequence, None)
        self._due(extent)

    # one segment

    def _counts(
        self, view: View, extent: Extent, prefix: str, damaged: set[int], pause: Pause
    ) -> Iterator[tuple[str, int]]:
        table = None if extent.first_sequence in damaged else self._table(view, extent)
        if table is not None:
            return self._trusting(extent, table.counts(prefix, pause), damaged)
        return iter(self._of_segment(view, extent, lambda source: list(source.counts(prefix, pause)), pause))

    def _trusting(self, extent: Extent, counts: Iterator[tuple[str, int]], damaged: set[int]) -> Iterator[tuple[str, int]]:
        try:
            yield from counts
        except (Damage, OSError):
            self.distrust(extent)
            damaged.add(extent.first_sequence)
            raise _Distrusted from None

    def _table(self, view: View, extent: Extent) -> Table | None:
        """The table of a sealed segment, if there is one that fits."""
        first, behind = extent.first_sequence, view.behind(extent)
        if extent.growing is not None or behind is None:
            return None
        with self._lock:
            table = self._tables.get(first)
            if table is not None:
                self._tables.move_to_end(first)
                return table
        try:
            table = Table.open(view.disk, extent, behind.first_sequence, behind.header.link)
        except (Damage, OSError):
            self._due(extent)
            return None
        with self._lock:
            self._tables[first] = table
            self._gathered.pop(first, None)
            if len(self._tables) > TABLES_MAX:
                self._tables.popitem(last=False)
        return table

    def _of_segment(self, view: View, extent: Extent, question: Callable[[_Source], T], pause: Pause) -> T:
        """Ask the postings in memory, when they reach as far as may be seen."""
        with self._lock:
            gathered = self._gathered.setdefault(extent.first_sequence, _Gathered(extent))
            self._gathered.move_to_end(extent.first_sequence)
            if len(self._gathered) > GATHERINGS_MAX:
                self._gathered.popitem(last=False)
        with explained(extent.path, "read"), gathered.lock:
            return question(_Postings(view, extent, gathered, pause))

    def _rest(self) -> Rest:
        return Rest(_REST, self._check)

    def _check(self) -> None:
        if self._closed is not None:
            raise twin(self._closed)


class _Distrusted(Exception):
    """A table was found damaged while it was read: ask once more."""


class _Gathered:
    """Postings in memory, and how far the segment has been read for them."""

    def __init__(self, extent: Extent, floor: str = "") -> None:
        self.lock = Lock()
        self._extent = extent
        self._floor = floor
        self._begin()

    def _begin(self) -> None:
        self.postings = Gathering(self._extent.first_sequence, floor=self._floor, bytes_max=GATHERED_BYTES_MAX)
        self._place = (self._extent.first_sequence, SEGMENT_HEADER_BYTES)

    def reach(self, view: View, end: int, pause: Pause) -> None:
        """Read on, up to ``end``. After any error it begins anew."""
        if self.postings.next_sequence >= end:
            return
        extent, pace = self._extent, Pace(pause)
        try:
            with opened(view.disk, extent.path) as descriptor:
                for offset, header, body in frames_from(view.disk, descriptor, extent, self._place, end):
                    try:
                        self.postings.take(header, body, pace)
                    except ValueError as error:
                        raise CorruptionError(extent.path, offset, str(error)) from None
                    self._place = header.next_sequence, offset + header.size
        except BaseException:
            self._begin()
            raise


class _Postings:
    """The postings of a segment as far as a view reaches: in one gathering, or of very many labels in several passes."""

    def __init__(self, view: View, extent: Extent, gathered: _Gathered, pause: Pause) -> None:
        self._view = view
        self._extent = extent
        self._gathered = gathered
        self._pause = pause

    def positions(self, label: str, pause: Pause) -> array[int]:
        reaching = (postings for postings in self._passes() if postings.ceiling is None or label < postings.ceiling)
        return next(reaching).positions(label)

    def counts(self, prefix: str, pause: Pause) -> Iterator[tuple[str, int]]:
        for postings in self._passes():
            yield from postings.counts(prefix, pause)

    def _passes(self) -> Iterator[Gathering]:
        gathered, end = self._gathered, self._view.end_of(self._extent)
        gathered.reach(self._view, end, self._pause)
        yield gathered.postings
        while gathered.postings.ceiling is not None:
            gathered = _Gathered(self._extent, gathered.postings.ceiling)
            gathered.reach(self._view, end, self._pause)
            yield gathered.postings


class Search:
    """What a scan by relation asks: see `scan.Search`."""

    def __init__(self, finder: Finder, wanted: Wanted) -> None:
        self._finder = finder
        self._wanted = wanted

    def found(self, view: View, extent: Extent, start: int, stop: int) -> array[int]:
        """Where the sought records stand, of those from start up to stop: sequences less the segment's first one."""
        return self._between(self._finder.positions(view, extent, self._wanted), extent, start, stop)

    def read(self, view: View, extent: Extent, descriptor: int, index: Index, found: array[int]) -> list[Record]:
        """The records at these positions, which stand in one stride.

        When the table was wrong, those of the stride that are sought.
        """
        first = extent.first_sequence
        records = _records_at(view, extent, descriptor, index, found)
        if all(map(self._wanted.fits, records)):
            return records
        self._finder.distrust(extent)
        positions = self._finder.positions(view, extent, self._wanted, trusting=False)
        found = self._between(positions, extent, first + found[0], first + found[-1] + 1)
        return _records_at(view, extent, descriptor, index, found)

    def _between(self, positions: array[int], extent: Extent, start: int, stop: int) -> array[int]:
        first = extent.first_sequence
        return positions[bisect_left(positions, start - first) : bisect_left(positions, stop - first)]


def _records_at(view: View, extent: Extent, descriptor: int, index: Index, found: array[int]) -> list[Record]:
    """The records at these positions, which stand in one stride of the segment."""
    if not found:
        return []
    disk, first = view.disk, extent.first_sequence
    place = place_in(index, extent, first + found[0])
    if len(found) == 1:  # of the frames before it the headers are enough
        header, body = frame_holding(disk, descriptor, extent.path, extent.header.seed, place, first + found[0])
        return [record_in(extent, place[1], header, body, first + found[0])]
    entry = bisect_left(index.offsets, place[1]) + 1
    size = index.offsets[entry] if entry < len(index.offsets) else None
    records: list[Record] = []
    for offset, header, body in frames_from(disk, descriptor, extent, place, first + found[-1] + 1, size):
        some = found[len(records) : bisect_left(found, header.next_sequence - first)]
        if some:
            of_frame = records_in(extent, offset, header, body)
            records += [of_frame[first + position - header.first_sequence] for position in some]
    return records
