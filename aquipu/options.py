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
        self._check_sizes()
        if not isinstance(self.lock_timeout, (int, float)) or isinstance(self.lock_timeout, bool):
            raise TypeError(f"lock_timeout is in seconds, not {type(self.lock_timeout).__name__}")
        if not self.lock_timeout >= 0:
            raise ValueError(f"lock_timeout is 0 or more seconds, not {self.lock_timeout}")
        return self

    def _check_sizes(self) -> None:
        for name, least in (
            ("max_segment_bytes", _SEGMENT_BYTES_MIN),
            ("max_record_bytes", 1),
            ("buffer_records", 1),
            ("buffer_bytes", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is a whole number, not {type(value).__name__}")
            if value < least:
                raise ValueError(f"{name} is at least {least}, not {value}")
        if self.buffer_records > _BUFFER_RECORDS_MAX:
            raise ValueError(f"buffer_records is at most {_BUFFER_RECORDS_MAX}, not {self.buffer_records}")
        if self.buffer_bytes > _BUFFER_BYTES_MAX:
            raise ValueError(f"buffer_bytes is at most {_BUFFER_BYTES_MAX}, not {self.buffer_bytes}")
        if self.max_record_bytes > self.buffer_bytes:
            raise ValueError("max_record_bytes is at most buffer_bytes: a larger record would wait for ever")
