"""The numbered entries of an archive as bytes and back. Pure::

0   8  magic "aquipuAR"
8   4  format version, little-endian
12  4  bytes of the head, little-endian
16 32  SHA-256 of all that follows
48     the head, JSON: the fields of `Head`
       the body: the bytes of a young part; a list of segments, or holds and cursors, as JSON; a
       fence has none
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from struct import Struct
from typing import NamedTuple

from aquipu.archive.format.keys import Kind, ObjectKey
from aquipu.local.format.bookmark import BOOKMARK_BYTES
from aquipu.local.format.history import Generation, History
from aquipu.local.format.names import bookmark_of
from aquipu.local.format.segment import SegmentHeader
from aquipu.local.format.structure import Damage, Unsupported

VERSION = 1
_MAGIC = b"aquipuAR"
_BEGIN = Struct("<8sII32s")
PLAIN = "plain"
"""Encoding of an object that holds the bytes of the file as they are."""
_ENCODINGS = frozenset({PLAIN})


class EntryKind(StrEnum):
    """What has happened."""

    FENCE = "fence"
    YOUNG = "young"
    LIST = "list"
    BOOKMARKS = "bookmarks"


class Piece(NamedTuple):
    """A young part: bytes of the segment that was being written, whole frames."""

    number: int
    """Number of its entry."""
    first_sequence: int
    next_sequence: int
    offset: int
    """Offset of its first byte in the file."""
    size: int

    @property
    def end(self) -> int:
        """Offset behind its last byte."""
        return self.offset + self.size


class Place(NamedTuple):
    """The last archived frame that holds records, where it is in a young part."""

    offset: int
    """Offset in the file of its segment."""
    check: int


class Head(NamedTuple):
    """An entry, without its body: what the archive holds from then on."""

    kind: EntryKind
    number: int
    epoch: int
    """Number of the writer: each one that begins is one higher."""
    store_id: bytes
    time: int
    """When it was put, in nanoseconds since the epoch, by the clock of its writer."""
    writer: str
    """Which process put it, for people."""
    listed: int | None
    """Number of the entry with the list of segments; None: there is none yet."""
    first_sequence: int
    """Sequence of the first archived record."""
    base: int
    """First sequence of the segment that the list does not name yet."""
    next_sequence: int
    """One past the last archived record."""
    young: tuple[Piece, ...] = ()
    """Parts of that segment that are alive, in order, this one included."""
    active: bytes = b""
    """Its header; empty without any part."""
    last: Place | None = None
    """None without any part."""
    generations: tuple[Generation, ...] = ()
    """Those of the store, the oldest first: see `local.format.history`; none: not known."""
    marked: int | None = None
    """Number of the entry with the holds and cursors; None: there is none yet."""

    def history(self) -> History | None:
        """Return the history of the store, as far as it is archived."""
        return History(0, self.generations) if self.generations else None

    def header(self) -> SegmentHeader:
        """Return the header of the segment that the young parts are of. Raises Damage."""
        return SegmentHeader.decode(self.active, self.store_id, self.base)


class Segment(NamedTuple):
    """An archived segment, as a list names it."""

    first_sequence: int
    next_sequence: int
    sha256: bytes
    """Of the object's bytes."""
    stored: int
    """Size of the object in bytes."""
    size: int
    """Size of the segment's file in bytes."""
    encoding: str
    """How the object holds the file: see `PLAIN`."""
    plain_bytes: int
    """Size of the file before it was compressed; 0 of one that is as it was written."""
    created: int
    follows: int
    """Both as its header says: time of creation, and check of the last frame before it."""
    link: int
    """Check of its last frame."""
    first_time: int
    last_time: int
    table_sha256: bytes = b""
    """Of the object with its label index; empty: none is archived."""
    table_size: int = 0

    def key(self, store_id: bytes) -> ObjectKey:
        """Return the name of its object."""
        span = self.first_sequence, self.next_sequence
        return ObjectKey(store_id, *span, self.sha256, Kind.SEGMENT)

    def table_key(self, store_id: bytes) -> ObjectKey | None:
        """Return the name of the object with its label index; None: there is none."""
        if not self.table_sha256:
            return None
        span = self.first_sequence, self.next_sequence
        return ObjectKey(store_id, *span, self.table_sha256, Kind.RELATIONS)

    def header(self, store_id: bytes) -> SegmentHeader:
        """Return the header of its file."""
        return SegmentHeader(
            store_id, self.first_sequence, self.created, self.follows, self.plain_bytes
        )


def encode(head: Head, body: bytes | memoryview = b"") -> bytes:
    """Return the bytes of an entry."""
    fields = head._asdict()
    for name in ("store_id", "active"):
        fields[name] = fields[name].hex()
    fields["generations"] = [[one.name.hex(), one.survived] for one in head.generations]
    said = json.dumps(fields, separators=(",", ":")).encode()
    digest = sha256(said)
    digest.update(body)
    return b"".join((_BEGIN.pack(_MAGIC, VERSION, len(said), digest.digest()), said, body))


def decode(data: bytes, number: int) -> tuple[Head, bytes]:
    """Return the entry with this number, and its body. Raises Damage or Unsupported."""
    if len(data) < _BEGIN.size or not data.startswith(_MAGIC):
        raise Damage("it does not begin as an entry of an archive")
    _, version, size, digest = _BEGIN.unpack_from(data)
    if version != VERSION:
        raise Unsupported(f"format version {version} is not known here (this is version {VERSION})")
    rest = data[_BEGIN.size :]
    if sha256(rest).digest() != digest:
        raise Damage("its checksum is wrong")
    said = rest[:size]
    if len(said) != size or not said.endswith(b"}"):  # the size itself is in no checksum
        raise Damage("its head does not end where it should")
    try:
        head = _head(json.loads(said))
    except (ValueError, TypeError, KeyError) as error:
        raise Unsupported(f"its head is not known here: {type(error).__name__}") from None
    if head.number != number:
        raise Damage(f"it is entry {head.number}, not {number}")
    return head, rest[size:]


def _head(fields: dict[str, object]) -> Head:
    head = Head(**fields)  # type: ignore[arg-type]  # what does not fit is a TypeError
    last = head.last
    return head._replace(
        kind=EntryKind(head.kind),
        store_id=bytes.fromhex(str(head.store_id)),
        active=bytes.fromhex(str(head.active)),
        young=tuple(Piece(*piece) for piece in head.young),
        last=None if last is None else Place(*last),
        generations=tuple(
            Generation(bytes.fromhex(str(name)), survived) for name, survived in head.generations
        ),
    )


def encode_list(segments: list[Segment]) -> bytes:
    """Return the body of a list of segments."""
    rows = [[v.hex() if isinstance(v, bytes) else v for v in segment] for segment in segments]
    return json.dumps(rows, separators=(",", ":")).encode()


def decode_list(body: bytes) -> list[Segment]:
    """Return the segments of a list, in the order of the log. Raises Unsupported."""
    try:
        rows = [Segment(*row) for row in json.loads(body)]
        segments = [
            row._replace(
                sha256=bytes.fromhex(str(row.sha256)),
                table_sha256=bytes.fromhex(str(row.table_sha256)),
            )
            for row in rows
        ]
    except (ValueError, TypeError) as error:
        raise Unsupported(f"its list is not known here: {type(error).__name__}") from None
    for segment in segments:
        if segment.encoding not in _ENCODINGS:
            raise Unsupported(f"the encoding {segment.encoding!r} is not known here")
    return segments


def encode_bookmarks(bookmarks: Mapping[str, bytes]) -> bytes:
    """Return the body of an entry of holds and cursors, by their file names."""
    found = {name: data.hex() for name, data in sorted(bookmarks.items())}
    return json.dumps(found, separators=(",", ":")).encode()


def decode_bookmarks(body: bytes) -> dict[str, bytes]:
    """Return the holds and cursors of an entry, by their file names. Raises Unsupported."""
    try:
        found = {name: bytes.fromhex(data) for name, data in json.loads(body).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise Unsupported(f"its bookmarks are not known here: {type(error).__name__}") from None
    for name, data in found.items():
        if bookmark_of(name) is None or len(data) > BOOKMARK_BYTES:
            raise Unsupported(f"{name!r:.100} is no hold or cursor that is known here")
    return found
