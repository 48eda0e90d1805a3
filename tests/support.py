"""What the tests of several rooms share: commits made by hand, and files read back."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from aquipu import Store
from aquipu.engine import Commit, CommitResult
from aquipu.local.disk.disk import Disk
from aquipu.local.engine import LocalEngine
from aquipu.local.format.frame import Header, records
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import MANIFEST, UNNAMED, first_sequence_of, segment_name
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, SegmentHeader
from aquipu.local.format.walk import Walk
from aquipu.local.index.search import Search
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.write.journal import Journal
from aquipu.local.write.recovery import RecoveryReport, recover
from aquipu.record import Record
from aquipu.remote.engine import RemoteEngine
from aquipu.runtime.counting import Counters, Latency
from aquipu.statistics import Statistics
from tests.disk import FailingDisk

MIB = 1024 * 1024
NOW = 1_700_000_000_000_000_000
STORE_ID = bytes(range(16))

# commits made by hand


def commit(
    *payloads: bytes,
    sync: bool = True,
    time: int = NOW,
    labels: dict[int, tuple[str, ...]] | None = None,
) -> Commit[Any]:
    """A commit that is ready to be written."""
    made: Commit[Any] = Commit()
    made.payloads += payloads
    made.timestamps += [time] * len(payloads)
    made.labels.update(labels or {})
    made.sync = sync
    return made


def write(journal: Journal, *payloads: bytes, sync: bool = True, time: int = NOW) -> CommitResult:
    """Write one commit of these records, as the worker does, without the `maintain` after it."""
    return journal.write(journal.prepare(commit(*payloads, sync=sync, time=time)))


def open_log(
    path: Path,
    disk: Disk | None = None,
    *,
    max_segment_bytes: int = 64 * MIB,
    store_id: bytes = STORE_ID,
) -> tuple[Journal, RecoveryReport]:
    """Open the log in this directory, or make a new one, as opening a store does once it has the
    lock.
    """
    return recover(
        disk or FailingDisk(),
        str(path),
        max_segment_bytes=max_segment_bytes,
        new_store_id=store_id,
        now=NOW,
    )


# statistics


def untimed(statistics: Statistics) -> Statistics:
    """Without what changes by itself: times, and the space on the disk."""
    empty = Counters()
    return statistics._replace(
        append_seconds=empty.append_times.snapshot(),
        commit_records=empty.commit_records.snapshot(),
        sync_seconds=Latency().syncs.snapshot(),
        oldest_unsynced_seconds=0.0,
        under_way_seconds=0.0,
        slowest_sync_seconds=0.0,
        disk_bytes=0,
        free_bytes=None,
    )


# files read back


def segments_in(path: Path) -> list[Path]:
    """The segment files of a store, in their order."""
    return sorted(file for file in path.iterdir() if first_sequence_of(file.name) is not None)


def segment_in(path: Path, first_sequence: int = 0) -> Path:
    """The file of the segment that begins with this sequence."""
    return path / segment_name(first_sequence)


def header_in(path: Path, first_sequence: int = 0) -> SegmentHeader:
    """The header of the segment that begins with this sequence."""
    manifest = Manifest.decode((path / MANIFEST).read_bytes())
    data = segment_in(path, first_sequence).read_bytes()
    return SegmentHeader.decode(data, manifest.store_id, first_sequence)


def frames_in(path: Path, first_sequence: int = 0) -> list[tuple[int, Header, bytes]]:
    """The frames of one segment as (offset, header, body), up to the first that does not check."""
    header = header_in(path, first_sequence)
    walk = Walk(
        seed=header.seed, offset=SEGMENT_HEADER_BYTES, sequence=first_sequence, link=header.link
    )
    walk.feed(segment_in(path, first_sequence).read_bytes()[SEGMENT_HEADER_BYTES:])
    return list(walk)


def records_in(path: Path) -> list[Record]:
    """Every record of a store, read from its files by themselves."""
    firsts = [first_sequence_of(file.name) for file in segments_in(path)]
    frames = [frame for first in firsts if first is not None for frame in frames_in(path, first)]
    return [record for _, header, body in frames for record in records(header, body)]


def data_in(path: Path) -> list[bytes]:
    """The data of every record of a store."""
    return [record.data for record in records_in(path)]


def snapshot(path: Path) -> dict[str, tuple[bytes, int]]:
    """Everything about a directory that a write would change: names, bytes and times of
    modification.
    """
    found = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.iterdir()}
    return found | {".": (b"", path.stat().st_mtime_ns)}


def flip(file: Path, offset: int, bit: int = 0) -> None:
    """Turn one bit of a file over."""
    data = bytearray(file.read_bytes())
    data[offset] ^= 1 << bit
    file.write_bytes(data)


def _if_there(source: str, to: str) -> str:
    """Copy a file, unless it has got another name meanwhile: the store may be at work."""
    with suppress(FileNotFoundError):
        shutil.copy2(source, to)
    return to


def copy_of(path: Path, name: str) -> Path:
    """A copy of a store's directory beside it, under this name.

    A living store may be building a table meanwhile, and give it its name at any moment: what is
    unnamed is left out.
    """
    unnamed = shutil.ignore_patterns(f"*.relations{UNNAMED}")
    copied = shutil.copytree(path, path.parent / name, ignore=unnamed, copy_function=_if_there)
    return Path(copied)


def put_back(kept: Path, path: Path) -> None:
    """Let a directory hold what was kept of it, in the files that it has: no copies of them."""
    for file in path.iterdir():
        if not (kept / file.name).exists():
            file.unlink()
    for file in kept.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    shutil.rmtree(kept)


def engine_of(store: Store) -> LocalEngine:
    """What is behind a store that this process writes."""
    engine = store._engine
    assert isinstance(engine, LocalEngine)
    return engine


def remote_engine_of(store: Store) -> RemoteEngine:
    """What is behind a store that a daemon writes."""
    engine = store._engine
    assert isinstance(engine, RemoteEngine)
    return engine


def searched(
    search: Search,
    view: Snapshot,
    segment: SegmentRef,
    start: int | None = None,
    stop: int | None = None,
    *,
    reverse: bool = False,
) -> list[Record]:
    """The records that a search finds in one segment, from start up to stop."""
    start = segment.first_sequence if start is None else start
    entered = search.enter(view, segment, start, view.end_of(segment) if stop is None else stop)
    found: list[Record] = []
    with segment.open(view.disk) as reader:
        while not entered.is_done:
            frames = entered.read(reader, reader.index(), reverse)
            for records in entered.records(frames, reverse):
                found += records
    return found
