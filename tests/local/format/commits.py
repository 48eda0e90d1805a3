"""Commits, and the frames that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from aquipu.local.format.frame import Encoded, encode, records
from aquipu.local.format.structure import extend
from aquipu.local.format.walk import Walk
from aquipu.record import Key, Record

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SEED = 0x5EED5EED


u32s = st.integers(0, 2**32 - 1)


u64s = st.integers(0, 2**64 - 1)

labels = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


class Commit(NamedTuple):
    """What goes into a frame."""

    payloads: list[bytes]
    timestamps: list[int]
    labels: dict[int, tuple[str, ...]] | None = None
    keys: Sequence[Key] = ()
    owes_sync: bool = False
    first_sequence: int = 0
    time: int = 1
    watermark: int = 0
    link: int = 0
    seed: int = SEED

    def encoded(self) -> Encoded:
        return encode(
            self.payloads,
            self.timestamps,
            labels=self.labels,
            keys=self.keys,
            owes_sync=self.owes_sync,
            first_sequence=self.first_sequence,
            time=self.time,
            watermark=self.watermark,
            link=self.link,
            seed=self.seed,
        )

    def frame(self) -> bytes:
        return b"".join(self.encoded().buffers)

    def records(self) -> list[Record]:
        given = self.labels or {}
        return [
            Record(self.first_sequence + index, self.timestamps[index], data, given.get(index, ()))
            for index, data in enumerate(self.payloads)
        ]


@st.composite
def keys_of_up_to(draw: st.DrawFn, count: int) -> Key:
    first = draw(st.integers(0, count))
    return Key(
        draw(st.binary(min_size=16, max_size=16)),
        draw(u64s),
        first,
        draw(st.integers(0, count - first)),
    )


@st.composite
def commits(draw: st.DrawFn) -> Commit:
    payloads = draw(st.lists(st.binary(max_size=40), max_size=8))
    count = len(payloads)
    of_records = st.lists(labels, max_size=4).map(tuple)
    return Commit(
        payloads,
        draw(st.lists(u64s, min_size=count, max_size=count)),
        labels=draw(st.dictionaries(st.sampled_from(range(count)), of_records)) if count else {},
        keys=draw(st.lists(keys_of_up_to(count), max_size=3)),
        owes_sync=draw(st.booleans()),
        first_sequence=draw(u64s),
        time=draw(u64s),
        watermark=draw(u64s),
        link=draw(u32s),
        seed=draw(u32s),
    )


def numbers(size: int, *values: int) -> bytes:
    return b"".join(value.to_bytes(size, "little") for value in values)


def header_by_the_book(body: bytes, commit: Commit, flags: int, count: int) -> bytes:
    head = (
        b"\xaaqF1"
        + numbers(4, flags, count, len(body))
        + numbers(8, commit.first_sequence, commit.time, commit.watermark)
        + numbers(4, commit.link, extend(commit.seed, body))
    )
    return head + numbers(4, extend(commit.seed, head))


def body_by_the_book(commit: Commit) -> bytes:
    body = b""
    if commit.keys:
        body += numbers(4, len(commit.keys))
        for key in commit.keys:
            body += key.writer + numbers(8, key.number) + numbers(4, key.first, key.records)
    body += numbers(4, *map(len, commit.payloads)) + numbers(8, *commit.timestamps)
    if commit.labels:
        of_each = [commit.labels.get(index, ()) for index in range(len(commit.payloads))]
        spelled = [label.encode() for of_one in of_each for label in of_one]
        columns = (
            numbers(1, *map(len, of_each)) + numbers(2, *map(len, spelled)) + b"".join(spelled)
        )
        body += numbers(4, len(columns)) + columns
    return body + b"".join(commit.payloads)


TELLING = Commit(
    [b"one", b"", b"three"],
    [7, 8, 9],
    labels={0: ("user:7", "schlüssel"), 2: ("x",)},
    keys=[Key(bytes(range(16)), 12, 1, 2)],
    owes_sync=True,
    first_sequence=70,
    time=9,
    watermark=70,
    link=0xABCDEF01,
)

Found = tuple[int, int, list[Record]]


def read(walk: Walk, *pieces: bytes) -> list[Found]:
    """Offset, check and records of each frame that comes out of the walk."""
    found = []
    for piece in pieces:
        walk.feed(piece)
        found += [(offset, header.check, records(header, body)) for offset, header, body in walk]
    return found
