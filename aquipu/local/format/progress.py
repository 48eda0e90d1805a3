"""The bytes of the progress page, the file ``acknowledged``, and back. Pure.

The file has 4096 bytes, of which these mean something. All numbers are little-endian, both checks
CRC32C::

    head                                      a copy, at 64 and at 128
    0   8  magic "aquipuAC"                   0   8  turn: one more each time
    8   4  format version                     8   8  acknowledged: every record below is
    12  4  flags                              16  8  being acknowledged, up to here
    16 16  store id                           24  8  first sequence of the last segment
    32 16  life of the machine                32  8  first sequence kept
    48  4  check of the above                 40  8  written at: nanoseconds since boot
    52  8  generation of the store            48  4  check of the above, from that of the head
    60  4  check of the above, as of a copy
                                              at 116: how far callers were acknowledged when the
                                              store failed (8), and its check (4)
                                              at 180: number of this file (8), and its check (4)

The two copies are written by turns, so while one is being written the other is whole: a reader
takes the one with the later turn of those that check. A file from before the machine was started
anew (`life`) may speak of pages that are lost. The number of the file is that of its inode: one
that has another is a copy. Pages of earlier versions have none.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from aquipu.local.format.structure import VERSION, Damage, Unsupported, extend

PAGE_BYTES = 4096
"""Size of the file in bytes."""
_MAGIC = b"aquipuAC"
_HEAD = Struct("<8sII16s16sI")
_COPY = Struct("<QQQQQQI")
_NUMBERS = Struct("<QQQQQQ")
_NOTE = Struct("<Q")
_GENERATION = slice(52, 64)
_FAILED = slice(116, 128)
_PLACES = (slice(64, 64 + _COPY.size), slice(128, 128 + _COPY.size))
_FILE = slice(180, 192)
USED_BYTES = _FILE.stop
"""Bytes that mean something: what lies behind is there for versions that map the file."""


class Published(NamedTuple):
    """How far a log has come, as its writer publishes it."""

    acknowledged: int
    """One past the last acknowledged record."""
    active_first: int
    """First sequence of the segment that holds, or will hold, the last of them."""
    first_sequence: int
    """Sequence of the first retained record."""


class Copy(NamedTuple):
    """What one copy says."""

    acknowledged: int
    """One past the last acknowledged record."""
    acknowledging: int
    """One past the last record that is being acknowledged."""
    active_first: int
    """First sequence of the last segment."""
    first_sequence: int
    """Sequence of the first retained record."""
    written_at: int
    """Time when it was written, in nanoseconds since boot."""


class Head(NamedTuple):
    """What the page belongs to."""

    store_id: bytes
    life: bytes
    """Life of the machine in which the file was made, 16 bytes."""
    seed: int
    """Seed of the other checks of the page."""


def encode_page(
    store_id: bytes, life: bytes, turn: int, said: Published, now: int, generation: bytes
) -> bytes:
    """Return a whole new page, on which both copies say the same."""
    head = _HEAD.pack(_MAGIC, VERSION, 0, store_id, life, 0)[:-4]
    head += extend(0, head).to_bytes(4, "little")
    seed = extend(0, head)
    page = bytearray(PAGE_BYTES)
    page[: len(head)] = head
    page[_GENERATION] = _checked(generation, seed)
    for place in _PLACES:
        page[place] = _encode_copy(seed, turn, (said.acknowledged, *said), now)
    return bytes(page)


def decode_head(data: bytes) -> Head:
    """Return the head from the bytes of a page. Raises Damage or Unsupported."""
    if len(data) < USED_BYTES or not data.startswith(_MAGIC):
        raise Damage("the progress page does not begin as one")
    head = data[: _HEAD.size]
    version = int.from_bytes(head[8:12], "little")
    if version != VERSION:
        raise Unsupported(f"format version {version} is not known here (this is version {VERSION})")
    *_, store_id, life, check = _HEAD.unpack(head)
    if extend(0, head[:-4]) != check:
        raise Damage("the head of the progress page does not check")
    return Head(store_id, life, extend(0, head))


def seed_of_page(page: bytes) -> int:
    """Return the seed of the checks behind the head."""
    return extend(0, page[: _HEAD.size])


def write_copy(
    page: bytearray, seed: int, turn: int, numbers: tuple[int, int, int, int], now: int
) -> None:
    """Put the copy of this turn into a page; ``numbers`` are those of `Copy`, without the time."""
    page[_PLACES[turn & 1]] = _encode_copy(seed, turn, numbers, now)


def write_failure(page: bytearray, seed: int, acknowledged: int) -> None:
    """Put into a page how far callers were acknowledged when the store failed."""
    page[_FAILED] = _checked(_NOTE.pack(acknowledged), seed)


def write_file_number(page: bytearray, seed: int, number: int) -> None:
    """Put into a page the number of the file that holds it."""
    page[_FILE] = _checked(_NOTE.pack(number), seed)


def file_number_in(page: bytes, seed: int) -> int | None:
    """Return the number of the file that a page was written into; None when it names none."""
    number = _unchecked(page[_FILE], seed)
    return None if number is None else int.from_bytes(number, "little")


def latest_copy(page: bytes, seed: int) -> Copy | None:
    """Return the copy with the later turn of those that check; None when neither does."""
    numbers, latest = None, -1
    for place in _PLACES:
        copy = page[place]
        turn, *said, check = _COPY.unpack(copy)
        if turn > latest and extend(seed, copy[:-4]) == check:
            numbers, latest = said, turn
    return None if numbers is None else Copy(*numbers)


def generation_in(page: bytes, seed: int) -> bytes:
    """Return the generation that a page names, 8 bytes; zeros when it names none."""
    return _unchecked(page[_GENERATION], seed) or bytes(8)


def failure_in(page: bytes, seed: int) -> int:
    """Return how far callers were acknowledged when the store failed; 0 when it did not."""
    return int.from_bytes(_unchecked(page[_FAILED], seed) or b"", "little")


def _encode_copy(seed: int, turn: int, numbers: tuple[int, int, int, int], now: int) -> bytes:
    fields = _NUMBERS.pack(turn, *numbers, now)
    return fields + extend(seed, fields).to_bytes(4, "little")


def _checked(note: bytes, seed: int) -> bytes:
    return note + extend(seed, note).to_bytes(4, "little")


def _unchecked(data: bytes, seed: int) -> bytes | None:
    return data[:8] if data == _checked(data[:8], seed) else None
