"""aquipu: a durable log for asyncio. ``await store.append(event)`` returns when the event is as safe as was asked for."""

from aquipu.cursor import Cursor
from aquipu.errors import (
    AquipuError,
    BatchTooLargeError,
    BufferFullError,
    CorruptionError,
    ForkedStoreError,
    NoSuchRecordError,
    NotAStoreError,
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
from aquipu.reader import Reader
from aquipu.record import Receipt, Record
from aquipu.recovery import RecoveryReport
from aquipu.retention import Retention
from aquipu.scan import Scan
from aquipu.store import Statistics, Store

__all__ = [
    "Always",
    "AquipuError",
    "BatchTooLargeError",
    "BufferFullError",
    "CorruptionError",
    "Cursor",
    "EveryN",
    "Follow",
    "ForkedStoreError",
    "NoSuchRecordError",
    "NotAStoreError",
    "OsManaged",
    "Purged",
    "Reader",
    "Receipt",
    "Record",
    "RecordNotWrittenError",
    "RecordPurgedError",
    "RecordTooLargeError",
    "RecoveryReport",
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
