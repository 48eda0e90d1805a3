"""aquipu: a durable log for asyncio. ``await store.append(event)`` returns when the event is as safe as was asked for."""

from typing import TYPE_CHECKING

from aquipu.cursor import Cursor
from aquipu.disk import Disk
from aquipu.errors import (
    AquipuError,
    BatchTooLargeError,
    BufferFullError,
    CorruptionError,
    ForkedStoreError,
    NoSuchRecordError,
    NotAStoreError,
    OutcomeUnknownError,
    RecordNotWrittenError,
    RecordPurgedError,
    RecordTooLargeError,
    StoreClosedError,
    StoreFailedError,
    StoreFullError,
    StoreLockedError,
    StoreUnavailableError,
    UnsupportedFormatError,
    WrongLoopError,
)
from aquipu.follow import Follow
from aquipu.policy import Always, EveryN, OsManaged, Stage, SyncPolicy
from aquipu.purge import Purged
from aquipu.record import Receipt, Record
from aquipu.retention import Retention
from aquipu.scan import Scan
from aquipu.store import Store

if TYPE_CHECKING:
    from aquipu.daemon.remote import RemoteStore
    from aquipu.reader import Reader
    from aquipu.recovery import RecoveryReport
    from aquipu.statistics import Health, Histogram, Statistics

__all__ = [
    "Always",
    "AquipuError",
    "BatchTooLargeError",
    "BufferFullError",
    "CorruptionError",
    "Cursor",
    "Disk",
    "EveryN",
    "Follow",
    "ForkedStoreError",
    "Health",
    "Histogram",
    "NoSuchRecordError",
    "NotAStoreError",
    "OsManaged",
    "OutcomeUnknownError",
    "Purged",
    "Reader",
    "Receipt",
    "Record",
    "RecordNotWrittenError",
    "RecordPurgedError",
    "RecordTooLargeError",
    "RecoveryReport",
    "RemoteStore",
    "Retention",
    "Scan",
    "Stage",
    "Statistics",
    "Store",
    "StoreClosedError",
    "StoreFailedError",
    "StoreFullError",
    "StoreLockedError",
    "StoreUnavailableError",
    "SyncPolicy",
    "UnsupportedFormatError",
    "WrongLoopError",
]

if not TYPE_CHECKING:  # else a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        """What a program that only writes needs none of, imported when it is asked for."""
        if name == "Reader":
            from aquipu.reader import Reader

            return Reader
        if name == "RecoveryReport":
            from aquipu.recovery import RecoveryReport

            return RecoveryReport
        if name == "RemoteStore":
            from aquipu.daemon.remote import RemoteStore

            return RemoteStore
        if name in {"Health", "Histogram", "Statistics"}:
            from aquipu import statistics

            return getattr(statistics, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
