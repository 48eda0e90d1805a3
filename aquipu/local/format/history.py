"""The history of a store: its generations, and what of each is still there. Pure.

A **generation** is a stretch of a store's life in which no acknowledged record was lost. It has a
random name, so that two copies of a store which went on apart have different ones. When the next
one begins, the log ends at some sequence; what was read in an earlier generation, and lies before
that end and before those of all generations in between, is still there. So for each generation
one number is kept: the sequence below which it `survived`.

The file ``history`` has 4096 bytes from the beginning on, so that a full disk has room for what
is written there later. All numbers are little-endian, all checks CRC32C, from that of the store's
id and the file's name::

    mark, at 0: how the last writer left        table, one at 512 and one at 2304
    0   8  magic "aquipuHI"                     0   8  turn
    8   4  format version                       8   4  generations: n
    12  4  flags                                12  .  n times: name (8), survived (u64)
    16 16  store id                             .   4  check of the above
    32  4  ending: 0 open, 1 closed, 2 unknown
    36  4  zeros
    40 16  life of the machine
    56  8  one past the last sequence, closed
    64  8  turn of the table that holds
    72  4  check of the above

The oldest generation comes first. A table is written where the one that holds does not stand, and
synced before the mark names it. So at each moment one is whole. The mark is written alone for most
of its life; when it does not check, the store is taken for one that was not closed, and the table
with the later turn holds.

Positions of a time before there were generations, or that were taken while the file could not be
written, name none: they stand in the first line, under zeros. Of the others the newest
`GENERATIONS_MAX` are kept. What has no line is not known.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from aquipu.errors import PositionLostError
from aquipu.local.format.names import HISTORY
from aquipu.local.format.structure import VERSION, Damage, Unsupported, extend

HISTORY_BYTES = 4096
GENERATIONS_MAX = 100
NO_GENERATION = bytes(8)
ALL = 2**64 - 1
"""Survived: nothing was lost since."""

_MAGIC = b"aquipuHI"
_MARK = Struct("<8sII16sI4x16sQQI")
_TABLE = Struct("<QI")
_LINE = Struct("<8sQ")
_TABLES = (512, 2304)
_TABLE_BYTES = 1792


class Ending(IntEnum):
    """How a writer left a store."""

    OPEN = 0
    """Not yet, or without a word."""
    CLOSED = 1
    UNKNOWN = 2
    """The log was repaired."""


class Mark(NamedTuple):
    """How the last writer left."""

    ending: Ending
    life: bytes
    """Of the machine, in which it was published how far it had come; zeros when it was not."""
    end: int
    """One past the last sequence of a log that was closed."""


class Generation(NamedTuple):
    """One line of the table."""

    name: bytes
    survived: int
    """What was read in this generation and lies below is still there."""


class History(NamedTuple):
    """The generations of a store, the oldest first."""

    turn: int
    generations: tuple[Generation, ...]

    @classmethod
    def fresh(cls, name: bytes, before: int) -> History:
        """Return the history of a store which had none.

        Positions that name no generation hold below the sequence ``before``.
        """
        return cls(0, (Generation(NO_GENERATION, before), Generation(name, ALL)))

    @property
    def current(self) -> bytes:
        """The generation of what is written now."""
        return self.generations[-1].name

    def survived(self, name: bytes) -> int | None:
        """Return the sequence below which what was read in a generation is still there.

        None for one that is not known.
        """
        return next((line.survived for line in self.generations if line.name == name), None)

    def followed_by(self, name: bytes, end: int) -> History:
        """Return the history with a new generation, which begins where the log ends."""
        none, *lines = (
            line._replace(survived=min(line.survived, end)) for line in self.generations
        )
        return History(
            self.turn + 1, (none, *lines[-(GENERATIONS_MAX - 2) :], Generation(name, ALL))
        )


def check_survived(
    path: str, history: History | None, name: bytes, sequence: int, first: int
) -> None:
    """Raise PositionLostError unless what was read in a generation is still there.

    It was read up to ``sequence``, and ``first`` is the first sequence that the log keeps. Without
    a history, nothing is known but of positions that name no generation.
    """
    if history is None and name == NO_GENERATION:
        return
    survived = None if history is None else history.survived(name)
    if survived is None:
        raise PositionLostError(path, sequence, None)
    if sequence > survived:
        raise PositionLostError(path, sequence, max(survived, first))


def encoded_mark(mark: Mark, turn: int, store_id: bytes) -> bytes:
    """Return the bytes at the beginning of the file."""
    data = _MARK.pack(_MAGIC, VERSION, 0, store_id, mark.ending, mark.life, mark.end, turn, 0)[:-4]
    return data + _check(data, store_id)


def encoded_table(history: History, store_id: bytes) -> tuple[int, bytes]:
    """Return where a table is written, and its bytes."""
    lines = b"".join(_LINE.pack(*line) for line in history.generations)
    data = _TABLE.pack(history.turn, len(history.generations)) + lines
    return _TABLES[history.turn % 2], data + _check(data, store_id)


def encoded(mark: Mark, history: History, store_id: bytes) -> bytes:
    """Return the whole file, for the first time."""
    page = bytearray(HISTORY_BYTES)
    offset, table = encoded_table(history, store_id)
    page[: _MARK.size] = encoded_mark(mark, history.turn, store_id)
    page[offset : offset + len(table)] = table
    return bytes(page)


def decoded(data: bytes, store_id: bytes) -> tuple[Mark | None, History]:
    """Return how the last writer left, and the history. Raises Damage or Unsupported.

    The first is None where it does not check.
    """
    tables = [
        table
        for offset in _TABLES
        if (table := _decoded_table(data[offset:], store_id)) is not None
    ]
    found = _decoded_mark(data, store_id)
    if found is None:
        if not tables:
            raise Damage("the history does not check, or belongs to another store")
        return None, max(tables)
    mark, turn = found
    for table in tables:
        if table.turn == turn:
            return mark, table
    raise Damage("the table of the history does not check")


def _decoded_mark(data: bytes, store_id: bytes) -> tuple[Mark, int] | None:
    if len(data) < _MARK.size or not data.startswith(_MAGIC):
        return None
    version = int.from_bytes(data[8:12], "little")
    if version > VERSION:
        raise Unsupported(f"format version {version} is not known here (this is version {VERSION})")
    data = data[: _MARK.size]
    if _check(data[:-4], store_id) != data[-4:]:
        return None
    _, _, flags, its_store, ending, life, end, turn, _ = _MARK.unpack(data)
    if flags:
        raise Unsupported(f"the flags {flags:#x} are not known here")
    if its_store != store_id or ending not in list(Ending):
        return None
    return Mark(Ending(ending), life, end), turn


def _decoded_table(data: bytes, store_id: bytes) -> History | None:
    if len(data) < _TABLE.size:
        return None
    turn, count = _TABLE.unpack_from(data)
    size = _TABLE.size + count * _LINE.size
    if not 2 <= count <= GENERATIONS_MAX or _check(data[:size], store_id) != data[size : size + 4]:
        return None
    return History(turn, tuple(map(Generation._make, _LINE.iter_unpack(data[_TABLE.size : size]))))


def _check(data: bytes, store_id: bytes) -> bytes:
    return extend(extend(0, store_id + HISTORY.encode()), data).to_bytes(4, "little")
