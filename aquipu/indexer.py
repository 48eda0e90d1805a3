"""The thread that builds the tables of sealed segments: see `relations`. It is there only while there is one to build.

It shares nothing with the journal but the disk. A build goes in slices, with rests three times as long: it takes a quarter
of the time of one core at most, and the interpreter lock never for long. What it leaves undone, because the store is closed
or the program ends, is done after the next opening. A segment that cannot be indexed is reported once, and asked by reading
it; nothing depends on a table.

Of a segment that was written here from its beginning it is known whether any record in it has labels. If not, its table is
empty, and is written without reading the segment.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from logging import getLogger
from threading import Lock, Thread
from typing import NamedTuple

from aquipu.disk import Disk
from aquipu.journal import Extent

_log = getLogger(__name__)

_REST = 3.0  # of the time that was worked: nobody waits for a table


class _Job(NamedTuple):
    extent: Extent
    behind: Extent | None
    """The segment that follows, of one that has no labels: its empty table needs no more."""
    anew: bool
    """Also when there is a table."""


class Indexer:
    """Builds tables in the background. `labelled` and `look` are for the loop thread, the others for any."""

    def __init__(self, disk: Disk, next_sequence: int) -> None:
        """``next_sequence``: what comes from there on is written here."""
        self._disk = disk
        self._known_from = next_sequence
        self._labelled = -1  # the last sequence that may have labels
        self._looked: tuple[Extent, ...] = ()
        self._lock = Lock()  # of what follows
        self._jobs: dict[int, _Job] = {}  # by first sequence, in the order in which they came
        self._hopeless: set[int] = set()
        self._thread: Thread | None = None
        self._stopped = False
        self._ended: Callable[[], None] | None = None

    def labelled(self, sequence: int) -> None:
        """A commit that begins with this sequence is about to be written, and has labels."""
        self._labelled = sequence

    def look(self, catalogue: tuple[Extent, ...]) -> None:
        """The log has these segments now. To be called again when there are others; costs nothing when there are not."""
        if catalogue is self._looked:
            return
        last = self._looked[-1].first_sequence if self._looked else -1
        self._looked = catalogue
        for extent, behind in pairwise(catalogue):
            if extent.first_sequence >= last:
                known = extent.first_sequence >= self._known_from
                empty = known and self._labelled < extent.first_sequence
                self._add(_Job(extent, behind if empty else None, anew=known))

    def due(self, extent: Extent) -> None:
        """The table of this segment is missing, or does not check, or does not fit."""
        self._add(_Job(extent, None, anew=True))

    def stop(self, ended: Callable[[], None] = lambda: None) -> bool:
        """End, and begin nothing more. False when nothing is under way; otherwise ``ended`` is called on the thread."""
        with self._lock:
            self._stopped = True
            if self._thread is not None:
                self._ended = ended
            return self._thread is not None

    def _add(self, job: _Job) -> None:
        first = job.extent.first_sequence
        with self._lock:
            if self._stopped or first in self._hopeless:
                return
            if job.anew or first not in self._jobs:  # one that was found damaged is built, though there is a table
                self._jobs[first] = job
            if self._thread is None:
                thread = Thread(target=self._run, name="aquipu-index", daemon=True)
                with suppress(RuntimeError):  # no more threads: the next job tries again
                    thread.start()
                    self._thread = thread

    # on the thread

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._do(job)
            except (_Stopped, FileNotFoundError):
                pass  # the store is closing, or the segment was purged
            except Exception as error:  # whatever it is, the log goes on
                self._give_up(job, error)
            finally:
                with self._lock:
                    self._jobs.pop(job.extent.first_sequence, None)

    def _next(self) -> _Job | None:
        """The next job; None, and the thread is no more, when there is none."""
        with self._lock:
            if self._jobs and not self._stopped:
                return next(iter(self._jobs.values()))
            self._thread = None
            ended, self._ended = self._ended, None
        if ended is not None:
            ended()
        return None

    def _do(self, job: _Job) -> None:
        from aquipu.postings import Outline  # here: a program that only imports us needs none of it
        from aquipu.relations import build, table_path, write_table
        from aquipu.rest import Rest

        disk, extent, path = self._disk, job.extent, table_path(job.extent)
        if not job.anew and disk.exists(path):
            return
        if job.behind is not None:
            outline = Outline(job.behind.first_sequence, job.behind.header.link)
            write_table(disk, path, [[outline.encode(extent.header.seed)]])
        else:
            build(disk, extent, Rest(_REST, self._check))
        if not disk.exists(extent.path):  # purged meanwhile, and its table with it, had there been one
            disk.remove(path)

    def _check(self) -> None:
        if self._stopped:
            raise _Stopped

    def _give_up(self, job: _Job, error: Exception) -> None:
        with self._lock:
            self._hopeless.add(job.extent.first_sequence)
        _log.warning(
            "no index of %s can be built, so finding by relation reads it instead; no record is lost: %s: %s",
            job.extent.path,
            type(error).__name__,
            error,
        )


class _Stopped(Exception):
    """The store is closing."""
