"""What can go wrong, as a tree: one class a situation.

::

    AquipuError
    ├── StoreUnavailableError    the operating system refuses a file or a directory
    ├── NotAStoreError           the path holds something that is no store
    ├── UnsupportedFormatError   written by a later version, or with a feature unknown here
    ├── CorruptionError          bytes that were safe on the disk have changed
    │   └── IncompleteCopyError      the files were copied while the store was being written
    ├── StoreLockedError         another process is writing it
    │   └── StoreAlreadyOpenError    another Store of this process is
    ├── StoreClosedError         aclose() has begun
    ├── WrongLoopError           used from an event loop that is not its own
    ├── ForkedStoreError         used in a child process, after a fork
    ├── StoreFailedError         a sync or a write failed: outcome unknown, no more is accepted
    ├── StoreFullError           no space: nothing of the commit was kept; works again with space
    ├── OutcomeUnknownError      the daemon did not answer: what was sent may be stored, or not
    ├── ConflictError            the record would not get the sequence that it was to get
    ├── StaleKeyError            a later number of the producer is stored, and this one is not known
    ├── PositionLostError        a consumer has read what is gone: the log has lost its end
    ├── BackupRefusedError       what is at the place of a backup does not go with this store
    ├── BufferFullError          append_nowait() found no room
    ├── RecordTooLargeError      one record is over max_record_bytes          (also a ValueError)
    ├── BatchTooLargeError       one append_many() is larger than the buffer  (also a ValueError)
    └── NoSuchRecordError        no record has this sequence                  (also a LookupError)
        ├── RecordPurgedError        it is older than the first record kept
        └── RecordNotWrittenError    it is not written yet

Every message says what happened, where, what was lost and what to do next, and holds no record's
data. The arguments of each class are its attributes: it can be pickled, copied and taken apart.
"""

from __future__ import annotations

from typing import TypeVar


def needed(package: str | None, extra: str) -> str:
    """Return how to call a package of an extra that is not installed, and what to do then."""
    install = f"in the checkout of aquipu, pip install -e '.[{extra}]'"  # it is on no index
    return f"{package}, which is not installed: {install}"


class AquipuError(Exception):
    """The root: ``except AquipuError`` catches everything that this package raises of its own."""


class _OfPath(Exception):
    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class _WithReason(Exception):
    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason


class StoreUnavailableError(AquipuError):
    """The operating system refused a file or a directory; the OSError is the ``__cause__``.

    Missing permission, a read-only file system, too many open files, no space for a backup, an
    input/output error. The refused call has changed nothing.
    """

    def __init__(self, path: str, action: str, reason: str) -> None:
        super().__init__(path, action, reason)
        self.path, self.action, self.reason = path, action, reason

    def __str__(self) -> str:
        return (
            f"cannot {self.action} {self.path}: {self.reason}; nothing was lost; mend that, then "
            "open the store or do this again"
        )


class NotAStoreError(_WithReason, AquipuError):
    """The path is a file, or a directory that holds something else. Nothing was written."""

    def __str__(self) -> str:
        return (
            f"{self.path} is no store: {self.reason}; nothing was written; give the directory of a "
            "store, or a new one"
        )


class UnsupportedFormatError(_WithReason, AquipuError):
    """A later version of aquipu wrote the store, or it has a feature unknown or missing here."""

    def __str__(self) -> str:
        then = "" if "pip install" in self.reason else "; open it with a newer aquipu"
        return f"{self.path}: {self.reason}; nothing was changed{then}"


class CorruptionError(AquipuError):
    """Bytes that were safe on the disk are not what was written. Nothing was changed.

    ``offset`` is the place in the file ``path``, in bytes, of the first frame or structure that
    does not check.
    """

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(path, offset, reason)
        self.path, self.offset, self.reason = path, offset, reason

    def __str__(self) -> str:
        what = f"{self.path} is damaged at offset {self.offset}: {self.reason}; nothing was changed"
        if "://" in self.path:  # in an archive; the name says with which sequence it begins
            begin = self.path.rpartition("/")[2].partition(".")[0]
            until = f" --until {int(begin)}" if begin.isdigit() else ""
            before = f"restore what comes before (`aquipu restore URL DIR{until}`)"
            return f"{what}; {before}, and ask `aquipu archive check URL --all` what else is"
        away = "copy the directory away, then restore this file from a backup"
        return f"{what}; {away}, or see `aquipu repair`"


class IncompleteCopyError(CorruptionError):
    """The files were copied, at different moments, while the store was being written."""

    def __str__(self) -> str:
        return (
            f"{self.path} does not fit at {self.offset}: {self.reason}; nothing was changed; "
            "copy it anew with `aquipu backup`, or have `aquipu repair` keep what is here"
        )


class StoreLockedError(AquipuError):
    """Another process, or another Store of this one, holds the store's lock.

    ``pid`` names the process when it is known, otherwise None.
    """

    def __init__(self, path: str, pid: int | None) -> None:
        super().__init__(path, pid)
        self.path, self.pid = path, pid

    @property
    def holder(self) -> str:
        """Who holds the lock, as messages call it."""
        return "another process" if self.pid is None else f"process {self.pid}"

    def __str__(self) -> str:
        return (
            f"{self.path} is in use by {self.holder}; nothing was changed; close it there first, "
            "or wait until it is (Store.open does, for lock_timeout seconds), or, to write it from "
            "several processes at once, open it with shared=True in each, or let `aquipu serve` "
            "write it and use Store.connect"
        )


class StoreAlreadyOpenError(StoreLockedError):
    """Another Store of this process, perhaps of another event loop, is open there."""

    def __str__(self) -> str:
        return (
            f"{self.path} is already open in this process ({self.pid}); nothing was changed; close "
            "that Store first (`await store.aclose()`), or use it, or, when its event loop has "
            "ended, drop the last reference to it"
        )


class StoreClosedError(_OfPath, AquipuError):
    """The store is closed or closing. The call did nothing; what was taken is or will be safe."""

    def __str__(self) -> str:
        return f"{self.path} is closed; this call did nothing; open the store again to go on"


class WrongLoopError(_OfPath, AquipuError):
    """The call came from another event loop than the one that opened the store, or from none."""

    def __str__(self) -> str:
        return (
            f"{self.path} belongs to another event loop than this thread runs, if it runs one; "
            "this call did nothing; ask the loop that opened it: with `await` in an `async def` "
            "endpoint or task, or, in a `def` endpoint or another worker thread, with "
            "anyio.from_thread.run(store.append, data)"
        )


class ForkedStoreError(_OfPath, AquipuError):
    """The process was forked after the store was opened; the store stays with the parent."""

    def __str__(self) -> str:
        return (
            f"{self.path} was opened before a fork and stays with the parent; "
            "this call did nothing; open it after forking"
        )


class StoreFailedError(_WithReason, AquipuError):
    """A sync or a write failed, so the store is poisoned.

    Nothing more is accepted until it is opened again, which may find the records that were under
    way, or not. The system may drop the pages of a failed sync and report success the next time, so
    it is never repeated. The OSError is the ``__cause__``. What was synced can still be read.
    """

    def __str__(self) -> str:
        return (
            f"{self.path} has failed: {self.reason}; outcome unknown for what was not yet "
            "acknowledged; mend the disk, then open the store again to see what is really there"
        )


class StoreFullError(AquipuError):
    """There was no space for a commit: nothing of it is kept, and nothing else is lost.

    ``sequence`` is the one that the first record of the refused commit would have had; the next one
    that is stored gets it. The OSError is the ``__cause__``. An append works when there is space.

    Without a ``sequence``, there was none for the small file that a purge or a hold replaces.
    """

    def __init__(self, path: str, sequence: int | None, reason: str) -> None:
        super().__init__(path, sequence, reason)
        self.path, self.sequence, self.reason = path, sequence, reason

    def __str__(self) -> str:
        if self.sequence is None:
            return (
                f"{self.path} has no space: {self.reason}; nothing was changed; free some space "
                "and do it again"
            )
        return (
            f"{self.path} has no space for the commit at sequence {self.sequence}: {self.reason}; "
            "nothing of it is kept and nothing before it is lost; free some space and append again"
        )


class OutcomeUnknownError(_WithReason, AquipuError):
    """Records were sent to a daemon, and what became of them is not known.

    The answer was lost, and the daemon could not be asked. All of them are in the log, or none is.
    Only for a store made by `Store.connect`, whose next append tries to reach the daemon again.
    """

    def __str__(self) -> str:
        return (
            f"what was sent to {self.path} may have been stored, or not: {self.reason}; nothing "
            "else was lost; read the log to see what is there before it is appended again"
        )


class BufferFullError(AquipuError):
    """``append_nowait`` found the buffer full of ``records`` and ``bytes``. It took no record."""

    def __init__(self, path: str, records: int, bytes: int) -> None:
        super().__init__(path, records, bytes)
        self.path, self.records, self.bytes = path, records, bytes

    def __str__(self) -> str:
        return (
            f"{self.path} has {self.records} records ({self.bytes} bytes) waiting for the disk and "
            "no room for more; this record was not taken; wait with append(), or open with a "
            "larger buffer"
        )


class RecordTooLargeError(AquipuError, ValueError):
    """One record holds more than ``limit`` bytes (``max_record_bytes``). It was not taken."""

    def __init__(self, path: str, size: int, limit: int) -> None:
        super().__init__(path, size, limit)
        self.path, self.size, self.limit = path, size, limit

    def __str__(self) -> str:
        return (
            f"a record of {self.size} bytes is over the limit of {self.limit} of {self.path}; it "
            "was not taken; split it, or open the store with a larger max_record_bytes"
        )


class BatchTooLargeError(AquipuError, ValueError):
    """One ``append_many`` holds more than the whole buffer can. None of its records was taken."""

    def __init__(self, path: str, records: int, bytes: int) -> None:
        super().__init__(path, records, bytes)
        self.path, self.records, self.bytes = path, records, bytes

    def __str__(self) -> str:
        return (
            f"{self.records} records of {self.bytes} bytes in one append_many are more than the "
            f"buffer of {self.path} can hold; none was taken; split the call, or open with larger "
            "buffer_records and buffer_bytes"
        )


class ConflictError(AquipuError):
    """The record would not have got the sequence that was expected, but ``next_sequence``."""

    def __init__(self, path: str, expected: int, next_sequence: int) -> None:
        super().__init__(path, expected, next_sequence)
        self.path, self.expected, self.next_sequence = path, expected, next_sequence

    def __str__(self) -> str:
        return (
            f"the next record of {self.path} gets sequence {self.next_sequence}, not "
            f"{self.expected}; nothing was written; read what has come, and decide anew"
        )


class StaleKeyError(AquipuError):
    """The producer has stored a later number, ``last``, and this one is not known: not written."""

    def __init__(self, path: str, number: int, last: int) -> None:
        super().__init__(path, number, last)
        self.path, self.number, self.last = path, number, last

    def __str__(self) -> str:
        return (
            f"{self.path} has number {self.last} of this producer, and does not know {self.number}:"
            " never stored, or purged; nothing was written; append numbers in ascending order"
        )


class PositionLostError(AquipuError):
    """A consumer has read further than its log has survived.

    A power cut has taken acknowledged records that were not yet synced (under ``Always`` there are
    none), or the store was repaired, or restored from an older copy. Others may stand at their
    sequences by now. ``sequence`` is where the consumer wanted to go on, ``resume`` where what it
    has read and what is there part: the place to go on from.

    ``resume`` is None when the store does not know the generation in which the consumer has read:
    it was in another store or copy, or before very many such losses, or the file that lists them
    was damaged.
    """

    def __init__(self, path: str, sequence: int, resume: int | None) -> None:
        super().__init__(path, sequence, resume)
        self.path, self.sequence, self.resume = path, sequence, resume

    def __str__(self) -> str:
        if self.resume is None:
            return (
                f"{self.path} does not know the generation in which this consumer has read up to "
                f"sequence {self.sequence}: it was in another store or copy, or too long ago; "
                "nothing else was lost; read it from the earliest record on, or from where you "
                "know it to be the same log"
            )
        return (
            f"{self.path} has lost its end since this consumer has read up to sequence "
            f"{self.sequence}: what it has read from {self.resume} on is not there any more, and "
            f"others may stand there now; nothing else was lost; read from {self.resume} on (a "
            "cursor: save that), and undo what was done with what is gone"
        )


class BackupRefusedError(_WithReason, AquipuError):
    """The place of a backup does not go together with this store. Nothing was written."""

    def __str__(self) -> str:
        return (
            f"{self.path} is no place for a copy of this store: {self.reason}; nothing was "
            "written; give another directory, a new one for example"
        )


class NoSuchRecordError(AquipuError, LookupError):
    """No record has the sequence that was asked for; its two kinds say why."""

    def __init__(self, path: str, sequence: int, bound: int) -> None:
        super().__init__(path, sequence, bound)
        self.path, self.sequence, self.bound = path, sequence, bound


class RecordPurgedError(NoSuchRecordError):
    """The sequence lies before ``bound``, the first sequence that the store still keeps."""

    def __str__(self) -> str:
        return (
            f"{self.path} no longer keeps sequence {self.sequence}: it was purged; nothing else "
            f"was lost; read from {self.bound} on"
        )


class RecordNotWrittenError(NoSuchRecordError):
    """The sequence is ``bound`` (the next one to be written) or beyond it."""

    def __str__(self) -> str:
        return (
            f"{self.path} has not yet stored sequence {self.sequence}; nothing was lost; ask for "
            f"one below {self.bound}, or wait until it is written"
        )


E = TypeVar("E", bound=BaseException)


def copy_error(error: E) -> E:
    """Return an equal error object of its own, with the same cause.

    Each waiter gets one: a shared exception object would collect the tracebacks of all.
    """
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy
