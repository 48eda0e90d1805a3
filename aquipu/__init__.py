"""A durable log for asyncio.

``await store.append(event)`` returns when the event is as safe as was asked for.
"""

from typing import TYPE_CHECKING

from aquipu.errors import (
    AquipuError,
    BackupRefusedError,
    BatchTooLargeError,
    BufferFullError,
    ConflictError,
    CorruptionError,
    ForkedStoreError,
    IncompleteCopyError,
    NoSuchRecordError,
    NotAStoreError,
    OutcomeUnknownError,
    PositionLostError,
    RecordNotWrittenError,
    RecordPurgedError,
    RecordTooLargeError,
    StaleKeyError,
    StoreAlreadyOpenError,
    StoreClosedError,
    StoreFailedError,
    StoreFullError,
    StoreLockedError,
    StoreUnavailableError,
    UnsupportedFormatError,
    WrongLoopError,
)
from aquipu.local.disk.disk import Disk
from aquipu.local.retain.retention import Retention
from aquipu.policy import Always, EveryN, OsManaged, Stage, SyncPolicy
from aquipu.reading import Cursor, Follow, Scan
from aquipu.record import Backup, Page, Position, Purged, Receipt, Record
from aquipu.statistics import Health, Histogram, Statistics
from aquipu.store import Store

if TYPE_CHECKING:
    from aquipu.archive.archive import Archive
    from aquipu.archive.errors import (
        ArchiveDamagedError,
        ArchiveError,
        ArchiveRefusedError,
        ArchiveTakenError,
        ArchiveUnavailableError,
        NoArchiveError,
    )
    from aquipu.labels import is_label, label, label_text
    from aquipu.local.write.recovery import RecoveryReport
    from aquipu.reader import Reader
    from aquipu.remote.store import RemoteStore

__all__ = [
    "Always",
    "AquipuError",
    "Archive",
    "ArchiveDamagedError",
    "ArchiveError",
    "ArchiveRefusedError",
    "ArchiveTakenError",
    "ArchiveUnavailableError",
    "Backup",
    "BackupRefusedError",
    "BatchTooLargeError",
    "BufferFullError",
    "ConflictError",
    "CorruptionError",
    "Cursor",
    "Disk",
    "EveryN",
    "Follow",
    "ForkedStoreError",
    "Health",
    "Histogram",
    "IncompleteCopyError",
    "NoArchiveError",
    "NoSuchRecordError",
    "NotAStoreError",
    "OsManaged",
    "OutcomeUnknownError",
    "Page",
    "Position",
    "PositionLostError",
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
    "StaleKeyError",
    "Statistics",
    "Store",
    "StoreAlreadyOpenError",
    "StoreClosedError",
    "StoreFailedError",
    "StoreFullError",
    "StoreLockedError",
    "StoreUnavailableError",
    "SyncPolicy",
    "UnsupportedFormatError",
    "WrongLoopError",
    "is_label",
    "label",
    "label_text",
]

if not TYPE_CHECKING:  # else a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        """Import what a program that only writes does not need."""
        if name == "Archive":
            from aquipu.archive.archive import Archive

            return Archive
        if name == "NoArchiveError" or (name.startswith("Archive") and name in __all__):
            from aquipu.archive import errors

            return getattr(errors, name)
        if name == "Reader":
            from aquipu.reader import Reader

            return Reader
        if name == "RecoveryReport":
            from aquipu.local.write.recovery import RecoveryReport

            return RecoveryReport
        if name == "RemoteStore":
            from aquipu.remote.store import RemoteStore

            return RemoteStore
        if name in {"is_label", "label", "label_text"}:
            from aquipu import labels

            return getattr(labels, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
