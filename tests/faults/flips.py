"""The bytes of a store change behind its back: every bit flipped, files cut, doubled, swapped, zeroed, replaced.

Each case takes a small store that is known record by record, changes one thing in its directory, opens it and reads all of
it. What may come of that:

=================  ====================================================================================================
noticed            an error of the tree, at opening or when the place is read; what was read before it is sound, and an
                   opening that refuses has changed nothing. A manifest, name, header or footer: always at opening
without effect     every record comes back as it was written
named              of a store that was killed: the records behind the last one that is proven are missing, and the
                   recovery report names the bytes that were cut off, and keeps them
gone with the end  of a store that was killed: the end of its log was taken away or zeroed at a frame's border, and
                   nothing is left there that could tell of what it held
=================  ====================================================================================================

Anything else is a violation: another record than the one written, a record missing without a word, an exception that is not
of the tree, an opening that never ends. Of a store that was closed, nothing at all may be missing without an error.

What is *proven* is judged here without the engine. These stores were written under `Always`, so a frame whose header is
still somewhere in its file tells that all records before it had been synced; and frames that are as they were, from the
first one on, hold their records.

The places come from the seed; the stores' ids and times are new in each run. Cases are opened by the blocking rooms alone,
which is fast; that the public `Store` gives the same answer is checked on some of them.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, combinations, pairwise, takewhile
from multiprocessing import get_context
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NamedTuple

from aquipu import (
    Always,
    CorruptionError,
    NotAStoreError,
    Record,
    RecoveryReport,
    Store,
    StoreUnavailableError,
    UnsupportedFormatError,
)
from aquipu.disk import Disk
from aquipu.frame import HEADER_BYTES, MAGIC, Header, Walk, records
from aquipu.journal import Journal
from aquipu.layout import LOCK, MANIFEST, SEGMENT_HEADER_BYTES, Manifest, SegmentHeader, first_sequence_of, segment_name
from aquipu.recovery import check_place, recover
from aquipu.segment import walk_frames
from tests.faults.tally import Tally

Image = dict[str, bytes]
"""A directory: the bytes of each file by its name."""
Tick = Callable[[int], None]

SEGMENT_BYTES = 4096
NOTICED = (CorruptionError, UnsupportedFormatError, NotAStoreError, StoreUnavailableError)
"""The errors of the tree that tell of changed bytes."""
FLIPS_SHARE = 0.8
"""Of a bounded number of cases."""

_ZEROS_KEPT = 100  # of the space written ahead: every bit of it is flipped, too
_RANDOM_PLACES = 3000  # in each store, of the kinds that could go on for ever
_CHUNK = 500  # cases from one tick to the next
_ALONE = 40_000  # up to so many cases, a second process does not pay
_PROCESSES = 2
_HANG_SECONDS = 20.0
_THROUGH_STORE = 300


# the stores


class Place(NamedTuple):
    """Where a frame stands in its file."""

    start: int
    end: int
    first_sequence: int


@dataclass(frozen=True)
class Specimen:
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

    def proven(self, image: Image) -> int:
        """The sequence below which every record of a changed image is either still there or proven to have been synced."""
        data, whole, places = image.get(self.tail, b""), self.image[self.tail], self.frames[self.tail]
        if self.closed or data == whole or data[:SEGMENT_HEADER_BYTES] != whole[:SEGMENT_HEADER_BYTES]:
            return len(self.records)  # a segment has its name and its header on the disk before its first record
        left = [place for place in places if whole[place.start : place.start + HEADER_BYTES] in data]
        witnesses = [place.first_sequence for place in left]
        sound = self.sound_frames(image)
        return max(*witnesses, len(self.records) if sound == len(places) else places[sound].first_sequence, 0)

    def sound_frames(self, image: Image) -> int:
        """How many frames of the tail of a changed image are as they were, up to the first that is not."""
        data, whole, places = image[self.tail], self.image[self.tail], self.frames[self.tail]
        same = (data[place.start : place.end] == whole[place.start : place.end] for place in places)
        return sum(1 for _ in takewhile(bool, same))

    def behind_sound_frames(self, image: Image) -> bytes:
        """What stands in the tail of a changed image behind those."""
        sound = self.sound_frames(image)
        return image[self.tail][self.frames[self.tail][sound - 1].end if sound else SEGMENT_HEADER_BYTES :]

    def must_be_refused(self, image: Image) -> bool:
        """Whether something is damaged that opening looks at and no crash can leave so: the manifest, a name, the header
        of a segment, the footer of one that was surely sealed."""
        if image.get(MANIFEST) != self.image[MANIFEST] or _segments(image) != self.segments:
            return True
        return any(self._is_framed_otherwise(name, image[name]) for name in self.segments)

    def _is_framed_otherwise(self, name: str, data: bytes) -> bool:
        whole = self.image[name]
        if data[:SEGMENT_HEADER_BYTES] != whole[:SEGMENT_HEADER_BYTES]:
            return True
        return name < self.tail and not data.endswith(whole[self.frames[name][-1].end :])


def specimens() -> list[Specimen]:
    """Three stores, each of at least two sealed segments and one active: closed, killed, killed just after a roll."""
    with fast_directory() as directory:
        closed_records = asyncio.run(_live(f"{directory}/closed"))
        closed = read_image(Path(directory, "closed"))
        killed_records = asyncio.run(_live(f"{directory}/other", killed_as=f"{directory}/killed"))
        killed = read_image(Path(directory, "killed"))
    active = max(_segments(closed))
    killed[active] = killed[active].rstrip(b"\0") + bytes(_ZEROS_KEPT)
    rolled = {**killed, active: killed[active][:SEGMENT_HEADER_BYTES]}  # what the roll had made, byte for byte
    made = [
        _specimen("closed store", True, closed, closed_records),
        _specimen("killed store", False, killed, killed_records),
        _specimen("store killed after a roll", False, rolled, killed_records[: first_sequence_of(active)]),
    ]
    for specimen in made:
        assert len(specimen.segments) >= 3, "too few records for two sealed segments and one active"
    assert 5 <= len(made[0].frames[active]) <= 30, "the active segment of the specimens is to be neither new nor full"
    return made


async def _live(path: str, *, killed_as: str | None = None) -> list[Record]:
    """Write a store in two lives, always the same; a copy of what a kill before the last close leaves, if wanted."""
    written: list[Record] = []
    rng = Random(1)
    for commits in (35, 65):
        async with Store.open(path, sync_policy=Always(), max_segment_bytes=SEGMENT_BYTES) as store:
            for number in range(commits):
                await _commit(store, number, rng, written)
            if killed_as is not None:
                shutil.rmtree(killed_as, ignore_errors=True)
                shutil.copytree(path, killed_as)
    return written


async def _commit(store: Store, number: int, rng: Random, written: list[Record]) -> None:
    relations = tuple(f"user:{rng.randrange(9)}" for _ in range(number % 3))
    data = [_data(number + n, rng) for n in range(5 if number % 8 == 7 else 1)]
    receipts = await store.append_many(data, relations=relations)
    written += [Record(r.sequence, r.timestamp, d, relations) for r, d in zip(receipts, data, strict=True)]


def _data(number: int, rng: Random) -> bytes:
    """Now and then something that could be taken for what it is not."""
    odd = {3: b"", 5: bytes(40), 9: MAGIC * 5, 11: b"aquipuFT" + bytes(56)}
    return odd.get(number % 13) or rng.randbytes(rng.randrange(1, 90))


def _specimen(title: str, closed: bool, image: Image, written: list[Record]) -> Specimen:
    store_id = Manifest.decode(image[MANIFEST]).store_id
    return Specimen(title, closed, image, written, {name: _places(image, name, store_id) for name in _segments(image)})


def _places(image: Image, name: str, store_id: bytes) -> list[Place]:
    header = SegmentHeader.decode(image[name], store_id, _first(name))
    walk = Walk(seed=header.seed, offset=SEGMENT_HEADER_BYTES, sequence=header.first_sequence, link=header.link)
    walk.feed(image[name][SEGMENT_HEADER_BYTES:])
    return [Place(start, start + frame.size, frame.first_sequence) for start, frame, _ in walk]


def _segments(image: Iterable[str]) -> list[str]:
    return sorted(name for name in image if first_sequence_of(name) is not None)


def _first(name: str) -> int:
    first = first_sequence_of(name)
    assert first is not None
    return first


# the faults


class Case(NamedTuple):
    """One change to one store; `FAULTS` says what the numbers mean."""

    kind: str
    specimen: int
    name: str
    """Of the file."""
    numbers: tuple[int, ...]

    def told(self, stores: Sequence[Specimen]) -> str:
        """For the line of a violation."""
        return f"{self.kind}: {stores[self.specimen].title}, {self.name} {self.numbers}"


def damaged(stores: Sequence[Specimen], case: Case) -> Image:
    """The directory after the change."""
    image = stores[case.specimen].image
    if case.kind in FAULTS:
        return {**image, case.name: FAULTS[case.kind](image[case.name], *case.numbers)}
    return _EXCHANGES[case.kind](stores, case)


def _flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)


def _cut(data: bytes, start: int, end: int) -> bytes:
    return data[:start] + data[end:]


def _double(data: bytes, start: int, end: int, over: int) -> bytes:
    """The piece once more behind itself, in front of what followed or ``over`` it."""
    return data[:end] + data[start:end] + data[end + over * (end - start) :]


def _swap(data: bytes, first: int, first_end: int, second: int, second_end: int) -> bytes:
    between = data[first_end:second]
    return data[:first] + data[second:second_end] + between + data[first:first_end] + data[second_end:]


def _zero(data: bytes, start: int, end: int) -> bytes:
    return data[:start] + bytes(end - start) + data[end:]


def _older(data: bytes, end: int, zeros: int) -> bytes:
    """The segment as it was when its frames ended there, with so much space written ahead."""
    return data[:end] + bytes(zeros)


FAULTS: dict[str, Callable[..., bytes]] = {
    "flips": _flip,
    "cuts": _cut,
    "doublings": _double,
    "swaps": _swap,
    "zeroings": _zero,
    "older copies": _older,
}
"""Changes to the bytes of one file."""


def _remove(stores: Sequence[Specimen], case: Case) -> Image:
    image = dict(stores[case.specimen].image)
    del image[case.name]
    return image


def _rename(stores: Sequence[Specimen], case: Case) -> Image:
    """To the name of another sequence; a segment that has that name is lost, or gets this one's (number 1)."""
    image = dict(stores[case.specimen].image)
    first_sequence, exchange = case.numbers
    moved, name = image.pop(case.name), segment_name(first_sequence)
    if exchange:
        image[case.name] = image[name]
    image[name] = moved
    return image


def _foreign(stores: Sequence[Specimen], case: Case) -> Image:
    """The file of the same name of another store."""
    image, other = stores[case.specimen].image, stores[case.numbers[0]].image
    return {**image, case.name: other[case.name]}


def _graft(stores: Sequence[Specimen], case: Case) -> Image:
    """From one place to another the bytes that stand there in another store, which was written in just the same way."""
    image, (other, start, end) = stores[case.specimen].image, case.numbers
    own, its = image[case.name], stores[other].image[case.name]
    return {**image, case.name: own[:start] + its[start:end] + own[end:]}


def _unchanged(stores: Sequence[Specimen], case: Case) -> Image:
    """For comparison: the store itself must open as what it was."""
    return stores[case.specimen].image


_EXCHANGES: dict[str, Callable[[Sequence[Specimen], Case], Image]] = {
    "unchanged": _unchanged,
    "removals": _remove,
    "renamings": _rename,
    "foreign files": _foreign,
    "grafts": _graft,
}

KINDS = (*FAULTS, *_EXCHANGES)


def few_cases(stores: Sequence[Specimen]) -> list[Case]:
    """Every change to a whole file or a whole frame."""
    cases: list[Case] = []
    for number, specimen in enumerate(stores):
        cases.append(Case("unchanged", number, "", ()))
        cases += (Case("removals", number, name, ()) for name in specimen.image)
        other = 1 if number == 0 else 0
        cases += (Case("foreign files", number, name, (other,)) for name in specimen.image)
        for name in specimen.segments:
            cases += (Case("renamings", number, name, numbers) for numbers in _new_names(specimen, name))
            cases += (Case(kind, number, name, numbers) for kind, numbers in _whole_frames(specimen, name))
            for start, end, _ in specimen.frames[name]:
                cases += (Case("grafts", number, name, (other, start, stop)) for stop in (end, len(specimen.image[name])))
    return cases


def many_cases(stores: Sequence[Specimen], rng: Random) -> dict[str, list[Case]]:
    """By kind: every bit flipped and every length that a file can be cut to; random places for what has no end."""
    cases: dict[str, list[Case]] = {kind: [] for kind in ("flips", "cuts", "doublings", "swaps", "zeroings")}
    for number, specimen in enumerate(stores):
        for name, data in specimen.image.items():
            cases["flips"] += (Case("flips", number, name, (bit,)) for bit in range(8 * len(data)))
            cases["cuts"] += (Case("cuts", number, name, (length, len(data))) for length in range(len(data)))
        for _ in range(_RANDOM_PLACES):
            name = rng.choice([name for name, data in specimen.image.items() if data])
            for kind, numbers in _random_places(len(specimen.image[name]), rng):
                cases[kind].append(Case(kind, number, name, numbers))
    return cases


Change = tuple[str, tuple[int, ...]]
"""Kind and numbers."""


def _whole_frames(specimen: Specimen, name: str) -> Iterator[Change]:
    places, size = specimen.frames[name], len(specimen.image[name])
    for start, end, _ in places:
        yield "zeroings", (start, end)
        yield "cuts", (start, end)
        yield "doublings", (start, end, 0)
        yield from (("older copies", (start, zeros)) for zeros in (0, 1, size))
    for one, two in pairwise(places):
        yield "swaps", (one.start, one.end, two.start, two.end)
    for one, two in combinations(places[-6:], 2):
        yield "swaps", (one.start, one.end, two.start, two.end)


def _new_names(specimen: Specimen, name: str) -> Iterator[tuple[int, int]]:
    first = _first(name)
    yield from ((sequence, 0) for sequence in (0, first + 1, 2**63, 2**64 - 1, 10**20 - 1) if sequence != first)
    for other in specimen.segments:
        if other != name:
            yield from ((_first(other), exchange) for exchange in (0, 1))


def _random_places(size: int, rng: Random) -> Iterator[Change]:
    """One of each kind."""
    yield "cuts", _piece(size, rng, rng.randrange(1, 64))
    yield "doublings", (*_piece(size, rng, rng.choice((1, 4, 52, 512, rng.randrange(1, 64)))), rng.randrange(2))
    yield "zeroings", _piece(size, rng, rng.choice((1, 16, 512)))
    length = rng.choice((1, 4, 8, 16, 64, 512))
    if 2 * length <= size:
        first = rng.randrange(size - 2 * length + 1)
        second = rng.randrange(first + length, size - length + 1)
        yield "swaps", (first, first + length, second, second + length)


def _piece(size: int, rng: Random, length: int) -> tuple[int, int]:
    start = rng.randrange(size)
    return start, min(start + length, size)


# opening and judging


class HangError(Exception):
    """An opening or a reading did not end."""


class Outcome(NamedTuple):
    """What opening and reading gave; without a report, it was the opening that raised the error."""

    error: Exception | None
    report: RecoveryReport | None
    records: list[Record]

    def agrees(self, other: Outcome) -> bool:
        """Whether the other says the same; of what stands before damage it may give less, for it reads in chunks."""
        mine, its = (
            (type(self.error), getattr(self.error, "args", ())),
            (type(other.error), getattr(other.error, "args", ())),
        )
        given = self.records if self.error is None else self.records[: len(other.records)]
        return mine == its and self.report == other.report and given == other.records


def observe(path: str) -> Outcome:
    """Open the store and read all of it with the blocking rooms."""
    disk, found = Disk(), list[Record]()
    try:
        check_place(disk, path)
        journal, report = recover(disk, path, max_segment_bytes=SEGMENT_BYTES, new_store_id=bytes(16), now=0)
    except Exception as error:
        return Outcome(error, None, found)
    try:
        for some in _read(disk, journal):
            found += some
    except Exception as error:
        return Outcome(error, report, found)
    finally:
        journal.drop()
    return Outcome(None, report, found)


def _read(disk: Disk, journal: Journal) -> Iterator[list[Record]]:
    """As `aquipu.reader` reads: every segment up to where the next one begins, without the link of its first frame."""
    ends = [extent.first_sequence for extent in journal.catalogue[1:]] + [journal.next_sequence]
    for extent, end in zip(journal.catalogue, ends, strict=True):
        walk = Walk(seed=extent.header.seed, offset=SEGMENT_HEADER_BYTES, sequence=extent.first_sequence, link=None)
        descriptor = disk.open(extent.path)
        try:
            frames = walk_frames(disk, descriptor, walk, disk.size(descriptor))
            while walk.sequence < end and (frame := next(frames, None)) is not None:
                yield _records(frame[1], frame[2], extent.path, frame[0])
        finally:
            disk.close(descriptor)
        if walk.sequence < end and walk.unknown_flags:
            flags = f"a frame at offset {walk.offset} has the flags {walk.unknown_flags:#x}"
            raise UnsupportedFormatError(extent.path, flags)
        if walk.sequence < end:
            raise CorruptionError(extent.path, walk.offset, walk.fault or "the frames end too early")


def _records(header: Header, body: bytes, path: str, offset: int) -> list[Record]:
    try:
        return records(header, body)
    except ValueError as error:
        raise CorruptionError(path, offset, str(error)) from None


def judge(specimen: Specimen, image: Image, outcome: Outcome, left: Image) -> tuple[str, bool]:
    """What the outcome is, and whether the contract allows it; ``left`` is the directory afterwards."""
    error, report, found = outcome
    wrong = _wrong(specimen, image, outcome, left)
    if wrong is not None:
        return wrong, False
    if report is None:
        return "noticed at opening", True
    if error is not None:
        return "noticed when read", True
    if len(found) == len(specimen.records):
        return "without effect", True
    return ("named as a torn tail" if report.cut_bytes else "gone with the end"), True


def _wrong(specimen: Specimen, image: Image, outcome: Outcome, left: Image) -> str | None:
    error, report, found = outcome
    if error is not None and not isinstance(error, NOTICED):
        return f"{type(error).__name__} came out: {error}"
    if found != specimen.records[: len(found)]:
        return "other records than were written"
    if report is None:
        return None if left == image else "refused, but the directory is changed"
    if specimen.must_be_refused(image):
        return "opened, with a manifest, name, header or footer that is damaged"
    if report.cut_bytes and not _is_kept(report, image, left):
        return "a torn tail is not kept as it was"
    return _missing(specimen, image, report, len(found)) if error is None else None


def _missing(specimen: Specimen, image: Image, report: RecoveryReport, found: int) -> str | None:
    if found < specimen.proven(image):
        return f"{len(specimen.records) - found} records are missing without an error"
    if found < len(specimen.records) and not report.cut_bytes and specimen.behind_sound_frames(image).strip(b"\0"):
        return "a torn tail is not named"
    return None


def _is_kept(report: RecoveryReport, image: Image, left: Image) -> bool:
    assert report.cut_from is not None
    assert report.cut_kept_in is not None
    torn = image[Path(report.cut_from).name][report.cut_offset : report.cut_offset + report.cut_bytes]
    return left.get(Path(report.cut_kept_in).name) == torn


class Bench:
    """A directory that is given one state after another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: Image = {}
        path.mkdir()

    def lay(self, image: Image) -> None:
        """Make the directory hold this."""
        for name in self._state.keys() - image.keys():
            (self.path / name).unlink()
        for name, data in image.items():
            if self._state.get(name) != data:
                (self.path / name).write_bytes(data)
        self._state = image

    def read(self) -> Image:
        """What the directory holds now."""
        self._state = read_image(self.path)
        return self._state


def read_image(path: Path) -> Image:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def fast_directory() -> TemporaryDirectory[str]:
    """A directory for many small files: in memory where there is such a place."""
    memory = Path("/dev/shm")
    return TemporaryDirectory(prefix="aquipu-", dir=memory if memory.is_dir() else None)


# the public way


async def through_store(path: str) -> Outcome:
    """Open the store and read all of it as a user does. What can be read must still be there after another commit."""
    found: list[Record] = []
    try:
        store = await Store.open(path, sync_policy=Always(), max_segment_bytes=SEGMENT_BYTES, lock_timeout=0)
    except Exception as error:
        return Outcome(error, None, found)
    async with store:
        try:
            async for record in store.scan():
                found.append(record)  # noqa: PERF401 - what came before an error counts
        except Exception as error:
            return Outcome(error, store.recovery, found)
        receipt = await store.append(b"one more")
    async with Store.open(path, max_segment_bytes=SEGMENT_BYTES, lock_timeout=0) as again:
        assert [record async for record in again.scan(0, receipt.sequence)] == found
        assert (await again.get(receipt.sequence)).data == b"one more"
    return Outcome(None, store.recovery, found)


async def _compare(stores: Sequence[Specimen], cases: Sequence[Case], bench: Bench) -> Tally:
    """Open these both ways."""
    tally = Tally()
    for case in cases:
        image = damaged(stores, case)
        bench.lay(image)
        blocking = observe(str(bench.path))
        bench.read()
        bench.lay(image)
        public = await through_store(str(bench.path))
        left = bench.read()
        if not blocking.agrees(public):
            tally.violated(f"{case.told(stores)}: {public.error!r} through Store, {blocking.error!r} without")
        # The pid in the lock is that of whoever tried last.
        if public.report is None and {**left, LOCK: b""} != {**image, LOCK: b""}:
            tally.violated(f"{case.told(stores)}: refused through Store, but the directory is changed")
        tally.counts["opened through Store as well"] += 1
    return tally


# the run


def run(size: int, seed: int, tick: Tick) -> Tally:
    """Open and judge ``size`` changed stores (0: all there are), in two processes when they are many."""
    stores = specimens()
    rng = Random(seed)
    cases = _chosen(stores, size, rng)
    rng.shuffle(cases)
    tally = Tally()
    judged = _judged_here if len(cases) <= _ALONE else _judged_in_processes
    for some, done in judged(stores, [cases[at : at + _CHUNK] for at in range(0, len(cases), _CHUNK)]):
        tally.add(some)
        tick(done)
    with fast_directory() as directory:
        tally.add(asyncio.run(_compare(stores, cases[:_THROUGH_STORE], Bench(Path(directory, "store")))))
    return tally


def _chosen(stores: Sequence[Specimen], size: int, rng: Random) -> list[Case]:
    """All there are, or so many: first of all the flips, then the few cases, and of the others as many of each kind."""
    few, many = few_cases(stores), many_cases(stores, rng)
    if size:
        flips = int(size * FLIPS_SHARE)
        few = rng.sample(few, min(size - flips, len(few)))
        others = (size - flips - len(few)) // (len(many) - 1)
        for kind, cases in many.items():
            many[kind] = rng.sample(cases, min(flips if kind == "flips" else others, len(cases)))
    return [*few, *chain.from_iterable(many.values())]


def _judged_here(stores: Sequence[Specimen], chunks: list[list[Case]]) -> Iterator[tuple[Tally, int]]:
    for chunk in chunks:
        yield _judged(stores, chunk), len(chunk)


def _judged_in_processes(stores: Sequence[Specimen], chunks: list[list[Case]]) -> Iterator[tuple[Tally, int]]:
    with ProcessPoolExecutor(_PROCESSES, get_context("spawn")) as pool:
        futures = {pool.submit(_judged, stores, chunk): len(chunk) for chunk in chunks}
        for future in as_completed(futures):
            yield future.result(), futures[future]


def _judged(stores: Sequence[Specimen], cases: Sequence[Case]) -> Tally:
    tally = Tally()
    with fast_directory() as directory, _no_hang() as begin:
        bench = Bench(Path(directory, "store"))
        for case in cases:
            begin()
            specimen, image = stores[case.specimen], damaged(stores, case)
            bench.lay(image)
            outcome = observe(str(bench.path))
            verdict, allowed = judge(specimen, image, outcome, bench.read())
            tally.counts["bit flips" if case.kind == "flips" else case.kind] += 1
            if allowed:
                tally.counts[f"{case.kind} {verdict}"] += 1
            else:
                tally.violated(f"{case.told(stores)}: {verdict}")
    return tally


@contextmanager
def _no_hang() -> Iterator[Callable[[], None]]:
    """Call what this gives at the beginning of each case: one that takes for ever ends in a HangError.

    Only the main thread of a process can be interrupted; elsewhere the time limit of the test stands in.
    """
    if threading.current_thread() is not threading.main_thread():
        yield _nothing
        return
    timer, handler = signal.getitimer(signal.ITIMER_REAL), signal.signal(signal.SIGALRM, _interrupt)
    try:
        yield _set_limit
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def _nothing() -> None:
    pass


def _set_limit() -> None:
    signal.setitimer(signal.ITIMER_REAL, _HANG_SECONDS)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise HangError(f"no end within {_HANG_SECONDS} s")
