"""Whether a store could be made of an archive: what is there is read, and compared. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from hashlib import sha256
from itertools import pairwise
from random import sample as drawn
from threading import Event
from time import monotonic, time_ns
from typing import NamedTuple, TypeVar

from aquipu.archive.agreement import check_same
from aquipu.archive.bucket import Bucket, insist
from aquipu.archive.errors import ArchiveDamagedError, ArchiveRefusedError
from aquipu.archive.fetch import (
    State,
    fetch_segment,
    fetch_young,
    read_entry,
    read_object,
    read_state,
)
from aquipu.archive.format.entry import Head, Segment
from aquipu.archive.format.keys import SEGMENTS
from aquipu.archive.format.pieces import check_segment, header_in, summary_of
from aquipu.errors import CorruptionError, RecordPurgedError
from aquipu.local.backup.pace import Stopped
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.format.names import segment_name
from aquipu.local.read.catalog import Catalog
from aquipu.local.read.snapshot import Snapshot, find

T = TypeVar("T")

_LATER_SECONDS = 2.0


class Checked(NamedTuple):
    """What was found of an archive."""

    url: str
    first_sequence: int
    next_sequence: int
    """One past the last archived record."""
    segments: int
    """Sealed segments that are archived."""
    read: int
    """How many of them were read, every frame."""
    compared: int
    """How many of these the store has as well: they are the same, unless a problem says so."""
    bytes: int
    """Bytes that were read."""
    problems: list[str]
    """One sentence for each object of which no store could be made, and what the store has not."""
    behind_records: int | None = None
    """Records of the store that are not archived; None: no store of it was given."""
    behind_seconds: float | None = None
    """Age of the oldest of these that the store keeps; 0 without any."""


class _Behind(NamedTuple):
    """How far an archive is behind its store."""

    records: int | None = None
    seconds: float | None = None


class Checking:
    """One check of an archive; ``store`` is the directory of the store that it is of, if any."""

    def __init__(
        self,
        bucket: Bucket,
        disk: Disk,
        store: str | None,
        stop: Event,
        sample: int | None,
        progress: Callable[[int], object] = lambda size: None,
    ) -> None:
        """Prepare it; of the segments ``sample`` are read, the last one among them; None: all."""
        self._bucket = bucket.until(stop)
        self._disk = disk
        self._store = store
        self._stop = stop
        self._sample = sample
        self._progress = progress
        self._problems: list[str] = []
        self._bytes = self._compared = 0

    def carry_out(self) -> Checked:
        """Check the archive.

        Raises NoArchiveError, ArchiveDamagedError for an archive of which nothing could be made,
        ArchiveUnavailableError, UnsupportedFormatError, NotAStoreError and what else reading the
        store raises, and Stopped.
        """
        state = self._ask(lambda: read_state(self._bucket))
        head, segments = state
        behind = _Behind() if self._store is None else self._check_store(self._store)
        self._problems += gaps(state)
        self._check_listing(state)
        chosen = self._chosen(segments)
        for segment in chosen:
            self._check_segment(head, segment)
        self._check_entries()
        return Checked(
            self._bucket.url,
            head.first_sequence,
            head.next_sequence,
            len(segments),
            len(chosen),
            self._compared,
            self._bytes,
            self._problems,
            *behind,
        )

    def _check_store(self, path: str) -> _Behind:
        """Look whether the archive can be gone on with from the store, and how far it is behind."""

        def look() -> _Behind:
            head, _ = state = read_state(self._bucket)
            if catalog.store_id != head.store_id:
                self._store = None  # nothing of it is the same
                there, here = head.store_id.hex(), catalog.store_id.hex()
                self._problems.append(f"it is of another store, {there}, than {path}: {here}")
                return _Behind()
            view = self._looked(catalog, head.next_sequence)
            try:
                check_same(self._bucket, state, view)
            except ArchiveRefusedError as refused:
                self._problems.append(refused.reason)
            return _behind(head.next_sequence, view)

        with closing(Catalog(self._disk, path)) as catalog:
            try:
                return self._ask(look)
            except (ArchiveDamagedError, CorruptionError) as error:
                self._problems.append(str(error))
                return _Behind()

    def _looked(self, catalog: Catalog, stop: int) -> Snapshot:
        """Look at the store; what is archived may be acknowledged a moment later."""
        view, began = catalog.look(), monotonic()
        while view.stop < stop and monotonic() < began + _LATER_SECONDS:
            if self._stop.wait(_LATER_SECONDS / 100):
                raise Stopped
            view = catalog.look()
        return view

    def _check_listing(self, state: State) -> None:
        """Look whether each object that is named is there, and as large as it should be."""
        listed = self._ask(lambda: self._bucket.list(SEGMENTS))
        for segment in state.segments:
            key = str(segment.key(state.head.store_id))
            if listed.get(key) != segment.stored:
                self._note(partial(self._read, state.head, segment))

    def _chosen(self, segments: list[Segment]) -> list[Segment]:
        if self._sample is None or self._sample >= len(segments):
            return segments
        if not self._sample:
            return []
        some = drawn(segments[:-1], self._sample - 1)
        return [*sorted(some), segments[-1]]

    def _check_segment(self, head: Head, segment: Segment) -> None:
        self._note(lambda: self._read(head, segment))
        table = segment.table_key(head.store_id)
        if table is not None:
            self._note(lambda: read_object(self._bucket, table))
        if self._store is not None:
            self._compare(self._store, head, segment)

    def _read(self, head: Head, segment: Segment) -> None:
        fetch_segment(self._bucket, head.store_id, segment)
        self._bytes += segment.stored
        self._progress(segment.stored)

    def _compare(self, store: str, head: Head, segment: Segment) -> None:
        """Compare the hash of a segment with that of the store's file, if it is still there."""
        name = f"{store}/{segment_name(segment.first_sequence)}"
        try:
            with opened(self._disk, name) as descriptor:
                data = self._disk.read(descriptor, self._disk.size(descriptor), 0)
        except FileNotFoundError:  # it was purged
            return
        self._compared += 1
        same = sha256(data).digest() == segment.sha256
        if not same:  # it may have been compressed since: then it ends with the same check
            try:
                header = header_in(name, segment.header(head.store_id), data)
                said = check_segment(name, header, data)
                same = (said.next_sequence, said.link) == (segment.next_sequence, segment.link)
            except CorruptionError as error:
                self._problems.append(str(error))
                return
        if not same:
            self._problems.append(f"{segment.key(head.store_id)} is another segment than {name}")

    def _check_entries(self) -> None:
        """Read the young parts of now, frame by frame, and the first entry."""

        def read() -> None:
            read_entry(self._bucket, 0)
            head = read_state(self._bucket).head
            if head.young:
                header, data = fetch_young(self._bucket, head)
                self._bytes += len(data)
                found = summary_of(self._bucket.url, header, data)
                if found.next_sequence != head.next_sequence:
                    raise ArchiveDamagedError(
                        self._bucket.url, f"it ends before sequence {found.next_sequence}"
                    )

        self._note(read)

    def _note(self, read: Callable[[], object]) -> None:
        try:
            with suppress(RecordPurgedError):  # of the archive, meanwhile
                self._ask(read)
        except (ArchiveDamagedError, CorruptionError) as error:
            if error.reason not in self._problems:
                self._problems.append(error.reason)

    def _ask(self, call: Callable[[], T]) -> T:
        return insist(self._bucket, call, self._stop)


def _behind(next_sequence: int, view: Snapshot) -> _Behind:
    oldest = max(next_sequence, view.start)
    if oldest >= view.stop:
        return _Behind(0, 0.0)
    waits = time_ns() - find(view._replace(start=oldest)).timestamp
    return _Behind(view.stop - next_sequence, max(waits, 0) / 1e9)


def gaps(state: State) -> Iterator[str]:
    """Yield a sentence for each place where a segment does not follow the one before it."""
    head, segments = state
    for before, behind in pairwise(segments):
        if before.next_sequence != behind.first_sequence:
            yield (
                f"sequences {before.next_sequence} to {behind.first_sequence - 1} are missing: no"
                " segment holds them"
            )
        elif before.link != behind.follows:
            yield f"segment {behind.first_sequence} does not follow the one before it"
    if segments and segments[-1].next_sequence != head.base:
        yield f"sequences {segments[-1].next_sequence} to {head.base - 1} are missing"
