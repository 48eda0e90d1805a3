"""What a client and a daemon say to each other, as bytes and back. Pure.

A message is a head, a JSON object, and a tail of bytes, which only some have. All numbers are little-endian::

    0  4  size of the head
    4  4  size of the tail
    8  .  head, UTF-8
    .  .  tail

The client speaks first: ``hello``, with the version of this protocol and the name of its writer, 16 random bytes in hex.
If it still waits for the answer to a commit that it sent through a connection that was lost, also with the number of that
commit, and the ``floor``: the sequence below which it cannot be. The daemon answers ``welcome``: what the client must know
of the store, where the log stands, and the ``outcome`` of that commit: where it was found, "absent", or "unknown" when the
records that it could be among were purged. Then each request has an ``id`` and says what to ``do``; its answer has the same
id, and comes when it is there.

Records travel as they are stored: the tail of a commit is a frame (see `frame`), with its checks, so whatever is no commit
is refused before any of it is stored. A page of records is a frame, and behind it their sequences, u64 each.

    do        also in the request                       in the answer
    commit    number, stage; tail: the records          first, time, stage
    page      start, stop, reverse, and what `scan`     start, stop: what is left; tail: the records
              takes
    wait      sequence                                  when there is a record with this sequence
    others    what the method of that name takes        value

Each answer has the ``standing`` of the log: first, next and synced sequence. An ``error`` in an answer has the name of its
class, its arguments and its cause.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from struct import Struct, pack, unpack
from typing import Any, NamedTuple

from aquipu import errors
from aquipu.errors import AquipuError, StoreUnavailableError
from aquipu.frame import HEADER_BYTES, KNOWN_FLAGS, Columns, columns, encode, header_at, is_sound
from aquipu.record import Record

VERSION = 1
HEAD_BYTES_MAX = 1024 * 1024
"""Enough for the labels by which records are sought."""
_SIZES = Struct("<II")
_SEED = 0x77697265
_PLAIN: dict[str, type[Exception]] = {"TypeError": TypeError, "ValueError": ValueError}
_KINDS: dict[str, type[Exception]] = _PLAIN | {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, AquipuError)
}

Head = dict[str, Any]


class WireError(Exception):
    """What came is not what is spoken here. The connection is of no more use."""


class Message(NamedTuple):
    """One message."""

    head: Head
    tail: bytes


def encoded(head: Head, tail: Sequence[bytes] = ()) -> bytes:
    """A message as bytes."""
    text = json.dumps(head, separators=(",", ":")).encode()
    return b"".join((_SIZES.pack(len(text), sum(map(len, tail))), text, *tail))


class Messages:
    """Messages out of pieces of any size, none of them larger than it may be."""

    def __init__(self, tail_bytes_max: int) -> None:
        self._tail_bytes_max = tail_bytes_max
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> Iterator[Message]:
        """The messages that this piece completes. Raises WireError as soon as it is clear that none will come."""
        self._buffer += piece
        at = 0
        try:
            while (end := self._end(at)) is not None:
                head_size, _ = _SIZES.unpack_from(self._buffer, at)
                tail_at = at + _SIZES.size + head_size
                head, tail = bytes(self._buffer[at + _SIZES.size : tail_at]), bytes(self._buffer[tail_at:end])
                at = end
                yield Message(_head(head), tail)
        finally:
            del self._buffer[:at]

    def _end(self, at: int) -> int | None:
        """Where the message that begins here ends; None when it is not there yet."""
        if len(self._buffer) - at < _SIZES.size:
            return None
        head_size, tail_size = _SIZES.unpack_from(self._buffer, at)
        if head_size > HEAD_BYTES_MAX or tail_size > self._tail_bytes_max:
            raise WireError(f"a message of {head_size} and {tail_size} bytes is larger than any can be")
        end = at + _SIZES.size + head_size + tail_size
        return int(end) if end <= len(self._buffer) else None


def _head(text: bytes) -> Head:
    try:
        head = json.loads(text)
    except ValueError:
        raise WireError("the head of a message is no JSON") from None
    if not isinstance(head, dict):
        raise WireError("the head of a message is no JSON object")
    return head


# records


def records_of_commit(
    payloads: Sequence[bytes], timestamps: Sequence[int], labels: dict[int, tuple[str, ...]]
) -> list[bytes]:
    """Records that have no sequences yet, as a tail."""
    return encode(payloads, timestamps, labels=labels, first_sequence=0, time=0, watermark=0, link=0, seed=_SEED).buffers


def commit_in(tail: bytes) -> tuple[list[bytes], dict[int, tuple[str, ...]]]:
    """The data of the records of a commit, and their labels by index. Raises WireError."""
    (_, payloads, labels), behind = _columns_in(tail)
    if behind:
        raise WireError("bytes stand behind the records of a commit")
    return list(payloads), {index: its for index, its in enumerate(labels) if its}


def page_of(records: Sequence[Record]) -> list[bytes]:
    """Records with their sequences, as a tail."""
    sequences, timestamps, payloads, labels = zip(*records, strict=True) if records else ((), (), (), ())
    of_each = {index: its for index, its in enumerate(labels) if its}
    return [*records_of_commit(payloads, timestamps, of_each), pack(f"<{len(records)}Q", *sequences)]


def page_in(tail: bytes) -> list[Record]:
    """The records of a page. Raises WireError."""
    (times, payloads, labels), behind = _columns_in(tail)
    if len(behind) != 8 * len(times):
        raise WireError("the records of a page and their sequences are not equally many")
    return list(map(Record, unpack(f"<{len(times)}Q", behind), times, payloads, labels))


def _columns_in(tail: bytes) -> tuple[Columns, bytes]:
    """The columns of the frame with which a tail begins, and what stands behind it."""
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
    """An error, for the head of an answer."""
    reason = None if error.__cause__ is None else str(error.__cause__)
    if isinstance(error, AquipuError):
        return {"kind": type(error).__name__, "arguments": error.args, "cause": reason}
    kind = next((kind for kind in _PLAIN if isinstance(error, _PLAIN[kind])), None)
    return {"kind": kind, "arguments": [str(error) if kind else f"{type(error).__name__}: {error}"], "cause": reason}


def error_in(head: Head, address: str) -> Exception:
    """The error that a daemon tells of. Raises WireError for what is none."""
    try:
        kind, arguments = head["kind"], head["arguments"]
        if kind is None:
            return StoreUnavailableError(address, "ask the daemon at", *arguments)
        error: Exception = _KINDS[kind](*arguments)
    except (KeyError, TypeError):
        raise WireError("an error of an unknown kind") from None
    if head.get("cause") is not None:
        error.__cause__ = OSError(head["cause"])
    return error
