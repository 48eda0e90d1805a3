"""What a client and a daemon say to each other, as bytes and back. Pure.

A message is a head, a JSON object, and a tail of bytes, which only some have. All numbers are
little-endian::

    0  4  size of the head
    4  4  size of the tail
    8  .  head, UTF-8
    .  .  tail

The client speaks first: ``hello``, with the version of this protocol and the name of its writer, 16
random bytes in hex. If it still waits for the answer to a commit that it sent through a connection
that was lost, also with the number of that commit, and the ``floor``: the sequence below which it
cannot be. The daemon answers with a `Welcome`, or with an error. Then each request has an ``id``
and says what to ``do``; its answer has the same id, and comes when it is there.

Records travel as they are stored: the tail of a commit is a frame (see `frame`), with its checks,
so whatever is no commit is refused before any of it is stored. A page of records is a frame, and
behind it their sequences, u64 each.

    do        also in the request                       in the answer
    commit    number, stage; tail: the records          first, time, stage
    append    number, producer or client, expect,       first, time, stage, records
              stage, floor, again; tail: the records
    page      start, stop, reverse, and what `scan`     start, stop: what is left, or null;
              takes; generation, limit                  generation; tail: the records
    get       sequence                                  tail: the record
    wait      sequence, generation                      tail: true, when that record is there
    stand                                               tail: one past the last record acknowledged
    health                                              tail: the state, and a list of the reasons
    forget    its id is that of a wait or reached       none: neither of the two is answered
    others    what the method of that name takes        tail: what it gives, as JSON

Of a commit with records that the store would not take alone either, nothing is stored. The answer
is an error, and has the first of them as ``refused``: a list of their indexes, each with its own
error. The others may be sent again without them, so that one record never fails its neighbours.

An append has the key of a producer, or that of a client, which is only searched for if it is asked
``again``, from the ``floor`` on; ``expect``, or null, is the sequence that it must get.

A ``generation`` in a request is the one in which the client has read all before the start or the
sequence; without it, that is not looked at.

A commit without a tail asks that all before it be flushed, or synced. Each answer has the
``standing`` of the log: first, next and synced sequence. An ``error`` in an answer has the name of
its class, its arguments and its cause.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from struct import Struct, pack, unpack
from typing import Any, NamedTuple

from aquipu import errors
from aquipu.errors import AquipuError, StoreUnavailableError
from aquipu.local.format.frame import (
    HEADER_BYTES,
    KNOWN_FLAGS,
    Columns,
    columns,
    encode,
    header_at,
    is_sound,
)
from aquipu.policy import Stage
from aquipu.record import Record

VERSION = 1
HEAD_BYTES_MAX = 4 * 1024 * 1024
"""Enough for the labels by which records are sought, however JSON spells them."""
_SIZES = Struct("<II")
_SEED = 0x77697265
# made once: json.dumps would make one for each message
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_REASON_MAX = 1000  # characters
_REFUSED_MAX = 1000  # records; the next are refused when the commit comes without these
_PLAIN: dict[str, type[Exception]] = {"TypeError": TypeError, "ValueError": ValueError}
_KINDS: dict[str, type[Exception]] = _PLAIN | {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, AquipuError)
}

Head = dict[str, Any]


class WireError(Exception):
    """What came is not what is spoken here. The connection is of no more use."""


class Message(NamedTuple):
    """One message."""

    head: Head
    tail: bytes


def encoded(head: Head, tail: Sequence[bytes] = ()) -> bytes:
    """Return a message as bytes; ValueError for a head that is larger than any can be."""
    text = _json(head)
    if len(text) > HEAD_BYTES_MAX:
        raise ValueError(
            f"what is said in {len(text)} bytes is more than a message takes, {HEAD_BYTES_MAX}"
        )
    return b"".join((_SIZES.pack(len(text), sum(map(len, tail))), text, *tail))


class Messages:
    """Messages out of pieces of any size, none of them larger than it may be."""

    def __init__(self, tail_bytes_max: int) -> None:
        self._tail_bytes_max = tail_bytes_max
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> Iterator[Message]:
        """Yield the messages that this piece completes.

        Raises WireError as soon as it is clear that none will come.
        """
        self._buffer += piece
        at = 0
        try:
            while (end := self._end(at)) is not None:
                head_size, _ = _SIZES.unpack_from(self._buffer, at)
                tail_at = at + _SIZES.size + head_size
                head = bytes(self._buffer[at + _SIZES.size : tail_at])
                tail = bytes(self._buffer[tail_at:end])
                at = end
                yield Message(_head(head), tail)
        finally:
            del self._buffer[:at]

    def _end(self, at: int) -> int | None:
        """Return where the message that begins here ends; None when it is not there yet."""
        if len(self._buffer) - at < _SIZES.size:
            return None
        head_size, tail_size = _SIZES.unpack_from(self._buffer, at)
        if head_size > HEAD_BYTES_MAX or tail_size > self._tail_bytes_max:
            sizes = f"{head_size} and {tail_size}"
            raise WireError(f"a message of {sizes} bytes is larger than any can be")
        end = at + _SIZES.size + head_size + tail_size
        return int(end) if end <= len(self._buffer) else None


def _head(text: bytes) -> Head:
    head = value_in(text)
    if not isinstance(head, dict):
        raise WireError("the head of a message is no JSON object")
    return head


def _json(value: object) -> bytes:
    return _ENCODER.encode(value).encode()


# what is said


class Stored(NamedTuple):
    """A commit that is in the log. In the head of an answer by its names."""

    first: int
    """Sequence of its first record."""
    time: int
    """Time of its records: they were accepted together."""
    stage: Stage
    """Stage that it has reached, at least."""


class Welcome(NamedTuple):
    """What a client must know of the store. In the head of a message by its names."""

    stage: Stage
    """Stage that an append waits for."""
    max_record_bytes: int
    buffer_records: int
    """The most records that a commit may hold; `buffer_bytes` likewise."""
    buffer_bytes: int
    standing: tuple[int, int, int]
    """First, next and synced sequence of the log, by the name that they have in messages."""
    outcome: Stored | str | None
    """What became of the commit of which the hello has the number.

    Where it is, "absent", or "unknown" when the records that it could be among were purged. In the
    head a list, a text or null.
    """
    generation: str = ""
    """Generation of the store; nothing from a daemon of the time before there were any."""


def number_in(head: Head, name: str) -> int:
    """Return a sequence, a time or any other u64. Raises WireError."""
    number = head.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 64:
        raise WireError(f"the {name} of a message is no number")
    return number


def stage_in(head: Head) -> Stage:
    """Return how safe something is or is to be. Raises WireError."""
    try:
        return Stage(head["stage"])
    except (LookupError, ValueError):
        raise WireError("a message does not say which stage") from None


def stored_in(head: Head) -> Stored:
    """Return where a commit is. Raises WireError."""
    return Stored(number_in(head, "first"), number_in(head, "time"), stage_in(head))


def progress_in(head: Head) -> tuple[int, int, int]:
    """Return the first, next and synced sequence of the log. Raises WireError."""
    progress = head.get("standing")
    if (
        not isinstance(progress, list)
        or len(progress) != 3
        or not all(isinstance(number, int) for number in progress)
    ):
        raise WireError("a message does not say where the log stands")
    return tuple(progress)


def generation_in(head: Head) -> str:
    """Return the generation of the store, if it is there. Raises WireError."""
    generation = head.get("generation", "")
    if not isinstance(generation, str):
        raise WireError("the generation in a message is no text")
    return generation


def welcome_in(head: Head) -> Welcome:
    """Return the welcome in a head. Raises WireError for what is none."""
    outcome = head.get("outcome")
    if isinstance(outcome, list):
        outcome = stored_in(dict(zip(Stored._fields, outcome, strict=False)))
    elif outcome not in ("absent", "unknown", None):
        raise WireError("a welcome does not say what became of the commit")
    return Welcome(
        stage_in(head),
        number_in(head, "max_record_bytes"),
        number_in(head, "buffer_records"),
        number_in(head, "buffer_bytes"),
        progress_in(head),
        outcome,
        generation_in(head),
    )


def value_of(value: object) -> list[bytes]:
    """Return what a method gives, as a tail."""
    return [_json(value)]


def value_in(text: bytes) -> Any:
    """Return the value in a text of JSON. Raises WireError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise WireError("a part of a message is no JSON") from None


def health_in(text: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the state of a daemon's store, and the reasons for it. Raises WireError."""
    said = value_in(text)
    if (
        not isinstance(said, list)
        or len(said) != 2
        or not isinstance(said[0], str)
        or not isinstance(said[1], list)
    ):
        raise WireError("the health of a daemon is no state with its reasons")
    return said[0], tuple(str(reason) for reason in said[1])


# records


def records_of_commit(
    payloads: Sequence[bytes], timestamps: Sequence[int], labels: dict[int, tuple[str, ...]]
) -> list[bytes]:
    """Return records that have no sequences yet, as a tail."""
    return encode(
        payloads,
        timestamps,
        labels=labels,
        first_sequence=0,
        time=0,
        watermark=0,
        link=0,
        seed=_SEED,
    ).buffers


def commit_in(tail: bytes) -> tuple[list[bytes], dict[int, tuple[str, ...]]]:
    """Return the data of the records of a commit, and their labels by index.

    Raises WireError.
    """
    (_, payloads, labels), behind = _columns_in(tail)
    if behind:
        raise WireError("bytes stand behind the records of a commit")
    return list(payloads), {index: its for index, its in enumerate(labels) if its}


def page_of(records: Sequence[Record]) -> list[bytes]:
    """Return records with their sequences, as a tail."""
    sequences, timestamps, payloads, labels = (
        zip(*records, strict=True) if records else ((), (), (), ())
    )
    of_each = {index: its for index, its in enumerate(labels) if its}
    return [
        *records_of_commit(payloads, timestamps, of_each),
        pack(f"<{len(records)}Q", *sequences),
    ]


def page_in(tail: bytes) -> list[Record]:
    """Return the records of a page. Raises WireError."""
    (times, payloads, labels), behind = _columns_in(tail)
    if len(behind) != 8 * len(times):
        raise WireError("the records of a page and their sequences are not equally many")
    return list(map(Record, unpack(f"<{len(times)}Q", behind), times, payloads, labels))


def _columns_in(tail: bytes) -> tuple[Columns, bytes]:
    """Return the columns of the frame with which a tail begins, and what stands behind it."""
    header = header_at(tail, 0, _SEED)
    body = b"" if header is None else tail[HEADER_BYTES : header.size]
    if header is None or not is_sound(header, body, _SEED) or header.flags & ~KNOWN_FLAGS:
        raise WireError("the tail of a message does not begin with a sound frame")
    try:
        return columns(header, body), tail[header.size :]
    except ValueError as error:
        raise WireError(str(error)) from None


# errors


def error_head(error: Exception) -> Head:
    """Return an error, for the head of an answer."""
    cause = error.__cause__
    reason = cause and (
        cause.args if isinstance(cause, OSError) and cause.errno is not None else [str(cause)]
    )
    if isinstance(error, AquipuError):
        return {"kind": type(error).__name__, "arguments": error.args, "cause": reason}
    kind = next((kind for kind in _PLAIN if isinstance(error, _PLAIN[kind])), None)
    text = str(error) if kind else f"{type(error).__name__}: {error}"
    return {"kind": kind, "arguments": [text[:_REASON_MAX]], "cause": reason}


def error_in(head: Any, address: str) -> Exception:
    """Return the error in an answer of a daemon.

    One that is of no kind that is known here is a StoreUnavailableError.
    """
    try:
        error: Exception = _KINDS[head["kind"]](*head["arguments"])
        if head["cause"] is not None:
            error.__cause__ = OSError(*head["cause"])
    except (LookupError, TypeError):
        reasons = head.get("arguments") if isinstance(head, dict) else None
        return StoreUnavailableError(
            address, "ask the daemon at", f"it says {reasons!s:.{_REASON_MAX}}"
        )
    return error


def refused_head(errors: dict[int, Exception]) -> Head:
    """Return errors, at least one, by the index of their records, for the head of an answer."""
    refused = [[index, error_head(error)] for index, error in islice(errors.items(), _REFUSED_MAX)]
    return {"error": refused[0][1], "refused": refused}


def refused_in(head: Head, records: int, address: str) -> dict[int, Exception]:
    """Return which of so many records are refused, and why.

    None are, if the answer is about the whole commit.

    Raises WireError.
    """
    refused = head.get("refused", [])
    try:
        found = {index: error_in(error, address) for index, error in refused}
    except (TypeError, ValueError):
        found = {-1: ValueError()}
    if not all(isinstance(index, int) and 0 <= index < records for index in found):
        raise WireError("a message does not say which records are refused")
    return found


def raise_if_error(head: Head, address: str) -> None:
    """Raise the error in the head of an answer, if there is one."""
    if "error" in head:
        raise error_in(head["error"], address)
