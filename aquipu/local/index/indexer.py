"""The thread that builds the tables of sealed segments: see `table`.

It exists only while there is one to build.

It shares nothing with the journal but the disk. A build goes in slices, with rests three times as
long: it takes a quarter of the time of one core at most, and the interpreter lock never for long.
While labels are searched for, it all but stops: the search takes the segments as they are.
What it leaves undone, because the store is closed or the program ends, is done after the next
opening. A segment that cannot be indexed is reported once, and queries read it; nothing depends on
a table.

Of a segment that was written here from its beginning it is known whether any record in it has
labels. If not, its table is empty, and is written without reading the segment.

What comes from the loop takes no lock: one that an interrupt leaves behind would never be released.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from logging import getLogger
from queue import SimpleQueue
from threading import Thread
from time import monotonic, sleep
from typing import NamedTuple

from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import replace_file
from aquipu.local.read.segment_reader import SegmentRef

_log = getLogger(__name__)

_REST = 3.0  # of the time that was worked: no caller waits for a table
_QUIET = 0.05  # seconds, in which the next step of a search comes
_QUIET_REST = 0.02  # seconds at a time meanwhile


Compress = Callable[[SegmentRef, Callable[[], None]], object]
"""Compresses a sealed segment, if it is not; the second argument is to be called often."""


class _Job(NamedTuple):
    segment: SegmentRef
    behind: SegmentRef | None
    """Segment that follows one without labels: the empty table of that one needs no more."""
    anew: bool
    """Whether to build also when there is a table."""


class Indexer:
    """Builds tables in the background.

    `labelled` and `look` are for the loop thread, the others for any.
    """

    def __init__(self, disk: Disk, next_sequence: int, compress: Compress | None = None) -> None:
        """Take ``next_sequence``: records from there on are written here.

        ``compress`` is called with each sealed segment before its table is built.
        """
        self._disk = disk
        self._compress = compress
        self._known_from = next_sequence
        self._labelled = -1  # the last sequence that may have labels
        self._looked: tuple[SegmentRef, ...] = ()
        self._inbox: SimpleQueue[_Job] = SimpleQueue()
        self._right: deque[None] = deque([None], maxlen=1)  # to be the thread: one may take it out
        self._thread: Thread | None = None
        self._jobs: dict[
            int, _Job
        ] = {}  # of the thread: by first sequence, in the order in which they came
        self._hopeless: set[int] = set()  # of the thread
        self._quiet_until = 0.0
        self._stopped = False
        self._ended: Callable[[], None] | None = None

    def labelled(self, sequence: int) -> None:
        """Note that a commit with labels, from this sequence on, is about to be written."""
        self._labelled = sequence

    def look(self, segments: tuple[SegmentRef, ...]) -> None:
        """Take the segments that the log has now, and build the tables that are missing.

        Call it again when there are others; it costs nothing when there are not.
        """
        if segments is self._looked:
            return
        last = self._looked[-1].first_sequence if self._looked else -1
        self._looked = segments
        for segment, behind in pairwise(segments):
            if segment.first_sequence >= last:
                known = segment.first_sequence >= self._known_from
                empty = known and self._labelled < segment.first_sequence
                self._add(_Job(segment, behind if empty else None, anew=known))

    def due(self, segment: SegmentRef) -> None:
        """Build the table of this segment: it is missing, does not check, or does not fit."""
        self._add(_Job(segment, None, anew=True))

    def give_way(self) -> None:
        """Rest nearly all of the next moment: a search is under way, and its caller waits."""
        self._quiet_until = monotonic() + _QUIET

    def stop(self, ended: Callable[[], None] | None = None) -> bool:
        """End, and begin nothing more.

        False when nothing is under way; otherwise ``ended`` is called on the thread.
        """
        self._stopped = True
        if ended is not None:
            self._ended = ended
        thread = self._thread
        is_under_way = thread is not None and thread.is_alive()
        if not is_under_way:
            self._ended = None  # it would keep its store alive
        return is_under_way

    def _add(self, job: _Job) -> None:
        if self._stopped:
            return
        self._inbox.put(job)
        if self._take_right():
            self._thread = Thread(target=self._run, name="aquipu-index", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no more threads: the next job tries again
                self._thread = None
                self._right.append(None)

    def _take_right(self) -> bool:
        """Return whether the caller may start the thread. Only one may at a time."""
        try:
            self._right.pop()
        except IndexError:
            return False
        return True

    # on the thread

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._do(job)
            except (_Stopped, FileNotFoundError):
                pass  # the store is closing, or the segment was purged
            except Exception as error:  # whatever it is, the log goes on
                self._give_up(job, error)
            self._receive_all(job)

    def _next(self) -> _Job | None:
        """Return the next job; None, at which the thread ends, when there is none."""
        while True:
            self._receive_all()
            if self._jobs and not self._stopped:
                return self._jobs.pop(next(iter(self._jobs)))
            thread, self._thread = self._thread, None
            self._right.append(None)
            if self._stopped or self._inbox.empty() or not self._take_right():
                break
            self._thread = thread  # a job came at this moment, and was left to this thread
        if self._stopped and self._ended is not None:
            ended, self._ended = self._ended, None
            ended()
        return None

    def _receive_all(self, done: _Job | None = None) -> None:
        """Take the jobs that have come in, except those that the job ``done`` has done as well."""
        while not self._inbox.empty():
            job = self._inbox.get()
            first = job.segment.first_sequence
            is_done = (
                done is not None
                and done.segment.first_sequence == first
                and (done.anew or not job.anew)
            )
            if (
                first not in self._hopeless
                and not is_done
                and (job.anew or first not in self._jobs)
            ):
                self._jobs[first] = (
                    job  # one that was found damaged is built, though there is a table
                )

    def _do(self, job: _Job) -> None:
        from aquipu.local.format.postings import (
            BlockIndex,  # here: a program that only imports us needs none of it
        )
        from aquipu.local.index.table import build, table_path
        from aquipu.local.index.throttle import Throttle

        disk, segment, path = self._disk, job.segment, table_path(job.segment)
        if self._compress is not None:
            self._compress(segment, Throttle(_REST, self._check))
        if not job.anew and disk.exists(path):
            return
        if job.behind is not None:
            block_index = BlockIndex(job.behind.first_sequence, job.behind.header.link)
            replace_file(disk, path, [[block_index.encode(segment.header.seed)]])
        else:
            build(disk, segment, Throttle(_REST, self._check))
        if not disk.exists(
            segment.path
        ):  # purged meanwhile, and its table with it, had there been one
            disk.remove(path)

    def _check(self) -> None:
        if monotonic() < self._quiet_until and not self._stopped:
            sleep(_QUIET_REST)
        if self._stopped:
            raise _Stopped

    def _give_up(self, job: _Job, error: Exception) -> None:
        self._hopeless.add(job.segment.first_sequence)
        _log.warning(
            "no index of %s can be built, so finding by relation reads it instead; "
            "no record is lost: %s: %s",
            job.segment.path,
            type(error).__name__,
            error,
        )


class _Stopped(Exception):
    """The store is closing."""
