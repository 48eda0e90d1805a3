"""Small stores known record by record: what was acknowledged, and where each frame stands."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import NamedTuple

from aquipu import Always, Record, Store
from aquipu.local.format.frame import HEADER_BYTES, MAGIC
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import (
    ACKNOWLEDGED,
    MANIFEST,
    BookmarkKind,
    bookmark_name,
    first_sequence_of,
    segment_of,
)
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, SegmentHeader
from aquipu.local.format.walk import Walk
from tests.faults.image import Image, fast_directory, read_image
from tests.faults.index import build_tables, by_hand

SEGMENT_BYTES = 4096

CURSORS = {"billing": 20, "search": 30}

_HOLD, _HELD = "backup", 10
_ZEROS_KEPT = 100  # of the space written ahead: every bit of it is flipped, too


class Place(NamedTuple):
    """Where a frame stands in its file."""

    start: int
    end: int
    first_sequence: int


@dataclass(frozen=True)
class Fixture:
    """A store at rest: its bytes, and what was acknowledged."""

    title: str
    closed: bool
    image: Image
    records: list[Record]
    frames: dict[str, list[Place]]
    """Of each segment."""

    @property
    def segments(self) -> list[str]:
        return sorted(self.frames)

    @property
    def tail(self) -> str:
        """The last segment that holds a frame."""
        return max(name for name, places in self.frames.items() if places)

    @property
    def tables(self) -> list[str]:
        """Those of the segments that are sealed when the store is open."""
        return [
            name
            for name in self.image
            if name.endswith(".relations") and segment_of(name) != first_of(self.tail)
        ]

    def holds(self, image: Image) -> dict[str, int]:
        """What is held in a changed image, unless an error says that a hold is damaged."""
        return {_HOLD: _HELD} if bookmark_name(BookmarkKind.HOLD, _HOLD) in image else {}

    def cursors(self, image: Image) -> dict[str, int]:
        """The same of the cursors."""
        return {
            name: at
            for name, at in CURSORS.items()
            if bookmark_name(BookmarkKind.CURSOR, name) in image
        }

    def proven(self, image: Image) -> int:
        """The sequence below which every record of a changed image is either still there or proven
        to have been synced.
        """
        data, whole, places = (
            image.get(self.tail, b""),
            self.image[self.tail],
            self.frames[self.tail],
        )
        if (
            self.closed
            or data == whole
            or data[:SEGMENT_HEADER_BYTES] != whole[:SEGMENT_HEADER_BYTES]
        ):
            return len(
                self.records
            )  # a segment has its name and its header on the disk before its first record
        left = [
            place for place in places if whole[place.start : place.start + HEADER_BYTES] in data
        ]
        proofs = [place.first_sequence for place in left]
        sound = self.sound_frames(image)
        return max(
            *proofs,
            len(self.records) if sound == len(places) else places[sound].first_sequence,
            0,
        )

    def sound_frames(self, image: Image) -> int:
        """How many frames of the tail of a changed image are as they were, up to the first that is
        not.
        """
        data, whole, places = image[self.tail], self.image[self.tail], self.frames[self.tail]
        same = (data[place.start : place.end] == whole[place.start : place.end] for place in places)
        return sum(1 for _ in takewhile(bool, same))

    def behind_sound_frames(self, image: Image) -> bytes:
        """What stands in the tail of a changed image behind those."""
        sound = self.sound_frames(image)
        return image[self.tail][
            self.frames[self.tail][sound - 1].end if sound else SEGMENT_HEADER_BYTES :
        ]

    def must_be_refused(self, image: Image) -> bool:
        """Whether something is damaged that opening looks at and no crash can leave so: the
        manifest, a name, the header of a segment, the footer of one that was surely sealed.
        """
        if image.get(MANIFEST) != self.image[MANIFEST] or _segments(image) != self.segments:
            return True
        return any(self._is_framed_otherwise(name, image[name]) for name in self.segments)

    def _is_framed_otherwise(self, name: str, data: bytes) -> bool:
        whole = self.image[name]
        if data[:SEGMENT_HEADER_BYTES] != whole[:SEGMENT_HEADER_BYTES]:
            return True
        return name < self.tail and not data.endswith(whole[self.frames[name][-1].end :])


def fixtures() -> list[Fixture]:
    """Three stores, each of at least two sealed segments and one active: closed, killed, killed
    just after a roll.
    """
    with fast_directory() as directory, by_hand():
        closed_records = asyncio.run(_written(f"{directory}/closed"))
        closed = _image(Path(directory, "closed"))
        killed_records = asyncio.run(
            _written(f"{directory}/other", killed_as=f"{directory}/killed")
        )
        killed = _image(Path(directory, "killed"))
    active = max(_segments(closed))
    killed[active] = killed[active].rstrip(b"\0") + bytes(_ZEROS_KEPT)
    rolled = {
        **killed,
        active: killed[active][:SEGMENT_HEADER_BYTES],
    }  # what the roll had made, byte for byte
    made = [
        _fixture("closed store", True, closed, closed_records),
        _fixture("killed store", False, killed, killed_records),
        _fixture(
            "store killed after a roll", False, rolled, killed_records[: first_sequence_of(active)]
        ),
    ]
    for fixture in made:
        assert len(fixture.segments) >= 3, "too few records for two sealed segments and one active"
        assert fixture.tables, "no table of a segment that stays sealed"
    assert 5 <= len(made[0].frames[active]) <= 30, (
        "the active segment of the fixtures is to be neither new nor full"
    )
    return made


def _image(path: Path) -> Image:
    """Without what is memory that processes share: nothing of it is ever relied on after a power
    cut.
    """
    return {name: data for name, data in read_image(path).items() if name != ACKNOWLEDGED}


async def _written(path: str, *, killed_as: str | None = None) -> list[Record]:
    """Write a store in two runs, always the same; a copy of what a kill before the last close
    leaves, if wanted.
    """
    written: list[Record] = []
    rng = Random(1)
    for commits in (35, 65):
        async with Store.open(path, sync_policy=Always(), max_segment_bytes=SEGMENT_BYTES) as store:
            for number in range(commits):
                await _commit(store, number, rng, written)
            await store.hold(_HOLD, _HELD)
            for name, at in CURSORS.items():
                await store.cursor(name).save(at)
            await build_tables(store)
            if killed_as is not None:
                shutil.rmtree(killed_as, ignore_errors=True)
                shutil.copytree(path, killed_as)
    return written


async def _commit(store: Store, number: int, rng: Random, written: list[Record]) -> None:
    relations = tuple(f"user:{rng.randrange(9)}" for _ in range(number % 3))
    data = [_data(number + n, rng) for n in range(5 if number % 8 == 7 else 1)]
    receipts = await store.append_many(data, relations=relations)
    written += [
        Record(r.sequence, r.timestamp, d, relations) for r, d in zip(receipts, data, strict=True)
    ]


def _data(number: int, rng: Random) -> bytes:
    """Now and then something that could be taken for what it is not."""
    odd = {3: b"", 5: bytes(40), 9: MAGIC * 5, 11: b"aquipuFT" + bytes(56)}
    return odd.get(number % 13) or rng.randbytes(rng.randrange(1, 90))


def _fixture(title: str, closed: bool, image: Image, written: list[Record]) -> Fixture:
    store_id = Manifest.decode(image[MANIFEST]).store_id
    return Fixture(
        title,
        closed,
        image,
        written,
        {name: _places(image, name, store_id) for name in _segments(image)},
    )


def _places(image: Image, name: str, store_id: bytes) -> list[Place]:
    header = SegmentHeader.decode(image[name], store_id, first_of(name))
    walk = Walk(
        seed=header.seed,
        offset=SEGMENT_HEADER_BYTES,
        sequence=header.first_sequence,
        link=header.link,
    )
    walk.feed(image[name][SEGMENT_HEADER_BYTES:])
    return [Place(start, start + frame.size, frame.first_sequence) for start, frame, _ in walk]


def _segments(image: Iterable[str]) -> list[str]:
    return sorted(name for name in image if first_sequence_of(name) is not None)


def first_of(name: str) -> int:
    first = first_sequence_of(name)
    assert first is not None
    return first
