"""aquipu: a durable log for asyncio. ``await store.append(event)`` returns when the event is as safe as was asked for."""

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
from aquipu.policy import Always, EveryN, OsManaged, Stage, SyncPolicy
from aquipu.record import Receipt, Record
from aquipu.recovery import RecoveryReport
from aquipu.scan import Scan
from aquipu.store import Statistics, Store

__all__ = [
    "Always",
    "AquipuError",
    "BatchTooLargeError",
    "BufferFullError",
    "CorruptionError",
    "EveryN",
    "ForkedStoreError",
    "NoSuchRecordError",
    "NotAStoreError",
    "OsManaged",
    "Receipt",
    "Record",
    "RecordNotWrittenError",
    "RecordPurgedError",
    "RecordTooLargeError",
    "RecoveryReport",
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
