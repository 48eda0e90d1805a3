"""What a diagnosis finds. Pure: plain values, which become JSON as they are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from aquipu.local.check.actions import RepairAction
from aquipu.local.check.inspect import TornTail, Writer
from aquipu.local.check.verify import Damage


class Kind(StrEnum):
    """What a stretch of a segment's file is."""

    HEADER = "header"
    FRAMES = "frames"
    FOOTER = "footer"
    DAMAGE = "damage"
    TORN = "torn tail"
    BEHIND = "behind the last acknowledged record"
    UNWRITTEN = "unwritten"


class Stretch(NamedTuple):
    """A stretch of a segment's file."""

    kind: Kind
    offset: int
    bytes: int


class State(StrEnum):
    """What a segment is to the log."""

    SEALED = "sealed"
    ACTIVE = "active"
    DAMAGED = "damaged"
    MISSING = "missing"
    EMPTY = "empty"
    """What a roll left when it was cut short."""
    LEFT_OVER = "left over"
    """Purged: it is no part of the log any more."""


class IndexState(StrEnum):
    """What is there of the label index of a sealed segment."""

    THERE = "there"
    MISSING = "missing"
    DAMAGED = "damaged"
    NONE = "none"
    """The segment that is being written has none yet."""


@dataclass(frozen=True, slots=True)
class SegmentFacts:
    """One file of the log."""

    name: str
    state: State
    first_sequence: int
    next_sequence: int | None
    """One past its last record; None when that cannot be told."""
    frames: int | None
    """Groups of records that were written together, and marks of the log's own."""
    bytes: int
    first_time: str | None
    """When its first commit was written, ISO 8601 in UTC; None without any, and where damage hides
    it.
    """
    last_time: str | None
    plain_bytes: int
    """Size of the file before it was compressed; 0 of one that is as it was written."""
    index: IndexState
    index_bytes: int
    mode: str
    """Rights of the file, in octal."""
    stretches: tuple[Stretch, ...]
    """The file from its beginning to its end."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A cursor, or a hold."""

    name: str
    sequence: int
    records: int | None
    """From there to the end of the log; None when the end is not known."""


@dataclass(frozen=True, slots=True)
class OtherFile:
    """A file beside the log."""

    name: str
    what: str
    """``kept aside``, ``unfinished``, or ``unknown`` for one that is none of the store's."""
    bytes: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the store stands."""

    file_system: str | None
    """Kind, such as ext4; None where the system does not say."""
    free_bytes: int | None
    """That may still be written, without special rights."""
    mode: str
    """Rights of the directory, in octal."""
    owner: str
    group: str


class Weight(StrEnum):
    """How much a remark matters."""

    DAMAGE = "damage"
    WARNING = "warning"
    NOTE = "note"


class Remark(NamedTuple):
    """What somebody should know, and mostly what to do about it."""

    weight: Weight
    text: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What stands on the disk, and what opening would do."""

    path: str
    seen_at: str
    """When it was looked at, ISO 8601 in UTC."""
    checked: str
    """``every byte``, or ``what opening reads``."""
    store_id: str | None
    """32 hexadecimal digits; None when damage hides it."""
    format_version: int
    generation: str | None
    """16 hexadecimal digits: the stretch of the store's life in which nothing acknowledged was
    lost. None when its file is not there, or does not check.
    """
    place: Place
    writer: Writer | None
    """Process that writes it at this moment."""
    ending: str | None
    """How the last writer left: ``closed``, ``not closed`` or ``repaired``; None while one writes,
    and when it is not known.
    """
    copy: bool
    """Whether this is a copy of a store that was being written when it was made."""
    first_sequence: int | None
    next_sequence: int | None
    """One past the last record that a reader sees; None when damage hides that."""
    synced_sequence: int | None
    """Everything below is proven to be on the disk."""
    first_time: str | None
    last_time: str | None
    bytes: int
    """Of all files of the store."""
    segments: tuple[SegmentFacts, ...]
    """The oldest first."""
    torn_tail: TornTail | None
    damages: tuple[Damage, ...]
    refusal: str | None
    """The error with which opening would refuse the store; None when it would not."""
    repair: tuple[RepairAction, ...]
    """What `aquipu repair` would do."""
    repair_refusal: str | None
    """Why it could not; None when it can, or has nothing to do."""
    opening: tuple[str, ...]
    """What opening would do, a sentence each."""
    holds: tuple[Consumer, ...]
    cursors: tuple[Consumer, ...]
    others: tuple[OtherFile, ...]
    remarks: tuple[Remark, ...]
    """What somebody should look at, the weightiest first."""

    @property
    def records(self) -> int | None:
        """Number of records kept; None when damage hides that."""
        if self.first_sequence is None or self.next_sequence is None:
            return None
        return self.next_sequence - self.first_sequence

    @property
    def is_damaged(self) -> bool:
        """Whether anything is damaged."""
        return bool(self.damages) or self.refusal is not None
