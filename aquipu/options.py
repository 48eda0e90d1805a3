"""What a store can be told when it is opened, and what cannot be."""

from __future__ import annotations

from typing import NamedTuple

from aquipu.policy import Always, EveryN, OsManaged, SyncPolicy
from aquipu.retention import Retention

MIB = 1024 * 1024
_BUFFER_BYTES_MAX = 1024 * MIB  # a commit's size is a u32 in its frame
_BUFFER_RECORDS_MAX = 16 * 1024 * 1024  # and so are its columns
_SEGMENT_BYTES_MIN = 4096


class Options(NamedTuple):
    """What `Store.open` takes beside the path; its docstring tells what each one means."""

    sync_policy: SyncPolicy
    max_segment_bytes: int
    max_record_bytes: int
    buffer_records: int
    buffer_bytes: int
    lock_timeout: float
    retention: Retention | None = None

    def checked(self) -> Options:
        """Itself; TypeError or ValueError for what cannot be."""
        if not isinstance(self.sync_policy, (Always, EveryN, OsManaged)):
            raise TypeError(f"sync_policy is Always(), EveryN() or OsManaged(), not {self.sync_policy!r}")
        if self.retention is not None and not isinstance(self.retention, Retention):
            raise TypeError(f"retention is a Retention or None, not {type(self.retention).__name__}")
        _check_size("max_segment_bytes", self.max_segment_bytes, _SEGMENT_BYTES_MIN)
        _check_size("max_record_bytes", self.max_record_bytes)
        check_buffer(self.buffer_records, self.buffer_bytes)
        if self.max_record_bytes > self.buffer_bytes:
            raise ValueError("max_record_bytes is at most buffer_bytes: a larger record would wait for ever")
        check_seconds("lock_timeout", self.lock_timeout)
        return self


def check_buffer(records: object, bytes: object) -> None:
    """TypeError or ValueError for bounds of a buffer that cannot be."""
    _check_size("buffer_records", records, 1, _BUFFER_RECORDS_MAX)
    _check_size("buffer_bytes", bytes, 1, _BUFFER_BYTES_MAX)


def check_seconds(name: str, value: object) -> None:
    """TypeError or ValueError for what is no time to wait."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} is in seconds, not {type(value).__name__}")
    if not value >= 0:
        raise ValueError(f"{name} is 0 or more seconds, not {value}")


def _check_size(name: str, value: object, least: int = 1, most: int | None = None) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is a whole number, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} is at least {least}, not {value}")
    if most is not None and value > most:
        raise ValueError(f"{name} is at most {most}, not {value}")
