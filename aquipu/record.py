"""What goes in and comes out: Record, Receipt, Position, and the rules for data and labels.

**What is a label** does not depend on the interpreter, so that every process can ask for a label
that another has stored. It is a text of 1 to 1,024 bytes of UTF-8 without control characters (C0,
DEL, C1), without the line and paragraph separators U+2028 and U+2029, and without lone surrogates,
which UTF-8 does not have. Everything else is allowed: also what a version of Unicode does not know
yet, and the joiners and spaces of names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from aquipu.policy import Stage

if TYPE_CHECKING:
    from datetime import datetime

Time: TypeAlias = "datetime | int"
"""An aware datetime, or nanoseconds since the epoch."""

LABEL_BYTES_MAX = 1024
"""The longest label of a relation, in bytes of UTF-8."""
LABELS_MAX = 255
"""The most labels that one record may carry."""
RESERVED = "aquipu:"
"""How labels begin that only the engine gives (see `lost`).

Where you read them, no user wrote them.
"""
NO_LABEL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""The characters that stand in no label."""
PRODUCER_MAX = 64
"""The longest name of a producer, in characters."""
PRODUCERS = 1 << 63
"""The bit of a number by which the keys of producers differ from those of a daemon's clients."""
_POSITION = r"([0-9a-f]{16})-([0-9]{1,20})"
_SURELY_FIT = LABELS_MAX  # characters of ASCII: no label of them is too long, nor are they too many


class Receipt(NamedTuple):
    """What ``append`` gives back."""

    sequence: int
    """The record's place in the log: dense, from 0, in the order in which ``append`` was called."""
    timestamp: int
    """Nanoseconds since the epoch when the record was accepted, as the system clock said. It is not
    below that of the record before, unless the clock was set back by more than a second in between.
    """
    stage: Stage
    """How far the record had come when it was acknowledged: at least what its policy or it itself
    asked for.
    """

    @property
    def time(self) -> datetime:
        """The timestamp as an aware datetime in UTC: see `Record.time`."""
        return moment(self.timestamp)


class Record(NamedTuple):
    """One record as it was stored."""

    sequence: int
    timestamp: int
    """Nanoseconds since the epoch when the record was accepted: see `Receipt.timestamp`."""
    data: bytes
    relations: tuple[str, ...] = ()
    """The labels that were given with it, in their order."""

    @property
    def time(self) -> datetime:
        """The timestamp as an aware datetime in UTC.

        A datetime counts whole microseconds, and the rest is cut off: it is never later than the
        timestamp, so ``scan(since=record.time)`` has the record. To compare two records, compare
        their timestamps.
        """
        return moment(self.timestamp)

    def json(self) -> Any:
        """Return the data as the JSON value that it is, as `Store.append_json` has stored it.

        Raises ValueError for data that is no JSON in UTF-8.
        """
        from json import loads  # here: a program that keeps no JSON needs none of it

        try:
            return loads(self.data.decode(), parse_constant=_refused_constant)
        except (ValueError, RecursionError) as error:
            # without the data, which an error message never holds
            reason = getattr(error, "msg", None) or getattr(error, "reason", None) or str(error)
            raise ValueError(f"record {self.sequence} is no JSON: {reason}") from None


class Page(NamedTuple):
    """Some records, the newest first, and where the next page goes on: see `Store.page`."""

    records: list[Record]
    next: int | None
    """What is given as ``before`` for the next page; None when there is none."""


class Position(NamedTuple):
    """A place between two records; ``str(position)`` is a text that `parse` reads.

    It is where a consumer stands, in a form that it can keep with its own results. A sequence alone
    does not tell whether the records before it are still the ones that were read: a power cut may
    take acknowledged records that were not yet synced, and others get their sequences. So a store
    has a **generation**, which changes whenever an opening cannot exclude that (see `generation`).
    """

    generation: str
    """Of the store, when the position was taken: 16 hexadecimal digits."""
    sequence: int
    """Of the next record to be read."""

    def __str__(self) -> str:
        return f"{self.generation}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position of which this is the text. ValueError for any other."""
        match = re.fullmatch(_POSITION, text)
        if match is None:
            raise ValueError(
                "a position is written as 16 hexadecimal digits, a dash and a sequence, "
                f"not {text[:100]!r}"
            )
        return cls(match[1], int(match[2]))


class Lag(NamedTuple):
    """How far a consumer is behind the end of the log."""

    sequence: int
    """That it reads next."""
    records: int
    """That were acknowledged, and that it has not passed yet."""
    seconds: float
    """Age of the oldest of these that is kept; 0 without any."""


class Purged(NamedTuple):
    """What a purge drops, or would drop."""

    first_sequence_before: int
    first_sequence: int
    """Sequence of the first retained record. The same as before: nothing was dropped."""
    segments: int
    records: int
    bytes: int
    """Size of the dropped segment files."""
    held_by: str | None = None
    """Name of the oldest hold, if more would go without holds; None otherwise.

    None, too, from a daemon of an earlier version.
    """
    held_from: int | None = None
    """Sequence from which that hold keeps everything."""


class Backup(NamedTuple):
    """What a backup has come to: a store at another place, which opens as any other."""

    path: str
    """Its directory, absolute."""
    first_sequence: int
    """Sequence of the first record that it keeps: perhaps one that the store has purged since.

    Later than that of the store where the place held a log that begins later, as a store does that
    has purged records and is restored over: a new directory takes all.
    """
    next_sequence: int
    """One past the last record in it; all that was acknowledged when it began lies below."""
    segments: int
    """Segments that this backup has written, or written anew."""
    copied_bytes: int
    """Bytes that were copied, of segments and their indexes."""
    shared_bytes: int
    """Bytes that were not copied: the file system keeps them once for both."""


class Key(NamedTuple):
    """The name of a commit across restarts: its writer, its number there, its records' places."""

    writer: bytes
    """Id of the writer, 16 bytes."""
    number: int
    """Of the commit there; those of producers have the bit `PRODUCERS` beside it."""
    first: int
    """Index in the frame of its first record."""
    records: int


class Guarded(NamedTuple):
    """An append that is stored only if its key is new, or only at the sequence that is expected.

    One record or a batch; all of it has been checked.
    """

    payloads: list[bytes]
    labels: tuple[str, ...]
    """Of each of the records."""
    stage: Stage
    key: tuple[bytes, int] | None
    """Writer and number: see `key_of`."""
    expected: int | None
    """Sequence that its first record must get."""


class Located(NamedTuple):
    """A batch that is in the log, found by its key."""

    first_sequence: int
    records: int
    time: int
    """Of its records: they were accepted together."""


class Known(NamedTuple):
    """What a log knows of a producer."""

    last: int
    """Highest number that is in the log; -1: none."""
    found: Located | None
    """Where the number is that was asked for, if it is there."""


def key_of(key: object) -> tuple[bytes, int]:
    """Return the writer and the number of a key ``(producer, number)``, as they are stored.

    TypeError or ValueError for what is no key.
    """
    if not isinstance(key, tuple) or len(key) != 2:
        raise TypeError(
            f"a key is a pair (producer, number), such as ('orders-api', 4711), not {key!r:.100}"
        )
    producer, number = key
    if not isinstance(producer, str):
        raise TypeError(f"the producer of a key is a str, not {type(producer).__name__}")
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"the number of a key is a whole number, not {type(number).__name__}")
    if not 0 < len(producer) <= PRODUCER_MAX:
        raise ValueError(
            f"the producer of a key has 1 to {PRODUCER_MAX} characters, not {len(producer)}"
        )
    if not 0 <= number < PRODUCERS:
        raise ValueError(f"the number of a key is 0 or more, and less than 2^63, not {number}")
    from hashlib import blake2b  # here: a program without keys needs none of it

    name = producer.encode("utf-8", "surrogatepass")
    return blake2b(name, digest_size=16, person=b"aquipu producer").digest(), PRODUCERS | number


def checked_data(data: object) -> bytes:
    """Return ``data`` as bytes of its own, so that the caller may reuse its buffer.

    TypeError for what is no bytes-like.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"a record is bytes, bytearray or memoryview, not {type(data).__name__}")


def checked_json(value: object) -> bytes:
    """Return a value as JSON, in UTF-8; TypeError or ValueError for what cannot be."""
    from json import JSONEncoder  # here: a program that keeps no JSON needs none of it

    encoder = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return encoder.encode(value).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a value of JSON holds no lone surrogate: {error.reason}") from None
    except RecursionError:
        raise ValueError("a value of JSON is not nested as deeply as that") from None


def moment(timestamp: int) -> datetime:
    """Return nanoseconds since the epoch as a datetime; the rest of a microsecond is cut off."""
    # here, because a program that only writes needs none of it
    from datetime import UTC, datetime, timedelta

    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=timestamp // 1000)


def nanoseconds(time: object) -> int:
    """Return a time in nanoseconds since the epoch; TypeError or ValueError for what is none."""
    if isinstance(time, int) and not isinstance(time, bool):
        return time
    # here, because a program that only writes needs none of it
    from datetime import UTC, datetime, timedelta

    if not isinstance(time, datetime):
        raise TypeError(
            f"a time is an aware datetime or nanoseconds since the epoch, not {type(time).__name__}"
        )
    if time.utcoffset() is None:
        raise ValueError(f"a time has a time zone: {time} may be one of many moments")
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def checked_batch(items: Iterable[object]) -> list[bytes]:
    """Return each of them as `checked_data` gives it."""
    batch = list(items)
    if set(map(type, batch)) <= {bytes}:
        return cast("list[bytes]", batch)
    return [checked_data(item) for item in batch]


def labels_size(labels: tuple[str, ...]) -> int:
    """Return how many bytes of UTF-8 the labels have."""
    return sum(map(len, map(str.encode, labels)))


def plain_size(labels: tuple[str, ...]) -> int:
    """Return how many bytes the labels have, if they are surely ones that a user may give.

    Nearly all are, and asked of all at once that costs little. 0 when each must be looked at.
    """
    try:
        together = "".join(labels)
    except TypeError:
        return 0
    is_plain = (
        together.isascii()
        and together.isprintable()
        and len(together) <= _SURELY_FIT
        and RESERVED not in together
        and "" not in labels
    )
    return len(together) if is_plain else 0


def checked_relations(relations: Iterable[str]) -> tuple[str, ...]:
    """Return the labels that a user gives a record, as `checked_labels` does.

    ValueError also for those that only the engine gives.
    """
    labels = relations if isinstance(relations, (str, bytes)) else tuple(relations)
    if type(labels) is tuple and plain_size(labels):
        return labels
    labels = checked_labels(labels)
    if any(label.startswith(RESERVED) for label in labels):
        raise ValueError(
            f"a label of relations does not begin with {RESERVED!r}, which the engine keeps for "
            "records that it writes itself; aquipu.label() makes a label of any text"
        )
    return labels


def checked_labels(relations: Iterable[str]) -> tuple[str, ...]:
    """Return the labels as a tuple; TypeError or ValueError for one that no record carries."""
    if isinstance(relations, (str, bytes)):
        raise TypeError(
            "relations takes a collection of labels; one label is written as a tuple: ('user:7',)"
        )
    labels = tuple(relations)
    if len(labels) > LABELS_MAX:
        raise ValueError(f"a record carries at most {LABELS_MAX} labels, not {len(labels)}")
    for label in labels:
        if not isinstance(label, str):
            raise TypeError(f"a label of relations is a str, not {type(label).__name__}")
        if not label:
            raise ValueError("a label of relations is not empty")
        if NO_LABEL.search(label):
            raise ValueError(
                "a label of relations holds no control character, no line separator and no lone "
                "surrogate; aquipu.label() makes a label of any text"
            )
        if len(label.encode()) > LABEL_BYTES_MAX:
            raise ValueError(
                f"a label of relations has at most {LABEL_BYTES_MAX} bytes of UTF-8; "
                "aquipu.label() cuts a longer text"
            )
    return labels


def _refused_constant(name: str) -> None:
    raise ValueError(f"{name} is no value of JSON")
