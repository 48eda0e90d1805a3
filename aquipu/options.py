"""The options that a store is opened with, and which values cannot be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from aquipu.local.retain.retention import Duration, Retention, check_age
from aquipu.policy import Always, EveryN, OsManaged, SyncPolicy
from aquipu.record import Position, Record, Time, checked_labels, nanoseconds

MIB = 1024 * 1024
_BUFFER_BYTES_MAX = 1024 * MIB  # a commit's size is a u32 in its frame
_BUFFER_RECORDS_MAX = 16 * 1024 * 1024  # and so are its columns
_SEGMENT_BYTES_MIN = 4096
_OWNERS = 0o600
_GROUPS = 0o640
_OF_A_DATABASE = frozenset(
    {"sync_policy", "max_record_bytes", "buffer_records", "buffer_bytes", "lock_timeout"}
)


class Options(NamedTuple):
    """What `Store.open` takes beside the path; its docstring says what each one means."""

    sync_policy: SyncPolicy
    max_segment_bytes: int
    max_record_bytes: int
    buffer_records: int
    buffer_bytes: int
    lock_timeout: float
    retention: Retention | None = None
    mode: int | None = None
    group: str | None = None
    max_segment_age: float | Duration | None = None
    compress: bool = False
    archive: Any = None
    """An `Archive`, or None."""

    @property
    def rights(self) -> int | None:
        """Of files, if any were asked for; a group is there to read."""
        return _GROUPS if self.mode is None and self.group is not None else self.mode

    def checked(self) -> Options:
        """Itself; TypeError or ValueError for what cannot be."""
        if not isinstance(self.sync_policy, (Always, EveryN, OsManaged)):
            raise TypeError(
                f"sync_policy is Always(), EveryN() or OsManaged(), not {self.sync_policy!r}"
            )
        if self.retention is not None and not isinstance(self.retention, Retention):
            raise TypeError(
                f"retention is a Retention or None, not {type(self.retention).__name__}"
            )
        if self.max_segment_age is not None:
            check_age("max_segment_age", self.max_segment_age)
        _check_size("max_segment_bytes", self.max_segment_bytes, _SEGMENT_BYTES_MIN)
        _check_size("max_record_bytes", self.max_record_bytes)
        check_buffer(self.buffer_records, self.buffer_bytes)
        if self.max_record_bytes > self.buffer_bytes:
            raise ValueError(
                "max_record_bytes is at most buffer_bytes: a larger record would wait for ever"
            )
        check_seconds("lock_timeout", self.lock_timeout)
        if not isinstance(self.compress, bool):
            raise TypeError(f"compress is True or False, not {self.compress!r}")
        check_mode(self.mode)
        if self.group is not None and not isinstance(self.group, str):
            raise TypeError(f"group is the name of one, not {type(self.group).__name__}")
        return self


def check_mode(mode: object) -> None:
    """TypeError or ValueError for what cannot be the rights of a store's files."""
    if mode is None:
        return
    if not isinstance(mode, int) or isinstance(mode, bool):
        raise TypeError(f"mode is a number such as 0o640, not {type(mode).__name__}")
    if mode & _OWNERS != _OWNERS or mode & ~0o666:
        said = f"{mode:#o}" if mode >= 0 else mode
        raise ValueError(
            "mode lets the owner of a file read and write it and nobody execute it (0o640), "
            f"not {said}"
        )


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


# what can be asked of an open log

Start: TypeAlias = "int | Position | str | None"
"""Where a follower begins: a text is "earliest", "latest" or that of a position."""

OnPurged = Literal["raise", "skip"]
"""What a follower does that was overtaken by a purge."""


class Range(NamedTuple):
    """Which records a scan was asked for; each bound may be left out."""

    start: int | None
    stop: int | None
    since: int | None
    until: int | None


class Wanted(NamedTuple):
    """The labels a record must carry: all of ``every`` and, unless empty, one of ``any_of``."""

    every: tuple[str, ...]
    any_of: tuple[str, ...]

    def fits(self, record: Record) -> bool:
        """Return whether a record carries them."""
        carried = record.relations
        return all(label in carried for label in self.every) and (
            not self.any_of or any(label in carried for label in self.any_of)
        )


def checked_range(
    start: int | None, stop: int | None, since: Time | None, until: Time | None
) -> Range:
    """Return the range that is asked for; TypeError or ValueError for what is none."""
    for sequence, name in ((start, "start"), (stop, "stop")):
        if sequence is not None:
            check_sequence(sequence, name)
    if start is not None and stop is not None and start > stop:
        raise ValueError(f"a scan's start ({start}) is not after its stop ({stop})")
    times = (
        None if since is None else nanoseconds(since),
        None if until is None else nanoseconds(until),
    )
    if times[0] is not None and times[1] is not None and times[0] > times[1]:
        raise ValueError(f"a scan's since ({since}) is not after its until ({until})")
    return Range(start, stop, *times)


def checked_wanted(
    relation: str | Iterable[str] | None, any_of: Iterable[str] | None
) -> Wanted | None:
    """Return which labels a record must carry; None when it need carry none.

    Raises TypeError or ValueError for what is no label.
    """
    if relation is None and any_of is None:
        return None
    if isinstance(relation, str):
        relation = (relation,)
    wanted = Wanted(
        *(() if labels is None else checked_labels(labels) for labels in (relation, any_of))
    )
    for labels, given, name in (
        (relation, wanted.every, "relation"),
        (any_of, wanted.any_of, "any_of"),
    ):
        if labels is not None and not given:
            raise ValueError(f"{name} takes at least one label; to get every record, leave it out")
    return wanted


def checked_start(start: Start, on_purged: object) -> int | Position | Literal["earliest"] | None:
    """Return where a follower begins; None: at what is new.

    Raises TypeError or ValueError for what is no start, or no ``on_purged``.
    """
    if on_purged not in get_args(OnPurged):
        raise ValueError(f"on_purged is 'raise' or 'skip', not {on_purged!r:.100}")
    if start is None or start == "latest":
        return None
    if start == "earliest":
        return "earliest"
    if isinstance(start, (str, Position)):
        return Position.parse(str(start))
    check_sequence(start, "start")
    return start


PAGE_RECORDS_MAX = 1000
"""The most records of a page that a program asks for; they are in memory at once."""


def check_limit(limit: object) -> None:
    """Raise TypeError or ValueError for what cannot be the number of records of a page."""
    _check_size("limit", limit, 1, PAGE_RECORDS_MAX)


class TimeRefusedError(ValueError):
    """The record with this ``index`` in its batch cannot have the time that it was given."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(index, reason)
        self.index, self.reason = index, reason

    def __str__(self) -> str:
        return f"the time of record {self.index} of the batch is {self.reason}; nothing was written"


def check_times(times: Sequence[int], last: int, now: int) -> None:
    """Raise TimeRefusedError for a time before the one before it, before the last one, or to come.

    All in nanoseconds since the epoch.
    """
    for index, time in enumerate(times):
        if time < last:
            before = "the record before it" if index else "the last record of the store"
            raise TimeRefusedError(index, f"before that of {before}")
        if time > now:
            raise TimeRefusedError(index, "in the future")
        last = time


def check_sequence(sequence: object, name: str) -> None:
    """Raise TypeError or ValueError for what cannot be a sequence."""
    if not isinstance(sequence, int) or isinstance(sequence, bool):
        raise TypeError(f"{name} is a sequence, a whole number, not {type(sequence).__name__}")
    if sequence < 0:
        raise ValueError(f"{name} is a sequence, from 0 on, not {sequence}")


def refuse_for_daemon(
    address: str, options: dict[str, object], defaults: dict[str, object]
) -> None:
    """Raise TypeError for options that were given and that a daemon has decided on for itself."""
    given = [
        name
        for name, value in options.items()
        if value is not defaults[name] and not name.startswith("buffer_")
    ]
    if given:
        raise TypeError(
            f"{', '.join(given)} cannot be given with {address}: the daemon there has opened the"
            " store, with options of its own (aquipu serve); buffer_records and buffer_bytes can"
            " be, and timeout for Store.connect"
        )


def refuse_for_database(options: dict[str, object], defaults: dict[str, object]) -> None:
    """Raise TypeError for options that were given and that a log in a database does not have."""
    given = [
        name
        for name, value in options.items()
        if value is not defaults[name] and name not in _OF_A_DATABASE
    ]
    if given:
        raise TypeError(
            f"{', '.join(given)} cannot be given with a log in a database, which has no files here:"
            " sync_policy, max_record_bytes, buffer_records, buffer_bytes and lock_timeout can be"
        )
