"""The names of the objects of an archive. Pure::

    prefix/
    ├── entries/00000000000000000042        what happened, numbered: see `entry`
    └── segments/
        ├── STORE-FIRST-NEXT-SHA256.segment     a sealed segment
        └── STORE-FIRST-NEXT-SHA256.relations   its label index

STORE is the id of the store, 32 hexadecimal digits. FIRST and NEXT are sequences of twenty digits:
of the first record, and one past the last. So a listing is the log in order. SHA256 is of the bytes
of the object. The number of an entry says nothing of what it holds: it must be the same for
whoever wants to put the next one.
"""

from __future__ import annotations

import re
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

ENTRIES = "entries"
SEGMENTS = "segments"
_NUMBER_MAX = 2**64 - 1
_ENTRY = re.compile(rf"{ENTRIES}/([0-9]{{20}})")
_OBJECT = re.compile(
    rf"{SEGMENTS}/([0-9a-f]{{32}})-([0-9]{{20}})-([0-9]{{20}})-([0-9a-f]{{64}})"
    r"\.(segment|relations)"
)


class Kind(StrEnum):
    """What an object of a segment holds; the ending of its name."""

    SEGMENT = "segment"
    RELATIONS = "relations"


class ObjectKey(NamedTuple):
    """The name of an object that holds a sealed segment, or its label index."""

    store_id: bytes
    first_sequence: int
    next_sequence: int
    sha256: bytes
    kind: Kind

    @classmethod
    def of(
        cls, store_id: bytes, first_sequence: int, next_sequence: int, body: bytes, kind: Kind
    ) -> ObjectKey:
        """Return the name for these bytes."""
        return cls(store_id, first_sequence, next_sequence, sha256(body).digest(), kind)

    @classmethod
    def parse(cls, key: str) -> ObjectKey | None:
        """Return what a name says; None for the name of something else."""
        match = _OBJECT.fullmatch(key)
        if match is None:
            return None
        store, first, following, digest, kind = match.groups()
        if max(int(first), int(following)) > _NUMBER_MAX:
            return None
        return cls(
            bytes.fromhex(store), int(first), int(following), bytes.fromhex(digest), Kind(kind)
        )

    def fits(self, body: bytes) -> bool:
        """Return whether these are the bytes that the name is of."""
        return sha256(body).digest() == self.sha256

    def __str__(self) -> str:
        return (
            f"{SEGMENTS}/{self.store_id.hex()}-{self.first_sequence:020d}-"
            f"{self.next_sequence:020d}-{self.sha256.hex()}.{self.kind}"
        )


def entry_key(number: int) -> str:
    """Return the name of the entry with this number."""
    return f"{ENTRIES}/{number:020d}"


def entry_number(key: str) -> int | None:
    """Return the number of the entry that has this name; None for another name."""
    match = _ENTRY.fullmatch(key)
    if match is None or int(match[1]) > _NUMBER_MAX:
        return None
    return int(match[1])
